"""A recorder of what the loop calls, and with what."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from ttl_core.arguments import one_of
from ttl_core.hookspecs import POINTS, hookimpl
from ttl_core.testing.observer import Observer

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop


class HookCall(NamedTuple):
    """A call of a callback point.

    Attributes:
        point: the callback point; for one that surrounds others, the call is before its yield.
        phase: the phase of the epoch; "" outside epochs.
        epoch_num: the number of training epochs that were completed.
        batch_num: the number of the newest batch; None before the first.
        arguments: what the point gives besides `loop`, by name.
    """

    point: str
    phase: str
    epoch_num: int
    batch_num: int | None
    arguments: dict[str, Any]


class HookRecorder(Observer):
    """A recorder of the calls of callback points.

    Args:
        *points: the points to record; by default all.

    Attributes:
        calls: the calls, in order.

    Raises:
        ArgumentError: there is no such point.

    Example:
        >>> from ttl_core.testing import Step, tiny_loop
        >>> recorder = HookRecorder("on_epoch_begin", "on_epoch_end", "on_log")
        >>> loop = tiny_loop(Step(), recorder, n_batches=2)
        >>> loop.train(n_epochs=1)
        >>> [(call.point, call.phase) for call in recorder.calls][:4]
        [('on_epoch_begin', 'train'), ('on_log', 'train'), ('on_log', 'train'), ('on_epoch_end', 'train')]
        >>> len(recorder.logged("valid/loss"))
        2
    """  # noqa: E501  (what an example prints is one line)

    def __init__(self, *points: str) -> None:
        self.calls: list[HookCall] = []
        for point in points or POINTS:
            setattr(self, one_of("point", point, POINTS), self._recording(point))

    @property
    def points(self) -> list[str]:
        """The names of the points that were called, in order."""
        return [call.point for call in self.calls]

    def logged(self, name: str) -> list[Any]:
        """Return the values that were logged under a name, in order.

        Args:
            name: the full name, with its phase.
        """
        logged = [call.arguments["metrics"] for call in self.calls if call.point == "on_log"]
        return [metrics[name] for metrics in logged if name in metrics]

    def _recording(self, point: str) -> Callable[..., Any]:
        def record(loop: TrainTestLoop, **arguments: Any) -> None:
            in_epoch = loop.is_training or loop.is_validating or loop.is_testing
            phase = loop.epoch_desc if in_epoch or loop.is_predicting else ""
            batch_num = vars(loop).get("batch_num")
            self.calls.append(HookCall(point, phase, loop.epoch_num, batch_num, arguments))

        @hookimpl(wrapper=True)
        def around(loop: TrainTestLoop) -> Generator[None, Any, Any]:
            record(loop)
            return (yield)

        def on_log(loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
            record(loop, metrics=metrics, level=level)

        def on_exception(loop: TrainTestLoop, exception: BaseException) -> None:
            record(loop, exception=exception)

        def plain(loop: TrainTestLoop) -> None:
            record(loop)

        hooks: dict[str, Callable[..., Any]] = {"on_log": on_log, "on_exception": on_exception}
        return around if point.startswith("around_") else hooks.get(point, plain)
