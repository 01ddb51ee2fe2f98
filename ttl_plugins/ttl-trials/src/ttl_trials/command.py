"""The command `ttl compare`: what single components change, in a loop that a script makes."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from ttl_core import ArgumentError, TrainTestLoop
from ttl_trials.compare import compare
from ttl_trials.plots import check_can_plot


def command(parser: argparse.ArgumentParser) -> None:
    """Compare variants of a run that differ by one component each.

    Args:
        parser: the parser.
    """
    parser.description = (
        "Train variants of a loop from one state and on the same data, in each of which one "
        "component is toggled, and print what that changes in the loss, and in that of a "
        "validation at the end, where the loop has validation data. A component that is enabled "
        "is disabled, one that is disabled is enabled, and another name is added."
    )
    parser.add_argument(
        "loop",
        metavar="FILE.py:FUNCTION",
        help="a function without arguments that returns the loop; MODULE:FUNCTION works too",
    )
    parser.add_argument("names", metavar="NAME", nargs="+", help="the components to toggle")
    parser.add_argument(
        "--steps",
        metavar="N",
        type=int,
        default=200,
        help="steps of each variant (default: %(default)s)",
    )
    parser.add_argument(
        "--without",
        metavar="NAME",
        action="append",
        default=[],
        help="a component to leave out of all variants; may be repeated",
    )
    parser.add_argument("--plot", metavar="FILE.png", help="draw the losses and differences")
    parser.set_defaults(run=_compare)


def _compare(given: argparse.Namespace) -> int:
    if given.plot is not None:
        check_can_plot(given.plot)
    loop = load_loop(given.loop)
    found = compare(loop, *given.names, steps=given.steps, without=given.without)
    print(found)
    if given.plot is not None:
        found.plot(given.plot)
        print(f"{given.plot} shows the losses and their differences")
    return 0


def load_loop(reference: str) -> TrainTestLoop:
    """Return the loop that a function of a script or module returns.

    Args:
        reference: "FILE.py:FUNCTION", or "MODULE:FUNCTION".

    Raises:
        ArgumentError: there is no such function, it needs arguments, or it returns something else.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise ArgumentError(
            f"{reference!r} names no function: give FILE.py:FUNCTION or MODULE:FUNCTION, as "
            "train.py:make_loop"
        )
    function: Any = getattr(_module(place), name, None)
    if not callable(function):
        raise ArgumentError(
            f"{place} has no function {name!r}. Write one without arguments that returns the "
            "loop, and call train() elsewhere"
        )
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ArgumentError(
            f"{reference} cannot be called without arguments: {error}. Write a function that "
            f"calls it with some: def make(): return {name}(...)"
        ) from error
    loop = function()
    if not isinstance(loop, TrainTestLoop):
        raise ArgumentError(
            f"{reference} returned a {type(loop).__name__}, but has to return a TrainTestLoop"
        )
    return loop


def _module(place: str) -> Any:
    """Return a module, imported as if a program in its folder, or the current one, did."""
    path = Path(place).absolute()
    if path.suffix != ".py":
        sys.path.insert(0, str(Path.cwd()))
        if importlib.util.find_spec(place.partition(".")[0]) is None:
            raise ArgumentError(f"there is no module {place!r} here, and none is installed")
        return importlib.import_module(place)
    if not path.is_file():
        raise ArgumentError(f"there is no file {place}")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # of a file that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # for what is pickled, as worker processes need
    spec.loader.exec_module(module)
    return module
