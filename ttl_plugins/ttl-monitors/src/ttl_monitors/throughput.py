"""The component `throughput`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.utils.flop_counter import FlopCounterMode

from ttl_core import ArgumentError, LoopComponent, hookimpl, leave_out_hooks
from ttl_core.arguments import number, whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class Throughput(LoopComponent):
    """A monitor of how fast training is, and of how long it waits for data.

    Each so many batches it logs, at batch level, for the batches since the last time:
    "batches-per-second"; "samples-per-second"; "tokens-per-second" if `tokens` is given;
    "data-wait", the share of the time that the loop waited for data, from 0 to 1; and "mfu", the
    model FLOPs utilisation from 0 to 1, if `peak_flops` is given. Time at safe points, in which
    checkpoints are saved, and in validations does not count.

    Args:
        every: log after each so many training batches.
        samples: takes a batch, returns how many samples it has; `loop.batch_size` by default.
        tokens: takes a batch, returns how many tokens it has.
        flops: the number of floating-point operations that the forward and backward passes of a
            batch take; counted in the first batch by default, if `peak_flops` is given.
        peak_flops: the number of them that the hardware can do in a second.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> class Print(LoopComponent):
        ...     def on_log(self, loop, metrics, level):
        ...         if "train/data-wait" in metrics:
        ...             print(loop.global_step, list(metrics))
        >>> monitor = Throughput(every=3)
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), monitor, Print()],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        3 ['train/batches-per-second', 'train/data-wait', 'train/samples-per-second']
    """

    def __init__(
        self,
        *,
        every: int = 50,
        samples: Callable[[Any], Any] | None = None,
        tokens: Callable[[Any], Any] | None = None,
        flops: float | None = None,
        peak_flops: float | None = None,
    ) -> None:
        self.every = whole_number("every", every, at_least=1)
        self.samples = _function("samples", samples)
        self.tokens = _function("tokens", tokens)
        self.flops = None if flops is None else number("flops", flops, above=0)
        self.peak_flops = None if peak_flops is None else number("peak_flops", peak_flops, above=0)
        if flops is not None and peak_flops is None:
            raise ArgumentError(
                f"flops={flops!r} is given without peak_flops, the number of floating-point "
                "operations that the hardware can do in a second. Give both, or none"
            )
        self._n_flops: int | None = None  # of the batch under way, if they are counted
        if peak_flops is None or flops is not None:
            counting = ("on_forward_pass", "on_loss_compute", "on_backward_pass")
            leave_out_hooks(self, Throughput, counting)
        self._ended: _Moment | None = None  # when the last batch ended, until the next has come
        self._begun: _Moment | None = None  # when the batch under way came
        self._wait = 0.0  # seconds that it was waited for
        self._reset()

    def _reset(self) -> None:
        """Begin another period."""
        self._waited = self._worked = 0.0  # seconds
        self._n_batches = 0
        self._n_samples: Any = 0  # a tensor, if batch sizes are
        self._n_tokens: Any = 0

    # -- the time ---------------------------------------------------------------------------

    @hookimpl(trylast=True)
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Wait for the first batch, for which workers may have to be started."""
        if loop.is_training:
            self._ended = _Moment(time.perf_counter(), None)

    @hookimpl(tryfirst=True)
    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Stop waiting: the batch is there."""
        self._end_wait(loop)

    @hookimpl(tryfirst=True)
    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Stop waiting, where gradients accumulate; count the FLOPs of the first batch."""
        if loop.is_training:
            self._end_wait(loop)
            if self.peak_flops is not None and self.flops is None:
                self._n_flops = 0

    def _end_wait(self, loop: TrainTestLoop) -> None:
        if self._ended is not None:
            ended, self._ended, self._begun = self._ended, None, None
            if ended.place in (None, (loop.epoch_num, loop.batch_num - 1)):
                self._begun = _now(loop)
                self._wait = self._begun.seconds - ended.seconds

    @hookimpl(wrapper=True)
    def on_forward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Count FLOPs."""
        return (yield from self._counted())

    @hookimpl(wrapper=True)
    def on_loss_compute(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Count FLOPs."""
        return (yield from self._counted())

    @hookimpl(wrapper=True)
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Count FLOPs, for the last time."""
        result = yield from self._counted()
        if self._n_flops is not None:
            self.flops, self._n_flops = self._n_flops, None
            if not self.flops:
                _log.warning("throughput: no FLOPs could be counted: give flops=, for the mfu")
            self._reset()  # counting is slow
            self._begun = None
        return result

    def _counted(self) -> Generator[None, Any, Any]:
        if self._n_flops is None:
            return (yield)
        with FlopCounterMode(display=False) as counter:
            result = yield
        self._n_flops += counter.get_total_flops()
        return result

    @hookimpl(trylast=True)
    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Count the batch, and log if it is time to."""
        if not loop.is_training:
            return
        begun, self._begun = self._begun, None
        self._ended = _now(loop)
        if begun is None or begun.place != self._ended.place:  # it was disabled meanwhile
            return
        self._waited += self._wait
        self._worked += self._ended.seconds - begun.seconds
        self._n_batches += 1
        weight = getattr(loop, "batch_size", 0)
        is_of_others = loop.group.size > 1 and isinstance(weight, int) and weight == 0
        if self.samples is None:
            self._n_samples += weight
        elif not is_of_others:
            self._n_samples += self.samples(loop.batch)
        if self.tokens is not None and not is_of_others:
            self._n_tokens += self.tokens(loop.batch)
        if self._n_batches >= self.every:
            self._log(loop)

    @hookimpl(trylast=True)
    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Wait from here: what was done at the safe point does not count."""
        if loop.is_training:
            self._ended = _now(loop)

    def _log(self, loop: TrainTestLoop) -> None:
        seconds = self._waited + self._worked
        values = {
            "batches-per-second": self._n_batches / seconds,
            "data-wait": self._waited / seconds,
            "samples-per-second": loop.group.sum(self._n_samples) / seconds,
        }
        if self.tokens is not None:
            values["tokens-per-second"] = loop.group.sum(self._n_tokens) / seconds
        if self.flops and self.peak_flops:
            values["mfu"] = self.flops * self._n_batches / seconds / self.peak_flops
        self._reset()
        loop.log(values)


class _Moment(NamedTuple):
    """A moment, and the epoch and the batch in which it was."""

    seconds: float
    place: tuple[int, int] | None


def _now(loop: TrainTestLoop) -> _Moment:
    return _Moment(time.perf_counter(), (loop.epoch_num, loop.batch_num))


def _function(name: str, value: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if value is not None and not callable(value):
        raise ArgumentError(
            f"{name} is {value!r}, but has to be a function of a batch, such as "
            "lambda batch: batch['input_ids'].numel()"
        )
    return value
