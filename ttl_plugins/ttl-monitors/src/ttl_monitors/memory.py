"""The component `memory`."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import LoopComponent, hookimpl
from ttl_core.arguments import absolute_path, flag, whole_number
from ttl_monitors.sizes import as_text, describe_sizes, memory_in_use

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

# of RuntimeErrors, which is what the allocators for other devices than CUDA raise
_MESSAGES = ("out of memory", "not enough memory", "can't allocate memory")


class Memory(LoopComponent):
    """A monitor of memory, which says what was largest when a run has run out of it.

    Each so many steps it logs, at batch level and in MiB: "memory/host-mib" and
    "memory/host-peak-mib", what this process has and has had at most; for each device of the model
    "memory/cuda:0-mib" and "memory/cuda:0-peak-mib", what tensors have there.

    A run that fails by running out of memory gets an error note with the sizes of parameters,
    gradients, optimizer states, the batch and others. On CUDA, PyTorch's snapshot of the memory is
    saved too, which https://pytorch.org/memory_viz shows.

    Args:
        every: log at each so many steps.
        directory: where the snapshot is saved; by default the folder of the run. Without either
            there is none.
        history: whether CUDA memory is recorded with the Python stack of each allocation, so that
            the snapshot shows these. It makes each allocation slower.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> class Fail(LoopComponent):
        ...     def on_backward_pass(self, loop):
        ...         raise MemoryError
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), Memory(), Fail()],
        ...                      ComponentConformance.make_data())
        >>> try:
        ...     loop.train(n_epochs=1)
        ... except MemoryError as error:
        ...     print(error.__notes__[-1].split(";")[0])
        memory: what the loop holds, the largest first: parameters 296 bytes (0.weight 128 bytes)
    """

    def __init__(
        self,
        *,
        every: int = 50,
        directory: str | os.PathLike[str] | None = None,
        history: bool = False,
    ) -> None:
        self.every = whole_number("every", every, at_least=1)
        self.directory = None if directory is None else absolute_path("directory", directory)
        self.history = flag("history", history)

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Record the history of CUDA memory, if that is requested."""
        if not self.history or not torch.cuda.is_available():
            return (yield)
        torch.cuda.memory._record_memory_history()
        try:
            return (yield)
        finally:
            torch.cuda.memory._record_memory_history(enabled=None)

    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Log what is in use, if it is time to."""
        if loop.global_step % self.every == 0:
            in_use = memory_in_use(loop.model)
            loop.log({f"memory/{name}-mib": size / 2**20 for name, size in in_use})

    def on_exception(self, loop: TrainTestLoop, exception: BaseException) -> None:
        """Say what was largest, if there was not enough memory."""
        if not _is_out_of_memory(exception):
            return
        in_use = ", ".join(f"{name} {as_text(size)}" for name, size in memory_in_use(loop.model))
        note = f"memory: what the loop holds, the largest first: {describe_sizes(loop)}"
        note += f"\nmemory: in use: {in_use}. What else there is are activations and others"
        if any(parameter.is_cuda for parameter in loop.model.parameters()):
            note += f"\nmemory: {self._save_snapshot(loop)}"
        exception.add_note(note)

    def _save_snapshot(self, loop: TrainTestLoop) -> str:
        """Save a snapshot of CUDA memory, and return what to say about it."""
        directory: Path | None = self.directory or getattr(loop, "run_folder", None)
        if directory is None:
            return "no snapshot is saved without a directory: use('memory', directory=...)"
        path = directory / f"memory-step-{loop.global_step}.pickle"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            torch.cuda.memory._dump_snapshot(str(path))  # type: ignore[no-untyped-call]
        except Exception as error:  # the run fails with another one, which this must not hide
            return f"no snapshot could be saved: {type(error).__name__}: {error}"
        return f"a snapshot is in {path}: see https://pytorch.org/memory_viz"


def _is_out_of_memory(exception: BaseException) -> bool:
    if isinstance(exception, RuntimeError):
        return any(message in str(exception) for message in _MESSAGES)
    return isinstance(exception, MemoryError)
