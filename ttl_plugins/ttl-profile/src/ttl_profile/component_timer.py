"""The component `component-timer`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import LoopComponent, hookimpl
from ttl_core.arguments import flag
from ttl_profile.timing import TimerRow, Timing, as_table, sorted_rows

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class ComponentTimer(LoopComponent):
    """A table of the time that each component takes at each callback point.

    The time of a wrapper is that before and after its yield. What other components do within a
    hook, as in the on_log that its loop.log calls, counts as theirs. Disabled it costs nothing.

    Args:
        synchronize: whether to wait for the device before and after each call, so that what the
            call has started there counts as its own. It makes the run slower.
        show: whether to print the table at the end of each run.

    Attributes:
        rows: the rows of the table for the last run, the longest first.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> timer = ComponentTimer(show=False)
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [timer, Step()],
        ...                      ComponentConformance.make_data(n_batches=3))
        >>> loop.train(n_epochs=2)
        >>> [row.count for row in timer.rows if row.point == "on_optim_step"]
        [6]
    """

    def __init__(self, *, synchronize: bool = False, show: bool = True) -> None:
        self.synchronize = flag("synchronize", synchronize)
        self.show = flag("show", show)
        self.rows: list[TimerRow] = []
        has_device = synchronize and torch.accelerator.is_available()
        self._timing = Timing(torch.accelerator.synchronize if has_device else None)

    def wrap_hookimpl(
        self, function: Callable[..., Any], *, component: str, point: str, is_wrapper: bool
    ) -> Callable[..., Any]:
        """Return what times a hook method of another component."""
        timed = self._timing.timed_wrapper if is_wrapper else self._timing.timed
        return timed(self._timing.row(component, point), function)

    @hookimpl(wrapper=True, tryfirst=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Time the run, and print the table when it ends."""
        self._timing.reset()
        begin = perf_counter()
        try:
            return (yield)
        finally:
            took = perf_counter() - begin
            self.rows = sorted_rows(self._timing.rows.values(), took)
            if self.show:
                print(as_table(self.rows))
