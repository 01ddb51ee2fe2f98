"""Failing runs: the note that attributes an exception, and on_exception for every component."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, NamedTuple

import pluggy

from ttl_core.errors import TTLError
from ttl_core.hooks.compilation import find_running
from ttl_core.hooks.member import Member, Plugin
from ttl_core.hooks.tracebacks import is_passed

if TYPE_CHECKING:
    from ttl_core.hooks.manager import HookManager


class StopRun(BaseException):
    """The exception that travels from stop() to the run that it ends.

    Args:
        cause: what has called it, and why.
    """

    def __init__(self, cause: object = None) -> None:
        super().__init__()
        self.cause = cause


class EpochPosition(NamedTuple):
    """Where an epoch failed.

    Attributes:
        epoch_desc: its phase.
        epoch_num: its number.
        batch_num: the number of the batch under way; None before the first.
        batch: what it is, as text.
    """

    epoch_desc: str
    epoch_num: int
    batch_num: int | None
    batch: str


_POINTS_OF_MODEL = ("on_forward_pass", "on_loss_compute")
"""Where an error is most often about the shapes and types of a batch."""


class Attribution:
    """The attribution of the exceptions of a loop to components, as notes on them.

    An exception is attributed where it leaves an epoch, a validate() or a run; what has been
    attributed further inside is left as it is.

    Args:
        find_candidates: returns all implementations that may have raised, the likeliest first.
    """

    def __init__(self, find_candidates: Callable[[], Sequence[pluggy.HookImpl]]) -> None:
        self._find_candidates = find_candidates
        self._attributed: BaseException | None = None

    def reset(self) -> None:
        """Release the exception of the run that has ended."""
        self._attributed = None

    def attribute(self, exception: BaseException, position: EpochPosition | None = None) -> None:
        """Add a note to an exception that says which component raised it, where and when.

        Args:
            exception: what an epoch or a run is failing with, in an except clause of it.
            position: where the epoch failed; None outside epochs.
        """
        if isinstance(exception, StopRun) or exception is self._attributed:
            return
        self._attributed = exception
        with contextlib.suppress(Exception):  # nothing may hide the exception
            self._attribute(exception, position)

    def _attribute(self, exception: BaseException, position: EpochPosition | None) -> None:
        if _find_note(exception) is not None or _is_explained(exception):
            return
        impl = self._find_deepest(_raising(exception.__traceback__))
        if impl is not None:
            note = f"raised by {_where(impl)}"
        elif isinstance(exception, TTLError):
            return  # the loop's own error, which is complete
        elif position is not None:
            note = "raised by the data, not by a component"
        else:
            note = "raised by the loop, not by a component"
        if position is not None:
            note += f", {position.epoch_desc} epoch, epoch_num={position.epoch_num}"
            if position.batch_num is not None:
                note += f", {'' if impl else 'after '}batch_num={position.batch_num}"
        add_note(exception, note)
        is_of_batch = impl is not None and impl.opts["specname"] in _POINTS_OF_MODEL
        if position is not None and is_of_batch and not isinstance(exception, TTLError):
            add_note(exception, f"the batch is {position.batch}")

    def find_caller(self) -> Member | None:
        """Return the component that calls what calls this; None if none does."""
        caller = self._find_calling()
        return None if caller is None else _member(caller)

    @contextlib.contextmanager
    def nested(self) -> Iterator[None]:
        """Attribute what leaves a with block in a nested validate(), and name what called it."""
        try:
            yield
        except BaseException as exception:
            self.attribute(exception)
            with contextlib.suppress(Exception):
                caller, index = self._find_calling(), _find_note(exception)
                if caller is not None and index is not None:
                    exception.__notes__[index] += f", in a validate() called by {_where(caller)}"
            raise

    def _find_calling(self) -> pluggy.HookImpl | None:
        """Return the innermost implementation that is running; None if none is."""
        with contextlib.suppress(Exception):  # knowing it is worth no failure
            stack = list(traceback.walk_stack(sys._getframe(1)))
            return self._find_deepest(reversed(stack))
        return None

    def _find_deepest(self, frames: Iterable[tuple[FrameType, int]]) -> pluggy.HookImpl | None:
        """Return the implementation that runs in the innermost of some frames, outermost first."""
        candidates = self._find_candidates()
        found: pluggy.HookImpl | None = None
        for frame, line in frames:
            # one that is running already is preferred to others that share its code
            several = [found, *candidates] if found else candidates
            found = find_running(frame, line, several) or found
        return found


def report_failure(manager: HookManager, loop: object, exception: BaseException) -> None:
    """Call on_exception of every component; a failure in it becomes a note on `exception`.

    Args:
        manager: the manager of the loop.
        loop: the loop.
        exception: what its run is failing with.
    """
    implementations = manager.implementations("on_exception")
    wrappers = [impl for impl in implementations if impl.wrapper]
    waiting = [impl for impl in implementations if not impl.wrapper]
    given = {"loop": loop, "exception": exception}

    @contextlib.contextmanager
    def noting(component: str) -> Iterator[None]:
        try:
            yield
        except BaseException as second:
            what = f"{type(second).__name__}: {second}"
            add_note(exception, f"{component} then failed in on_exception: {what}")

    def call_waiting() -> None:
        while waiting:
            impl = waiting.pop(0)
            with noting(str(_member(impl))):
                impl.function(*(given[name] for name in impl.argnames))

    with noting("a wrapper"):
        if implementations:
            around = manager.compile_around("on_exception", tuple(given), wrappers)
            around(*given.values(), call_waiting)
    call_waiting()  # where a wrapper failed before its yield


def _raising(entry: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of a traceback, without wrappers that the exception only passed through."""
    while entry is not None:
        if not is_passed(entry) and not is_passed(entry.tb_next):  # the latter is driven by it
            yield entry.tb_frame, entry.tb_lineno
        entry = entry.tb_next


def add_note(exception: BaseException, note: str) -> None:
    """Add a note of ttl's to an exception, if it takes notes."""
    with contextlib.suppress(Exception):  # an exception may have made its notes unusable
        exception.add_note(f"ttl: {note}")


def _find_note(exception: BaseException) -> int | None:
    """Return the index of the note that attributes an exception, or None."""
    notes = getattr(exception, "__notes__", None)
    if isinstance(notes, list):
        for index, note in enumerate(notes):
            if str(note).startswith("ttl: raised by"):
                return index
    return None


def _is_explained(exception: BaseException) -> bool:
    """Return whether a component that ends the process has said why, in a note."""
    is_exit = isinstance(exception, KeyboardInterrupt | SystemExit)
    return is_exit and bool(getattr(exception, "__notes__", None))


def _where(impl: pluggy.HookImpl) -> str:
    return f"{_member(impl)} in {impl.opts['specname']}"


def _member(impl: pluggy.HookImpl) -> Member:
    assert isinstance(impl.plugin, Plugin)
    return impl.plugin.member
