"""Writing checkpoints, at once or in a thread, and announcing them.

What is being written, what of it others know, and what has failed change together, so they are in
one class, which is a little longer than others; files and directories are in other modules.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.finite import is_finite
from ttl_checkpoint.manifest import describe
from ttl_checkpoint.retention import outdated
from ttl_checkpoint.shard_files import GroupSave, Record, problem_of_directory
from ttl_checkpoint.store import Store
from ttl_core import is_sharded, local_part, map_nested
from ttl_core.arguments import user_stacklevel

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)
_FAILED = "checkpoint-failed"
"""What a process announces whose part of a checkpoint could not be written by its thread."""
_N_CRASHES = 2  # directories crash-... that are kept


class Writer:
    """A writer of checkpoints that announces each one on the disk, and removes outdated ones.

    Args:
        store: the directory of checkpoints.
        asynchronous: whether to write in a thread while training continues.
        keep: how many to keep besides the best one; None for all.
        mode: whether less ("min") or more ("max") of the monitored metric is better.
        on_failure: whether to raise ("raise") or to warn ("warn") where one cannot be written.
        on_written: is called in the thread when it has written one.

    Attributes:
        newest: the checkpoint that was announced last; None before the first.
    """

    def __init__(
        self,
        store: Store,
        *,
        asynchronous: bool,
        keep: int | None,
        mode: Literal["min", "max"],
        on_failure: Literal["raise", "warn"],
        on_written: Callable[[], None],
    ) -> None:
        self.newest: Path | None = None
        self._store = store
        self._asynchronous = asynchronous
        self._keep = keep
        self._mode = mode
        self._on_failure = on_failure
        self._on_written = on_written
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[Path | None] | None = None  # what the thread is writing
        self._together: GroupSave | None = None  # of which not all processes know the outcome
        self._is_failure_announced = False
        self._copy: dict[str, Any] | None = None  # an earlier state, whose memory is reused

    def open(self, loop: TrainTestLoop) -> None:
        """Check that checkpoints can be written.

        All processes of a group have to call this; the main one writes, unless the model is
        distributed: then each does.

        Args:
            loop: the loop.

        Raises:
            CheckpointError: they cannot, and `on_failure` is "raise".
            RunError: another run writes to the directory.
        """
        group, error = loop.group, None
        try:
            if group.is_main:
                self._store.open()
        except CheckpointError as failure:
            error = failure
        if group.size > 1 and any(map(is_sharded, loop.model.parameters())):
            error = group.broadcast(error) or problem_of_directory(group, self._store.directory)
        if error is not None:
            self._fail(error)

    def close(self) -> None:
        """Wait for the thread, and release the directory and the memory."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = self._pending = self._copy = self._together = None
        self._store.close()

    def save(self, loop: TrainTestLoop, *, reason: str, **about: Any) -> Mapping[str, Any]:
        """Write the state of a loop; no earlier one may be pending, see `finish`.

        All processes of a group have to call this; the main one writes, and of distributed tensors
        each process its parts.

        Args:
            loop: the loop.
            reason: why it is saved; for "end" it need not be at a safe point.
            **about: what else the manifest says: "run", "best" and more, see `describe`.

        Returns:
            The position at which the state was taken.
        """
        state = loop.state_dict(
            copy=self._asynchronous,
            out=self._copy,
            allow_unsafe=reason == "end",
            of_group=True,
            sharded=True,
        )
        position: Mapping[str, Any] = state["position"]
        is_together = "parts" in state
        if not (loop.group.is_main or is_together):
            return position
        manifest = describe(loop, state, reason=reason, **about)
        arguments = state, manifest, _buffer_names(loop), _is_unproven(loop)
        if self._asynchronous:
            self._copy = {**state}
        if not is_together:
            self._start(loop, partial(self._write, *arguments))
            return position
        try:
            together = GroupSave(loop.group, self._store, manifest, state)
        except CheckpointError as error:
            self._fail(error)
            return position
        write = partial(self._write_together, together, *arguments)
        if self._asynchronous:
            self._together, self._is_failure_announced = together, False
            self._start(loop, partial(write, collect=together.exchange))
        else:
            self._start(loop, partial(write, collect=loop.group.gather))
        return position

    def _start(self, loop: TrainTestLoop, write: Callable[[], Path | None]) -> None:
        """Write, in the thread if it is asynchronous."""
        if not self._asynchronous:
            self._announce(loop, write)
            return
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending = self._thread.submit(write)
        self._pending.add_done_callback(lambda _: self._on_written())

    def save_held(
        self, loop: TrainTestLoop, state: Mapping[str, Any], *, reason: str, **about: Any
    ) -> None:
        """Write a state that was taken at the last safe point; none may be pending.

        Args:
            loop: the loop, whose counters are still those of that safe point.
            state: the state.
            reason: why it is saved.
            **about: as for `save`.
        """
        manifest = describe(loop, state, reason=reason, **about)
        arguments = state, manifest, _buffer_names(loop), _is_unproven(loop)
        self._announce(loop, partial(self._write, *arguments))

    def poll(self, loop: TrainTestLoop) -> None:
        """Announce what the thread was writing, if that is done.

        Where that has failed, and all processes have written, they learn at one safe point that
        `finish` has to tell them.
        """
        if _FAILED in loop.group.announced:
            self.finish(loop)
        if self._pending is None or not self._pending.done():
            return
        if self._together is None or self._pending.exception() is None:
            self._settle(loop)
        elif not self._is_failure_announced:
            self._is_failure_announced = True
            loop.group.announce(_FAILED)

    def finish(self, loop: TrainTestLoop, *, alone: bool = False) -> None:
        """Wait for what the thread is writing, if anything, and announce it.

        All processes of a group have to call this at the same point.

        Args:
            loop: the loop.
            alone: whether others may not call it, as this process has failed.
        """
        together = self._together
        if together is not None and not alone:
            loop.group.barrier()  # which fails at once where a process has ended
            self._finish_together(loop)
            return
        if together is not None:
            together.hurry()
        self._together = None
        self._settle(loop)

    def _finish_together(self, loop: TrainTestLoop) -> None:
        """Wait for what all processes are writing, and tell each where that has failed."""
        # Others come here when they have written, and if one ends instead, waiting for it fails at
        # once; the thread of the main process would wait for its files.
        if loop.group.is_main:
            loop.group.barrier()
        error = self._pending.exception() if self._pending is not None else None
        if not loop.group.is_main:
            loop.group.barrier()
        if error is None:
            self._settle(loop)
        elif not isinstance(error, CheckpointError):
            raise error
        self._pending = None
        errors = [each for each in loop.group.gather(error and str(error)) if each]
        self._together = None
        if errors:  # that of the main process first, which knows of all others
            self._fail(CheckpointError(errors[0]))

    def _settle(self, loop: TrainTestLoop) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._announce(loop, pending.result)

    def save_crash(self, loop: TrainTestLoop, **about: Any) -> None:
        """Write the state of a loop that has failed, to inspect; no run resumes from it.

        Of tensors of which each process has a part it has that of this one, as the others are
        elsewhere.
        """
        state = {**loop.state_dict(copy=False, allow_unsafe=True), "position": None}
        state = map_nested(lambda v: local_part(v) if isinstance(v, torch.Tensor) else v, state)
        manifest = describe(loop, state, reason="exception", **about)
        if loop.group.size > 1:
            manifest["rank"] = loop.group.rank
        manifest["finite"] = is_finite(state["model"], _buffer_names(loop))
        path = self._store.write(state, manifest, crash=True)
        _log.warning("checkpoint: %s holds the state at the failure, to inspect", path)
        for old in self._store.crashes()[_N_CRASHES:] if loop.group.is_main else ():
            self._store.remove(old)

    def _write(
        self,
        state: Mapping[str, Any],
        about: dict[str, Any],
        buffers: Collection[str],
        is_unproven: bool,
    ) -> Path:
        self._store.open()  # where that failed before
        about["finite"] = is_finite(state["model"], buffers)  # in the thread, if there is one
        path = self._store.write(state, about, crash=False, is_unproven=is_unproven)
        self._remove_outdated(about)
        return path

    def _write_together(
        self,
        together: GroupSave,
        state: Mapping[str, Any],
        about: dict[str, Any],
        buffers: Collection[str],
        is_unproven: bool,
        *,
        collect: Callable[[Record], list[Record]],
    ) -> Path | None:
        """Write the file of this process; in the main one, commit what all have written.

        Args:
            together: what this process does for it.
            state: the state without the parts.
            about: what the manifest says about it.
            buffers: the names of the buffers of the model.
            is_unproven: whether it gets the mark that it is.
            collect: returns the records of all processes for that of this one.
        """
        is_main = together.is_main
        try:
            records = collect(together.write(state["model"], buffers))
            together.check(records)
            if not is_main:
                return None
            files = together.files(records)
        except BaseException:
            if is_main:
                self._store.discard(together.path)
            raise
        about["finite"] = all(each["finite"] for each in records)
        path = self._store.commit(together.path, state, about, files, is_unproven=is_unproven)
        self._remove_outdated(about)
        return path

    def _remove_outdated(self, about: Mapping[str, Any]) -> None:
        try:
            for old in outdated(self._store, about["run"], self._keep, self._mode):
                self._store.remove(old)
        except OSError as error:
            _log.warning("checkpoint: an old one could not be removed: %s", error)

    def _announce(self, loop: TrainTestLoop, write: Callable[[], Path | None]) -> None:
        try:
            path = write()
        except CheckpointError as error:
            self._fail(error)
            return
        if path is None:  # it is for the main process to announce
            return
        self.newest = path
        _log.info("checkpoint: saved %s", path)
        loop.hook.checkpoint_saved(loop=loop, path=path)

    def _fail(self, error: CheckpointError) -> None:
        if self._on_failure == "raise":
            raise error
        warnings.warn(str(error), UserWarning, stacklevel=user_stacklevel())


def _buffer_names(loop: TrainTestLoop) -> Collection[str]:
    return {name for name, _ in loop.model.named_buffers(remove_duplicate=False)}


def _is_unproven(loop: TrainTestLoop) -> bool:
    return loop.group.is_main and any(loop.hook.checkpoint_is_unproven(loop=loop))
