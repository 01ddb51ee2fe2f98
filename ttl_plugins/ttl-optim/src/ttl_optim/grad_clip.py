"""The component `grad-clip`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from ttl_core import (
    ArgumentError,
    Group,
    LoopComponent,
    hookimpl,
    is_sharded,
    local_part,
    optimizer_parameters,
    whole_tensor,
)
from ttl_core.arguments import number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class GradClip(LoopComponent):
    """A limit to the gradients of `loop.optimizers`, applied just before each optimization step.

    Args:
        max_norm: the largest norm that the gradients together may have; 1.0 if neither limit is
            given. `math.inf` clips nothing and only logs.
        max_value: the largest absolute value of an element, instead.
        norm_type: which p-norm; 2.0 is the Euclidean one.

    Raises:
        ArgumentError: both limits are given, or an argument is no number above 0.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), GradClip(0.1)],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
    """

    def __init__(
        self,
        max_norm: float | None = None,
        *,
        max_value: float | None = None,
        norm_type: float = 2.0,
    ) -> None:
        if max_norm is not None and max_value is not None:
            raise ArgumentError(
                f"max_norm={max_norm!r} and max_value={max_value!r} are both given. Give one of "
                "them, or use two components"
            )
        if max_value is None:
            max_norm = number("max_norm", 1.0 if max_norm is None else max_norm, above=0)
        else:
            max_value = number("max_value", max_value, above=0)
        self.max_norm = 1.0 if max_norm is None else max_norm
        self.max_value = max_value
        self.norm_type = number("norm_type", norm_type, above=0)

    @hookimpl(tryfirst=True)
    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Clip, and log the norm that the gradients had, as "grad-norm" at batch level."""
        # Other parameters of the model may hold any gradient, also one that is still scaled.
        parameters = list(optimizer_parameters(loop))
        try:
            self._clip(loop, parameters)
        except NotImplementedError:  # torch clips no sparse gradients; checking first would be slow
            self._clip(loop, list(_with_dense_gradients(parameters)))

    def _clip(self, loop: TrainTestLoop, parameters: list[torch.Tensor]) -> None:
        if self.max_value is not None:
            clip_grad_value_(parameters, self.max_value)
        else:
            gradients = [p.grad for p in parameters if p.grad is not None]
            # one number, also where each process has a part of each gradient
            norm = self._norm(gradients, loop.group)
            clip_grads_with_norm_(parameters, self.max_norm, norm)
            loop.log({"grad-norm": norm})

    def _norm(self, gradients: list[torch.Tensor], group: Group) -> torch.Tensor:
        """Return the norm of gradients, of which each process may have a part."""
        if math.isfinite(self.norm_type) or not any(map(is_sharded, gradients)):
            return whole_tensor(get_total_norm(gradients, self.norm_type))
        # torch has no maximum of the empty part that a process has of a small tensor
        parts = map(local_part, gradients)
        own = get_total_norm([part for part in parts if part.numel()], self.norm_type)
        several = own.new_zeros(group.size)
        several[group.rank] = own
        return group.sum(several).max()


def _with_dense_gradients(parameters: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield parameters, and in place of those with a sparse gradient what has its values only.

    The other elements are 0: they do not count in a norm, and are within any limit.
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None or not gradient.is_sparse:
            yield parameter
            continue
        parameter.grad = gradient.coalesce()  # until then a row that was used twice is in it twice
        values = parameter.grad.values().detach()
        if values.numel():
            values.grad = values.view_as(values)
            yield values
