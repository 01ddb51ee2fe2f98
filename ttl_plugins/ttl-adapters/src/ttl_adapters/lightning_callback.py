"""The component `lightning-callback`."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from ttl_adapters.adapter import Adapter
from ttl_adapters.batch_counts import is_edge_set, set_index
from ttl_adapters.lightning_trainer import FUNCTIONS, HOOKS, INSTEAD, Trainer, bind, checkpoint_of
from ttl_core import hookimpl

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_PHASES = {"train": "train", "valid": "validation", "test": "test", "predict": "predict"}
_BEGINNINGS = {desc: f"on_{phase}_batch_start" for desc, phase in _PHASES.items()}
_ENDS = {desc: f"on_{phase}_batch_end" for desc, phase in _PHASES.items()}


class LightningCallback(Adapter):
    """A callback of Lightning as a component, with the hooks, trainer and module that it expects.

    Its hooks are called where Lightning calls them; `trainer.should_stop = True` stops at the next
    safe point. What `state_dict` returns and `on_save_checkpoint` adds is part of the state of the
    loop. What the trainer does not have is an error that names it.

    Args:
        callback: the callback, an object.

    Attributes:
        callback: the callback.

    Raises:
        ArgumentError: it is no callback of Lightning, or one that cannot work here.

    Example:
        >>> from ttl_core.testing import Step, tiny_loop
        >>> class StopAfterTwo:  # or a subclass of lightning.pytorch.Callback
        ...     def on_train_epoch_end(self, trainer, pl_module):
        ...         trainer.should_stop = trainer.current_epoch == 1
        >>> loop = tiny_loop(Step(), LightningCallback(StopAfterTwo()))
        >>> loop.train(n_epochs=9)
        >>> loop.epoch_num
        2
    """

    library = "Lightning"
    packages = ("lightning", "pytorch_lightning")
    base = "Callback"
    hooks, instead = HOOKS, INSTEAD
    hooks_of_points = {  # noqa: RUF012
        "on_grads_reset": ("on_before_zero_grad",),
        "on_batch_begin": [*_BEGINNINGS.values()],
        "on_backward_pass": ("on_before_backward", "on_after_backward"),
        "on_optim_step": ("on_before_optimizer_step",),
        "on_batch_end": [*_ENDS.values()],
    }

    def __init__(self, callback: object) -> None:
        super().__init__(callback)
        self._trainer = Trainer(self)
        self._module = self._trainer.lightning_module
        self._has_optimizers = False

    def _tell(self, hook: str, *arguments: Any) -> None:
        """Call a hook of the callback, with the trainer and the module first."""
        if self._is_begun:
            self._call(hook, self._trainer, self._module, *arguments)

    def _tell_of_phase(self, loop: TrainTestLoop, hook: str, *arguments: Any) -> None:
        """Call the hook of the current phase."""
        self._tell(f"on_{_PHASES[loop.epoch_desc]}_{hook}", *arguments)

    def _tell_of_batch(self, loop: TrainTestLoop, hook: str, *outputs: Any) -> None:
        index = () if loop.is_training else (set_index(loop),)
        self._tell(hook, *outputs, loop.batch, loop.batch_num, *index)

    # -- runs -------------------------------------------------------------------------------

    def _begin(self, loop: TrainTestLoop) -> None:
        bind(self._trainer, loop)
        self.callback.log, self.callback.log_dict = self._module.log, self._module.log_dict
        self._call("setup", self._trainer, self._module, stage=FUNCTIONS[str(loop.run_desc)])
        self._is_begun = loop.run_desc == "valid"

    def _begin_training(self, loop: TrainTestLoop) -> None:
        self._is_begun = True
        self._has_optimizers = hasattr(loop, "optimizers")  # asked once, as a "no" takes long
        self._tell("on_fit_start")
        self._tell("on_train_start")

    def _finish(self, loop: TrainTestLoop) -> None:
        self._call("teardown", self._trainer, self._module, stage=FUNCTIONS[str(loop.run_desc)])

    @hookimpl(trylast=True)  # behind components that create optimizers
    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Call on_fit_start and on_train_start."""
        self._begin_training(loop)

    def on_train_end(self, loop: TrainTestLoop) -> None:
        """Call on_train_end and on_fit_end."""
        self._tell("on_train_end")
        self._tell("on_fit_end")

    def on_test_begin(self, loop: TrainTestLoop) -> None:
        """Call on_test_start."""
        self._is_begun = True
        self._tell("on_test_start")

    def on_test_end(self, loop: TrainTestLoop) -> None:
        """Call on_test_end."""
        self._tell("on_test_end")

    def on_predict_begin(self, loop: TrainTestLoop) -> None:
        """Call on_predict_start and on_predict_epoch_start."""
        self._is_begun = True
        self._tell("on_predict_start")
        self._tell("on_predict_epoch_start")

    def on_predict_end(self, loop: TrainTestLoop) -> None:
        """Call on_predict_epoch_end and on_predict_end."""
        self._tell("on_predict_epoch_end")
        self._tell("on_predict_end")

    def on_exception(self, loop: TrainTestLoop, exception: BaseException) -> None:
        """Call on_exception."""
        self._tell("on_exception", exception)

    # -- epochs -----------------------------------------------------------------------------

    @hookimpl(trylast=True)  # behind components that replace the data
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Call on_validation_start and on_validation_epoch_start, or on_test_epoch_start."""
        if loop.is_training:
            self._is_epoch_beginning = True
            if not self._is_begun:
                self._begin_training(loop)
        elif loop.is_testing or is_edge_set(loop, 0):
            if loop.is_validating:
                self._tell("on_validation_start")
            self._tell_of_phase(loop, "epoch_start")

    def _begin_epoch(self, loop: TrainTestLoop) -> None:
        self._tell("on_train_epoch_start")

    @hookimpl(trylast=True)  # behind components that log
    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Call on_validation_epoch_end and on_validation_end, or on_test_epoch_end."""
        if loop.is_training:
            self._is_epoch_ending = self._is_begun
        elif loop.is_testing or is_edge_set(loop, -1):
            self._tell_of_phase(loop, "epoch_end")
            if loop.is_validating:
                self._tell("on_validation_end")

    def _finish_epoch(self, loop: TrainTestLoop) -> None:
        self._tell("on_train_epoch_end")

    # -- batches ----------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Call on_before_zero_grad for each optimizer."""
        self.tell_epoch(loop)
        for optimizer in loop.optimizers if self._has_optimizers else ():
            self._tell("on_before_zero_grad", optimizer)

    @hookimpl(trylast=True)  # behind components that change the batch
    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Call on_train_batch_start, or what corresponds to it in the phase."""
        hook = _BEGINNINGS[loop.epoch_desc]
        if self._has(hook):
            self._tell_of_batch(loop, hook)

    @hookimpl(wrapper=True)
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Call on_before_backward and on_after_backward."""
        self._tell("on_before_backward", loop.loss)
        result = yield
        self._tell("on_after_backward")
        return result

    @hookimpl(tryfirst=True)
    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Call on_before_optimizer_step for each optimizer."""
        for optimizer in loop.optimizers if self._has_optimizers else ():
            self._tell("on_before_optimizer_step", optimizer)

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Call on_train_batch_end, or what corresponds to it in the phase."""
        hook = _ENDS[loop.epoch_desc]
        if self._has(hook):
            outputs = vars(loop).get("scores")  # as the error for an unset variable takes long
            if not loop.is_predicting:
                outputs = {"loss": loop.loss.detach(), "scores": outputs}
            self._tell_of_batch(loop, hook, outputs)

    # -- state ------------------------------------------------------------------------------

    def _callback_state(self) -> dict[str, Any]:
        there = checkpoint_of(self._trainer)
        checkpoint = dict(there)
        self._call("on_save_checkpoint", self._trainer, self._module, checkpoint)
        added = {k: v for k, v in checkpoint.items() if k not in there or v is not there[k]}
        return {"state": self._call("state_dict") or {}, "checkpoint": added}

    def _load_callback_state(self, state: Mapping[str, Any]) -> None:
        checkpoint = {**checkpoint_of(self._trainer), **state["checkpoint"]}
        self._call("on_load_checkpoint", self._trainer, self._module, checkpoint)
        if state["state"]:
            self._call("load_state_dict", dict(state["state"]))
