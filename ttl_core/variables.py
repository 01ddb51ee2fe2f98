"""The loop variables: their declaration, defaults and meaning, and the error for unset ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from ttl_core.batches import length_of_batch
from ttl_core.errors import ArgumentError, UnsetVariableError

if TYPE_CHECKING:
    from ttl_core.components.component_list import ComponentList

Phase = Literal["train", "valid", "test", "predict"]


class Variable(NamedTuple):
    """The documentation of a loop variable.

    Attributes:
        name: its name.
        type: its type, and its shape where it has one.
        meaning: what it holds.
        set_by: what sets it, and when.
    """

    name: str
    type: str
    meaning: str
    set_by: str


_LOOP_MADE = "the loop, when it is created"
_RUN_BEGINS = "the loop, when a run begins"
_EPOCH_BEGINS = "the loop, when an epoch begins"
_EACH_BATCH = "the loop, before on_batch_begin"
_TRAIN_BEGINS = "a component, in on_train_begin"

VARIABLES: tuple[Variable, ...] = (
    Variable("model", "torch.nn.Module", "the model", _LOOP_MADE),
    Variable("components", "list of components", "the components, in call order", _LOOP_MADE),
    Variable("train_data", "iterable or None", "the batches of training", _LOOP_MADE),
    Variable(
        "valid_data",
        "iterable, mapping of names to iterables, or None",
        "the batches of validation; a mapping is several named sets",
        _LOOP_MADE,
    ),
    Variable("hook", "namespace", "the hooks, called with keywords", _LOOP_MADE),
    Variable(
        "n_epochs",
        "int or None",
        "number of epochs in the current run; None if optimization steps are counted",
        _RUN_BEGINS,
    ),
    Variable(
        "n_batches",
        "int or None",
        "number of batches in the current epoch; None if its data have no length",
        "the loop, whenever `data` is set",
    ),
    Variable(
        "n_optim_steps",
        "int or None",
        "number of optimization steps in the current train(); None if it is unknown",
        "the loop, when train() begins; wrappers on on_train_begin may change it",
    ),
    Variable("is_training", "bool", "whether this is a training epoch", _EPOCH_BEGINS),
    Variable("is_validating", "bool", "whether this is a validation epoch", _EPOCH_BEGINS),
    Variable("is_testing", "bool", "whether this is a test epoch", _EPOCH_BEGINS),
    Variable("is_predicting", "bool", "whether this is a prediction epoch", _EPOCH_BEGINS),
    Variable("epoch_desc", "str", '"train", "valid", "test" or "predict"', _EPOCH_BEGINS),
    Variable(
        "epoch_num",
        "int",
        "number of training epochs completed since the loop was created",
        "the loop, when an epoch has been validated",
    ),
    Variable(
        "data",
        "iterable",
        "the batches of the current epoch",
        _EPOCH_BEGINS + "; on_epoch_begin may replace it",
    ),
    Variable(
        "data_name",
        "str or None",
        "the name of the current validation set where there are several",
        _EPOCH_BEGINS,
    ),
    Variable("batch", "anything", "the current batch, as the data yielded it", _EACH_BATCH),
    Variable("batch_num", "int", "number of the batch in the current epoch, from 0", _EACH_BATCH),
    Variable(
        "batch_size",
        "number, or tensor without dimensions",
        "weight of this batch's mean loss; by default the length of its first tensor",
        "a component, in on_batch_begin, where the batch holds no tensor or other things count",
    ),
    Variable(
        "is_stepping",
        "bool",
        "whether this training batch ends in an optimization step",
        _EACH_BATCH + "; components may clear it until on_backward_pass has ended",
    ),
    Variable(
        "optim_step_num",
        "int",
        "number of optimization steps in the current train()",
        "the loop, after on_optim_step",
    ),
    Variable(
        "global_step",
        "int",
        "number of optimization steps since the loop was created",
        "the loop, after on_optim_step",
    ),
    Variable(
        "metrics",
        "dict of names to numbers",
        "the newest epoch-level values; one that is logged as a tensor is read as a number",
        'components, by `loop.log(..., level="epoch")`',
    ),
    Variable("loss_func", "callable", "the loss function of (scores, targets)", _TRAIN_BEGINS),
    Variable("optimizer", "torch.optim.Optimizer", "the optimizer", _TRAIN_BEGINS),
    Variable(
        "optimizers",
        "list of torch.optim.Optimizer",
        "all optimizers that step; by default `[optimizer]`",
        _TRAIN_BEGINS,
    ),
    Variable("scheduler", "scheduler or None", "the learning-rate scheduler", _TRAIN_BEGINS),
    Variable(
        "scores",
        "tensor or nested tensors",
        "the output of the model",
        "a component, in on_forward_pass",
    ),
    Variable(
        "loss",
        "tensor without dimensions",
        "the mean loss of this batch",
        "a component, in on_loss_compute",
    ),
)
"""All loop variables: those that the loop sets, and by convention those that components set."""

_RESTORED = frozenset(
    (
        *("n_epochs", "n_batches", "n_optim_steps", "epoch_num", "optim_step_num", "global_step"),
        *("is_training", "is_validating", "is_testing", "is_predicting", "is_stepping"),
        *("epoch_desc", "data_name", "_log_prefix", "_data", "batch", "batch_num", "_batch_size"),
        *("scores", "loss"),
    )
)
"""What validate() restores."""


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
    _components: ComponentList

    def __init__(
        self,
        model: torch.nn.Module,
        train_data: Iterable[Any] | None,
        valid_data: Iterable[Any] | Mapping[str, Iterable[Any]] | None,
    ) -> None:
        # Without a __dict__ of its own, CPython 3.11 makes each access slower once vars() was read.
        self.__dict__ = {}
        if not isinstance(model, torch.nn.Module):
            raise ArgumentError(f"model is {model!r}, but has to be a torch.nn.Module")
        self.model = model
        self.train_data = check_data("train_data", train_data)
        self.valid_data = check_data("valid_data", valid_data, may_be_named=True)
        self.n_epochs = self.n_batches = self.n_optim_steps = None
        self._set_phase(None)
        self.epoch_desc = ""
        self.epoch_num = self.optim_step_num = self.global_step = 0
        self.is_stepping = False
        self._data: Iterable[Any] = ()
        self._batch_size: Any = None
        self._optimizers: Sequence[torch.optim.Optimizer] = ()
        self._metrics: dict[str, Any] = {}
        self._unread_metrics: dict[str, Any] = {}

    def _set_phase(self, phase: Phase | None, data_name: str | None = None) -> None:
        """Set the variables that tell the phase of the current epoch; None outside epochs."""
        self.is_training = phase == "train"
        self.is_validating = phase == "valid"
        self.is_testing = phase == "test"
        self.is_predicting = phase == "predict"
        self.data_name = data_name
        self._log_prefix = ""
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
        return (
            f"{type(self).__name__}(model={type(self.model).__name__}, "
            f"train_data={_describe(self.train_data)}, valid_data={_describe(self.valid_data)},\n"
            f"    components={self._components!r}, "
            f"epoch_num={self.epoch_num}, global_step={self.global_step})"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name, name=name, obj=self)
        variable = next((v for v in VARIABLES if v.name == name), None)
        known = f" ({variable.meaning}; set by {variable.set_by})" if variable else ""
        enabled = [n for n in self._components.names() if self._components.is_enabled(n)]
        error = UnsetVariableError(
            f"no component has set the loop variable {name!r}{known}. "
            f"Enabled components: {', '.join(enabled) or 'none'}"
        )
        error.name, error.obj = name, self  # from which Python suggests a name
        raise error

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...

    @contextlib.contextmanager
    def _restored(self) -> Iterator[None]:
        """Restore the variables of the current epoch, and the modes of modules, after a block."""
        before = {name: value for name, value in vars(self).items() if name in _RESTORED}
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            yield
        finally:
            for name in _RESTORED & vars(self).keys() - before.keys():
                delattr(self, name)
            vars(self).update(before)
            for module, mode in modes:
                module.training = mode


def check_data(name: str, data: Any, *, may_be_named: bool = False) -> Any:
    """Return data that are None or can be iterated over.

    Args:
        name: the name of the argument, for the error.
        data: the data.
        may_be_named: whether a mapping of names to data is accepted too.

    Raises:
        ArgumentError: they cannot be iterated over.
    """
    if may_be_named and isinstance(data, Mapping):
        if not data:
            raise ArgumentError(f"{name} is an empty mapping. Give None for no validation")
        for key, one in data.items():
            if not isinstance(key, str) or not key or "/" in key:
                raise ArgumentError(
                    f"{name} has a set named {key!r}, but names are text without '/', as they "
                    "become part of names of metrics"
                )
            require_data(f"{name}[{key!r}]", one)
    elif data is not None and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise ArgumentError(f"{name} is {data!r}, which cannot be iterated over")
    return data


def require_data(name: str, data: Any, *, may_be_named: bool = False) -> Any:
    """Return data that can be iterated over.

    Args:
        name: the name of the argument, for the error.
        data: the data.
        may_be_named: whether a mapping of names to data is accepted too.

    Raises:
        ArgumentError: they are None, or cannot be iterated over.
    """
    if data is None:
        raise ArgumentError(f"{name} is None, so there is nothing to iterate over")
    return check_data(name, data, may_be_named=may_be_named)


def named_sets(data: Any) -> list[tuple[str | None, Any]]:
    """Return validation data as sets with their names; a single set has none.

    Example:
        >>> named_sets([1, 2]), named_sets({"easy": [1], "hard": [2]})
        ([(None, [1, 2])], [('easy', [1]), ('hard', [2])])
    """
    return list(data.items()) if isinstance(data, Mapping) else [(None, data)]


def length_of(data: Any) -> int | None:
    """Return the number of batches in data, or None if they have no length."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):  # a DataLoader over a stream has __len__ and no length
        return None


def _describe(data: Any) -> str:
    if data is None:
        return "None"
    if isinstance(data, Mapping):
        return f"{{{', '.join(f'{name}: {_describe(one)}' for name, one in data.items())}}}"
    length = length_of(data)
    what = "batches of unknown number" if length is None else f"{length} batches"
    return f"<{what} in a {type(data).__name__}>"


def to_number(value: Any) -> Any:
    """Return a logged value as a Python number if it is a single number, else as it is.

    Args:
        value: a number of Python, NumPy or torch, or any other value.
    """
    if not hasattr(value, "item"):
        return value
    n = value.numel() if isinstance(value, torch.Tensor) else getattr(value, "size", 1)
    return value.item() if n == 1 else value


def optimizer_parameters(loop: LoopVariables) -> Iterator[torch.Tensor]:
    """Yield the parameters that the optimizers of a loop update, each once.

    Args:
        loop: the loop; `loop.optimizers` have to be set, or `loop.optimizer`.
    """
    seen: set[int] = set()
    for optimizer in loop.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter
