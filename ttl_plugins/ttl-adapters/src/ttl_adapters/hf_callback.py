"""The component `hf-callback`."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from ttl_adapters.adapter import Adapter
from ttl_adapters.hf_trainer import (
    EVENTS,
    Arguments,
    Control,
    State,
    logs_of,
    objects_of,
    update_best,
)
from ttl_core import hookimpl
from ttl_core.arguments import mapping

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class HFCallback(Adapter):
    """A callback of the Hugging Face Trainer as a component.

    Its events are called where the Trainer calls them. `control.should_training_stop` stops at the
    next safe point, `should_evaluate` validates there. What an ExportableState exports is part of
    the state of the loop. What is missing is an error.

    Args:
        callback: the callback, an object.
        args: the training arguments that it reads, by name; or a TrainingArguments.

    Attributes:
        callback: the callback.

    Raises:
        ArgumentError: it is no callback of transformers, or `args` are no training arguments.

    Example:
        >>> from ttl_core.testing import Step, tiny_loop
        >>> class StopAfterFour:  # or a subclass of transformers.TrainerCallback
        ...     def on_step_end(self, args, state, control, **kwargs):
        ...         control.should_training_stop = state.global_step == 4
        >>> loop = tiny_loop(Step(), HFCallback(StopAfterFour()))
        >>> loop.train(n_epochs=9)
        >>> loop.global_step
        4
    """

    library = "transformers"
    packages = ("transformers",)
    base = "TrainerCallback"
    hooks = EVENTS
    hooks_of_points = {  # noqa: RUF012
        "on_optim_step": ("on_pre_optimizer_step", "on_optimizer_step"),
    }
    instead = {"NotebookProgressCallback": "the component progress"}  # noqa: RUF012

    def __init__(self, callback: object, args: object = None) -> None:
        super().__init__(callback)
        is_given = hasattr(args, "logging_strategy") and not isinstance(args, Mapping)
        self._args: Any = args if is_given else Arguments(self, mapping("args", args))
        self._state = State(self, self._args)
        self._control = Control(self)
        self._is_initialized = False
        self._logged: dict[str, Any] = {}  # at batch level, the newest
        self._evaluated: dict[str, Any] = {}  # in the current evaluation

    def _tell(self, event: str, **keywords: Any) -> None:
        """Call an event of the callback."""
        loop = self._state._loop
        if not self._is_begun or not self._has(event):
            return
        positional = (self._args, self._state, self._control)
        result = self._call(event, *positional, **objects_of(loop), **keywords)
        self._control.take(result)

    # -- runs -------------------------------------------------------------------------------

    def _begin(self, loop: TrainTestLoop) -> None:
        self._state.begin(loop)
        if isinstance(self._args, Arguments):
            self._args.set(_loop=loop)
        self._is_begun = loop.run_desc != "train"

    def _begin_training(self, loop: TrainTestLoop) -> None:
        self._is_begun = True
        if not self._is_initialized:
            self._is_initialized = True
            self._tell("on_init_end")
        self._tell("on_train_begin")

    @hookimpl(trylast=True)  # behind components that create optimizers
    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Call on_train_begin."""
        self._begin_training(loop)

    def on_train_end(self, loop: TrainTestLoop) -> None:
        """Call on_train_end."""
        self._tell("on_train_end")

    def on_predict_end(self, loop: TrainTestLoop) -> None:
        """Call on_predict."""
        self._tell("on_predict", metrics={})

    # -- epochs -----------------------------------------------------------------------------

    @hookimpl(trylast=True)  # behind components that replace the data
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Prepare for an epoch."""
        if not loop.is_training:
            self._evaluated = {}
            return
        if not self._is_begun:
            self._begin_training(loop)
        self._is_epoch_beginning = True

    def _begin_epoch(self, loop: TrainTestLoop) -> None:
        self._tell("on_epoch_begin")

    @hookimpl(trylast=True)  # behind components that log
    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Call on_epoch_end in training, else on_evaluate."""
        if loop.is_training:
            self._state.set(epoch=loop.epoch_num + 1.0)
            self._tell("on_epoch_end")
            if loop.valid_data is not None:  # which is validated now
                self._control.should_evaluate = False
            self._announce_evaluation(loop)
            return
        metrics = logs_of(self._evaluated)
        self._tell("on_evaluate", metrics=metrics)
        update_best(self._state, metrics)

    def _reach_safe_point(self, loop: TrainTestLoop) -> None:
        """Validate where the callback asked for it."""
        if self._is_evaluation_due(loop):
            loop.validate()
            self._control.should_evaluate = False

    def _is_evaluation_due(self, loop: TrainTestLoop) -> bool:
        """Return whether to validate; in a group, where a process has announced that it asks."""
        if loop.group.size == 1:
            return bool(self._control.should_evaluate)
        if not loop.is_training and loop.valid_data is not None:  # which the epoch validates anyway
            return False
        return self._evaluation_name(loop) in loop.group.announced

    def _announce_evaluation(self, loop: TrainTestLoop) -> None:
        """Tell other processes of a group that the callback asks, as it may be alone in it."""
        if self._control.should_evaluate and loop.group.size > 1:
            self._control.should_evaluate = False
            loop.group.announce(self._evaluation_name(loop))

    def _evaluation_name(self, loop: TrainTestLoop) -> str:
        return f"{loop.components.name_of(self)}-evaluate"

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Call on_log with values of epochs, and keep those of batches until it is asked for."""
        if level == "epoch":
            self._evaluated.update(metrics)
            self._log(metrics)
        elif loop.is_training:
            self._logged.update(metrics)

    def _log(self, values: Mapping[str, Any]) -> None:
        self._tell("on_log", logs=logs_of({**values, "epoch": self._state.epoch}))

    # -- batches ----------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Call on_step_begin."""
        if self._is_epoch_beginning:
            self.tell_epoch(loop)
        control = self._control
        if control.should_log or control.should_evaluate:  # what is asked for at other times
            control.set(should_log=False, should_evaluate=False)
        self._tell("on_step_begin")

    @hookimpl(wrapper=True)
    def on_optim_step(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Call on_pre_optimizer_step and on_optimizer_step."""
        self._tell("on_pre_optimizer_step")
        result = yield
        self._tell("on_optimizer_step")
        return result

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Call on_step_end or on_substep_end in training, else on_prediction_step."""
        if not loop.is_training:
            self._tell("on_prediction_step")
            return
        if loop.n_batches:
            self._state.set(epoch=loop.epoch_num + (loop.batch_num + 1) / loop.n_batches)
        if not loop.is_stepping:
            self._tell("on_substep_end")
            return
        self._tell("on_step_end")
        self._announce_evaluation(loop)
        every = self._args.logging_strategy == "steps" and self._args.logging_steps
        if self._control.should_log or (every and loop.global_step % every == 0):
            rate = loop.optimizers[0].param_groups[0]["lr"]
            self._log({**self._logged, "loss": loop.loss, "learning_rate": rate})
            self._control.should_log = False
            self._logged = {}

    # -- state ------------------------------------------------------------------------------

    def _callback_state(self) -> dict[str, Any]:
        own = {n: vars(self._state)[n] for n in ("epoch", "best_metric", "best_global_step")}
        exported = (self._call("state") or {}).get("attributes", {})
        return {**own, "should_evaluate": self._control.should_evaluate, "attributes": exported}

    def _load_callback_state(self, state: Mapping[str, Any]) -> None:
        state = dict(state)
        self._control.should_evaluate = state.pop("should_evaluate")
        for name, value in state.pop("attributes").items():
            setattr(self.callback, name, value)
        self._state.set(**state)
