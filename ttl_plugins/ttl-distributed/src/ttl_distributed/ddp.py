"""The component `ddp`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ttl_core.arguments import flag, number
from ttl_distributed.base import DataParallel
from ttl_distributed.failures import explaining_failures
from ttl_distributed.group import ProcessGroup
from ttl_distributed.parallel import (
    Parallel,
    average_gradients,
    trained_parameters,
)

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class Ddp(DataParallel):
    """Training on several devices, in processes that torchrun has started, by torch's DDP.

    The processes share out each batch of the data: its size is that of all of them together, so
    that the same script makes the same steps with the same gradients on any number of them. The
    gradient is that of the mean loss of the whole batch by `loop.batch_size`. `loop.model` is the
    model itself, but for on_forward_pass in training. Where components call modules of it one by
    one, or in on_loss_compute alone, the gradients are averaged after the backward pass instead of
    during it. Started without torchrun, it does nothing and costs nothing.

    Args:
        timeout: how many seconds a process waits for the others before it fails; it has to be
            longer than writing a checkpoint takes.
        first_timeout: the same until the first batch of a training epoch has ended.
        find_unused_parameters: whether parameters may get no gradient in a batch.
        static_graph: whether all batches use the same parameters in the same order.
        bucket_cap_mb: how many megabytes of gradients are reduced at once; None for torch's
            default: 1 for the first that are there, 25 for the others.

    Raises:
        ArgumentError: an argument has an unusable value.
        RunError: the environment has only a part of what torchrun sets.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), Ddp()],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.group.size
        1
    """

    entry_point = "ddp"
    conflicts = "fsdp"

    def __init__(
        self,
        *,
        timeout: float = 300.0,
        first_timeout: float = 1800.0,
        find_unused_parameters: bool = False,
        static_graph: bool = False,
        bucket_cap_mb: float | None = None,
    ) -> None:
        super().__init__(timeout, first_timeout)
        self.find_unused_parameters = flag("find_unused_parameters", find_unused_parameters)
        self.static_graph = flag("static_graph", static_graph)
        if bucket_cap_mb is not None:
            number("bucket_cap_mb", bucket_cap_mb, above=0)
        self.bucket_cap_mb = bucket_cap_mb
        self._parallel: Parallel | None = None
        self._is_model_checked = False

    def _share_weights(self, loop: TrainTestLoop, group: ProcessGroup) -> None:
        group.broadcast_tensors([*loop.model.parameters(), *loop.model.buffers()])

    def _leave(self, loop: TrainTestLoop) -> None:
        self._parallel = None

    def _begin_epoch(self, loop: TrainTestLoop) -> None:
        self._is_model_checked = False

    def _begin_forward_pass(self, loop: TrainTestLoop) -> None:
        """Compute the forward pass through DDP."""
        loop.model = parallel = self._prepared(loop.model)
        parallel.begin_batch(loop.is_stepping)

    def _end_forward_pass(self, loop: TrainTestLoop, *, is_complete: bool) -> None:
        if self._parallel is not None:
            loop.model = self._parallel.module

    def _begin_backward_pass(self, loop: TrainTestLoop) -> torch.nn.Parameter | None:
        return None if self._parallel is None else self._parallel.take_carrier()

    def _begin_empty_pass(self) -> torch.nn.Parameter | None:
        return None if self._parallel is None else self._parallel.begin_empty_pass()

    def _complete_gradients(self, loop: TrainTestLoop) -> None:
        """Average the gradients where DDP did not, as for modules that are called one by one."""
        assert self._group is not None
        if self._parallel is None or not self._parallel.newest.is_averaged:
            average_gradients(trained_parameters(loop.model), self._group.size)

    def _nothing(self, loop: TrainTestLoop) -> torch.Tensor:
        assert self._parallel is not None
        return self._parallel.nothing()

    def _prepared(self, model: torch.nn.Module) -> Parallel:
        """Return the model within DDP, made again where other parameters are trained."""
        parallel = self._parallel
        if self._is_model_checked and parallel is not None and parallel.module is model:
            return parallel
        self._is_model_checked = True
        trained = trained_parameters(model)
        if (
            parallel is None
            or parallel.module is not model
            or list(map(id, trained)) != list(map(id, parallel.trained))
        ):
            assert self._group is not None
            self._parallel = None  # first: its hooks must not act for the new one
            device = self._group.device
            with explaining_failures("comparing the model"):
                parallel = Parallel(
                    model,
                    device_ids=None if device.type == "cpu" else [device],
                    find_unused_parameters=self.find_unused_parameters,
                    static_graph=self.static_graph,
                    bucket_cap_mb=self.bucket_cap_mb,
                )
            self._parallel = parallel
        return parallel
