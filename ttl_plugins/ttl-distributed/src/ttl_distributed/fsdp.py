"""The component `fsdp`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from ttl_core import ArgumentError, RunError, map_nested, optimizer_parameters
from ttl_core.arguments import describe, flag, whole_number
from ttl_distributed.base import DataParallel
from ttl_distributed.group import ProcessGroup

if TYPE_CHECKING:
    from torch.distributed.fsdp import MixedPrecisionPolicy

    from ttl_core import TrainTestLoop
    from ttl_distributed.even_passes import EvenPasses


class Fsdp(DataParallel):
    """Training of a model that is shared out to processes, started by torchrun, by torch's FSDP.

    Each process keeps a part of the parameters, of their gradients and of the state of the
    optimizer; a layer is gathered while it computes. The data are shared out as by `ddp`, with the
    same steps and gradients on any number of processes. It is torch.distributed.fsdp.fully_shard,
    which changes the model in place when a run begins: `loop.model` and its keys stay what they
    are. Started without torchrun, it does nothing and costs nothing.

    Args:
        layers: which modules are gathered one by one: names of their classes, a function that is
            called with each module, or the number of parameters from which on one is; None to
            gather the model as a whole.
        mixed_precision: "bf16" or "fp16" to compute in that type with gradients reduced in
            float32, or a MixedPrecisionPolicy of torch.distributed.fsdp.
        reshard_after_forward: whether layers are freed between forward and backward pass, or how
            many processes keep one together then; None for all but the outermost.
        cpu_offload: whether parameters, gradients and optimizer state are kept on the CPU.
        mesh_shape: how many replicas of the model there are, and how many processes share each;
            None for one replica.
        reduce_each_batch: whether gradients are reduced in each batch where several make a step.
            Without it each process keeps the whole gradient until the step.
        timeout: how many seconds a process waits for the others before it fails; it has to be
            longer than writing a checkpoint takes.
        first_timeout: the same until the first batch of a training epoch has ended.

    Raises:
        ArgumentError: an argument has an unusable value.
        RunError: the environment has only a part of what torchrun sets.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Fsdp("Linear"), Step()],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.group.size
        1
    """

    entry_point = "fsdp"
    conflicts = "ddp"

    def __init__(
        self,
        layers: str | Sequence[str] | Callable[[torch.nn.Module], bool] | int | None = None,
        *,
        mixed_precision: Literal["bf16", "fp16"] | MixedPrecisionPolicy | None = None,
        reshard_after_forward: bool | int | None = None,
        cpu_offload: bool = False,
        mesh_shape: tuple[int, int] | None = None,
        reduce_each_batch: bool = False,
        timeout: float = 300.0,
        first_timeout: float = 1800.0,
    ) -> None:
        super().__init__(timeout, first_timeout)
        self.layers = _checked_layers(layers)
        self.mixed_precision = _checked_precision(mixed_precision)
        if reshard_after_forward is not None and not isinstance(reshard_after_forward, bool):
            whole_number("reshard_after_forward", reshard_after_forward, at_least=2)
        self.reshard_after_forward = reshard_after_forward
        self.cpu_offload = flag("cpu_offload", cpu_offload)
        self.mesh_shape = _checked_shape(mesh_shape)
        self.reduce_each_batch = flag("reduce_each_batch", reduce_each_batch)
        self._replaced: Any = None  # the parameters from before the model was sharded
        self._is_reducing = True
        # a parameter that has a gradient while those that are not reduced yet are kept elsewhere
        self._marked: torch.Tensor | None = None
        self._outputs: list[torch.Tensor] = []
        self._passes: EvenPasses | None = None

    def _take_part(self, loop: TrainTestLoop, group: ProcessGroup) -> None:
        from torch.distributed.fsdp import FSDPModule  # imported where there is a group only

        from ttl_distributed import sharding

        if isinstance(loop.model, FSDPModule):
            return
        group.broadcast_tensors([*loop.model.parameters(), *loop.model.buffers()])
        self._replaced = sharding.ReplacedParameters(loop.model)
        self._is_reducing, self._marked = True, None
        sharding.shard(
            loop.model,
            self.layers,
            mesh=sharding.make_mesh(group, self.mesh_shape),
            reshard_after_forward=self.reshard_after_forward,
            **sharding.policies(self.mixed_precision, self.cpu_offload),
        )

    def _check_begun(self, loop: TrainTestLoop) -> None:
        if self._replaced is None:
            return
        from ttl_distributed.sharding import check_can_step

        optimizers = getattr(loop, "optimizers", ())
        self._replaced.check(optimizers)
        for optimizer in optimizers:
            check_can_step(optimizer)

    def _begin_epoch(self, loop: TrainTestLoop) -> None:
        if loop.is_training:
            return
        from ttl_distributed.even_passes import EvenPasses, UntilAllEnd

        assert self._group is not None
        n_batches = loop.n_batches
        self._passes = EvenPasses(
            loop.model, self._group, n_batches, functools.partial(self._votes.vote, loop)
        )
        if loop.is_predicting:  # on_epoch_end does not fire in it
            loop.data, loop.n_batches = UntilAllEnd(loop.data, self._passes), n_batches

    def _end_epoch(self, loop: TrainTestLoop) -> None:
        self._end_passes()

    def _end_passes(self) -> None:
        passes, self._passes = self._passes, None
        if passes is not None:
            passes.close()

    def _begin_evaluation_pass(self) -> None:
        if self._passes is not None:
            self._passes.begin_pass()

    def _end_evaluation(self, loop: TrainTestLoop) -> None:
        if self._passes is not None:
            self._passes.finish()
            self._passes.close()  # and again in the end, as components may call the model here

    def _begin_forward_pass(self, loop: TrainTestLoop) -> None:
        """Note calls of the model, and keep what it returns."""
        self._outputs, self._was_called = [], False
        self._handle = loop.model.register_forward_hook(self._note_call)

    def _end_forward_pass(self, loop: TrainTestLoop, *, is_complete: bool) -> None:
        self._handle.remove()
        if not torch.is_grad_enabled():  # no backward pass follows that would free layers
            from ttl_distributed.sharding import reshard

            reshard(loop.model)
        if is_complete and not self._was_called:
            raise RunError(
                f"fsdp: no component has called loop.model(...) in on_forward_pass of training "
                f"batch {loop.batch_num}. Its parameters are gathered as it is called: call it as "
                "a whole there, not a module in it, or train with ddp"
            )

    def _note_call(self, _model: torch.nn.Module, _inputs: Any, outputs: Any) -> None:
        self._was_called = True
        map_nested(self._note_output, outputs)

    def _begin_backward_pass(self, loop: TrainTestLoop) -> torch.nn.Parameter | None:
        """Let gradients be reduced where they are needed, as it is known now."""
        model: Any = loop.model
        self._follow_drops(model)
        # Data without a length may end where no step is due, and a state is taken then.
        is_reducing = loop.is_stepping or self.reduce_each_batch or loop.n_batches is None
        if not is_reducing and self._marked is None:
            self._mark(loop)
            is_reducing = self._marked is None
        elif is_reducing:
            self._marked = None
        if is_reducing != self._is_reducing:  # setting it goes through all modules
            self._is_reducing = is_reducing
            model.set_requires_gradient_sync(is_reducing)
        return None

    def _note_output(self, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.requires_grad:
            self._outputs.append(output)

    def _nothing(self, loop: TrainTestLoop) -> torch.Tensor:
        # From the outputs, at which the backward pass of the others has to begin too; not times 0,
        # as the scores of a batch without a sample may be no numbers.
        outputs, self._outputs = self._outputs, []
        if not outputs:  # they are objects of which it is not known what is in them
            return torch.as_tensor(loop.loss * 0)
        kept = torch.zeros((), dtype=torch.bool, device=loop.loss.device)
        return torch.stack([torch.where(kept, each, 0).sum().float() for each in outputs]).sum()

    def _mark(self, loop: TrainTestLoop) -> None:
        """Give a parameter a gradient of 0, so that components see that gradients are pending.

        Gradients that are not reduced are kept where no component sees or drops them. What is
        reduced in the end is added to this one.
        """
        trained = [p for p in optimizer_parameters(loop) if p.requires_grad]
        if trained and _is_reduced_as_it_is(self.mixed_precision):
            self._marked = trained[-1]
            if self._marked.grad is None:
                self._marked.grad = torch.zeros_like(self._marked)

    def _follow_drops(self, model: torch.nn.Module) -> None:
        """Discard pending gradients where a component has dropped them, as all processes do."""
        if self._marked is not None and self._marked.grad is None:
            from ttl_distributed.sharding import discard_gradients

            self._marked = None
            discard_gradients(model)


def _checked_layers(layers: Any) -> Any:
    if layers is None or (callable(layers) and not isinstance(layers, type)):
        return layers
    if isinstance(layers, str):
        return [layers]
    if isinstance(layers, int):
        return whole_number("layers", layers, at_least=1)
    if isinstance(layers, Sequence) and all(isinstance(name, str) for name in layers):
        return list(layers)
    raise ArgumentError(
        f"layers is {describe(layers)}, but has to be names of classes of modules, as 'Block', a "
        "function that is called with each module, a number of parameters, or None"
    )


def _checked_precision(policy: Any) -> Any:
    is_policy = all(hasattr(policy, name) for name in ("param_dtype", "reduce_dtype"))
    if policy in (None, "bf16", "fp16") or is_policy:
        return policy
    raise ArgumentError(
        f"mixed_precision is {describe(policy)}, but has to be 'bf16', 'fp16', a "
        "MixedPrecisionPolicy of torch.distributed.fsdp, or None"
    )


def _checked_shape(shape: Any) -> tuple[int, int] | None:
    if shape is None:
        return None
    if not isinstance(shape, Sequence) or len(shape) != 2:
        raise ArgumentError(
            f"mesh_shape is {describe(shape)}, but has to be two numbers: of replicas of the "
            "model, and of processes that share each; or None"
        )
    first, second = (whole_number("mesh_shape", each, at_least=1) for each in shape)
    return first, second


def _is_reduced_as_it_is(policy: Any) -> bool:
    """Return whether gradients are reduced in the type of the parameters that compute.

    Others are converted where they are kept, and torch has no way to discard them then.
    """
    if policy is None:
        return True
    if isinstance(policy, str):
        return False
    return policy.reduce_dtype in (None, policy.param_dtype)
