"""What tests everywhere share; the Python examples of every Markdown page run as tests."""

import gc
import os
import signal
import sys
import weakref

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

# Before torch is imported, here or in a program that a test starts. Models are too small for more
# threads, and those of processes that run side by side (-n 2) wait for each other: it takes four
# times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell ignores ctrl-C for what it starts in the background, and so would the programs that tests
# start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["*.md"]
).pytest()


@pytest.hookimpl(wrapper=True, specname="pytest_collect_file")
def skip_modules_without_examples(file_path):
    """Leave out doctests of modules that have none: each would be imported and searched."""
    collectors = yield
    if file_path.suffix == ".py" and ">>> " not in file_path.read_text():
        return [each for each in collectors if type(each).__name__ != "DoctestModule"]
    return collectors


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Keep the garbage collector from what lives until the end: thousands of tests, and torch.

    It would come past these a million objects in each collection, which takes half a second.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


_with_workers = weakref.WeakSet()
"""Iterators of loaders with workers."""


def pytest_runtest_setup():
    """Note the iterators of loaders that are created from here on."""
    for module, name in (
        ("torch.utils.data.dataloader", "_MultiProcessingDataLoaderIter"),
        (
            "torchdata.stateful_dataloader.stateful_dataloader",
            "_StatefulMultiProcessingDataLoaderIter",
        ),
    ):
        cls = getattr(sys.modules.get(module), name, None)
        if cls is not None and "_is_noted" not in vars(cls):
            cls._is_noted, cls.__init__ = True, _noting(cls.__init__)


def _noting(function):
    def init(self, *args, **kwargs):
        function(self, *args, **kwargs)
        _with_workers.add(self)

    return init


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """End the workers that are left: where an iterator is garbage, torch waits 5 s for each."""
    for iterator in list(_with_workers):
        iterator._shutdown_workers()
    _with_workers.clear()


@pytest.fixture(scope="module")
def one_thread():
    """Compute in one thread: models are too small for more, which would wait for each other."""
    import torch  # most tests of the documentation need none

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
