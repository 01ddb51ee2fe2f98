"""What the components that train in several processes have in common.

Each hook decides by what the ones before it have agreed on with other processes, in one order, so
they are in one module, which is a little longer than others.
"""

from __future__ import annotations

import socket
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from ttl_core import (
    Group,
    GroupError,
    LoopComponent,
    hookimpl,
    leave_out_hooks,
    optimizer_parameters,
)
from ttl_core.arguments import number
from ttl_distributed.data import Share
from ttl_distributed.environment import place_in
from ttl_distributed.evaluation import EvaluationVotes
from ttl_distributed.failures import explaining_failures, record_failure
from ttl_distributed.group import ProcessGroup, join
from ttl_distributed.random_streams import fork_random_streams
from ttl_distributed.step_weights import StepWeights

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class DataParallel(LoopComponent):
    """Training in several processes, each on its part of the data, by gradients of all of them.

    It is what `ddp` and `fsdp` have in common; how the model of a process takes part is theirs.

    Args:
        timeout: how many seconds a process waits for the others before it fails.
        first_timeout: the same until the first batch of a training epoch has ended.

    Raises:
        ArgumentError: an argument has an unusable value.
        RunError: the environment has only a part of what torchrun sets.
    """

    only_once = True
    entry_point: str

    def __init__(self, timeout: float, first_timeout: float) -> None:
        self.timeout = number("timeout", timeout, above=0)
        self.first_timeout = number("first_timeout", first_timeout, above=0)
        self._place = place_in()
        self._group: ProcessGroup | None = None
        self._has_news = self._has_forked = self._has_buffers = False
        self._n_passes = 0  # forward passes of a training batch
        self._is_first_pass = False  # whether the next backward pass is the first one of a batch
        self._weights: dict[int, tuple[Any, Any]] = {}  # of the batches of a step, own and in all
        self._has_stepped = False
        self._has_short_timeout = False
        is_initialized = dist.is_available() and dist.is_initialized()
        if self._place is None and not is_initialized:  # so that no hook is called
            hooks = [name for name in vars(DataParallel) if name.startswith(("on_", "around_"))]
            leave_out_hooks(self, DataParallel, hooks)

    # -- of the subclass --------------------------------------------------------------------

    def _take_part(self, loop: TrainTestLoop, group: ProcessGroup) -> None:
        """Prepare the model, when a run begins."""

    def _leave(self, loop: TrainTestLoop) -> None:
        """Leave nothing of a run behind."""

    def _share_weights(self, loop: TrainTestLoop, group: ProcessGroup) -> None:
        """Begin with the weights of the main process, in the first train()."""

    def _check_begun(self, loop: TrainTestLoop) -> None:
        """Check what components have made in on_train_begin."""

    def _begin_epoch(self, loop: TrainTestLoop) -> None:
        """Prepare for an epoch, whose data are shared out."""

    def _end_epoch(self, loop: TrainTestLoop) -> None:
        """Leave nothing of an epoch behind."""

    def _end_passes(self) -> None:
        """Leave nothing of the forward passes of an epoch behind."""

    def _begin_evaluation_pass(self) -> None:
        """Prepare for the forward pass of a batch in evaluation."""

    def _end_evaluation(self, loop: TrainTestLoop) -> None:
        """Do what others need that have more batches in evaluation."""

    def _begin_forward_pass(self, loop: TrainTestLoop) -> None:
        """Prepare for the forward pass of a training batch."""

    def _end_forward_pass(self, loop: TrainTestLoop, *, is_complete: bool) -> None:
        """Restore what `_begin_forward_pass` has changed, also where the pass has failed."""

    def _begin_backward_pass(self, loop: TrainTestLoop) -> torch.nn.Parameter | None:
        """Prepare for a backward pass, and return the carrier, if there is one.

        That is a parameter which has to get a gradient before. It is averaged with those of the
        model, and can be read when they can.
        """
        return None

    def _begin_empty_pass(self) -> torch.nn.Parameter | None:
        """Prepare for a backward pass without a batch, and return the carrier, if there is one."""
        return None

    def _complete_gradients(self, loop: TrainTestLoop) -> None:
        """Do what is left of the backward pass of a batch that makes a step."""

    def _nothing(self, loop: TrainTestLoop) -> torch.Tensor:
        """Return a loss whose gradients are 0."""
        raise NotImplementedError

    # -- the group --------------------------------------------------------------------------

    def join_group(self) -> Group | None:
        """Return the processes that torchrun has started; None where it has started none."""
        self._group = join(self._place, self.first_timeout)
        if self._group is not None and not hasattr(self, "_share"):
            self._share = Share(self._group)
            self._votes = EvaluationVotes(self._group)
            self._step_weights = StepWeights(self._group)
        return self._group

    # -- runs -------------------------------------------------------------------------------

    @hookimpl(wrapper=True, tryfirst=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Leave nothing of a run behind; record a failure for the other processes."""
        if self._group is None:
            return (yield)
        try:
            # also of what components do together
            with self._group.of_run(), explaining_failures("the run"):
                self._take_part(loop, self._group)
                return (yield)
        except BaseException as exception:
            self._group.has_failed = True
            if isinstance(exception, Exception) and not isinstance(exception, GroupError):
                exception.add_note(
                    f"ttl: in rank {self._group.rank} of {self._group.size}, on "
                    f"{socket.gethostname()}"
                )
                record_failure(exception, self._group.rank)
            raise
        finally:
            self._step_weights.reset()
            self._has_news = False
            self._leave(loop)

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: the other components have begun
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Continue with random numbers of this process's own; agree on a request to stop."""
        try:
            result = yield
        finally:
            self._check_begun(loop)
        if self._group is not None:
            if not self._has_forked:
                self._has_forked = True
                self._share_weights(loop, self._group)
                fork_random_streams(self._group.rank)
            self._agree(loop, self._group)
        return result

    # -- epochs -----------------------------------------------------------------------------

    @hookimpl(wrapper=True, tryfirst=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Share out the data of an epoch, until it ends."""
        if self._group is None:
            return (yield)
        outer = self._n_passes, self._has_news
        self._n_passes, self._has_news = 0, False
        try:
            with self._share.of_epoch():
                self._votes.reset()
                if loop.is_predicting:  # in which on_epoch_begin and on_epoch_end do not fire
                    self._share.apply(loop)
                    self._begin_epoch(loop)
                with explaining_failures("an epoch"):  # of what components do by themselves
                    result = yield
                if loop.is_predicting:
                    self._votes.finish(loop)
                return result
        finally:
            self._n_passes, self._has_news = outer
            self._end_epoch(loop)

    @hookimpl(specname="around_epoch", wrapper=True, trylast=True)  # innermost
    def around_passes(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Leave the model as it was before others restore weights, also where an epoch is left."""
        try:
            return (yield)
        finally:
            self._end_passes()

    @hookimpl(trylast=True)  # `loop.data` are then what the epoch iterates over
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Share out the data; in evaluation, give all processes the buffers of the main one.

        Raises:
            ArgumentError: it is not known how processes share these data.
        """
        if self._group is None:
            return
        self._share.apply(loop)
        self._begin_epoch(loop)
        self._has_buffers = any(True for _ in loop.model.buffers())  # looking for them takes time
        if not loop.is_training:
            self._group.broadcast_tensors([*loop.model.buffers()])

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: weights are still those of the evaluation
    def on_epoch_end(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Check that all agree on batches that made no step; in evaluation, wait for others."""
        if self._group is not None and loop.is_training:
            if self._step_weights.n_pending:
                self._check_pending(loop)
        elif self._group is not None:
            self._end_evaluation(loop)
            self._votes.finish(loop)
        return (yield)

    # -- batches ----------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Let a batch that belongs to other processes count nothing; vote, in evaluation."""
        if self._group is None:
            return
        self._n_passes = 0
        if not loop.is_training:
            self._votes.vote(loop, loop.batch_num)
        elif self._share.is_padding(loop.batch_num):
            loop.batch_size = 0

    @hookimpl(wrapper=True, tryfirst=True)
    def on_forward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Let the forward pass take part in the synchronization of gradients, in training."""
        if self._group is None:
            return (yield)
        if not loop.is_training:
            self._begin_evaluation_pass()
            with explaining_failures("the forward pass"):
                return (yield)
        self._begin_forward_pass(loop)
        is_complete = False
        try:
            with explaining_failures("the forward pass"):
                result = yield
            is_complete = True
        finally:
            self._end_forward_pass(loop, is_complete=is_complete)
        self._n_passes += 1
        self._is_first_pass = self._n_passes == 1
        if self._is_first_pass and self._share.is_padding(loop.batch_num):
            loop.batch_size = loop.batch_size * 0  # on a device where it is there in the others
        return result

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: the loss is complete
    def on_loss_compute(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Weight the loss that recompute() returns as on_backward_pass weights the first one."""
        result = yield
        if self._group is not None and self._n_passes > 1 and loop.is_training:
            weights = self._weights.get(id(loop.batch))
            if weights is not None:  # else it is the batch of an earlier run
                loop.loss = self._weighted(loop, *weights)
        return result

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: others see the weight of all processes
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Weight the loss of this process, so that the mean of gradients is that of all samples.

        Raises:
            GroupError: another process has failed, or is in another batch.
        """
        if self._group is None or not self._n_passes:
            return (yield)
        carrier = self._begin_backward_pass(loop)
        if not self._is_first_pass:  # components may call this point again
            if carrier is not None:
                torch.autograd.backward(carrier, torch.zeros_like(carrier))
            return (yield)
        self._is_first_pass = False
        weight, loss = loop.batch_size, loop.loss
        # what is pending at the end of data without a length goes into states, so has to be right
        is_final = loop.n_batches is not None
        n_samples = self._share.n_samples(loop.batch_num) if is_final else None
        total = self._step_weights.take(weight, n_samples)
        if self._has_stepped:
            self._weights.clear()
        self._weights[id(loop.batch)] = weight, total
        loop.loss = self._weighted(loop, weight, total)
        loop.batch_size = total
        if loop.is_stepping or carrier is not None:
            self._step_weights.send(loop, carrier)
        try:
            with explaining_failures("the backward pass"):
                result = yield
        finally:
            loop.loss, loop.batch_size = loss, weight
        self._has_stepped = loop.is_stepping
        if loop.is_stepping and self._has_buffers:
            self._group.broadcast_tensors([*loop.model.buffers()])
        return result

    @hookimpl(specname="on_backward_pass", trylast=True)  # innermost: others see whole gradients
    def on_gradients(self, loop: TrainTestLoop) -> None:
        """Complete the gradients of a step, and correct them where weights were other ones."""
        if self._group is None:
            return
        if loop.is_stepping:
            self._complete_gradients(loop)
        outcome = self._step_weights.settle(loop)
        if outcome is None:  # components may call this point again
            return
        factor, self._has_news = outcome
        if factor == 1:
            return
        if factor is None:  # as in one process with `grad-accumulation`
            loop.is_stepping = False
            for parameter in optimizer_parameters(loop):
                parameter.grad = None
            return
        gradients = [each.grad for each in optimizer_parameters(loop) if each.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, factor)
        self._weights = {key: (own, all_ / factor) for key, (own, all_) in self._weights.items()}

    def _check_pending(self, loop: TrainTestLoop) -> None:
        """Check that no process has made a step of batches for which the next step is to wait."""
        carrier = self._begin_empty_pass()
        self._step_weights.send(loop, carrier)
        if carrier is not None:
            with explaining_failures("ending an epoch"):
                self._nothing(loop).backward()  # type: ignore[no-untyped-call]
        self._step_weights.settle(loop)

    def _weighted(self, loop: TrainTestLoop, weight: Any, total: Any) -> torch.Tensor:
        """Return the loss of this process, so that the mean of all is that of all samples."""
        assert self._group is not None
        loss: torch.Tensor = loop.loss
        if isinstance(total, torch.Tensor):
            share = torch.where(total == 0, 0.0, weight * self._group.size / total)
            return loss * share.to(loss.dtype)
        if float(weight) == 0:
            return self._nothing(loop)
        factor = float(weight) * self._group.size / total
        return loss if factor == 1 else loss * factor

    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Wait less long for other processes from the first step on."""
        if not self._has_short_timeout and self._group is not None:
            self._has_short_timeout = True
            self._group.set_timeout(self.timeout)

    # -- safe points ------------------------------------------------------------------------

    @hookimpl(wrapper=True, tryfirst=True)
    def on_safe_point(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Tell what processes have announced; stop, where all have agreed to."""
        group = self._group
        if group is None:
            return (yield)
        in_epoch = loop.is_training
        if not in_epoch or self._has_news:  # both are the same in all processes
            self._has_news = False
            group.exchange()
        result = yield
        group.announced.clear()
        if in_epoch:
            self._stop_if_agreed(loop, group)
        else:
            self._agree(loop, group)
        return result

    def _agree(self, loop: TrainTestLoop, group: ProcessGroup) -> None:
        """Stop at once, where a process has asked for it."""
        group.exchange()
        self._stop_if_agreed(loop, group)

    def _stop_if_agreed(self, loop: TrainTestLoop, group: ProcessGroup) -> None:
        if group.agreed_cause is not None:
            loop.stop()
