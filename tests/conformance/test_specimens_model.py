"""Bugs that leave something on a model, an optimizer or a loop, or write to them: all are found."""

import functools
import types

import pytest
import torch
from specimens import SPECIMENS, failure, found_by, kit_for, specimens_of

from ttl_core import LoopComponent, hookimpl


@found_by("leaves_the_model_as_it_was", "the number of hooks on module '0'")
class ForwardHook(LoopComponent):
    """It hooks a module in each run, and never removes the hook."""

    def on_train_begin(self, loop):
        loop.model[0].register_forward_hook(lambda *_: None)


@found_by("survives_an_exception", "the number of hooks on module '0'")
class ForwardHookAfterFailure(LoopComponent):
    """It removes its hook in on_train_end only."""

    def on_train_begin(self, loop):
        self.handle = loop.model[0].register_forward_hook(lambda *_: None)

    def on_train_end(self, loop):
        self.handle.remove()


@found_by("leaves_the_model_as_it_was", "the number of hooks on parameter 0.weight")
class GradientHook(LoopComponent):
    """It hooks the gradients of parameters."""

    def on_train_begin(self, loop):
        for parameter in loop.model.parameters():
            parameter.register_hook(lambda gradient: gradient)


@found_by("leaves_the_model_as_it_was", "the number of hooks on parameter 0.weight")
class AccumulateHook(LoopComponent):
    """It hooks the accumulation of gradients."""

    def on_train_begin(self, loop):
        for parameter in loop.model.parameters():
            parameter.register_post_accumulate_grad_hook(lambda parameter: None)


@found_by("leaves_the_model_as_it_was", "requires_grad of parameter 0.weight was True and is False")
class FreezeForGood(LoopComponent):
    """It freezes parameters and never thaws them."""

    def on_train_begin(self, loop):
        loop.model[0].weight.requires_grad_(False)


@found_by("leaves_the_model_as_it_was", "the attributes of the model was")
class PatchForward(LoopComponent):
    """It replaces the forward of the model, in each run anew."""

    def on_train_begin(self, loop):
        forward = loop.model.forward
        loop.model.forward = lambda *inputs: forward(*inputs)


@found_by("leaves_the_model_as_it_was", "the type of buffer n_seen")
class AddBuffer(LoopComponent):
    """It adds a buffer to the model, which then is in its state."""

    def on_train_begin(self, loop):
        loop.model.register_buffer("n_seen", torch.zeros(()))


@found_by("leaves_the_model_as_it_was", "requires_grad of parameter temperature was missing")
class AddParameter(LoopComponent):
    """It adds a parameter to the model."""

    def on_train_begin(self, loop):
        loop.model.register_parameter("temperature", torch.nn.Parameter(torch.ones(())))


@found_by("leaves_the_model_as_it_was", "the identity of parameter 0.weight was")
class ExchangeParameter(LoopComponent):
    """It replaces a parameter by one that the optimizer does not know."""

    def on_train_begin(self, loop):
        loop.model[0].weight = torch.nn.Parameter(loop.model[0].weight.detach().clone())


@found_by("leaves_the_model_as_it_was", "the class of module '0' was")
class WrapModule(LoopComponent):
    """It wraps a layer in a module of its own, for good."""

    def on_train_begin(self, loop):
        loop.model[0] = torch.nn.Sequential(loop.model[0])


@found_by("leaves_modes_alone", "the training mode of module '1' was True and is False")
class EvalMode(LoopComponent):
    """It keeps batch norm in evaluation mode while training."""

    def on_batch_begin(self, loop):
        loop.model[1].eval()


@found_by("leaves_optimizers_as_they_were", "step of optimizer 0 (SGD) is")
class PatchStep(LoopComponent):
    """It replaces the step of the optimizer."""

    def on_train_begin(self, loop):
        optimizer, step = loop.optimizer, loop.optimizer.step

        @functools.wraps(step)
        def patched(self, *arguments):
            return step(*arguments)

        optimizer.step = types.MethodType(patched, optimizer)


@found_by("leaves_optimizers_as_they_were", "the number of hooks on optimizer 0 (SGD)")
class OptimizerHook(LoopComponent):
    """It hooks the steps of the optimizer, and leaves the hook there."""

    def on_train_begin(self, loop):
        loop.optimizer.register_step_post_hook(lambda *_: None)


@found_by("leaves_optimizers_as_they_were", "'nesterov' of group 0 of optimizer 0 (SGD) is True")
class OptimizerSetting(LoopComponent):
    """It changes a setting of the optimizer that it does not own."""

    def on_epoch_end(self, loop):
        loop.optimizer.param_groups[0]["nesterov"] = True


@found_by("writes_only_what_is_its_own", "'lr' of group 0 was")
class LearningRate(LoopComponent):
    """It halves the learning rate, which belongs to the scheduler."""

    def on_batch_end(self, loop):
        if loop.is_training:
            loop.optimizer.param_groups[0]["lr"] /= 2


@found_by("writes_only_what_is_its_own", "on_safe_point, in train epoch 0, batch 0: parameter")
class WriteAtSafePoint(LoopComponent):
    """It clips weights at the safe point, when others have saved them already."""

    def on_safe_point(self, loop):
        with torch.no_grad():
            for parameter in loop.model.parameters():
                parameter.clamp_(-0.05, 0.05)


@found_by("writes_only_what_is_its_own", "parameter 0.weight was")
class WriteInLog(LoopComponent):
    """It decays weights whenever something is logged."""

    def on_log(self, loop, metrics, level):
        loop.model[0].weight.data.mul_(0.99)


@found_by("writes_only_what_is_its_own", "on_epoch_end")
class WriteAtEpochEnd(LoopComponent):
    """It adds noise to weights at the end of an epoch."""

    def on_epoch_end(self, loop):
        noise = torch.Generator().manual_seed(5)
        loop.model[2].bias.data += torch.rand(2, generator=noise)


@found_by("writes_only_what_is_its_own", "buffer 1.running_mean was")
class ResetStatistics(LoopComponent):
    """It resets the statistics of batch norm before validation."""

    def on_epoch_begin(self, loop):
        if loop.is_validating:
            loop.model[1].reset_running_stats()


@found_by("writes_only_what_is_its_own", "the gradient of 0.weight was")
class ClearGradients(LoopComponent):
    """It clears gradients at the beginning of a batch, also while they accumulate."""

    def on_batch_begin(self, loop):
        loop.model.zero_grad()


@found_by("lets_gradients_accumulate", "its gradients were lost")
class ClearBeforeBackward(LoopComponent):
    """It clears gradients right before the backward pass, also while they accumulate."""

    @hookimpl(wrapper=True)
    def on_backward_pass(self, loop):
        loop.model.zero_grad()
        return (yield)


@found_by("writes_only_what_is_its_own", "loop.loss was")
class ScaledLoss(LoopComponent):
    """It scales the loss for the backward pass, and leaves it so."""

    @hookimpl(wrapper=True)
    def on_backward_pass(self, loop):
        loop.loss = loop.loss * 1024
        result = yield
        for parameter in loop.model.parameters():
            parameter.grad /= 1024
        return result


@found_by("writes_only_what_is_its_own", "loop.epoch_num was 0 and is 1")
class WriteCounter(LoopComponent):
    """It counts epochs itself."""

    def on_epoch_end(self, loop):
        if loop.is_training:
            loop.epoch_num += 1


@found_by("writes_only_what_is_its_own", "loop.loss_func was")
class ExchangeLoss(LoopComponent):
    """It replaces the loss function that another component has set."""

    def on_epoch_begin(self, loop):
        loss_func = loop.loss_func
        loop.loss_func = lambda *arguments: 2 * loss_func(*arguments)


@found_by("leaves_the_model_as_it_was", "the replaced methods of the loop was")
class PatchLoop(LoopComponent):
    """It replaces a method of the loop."""

    def on_train_begin(self, loop):
        log = loop.log
        loop.log = lambda metrics, level="batch": log(metrics, level)


@found_by("leaves_the_model_as_it_was", "the components was step, adds-component and is")
class AddsComponent(LoopComponent):
    """It adds a helper to the list in each run."""

    def on_train_begin(self, loop):
        loop.components.append(LoopComponent())


@found_by("takes_another_model", "'train/weight-norm' as logged in train epoch 1, batch 0 is")
class StaleParameters(LoopComponent):
    """It keeps the parameters of the first model that it sees."""

    parameters = None

    def on_train_begin(self, loop):
        if self.parameters is None:
            self.parameters = list(loop.model.parameters())

    def on_batch_end(self, loop):
        if loop.is_training:
            loop.log({"weight-norm": torch.stack([p.norm() for p in self.parameters]).norm()})


@found_by("takes_another_model", "'train/probe' as logged in train epoch 1, batch 2 is")
class StaleModel(LoopComponent):
    """It keeps the first model that it sees, and predicts with it."""

    model = None

    def on_epoch_begin(self, loop):
        self.model = self.model or loop.model

    def on_epoch_end(self, loop):
        loop.log({"probe": self.model(torch.ones(2, 4)).mean()}, level="epoch")


@found_by("finds_others_by_what_they_are", "the run is UnknownNameError: ")
class FindsByName(LoopComponent):
    """It looks for another component by a name that the user may change."""

    def on_train_begin(self, loop):
        self.other = loop.components["step"]


@found_by("treats_all_parameter_groups_alike", "it treats groups of parameters differently")
class FirstGroupOnly(LoopComponent):
    """It warms up the learning rate of the first group of parameters."""

    writes = ("optimizer",)

    def on_batch_begin(self, loop):
        if loop.is_training:
            loop.optimizer.param_groups[0]["lr"] = 0.01 * loop.global_step


@found_by("takes_another_model", "'train/lr' as logged in train epoch 1, batch 0 is 0.25")
class StaleOptimizer(LoopComponent):
    """It keeps the first optimizer that it sees."""

    optimizer = None

    def on_optim_step(self, loop):
        self.optimizer = self.optimizer or loop.optimizer
        loop.log({"lr": self.optimizer.param_groups[0]["lr"]})


@found_by("writes_only_what_is_its_own", "loop.metrics['train/own'] was there and is missing")
class DropsMetrics(LoopComponent):
    """It clears the metrics of all components."""

    def on_epoch_end(self, loop):
        loop.log({"own": 1}, level="epoch")

    def on_epoch_begin(self, loop):
        loop.metrics.clear()


@pytest.mark.parametrize("cls", specimens_of(__name__), ids=lambda cls: cls.__name__)
def test_finds(cls):
    """The check that is named finds the bug, and says so in words."""
    check, words = SPECIMENS[cls]
    assert words in failure(kit_for(cls), check)
