"""The component `swa`."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

from ttl_core import Group, LoopComponent, hookimpl, to_device, unwrapped
from ttl_core.arguments import number, one_of, whole_number
from ttl_optim.copies import copied, state_like

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


_log = logging.getLogger(__name__)


class Swa(LoopComponent):
    """Stochastic weight averaging: the mean of the weights at the ends of the last epochs.

    From epoch `start_epoch` on, the learning rate goes to `lr` in `anneal_epochs` epochs, whatever
    a scheduler says, and the weights at the end of each training epoch are added to the mean, with
    which the model is then validated, tested and asked for predictions. Where the model has batch
    norms, their statistics are computed for the mean by a pass over the training data. The mean,
    the schedule and the statistics are those of torch.optim.swa_utils.

    Args:
        start_epoch: the epoch, as `loop.epoch_num` counts, that is averaged first.
        lr: the learning rate while it averages; None to leave it to others. An "lr_scale" of
            `param-groups` multiplies it.
        anneal_epochs: in how many epochs the rate goes there.
        anneal: how it goes there: "cos" or "linear".
        bn_batches: how many batches of the training data the statistics are of; None for all.

    Attributes:
        averaged: the mean, in a copy of the model as `averaged.module`; None before the first.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), Swa(1, lr=0.05)],
        ...                      ComponentConformance.make_data(), ComponentConformance.make_data())
        >>> loop.train(n_epochs=3)
        >>> loop.components["swa"].averaged.n_averaged
        tensor(2)
    """

    averaged: AveragedModel | None

    def __init__(
        self,
        start_epoch: int,
        *,
        lr: float | None = None,
        anneal_epochs: int = 10,
        anneal: Literal["cos", "linear"] = "cos",
        bn_batches: int | None = None,
    ) -> None:
        self.start_epoch = whole_number("start_epoch", start_epoch)
        self.lr = None if lr is None else number("lr", lr, above=0)
        self.anneal_epochs = whole_number("anneal_epochs", anneal_epochs)
        one_of("anneal", anneal, ("cos", "linear"))
        self.anneal = anneal
        if bn_batches is not None:
            bn_batches = whole_number("bn_batches", bn_batches, at_least=1)
        self.bn_batches = bn_batches
        self.averaged = None
        self._loaded: Mapping[str, Any] = {}
        self._initial: list[float] | None = None  # the rates of all groups when averaging began
        self._rates: list[float] = []  # those of this epoch
        self._scale = 1.0  # of all these rates, and of `lr`, after `rollback` has lowered them

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Say if nothing will be averaged."""
        if loop.n_epochs is not None and loop.epoch_num + loop.n_epochs <= self.start_epoch:
            _log.warning(
                "swa: nothing is averaged in this train(), which ends with epoch %d, as averaging "
                "begins in epoch %d; they count from 0, over all calls of train()",
                loop.epoch_num + loop.n_epochs - 1,
                self.start_epoch,
            )

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Compute the learning rates of a training epoch."""
        if not loop.is_training:  # a validation in mid-epoch leaves them as they are
            return
        self._rates = []
        if self.lr is not None and loop.epoch_num >= self.start_epoch:
            groups = [group for one in loop.optimizers for group in one.param_groups]
            if self._initial is None:
                self._initial = [float(group["lr"]) / self._scale for group in groups]
            targets = [self.lr * group.get("lr_scaled_by", 1.0) for group in groups]
            n_epochs = loop.epoch_num - self.start_epoch
            self._rates = self._scheduled(self._initial, targets, n_epochs)

    @hookimpl(tryfirst=True)  # no wrapper: others set rates in theirs, as `lr-schedule` does
    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Set the learning rates before the step, also where a scheduler has changed them."""
        if self._rates:
            groups = [group for one in loop.optimizers for group in one.param_groups]
            for group, scheduled in zip(groups, self._rates, strict=True):
                rate = scheduled * self._scale
                if isinstance(group["lr"], torch.Tensor):  # which a captured step reads
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    @hookimpl(optionalhook=True)
    def rollback_rates_lowered(self, factor: float) -> None:
        """Lower the rates of the schedule with those of the optimizers."""
        self._scale *= factor

    @hookimpl(trylast=True)
    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Add the weights of a training epoch to the mean."""
        if not loop.is_training or loop.epoch_num < self.start_epoch:
            return
        self._apply_loaded(loop.model)
        if self.averaged is None:
            self.averaged = copied(loop.model, AveragedModel)
        self.averaged.update_parameters(loop.model)
        if any(_has_statistics(module) for module in loop.model.modules()):
            self._update_statistics(loop, self.averaged)

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Replace the weights by the mean outside of training, and restore them."""
        self._apply_loaded(loop.model)
        if loop.is_training or self.averaged is None:
            return (yield)
        own = _values(loop.model)
        try:
            _copy(self.averaged.module, loop.model)
            return (yield)
        finally:
            _copy(own, loop.model)

    def state_dict(self) -> dict[str, Any]:
        """Return the mean, and the learning rates from which the schedule began."""
        averaged = self._loaded.get("averaged", {})
        if self.averaged is not None:
            averaged = self.averaged.state_dict()
        return {
            "averaged": dict(averaged),
            "initial": self._initial,
            "rates": list(self._rates),
            "scale": self._scale,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with a mean that was saved.

        Args:
            state: what `state_dict` returned.
        """
        self.averaged = None
        self._initial, self._rates = state["initial"], list(state["rates"])
        self._scale = state.get("scale", 1.0)  # earlier versions have none
        averaged = {name: value.clone() for name, value in state["averaged"].items()}
        self._loaded = {"averaged": averaged} if averaged else {}  # until there is a model

    def _apply_loaded(self, model: torch.nn.Module) -> None:
        if self._loaded:
            self.averaged = copied(model, AveragedModel)
            self.averaged.load_state_dict(state_like(self._loaded["averaged"], self.averaged))
            self._loaded = {}

    def _scheduled(self, initial: list[float], targets: list[float], n_epochs: int) -> list[float]:
        """Return the rates of the schedule of torch after some epochs."""
        # of an optimizer of its own: the real one has a scheduler, and may have several
        groups = [{"params": [torch.zeros(1)], "lr": rate} for rate in initial]
        optimizer = torch.optim.SGD(groups)
        scheduler = SWALR(
            optimizer,
            swa_lr=targets,  # type: ignore[arg-type]
            anneal_epochs=self.anneal_epochs,
            anneal_strategy=self.anneal,
        )
        for _ in range(n_epochs):
            optimizer.step()  # of nothing; without it the scheduler warns
            scheduler.step()
        return [group["lr"] for group in optimizer.param_groups]

    def _update_statistics(self, loop: TrainTestLoop, averaged: AveragedModel) -> None:
        """Compute the statistics of batch norms for the mean, through the forward pass of others.

        The random numbers that it draws are given back, and so is the order of the data, so that
        training continues as without it.
        """
        own = _values(loop.model)
        device = next(loop.model.parameters()).device
        devices = [] if device.type == "cpu" else [device]
        batch_num = loop.batch_num
        norms = [module for module in loop.model.modules() if _has_statistics(module)]
        momenta = [norm.momentum for norm in norms]
        try:
            _copy(averaged.module, loop.model)
            device_type = device.type if devices else "cuda"
            forked = torch.random.fork_rng(devices, device_type=device_type)
            with forked, _kept_order(loop.train_data):
                update_bn(_batches(loop, device, self.bn_batches), _ForwardPass(loop))
            for module, other in zip(averaged.modules(), _ForwardPass(loop).modules(), strict=True):
                if _has_statistics(module):
                    module.load_state_dict(other.state_dict())
                    _average_statistics(module, loop.group)
        finally:
            _copy(own, loop.model)
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum  # which update_bn leaves changed where the pass fails
            loop.batch_num = batch_num


class _ForwardPass(torch.nn.Module):
    """The forward pass of a training batch, with the model as its module."""

    def __init__(self, loop: TrainTestLoop) -> None:
        super().__init__()
        self.module = loop.model
        self._recompute = loop.recompute

    def forward(self, batch: Any) -> None:
        self._recompute(batch)


def _batches(loop: TrainTestLoop, device: torch.device, n: int | None) -> Iterator[tuple[Any]]:
    """Yield batches of the training data, each as the only input of a forward pass."""
    data: Iterable[Any] = loop.train_data or ()
    for batch in itertools.islice(data, n):
        yield (to_device(batch, device),)


@contextlib.contextmanager
def _kept_order(data: Any) -> Iterator[None]:
    """Let the next epoch of data be the one that was due, though another one is run meanwhile.

    The order of a DataLoader follows from the epoch of its sampler, or from generators.
    """
    loader = unwrapped(data)
    owners: list[Any] = []
    if isinstance(loader, torch.utils.data.DataLoader):
        batch_sampler = loader.batch_sampler
        owners = [loader, loader.sampler, batch_sampler, getattr(batch_sampler, "sampler", None)]
    generators = [getattr(owner, "generator", None) for owner in owners]
    states = [(one, one.get_state()) for one in generators if isinstance(one, torch.Generator)]
    epochs = [(owner, owner.epoch) for owner in owners if _counts_epochs(owner)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)
        for sampler, epoch in epochs:
            sampler.set_epoch(epoch)


def _counts_epochs(sampler: Any) -> bool:
    return hasattr(sampler, "set_epoch") and hasattr(sampler, "epoch")


def _has_statistics(module: torch.nn.Module) -> bool:
    is_norm = isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    return is_norm and bool(module.track_running_stats)


def _average_statistics(module: torch.nn.Module, group: Group) -> None:
    """Replace the statistics of the batches of a process by the means of all processes."""
    for buffer in module.buffers() if group.size > 1 else ():
        if buffer.is_floating_point():
            buffer.copy_(group.sum(buffer) / group.size)


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return itertools.chain(model.named_parameters(), model.named_buffers())


def _values(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in _tensors(model)}


def _copy(source: torch.nn.Module | Mapping[str, torch.Tensor], model: torch.nn.Module) -> None:
    """Copy values into a model, whose parameters and buffers stay the same objects."""
    values = dict(_tensors(source)) if isinstance(source, torch.nn.Module) else source
    for name, tensor in _tensors(model):
        if name in values:
            # through .data: a graph that waits for its backward pass must not notice
            tensor.data.copy_(values[name])
