"""The behaviour of `lr-warmup`."""

from functools import partial

import numpy
import pytest
import torch
from torch.optim import lr_scheduler
from ttl_optim import LrSchedule, LrWarmup
from ttl_optim.conformance import StepWithoutScheduler

from ttl_core import ArgumentError, LoopComponent
from ttl_core.testing import Step


class Stepping(Step):
    """Steps with any optimizer and scheduler that record the learning rates that were used."""

    def __init__(self, scheduler=None, per_epoch=False, optimizer=None):
        self.make_scheduler = scheduler
        self.make_optimizer = optimizer or partial(torch.optim.SGD, lr=1.0)
        self.per_epoch = per_epoch
        self.used = []

    def on_train_begin(self, loop):
        loop.optimizer = self.make_optimizer(loop.model.parameters())
        loop.optimizer.register_step_post_hook(
            lambda optimizer, *_: self.used.append(float(optimizer.param_groups[0]["lr"]))
        )
        loop.scheduler = self.make_scheduler and self.make_scheduler(loop.optimizer)

    def on_optim_step(self, loop):
        loop.optimizer.step()
        if loop.scheduler and not self.per_epoch:
            loop.scheduler.step(*self.arguments())

    def on_epoch_end(self, loop):
        if loop.is_training and loop.scheduler and self.per_epoch:
            loop.scheduler.step(*self.arguments())

    def arguments(self):
        is_plateau = self.make_scheduler is PLATEAU
        return [1.0] if is_plateau else []


PLATEAU = partial(lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5)
SCHEDULERS = {
    "none": None,
    "recursive": partial(lr_scheduler.StepLR, step_size=2, gamma=0.5),
    "exponential": partial(lr_scheduler.ExponentialLR, gamma=0.9),
    "cosine": partial(lr_scheduler.CosineAnnealingLR, T_max=12),
    "closed form": partial(lr_scheduler.LambdaLR, lr_lambda=lambda i: 1 / (i + 1)),
    "one cycle": partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=20),
    "plateau": PLATEAU,
}


@pytest.mark.parametrize("per_epoch", [False, True], ids=["per step", "per epoch"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_optimizer_sees_the_schedule_times_the_ramp(make_loop, name, per_epoch):
    """Around any scheduler the learning rates used are its own times (i + 1) / n, up to 1."""
    plain, warm = (Stepping(SCHEDULERS[name], per_epoch) for _ in range(2))
    make_loop(step=plain).train(2)
    make_loop(LrWarmup(4), step=warm).train(2)
    ramp = [min(1, (i + 1) / 4) for i in range(12)]
    assert [lr * factor for lr, factor in zip(plain.used, ramp, strict=True)] == warm.used


def test_no_other_component_sees_the_scaled_rate(make_loop, recorder):
    """Before and after the step the groups hold the scheduler's learning rate."""
    seen = recorder("on_batch_end", lambda loop: loop.optimizer.param_groups[0]["lr"])
    make_loop(LrWarmup(4), seen, step=Stepping()).train(1)
    assert [1.0] * 6 == seen.seen


def test_groups_keep_their_ratios(make_loop):
    """Every parameter group is scaled by the same factor."""

    def optimizer(parameters):
        first, *others = parameters
        return torch.optim.SGD([{"params": [first], "lr": 2.0}, {"params": others, "lr": 1.0}])

    used = []

    class Groups(Stepping):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.optimizer.register_step_post_hook(
                lambda optimizer, *_: used.append([g["lr"] for g in optimizer.param_groups])
            )

    make_loop(LrWarmup(6), step=Groups(optimizer=optimizer)).train(1)
    assert [[2 * (i + 1) / 6, (i + 1) / 6] for i in range(6)] == used


def test_a_learning_rate_that_is_a_tensor_stays_the_same_object(make_loop, recorder):
    """A rate that is a tensor, as capturable optimizers have, is scaled and restored too."""
    lr = torch.tensor(1.0)
    step = Stepping(optimizer=partial(torch.optim.SGD, lr=lr))
    seen = recorder("on_batch_end", lambda loop: loop.optimizer.param_groups[0]["lr"] is lr)
    make_loop(LrWarmup(4), seen, step=step).train(1)
    assert ([True] * 6, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]) == (seen.seen, step.used)
    assert 1.0 == float(lr)


def test_counts_the_steps_of_the_loop(make_loop):
    """A second train() continues where the first one ended, whose warning is the only one."""
    step = Stepping()
    loop = make_loop(LrWarmup(8), step=step)
    with pytest.warns(UserWarning, match="warms up for 8 .* has 6, "):
        loop.train(1)
    loop.train(1)
    assert [(i + 1) / 8 for i in range(8)] + [1.0] * 4 == step.used


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_learning_rates_are_restored_where_a_step_fails(make_loop, error):
    """A step that raises leaves neither a scaled learning rate nor a hook behind."""

    def fail(optimizer, *_):
        raise error

    class Fail(LoopComponent):
        def on_optim_step(self, loop):
            loop.optimizer.register_step_post_hook(fail)

    loop = make_loop(step=Stepping())
    loop.components[:] = [Fail(), *loop.components, LrWarmup(6)]
    with pytest.raises(error):
        loop.train(1)
    assert (1.0, 0) == (
        loop.optimizer.param_groups[0]["lr"],
        len(loop.optimizer._optimizer_step_pre_hooks),
    )


def test_disabled_in_mid_run_it_leaves_nothing_behind(make_loop):
    """After it was disabled, the optimizer sees the schedule as it is."""

    class Disable(LoopComponent):
        def on_safe_point(self, loop):
            loop.components.disable("lr-warmup")

    step = Stepping()
    make_loop(LrWarmup(4), Disable(), step=step).train(1)
    assert [0.25, 1.0, 1.0, 1.0, 1.0, 1.0] == step.used


@pytest.mark.parametrize("make", [LrWarmup, partial(LrSchedule, "constant")], ids=["", "schedule"])
def test_a_warmup_longer_than_the_run_is_said_once(make_loop, make):
    """With both numbers; one that is as long as the run is fine."""
    name = "warmup" if make is not LrWarmup else "n_steps"
    step = StepWithoutScheduler()
    make_loop(make(**{name: 6}), step=step).train(1)
    with pytest.warns(UserWarning, match=r"warms up for 7 .* has 6, ") as caught:
        make_loop(make(**{name: 7}), step=step).train(1)
    assert 1 == len(caught)


@pytest.mark.parametrize("n_steps", [0, -1, 1.5, "3", True])
def test_refuses_an_unusable_number_of_steps(n_steps):
    """The error names the argument, its value, and what it has to be."""
    with pytest.raises(ArgumentError, match=r"n_steps is .*, but has to be a whole number from 1"):
        LrWarmup(n_steps)


def test_takes_a_number_of_numpy():
    """A NumPy integer is a whole number."""
    assert 3 == LrWarmup(numpy.int64(3)).n_steps
