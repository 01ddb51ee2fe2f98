"""The component `metrics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torchmetrics import Metric, MetricCollection

from ttl_core import LoopComponent, RunError

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

Given: TypeAlias = Metric | MetricCollection | Sequence[Metric] | Mapping[str, Metric]
"""What a phase may be given to measure."""


class Metrics(LoopComponent):
    """Log each epoch's mean loss and metrics.

    The loss is averaged over the batches by `loop.batch_size` and logged as "train/loss",
    "valid/loss" or "test/loss"; metrics are logged as "valid/accuracy" and so on. Each phase has
    its own copy of every metric, so that a validation in mid-epoch leaves the training epoch's
    alone. A batch whose `loop.loss` is None or unset does not count in the mean, and an epoch in
    which nothing was gathered logs nothing.

    Args:
        metrics: what to measure in every phase: a metric, a collection, or metrics by name.
        train: what to measure in training instead; an empty dict for the loss alone.
        valid: what to measure in validation instead.
        test: what to measure in testing instead.
        loss: whether to log the mean loss. A second instance in a list has to leave it to the
            first.
        update_with: takes the loop and returns the tuple of what `Metric.update` takes, or None
            to skip this batch. By default these are `loop.scores` and the targets found in
            `loop.batch`: the second of a pair, or what it holds as "targets" or "labels", by key
            or as an attribute. A batch with neither targets nor a loss is skipped.
        **named: metrics by name, another way to write `metrics`.

    Raises:
        TypeError: something given as a metric is none, or `update_with` cannot be called.
        ValueError: `metrics` is given in both ways, or a metric has the name of the loss.

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
            raise ValueError(
                f"metrics are given twice, as metrics={metrics!r} and by name: {', '.join(named)}. "
                "Put all of them into one dict"
            )
        if update_with is not None and not callable(update_with):
            raise TypeError(
                f"update_with is {update_with!r}, but has to take the loop and return a tuple, as "
                "lambda loop: (loop.scores, loop.batch[1]) does"
            )
        self.loss = loss
        self.update_with = update_with
        self._epochs = {}
        for phase, own in {"train": train, "valid": valid, "test": test}.items():
            common = named if metrics is None else metrics
            what, given = ("metrics", common) if own is None else (phase, own)
            collection = _collection(what, given)
            if loss and "loss" in collection.keys():  # noqa: SIM118  ("in" ignores its prefix)
                raise ValueError(
                    f"{what} holds a metric named 'loss', the name of the mean loss. Rename it, "
                    "or give loss=False"
                )
            self._epochs[phase] = _Epoch(collection)

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Forget what the phase's last epoch gathered; clear `loss` in validation and testing."""
        self._epochs[loop.epoch_desc].begin(loop.epoch_num)
        if not loop.is_training:  # where nobody computes one, training's last would be taken for it
            loop.loss = None

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Gather the loss and update the metrics, without waiting for the device."""
        epoch = self._epoch(loop)
        loss = getattr(loop, "loss", None)
        arguments = self._arguments(loop, loss) if epoch.metrics else None
        epoch.move_to_device_of(*(arguments or ()), loss)
        if self.loss and loss is not None:
            epoch.loss.update(loss, loop.batch_size)
            epoch.has_loss = True
        if arguments is not None:
            epoch.metrics.update(*arguments)
            epoch.has_metrics = True

    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Log the mean loss and the metrics at epoch level."""
        if values := self._epoch(loop).compute():
            loop.log(values, level="epoch")

    def state_dict(self) -> dict[str, Any]:
        """Return what the epochs that are under way have gathered, by phase."""
        return {
            phase: epoch.state_dict()
            for phase, epoch in self._epochs.items()
            if epoch.num is not None
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what epochs had gathered.

        Args:
            state: what `state_dict` returned.
        """
        for phase, epoch in self._epochs.items():
            epoch.begin(None)
            if phase in state:
                epoch.load_state_dict(state[phase])

    def _epoch(self, loop: TrainTestLoop) -> _Epoch:
        epoch = self._epochs[loop.epoch_desc]
        if epoch.num != loop.epoch_num:  # this component was switched on in the middle of it
            epoch.begin(loop.epoch_num)
        return epoch

    def _arguments(self, loop: TrainTestLoop, loss: Any) -> tuple[Any, ...] | None:
        """Return what to update metrics with, or None to skip this batch."""
        if self.update_with is not None:
            arguments = self.update_with(loop)
            if not isinstance(arguments, tuple | None):
                raise TypeError(
                    f"update_with returned a {type(arguments).__name__}, but has to return a tuple "
                    "of what Metric.update takes, or None to skip the batch"
                )
        else:
            targets = _targets(loop.batch)
            if targets is None and loss is not None:
                raise RunError(
                    f"no targets for the metrics were found in loop.batch, a "
                    f"{type(loop.batch).__name__}: expected was a pair, or something that holds "
                    "'targets' or 'labels'. Tell where they are: "
                    "Metrics(..., update_with=lambda loop: (loop.scores, loop.batch[...]))"
                )
            arguments = None if targets is None else (loop.scores, targets)
        if arguments is None:
            return None
        # metrics that keep lists would keep the graphs too
        return tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in arguments)


class _MeanLoss(Metric):
    """Average losses by weight.

    torchmetrics' MeanMetric looks for NaN and copies numbers to the device, which waits for it.
    """

    full_state_update = False
    total: torch.Tensor
    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum", persistent=True)
        self.add_state("weight", torch.zeros(()), dist_reduce_fx="sum", persistent=True)

    def update(self, loss: Any, weight: Any) -> None:
        self.total += torch.as_tensor(loss, dtype=self.total.dtype) * weight
        self.weight += weight

    def compute(self) -> torch.Tensor:
        return self.total / self.weight


class _Epoch:
    """Hold what the current epoch of one phase has gathered.

    Attributes:
        num: the `epoch_num` of the epoch; None if none is under way.
    """

    def __init__(self, metrics: MetricCollection) -> None:
        self.loss = _MeanLoss()
        self.metrics = metrics
        self.metrics.persistent(True)
        self.device: torch.device | None = None
        self.begin(None)

    def begin(self, num: int | None) -> None:
        self.num = num
        self.loss.reset()
        self.metrics.reset()
        self.has_loss = self.has_metrics = False

    def move_to_device_of(self, *values: Any) -> None:
        device = next((v.device for v in values if isinstance(v, torch.Tensor)), self.device)
        if device is not None and device != self.device:
            self.loss.to(device)
            self.metrics.to(device)
            self.device = device

    def compute(self) -> dict[str, Any]:
        self.num = None
        values = {"loss": self.loss.compute()} if self.has_loss else {}
        return values | self.metrics.compute() if self.has_metrics else values

    def state_dict(self) -> dict[str, Any]:
        return {
            "num": self.num,
            "has_loss": self.has_loss,
            "has_metrics": self.has_metrics,
            "loss": self.loss.state_dict(),
            "metrics": self.metrics.state_dict(),
            "counts": [metric.update_count for metric in self._all()],
        }

    def _all(self) -> list[Metric]:
        return [self.loss, *self.metrics.values(copy_state=False)]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num = state["num"]
        self.has_loss = state["has_loss"]
        self.has_metrics = state["has_metrics"]
        self.loss.load_state_dict(state["loss"])
        self.metrics.load_state_dict(state["metrics"])
        for metric, count in zip(self._all(), state["counts"], strict=True):
            metric._update_count = count  # not in its state, but compute() warns without it
        self.device = None  # what was loaded lies where it was saved, or on the CPU


def _collection(what: str, given: Any) -> MetricCollection:
    """Return a copy of what was given as a collection."""
    if isinstance(given, MetricCollection):
        return given.clone()
    try:
        # finding groups of metrics that can share state compares values, which waits for the device
        return MetricCollection(
            dict(given) if isinstance(given, Mapping) else given, compute_groups=False
        ).clone()
    except (KeyError, ValueError) as error:
        raise TypeError(
            f"{what} is {given!r}, but a torchmetrics.Metric, a MetricCollection or a dict of "
            f"metrics by name was expected: {error}"
        ) from error


def _targets(batch: Any) -> Any:
    """Return the targets that a batch holds, or None."""
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
