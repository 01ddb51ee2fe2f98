"""The behaviour of `lr-monitor`."""

import pytest
import torch
from loops import make_component
from ttl_monitors import LrMonitor

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, use

SGD = torch.optim.SGD


@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_the_rate_that_the_step_uses_is_logged(run, place):
    """Also during a warm-up, which other components do not see, at any place in the list."""
    components = [use("lr-warmup", n_steps=4)]
    components.insert(place, LrMonitor())
    values = run(*components, data=[torch.ones(1, 2)] * 5).values("lr")
    assert pytest.approx({0: 0.025, 1: 0.05, 2: 0.075, 3: 0.1, 4: 0.1}) == values


def test_groups_and_optimizers_are_told_apart(run):
    """By their numbers, or by the name that a group has."""

    def make(model):
        groups = [{"params": [model.weight], "name": "weights"}, {"params": [model.bias], "lr": 2}]
        return [SGD(groups, lr=1), SGD([torch.nn.Parameter(torch.ones(1))], lr=3)]

    logged = run(LrMonitor(), make=make, data=[torch.ones(1, 2)])
    assert [(0, {"train/lr/0/weights": 1, "train/lr/0/1": 2, "train/lr/1/0": 3})] == logged.seen


def test_each_so_many_steps(run):
    """The others log nothing."""
    assert [0, 3] == list(run(LrMonitor(every=3)).values("lr"))


def test_a_step_that_is_skipped_logs_nothing():
    """No learning rate was used, as where gradients have overflowed."""
    parameter, logged = torch.nn.Parameter(torch.ones(1)), []
    prepare = make_component(
        on_train_begin=lambda loop: setattr(loop, "optimizers", [SGD([parameter], lr=1)]),
        on_log=lambda metrics: logged.append(metrics),
    )
    TrainTestLoop(torch.nn.Identity(), [prepare, LrMonitor()], [0, 1]).train(1)
    assert [] == logged


def test_a_rate_that_is_a_tensor_is_copied(run):
    """Schedulers write to it, and what is logged is read later."""
    rate = torch.tensor(0.5)

    class Halve(LoopComponent):
        def on_batch_end(self, loop):
            rate.mul_(0.5)

    logged = run(LrMonitor(), Halve(), make=lambda model: [SGD(model.parameters(), lr=rate)])
    assert {0: 0.5, 1: 0.25, 2: 0.125, 3: 0.0625} == logged.values("lr")


def test_optimizers_are_left_without_hooks(run):
    """Nothing is called when a step is made outside of the loop."""
    (optimizer,) = run(LrMonitor()).loop.optimizers
    assert not optimizer._optimizer_step_pre_hooks


def test_unusable_arguments_are_refused():
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match="every is 0, but has to be a whole number from 1"):
        LrMonitor(every=0)
