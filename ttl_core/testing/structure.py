"""What belongs to a model, its optimizers and a loop besides values: hooks, flags, parts."""

from __future__ import annotations

from typing import Any

import torch

from ttl_core.loop import TrainTestLoop
from ttl_core.testing.outcome import Facts, as_text

_MODULE_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
_OPTIMIZER_HOOKS = (
    *("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"),
    *("_optimizer_state_dict_pre_hooks", "_optimizer_state_dict_post_hooks"),
    *("_optimizer_load_state_dict_pre_hooks", "_optimizer_load_state_dict_post_hooks"),
)


def model_structure(model: torch.nn.Module) -> Facts:
    """Return the parts of a model, their flags and hooks."""
    found: Facts = {}
    for name, module in model.named_modules():
        what = f"module {name!r}" if name else "the model"
        found[f"the class of {what}"] = f"{type(module).__module__}.{type(module).__qualname__}"
        hooks = [len(getattr(module, kind)) for kind in _MODULE_HOOKS]
        found[f"the number of hooks on {what}"] = str(sum(hooks))
        own = sorted(key for key in vars(module) if key[0] != "_" and key != "training")
        found[f"the attributes of {what}"] = ", ".join(own)
        found[f"the compiled call of {what}"] = str(module._compiled_call_impl)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        what = f"parameter {name}"
        found[f"the identity of {what}"] = f"{id(parameter):#x}"
        found[f"the type of {what}"] = f"{tuple(parameter.shape)}, {parameter.dtype}"
        found[f"requires_grad of {what}"] = str(parameter.requires_grad)
        found[f"the number of hooks on {what}"] = str(_tensor_hooks(parameter))
        found[f"the attributes of {what}"] = ", ".join(sorted(vars(parameter)))
    for name, buffer in model.named_buffers(remove_duplicate=False):
        found[f"the type of buffer {name}"] = f"{tuple(buffer.shape)}, {buffer.dtype}"
    return found


def _tensor_hooks(tensor: Any) -> int:
    return len(tensor._backward_hooks or ()) + len(tensor._post_accumulate_grad_hooks or ())


def modes(model: torch.nn.Module) -> Facts:
    """Return the modes of the modules of a model, and which parameters are trained."""
    training = {
        f"the training mode of {f'module {name!r}' if name else 'the model'}": str(module.training)
        for name, module in model.named_modules()
    }
    return training | {
        f"requires_grad of parameter {name}": str(parameter.requires_grad)
        for name, parameter in model.named_parameters()
    }


def optimizer_structure(loop: TrainTestLoop, *, settings: bool = True) -> Facts:
    """Return the methods, hooks and settings of the optimizers of a loop, without numbers.

    Args:
        loop: the loop.
        settings: whether to return the settings too.
    """
    found: Facts = {}
    if not (vars(loop)["_optimizers"] or "optimizer" in vars(loop)):
        return found
    for i, optimizer in enumerate(loop.optimizers):
        what = f"optimizer {i} ({type(optimizer).__qualname__})"
        for method in ("step", "zero_grad"):
            found[f"{method} of {what}"] = _written_at(getattr(optimizer, method))
        hooks = [len(getattr(optimizer, kind)) for kind in _OPTIMIZER_HOOKS]
        found[f"the number of hooks on {what}"] = str(sum(hooks))
        public = sorted(key for key in vars(optimizer) if key[0] != "_")
        found[f"the attributes of {what}"] = ", ".join(public)
        for j, group in enumerate(optimizer.param_groups if settings else ()):
            found[f"the number of parameters in group {j} of {what}"] = str(len(group["params"]))
            for key, value in group.items():
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                if key != "params" and not is_number and not isinstance(value, torch.Tensor):
                    found[f"{key!r} of group {j} of {what}"] = repr(value)
    return found


def optimizer_settings(loop: TrainTestLoop) -> Facts:
    """Return the values of the settings of the optimizers of a loop, such as learning rates."""
    if not (vars(loop)["_optimizers"] or "optimizer" in vars(loop)):
        return {}
    return {
        f"{key!r} of group {j} of optimizer {i}": setting_text(value)
        for i, optimizer in enumerate(loop.optimizers)
        for j, group in enumerate(optimizer.param_groups)
        for key, value in group.items()
        if key != "params"
    }


def setting_text(value: Any) -> str:
    """Return the value of a setting of an optimizer as text: 0 and 0.0 are the same there."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return as_text(float(value) if is_whole else value)


def _written_at(function: Any) -> str:
    """Return where a function, and those that it wraps, are in source."""
    lines = []
    while function is not None:
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        lines.append(f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function))
        function = getattr(function, "__wrapped__", None)
    return ", wrapping ".join(lines)


def loop_structure(loop: TrainTestLoop) -> Facts:
    """Return which methods of a loop are replaced, and which components it has."""
    names = loop.components.names()
    patched = [name for name in vars(loop) if callable(getattr(type(loop), name, None))]
    return {
        "the components": ", ".join(names),
        "the disabled components": ", ".join(n for n in names if not loop.components.is_enabled(n)),
        "the replaced methods of the loop": ", ".join(patched),
    }
