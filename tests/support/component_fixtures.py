"""Fixtures that the tests of components in several packages share."""

import pytest
import torch
from recording import Recorder

from ttl_core import TrainTestLoop
from ttl_core.testing import ComponentConformance, Step


@pytest.fixture
def recorder():
    """Return the class of components that record what a function returns at one point."""
    return Recorder


@pytest.fixture
def make_loop():
    """Return a function that makes a loop of plain steps and the given components."""

    def make(*components, data=None, valid_data=None, step=None):
        return TrainTestLoop(
            ComponentConformance.make_model(),
            [step or Step(), *components],
            ComponentConformance.make_data(6) if data is None else data,
            valid_data,
        )

    return make


@pytest.fixture
def through_file(tmp_path):
    """Return a function that saves a state and loads it with weights_only=True."""

    def save_and_load(state):
        torch.save(state, tmp_path / "state.pt")
        return torch.load(tmp_path / "state.pt", weights_only=True)

    return save_and_load
