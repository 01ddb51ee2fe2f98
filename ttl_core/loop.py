"""The loop: when hooks are called, and nothing about what they do.

Half of this module is documentation, as its methods are what users call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, Never

import torch

from ttl_core import discovery
from ttl_core.batches import describe_batch, prefixed, to_cpu
from ttl_core.components.component import Item
from ttl_core.components.component_list import ComponentList
from ttl_core.errors import RunError
from ttl_core.hooks.compilation import noop
from ttl_core.hooks.failures import EpochPosition, StopRun
from ttl_core.hooks.manager import HookManager
from ttl_core.hooks.tracebacks import shorten_traceback
from ttl_core.state.position import (
    OF_BATCH,
    Stage,
    StopCause,
    check_length,
    check_steps_made,
)
from ttl_core.state.resumable_loop import ResumableLoop
from ttl_core.state.resumption import Resumption
from ttl_core.state.rewinding import call_until_done
from ttl_core.variables.data import (
    check_lasts,
    check_not_empty,
    check_not_in_use,
    length_of,
    named_sets,
    require_data,
)
from ttl_core.variables.loop_variables import LoopVariables, Phase
from ttl_core.variables.recomputation import recomputing


class TrainTestLoop(LoopVariables, ResumableLoop):
    """A loop that trains, validates, tests and predicts by calling components.

    Args:
        model: the model.
        components: components, names of installed ones, or `use(...)`, in call order.
        train_data: an iterable of batches for training.
        valid_data: an iterable of batches for validation, a mapping of several by name, or None
            for no validation.

    Raises:
        ComponentRejectedError: something in `components` is no component, or cannot be called.
        UnknownNameError: a name in `components` is not installed.
        ArgumentError: the model is no torch.nn.Module, or data are not iterable.

    Attributes:
        model: the model.
        train_data: the iterable of training data.
        valid_data: the iterable of validation data, a mapping of several, or None.
        hook: the hooks, to be called with keywords: `loop.hook.on_log(loop=loop, ...)`.
        group: the processes that train together; one process, unless a component joins more.
        n_epochs: number of epochs in the current run; None if optimization steps are counted.
        n_batches: number of batches in the current epoch; None if its data have no length.
        n_optim_steps: number of optimization steps in the current train(); None if it is unknown.
        run_desc: what runs: "train", "valid", "test" or "predict"; None outside of runs.
        is_training: True in training epochs.
        is_validating: True in validation epochs.
        is_testing: True in test epochs.
        is_predicting: True in prediction epochs.
        epoch_desc: "train", "valid", "test" or "predict".
        epoch_num: number of training epochs completed since the loop was created.
        data_name: the name of the current validation set where there are several, else None.
        batch: the current batch, as the data yielded it.
        batch_num: number of the batch in the current epoch, from 0.
        optim_step_num: number of optimization steps so far in the current train().
        global_step: number of optimization steps since the loop was created.
        is_stepping: whether this training batch ends in an optimization step; components may
            clear it until on_backward_pass has ended.

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

    def __init__(
        self,
        model: torch.nn.Module,
        components: Iterable[Item] = (),
        train_data: Iterable[Any] | None = None,
        valid_data: Iterable[Any] | Mapping[str, Iterable[Any]] | None = None,
    ) -> None:
        super().__init__(model, train_data, valid_data)
        self._stage = Stage.IDLE
        self._manager = HookManager(
            lambda: self._components.members(),
            lambda: self._components.current_members(),
            discovery.find_provider,
        )
        self._hooks = self._manager.hooks
        self.hook = self._manager.namespace
        # unchecked, as the hooks that run have checked them
        self._resumption = Resumption(self, lambda: self._components.current_members())
        try:
            self._components = ComponentList(components, self._manager)
        except Exception as error:
            shorten_traceback(error)
            raise

    # -- runs -------------------------------------------------------------------------------

    def train(
        self, n_epochs: int | None = None, *, n_optim_steps: int | None = None, **unknown: Never
    ) -> None:
        """Train the model for a number of epochs, or of optimization steps.

        Each epoch goes through the training data, then through the validation data, if any. With
        a loaded state it resumes from there; a call before the one in which the state was taken
        returns at once, with the model, the components and the metrics of the state.

        Args:
            n_epochs: the number of epochs.
            n_optim_steps: the number of optimization steps, instead. The epoch of the last step
                ends there as if its data had ended.
            **unknown: none; another name is an error that suggests the right one.

        Raises:
            ArgumentError: not exactly one of the two is given, it is no whole number from 0, or
                there are no training data.
            RunError: the loop is running already, or a training epoch had no batch, or made no step
                under `n_optim_steps`.
            StateError: the loaded state does not fit.
        """
        length = length_of(require_data("train_data", self.train_data))
        n_epochs, n_optim_steps = check_length(n_epochs, n_optim_steps, **unknown)
        check_lasts(n_epochs, train_data=self.train_data, valid_data=self.valid_data)
        self._stage.check_idle("train")
        self._warn_if_untrained()
        self._resumption.begin_train()
        self.n_epochs, self.n_optim_steps = n_epochs, n_optim_steps
        if n_epochs is not None and length is not None:
            self.n_optim_steps = n_epochs * length
        self.optim_step_num = 0
        if not self._resumption.is_ahead:
            self._run("train", partial(self._train, n_epochs, n_optim_steps))
        self._resumption.end_train()

    def validate(self, data: Iterable[Any] | Mapping[str, Iterable[Any]] | None = None) -> None:
        """Run one validation, also in the middle of training.

        All loop variables but `metrics`, the modes of all submodules and the grad mode are
        restored afterwards.

        Args:
            data: an iterable of batches, or a mapping of several by name; `valid_data` by default.

        Raises:
            ArgumentError: there are no validation data.
            RunError: the loop is validating, testing or predicting already, or the current
                training epoch is using the same iterator.
        """
        data = self.valid_data if data is None else data
        require_data("valid_data", data, may_be_named=True)
        if self.is_validating or self.is_testing or self.is_predicting:
            raise RunError(
                f"validate() was called inside a {self.epoch_desc} epoch. Call it in a training "
                "epoch, between epochs or outside of runs"
            )
        if self.is_training:
            check_not_in_use(data, [self.data, self.train_data])
        with self._restored():
            self.n_epochs = 1
            if self._stage is Stage.IDLE:
                self._run_evaluation("valid", data, self._evaluation_epoch)
                return
            self._resumption.restore_for_testing()
            with self._manager.attribution.nested():
                self._validate(data)

    def test(self, test_data: Iterable[Any]) -> None:
        """Test the model on data.

        Args:
            test_data: an iterable of batches.

        Raises:
            ArgumentError: `test_data` is not iterable.
            RunError: the loop is running already.
        """
        require_data("test_data", test_data)
        self._stage.check_idle("test")
        self.n_epochs = 1
        self._run_evaluation("test", test_data, self._evaluation_epoch)

    def predict(self, data: Iterable[Any], *, collect: bool = True) -> list[Any] | None:
        """Compute the scores of each batch of data.

        Args:
            data: an iterable of batches.
            collect: whether to return the scores. Without it, components use them batch by batch.

        Returns:
            The `scores` of each batch, on the CPU; None if they are not collected.

        Raises:
            ArgumentError: `data` is not iterable.
            RunError: the loop is running already.
            UnsetVariableError: scores are to be collected, but no component has set them.

        Example:
            >>> import torch
            >>> from ttl_core import LoopComponent, TrainTestLoop
            >>> class Forward(LoopComponent):
            ...     def on_forward_pass(self, loop):
            ...         loop.scores = loop.model(loop.batch)
            >>> loop = TrainTestLoop(torch.nn.Identity(), [Forward()])
            >>> loop.predict([torch.zeros(1), torch.ones(2)])
            [tensor([0.]), tensor([1., 1.])]
        """
        require_data("data", data)
        self._stage.check_idle("predict")
        self.n_epochs = 1
        collected: list[Any] | None = [] if collect else None
        self._run_evaluation("predict", data, partial(self._prediction_epoch, collected))
        return collected

    def _run(self, phase: Phase, body: Callable[[], None]) -> None:
        """Call the body of a run and the hook that ends it, inside around_run."""
        end_point = None if phase == "valid" else f"on_{phase}_end"

        def whole() -> None:
            try:
                body()
            except StopRun as stop:
                self._resumption.end_by(stop)
            self._end(end_point)

        self._join_group()
        self._resumption.exchange_random_numbers()
        self.run_desc = phase
        self._stage = Stage.STARTING
        try:
            try:
                self._hooks.around_run(self, whole)
            except StopRun as stop:
                self._resumption.end_by(stop)
            self._end(end_point)  # where a wrapper stopped the run before its body began
        except BaseException as exception:
            self._stage = Stage.ENDING
            self._manager.attribution.attribute(exception)
            shorten_traceback(exception)
            self._manager.report_failure(self, exception)
            raise
        finally:
            self._stage = Stage.IDLE
            self.run_desc = None
            self._set_phase(None)
            self._manager.end_run()
            self._resumption.exchange_random_numbers()

    def _end(self, point: str | None) -> None:
        if self._stage.is_stoppable:
            at_safe_point = self._stage is Stage.SAFE_POINT
            self._stage = Stage.ENDING_SAFELY if at_safe_point else Stage.ENDING
            self._set_phase(None)
            if point is not None:
                getattr(self._hooks, point)(self)

    def _train(self, n_epochs: int | None, n_optim_steps: int | None) -> None:
        """Run the epochs of a train(), each followed by its validation."""
        progress = self._resumption.progress
        if self._resumption.is_ahead:  # since a wrapper of around_run has loaded a state
            self._stage = Stage.ENDING
            return
        self._resumption.begin_counting()
        self._hooks.on_train_begin(self)
        self._stage = Stage.RUNNING
        if self._resumption.is_ahead:  # since a component has loaded a state in on_train_begin
            return
        self._resumption.resume(n_epochs, n_optim_steps)
        if not progress.is_stopped:
            call_until_done(partial(self._epochs, n_epochs, n_optim_steps), self._resumption.go_to)
        self._stage = Stage.SAFE_POINT

    def _epochs(self, n_epochs: int | None, n_optim_steps: int | None) -> None:
        progress = self._resumption.progress
        self._repeat_safe_point()
        epoch = partial(self._training_epoch, n_optim_steps)
        while progress.n_epochs_done != n_epochs:
            if not progress.is_trained:
                if self.optim_step_num == n_optim_steps:
                    break
                self._run_epoch("train", self.train_data, epoch)
                progress.is_trained = True
                self._safe_point()
            if self.valid_data is not None:
                self._validate(self.valid_data)
            self.epoch_num += 1
            progress.n_epochs_done += 1
            progress.is_trained = False
            if self.valid_data is not None:
                self._safe_point()
            self._warn_of_stop_flags()

    def _safe_point(self) -> None:
        self._stage = Stage.SAFE_POINT
        self._hooks.on_safe_point(self)
        self._stage = Stage.RUNNING

    def _repeat_safe_point(self) -> None:
        """Call on_safe_point again if the state just restored was taken while it was called."""
        progress = self._resumption.progress
        if progress.is_within_safe_point and not self._resumption.is_pending:
            progress.is_within_safe_point = False
            self._safe_point()

    def _validate(self, data: Any) -> None:
        for name, one in named_sets(data):
            self._run_epoch("valid", one, self._evaluation_epoch, name)

    def _run_evaluation(self, phase: Phase, data: Any, epoch: Callable[[], None]) -> None:
        """Run a validation, test or prediction that is not part of another run."""

        def body() -> None:
            if phase != "valid":
                getattr(self._hooks, f"on_{phase}_begin")(self)
            self._stage = Stage.RUNNING
            self._resumption.restore_for_testing()
            for name, one in named_sets(data) if phase == "valid" else [(None, data)]:
                self._run_epoch(phase, one, epoch, name)

        self._run(phase, body)

    # -- epochs -----------------------------------------------------------------------------

    def _run_epoch(
        self, phase: Phase, data: Any, epoch: Callable[[], None], data_name: str | None = None
    ) -> None:
        """Run an epoch in the modes of its phase, inside around_epoch."""
        self._set_phase(phase, data_name)
        self.data = data
        for name in OF_BATCH:  # those of the epoch before it
            vars(self).pop(name, None)
        if self.is_training:
            self.model.train()
        else:
            self.model.eval()
        with contextlib.nullcontext() if self.is_training else torch.no_grad():
            self._hooks.around_epoch(self, partial(self._attributed, epoch))
        self._set_phase(None)

    def _attributed(self, epoch: Callable[[], None]) -> None:
        """Call an epoch, and say of what it raises which component raised it and where."""
        if self._stage is Stage.SAFE_POINT:  # a validation within one
            self._stage = Stage.RUNNING
        try:
            epoch()
        except BaseException as exception:
            batch_num = vars(self).get("batch_num")
            batch = describe_batch(vars(self).get("batch"))
            position = EpochPosition(self.epoch_desc, self.epoch_num, batch_num, batch)
            self._manager.attribution.attribute(exception, position)
            raise

    def _training_epoch(self, max_steps: int | None) -> None:
        # the hot loop: what it reads often is in local variables
        hooks, progress = self._hooks, self._resumption.progress
        at_safe_point, running = Stage.SAFE_POINT, Stage.RUNNING
        is_resumed, steps_before = self._resumption.is_inside_epoch, self.optim_step_num
        has_stepped, batch_num = progress.has_stepped, None
        hooks.on_epoch_begin(self)
        n_batches, batches = self.n_batches, self._resumption.batches()
        self._repeat_safe_point()
        for batch_num, batch in batches:
            self.batch_num, self.batch, self._batch_size = batch_num, batch, None
            if has_stepped:
                hooks.on_grads_reset(self)
            self.is_stepping = True
            hooks.on_batch_begin(self)
            hooks.on_forward_pass(self)
            hooks.on_loss_compute(self)
            hooks.on_backward_pass(self)
            has_stepped = self.is_stepping
            if has_stepped:
                hooks.on_optim_step(self)
                self.optim_step_num += 1
                self.global_step += 1
            hooks.on_batch_end(self)
            if has_stepped:
                if self.optim_step_num == max_steps:
                    break
                if batch_num + 1 != n_batches:
                    self._stage = at_safe_point
                    hooks.on_safe_point(self)
                    self._stage = running
        progress.has_stepped = has_stepped
        if not is_resumed:  # a state inside an epoch was taken after a step
            check_not_empty(self, batch_num)
            check_steps_made(self.optim_step_num - steps_before, self.epoch_num, max_steps)
        hooks.on_epoch_end(self)

    def _evaluation_epoch(self) -> None:
        hooks, batch_num = self._hooks, None
        hooks.on_epoch_begin(self)
        for batch_num, batch in enumerate(self.data):
            self.batch_num, self.batch, self._batch_size = batch_num, batch, None
            hooks.on_batch_begin(self)
            hooks.on_forward_pass(self)
            hooks.on_loss_compute(self)
            hooks.on_batch_end(self)
        check_not_empty(self, batch_num)
        hooks.on_epoch_end(self)

    def _prediction_epoch(self, collected: list[Any] | None) -> None:
        hooks, batch_num = self._hooks, None
        for batch_num, batch in enumerate(self.data):
            self.batch_num, self.batch, self._batch_size = batch_num, batch, None
            vars(self).pop("scores", None)  # so that those of another batch are not collected
            hooks.on_batch_begin(self)
            hooks.on_forward_pass(self)
            hooks.on_batch_end(self)
            if collected is not None:
                collected.append(to_cpu(self.scores))
        check_not_empty(self, batch_num)

    # -- what components call ---------------------------------------------------------------

    def stop(self, reason: str | None = None) -> None:
        """End the run from any point.

        The rest of the point and of the epoch is skipped, the epoch does not count, and the end
        point fires: on_train_end, on_test_end or on_predict_end. In it, in on_exception and
        outside a run: no effect. In a group of several processes it is a request: this method
        returns, and all of them end training at the same safe point, one of the next two, or an
        evaluation at the same batch.

        Args:
            reason: why, for records of the run; `stopped_by` has it.

        Raises:
            RunError: it was called in another thread than the one of the run.
        """
        if self._stage.is_stoppable:
            self._manager.check_thread("stop")
            caller = self._manager.attribution.find_caller()
            cause = StopCause(caller.name if caller else None, reason)
            if (agreed := self.group.request_stop(cause)) is not None:
                raise StopRun(agreed)

    def log(self, metrics: Mapping[str, Any], level: Literal["batch", "epoch"] = "batch") -> None:
        """Hand values to the components that show, write or watch them, through on_log.

        Inside an epoch their names get its prefix: "loss" becomes "train/loss", or for a named
        validation set "valid/<name>/loss". Tensors are detached, and not to be written to
        afterwards.

        Args:
            metrics: values by name.
            level: "epoch" also keeps them in `loop.metrics`.

        Raises:
            ArgumentError: `level` is neither "batch" nor "epoch", or `metrics` is no mapping of
                names.
        """
        on_log = self._hooks.on_log
        if on_log is noop and level == "batch" and isinstance(metrics, dict):
            return
        if self._log_prefix is None:  # within recompute()
            return
        named = prefixed(self._log_prefix, metrics, level)
        if level == "epoch":
            self._unread_metrics.update(named)
        on_log(self, named, level)

    def recompute(self, batch: Any = None) -> Any:
        """Compute the loss of a training batch once more, with the parameters as they are now.

        For components that step by several passes. It calls on_forward_pass and on_loss_compute,
        in which `log` has no effect; loop variables are afterwards what they were. What these
        points need of a batch they find in it: a component that changes batches, such as one that
        mixes their samples, keeps all that belongs to a batch in `loop.batch`.

        Modules and random numbers are used as in every forward pass: running statistics are
        updated again, and dropout draws other numbers.

        Args:
            batch: an earlier batch, as `loop.batch` was; the current one by default.

        Returns:
            The loss, with its graph. In a group of several processes it is weighted, so that the
            mean of theirs is the loss of the whole batch.

        Raises:
            RunError: no training epoch is under way, or it has no current batch and none is given;
                or this is called inside itself.
            UnsetVariableError: no component sets `loss` in these points.

        Example:
            >>> from ttl_core.testing import ComponentConformance, Step
            >>> class QuasiNewton(Step):
            ...     def on_train_begin(self, loop):
            ...         super().on_train_begin(loop)
            ...         loop.optimizer = torch.optim.LBFGS(loop.model.parameters(), max_iter=5)
            ...
            ...     def on_optim_step(self, loop):
            ...         def closure():
            ...             loop.optimizer.zero_grad()
            ...             loss = loop.recompute()
            ...             loss.backward()
            ...             return loss
            ...         loop.optimizer.step(closure)
            >>> loop = TrainTestLoop(ComponentConformance.make_model(), [QuasiNewton()],
            ...                      ComponentConformance.make_data())
            >>> loop.train(n_epochs=1)
            >>> loop.global_step
            3
        """
        with recomputing(self, batch):
            self._hooks.on_forward_pass(self)
            self._hooks.on_loss_compute(self)
            return self.loss
