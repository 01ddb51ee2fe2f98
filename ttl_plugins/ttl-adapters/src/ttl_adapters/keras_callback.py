"""The component `keras-callback`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ttl_adapters.adapter import Adapter
from ttl_adapters.facade import Metrics, as_logs, as_number
from ttl_adapters.keras_model import Model
from ttl_adapters.plain_state import changed, plain_attributes, restored
from ttl_core import hookimpl
from ttl_core.arguments import flag

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_PREFIXES = {"train": "", "valid": "val_", "test": "", "predict": ""}
_PHASES = {"train": "train", "valid": "test", "test": "test", "predict": "predict"}
_BEGINNINGS = {desc: f"on_{phase}_batch_begin" for desc, phase in _PHASES.items()}
_ENDS = {desc: f"on_{phase}_batch_end" for desc, phase in _PHASES.items()}


class KerasCallback(Adapter):
    """A callback of Keras 3 as a component, with the model and the logs that it expects.

    Its hooks are called where Keras calls them; `on_epoch_end` after the validation of the epoch.
    `model.stop_training = True` stops at the next safe point. Attributes of the callback that have
    changed since on_train_begin are part of the state of the loop: those that are numbers, texts,
    arrays, or hold nothing else. What the model does not have is an error that names it.

    Args:
        callback: the callback, an object.
        main_only: whether its hooks are called in the main process of a group alone, as those of
            callbacks should be that write files or print. Without it they are called in each, as
            those of callbacks have to be that change the model or a learning rate.

    Attributes:
        callback: the callback.

    Raises:
        ArgumentError: it is no callback of Keras, or one that cannot work here.

    Example:
        >>> from ttl_core.testing import Step, tiny_loop
        >>> class StopAfterTwo:  # or a subclass of keras.callbacks.Callback
        ...     def set_model(self, model):
        ...         self.model = model
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         self.model.stop_training = epoch == 1
        >>> loop = tiny_loop(Step(), KerasCallback(StopAfterTwo()))
        >>> loop.train(n_epochs=9)
        >>> loop.epoch_num
        2
    """

    library = "Keras"
    packages = ("keras",)
    hooks = (
        *("on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end", "on_batch_begin"),
        *("on_batch_end", "on_train_batch_begin", "on_train_batch_end", "on_test_begin"),
        *("on_test_end", "on_predict_begin", "on_predict_end"),
    )
    hooks_of_points = {  # noqa: RUF012
        "on_batch_begin": [*_BEGINNINGS.values()],
        "on_batch_end": [*_ENDS.values()],
    }
    instead = {  # noqa: RUF012
        "BackupAndRestore": "the component checkpoint, which resumes by itself",
        "OrbaxCheckpoint": "the component checkpoint",
        "SwapEMAWeights": "the component ema",
        "TensorBoard": "the component tensorboard",
    }

    def __init__(self, callback: object, *, main_only: bool = False) -> None:
        super().__init__(callback)
        self.main_only = flag("main_only", main_only)
        self._model = Model(self)
        self._at_begin = plain_attributes(self.callback)
        self._logged: dict[str, Any] = {}  # at epoch level, in the current epoch

    def _tell(self, hook: str, *arguments: Any, logs: Metrics | None = None) -> None:
        """Call a hook of the callback, unless it is one of Keras that does nothing."""
        if self._is_begun:
            self._call(hook, *arguments, logs=Metrics({}, {}) if logs is None else logs)

    def _method(self, hook: str) -> Any:
        for name in (hook, hook.replace("_train_batch", "_batch")):  # as Keras' own default does
            method = getattr(self.callback, name, None)
            if method is not None and not getattr(method, "_is_default", False):
                return method
        return None

    # -- runs -------------------------------------------------------------------------------

    def _begin(self, loop: TrainTestLoop) -> None:
        self._model.set(_loop=loop)
        self._logged = {}
        self._call("set_model", self._model)
        n_epochs = None if loop.n_epochs is None else loop.epoch_num + loop.n_epochs
        try:
            steps = len(loop.train_data)  # type: ignore[arg-type]
        except TypeError:
            steps = None
        self._call("set_params", {"verbose": 1, "epochs": n_epochs or 1, "steps": steps})
        self._is_begun = loop.run_desc != "train"
        if loop.run_desc == "predict":
            self._tell("on_predict_begin")

    def _begin_training(self, loop: TrainTestLoop) -> None:
        self._is_begun = True
        self._tell("on_train_begin")
        self._at_begin = plain_attributes(self.callback)

    @hookimpl(trylast=True)  # behind components that create optimizers
    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Call on_train_begin."""
        self._begin_training(loop)

    def on_train_end(self, loop: TrainTestLoop) -> None:
        """Call on_train_end."""
        self._tell("on_train_end", logs=as_logs(self._logged, _PREFIXES))

    def on_predict_end(self, loop: TrainTestLoop) -> None:
        """Call on_predict_end."""
        self._tell("on_predict_end")

    # -- epochs -----------------------------------------------------------------------------

    @hookimpl(trylast=True)  # behind components that replace the data
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Prepare for a training epoch, else call on_test_begin."""
        if not loop.is_training:
            self._tell("on_test_begin")
            return
        if not self._is_begun:
            self._begin_training(loop)
        self._is_epoch_beginning = True

    def _begin_epoch(self, loop: TrainTestLoop) -> None:
        self._logged = {}
        self._tell("on_epoch_begin", loop.epoch_num)

    @hookimpl(trylast=True)  # behind components that log
    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Call on_test_end in evaluation."""
        if loop.is_training:
            self._is_epoch_ending = self._is_begun
            return
        prefix = f"{loop.epoch_desc}/"
        logs = {n.removeprefix(prefix): v for n, v in self._logged.items() if n.startswith(prefix)}
        self._tell("on_test_end", logs=as_logs(logs, _PREFIXES))

    def _finish_epoch(self, loop: TrainTestLoop) -> None:
        logs = as_logs(self._logged, _PREFIXES)
        self._tell("on_epoch_end", loop.epoch_num - self.n_ahead, logs=logs)

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Keep the values of the epoch as they are."""
        if level == "epoch":
            self._logged.update(metrics)

    # -- batches ----------------------------------------------------------------------------

    @hookimpl(trylast=True)  # behind components that change the batch
    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Call on_train_batch_begin, on_test_batch_begin or on_predict_batch_begin."""
        self._tell(_BEGINNINGS[loop.epoch_desc], loop.batch_num)

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Call on_train_batch_end, on_test_batch_end or on_predict_batch_end."""
        hook = _ENDS[loop.epoch_desc]
        if self._has(hook):
            # asked for in this way, as the error for an unset variable takes long
            name, value = "outputs", vars(loop).get("scores")
            if not loop.is_predicting:
                name, value = "loss", as_number(loop.loss)
            self._tell(hook, loop.batch_num, logs=Metrics({name: value}, {}))

    # -- state ------------------------------------------------------------------------------

    def _callback_state(self) -> dict[str, Any]:
        return {
            "logged": {name: as_number(value) for name, value in self._logged.items()},
            "attributes": changed(self._at_begin, plain_attributes(self.callback)),
        }

    def _load_callback_state(self, state: Mapping[str, Any]) -> None:
        self._logged = dict(state["logged"])
        vars(self.callback).update(restored({**self._at_begin, **state["attributes"]}))
