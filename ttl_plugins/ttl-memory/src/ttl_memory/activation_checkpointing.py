"""The component `activation-checkpointing`."""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
from collections.abc import Generator, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.arguments import describe

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_logger = logging.getLogger(__name__)


class ActivationCheckpointing(LoopComponent):
    """Modules whose activations are computed again in the backward pass instead of being kept.

    In training epochs the forward pass of each matching module goes through
    torch.utils.checkpoint, which draws the same random numbers again. Gradients are the same, batch
    norms gather their statistics once, and the names of parameters stay. What it changed is logged
    in one line.

    Args:
        modules: patterns of names of modules, as `fnmatch` has them, such as "blocks.*"; by default
            the items of the longest ModuleList or Sequential of the model. Of modules inside each
            other the outer one is chosen.

    Attributes:
        chosen: the names of the modules that were chosen last.

    Raises:
        ArgumentError: `modules` is something else; in a training epoch, a pattern matches none.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(),
        ...                      [Step(), ActivationCheckpointing("2")],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.components["activation-checkpointing"].chosen
        ['2']
    """

    def __init__(self, modules: str | Iterable[str] | None = None) -> None:
        if isinstance(modules, str):
            modules = [modules]
        is_valid = modules is None or (
            isinstance(modules, Iterable) and all(isinstance(each, str) for each in modules)
        )
        if not is_valid:
            raise ArgumentError(
                f"modules is {describe(modules)}, but has to be a pattern of names of modules, as "
                "'blocks.*', or several"
            )
        self.modules = None if modules is None else list(modules)
        self.chosen: list[str] = []

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Replace forward passes in training epochs, and restore them."""
        if not loop.is_training:
            return (yield)
        modules = self._choose(loop.model)
        if list(modules) != self.chosen:
            self.chosen = list(modules)
            _logger.info("activation-checkpointing: %s", ", ".join(self.chosen))
        try:
            for module in modules.values():
                norms = [one for one in module.modules() if isinstance(one, _NormBase)]
                module.forward = functools.partial(_checkpointed, module.forward, norms)
            return (yield)
        finally:
            for module in modules.values():
                vars(module).pop("forward", None)

    def _choose(self, model: torch.nn.Module) -> dict[str, torch.nn.Module]:
        """Return the modules whose activations are computed again, by name."""
        named = {name: module for name, module in model.named_modules() if name}
        patterns = self.modules if self.modules is not None else _longest_list(model)
        chosen: dict[str, torch.nn.Module] = {}
        for pattern in patterns:
            matching = {n: module for n, module in named.items() if fnmatchcase(n, pattern)}
            if not matching:
                nearest = difflib.get_close_matches(pattern, named, n=3, cutoff=0)
                raise ArgumentError(
                    f"'activation-checkpointing' has the pattern {pattern!r}, which matches no "
                    f"module of the model. The nearest names are: {', '.join(nearest) or 'none'}"
                )
            chosen.update(matching)
        return {
            name: module
            for name, module in chosen.items()
            # a list has no forward pass; what has one of its own object already is left to its
            # owner
            if "forward" not in vars(module)
            and not isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict)
            and not any(name.startswith(f"{other}.") for other in chosen if other != name)
        }


def _checkpointed(forward: Any, norms: list[_NormBase], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    if not norms or torch.compiler.is_compiling():  # which takes no contexts
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _kept_statistics(norms)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextlib.contextmanager
def _kept_statistics(norms: list[_NormBase]) -> Iterator[None]:
    """Let batch norms normalize by their batch once more without gathering statistics."""
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    counts = [None if count is None else count.clone() for _, _, count in before]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for (norm, momentum, count), own in zip(before, counts, strict=True):
            norm.momentum = momentum
            if count is not None and own is not None:
                count.copy_(own)


def _longest_list(model: torch.nn.Module) -> list[str]:
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList | torch.nn.Sequential)
    }
    if not lists:
        raise ArgumentError(
            "'activation-checkpointing' found no ModuleList or Sequential in the model. Give it "
            "modules=, the names of what is computed again"
        )
    longest = max(lists, key=lambda name: len(lists[name]))
    prefix = f"{longest}." if longest else ""
    return [f"{prefix}{name}" for name, _ in lists[longest].named_children()]
