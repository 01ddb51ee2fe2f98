"""The base class of components that write logged values to a store."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ttl_core.arguments import one_of, whole_number
from ttl_core.components.component import LoopComponent, own_name
from ttl_core.errors import StateError
from ttl_core.files import DirectoryLock, claim_directory
from ttl_core.hookspecs import hookimpl
from ttl_core.log_record import LogRecord, convert, shared_record
from ttl_core.references import MARKS
from ttl_core.state.accepted import check_accepted
from ttl_core.write_queue import WriteQueue

if TYPE_CHECKING:
    from pathlib import Path

    from ttl_core.loop import TrainTestLoop

_log = logging.getLogger(__name__)

Status = Literal["complete", "failed", "interrupted"]
"""How a run has ended: an exception is a failure, SystemExit and KeyboardInterrupt are not."""


class Logger(LoopComponent, ABC):
    """A base class of components that write logged values to a store, such as a file or a server.

    It collects what is logged in training, and what is logged for whole epochs, converts it to
    Python numbers a few times a second, and hands it to `write()`. If that fails, training
    continues, and what was not written is written later. What is logged while no run is under way
    is written in the next run. When a run is resumed, `seek()` removes what was written after the
    state was taken, as it will be logged again.

    A subclass implements `write()`, and `position()` and `seek()` if its store can be shortened;
    `open()` and `close()` where it has something to open or close.

    Args:
        level: "epoch" to write the values of whole epochs only, "batch" for those of batches only;
            both by default.
        every: write the values of batches at each so many steps.

    Attributes:
        in_background: a subclass sets it to True if its store may take long, as a server that does
            not answer. `open()`, `write()` and `close()` are called in a thread then, which lives
            as long as a run, and training waits for it only when a state is taken and at the end.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> import torch
        >>> from ttl_core import Logger, TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> class Print(Logger):
        ...     def write(self, records):
        ...         for record in records:
        ...             print(record.step, record.level, list(record.values))
        >>> data = ComponentConformance.make_data()
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), Print(every=2)], data)
        >>> loop.train(n_epochs=1)
        0 batch ['train/loss']
        2 batch ['train/loss']
    """

    in_background: ClassVar[bool] = False

    main_only = True  # one store for all processes of a group

    # an __init__ of a subclass that does not call this one leaves these as they are
    level: Literal["batch", "epoch"] | None = None
    every: int = 1
    _is_open = False
    _loop: TrainTestLoop | None = None
    _lock: DirectoryLock | None = None

    def __init__(self, *, level: Literal["batch", "epoch"] | None = None, every: int = 1) -> None:
        self.level = level and one_of("level", level, ("batch", "epoch"))
        self.every = whole_number("every", every, at_least=1)

    @cached_property
    def _queue(self) -> WriteQueue:
        return WriteQueue(self._open_and_write, partial(own_name, self), self.in_background)

    @cached_property
    def _unwritable(self) -> set[str]:
        """The names of values that were left out."""
        return set()

    # -- what a subclass implements ---------------------------------------------------------

    @abstractmethod
    def write(self, records: Sequence[LogRecord]) -> None:
        """Write records, in the order in which they were logged.

        If it raises an exception it is called again later with the same records, and more.

        Args:
            records: at least one record; those of one step may come in several calls.
        """

    def open(self, loop: TrainTestLoop) -> None:
        """Prepare for the first `write()` of a run, after `seek()` if the run was resumed."""

    def close(self, status: Status) -> None:
        """Release what `open()` has opened, at the end of a run; another run may follow.

        Args:
            status: how the run has ended.
        """

    def position(self) -> Any:
        """Return how much has been written, of types that `torch.load` accepts; None by default."""
        return None

    def seek(self, position: Any) -> None:
        """Remove what was written after a position, as it will be logged again.

        Args:
            position: what `position()` returned.
        """

    def claim_directory(self, component: str, directory: Path) -> None:
        """Check that a directory can be written to, and keep other runs out of it in this run.

        For subclasses that write files: call it in on_train_begin and on_test_begin, before work
        starts, and in `open()`.

        Args:
            component: the name of the component, for errors.
            directory: the directory, which is created.

        Raises:
            ArgumentError: it cannot be created, or not be written to.
            RunError: another run writes there, or another component of that name.
        """
        if self._lock is None:
            self._lock = claim_directory(component, directory)

    # -- collecting -------------------------------------------------------------------------

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Write what is left when the run ends, and close the store."""
        self._loop = loop
        self._queue.begin_run()
        status: Status = "complete"
        try:
            return (yield)
        except BaseException as exception:
            status = "failed" if isinstance(exception, Exception) else "interrupted"
            raise
        finally:
            self._queue.end_run()
            if self._is_open:
                self._is_open = False
                self._close(status)
            self._queue.close()
            if self._lock is not None:
                self._lock.release()
            self._loop = self._lock = None

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Collect the values."""
        if self.level is not None and level != self.level:
            return
        if level == "batch" and (not loop.is_training or loop.global_step % self.every):
            return
        self.collect(shared_record(loop, metrics, level))

    def collect(self, record: LogRecord) -> None:
        """Keep a record for the next `write()`; for subclasses with values of their own.

        Args:
            record: the record.
        """
        self._queue.add(record)

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Write what was logged last, where nothing is logged for a while."""
        self._queue.write_if_due()

    # -- writing ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what is pending, if the store takes it, and wait until it has.

        While no run is under way nothing is written.
        """
        self._queue.flush()

    def _open_and_write(self, records: Sequence[LogRecord]) -> None:
        if not self._is_open:
            assert self._loop is not None  # records are written while a run is under way
            self.open(self._loop)
            self._is_open = True
        self.write(records)

    def _close(self, status: Status) -> None:
        try:
            self._queue.call(partial(self.close, status))
        except Exception as error:  # what is lost is no reason for a run to fail in the end
            _log.error(
                "%s: the store cannot be closed: %s: %s",
                own_name(self),
                type(error).__name__,
                error,
            )

    def skip(self, name: str, reason: str) -> None:
        """Say once that the values of a name are not written.

        Args:
            name: the name.
            reason: why.
        """
        if name not in self._unwritable:
            self._unwritable.add(name)
            _log.warning("%s: %r is not written: %s", own_name(self), name, reason)

    @staticmethod
    def configuration(loop: TrainTestLoop) -> dict[str, Any]:
        """Return the configuration of the enabled components, flat, for stores that show it.

        Args:
            loop: the loop.

        Returns:
            The value of each argument, a number, a text or None, by the component's name and its
            own, as "checkpoint.keep"; "components" are the names of the components.
        """
        enabled = [entry for entry in loop.manifest() if entry["enabled"]]
        names = ", ".join(entry["name"] for entry in enabled)
        flat = {
            name: value
            for entry in enabled
            for name, value in _flat(entry["name"], entry["config"])
        }
        return {"components": names, **flat}

    # -- state ------------------------------------------------------------------------------

    def fork(self) -> None:
        """Leave it out of forks of the loop, which are not logged."""

    def state_dict(self) -> dict[str, Any]:
        """Return how much has been written, after writing what is pending, and what is not."""
        queue = self._queue
        queue.settle()
        if not queue.is_failing:  # else trying again might take long
            queue.flush()
        with queue.turn:  # so that no thread writes meanwhile
            pending = list(queue.records)
            convert(pending)
            return {"position": self.position(), "pending": [self._saved(r) for r in pending]}

    def _saved(self, record: LogRecord) -> dict[str, Any]:
        """Return a record as a state holds it, without values of types that none can hold."""
        others = {}
        for name, value in record.others.items():
            try:
                check_accepted(value, name, own_name(self))
            except StateError:
                kind = type(value).__name__
                reason = f"it waits for the store, and a state cannot hold a {kind}"
                self.skip(name, f"{reason}: a run that resumes from it lacks it")
            else:
                others[name] = value
        kept = {key: getattr(record, key) for key in ("level", "step", "epoch", "time", "values")}
        return {**kept, "others": others}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remove what was written after the state was taken.

        Args:
            state: what `state_dict()` returned.
        """
        queue = self._queue
        queue.settle()  # in the run that rewinds, a thread may be writing
        with queue.turn:
            self.seek(state["position"])
            queue.records = [
                LogRecord(
                    {**r["values"], **r.get("others", {})},  # older states have no others
                    r["level"],
                    r["step"],
                    r["epoch"],
                    r["time"],
                )
                for r in state["pending"]
            ]


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the single values in a value that JSON can hold, by their names in it."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(name if key in MARKS else f"{name}.{key}", part)
    elif value is None or isinstance(value, int | float | str):
        yield name, value
    else:
        yield name, json.dumps(value)
