"""The component `gc-control`."""

from __future__ import annotations

import gc
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ttl_core import LoopComponent, hookimpl
from ttl_core.arguments import one_of, whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class GcControl(LoopComponent):
    """Garbage collection at fixed batches instead of at any time.

    In a run Python's collector is disabled, and called after each so many batches, and at the end
    of each epoch. So its pauses are in known places, and in a group all processes have them at the
    same time. At the end of each training epoch the seconds that it took are logged as
    "gc-seconds".

    Args:
        every: after how many batches garbage is collected.
        generation: which generation: 0 the youngest objects, 1, or 2 all of them.

    Raises:
        ArgumentError: `every` is no whole number from 1, or `generation` is not 0, 1 or 2.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), GcControl(every=2)],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> sorted(loop.metrics), gc.isenabled()
        (['train/gc-seconds'], True)
    """

    def __init__(self, every: int = 1000, *, generation: int = 1) -> None:
        self.every = whole_number("every", every, at_least=1)
        self.generation = one_of("generation", generation, (0, 1, 2))
        self._n_batches = 0
        self._seconds = 0.0

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Disable the collector, and restore it."""
        was_enabled = gc.isenabled()
        gc.disable()
        self._n_batches, self._seconds = 0, 0.0
        try:
            return (yield)
        finally:
            if was_enabled:
                gc.enable()

    @hookimpl(trylast=True)
    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Collect garbage, if it is time."""
        self._n_batches += 1
        if self._n_batches % self.every == 0:
            self._collect()

    @hookimpl(trylast=True)
    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Collect garbage; log the seconds that it took in a training epoch."""
        self._collect()
        if loop.is_training:
            loop.log({"gc-seconds": self._seconds}, level="epoch")
            self._seconds = 0.0

    def _collect(self) -> None:
        start = time.perf_counter()
        gc.collect(self.generation)
        self._seconds += time.perf_counter() - start
