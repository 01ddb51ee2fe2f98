"""Loops that the tests of adapters share."""

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop
from ttl_core.testing import Step, tiny_data


class Train(Step):
    """Plain training steps without a scheduler, that log the mean loss of each epoch."""

    def __init__(self, lr=0.1):
        self.lr = lr

    def on_train_begin(self, loop):
        parameters = [p for p in loop.model.parameters() if p.requires_grad]
        loop.optimizer = torch.optim.SGD(parameters, lr=self.lr)
        loop.scheduler = None

    def on_epoch_begin(self, loop):
        super().on_epoch_begin(loop)
        self.losses = []

    def on_batch_end(self, loop):
        if not loop.is_predicting:
            self.losses.append(loop.loss.detach())

    def on_epoch_end(self, loop):
        loop.log({"loss": torch.stack(self.losses).mean()}, level="epoch")


class Network(torch.nn.Module):
    """A backbone and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, inputs):
        return self.head(self.backbone(inputs))


@pytest.fixture
def make_network():
    """Return a function that makes a network, the same each time."""

    def make():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            return Network()

    return make


@pytest.fixture
def make_loop(make_network):
    """Return a function that makes a loop of components that train, and others."""

    def make(*components, model=None, lr=0.1, n_train=4, n_valid=2, valid_data=None):
        valid_data = valid_data or (tiny_data(n_valid) if n_valid else None)
        model = make_network() if model is None else model
        return TrainTestLoop(model, [Train(lr), *components], tiny_data(n_train), valid_data)

    return make


class KeepStates(LoopComponent):
    """A state of the loop at each safe point."""

    def __init__(self):
        self.states = []

    def on_safe_point(self, loop):
        self.states.append(loop.state_dict())


@pytest.fixture
def keep():
    """Return a component that keeps a state of each safe point in its attribute `states`."""
    return KeepStates()
