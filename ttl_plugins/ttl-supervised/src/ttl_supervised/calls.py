"""How a model is called, and what it returns where it computes its loss itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ttl_core import ArgumentError
from ttl_core.arguments import describe

Call = Callable[[Any, Any], Any]
"""A function of the model and the inputs."""

_CALLS: dict[str, Call] = {
    "args": lambda model, inputs: model(*inputs),
    "kwargs": lambda model, inputs: model(**inputs),
}


def checked_call(call: Any) -> Call | None:
    """Return how a model is called; None for with one argument, the inputs.

    Args:
        call: None, "args", "kwargs", or a function of the model and the inputs.

    Raises:
        ArgumentError: it is something else.

    Example:
        >>> checked_call("kwargs")(dict, {"a": 1})
        {'a': 1}
    """
    if call is None:
        return None
    if isinstance(call, str) and call in _CALLS:
        return _CALLS[call]
    if not callable(call):
        raise ArgumentError(
            f"call is {describe(call)}, but has to be 'args' for model(*inputs), 'kwargs' for "
            "model(**inputs), or a function of the model and the inputs, as "
            "lambda model, inputs: model(inputs['text'], mask=inputs['mask']) is"
        )
    function: Call = call
    return function


def split_output(output: Any) -> tuple[Any, Any]:
    """Return the loss and the scores in what a model returns that computes its loss itself.

    Args:
        output: an object or a mapping with `loss`, and `logits` if it has scores; a mapping of
            losses; or a tuple that begins with the loss.

    Returns:
        The loss, which is None where there is none, and the scores, or else the whole output.

    Example:
        >>> split_output({"loss": torch.tensor(1.0), "logits": [2.0]})
        (tensor(1.), [2.0])
    """
    if isinstance(output, Mapping):
        if "loss" in output:
            return output["loss"], output.get("logits", output)
        is_losses = bool(output) and all(_is_number(value) for value in output.values())
        return (output if is_losses else None), output.get("logits", output)
    if isinstance(output, tuple) and not hasattr(output, "loss"):
        if output and _is_number(output[0]):
            return output[0], output[1] if len(output) == 2 else output[1:]
        return None, output
    return getattr(output, "loss", None), getattr(output, "logits", output)


def _is_number(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1
