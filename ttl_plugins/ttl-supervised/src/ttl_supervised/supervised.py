"""The component `supervised`.

Half of this module is documentation and checks of arguments; what hooks do is in others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ttl_core import (
    ArgumentError,
    LoopComponent,
    Monitor,
    RunError,
    check_can_be_logged,
    find_device,
    hookimpl,
    local_part,
    missing_metric_error,
    optimizer_parameters,
    split_batch,
    to_device,
)
from ttl_core.arguments import describe, one_of, user_stacklevel
from ttl_supervised.batches import (
    Batch,
    BatchSplitter,
    function_to_device,
    weigh_samples,
)
from ttl_supervised.calls import Call, checked_call, split_output
from ttl_supervised.checks import (
    check_loss_func,
    check_optimizer,
    check_optimizer_argument,
    check_reduction,
    check_scheduler,
    no_loss_error,
    no_targets_error,
    note_devices,
    note_loss_arguments,
    note_missing_graph,
    note_whole_batch,
    wrong_loss_error,
)
from ttl_supervised.closures import Closure, needs_closure
from ttl_supervised.losses import LossParts, checked_weights, unused_weights_error
from ttl_supervised.models import compile_in_place
from ttl_supervised.schedulers import Factory, checked_factory, warn_of_epochs

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class Supervised(LoopComponent):
    """The steps of supervised learning on (inputs, targets) batches.

    It moves the model and the batches to the device, computes scores and loss, and steps the
    optimizer and the scheduler. It sets `loss_func`, `optimizer`, `scheduler`, `batch`, `scores`
    and `loss`, and logs `loss` for each batch. In prediction it sets `batch` and `scores` alone.

    Args:
        loss_func: takes scores and targets and returns the mean loss, a tensor without dimensions;
            or a mapping of several, of which the sum is `loss`. None where the model returns its
            loss, as `loss` beside `logits`, as a mapping of losses, or as the first of a tuple.
        optimizer: an optimizer, or a factory that takes the model's parameters and returns one. A
            factory makes a new one in each train(). One whose step takes a closure, such as LBFGS,
            gets one that computes the loss again.
        scheduler: a scheduler, or a factory that takes the optimizer and the number of
            optimization steps of this train() (None if unknown) and returns one; None for none. A
            scheduler class of torch, or a partial of one, is called with the optimizer, and with
            how often it will step as T_max, total_iters or total_steps, where that is needed.
        scheduler_interval: whether the scheduler steps after each optimization "step", as by
            default, or after each training "epoch". By default a schedule that looks as if it
            counted epochs gives a warning.
        monitor: the metric that a ReduceLROnPlateau monitors, such as "valid/loss", or
            "valid/<name>/loss" of one of several validation sets. The scheduler then steps once
            an epoch, after the epoch's last validation, if any. In an epoch that did not log the
            metric it does not step, and the first such epoch gives a warning.
        split: takes what the data yielded and returns inputs and targets; the targets may be
            None in testing and prediction. By default a batch is a pair, or a mapping with
            "inputs" and "targets", or an object that has them, as a named tuple or a dataclass; a
            batch of any other type is inputs alone.
        call: how the model is called: "args" for `model(*inputs)`, "kwargs" for `model(**inputs)`,
            or a function of the model and the inputs; by default `model(inputs)`.
        loss_weights: where there are several losses, what each is multiplied by in their sum, by
            name. Each is logged as "loss/<name>", for batches and as a mean over the epoch.
        device: where to train; "auto" for an accelerator if there is one, else the CPU; None to
            leave the model and the batches where they are.
        compile: whether to compile the model, in place; or the options of `torch.compile`.

    Raises:
        ArgumentError: an argument has an unusable value, or `loss_func` returns a loss for each
            sample; in train(), the optimizer is of another model, or the scheduler of another
            optimizer.

    Example:
        >>> from functools import partial
        >>> from ttl_core import TrainTestLoop
        >>> steps = Supervised(torch.nn.MSELoss(), partial(torch.optim.SGD, lr=0.1))
        >>> batches = [(torch.ones(4, 2), torch.ones(4, 1))] * 10
        >>> loop = TrainTestLoop(torch.nn.Linear(2, 1), [steps], batches)
        >>> loop.train(n_epochs=5)
        >>> bool(loop.loss < 0.01)
        True
    """

    only_once = True

    # the model's parameters that no optimizer steps, and the optimizer they were listed with
    _unstepped: Iterable[torch.nn.Parameter] = ()
    _listed_with: object = None

    def __init__(
        self,
        loss_func: Callable[[Any, Any], Any] | None,
        optimizer: torch.optim.Optimizer
        | Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
        scheduler: LRScheduler
        | Callable[[torch.optim.Optimizer, int | None], LRScheduler]
        | None = None,
        *,
        scheduler_interval: Literal["step", "epoch"] | None = None,
        monitor: str | None = None,
        split: Callable[[Any], Batch] | None = None,
        call: Literal["args", "kwargs"] | Call | None = None,
        loss_weights: Mapping[str, float] | None = None,
        device: str | torch.device | None = "auto",
        compile: bool | Mapping[str, Any] = False,  # noqa: A002
    ) -> None:
        check_loss_func(loss_func)
        check_reduction(loss_func)
        check_optimizer_argument(optimizer)
        if scheduler_interval is not None:
            one_of("scheduler_interval", scheduler_interval, ("step", "epoch"))
        is_scheduler = isinstance(scheduler, LRScheduler)
        if scheduler is not None and not is_scheduler and not callable(scheduler):
            raise ArgumentError(
                f"scheduler is {describe(scheduler)}, but has to be a scheduler or to make one "
                "from an optimizer and the number of steps. Write, for example: "
                "scheduler=torch.optim.lr_scheduler.CosineAnnealingLR"
            )
        if is_scheduler and not isinstance(optimizer, torch.optim.Optimizer):
            raise ArgumentError(
                "scheduler belongs to an optimizer that exists already, but optimizer is a factory "
                "of another one. Give a factory for the scheduler too"
            )
        if split is not None and not callable(split):
            raise ArgumentError(
                f"split is {split!r}, but has to take a batch and return inputs and targets, as "
                "lambda batch: (batch['x'], batch['y']) does"
            )
        if monitor is not None and not isinstance(monitor, str):
            raise ArgumentError(
                f"monitor is {monitor!r}, but has to be the name of a metric, as 'valid/loss'"
            )
        if not isinstance(compile, bool | Mapping):
            raise ArgumentError(
                f"compile is {compile!r}, but has to be True, False or a mapping of options, as "
                "{'mode': 'reduce-overhead'} is"
            )
        self.loss_func = loss_func
        self.optimizer = optimizer
        self.scheduler = scheduler
        self._make_scheduler: Factory | None = None
        if scheduler is not None and not isinstance(scheduler, LRScheduler):
            self._make_scheduler = checked_factory(scheduler)
        self.scheduler_interval = (scheduler_interval or "step") if monitor is None else "monitor"
        self._is_interval_given = scheduler_interval is not None
        self.monitor = monitor
        self.split = split or split_batch
        self.call = call
        self._call = checked_call(call)
        self._returned_loss: Any = None  # of the model, from its forward pass to the loss
        self.loss_weights = checked_weights(loss_weights)
        self._parts: LossParts | None = None  # from the first loss of an epoch that has several
        self._closure: Closure | None = None
        self._splitter = BatchSplitter()
        self.device = None if device is None else find_device("device", device)
        self.compile_options = ({} if compile else None) if isinstance(compile, bool) else compile
        self._compiled: torch.nn.Module | None = None
        self._is_due = False  # whether the scheduler has yet to step by the metric of this epoch
        self._is_new = False  # whether the metric was logged in this epoch
        self._has_warned = False
        if monitor is not None:  # otherwise no batch pays for it
            self.on_log = self._note_monitored  # type: ignore[method-assign]
        # the batches of the newest scores and loss: this component may be disabled in between
        self._scored_at: int | None = None
        self._loss_at: int | None = None

    def _note_monitored(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Note that the monitored metric was logged, where a scheduler monitors one."""
        if level == "epoch" and self.monitor in metrics:
            self._is_new = True

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Put the model on the device; set `loss_func`, `optimizer` and `scheduler`."""
        self._prepare_model(loop.model)
        loop.loss_func = self._prepared_loss_func()
        loop.optimizer = self.optimizer
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            loop.optimizer = self.optimizer(loop.model.parameters())
        check_optimizer(loop.optimizer, loop.model, loop.loss_func)
        self._closure = Closure() if needs_closure(loop.optimizer) else None
        loop.scheduler = self.scheduler
        if self._make_scheduler is not None:
            n_times = loop.n_optim_steps if self.scheduler_interval == "step" else loop.n_epochs
            loop.scheduler = self._make_scheduler(loop.optimizer, loop.n_optim_steps, n_times)
        if self.scheduler is not None:
            check_scheduler(loop.scheduler, loop.optimizer)
        if isinstance(loop.scheduler, ReduceLROnPlateau) != (self.monitor is not None):
            raise ArgumentError(
                f"scheduler is {loop.scheduler!r} and monitor is {self.monitor!r}, but a "
                "ReduceLROnPlateau and a metric for it to monitor, such as 'valid/loss', go "
                "together"
            )
        if self.scheduler_interval == "step" and not self._is_interval_given:
            warn_of_epochs(loop.scheduler, loop)

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Drop the scheduler step that was due when an earlier run stopped or failed."""
        self._is_due = self._is_new = self._has_warned = False
        return (yield)

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: the other components have logged by its end
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Step the scheduler by the monitored metric, after the last validation of an epoch.

        In prediction, put the model on the device.

        Raises:
            RunError: the metric was not logged.
        """
        if loop.epoch_desc == "predict":  # on_epoch_begin does not fire in it
            self._prepare_model(loop.model)
        outer = self._splitter, self._scored_at, self._loss_at, self._parts
        self._splitter = BatchSplitter()  # a validation in mid-epoch has one of its own
        self._scored_at = self._loss_at = self._parts = None
        try:
            result = yield
        finally:
            self._splitter, self._scored_at, self._loss_at, self._parts = outer
        if self.monitor is not None and loop.scheduler is not None:
            # a validation in mid-epoch or on its own does not end a training epoch
            self._is_due |= loop.is_training
            if self._is_due and _is_last_part(loop):
                self._is_due = False
                self._step_by_metric(loop, self.monitor)
        return result

    def _step_by_metric(self, loop: TrainTestLoop, monitor: str) -> None:
        """Step the scheduler by the metric, if this epoch has logged it."""
        if monitor not in loop.metrics:
            raise missing_metric_error("supervised", monitor, loop.metrics)
        if self._is_new:
            self._is_new = False
            loop.scheduler.step(loop.metrics[monitor])
        elif not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"'supervised' did not step the scheduler in epoch {loop.epoch_num}, as the metric "
                f"{monitor!r} that it monitors was not logged in it: its newest value is of an "
                "earlier epoch. Check what logs it; ignore this warning if it is meant to be rare",
                UserWarning,
                stacklevel=user_stacklevel(),
            )

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Put the model on the device and set `loss_func`, where no train() has done it."""
        if loop.is_training:
            self._is_new = False
            # when other components have given the loop its data, or have taken the scheduler away
            if self.monitor is not None and loop.scheduler is not None:
                check_can_be_logged("supervised", self.monitor, loop.valid_data)
        else:
            self._prepare_model(loop.model)
            loop.loss_func = self._prepared_loss_func()

    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Clear the gradients, also those that no optimizer uses: they would grow for ever."""
        optimizer = loop.optimizer
        optimizer.zero_grad()
        if self._closure is not None:
            self._closure.reset()
        if optimizer is not self._listed_with:  # model.zero_grad() would be slow
            self._listed_with = optimizer
            stepped = {id(parameter) for parameter in optimizer_parameters(loop)}
            self._unstepped = [p for p in loop.model.parameters() if id(p) not in stepped]
        for parameter in self._unstepped:
            parameter.grad = None

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Put the batch on the device."""
        if self._parts is not None:
            self._parts.end_batch()
        if self.device is not None:
            loop.batch = to_device(loop.batch, self.device)

    def on_forward_pass(self, loop: TrainTestLoop) -> None:
        """Set `scores`; set `batch_size` where the inputs are a list of samples.

        Raises:
            ValueError: a batch of training or validation data has no targets.
        """
        inputs, targets = self._split(loop)
        needs_targets = self.loss_func is not None and not (loop.is_testing or loop.is_predicting)
        if targets is None and needs_targets:
            raise no_targets_error(loop.epoch_desc, loop.batch)
        if isinstance(inputs, (list, tuple)):
            weigh_samples(loop, inputs, targets)
        try:
            call = self._call
            loop.scores = loop.model(inputs) if call is None else call(loop.model, inputs)
        except Exception as error:
            note_devices(error, model=loop.model, inputs=inputs)
            if inputs is loop.batch:
                note_whole_batch(error, inputs)
            raise
        if self.loss_func is None:
            self._returned_loss, loop.scores = split_output(loop.scores)
        self._scored_at = loop.batch_num

    def on_loss_compute(self, loop: TrainTestLoop) -> None:
        """Set `loss` and log it; None where a test batch has no targets."""
        if self._scored_at != loop.batch_num:
            raise _enabled_late_error("scores")
        if self.loss_func is None:
            loss, self._returned_loss = self._returned_loss, None  # it has a graph
        else:
            loss = self._compute_loss(loop)
        if loss is None and (self.loss_func is None or loop.is_testing):
            if self.loss_func is None and not loop.is_testing:
                raise no_loss_error(loop.scores)
            loop.loss = None
            return
        logged = {"loss": loss}
        if isinstance(loss, Mapping):
            if self._parts is None:
                self._parts = LossParts(self.loss_weights)
            logged = self._parts.add(loss, loop.batch_size)
            loss = logged["loss"]
        elif self.loss_weights:
            raise unused_weights_error(self.loss_weights)
        loop.loss = loss
        is_tensor = isinstance(loss, torch.Tensor)  # in evaluation it may be a plain number
        if loss.numel() != 1 if is_tensor else loop.is_training:
            raise wrong_loss_error(loss)
        loop.log(logged)
        self._loss_at = loop.batch_num

    def on_backward_pass(self, loop: TrainTestLoop) -> None:
        """Compute gradients."""
        if self._loss_at != loop.batch_num:
            raise _enabled_late_error("loss")
        try:
            loop.loss.backward()
        except RuntimeError as error:
            note_missing_graph(error, loop.loss)
            raise
        if self._closure is not None:
            self._closure.note_batch(loop)

    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Update the parameters, and the learning rate if it changes at each step."""
        if self._closure is None:
            loop.optimizer.step()
        else:
            self._closure.step(loop)
        if loop.scheduler is not None and self.scheduler_interval == "step":
            loop.scheduler.step()

    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Log the means of several losses; update the learning rate, if it changes each epoch."""
        if self._parts is not None:
            loop.log(self._parts.means(), level="epoch")
        if loop.is_training and self.scheduler_interval == "epoch" and loop.scheduler is not None:
            loop.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return whether the scheduler has yet to step, by which metric, and sums of losses."""
        state: dict[str, Any] = {"is_due": self._is_due, "is_new": self._is_new}
        if self.monitor is not None:
            state["monitor"] = str.__str__(self.monitor)  # it may be an enum
        return state if self._parts is None else {**state, "parts": self._parts.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume between a training epoch and its validation, or elsewhere.

        Args:
            state: what `state_dict` returned.

        Raises:
            StateError: the scheduler monitored another metric.
        """
        if self.monitor is not None:
            # the best value and the mode are the scheduler's, of which the loop compares the mode
            Monitor(self.monitor, "min").resumed(
                {"monitor": state.get("monitor")},
                "supervised",
                choices=f"Give it monitor={state.get('monitor')!r} to resume",
            )
        self._is_due = state["is_due"]
        # earlier versions stepped by the newest value, whatever epoch it was of
        self._is_new = state.get("is_new", True)
        self._parts = LossParts(self.loss_weights) if "parts" in state else None
        if self._parts is not None:
            self._parts.load_state_dict(state["parts"])

    def _compute_loss(self, loop: TrainTestLoop) -> Any:
        """Return what the loss function returns; None where a test batch has no targets."""
        _, targets = self._split(loop)
        if targets is None:
            return None
        try:
            return loop.loss_func(loop.scores, targets)
        except Exception as error:
            note_devices(error, scores=loop.scores, targets=targets, loss_func=loop.loss_func)
            note_loss_arguments(error, loop.scores, targets)
            raise

    def _split(self, loop: TrainTestLoop) -> Batch:
        batch = loop.batch
        if self.split is not split_batch:
            return self.split(batch)
        if type(batch) is tuple and len(batch) == 2:
            return batch  # most batches are pairs: asking what else they may be costs more
        return self._splitter(batch, loop.data)

    def _prepared_loss_func(self) -> Any:
        """Return the loss function with its tensors on the device."""
        if self.device is None:
            return self.loss_func
        return function_to_device(self.loss_func, self.device)

    def _prepare_model(self, model: torch.nn.Module) -> None:
        """Put a model on the device, and compile it once."""
        first = next(model.parameters(), None)
        # one that is distributed over processes is where what has distributed it keeps it
        is_distributed = first is not None and local_part(first) is not first
        if self.device is not None and not is_distributed:
            model.to(self.device)
        if self.compile_options is not None and self._compiled is not model:
            compile_in_place(model, self.compile_options)
            self._compiled = model


def _is_last_part(loop: TrainTestLoop) -> bool:
    """Return whether a training epoch ends with the current part: with its last validation."""
    data = loop.valid_data
    if not isinstance(data, Mapping):
        return data is None or loop.is_validating
    return loop.is_validating and loop.data_name == list(data)[-1]


def _enabled_late_error(what: str) -> RunError:
    return RunError(
        f"'supervised' was enabled in the middle of a batch whose {what} it did not compute. "
        "Enable it between batches"
    )
