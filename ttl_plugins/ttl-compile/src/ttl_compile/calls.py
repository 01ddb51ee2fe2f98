"""Compiled calls: of modules, of functions, and whether they can be compiled at all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import torch

from ttl_core import ArgumentError
from ttl_core.arguments import did_you_mean

Call = Callable[..., Any]
Options = Mapping[str, Any]


def compiled_module(module: torch.nn.Module, options: Options) -> Call:
    """Return the compiled call of a module, with its hooks.

    Args:
        module: the module.
        options: the options of torch.compile.
    """

    # Module.compile() compiles _call_impl, and torch does not compile code of its own: nothing of
    # a bare torch.nn.Sequential. From this function on it does.
    def call(*args: Any, **kwargs: Any) -> Any:
        return module._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

    call.__code__ = _own_code(call.__code__, repr(module))
    return torch.compile(call, **options)


def compiled_function(function: Call, options: Options) -> Call:
    """Return a function compiled.

    Args:
        function: the function, or a module.
        options: the options of torch.compile.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    call.__code__ = _own_code(call.__code__, repr(function))
    return torch.compile(call, **options)


@functools.cache
def _own_code(code: CodeType, what: str) -> CodeType:  # noqa: ARG001 # a key of the cache
    """Return a code object for each thing that is compiled.

    torch keeps what it has compiled with the code object, up to a limit. So equal modules (blocks
    of a model, models of several folds) are compiled once, and different ones do not use up each
    other's limit.
    """
    return code.replace()


def check_backend(backend: str | Call) -> None:
    """Check that torch has a backend.

    Args:
        backend: its name, or a function.

    Raises:
        ArgumentError: torch knows no backend of that name.
    """
    if isinstance(backend, str):
        backends = torch.compiler.list_backends(exclude_tags=())
        if backend not in backends:
            raise ArgumentError(
                f"'compile' has backend={backend!r}, which torch {torch.__version__} does not "
                f"have. {did_you_mean(backend, backends)}Available: {', '.join(backends)}"
            )


def why_unavailable(device: torch.device, options: Options) -> str | None:
    """Return why nothing can be compiled, found out by trying; None if it can.

    Args:
        device: the device to compile for.
        options: the options of torch.compile.
    """

    def add_one(tensor: torch.Tensor) -> torch.Tensor:
        return tensor + 1

    try:
        compiled = torch.compile(add_one, **options)
        if compiled is add_one:
            return "it is disabled, as by TORCHDYNAMO_DISABLE=1 or TORCH_COMPILE_DISABLE=1"
        if options["backend"] == "inductor":  # others need no compiler
            compiled(torch.zeros(2, device=device))
    except RuntimeError as error:  # what torch raises is one, with a first line that says why
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    return None
