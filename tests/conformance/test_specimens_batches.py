"""Bugs in what a component assumes of data, keeps, and costs: the kit finds each of them."""

import time

import pytest
import torch
from specimens import SPECIMENS, failure, found_by, kit_for, specimens_of

from ttl_core import LoopComponent, hookimpl


@found_by("takes_batches_of_any_form", "KeyError: 0")
class TupleOnly(LoopComponent):
    """It takes every batch for a tuple."""

    def on_batch_begin(self, loop):
        self.n = len(loop.batch[0])


@found_by("takes_batches_of_any_form", "KeyError")
class PhaseByName(LoopComponent):
    """It unpacks batches, and gets the keys of a mapping."""

    def on_batch_begin(self, loop):
        inputs, _ = loop.batch
        self.shape = {torch.Tensor: 1}[type(inputs)]


@found_by("takes_streams", "TypeError")
class NeedsLength(LoopComponent):
    """It computes how much of an epoch is done, of data without a length too."""

    def on_batch_end(self, loop):
        self.done = (loop.batch_num + 1) / loop.n_batches


@found_by("takes_streams", "object of type 'Stream' has no len()")
class AsksForLength(LoopComponent):
    """It asks the training data for their length."""

    def on_train_begin(self, loop):
        self.n = len(loop.train_data)


@found_by("trains_without_validation", "'NoneType' object is not iterable")
class NeedsValidation(LoopComponent):
    """It looks at the validation data when training begins."""

    def on_train_begin(self, loop):
        self.first = next(iter(loop.valid_data))


@found_by("validates_on_several_sets", "valid/loss")
class OneValidationSet(LoopComponent):
    """It expects that the validation loss is called valid/loss."""

    losses = 0

    def on_log(self, loop, metrics, level):
        if loop.is_validating:
            self.losses += metrics["valid/loss"].detach()


@found_by("takes_a_last_batch_that_is_smaller", "RuntimeError")
class SameSize(LoopComponent):
    """It adds up scores of batches that it expects to be of one size."""

    total = None

    def on_batch_end(self, loop):
        scores = loop.scores.detach()
        self.total = scores if self.total is None else self.total + scores


@found_by("weighs_batches_by_their_samples", "batches have to count by loop.batch_size")
class MeanOfMeans(LoopComponent):
    """It logs the mean of the means of batches, whatever their size."""

    def on_epoch_begin(self, loop):
        self.losses = []

    def on_batch_end(self, loop):
        if loop.is_testing:
            self.losses.append(loop.loss.detach())

    def on_epoch_end(self, loop):
        if loop.is_testing:
            loop.log({"loss": torch.stack(self.losses).mean()}, level="epoch")


@found_by("trains_without_a_scheduler", "'NoneType' object has no attribute 'get_last_lr'")
class NeedsScheduler(LoopComponent):
    """It asks the scheduler for the learning rate."""

    def on_optim_step(self, loop):
        loop.log({"lr": loop.scheduler.get_last_lr()[0]})


@found_by("trains_with_frozen_parameters", "'NoneType' object has no attribute 'norm'")
class NeedsGradients(LoopComponent):
    """It expects a gradient of every parameter."""

    def on_optim_step(self, loop):
        norms = [parameter.grad.norm() for parameter in loop.model.parameters()]
        loop.log({"grad-norm": torch.stack(norms).norm()})


@found_by("tests_alone", "has no attribute 'n_seen'")
class NeedsTraining(LoopComponent):
    """It sets up in on_train_begin what it uses in a test too."""

    def on_train_begin(self, loop):
        self.n_seen = 0

    def on_batch_end(self, loop):
        self.n_seen += 1


@found_by("predicts_alone", "loss")
class NeedsLoss(LoopComponent):
    """It reads the loss in every batch, also in prediction."""

    def on_batch_end(self, loop):
        self.newest = loop.loss.detach()


@found_by("trains_twice", "the run ended after 1 epochs, not after 2")
class OnlyOnce(LoopComponent):
    """It stops every run but the first."""

    n_runs = 0

    def on_train_begin(self, loop):
        self.n_runs += 1

    def on_safe_point(self, loop):
        if self.n_runs > 1:
            loop.stop()


@found_by("trains_twice", "ZeroDivisionError")
class SeveralSteps(LoopComponent):
    """It goes from 0 to 1 in a run, and divides by zero where that has one step."""

    def on_optim_step(self, loop):
        self.share = loop.optim_step_num / (loop.n_optim_steps - 1)


@found_by("is_validated_in_mid_epoch", "training is not the same")
class CountsAnew(LoopComponent):
    """It counts the batches of an epoch, and starts anew with each epoch of any phase."""

    def on_epoch_begin(self, loop):
        self.n_batches = 0

    def on_batch_end(self, loop):
        self.n_batches += 1
        if loop.is_training:
            loop.log({"n-batches": self.n_batches})


@found_by("leaves_the_batch_alone", "on_batch_begin, in train epoch 0, batch 0: loop.batch[0] was")
class NormalizeInPlace(LoopComponent):
    """It normalizes inputs in place, in each epoch once more."""

    def on_batch_begin(self, loop):
        loop.batch[0].div_(2)


@found_by("leaves_the_batch_alone", "loop.batch[1] was")
class ReplaceBatch(LoopComponent):
    """It smoothes labels, and says so to no one."""

    def on_batch_begin(self, loop):
        inputs, targets = loop.batch
        loop.batch = inputs, 1 - targets


@found_by(
    "leaves_logged_tensors_alone", "what was logged as 'train/loss' in train epoch 0, batch 0"
)
class WritesToLogged(LoopComponent):
    """It scales the loss in place, which is logged already."""

    def on_batch_end(self, loop):
        if not loop.is_predicting:
            loop.loss.detach().mul_(2)


@found_by("leaves_logged_tensors_alone", "what was logged as 'train/total'")
class LogsItsTotal(LoopComponent):
    """It logs a tensor to which it adds the next loss."""

    def __init__(self):
        self.total = torch.zeros(())

    def on_batch_end(self, loop):
        if loop.is_training:
            self.total += loop.loss.detach()
            loop.log({"total": self.total})


@found_by("keeps_no_graphs", "its attribute 'losses' holds a tensor with a graph")
class KeepsLosses(LoopComponent):
    """It keeps losses with all that they were computed from."""

    def on_epoch_begin(self, loop):
        self.losses = []

    def on_batch_end(self, loop):
        if loop.is_training:
            self.losses.append(loop.loss)


@found_by("keeps_no_graphs", "its attribute 'total' holds a tensor with a graph")
class AddsLosses(LoopComponent):
    """It adds up losses without detaching them."""

    def on_epoch_begin(self, loop):
        self.total = 0

    def on_loss_compute(self, loop):
        self.total = self.total + loop.loss


@found_by("does_not_wait_for_the_device", "item()")
class Item(LoopComponent):
    """It reads the loss in each batch by item()."""

    def on_batch_end(self, loop):
        if not loop.is_predicting:
            self.newest = loop.loss.item()


@found_by("does_not_wait_for_the_device", "__float__() in Float.on_log")
class Float(LoopComponent):
    """It converts what is logged to numbers at once."""

    def on_log(self, loop, metrics, level):
        self.newest = {name: float(value) for name, value in metrics.items()}


@found_by("does_not_wait_for_the_device", "__bool__()")
class Bool(LoopComponent):
    """It decides by the value of the loss in each batch."""

    def on_backward_pass(self, loop):
        if loop.loss > 100:
            loop.stop()


@found_by("does_not_wait_for_the_device", "__format__()")
class Print(LoopComponent):
    """It formats the loss in each batch."""

    def on_batch_end(self, loop):
        self.text = f"{loop.batch_num} {loop.scores.sum():.3f}"


@found_by("does_not_wait_for_the_device", "numpy()")
class Numpy(LoopComponent):
    """It copies scores to the host in each batch."""

    def on_batch_end(self, loop):
        self.newest = loop.scores.detach().numpy()


@found_by("does_not_wait_for_the_device", "aten::index in Mask.on_batch_end")
class Mask(LoopComponent):
    """It selects scores by a mask, whose number the host has to know."""

    def on_batch_end(self, loop):
        scores = loop.scores.detach()
        self.positive = scores[scores > 0]


@found_by("does_not_wait_for_the_device", "item() in AtSafePoint.on_safe_point")
class AtSafePoint(LoopComponent):
    """It reads the loss after each step, at the safe point."""

    def on_safe_point(self, loop):
        self.newest = loop.loss.item()


@found_by("costs_at_most_what_it_states", "its hooks take")
class Slow(LoopComponent):
    """It sleeps in each batch."""

    def on_batch_end(self, loop):
        time.sleep(0.008)


@found_by("order_among_others_does_not_matter", "its place among unrelated components matters")
class ReadsAtEpochEnd(LoopComponent):
    """It reads a metric at the end of an epoch, which another component may log later."""

    def on_epoch_end(self, loop):
        known = [value for name, value in loop.metrics.items() if "mean" in name]
        loop.log({"n-known": len(known)}, level="epoch")


@found_by("order_among_others_does_not_matter", "its place among unrelated components matters")
class IsLast(LoopComponent):
    """It works only as the last one of the list."""

    def on_optim_step(self, loop):
        if loop.components[-1] is self:
            for parameter in loop.model.parameters():
                parameter.data.mul_(0.9)


@found_by("leaves_logged_tensors_alone", "'train/loss' was removed for all after it")
class RemovesLogged(LoopComponent):
    """It takes the loss out of what all others receive."""

    def on_log(self, loop, metrics):
        metrics.pop("train/loss", None)


@found_by("does_not_grow", "its attribute '_inputs' keeps more values after each training batch")
class KeepsBatches(LoopComponent):
    """It keeps the batches of all epochs."""

    def __init__(self):
        self._inputs = []

    def on_batch_end(self, loop):
        if loop.is_training:
            self._inputs.append(loop.batch)


@found_by("does_not_grow", "its attribute 'losses' keeps more values after each training batch")
class KeepsNumbers(LoopComponent):
    """It keeps a number of each batch."""

    def __init__(self):
        self.losses = []

    def on_batch_end(self, loop):
        if loop.is_training:
            self.losses.append(loop.batch_num / 2)


@found_by("passes_results_on", "on_forward_pass, in train epoch 0, batch 0: it returned None")
class DropsResults(LoopComponent):
    """Its wrapper yields, and does not return what it received."""

    @hookimpl(wrapper=True)
    def on_forward_pass(self, loop):
        self.n = loop.batch_num
        yield


@found_by("writes_only_what_is_its_own", "on_backward_pass, in train epoch 0, batch 0: loop.loss")
class LeavesScaledLoss(LoopComponent):
    """It scales the loss and leaves it so, which what it declares does not cover."""

    writes = ("loss", "gradients")

    @hookimpl(wrapper=True)
    def on_backward_pass(self, loop):
        loop.loss = loop.loss * 8
        result = yield
        for parameter in loop.model.parameters():
            parameter.grad /= 8
        return result


@found_by("leaves_rates_while_gradients_accumulate", "'lr' of group 0 of optimizer 0 was")
class CountsBatches(LoopComponent):
    """It warms up by batches, also where several make a step."""

    n = 0

    def on_backward_pass(self, loop):
        self.n += 1
        for group in loop.optimizer.param_groups:
            group["lr"] = 0.01 * self.n


@found_by("leaves_rates_while_gradients_accumulate", "'n_steps' grows with each batch: [1, 2, 3")
class CallsBatchesSteps(LoopComponent):
    """It counts batches, and means steps."""

    n_steps = 0

    def on_batch_end(self, loop):
        if loop.is_training:
            self.n_steps += 1


@found_by("leaves_rates_while_gradients_accumulate", "the parameter 0.weight was")
class DecaysByBatches(LoopComponent):
    """It decays weights with each batch, also where several make a step."""

    writes = ("weights",)

    def on_batch_end(self, loop):
        if loop.is_training:
            loop.model[0].weight.data.mul_(0.9)


@pytest.mark.parametrize("cls", specimens_of(__name__), ids=lambda cls: cls.__name__)
def test_finds(cls):
    """The check that is named finds the bug, and says so in words."""
    check, words = SPECIMENS[cls]
    kit = kit_for(cls, writes=getattr(cls, "writes", ()))
    assert words in failure(kit, check)
