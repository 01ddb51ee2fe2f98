"""The loop variables as attributes: defaults, derived ones, and the error for unset ones."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, SupportsIndex

import torch

from ttl_core.arguments import describe, user_stacklevel
from ttl_core.batches import length_of_batch
from ttl_core.components.component import Item
from ttl_core.components.component_list import ComponentList
from ttl_core.components.members import joined_group
from ttl_core.errors import ArgumentError, UnsetVariableError
from ttl_core.group import Group
from ttl_core.hooks.manager import HookManager
from ttl_core.other_libraries import STOP_FLAGS, suggest_variable
from ttl_core.variables.data import check_data, describe_data, length_of
from ttl_core.variables.declarations import VARIABLES

Phase = Literal["train", "valid", "test", "predict"]

_RESTORED = frozenset(
    (
        *("n_epochs", "n_batches", "n_optim_steps", "epoch_num", "optim_step_num", "global_step"),
        *("is_training", "is_validating", "is_testing", "is_predicting", "is_stepping"),
        *("epoch_desc", "data_name", "_log_prefix", "_data", "batch", "batch_num", "_batch_size"),
        *("scores", "loss", "_stage"),
    )
)
"""What validate() restores."""

_TRAINING_POINTS = ("on_forward_pass", "on_loss_compute", "on_backward_pass", "on_optim_step")


class LoopVariables:
    """The variables of a loop, as attributes.

    Args:
        model: the model.
        train_data: an iterable of batches for training, or None.
        valid_data: an iterable of batches for validation, a mapping of several by name, or None.

    Raises:
        ArgumentError: the model is no torch.nn.Module, or data are not iterable.
    """

    model: torch.nn.Module
    train_data: Iterable[Any] | None
    valid_data: Iterable[Any] | Mapping[str, Iterable[Any]] | None
    n_epochs: int | None
    n_batches: int | None
    n_optim_steps: int | None
    run_desc: str | None
    is_training: bool
    is_validating: bool
    is_testing: bool
    is_predicting: bool
    epoch_desc: str
    epoch_num: int
    data_name: str | None
    batch: Any
    batch_num: int
    optim_step_num: int
    global_step: int
    is_stepping: bool
    hook: Any
    _interrupted: dict[str, Any]
    _components: ComponentList
    _manager: HookManager

    def __init__(
        self,
        model: torch.nn.Module,
        train_data: Iterable[Any] | None,
        valid_data: Iterable[Any] | Mapping[str, Iterable[Any]] | None,
    ) -> None:
        # Without a __dict__ of its own, CPython 3.11 makes each access slower once vars() was read.
        self.__dict__ = {}
        if not isinstance(model, torch.nn.Module):
            raise ArgumentError(
                f"model is {describe(model)}, but has to be a torch.nn.Module. The arguments are "
                "TrainTestLoop(model, components, train_data, valid_data)"
            )
        self.model = model
        self.train_data = check_data("train_data", train_data)
        self.valid_data = check_data("valid_data", valid_data, may_be_named=True)
        self.n_epochs = self.n_batches = self.n_optim_steps = None
        self._set_phase(None)
        self.run_desc = None
        self.epoch_desc = ""
        self.epoch_num = self.optim_step_num = self.global_step = 0
        self.is_stepping = False
        self._data: Iterable[Any] = ()
        self._batch_size: Any = None
        self._optimizers: Sequence[torch.optim.Optimizer] = ()
        self._metrics: dict[str, Any] = {}
        self._unread_metrics: dict[str, Any] = {}
        self._interrupted = {}  # variables from before a validate(), inside it
        self._group: Group | None = None  # until it is used

    def _set_phase(self, phase: Phase | None, data_name: str | None = None) -> None:
        """Set the variables that tell the phase of the current epoch; None outside epochs."""
        self.is_training = phase == "train"
        self.is_validating = phase == "valid"
        self.is_testing = phase == "test"
        self.is_predicting = phase == "predict"
        self.data_name = data_name
        self._log_prefix: str | None = ""  # None where nothing is logged
        if phase is not None:
            self.epoch_desc = phase
            self._log_prefix = f"{phase}/{data_name}/" if data_name else f"{phase}/"

    @property
    def data(self) -> Any:
        """The iterable of the current epoch. Assigning another one sets `n_batches` too."""
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        self._data = data
        self.n_batches = length_of(data)

    @property
    def components(self) -> ComponentList:
        """The components, in call order. Assigning a list replaces this one."""
        return self._components

    @components.setter
    def components(self, items: Iterable[Item]) -> None:
        self._components = self._components.replaced_by(items)
        self._manager.list_changed()

    @property
    def group(self) -> Group:
        """The processes that train together: those that a component has joined, else this one."""
        return self._join_group() if self._group is None else self._group

    def _join_group(self) -> Group:
        self._group = group = joined_group(self._components.current_members())
        self._manager.set_is_main(group.is_main)
        return group

    def explain(self, point: str | None = None) -> str:
        """Return the call order of a point, or of all that are implemented, and the reasons.

        Args:
            point: the name of a callback point; None for all.

        Returns:
            Text to print: for each implementation the component, its distribution and version,
            its position in the list, and wrapper, tryfirst or trylast where that decides.

        Raises:
            UnknownPointError: there is no such point.
        """
        return self._components.explain(point)

    def manifest(self) -> list[dict[str, Any]]:
        """Return what runs, as data that JSON can hold, in call order.

        Returns:
            For each component its position and name; `plugin`, the name of its entry point (None
            if it was created by hand); its class, distribution and version (None if it comes from
            no package); whether it is enabled; the bundles that it came from, outermost first;
            and its configuration, in which `{"$ref": "module:object"}` is what no plain value is.
            `from_config` takes it.
        """
        return self._components.manifest()

    @property
    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """All optimizers that step: what a component set, else `[optimizer]`."""
        return self._optimizers or [self.optimizer]

    @optimizers.setter
    def optimizers(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers

    @property
    def batch_size(self) -> Any:
        """The weight of this batch's mean loss: what a component set, else its first length."""
        if self._batch_size is not None:
            return self._batch_size
        length = length_of_batch(self.batch)
        if length is None:
            raise AttributeError  # so that __getattr__ explains
        return length

    @batch_size.setter
    def batch_size(self, size: Any) -> None:
        self._batch_size = size

    @property
    def metrics(self) -> dict[str, Any]:
        """The newest epoch-level values by name, as Python numbers.

        A tensor is converted when metrics are first read after it was logged, which waits for its
        device; one that is no single number stays a tensor.
        """
        if self._unread_metrics:
            unread, self._unread_metrics = self._unread_metrics, {}
            self._metrics.update((name, to_number(value)) for name, value in unread.items())
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Mapping[str, Any]) -> None:
        self._metrics, self._unread_metrics = {}, dict(metrics)

    def __repr__(self) -> str:
        train_data, valid_data = describe_data(self.train_data), describe_data(self.valid_data)
        return (
            f"{type(self).__name__}(model={type(self.model).__name__}, "
            f"train_data={train_data}, valid_data={valid_data},\n"
            f"    components={self._components!r}, "
            f"epoch_num={self.epoch_num}, global_step={self.global_step})"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name, name=name, obj=self)
        error = UnsetVariableError(lambda: self._unset_text(name))
        error.name, error.obj = name, self  # from which Python suggests a name
        raise error

    def _unset_text(self, name: str) -> str:
        variable = next((v for v in VARIABLES if v.name == name), None)
        known = f" ({variable.meaning}; set by {variable.set_by})" if variable else ""
        enabled = [n for n in self._components.names() if self._components.is_enabled(n)]
        hint = ""
        if variable is None:
            others = {v.name for v in VARIABLES} | vars(self).keys() | set(dir(type(self)))
            hint = suggest_variable(name, {other for other in others if other[0] != "_"})
        return (
            f"no component has set the loop variable {name!r}{known}. {hint}"
            f"Enabled components: {', '.join(enabled) or 'none'}"
        )

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a loop cannot be copied or pickled: it belongs to its components as they belong to "
            "it. Copy the model, or make a second loop"
        )

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...

    def _warn_if_untrained(self) -> None:
        """Warn if no component takes part in updating the parameters of the model."""
        is_trainable = any(parameter.requires_grad for parameter in self.model.parameters())
        if is_trainable and not any(map(self._manager.is_implemented, _TRAINING_POINTS)):
            warnings.warn(
                f"no enabled component implements any of {', '.join(_TRAINING_POINTS)}, so the "
                "model is not trained. Put 'supervised' into the list, or a component of your own",
                UserWarning,
                stacklevel=user_stacklevel(),
            )

    def _warn_of_stop_flags(self) -> None:
        """Warn if the run continues although a variable says, to other libraries, that it stops.

        Setting one is no error, as a script may have a variable of such a name for another purpose,
        or a component that reads it and calls stop().
        """
        for owner, variables in {"loop": vars(self), "loop.model": vars(self.model)}.items():
            for name in STOP_FLAGS if owner == "loop.model" else (*STOP_FLAGS, "stop"):
                if to_number(variables.get(name)) is True:
                    warnings.warn(
                        f"{owner}.{name} is True, which does not stop the run. To stop it, call "
                        "loop.stop()",
                        UserWarning,
                        stacklevel=user_stacklevel(),
                    )

    @contextlib.contextmanager
    def _restored(self) -> Iterator[None]:
        """Restore the variables of the current epoch, and the modes of modules, after a block."""
        before = {name: value for name, value in vars(self).items() if name in _RESTORED}
        modes = [(module, module.training) for module in self.model.modules()]
        self._interrupted = before
        try:
            yield
        finally:
            self._interrupted = {}
            for name in _RESTORED & vars(self).keys() - before.keys():
                delattr(self, name)
            vars(self).update(before)
            for module, mode in modes:
                module.training = mode


def to_number(value: Any) -> Any:
    """Return a logged value as a Python number if it is a single number, else as it is.

    Args:
        value: a number of Python, NumPy or torch, or any other value.
    """
    if not hasattr(value, "item"):
        return value
    n = value.numel() if isinstance(value, torch.Tensor) else getattr(value, "size", 1)
    return value.item() if n == 1 else value
