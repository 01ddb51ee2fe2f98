"""The loop. It knows when hooks fire, and nothing about what they do."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, SupportsIndex

import torch

from ttl_core import data_order, discovery, state
from ttl_core.arguments import warn_of_renamed_keyword
from ttl_core.calls import nothing
from ttl_core.components import ComponentList, Item
from ttl_core.errors import ArgumentError, RunError, UnsetVariableError
from ttl_core.manager import HookManager

_CONVENTIONS = {
    "loss_func": "the loss function; a component sets it in on_train_begin",
    "optimizer": "the optimizer; a component sets it in on_train_begin",
    "scheduler": "the learning-rate scheduler; a component sets it in on_train_begin",
    "scores": "what the model returned; a component sets it in on_forward_pass",
    "loss": "the loss of this batch; a component sets it in on_loss_compute",
    "batch_size": "the weight of this batch's mean loss; a component sets it in on_batch_begin "
    "where the batch holds no tensor",
    "batch": "what the data yielded; the loop sets it at each batch",
    "batch_num": "the number of the batch in its epoch; the loop sets it at each batch",
}
# What validate() puts back.
_POSITION = ("n_epochs", "n_batches", "n_optim_steps", "epoch_num", "optim_step_num", "global_step")
_PHASE = ("is_training", "is_validating", "is_testing", "is_stepping", "epoch_desc", "_data")
_BATCH = ("batch", "batch_num", "_batch_size", "scores", "loss")
_RESTORED = frozenset((*_POSITION, *_PHASE, *_BATCH))


class _StopRun(BaseException):
    """Travel from stop() to the run that it ends."""


class TrainTestLoop:
    """Train, validate and test a model by calling components at each callback point.

    Args:
        model: the model.
        components: components, names of installed ones, or `use(...)`, in call order.
        train_data: an iterable of batches for training.
        valid_data: an iterable of batches for validation, or None for none.

    Raises:
        ComponentRejectedError: something in `components` is no component, or cannot be called.
        UnknownNameError: a name in `components` is not installed.
        ArgumentError: the model is no module, or data are not iterable.

    Attributes:
        model: the model.
        train_data: the iterable of training data.
        valid_data: the iterable of validation data, or None.
        hook: the hooks, to be called with keywords: `loop.hook.on_log(loop=loop, ...)`.
        n_epochs: number of epochs in the current run; None if its steps are what is counted.
        n_batches: number of batches in the current epoch; None if its data have no length.
        n_optim_steps: number of optimization steps in the current training run, or None.
        is_training: True in training epochs.
        is_validating: True in validation epochs.
        is_testing: True in test epochs.
        epoch_desc: "train", "valid" or "test".
        epoch_num: number of training epochs since the loop was made.
        batch: what the data yielded.
        batch_num: number of the batch in the current epoch, from 0.
        optim_step_num: number of optimization steps so far in the current training run.
        global_step: number of optimization steps since the loop was made.
        is_stepping: whether this training batch ends in an optimization step; components may
            clear it until on_backward_pass has ended.
        metrics: the newest epoch-level values by name.

    Example:
        >>> import torch
        >>> from ttl_core import LoopComponent, TrainTestLoop
        >>> class Step(LoopComponent):
        ...     def on_forward_pass(self, loop):
        ...         loop.scores = loop.model(loop.batch)
        >>> loop = TrainTestLoop(torch.nn.Linear(2, 1), [Step()], [torch.ones(4, 2)], None)
        >>> loop.train(n_epochs=1)
        >>> loop.scores.shape
        torch.Size([4, 1])
    """

    model: torch.nn.Module
    train_data: Iterable[Any] | None
    valid_data: Iterable[Any] | None
    n_epochs: int | None
    n_batches: int | None
    n_optim_steps: int | None
    is_training: bool
    is_validating: bool
    is_testing: bool
    epoch_desc: str
    epoch_num: int
    batch: Any
    batch_num: int
    optim_step_num: int
    global_step: int
    is_stepping: bool
    metrics: dict[str, Any]

    def __init__(
        self,
        model: torch.nn.Module,
        components: Iterable[Item] = (),
        train_data: Iterable[Any] | None = None,
        valid_data: Iterable[Any] | None = None,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise ArgumentError(f"model is {model!r}, no torch.nn.Module")
        self.model = model
        self.train_data = _iterable("train_data", train_data)
        self.valid_data = _iterable("valid_data", valid_data)
        self.n_epochs = self.n_batches = self.n_optim_steps = None
        self.is_training = self.is_validating = self.is_testing = False
        self.epoch_desc = ""
        self.epoch_num = self.optim_step_num = self.global_step = 0
        self.is_stepping = False
        self.metrics = {}
        self._data: Iterable[Any] = ()
        self._batch_size: Any = None
        self._optimizers: Sequence[torch.optim.Optimizer] = ()
        self._max_steps: int | None = None
        self._place = state.Place()
        self._order: data_order.Order | None = None
        self._loaded: state.State | None = None
        self._ignored: Collection[str] = ()
        self._is_running = self._can_stop = self._can_load = False
        self._is_safe = self._is_stopped = False
        self._manager = HookManager(lambda: self._components.members(), discovery.who_brings)
        self._calls = self._manager.calls
        self.hook = self._manager.relay
        self._components = ComponentList(components, self._manager)

    # -- the loop ---------------------------------------------------------------------------

    def train(self, n_epochs: int | None = None, *, n_optim_steps: int | None = None) -> None:
        """Train the model for a number of epochs, or of optimization steps.

        Each epoch goes through the training data, then through the validation data, if any. With
        a state that was loaded it goes on from there; a call that came before the one in which
        the state was taken returns at once.

        Args:
            n_epochs: how many epochs.
            n_optim_steps: how many optimization steps, instead. The epoch of the last step ends
                there as if its data had ended.

        Raises:
            ArgumentError: not exactly one of the two is given, it is no whole number from 0, or
                there are no training data.
            RunError: the loop is running already, or an epoch made no step under `n_optim_steps`.
            StateError: the state that was loaded does not fit.
        """
        length = _length(_needed("train_data", self.train_data))
        if (n_epochs is None) == (n_optim_steps is None):
            raise ArgumentError("train() takes exactly one of n_epochs and n_optim_steps")
        epochs = _count("n_epochs", n_epochs)
        max_steps = _count("n_optim_steps", n_optim_steps)
        self._check_not_running("train")
        place = self._place = state.Place(self._place.train_num + 1)
        if self._is_before_loaded():
            return
        self.n_epochs = epochs
        self.n_optim_steps = max_steps
        if epochs is not None and length is not None:
            self.n_optim_steps = epochs * length
        self.optim_step_num = 0
        self._max_steps = max_steps
        self._is_stopped = False

        def body() -> None:
            hooks = self._calls
            if self._is_before_loaded():  # a wrapper of around_run has loaded it
                self._can_stop = False
                return
            state.begin(self, place, self._loaded)
            hooks.on_train_begin(self)
            self._go_on()
            while place.n_epochs_done != epochs:
                if not place.is_trained:
                    if self.optim_step_num == max_steps:
                        break
                    self._run_epoch("train", self.train_data)
                    place.is_trained = True
                    self._safe_point()
                if self.valid_data is not None:
                    self._run_epoch("valid", self.valid_data)
                self.epoch_num += 1
                place.n_epochs_done += 1
                place.is_trained = False
                if self.valid_data is not None:
                    self._safe_point()
            self._is_safe = True

        self._run(body, "on_train_end")

    def test(self, test_data: Iterable[Any]) -> None:
        """Test the model on data.

        Args:
            test_data: an iterable of batches.

        Raises:
            ArgumentError: `test_data` is not iterable.
            RunError: the loop is running already.
        """
        _needed("test_data", test_data)
        self._check_not_running("test")
        self.n_epochs = 1

        def body() -> None:
            self._calls.on_test_begin(self)
            self._show_loaded()
            self._run_epoch("test", test_data)

        self._run(body, "on_test_end")

    def validate(self) -> None:
        """Run one validation epoch, also in the middle of training.

        All loop variables but `metrics`, the modes of all submodules and the grad mode are
        afterwards what they were before.

        Raises:
            ArgumentError: there are no validation data.
            RunError: the loop is validating or testing already.
        """
        _needed("valid_data", self.valid_data)
        if self.is_validating or self.is_testing:
            raise RunError(f"validate() was called inside a {self.epoch_desc} epoch")
        with self._restoring():
            self.n_epochs = 1
            if self._is_running:
                self._run_epoch("valid", self.valid_data)
            else:
                self._run(self._validate_alone, None)

    def _validate_alone(self) -> None:
        self._show_loaded()
        self._run_epoch("valid", self.valid_data)

    def _run(self, body: Callable[[], None], end: str | None) -> None:
        """Run the body of a run and the hook that ends it, inside around_run."""

        def whole() -> None:
            with contextlib.suppress(_StopRun):
                body()
            self._end_run(end)

        self._is_running = self._can_stop = self._can_load = True
        try:
            with contextlib.suppress(_StopRun):
                self._calls.around_run(self, whole)
            self._end_run(end)  # where a wrapper stopped the run before its body began
        except BaseException as exception:
            self._can_stop = self._is_safe = False
            with contextlib.suppress(Exception):  # nothing may hide the exception
                self._manager.note_failure(exception, _EPOCH, _GO_ON, _VALIDATE)
            self._manager.report_failure(self, exception)
            raise
        finally:
            self._is_running = self._can_stop = self._can_load = self._is_safe = False
            self.is_training = self.is_validating = self.is_testing = False

    def _end_run(self, end: str | None) -> None:
        if self._can_stop:
            self._can_stop = False
            self.is_training = self.is_validating = self.is_testing = False
            if end is not None:
                getattr(self._calls, end)(self)

    def _run_epoch(self, desc: str, data: Any) -> None:
        """Run an epoch in the right modes, inside around_epoch."""
        self.epoch_desc = desc
        self.is_training = desc == "train"
        self.is_validating = desc == "valid"
        self.is_testing = desc == "test"
        self.data = data
        if self.is_training:
            self.model.train()
        else:
            self.model.eval()
        with contextlib.nullcontext() if self.is_training else torch.no_grad():
            self._calls.around_epoch(self, lambda: self._epoch(desc))
        self.is_training = self.is_validating = self.is_testing = False

    def _epoch(self, desc: str) -> None:
        # The hot loop: what it reads often it holds in local variables.
        hooks, training, max_steps = self._calls, self.is_training, self._max_steps
        # a state that was taken inside an epoch was taken after a step
        steps_before = -1 if training and self._loaded else self.optim_step_num
        hooks.on_epoch_begin(self)
        n_batches = self.n_batches
        batches = self._train_batches() if training else enumerate(self.data)
        has_stepped = self._place.has_stepped
        for batch_num, batch in batches:
            self.batch_num, self.batch, self._batch_size = batch_num, batch, None
            if training:
                if has_stepped:
                    hooks.on_grads_reset(self)
                self.is_stepping = True
            hooks.on_batch_begin(self)
            hooks.on_forward_pass(self)
            hooks.on_loss_compute(self)
            if training:
                hooks.on_backward_pass(self)
                has_stepped = self.is_stepping
                if has_stepped:
                    hooks.on_optim_step(self)
                    self.optim_step_num += 1
                    self.global_step += 1
            hooks.on_batch_end(self)
            if training and has_stepped:
                if self.optim_step_num == max_steps:
                    break
                if batch_num + 1 != n_batches:
                    self._is_safe = True
                    hooks.on_safe_point(self)
                    self._is_safe = False
        if training:
            self._place.has_stepped = has_stepped
            if max_steps is not None and self.optim_step_num == steps_before:
                raise RunError(
                    f"train epoch {self.epoch_num} made no optimization step, so "
                    f"n_optim_steps={max_steps} would never be reached: its data were empty, or "
                    "is_stepping was cleared in every batch"
                )
        hooks.on_epoch_end(self)

    def _safe_point(self) -> None:
        self._is_safe = True
        self._calls.on_safe_point(self)
        self._is_safe = False

    # -- what a run goes on from ------------------------------------------------------------

    def state_dict(
        self,
        *,
        copy: bool = True,
        out: Mapping[str, Any] | None = None,
        allow_unsafe: bool = False,
        into: Mapping[str, Any] | None = None,
        anywhere: bool | None = None,
    ) -> dict[str, Any]:
        """Return all that a run needs to go on from here to the same bits.

        That is the position, the model, the loop variables and the components that have
        `state_dict()` and `load_state_dict()`, `metrics`, random numbers, and what ran, of types
        that `torch.load(weights_only=True)` accepts.

        Args:
            copy: whether to copy tensors, to the CPU. Without it they are the live ones, which
                change as training goes on: for who writes them away at once.
            out: an earlier state that is no longer needed, whose memory is reused for the copy.
            allow_unsafe: whether to return a state also where no run can resume from it, to
                inspect after a failure. Its "position" is then None, and `load_state_dict`
                refuses it.
            into: the old name of `out`.
            anywhere: the old name of `allow_unsafe`.

        Returns:
            The state: a dict.

        Raises:
            RunError: the loop is not at a safe point.
            StateError: something in the state could not be saved, or the order of the data could
                not be repeated.

        Example:
            >>> from ttl_core import LoopComponent, TrainTestLoop
            >>> from ttl_core.testing import ComponentConformance, Step
            >>> class Keep(LoopComponent):
            ...     def on_safe_point(self, loop):
            ...         self.state = loop.state_dict()
            >>> def make_loop():
            ...     return TrainTestLoop(ComponentConformance.make_model(), [Step(), Keep()],
            ...                          ComponentConformance.make_data())
            >>> loop = make_loop()
            >>> loop.train(n_epochs=2)
            >>> other = make_loop()
            >>> other.load_state_dict(loop.components["keep"].state)
            >>> other.train(n_epochs=3)
            >>> other.epoch_num, other.global_step
            (3, 9)
        """
        if into is not None:
            warn_of_renamed_keyword("into", "out")
            out = into
        if anywhere is not None:
            warn_of_renamed_keyword("anywhere", "allow_unsafe")
            allow_unsafe = anywhere
        at_safe_point = self._is_safe and self._can_stop and not self.is_validating
        if not at_safe_point and not allow_unsafe:
            raise RunError(
                "state_dict() was called where no run could go on from it: components may be "
                "half-way through a batch. Call it in on_safe_point"
            )
        if at_safe_point:
            self.check_resumable()
        position = None
        if self._is_safe and not self.is_validating:
            position = state.position_of(self, self._place, self._order, self._is_stopped)
        taken = state.gather(self, self._components.members(), position)
        return state.snapshot(taken, out) if copy else taken

    def load_state_dict(self, state_dict: Mapping[str, Any], *, ignore: Iterable[str] = ()) -> None:
        """Let the next train() go on from a state, or the current one, in on_train_begin.

        It is put back when on_train_begin has made what it belongs to; inside an epoch, when its
        data have been made too. test() and validate() before that take the model and what
        components hold from it.

        Args:
            state_dict: what `state_dict()` returned.
            ignore: names of components and loop variables whose state may be missing, or left
                over.

        Raises:
            StateError: it is no state of a run that can go on.
            RunError: the loop has begun to run.
        """
        state.check_kind(state_dict)
        if self._is_running and not self._can_load:
            raise RunError(
                "load_state_dict() was called when the loop was running already. Call it before "
                "train(), or in on_train_begin"
            )
        self._loaded = state.snapshot(dict(state_dict))  # what is loaded from it would alias it
        self._ignored = {ignore} if isinstance(ignore, str) else set(ignore)

    def check_resumable(self) -> None:
        """Check that a run could go on from within the current training epoch, if it is in one.

        Raises:
            StateError: nothing repeats the order of its data; with the line to write.
        """
        if self.is_training and data_order.order_of(self._data) is None:
            raise data_order.refusal(self._data)

    def _is_before_loaded(self) -> bool:
        """Tell whether this train() came before the one in which the loaded state was taken."""
        return (
            self._loaded is not None
            and self._place.train_num < self._loaded["position"]["train_num"]
        )

    def _go_on(self) -> None:
        """Go to where the loaded state was taken, and put it back if that is between epochs."""
        self._can_load = False
        if self._loaded is None:
            return
        if self._is_before_loaded():
            self.stop()
        position = self._loaded["position"]
        try:
            state.check_reach(position, self._place.train_num, self.n_epochs, self._max_steps)
        except ArgumentError:
            self._place.train_num -= 1  # the same call can be made again, with enough of them
            raise
        state.go_to(self, self._place, position)
        if position["epoch"] is None:
            self._put_back()
        if position["is_stopped"]:
            self._is_safe = True
            self.stop()

    def _train_batches(self) -> Iterator[tuple[int, Any]]:
        """Return the numbered batches; those left, where a state was taken inside this epoch."""
        if self._loaded is None:
            self._order = data_order.order_of(self._data)
            return enumerate(self._data)
        position = self._loaded["position"]["epoch"]
        self._order = position["order"]
        batches = data_order.iterate_from(self._data, position)
        self._put_back()
        return enumerate(batches, position["n_batches"])

    def _put_back(self) -> None:
        if self._loaded is not None:
            state.restore(self, self._components.members(), self._loaded, self._ignored)
            self._loaded = None

    def _show_loaded(self) -> None:
        """Let a test or validation see the model of a state that waits for train()."""
        self._can_load = False
        if self._loaded is not None:
            state.restore_for_testing(self, self._components.members(), self._loaded, self._ignored)

    def stop(self) -> None:
        """End the run from any point.

        The rest of the point and of the epoch is skipped, the epoch does not count, and
        on_train_end (on_test_end) fires. In it, in on_exception and outside a run: no effect.
        """
        if self._can_stop:
            self._is_stopped = True
            raise _StopRun

    def log(self, metrics: Mapping[str, Any], level: Literal["batch", "epoch"] = "batch") -> None:
        """Hand values to whoever shows, writes or watches them, through on_log.

        Inside an epoch their names get its prefix: "loss" becomes "train/loss". Tensors are
        detached; nobody may write to them afterwards.

        Args:
            metrics: values by name.
            level: "epoch" also keeps them in `loop.metrics`.

        Raises:
            ArgumentError: `level` is neither "batch" nor "epoch".
        """
        if level not in ("batch", "epoch"):
            raise ArgumentError(f"level is {level!r}, neither 'batch' nor 'epoch'")
        on_log = self._calls.on_log
        if on_log is nothing and level == "batch":
            return
        in_epoch = self.is_training or self.is_validating or self.is_testing
        prefix = f"{self.epoch_desc}/" if in_epoch else ""
        named = {
            prefix + name: value.detach() if isinstance(value, torch.Tensor) else value
            for name, value in metrics.items()
        }
        if level == "epoch":
            self.metrics.update(named)
        on_log(self, named, level)

    @property
    def components(self) -> ComponentList:
        """The components, in call order. Assigning a list puts it in place of this one."""
        return self._components

    @components.setter
    def components(self, items: Iterable[Item]) -> None:
        self._components = self._components.replaced_by(items)

    @property
    def data(self) -> Any:
        """The iterable of the current epoch. Assigning another one sets `n_batches` too."""
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        self._data = data
        self.n_batches = _length(data)

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
        batch = self.batch
        tensor = batch[0] if isinstance(batch, list | tuple) and batch else batch
        if not isinstance(tensor, torch.Tensor) or not tensor.dim():  # not as in most batches
            tensor = next(_tensors(batch, seen=set()), None)
            if tensor is None:
                raise AttributeError  # so that __getattr__ explains
        return tensor.size(0)

    @batch_size.setter
    def batch_size(self, size: Any) -> None:
        self._batch_size = size

    def explain(self, point: str | None = None) -> str:
        """Return the call order of a point, or of all that somebody implements, and why it is so.

        Args:
            point: the name of a callback point; None for all.

        Returns:
            Text to print: for each implementation the component, its distribution and version,
            its place in the list, and wrapper, tryfirst or trylast where that decides.

        Raises:
            UnknownPointError: there is no such point.
        """
        return self._components.explain(point)

    def manifest(self) -> list[dict[str, Any]]:
        """Return what runs, as data that JSON can hold, in call order.

        Returns:
            For each component its position, name, class, distribution and version (None if it
            comes from no package), whether it is enabled, and its configuration.
        """
        return self._components.manifest()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name, name=name, obj=self)
        known = f" ({_CONVENTIONS[name]})" if name in _CONVENTIONS else ""
        enabled = [n for n in self._components.names() if self._components.is_enabled(n)]
        error = UnsetVariableError(
            f"nobody has set the loop variable {name!r}{known}. "
            f"Enabled components: {', '.join(enabled) or 'none'}"
        )
        error.name, error.obj = name, self  # from which Python suggests a name
        raise error

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a loop cannot be copied or pickled: it belongs to its components as they belong to "
            "it. Copy the model, or make a second loop"
        )

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...

    def _check_not_running(self, what: str) -> None:
        if self._is_running:
            raise RunError(
                f"{what}() was called while this loop is running. Only validate() can be"
            )

    @contextlib.contextmanager
    def _restoring(self) -> Iterator[None]:
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


# what tells their frames from others in a traceback
_EPOCH = TrainTestLoop._epoch.__code__
_GO_ON = TrainTestLoop._go_on.__code__
_VALIDATE = TrainTestLoop.validate.__code__


def _needed(name: str, data: Any) -> Any:
    if data is None:
        raise ArgumentError(f"{name} is None, so there is nothing to iterate over")
    return _iterable(name, data)


def _iterable(name: str, data: Any) -> Any:
    if data is not None and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise ArgumentError(f"{name} is {data!r}, which cannot be iterated over")
    return data


def _count(name: str, value: Any) -> int | None:
    if value is None:
        return None
    try:
        count = operator.index(value)
    except TypeError:
        count = -1
    if count < 0 or isinstance(value, bool):
        raise ArgumentError(f"{name} is {value!r}, no whole number from 0")
    return count


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except (TypeError, NotImplementedError):  # a DataLoader over a stream has __len__ and no length
        return None


def _tensors(batch: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """Yield the tensors of a batch that have a length, wherever they lie in it."""
    if isinstance(batch, torch.Tensor):
        if batch.dim():
            yield batch
        return
    if id(batch) in seen or isinstance(batch, str | bytes):
        return
    seen.add(id(batch))
    if isinstance(batch, Mapping):
        values = list(batch.values())
    elif isinstance(batch, list | tuple):
        values = list(batch)
    else:
        slots = [name for cls in type(batch).__mro__ for name in getattr(cls, "__slots__", ())]
        values = [getattr(batch, name, None) for name in [*slots, *getattr(batch, "__dict__", ())]]
    for value in values:
        yield from _tensors(value, seen)
