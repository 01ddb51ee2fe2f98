"""The component `compile`."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from ttl_compile.calls import (
    Call,
    check_backend,
    compiled_function,
    compiled_module,
    why_unavailable,
)
from ttl_compile.regions import Pattern, checked_patterns, matching_modules
from ttl_compile.steps import CompiledStep
from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.arguments import flag, one_of, user_stacklevel

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)
_MODES = (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class Compile(LoopComponent):
    """Model, loss and optimizer step, compiled by torch.compile, whichever component calls them.

    The model is compiled in place: it stays the same object with the same names of weights. It is
    compiled in on_forward_pass and on_loss_compute only, the loss function in on_loss_compute, and
    steps in on_optim_step. At any other moment, and when this component is disabled, they are what
    they were.

    The first batch of training and the first one of evaluation take longer, as they compile. A line
    is logged before and after each. Where nothing can be compiled, as without a C++ compiler, a
    warning says why, and the run continues uncompiled.

    Args:
        regions: the modules to compile in place of the whole model: patterns of their names (as
            `fnmatch` has them), names of their classes, or classes. Equal modules, such as the
            blocks of a transformer, are compiled once.
        model: whether to compile the model, or its regions.
        loss: whether to compile `loop.loss_func`.
        optimizer: whether to compile the steps of `loop.optimizers`.
        mode: the mode of torch.compile.
        dynamic: False compiles again for each shape; True compiles for all shapes at once; None
            does so from the second shape on, and a resumed run may then differ in bits.
        backend: the backend of torch.compile, by its name or as a function.
        fullgraph: whether it is an error if the model cannot be compiled as one graph.

    Raises:
        ArgumentError: an argument has an unusable value; in the first batch, torch has no such
            backend, or a region matches no module.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(),
        ...                      [Step(), Compile(backend="eager")],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> list(loop.model.state_dict())[:2]
        ['0.weight', '0.bias']
    """

    def __init__(
        self,
        regions: Pattern | Iterable[Pattern] | None = None,
        *,
        model: bool = True,
        loss: bool = True,
        optimizer: bool = False,
        mode: str | None = None,
        dynamic: bool | None = False,
        backend: str | Callable[..., Any] = "inductor",
        fullgraph: bool = False,
    ) -> None:
        self.model = flag("model", model)
        self.loss = flag("loss", loss)
        self.optimizer = flag("optimizer", optimizer)
        if not (model or loss or optimizer):
            raise ArgumentError(
                "model, loss and optimizer are all False, so there is nothing to compile. Set one "
                "of them, or remove 'compile' from the list"
            )
        if regions is not None and not model:
            raise ArgumentError(f"regions={regions!r} are parts of a model, but model is False")
        self.regions = None if regions is None else checked_patterns(regions)
        self.options: dict[str, Any] = {
            "mode": one_of("mode", mode, _MODES),
            "dynamic": one_of("dynamic", dynamic, (None, True, False)),
            "backend": backend,
            "fullgraph": flag("fullgraph", fullgraph),
        }
        self._is_available: bool | None = None  # unknown before the first batch
        self._compiled_for: torch.nn.Module | None = None
        self._calls: list[tuple[torch.nn.Module, Call]] = []
        self._loss_func: tuple[Any, Any] = (None, None)  # as it is, and compiled
        self._steps: list[CompiledStep] = []
        self._announced: set[str] = set()
        self._first_batch: tuple[object, float] | None = None  # which, and when it began

    @hookimpl(wrapper=True)
    def on_forward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Let the model be compiled."""
        if not self._prepare(loop):
            return (yield)
        self._announce(loop)
        previous = self._install()
        try:
            return (yield)
        finally:
            _restore(previous)

    @hookimpl(wrapper=True)
    def on_loss_compute(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Let the loss be compiled, and the model for components that call it here."""
        if not self._prepare(loop):
            return (yield)
        self._announce(loop)
        previous = self._install()
        loss_func = getattr(loop, "loss_func", None) if self.loss else None
        compiled = self._compiled_loss(loss_func)
        if compiled is not None:
            loop.loss_func = compiled
        try:
            return (yield)
        finally:
            _restore(previous)
            if compiled is not None and loop.loss_func is compiled:
                loop.loss_func = loss_func

    @hookimpl(wrapper=True)
    def on_optim_step(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Let optimizers step compiled, if asked to."""
        if not self.optimizer or not self._prepare(loop):
            return (yield)
        optimizers = loop.optimizers
        if [step.optimizer for step in self._steps] != list(optimizers):
            self._steps = [CompiledStep(optimizer, self.options) for optimizer in optimizers]
        steps = self._steps
        for step in steps:
            step.install()
        try:
            return (yield)
        finally:
            for step in steps:
                step.remove()

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Log how long a first batch took."""
        if self._first_batch is not None:
            (first, began), self._first_batch = self._first_batch, None
            if first == _position(loop):
                seconds = time.monotonic() - began
                _log.warning("compile: the first %s batch took %.1f s", _kind(loop), seconds)

    def _prepare(self, loop: TrainTestLoop) -> bool:
        """Return whether there is something compiled to use; compile a new model."""
        model = loop.model
        if isinstance(model, DistributedDataParallel):  # what it does is not to be compiled
            model = model.module
        if self._is_available is None:
            self._check_availability(model)
        if self._is_available and self._compiled_for is not model:
            self._compiled_for = model
            modules = [model]
            if self.regions is not None:
                modules = matching_modules(model, self.regions)
            self._calls = [
                (module, compiled_module(module, self.options))
                for module in modules
                if self.model and module._compiled_call_impl is None  # else it is compiled already
            ]
        return bool(self._is_available)

    def _check_availability(self, model: torch.nn.Module) -> None:
        check_backend(self.options["backend"])
        first = next(model.parameters(), None)
        device = torch.device("cpu") if first is None else first.device
        reason = why_unavailable(device, self.options)
        self._is_available = reason is None
        if reason is not None:
            warnings.warn(
                f"'compile' compiles nothing, and the run continues uncompiled: {reason}. On a CPU "
                "torch needs a C++ compiler, as `apt-get install g++` provides; remove 'compile' "
                "from the list to run without",
                UserWarning,
                stacklevel=user_stacklevel(),
            )

    def _announce(self, loop: TrainTestLoop) -> None:
        """Log that a first batch compiles."""
        kind = _kind(loop)
        if kind not in self._announced:
            self._announced.add(kind)
            self._first_batch = (_position(loop), time.monotonic())
            _log.warning("compile: compiling for %s, so that the first batch takes longer", kind)

    def _install(self) -> list[tuple[torch.nn.Module, Call | None]]:
        """Let modules be compiled, and return them with what their calls were."""
        # It is what Module.compile() sets, and what copies and pickles of a module leave out.
        previous = [(module, module._compiled_call_impl) for module, _ in self._calls]
        for module, call in self._calls:
            vars(module)["_compiled_call_impl"] = call
        return previous

    def _compiled_loss(self, loss_func: Any) -> Any:
        """Return a loss function compiled; None if there is none, or it is compiled already."""
        own, compiled = self._loss_func
        if loss_func is None or loss_func is compiled:  # the latter in a nested validation
            return None
        if loss_func is not own:
            compiled = compiled_function(loss_func, self.options)
            self._loss_func = (loss_func, compiled)
        return compiled


def _restore(previous: list[tuple[torch.nn.Module, Call | None]]) -> None:
    for module, call in previous:
        vars(module)["_compiled_call_impl"] = call


def _kind(loop: TrainTestLoop) -> str:
    return "training" if loop.is_training else "evaluation"


def _position(loop: TrainTestLoop) -> tuple[object, ...]:
    return loop.epoch_desc, loop.epoch_num, loop.batch_num
