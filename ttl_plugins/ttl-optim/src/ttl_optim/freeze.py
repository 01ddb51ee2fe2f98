"""The component `freeze`."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.arguments import whole_number
from ttl_optim.named_parameters import frozen, matching_names

if TYPE_CHECKING:
    from torch.nn import Parameter

    from ttl_core import TrainTestLoop


class Freeze(LoopComponent):
    """Parameters, chosen by name, that are not trained, permanently or until an epoch.

    A frozen parameter gets no gradient, so the optimizer leaves it alone, with its state. It is
    frozen during training epochs only: when one ends, however it ends, `requires_grad` is what it
    was. The modes of modules are left alone: a frozen batch norm still gathers statistics.

    Args:
        patterns: patterns of parameter names, as `fnmatch` has them (a parameter that the model
            has under several names is meant by each of them), each with the epoch (as
            `loop.epoch_num` counts) from which on it is no longer frozen, or None for never. One
            pattern, or several without epochs, are frozen permanently. Where several match a
            parameter, it is frozen as long as one of them says so.

    Raises:
        ArgumentError: `patterns` has another type, or an epoch is no whole number from 0.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> model = ComponentConformance.make_model()
        >>> loop = TrainTestLoop(model, [Step(), Freeze({"0.*": 3})],
        ...                      ComponentConformance.make_data())
        >>> before = model[0].weight.clone()
        >>> loop.train(n_epochs=3)
        >>> bool((model[0].weight == before).all())
        True
    """

    def __init__(self, patterns: str | Iterable[str] | Mapping[str, int | None]) -> None:
        if not isinstance(patterns, Iterable):
            raise ArgumentError(
                f"patterns is {patterns!r}, but has to be a pattern such as 'encoder.*', several "
                "of them, or a mapping from patterns to epochs"
            )
        if isinstance(patterns, str):
            patterns = [patterns]
        if not isinstance(patterns, Mapping):
            patterns = dict.fromkeys(patterns)
        self.patterns: dict[str, int | None] = {}
        for pattern, epoch in patterns.items():
            if not isinstance(pattern, str):
                raise ArgumentError(
                    f"patterns holds {pattern!r}, but a pattern has to be text, as 'encoder.*'"
                )
            if epoch is not None:
                name = f"patterns[{pattern!r}], the epoch that ends it or None for never,"
                epoch = whole_number(name, epoch)
            self.patterns[pattern] = epoch

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Freeze in training epochs, and restore `requires_grad`."""
        with frozen(self._to_freeze(loop) if loop.is_training else []):
            return (yield)

    def _to_freeze(self, loop: TrainTestLoop) -> list[Parameter]:
        """Return the parameters to freeze in this epoch, without those that are frozen already."""
        # with every name that a parameter has, as a weight that embedding and head share
        parameters = dict(loop.model.named_parameters(remove_duplicate=False))
        found: dict[int, Parameter] = {}
        for pattern, epoch in self.patterns.items():
            matching = matching_names(pattern, parameters, "freeze")
            if loop.epoch_num < (math.inf if epoch is None else epoch):
                found.update((id(parameters[name]), parameters[name]) for name in matching)
        return [parameter for parameter in found.values() if parameter.requires_grad]
