"""The component `param-groups`."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _NormBase

from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.arguments import describe, flag, number
from ttl_optim.named_parameters import frozen, matching_names
from ttl_optim.split_groups import split_groups

if TYPE_CHECKING:
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

    from ttl_core import TrainTestLoop

_NORMS = (_NormBase, torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.RMSNorm)
_FORM = "a mapping from patterns to settings, as {'head.*': {'lr_scale': 10, 'weight_decay': 0}}"
_logger = logging.getLogger(__name__)


class ParamGroups(LoopComponent):
    """Learning rates, weight decay and freezing by the names and the depth of parameters.

    It splits the parameter groups of `loop.optimizers` when train() begins, after the components
    that create them, so it works with any optimizer, factory and scheduler. Parameters of a group
    with the same settings stay together. A scheduler scales the rates of all groups alike.

    Args:
        patterns: patterns of parameter names, as `fnmatch` has them, each with settings: "lr_scale"
            multiplies the learning rate, "freeze" leaves the parameter as it is if it is true, and
            any other setting of the optimizer's groups, such as "weight_decay", "lr" or "momentum",
            takes the place of its value. Where several match, later ones win.
        layer_decay: what the learning rate is multiplied by for each layer further from the output.
        layers: the name of the list of layers, such as "encoder.layers"; by default the longest
            ModuleList or Sequential of the model. What the model has before it is one layer more,
            and what it has behind it is another one.
        decay_norms_and_biases: whether norms and biases, and all other parameters of fewer than two
            dimensions, have weight decay too.

    Attributes:
        table: for each parameter, by name, the settings that it has of its own.

    Raises:
        ArgumentError: an argument has an unusable value; in train(), a pattern matches no
            parameter, or a setting is none of the optimizer.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(),
        ...                      [Step(), ParamGroups({"2.*": {"lr_scale": 10}})],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> [(len(group["params"]), round(group["lr"], 3)) for group in loop.optimizer.param_groups]
        [(1, 0.01), (3, 0.01), (1, 0.1), (1, 0.1)]
    """

    def __init__(
        self,
        patterns: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        layer_decay: float = 1.0,
        layers: str | None = None,
        decay_norms_and_biases: bool = False,
    ) -> None:
        self.patterns = _checked({} if patterns is None else patterns)
        self.layer_decay = number("layer_decay", layer_decay, above=0)
        if layers is not None and not isinstance(layers, str):
            raise ArgumentError(
                f"layers is {describe(layers)}, but has to be the name of a list of layers of the "
                "model, as 'encoder.layers'"
            )
        self.layers = layers
        self.decay_norms_and_biases = flag("decay_norms_and_biases", decay_norms_and_biases)
        self.table: dict[str, dict[str, Any]] = {}
        self._split: weakref.WeakSet[Optimizer] = weakref.WeakSet()

    @hookimpl(wrapper=True, trylast=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Split the groups of the optimizers, and with them those that a scheduler knows."""
        result = yield
        self.table = self._settings(loop.model)
        named = dict(loop.model.named_parameters())
        settings = {id(named[name]): values for name, values in self.table.items()}
        for optimizer in loop.optimizers:
            if optimizer not in self._split:  # one that was made by hand, in an earlier train()
                split_groups(optimizer, settings, getattr(loop, "scheduler", None))
                self._split.add(optimizer)
        sizes = ", ".join(
            f"{len(group['params'])} at lr {float(group['lr']):g}"
            for optimizer in loop.optimizers
            for group in optimizer.param_groups
        )
        _logger.info("param-groups: groups of %s", sizes)
        return result

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Freeze parameters in training epochs, and restore `requires_grad`."""
        to_freeze: list[Parameter] = []
        if loop.is_training and any("freeze" in values for values in self.patterns.values()):
            names = [n for n, v in self._settings(loop.model).items() if v.get("freeze")]
            named = dict(loop.model.named_parameters())
            to_freeze = [named[name] for name in names if named[name].requires_grad]
        with frozen(to_freeze):
            return (yield)

    def _settings(self, model: Module) -> dict[str, dict[str, Any]]:
        """Return the settings that each parameter has of its own, by its first name."""
        first_names = {id(parameter): name for name, parameter in model.named_parameters()}
        table: dict[str, dict[str, Any]] = {name: {} for name in first_names.values()}
        if not self.decay_norms_and_biases:
            for name in _norms_and_biases(model):
                table[name]["weight_decay"] = 0.0
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for pattern, values in self.patterns.items():
            matching = matching_names(pattern, parameters, "param-groups")
            for name in dict.fromkeys(first_names[id(parameters[name])] for name in matching):
                table[name].update(values)
        if self.layer_decay != 1:
            depths, top = _depths(model, self.layers)
            for name, own in table.items():
                scale = self.layer_decay ** (top - depths[name])
                own["lr_scale"] = own.get("lr_scale", 1.0) * scale
        return table


def _checked(patterns: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(patterns, Mapping):
        raise ArgumentError(f"patterns is {describe(patterns)}, but has to be {_FORM}")
    for pattern, values in patterns.items():
        if not isinstance(pattern, str) or not isinstance(values, Mapping):
            raise ArgumentError(
                f"patterns holds {describe(pattern)}: {describe(values)}, but has to be {_FORM}"
            )
        if "params" in values:
            raise ArgumentError(f"patterns[{pattern!r}] has 'params', which the pattern decides")
        for name in ("lr", "lr_scale", "weight_decay"):
            if name in values:
                number(f"patterns[{pattern!r}][{name!r}]", values[name], at_least=0)
        if not isinstance(values.get("freeze", False), bool):
            raise ArgumentError(
                f"patterns[{pattern!r}]['freeze'] is {values['freeze']!r}, but has to be True or "
                "False"
            )
    return {pattern: dict(values) for pattern, values in patterns.items()}


def _norms_and_biases(model: Module) -> Iterable[str]:
    """Return the names of the parameters that weight decay is not meant for."""
    modules = [module for module in model.modules() if isinstance(module, _NORMS)]
    norms = {id(p) for module in modules for p in module.parameters()}
    return [
        name
        for name, p in model.named_parameters()
        if id(p) in norms or name.endswith("bias") or p.dim() < 2
    ]


def _depths(model: Module, layers: str | None) -> tuple[dict[str, int], int]:
    """Return the number of the layer of each parameter, from 0 at the input, and the last one."""
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList | torch.nn.Sequential)
    }
    if layers is None:
        layers = max(lists, key=lambda name: len(lists[name]), default=None)
    if layers is None or layers not in lists:
        found = ", ".join(map(repr, lists)) or "none, so that layer_decay has no meaning"
        raise ArgumentError(
            f"'param-groups' found no list of layers{'' if layers is None else f' {layers!r}'} in "
            f"the model. Its ModuleLists and Sequentials are: {found}"
        )
    prefix = f"{layers}." if layers else ""
    n_layers = len(lists[layers])
    numbers = {name: i + 1 for i, (name, _) in enumerate(lists[layers].named_children())}
    depths, is_behind = {}, False
    for name, _ in model.named_parameters():
        if name.startswith(prefix):
            depths[name] = numbers[name.removeprefix(prefix).partition(".")[0]]
            is_behind = True
        else:
            depths[name] = n_layers + 1 if is_behind else 0
    return depths, max(depths.values(), default=0)
