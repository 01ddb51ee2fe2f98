"""The component `alternating`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import (
    ArgumentError,
    LoopComponent,
    RunError,
    add_weighted,
    find_device,
    hookimpl,
    is_sharded,
    to_device,
)
from ttl_core.arguments import describe, did_you_mean, whole_number

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ttl_core import TrainTestLoop

_Loss = Callable[["TrainTestLoop"], torch.Tensor]
_Factory = Callable[[Iterable[torch.nn.Parameter]], "Optimizer"]


class Alternating(LoopComponent):
    """The steps of networks that train in turns, such as the two of a GAN.

    Each optimization step is of one network: it has the gradient of that network's loss, for its
    parameters alone. In a cycle the networks have their turns one after the other, in the order of
    `losses`. `loop.optimizers` holds the optimizers of all; within a batch `loop.optimizer` is the
    one whose turn it is, so components that accumulate, clip, scale, warm up or average act on
    each.

    Where a training batch ends, `loop.loss` is the sum of the newest losses of all networks, as in
    validation that of the losses of the batch. So "train/loss" and "valid/loss" of `metrics` are
    the same quantity. In the first cycle it is the sum of those that there are.

    Args:
        losses: for each network, by the name of the module in `loop.model`, a function that takes
            the loop and returns the network's mean loss for `loop.batch`; it may set `loop.scores`.
        optimizers: for each network a factory that takes its parameters and returns an optimizer.
        turns: how many steps a network takes in each of its turns, by name; 1 for others.
        predict: takes the loop and returns the scores of a batch; `loop.predict()` needs it.
        device: where to train; "auto" for an accelerator if there is one, else the CPU; None to
            leave the model and the batches where they are.

    Raises:
        ArgumentError: an argument has an unusable value; in train(), the model has no such module,
            or each process has a part of it.

    Example:
        >>> from functools import partial
        >>> from ttl_core import TrainTestLoop
        >>> def judge(loop):
        ...     fake = loop.model["generator"](torch.randn(4, 2)).detach()
        ...     return (loop.model["critic"](fake) - loop.model["critic"](loop.batch)).mean()
        >>> def generate(loop):
        ...     return -loop.model["critic"](loop.model["generator"](torch.randn(4, 2))).mean()
        >>> model = torch.nn.ModuleDict(
        ...     {"generator": torch.nn.Linear(2, 3), "critic": torch.nn.Linear(3, 1)})
        >>> steps = Alternating({"critic": judge, "generator": generate},
        ...                     {name: partial(torch.optim.SGD, lr=0.1) for name in model},
        ...                     turns={"critic": 5})
        >>> loop = TrainTestLoop(model, [steps], [torch.randn(4, 3)] * 12)
        >>> loop.train(n_epochs=1)
        >>> sorted(loop.metrics)
        ['train/loss/critic', 'train/loss/generator']
    """

    only_once = True

    def __init__(
        self,
        losses: Mapping[str, _Loss],
        optimizers: Mapping[str, _Factory],
        *,
        turns: Mapping[str, int] | None = None,
        predict: Callable[[TrainTestLoop], Any] | None = None,
        device: str | torch.device | None = "auto",
    ) -> None:
        self.losses = _functions("losses", losses, "a function of the loop")
        self.optimizers = _functions("optimizers", optimizers, "a factory, as partial(Adam, lr=1)")
        if self.losses.keys() != self.optimizers.keys():
            raise ArgumentError(
                f"losses are for {', '.join(map(repr, self.losses))}, but optimizers for "
                f"{', '.join(map(repr, self.optimizers))}. Each network needs both"
            )
        if not isinstance(turns, Mapping | None):
            raise ArgumentError(f"turns is {describe(turns)}, but has to be numbers by name")
        self.turns = {
            name: whole_number(f"turns[{name!r}]", n, at_least=1)
            for name, n in (turns or {}).items()
        }
        for name in self.turns.keys() - self.losses.keys():
            hint = did_you_mean(str(name), self.losses)
            raise ArgumentError(f"turns has {name!r}, which has no loss. {hint}".rstrip())
        if predict is not None and not callable(predict):
            raise ArgumentError(f"predict is {describe(predict)}, but has to take the loop")
        self.predict = predict
        self.device = None if device is None else find_device("device", device)
        self._cycle = [name for name in self.losses for _ in range(self.turns.get(name, 1))]
        self._own: dict[str, Optimizer] = {}
        self._reached: set[str] = set()  # networks that gradients are known to reach
        self._scored_at: int | None = None
        self._sums: dict[str, list[Any]] = {}  # of losses times weights, and of weights
        self._newest: dict[str, Any] | None = None  # the losses of this batch
        self._latest: dict[str, Any] = {}  # the loss of each network in its latest training batch

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Put the model on the device; set `optimizer`, `optimizers` and `scheduler`."""
        self._move_model(loop.model)
        modules = dict(loop.model.named_modules())
        for name in self.losses:
            if name not in modules:
                hint = did_you_mean(name, modules)
                raise ArgumentError(
                    f"'alternating' has a loss for {name!r}, but the model has no such module. "
                    f"{hint}It has: {', '.join(repr(each) for each in modules if each)}"
                )
        if any(map(is_sharded, loop.model.parameters())):
            raise ArgumentError(
                "'alternating' calls networks in the model one by one, but each process has a part "
                "of their parameters alone, which fsdp gathers where the model is called as a "
                "whole. Train with ddp in place of fsdp"
            )
        self._own = {
            name: make(modules[name].parameters()) for name, make in self.optimizers.items()
        }
        loop.optimizers = list(self._own.values())
        loop.optimizer = loop.optimizers[0]
        loop.scheduler = None
        self._latest = {}
        self._reached = set()

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Put the model on the device, and keep the losses of another epoch under way."""
        self._move_model(loop.model)
        outer = self._sums, self._newest, self._scored_at
        self._sums, self._newest, self._scored_at = {}, None, None
        try:
            return (yield)
        finally:
            self._sums, self._newest, self._scored_at = outer
            if loop.is_training and self._own:
                loop.optimizer = loop.optimizers[0]  # where a batch was left by stop()

    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Clear the gradients of all networks."""
        for parameter in loop.model.parameters():
            parameter.grad = None

    @hookimpl(tryfirst=True)
    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Put the batch on the device; set `optimizer` to the one whose turn it is."""
        self._newest = None
        if self.device is not None:
            loop.batch = to_device(loop.batch, self.device)
        if loop.is_training:
            if not self._own:
                raise RunError(
                    "'alternating' was enabled in the middle of a run, but makes its optimizers "
                    "when train() begins. Enable it before"
                )
            loop.optimizer = self._own[self._turn(loop)]

    def on_forward_pass(self, loop: TrainTestLoop) -> None:
        """Set `scores` in prediction; elsewhere functions of losses have a forward pass each.

        Raises:
            RunError: there is no function that predicts.
        """
        if loop.is_predicting:
            if self.predict is None:
                raise RunError(
                    "'alternating' does not know which network predicts: give it predict=, a "
                    "function of the loop that returns the scores of loop.batch, as lambda loop: "
                    f"loop.model[{next(iter(self.losses))!r}](loop.batch)"
                )
            loop.scores = self.predict(loop)

    def on_loss_compute(self, loop: TrainTestLoop) -> None:
        """Set `loss`: of the network whose turn it is, or in other phases the sum of all."""
        names = [self._turn(loop)] if loop.is_training else list(self.losses)
        losses = {name: self.losses[name](loop) for name in names}
        for name, value in losses.items():
            if not isinstance(value, torch.Tensor) or value.numel() != 1:
                raise ArgumentError(
                    f"the loss of {name!r} is {_kind(value)}, but has to be the mean loss of the "
                    "batch, a tensor of one element"
                )
        loss: Any = losses[names[0]] if len(names) == 1 else sum(losses.values())
        loop.loss = loss
        loop.log({f"loss/{name}": value for name, value in losses.items()})
        if self._newest is None:  # else the batch is computed again
            self._newest = {name: value.detach() for name, value in losses.items()}
        self._scored_at = loop.batch_num

    def on_backward_pass(self, loop: TrainTestLoop) -> None:
        """Compute the gradients of the network whose turn it is."""
        if self._scored_at != loop.batch_num:
            raise RunError(
                "'alternating' was enabled in the middle of a batch whose loss it did not compute. "
                "Enable it between batches"
            )
        groups = loop.optimizer.param_groups
        own = [p for group in groups for p in group["params"] if p.requires_grad]
        if not own:  # all are frozen
            return
        loop.loss.backward(inputs=own)
        name = self._turn(loop)
        if name not in self._reached:
            if all(p.grad is None for p in own) and loop.batch_size:
                raise ArgumentError(
                    f"the loss of {name!r} does not depend on any parameter of {name!r}, which "
                    "would never be trained. Compute it from the outputs of that network, without "
                    "detach()"
                )
            self._reached.add(name)

    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Update the parameters of the network whose turn it is."""
        loop.optimizer.step()

    @hookimpl(wrapper=True, tryfirst=True)
    def on_batch_end(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Show others the sum of the losses; then set `optimizer` to the first, as states hold it.

        The losses of the batch are added to the means.
        """
        if loop.is_training and self._newest:
            self._latest |= self._newest
            loop.loss = sum(self._latest[name] for name in self.losses if name in self._latest)
        result = yield
        for name, loss in (self._newest or {}).items():
            total, n = self._sums.get(name, (0.0, 0))
            self._sums[name] = [*add_weighted(total, n, loss, loop.batch_size)]
        self._newest = None
        if loop.is_training:
            loop.optimizer = loop.optimizers[0]
        return result

    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Log the mean loss of each network."""
        sums = _sums_of_group(loop, self._sums)
        means = {f"loss/{name}": total / n for name, (total, n) in sums.items() if n}
        if means:
            loop.log(means, level="epoch")

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the losses so far, and the newest ones."""
        sums = {name: list(sums) for name, sums in self._sums.items()}
        return {"sums": sums, "latest": dict(self._latest)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with sums of losses.

        Args:
            state: what `state_dict` returned; that of earlier versions has no newest losses.
        """
        self._sums = {name: list(sums) for name, sums in state["sums"].items()}
        self._latest = dict(state.get("latest", {}))

    def _turn(self, loop: TrainTestLoop) -> str:
        """Return the name of the network of the current optimization step."""
        return self._cycle[loop.global_step % len(self._cycle)]

    def _move_model(self, model: torch.nn.Module) -> None:
        if self.device is not None:
            model.to(self.device)


def _sums_of_group(loop: TrainTestLoop, sums: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the sums of all processes, of which in evaluation one may have no batch."""
    if loop.group.size == 1:
        return sums
    own = {name: (float(total), float(n)) for name, (total, n) in sums.items()}
    several = loop.group.gather(own)
    found: dict[str, tuple[float, float]] = {}
    for name, (total, n) in (pair for each in several for pair in each.items()):
        before, n_before = found.get(name, (0.0, 0.0))
        found[name] = before + total, n_before + n
    return found


def _kind(loss: Any) -> str:
    if isinstance(loss, torch.Tensor):
        return f"a tensor of shape {tuple(loss.shape)}"
    return describe(loss)


def _functions(name: str, values: Any, what: str) -> dict[str, Callable[..., Any]]:
    is_valid = isinstance(values, Mapping) and values and all(map(callable, values.values()))
    if not is_valid or not all(isinstance(each, str) for each in values):
        raise ArgumentError(
            f"{name} is {describe(values)}, but has to be a mapping from names of modules of the "
            f"model, each to {what}"
        )
    return dict(values)
