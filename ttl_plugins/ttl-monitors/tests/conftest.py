"""What the tests of this package share."""

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop


class Step(LoopComponent):
    """Plain steps of SGD on the mean of what the model returns.

    Args:
        make: returns the optimizers of a model.
    """

    def __init__(self, make):
        self.make = make

    def on_train_begin(self, loop):
        loop.optimizers = self.make(loop.model)
        loop.optimizer = loop.optimizers[0]

    def on_grads_reset(self, loop):
        loop.model.zero_grad()

    def on_loss_compute(self, loop):
        loop.loss = loop.model(loop.batch).sum()

    def on_backward_pass(self, loop):
        loop.loss.backward()

    def on_optim_step(self, loop):
        for optimizer in loop.optimizers:
            optimizer.step()


class Logged(LoopComponent):
    """A recorder of what is logged, and at which step."""

    def __init__(self):
        self.seen = []

    def on_log(self, loop, metrics, level):
        assert level == "batch"
        assert loop.is_training
        self.seen.append((loop.global_step, metrics))

    def values(self, name):
        """Return the values of a name, by step."""
        name = f"train/{name}"
        return {step: float(metrics[name]) for step, metrics in self.seen if name in metrics}

    def names(self):
        """Return all names, without their prefix."""
        return {name.removeprefix("train/") for _, metrics in self.seen for name in metrics}


def sgd(model):
    """Return one optimizer."""
    return [torch.optim.SGD(model.parameters(), lr=0.1)]


@pytest.fixture
def run():
    """Return a function that trains with components for an epoch, and returns what was logged."""

    def train(*components, make=sgd, model=None, data=None, valid_data=None):
        logged = Logged()
        loop = TrainTestLoop(
            model or torch.nn.Linear(2, 1),
            [Step(make), *components, logged],
            [torch.ones(3, 2)] * 4 if data is None else data,
            valid_data,
        )
        loop.train(1)
        logged.loop = loop
        return logged

    return train
