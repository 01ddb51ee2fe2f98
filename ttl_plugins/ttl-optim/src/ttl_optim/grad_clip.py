"""The component `grad-clip`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from ttl_core import LoopComponent, hookimpl

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class GradClip(LoopComponent):
    """Clip the gradients of `loop.optimizer` just before each optimization step.

    Args:
        max_norm: the largest norm that the gradients together may have; 1.0 if neither limit is
            given. `math.inf` clips nothing and just logs.
        max_value: the largest absolute value of an element, instead.
        norm_type: which p-norm; 2.0 is the Euclidean one.

    Raises:
        ValueError: both limits are given, or one is not above 0.

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
            raise ValueError(
                f"max_norm={max_norm!r} and max_value={max_value!r} are both given. Give one of "
                "them, or use two components"
            )
        for name, limit in {"max_norm": max_norm, "max_value": max_value}.items():
            if limit is not None and not limit > 0:
                raise ValueError(f"{name} is {limit!r}, but has to be above 0")
        self.max_norm = 1.0 if max_norm is None else max_norm
        self.max_value = max_value
        self.norm_type = norm_type

    @hookimpl(tryfirst=True)
    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Clip, and log the norm that the gradients had, as "grad-norm" at batch level."""
        # what the optimizer does not update may hold anything, also gradients that are still scaled
        parameters = [p for group in loop.optimizer.param_groups for p in group["params"]]
        if self.max_value is not None:
            clip_grad_value_(parameters, self.max_value)
        else:
            loop.log({"grad-norm": clip_grad_norm_(parameters, self.max_norm, self.norm_type)})
