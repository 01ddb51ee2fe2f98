"""The model that callbacks of Keras get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ttl_adapters.facade import STOP_FLAG, Facade
from ttl_core import distributed_like, whole_tensor

if TYPE_CHECKING:
    from ttl_adapters.adapter import Adapter

_CHECKPOINT = "the component checkpoint; a model of Keras itself, as loop.model, has this method"


class Model(Facade):
    """The model that callbacks of Keras get: that of the loop, with what Keras adds to one.

    A model of Keras keeps its own methods. A module of torch gets `get_weights` and `set_weights`.

    Args:
        adapter: the component whose callback it is for.
    """

    stop_training = STOP_FLAG
    settable = ("history", "stop_training")
    instead = {  # noqa: RUF012
        "compile": "the arguments of the component supervised",
        "evaluate": "loop.validate(), or loop.test()",
        "export": _CHECKPOINT,
        "fit": "loop.train()",
        "load_weights": _CHECKPOINT,
        "predict": "loop.predict()",
        "save": _CHECKPOINT,
        "save_weights": _CHECKPOINT,
        "trainable_weights": "model.parameters()",
    }

    def __init__(self, adapter: Adapter) -> None:
        super().__init__("model", adapter.callback, _adapter=adapter)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer as Keras has it; several have the learning rates of each."""
        return Optimizer(self._callback, self._loop.optimizers)

    def __getattr__(self, name: str) -> Any:
        model = vars(self)["_loop"].model
        is_of_torch = name in self.instead and hasattr(torch.nn.Module, name)  # such as compile
        if hasattr(model, name) and not is_of_torch:
            return getattr(model, name)
        if name == "get_weights":
            return lambda: [_array(tensor) for tensor in model.state_dict().values()]
        if name == "set_weights":
            return lambda weights: _set_weights(model, weights)
        return super().__getattr__(name)


class Optimizer(Facade):
    """The optimizers of a loop as one of Keras.

    Args:
        callback: the callback.
        optimizers: the optimizers.
    """

    settable = ("learning_rate",)
    instead = {"iterations": "loop.global_step"}  # noqa: RUF012

    def __init__(self, callback: object, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        super().__init__("model.optimizer", callback, _groups=groups)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the first parameter group; setting it scales those of all."""
        return float(self._groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        before = self.learning_rate
        for group in self._groups:
            new = float(rate) * (float(group["lr"]) / before if before else 1.0)
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(new)
            else:
                group["lr"] = new


def _array(tensor: torch.Tensor) -> Any:
    return whole_tensor(tensor.detach()).cpu().numpy().copy()


def _set_weights(model: torch.nn.Module, weights: Sequence[Any]) -> None:
    with torch.no_grad():
        for tensor, array in zip(model.state_dict().values(), weights, strict=True):
            tensor.copy_(distributed_like(torch.as_tensor(array), tensor))
