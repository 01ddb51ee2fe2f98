"""The component `metrics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from ttl_core import ArgumentError, LoopComponent, RunError, describe_batch, hookimpl
from ttl_core.arguments import flag
from ttl_metrics.epoch_values import EpochValues

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

    from ttl_core import TrainTestLoop
    from ttl_metrics.phase_metrics import GivenMetrics

Given: TypeAlias = "Metric | MetricCollection | Sequence[Metric] | Mapping[str, Metric]"
"""What can be given as the metrics of a phase."""


class Metrics(LoopComponent):
    """The mean loss and metrics of each epoch, logged at its end.

    They are logged first in on_epoch_end, so that all components read those of this epoch. The
    loss is averaged over the batches by `loop.batch_size` and logged as "train/loss",
    "valid/loss" or "test/loss"; metrics are logged as "valid/accuracy" and so on. Those of a named
    validation set are "valid/<name>/loss" and so on. Each phase has its own copy of every metric,
    so that a validation in mid-epoch leaves the training epoch's unchanged. A batch whose
    `loop.loss` is None or unset does not count in the mean, and one of weight 0 counts nowhere; of
    a weight that is a tensor on an accelerator, only the mean knows without waiting. An epoch in
    which nothing was gathered logs nothing. Nothing is gathered in prediction.

    Args:
        metrics: the metrics of every phase: a metric, a collection, or metrics by name.
        train: the metrics of training instead; an empty dict for the loss alone.
        valid: the metrics of validation instead, for each set.
        test: the metrics of testing instead.
        loss: whether to log the mean loss. A second instance in a list has to leave it to the
            first.
        update_with: takes the loop and returns the tuple of what `Metric.update` takes, or None
            to skip this batch. By default these are `loop.scores` and the targets found in
            `loop.batch`: the second of a pair, or what it holds as "targets" or "labels", by key
            or as an attribute. A batch with neither targets nor a loss is skipped.
        **named: metrics by name, another way to write `metrics`.

    Raises:
        ArgumentError: something given as a metric is none, `update_with` cannot be called,
            `metrics` is given in both ways, or a metric has the name of the loss; when an epoch
            begins, another instance logs the loss too.

    Example:
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> from ttl_core import TrainTestLoop
        >>> class Step(LoopComponent):
        ...     def on_forward_pass(self, loop):
        ...         loop.scores = loop.model(loop.batch[0])
        ...
        ...     def on_loss_compute(self, loop):
        ...         loop.loss = torch.nn.functional.cross_entropy(loop.scores, loop.batch[1])
        >>> accuracy = MulticlassAccuracy(num_classes=2, validate_args=False)
        >>> loop = TrainTestLoop(torch.nn.Identity(), [Step(), Metrics(accuracy=accuracy)])
        >>> loop.test([(torch.eye(2), torch.tensor([0, 1])), (torch.eye(2), torch.tensor([0, 0]))])
        >>> {name: round(float(value), 3) for name, value in loop.metrics.items()}
        {'test/loss': 0.563, 'test/accuracy': 0.833}
    """

    def __init__(
        self,
        metrics: Given | None = None,
        *,
        train: Given | None = None,
        valid: Given | None = None,
        test: Given | None = None,
        loss: bool = True,
        update_with: Callable[[TrainTestLoop], tuple[Any, ...] | None] | None = None,
        **named: Metric,
    ) -> None:
        if metrics is not None and named:
            raise ArgumentError(
                f"metrics are given twice, as metrics={metrics!r} and by name: {', '.join(named)}. "
                "Put all of them into one dict"
            )
        if update_with is not None and not callable(update_with):
            raise ArgumentError(
                f"update_with is {update_with!r}, but has to take the loop and return a tuple, as "
                "lambda loop: (loop.scores, loop.batch[1]) does"
            )
        self.loss = flag("loss", loss)
        self.update_with = update_with
        common = named if metrics is None else metrics
        for_all = _given("metrics", common, has_loss=loss)
        self._given = {
            phase: for_all if own is None else _given(phase, own, has_loss=loss)
            for phase, own in {"train": train, "valid": valid, "test": test}.items()
        }
        self._phases: dict[str, EpochValues] = {}  # those that have begun, as copies take a while

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Drop what the phase's last epoch gathered; clear `loss` outside training.

        Raises:
            ArgumentError: another instance logs the loss too.
        """
        self._check_alone(loop)
        if loop.epoch_desc in self._given:
            self._phase(loop.epoch_desc).begin((loop.epoch_num, loop.data_name))
        if not loop.is_training:  # without a new one, the last loss of training would count
            loop.loss = None

    def _check_alone(self, loop: TrainTestLoop) -> None:
        for other in loop.components:
            if not isinstance(other, Metrics) or other is self or not (self.loss and other.loss):
                continue
            if loop.components.is_enabled(other):
                one, two = map(loop.components.name_of, (self, other))
                raise ArgumentError(
                    f"{one!r} and {two!r} both log the mean loss of an epoch, which would count "
                    "twice. Give all metrics to one, or leave the loss to it: use('metrics', "
                    "loss=False, ...)"
                )

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Gather the loss and update the metrics, without waiting for the device."""
        values = self._values(loop)
        if values is None:
            return
        loss = getattr(loop, "loss", None)
        has_loss = self.loss and loss is not None
        weight = loop.batch_size if has_loss else getattr(loop, "batch_size", None)
        # most weights are numbers, for which no batch pays for a call
        if weight == 0 if isinstance(weight, (int, float)) else _is_zero(weight):
            return  # an empty batch, or one of others, with which this process keeps in step
        if has_loss:
            values.add_loss(loss, weight)
        if values.metrics is not None:
            arguments = self._arguments(loop, loss)
            if arguments is not None:
                self._update(values, arguments)

    # Otherwise components placed before this one would read the values of an earlier epoch.
    @hookimpl(tryfirst=True)
    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Log the mean loss and the metrics at epoch level, before others end the epoch."""
        values = self._values(loop)
        if values is not None and (finished := values.finish(loop.group)):
            loop.log(finished, level="epoch")

    def state_dict(self) -> dict[str, Any]:
        """Return what epochs under way have gathered, and metrics have kept, by phase.

        Raises:
            StateError: a metric holds something that could not be loaded.
        """
        states = {phase: values.state_dict() for phase, values in self._phases.items()}
        return {phase: state for phase, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume with what epochs had gathered, and metrics had kept.

        Args:
            state: what `state_dict` returned.
        """
        for phase in self._given:
            if phase in state or phase in self._phases:
                self._phase(phase).load_state_dict(state.get(phase, {}))

    def _phase(self, phase: str) -> EpochValues:
        """Return the values of a phase."""
        if phase not in self._phases:
            given = self._given[phase]
            self._phases[phase] = EpochValues(None if given is None else given.copy())
        return self._phases[phase]

    def _values(self, loop: TrainTestLoop) -> EpochValues | None:
        """Return the values of the epoch under way; None in prediction."""
        if loop.epoch_desc not in self._given:
            return None
        values = self._phase(loop.epoch_desc)
        key = loop.epoch_num, loop.data_name
        if values.epoch != key:
            values.begin(key)  # this component was enabled in the middle of the epoch
        return values

    def _update(self, values: EpochValues, arguments: tuple[Any, ...]) -> None:
        try:
            values.update_metrics(*arguments)
        except Exception as error:
            what = "what update_with returned"
            if self.update_with is None:
                what = "loop.scores and the targets of the batch"
            error.add_note(
                f"ttl: metrics were updated with {what}: {describe_batch(arguments)}. If they need "
                "something else: use('metrics', ..., update_with=lambda loop: (loop.scores, "
                "loop.batch[1].long()))"
            )
            raise

    def _arguments(self, loop: TrainTestLoop, loss: Any) -> tuple[Any, ...] | None:
        """Return what to update metrics with, or None to skip this batch."""
        if self.update_with is not None:
            arguments = self.update_with(loop)
            if not isinstance(arguments, tuple | None):
                raise ArgumentError(
                    f"update_with returned a {type(arguments).__name__}, but has to return a tuple "
                    "of what Metric.update takes, or None to skip the batch"
                )
        else:
            targets = _targets(loop.batch)
            if targets is None and loss is not None:
                raise RunError(
                    f"no targets for the metrics were found in loop.batch, a "
                    f"{type(loop.batch).__name__}: expected was a pair, or something that holds "
                    "'targets' or 'labels'. Say where they are: "
                    "Metrics(..., update_with=lambda loop: (loop.scores, loop.batch[...]))"
                )
            arguments = None if targets is None else (loop.scores, targets)
        if arguments is None:
            return None
        # metrics that keep lists would keep the graphs too
        return tuple([a.detach() if isinstance(a, torch.Tensor) else a for a in arguments])


def _is_zero(weight: Any) -> bool:
    """Return whether a weight is 0, as far as that can be read without waiting for a device."""
    return bool(weight == 0) if getattr(weight, "is_cpu", True) else False


def _given(what: str, given: Any, *, has_loss: bool) -> GivenMetrics | None:
    """Return the metrics that were given; None if there are none.

    Args:
        what: the name of the argument, for errors.
        given: its value.
        has_loss: whether the mean loss is logged too.

    Raises:
        ArgumentError: it is neither a metric nor several, or one has the name of the loss.
    """
    if isinstance(given, Mapping | list | tuple) and not given:
        return None
    from ttl_metrics.phase_metrics import GivenMetrics

    metrics = GivenMetrics.of(what, given)
    if has_loss and "loss" in metrics.names():
        raise ArgumentError(
            f"{what} holds a metric named 'loss', the name of the mean loss. Rename it, or give "
            "loss=False"
        )
    return metrics


def _targets(batch: Any) -> Any:
    """Return the targets that a batch holds, or None."""
    if type(batch) is tuple and len(batch) == 2:  # most batches: asking for names costs more
        return batch[1]
    match batch:
        case {"targets": targets} | {"labels": targets}:
            return targets
        case Mapping():
            return None
    for name in ("targets", "labels"):
        if hasattr(batch, name):
            return getattr(batch, name)
    match batch:
        case [_, targets]:
            return targets
    return None
