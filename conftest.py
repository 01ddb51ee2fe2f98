"""What tests everywhere share; the Python examples of every Markdown page run as tests."""

import os
import signal

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


@pytest.fixture(scope="module")
def one_thread():
    """Compute in one thread: models are too small for more, which would wait for each other."""
    import torch  # most tests of the documentation need none

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
