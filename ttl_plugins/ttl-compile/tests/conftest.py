"""Fixtures that the tests of this package share."""

import os

import pytest
import torch
from recording import Recorder

from ttl_core import TrainTestLoop
from ttl_core.testing import ComponentConformance, Step

# Models of tests are too small for vector instructions. To find out which ones the CPU has,
# torch.compile compiles programs; to compile in parallel, it starts processes with torch.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


class CountingBackend:
    """A backend that runs graphs as they are, and counts them and their calls."""

    def __init__(self):
        self.n_graphs = 0
        self.n_calls = 0

    def __call__(self, graph, inputs):
        self.n_graphs += 1

        def run(*arguments):
            self.n_calls += 1
            return graph.forward(*arguments)

        return run


@pytest.fixture
def backend():
    """Return a backend that counts."""
    torch.compiler.reset()
    return CountingBackend()


@pytest.fixture
def recorder():
    """Return the class of components that record what a function returns at one point."""
    return Recorder


@pytest.fixture
def make_loop():
    """Return a function that makes a loop of plain steps and the given components."""

    def make(*components, data=None, valid_data=None, step=None, model=None):
        return TrainTestLoop(
            model or ComponentConformance.make_model(),
            [step or Step(), *components],
            ComponentConformance.make_data(4) if data is None else data,
            valid_data,
        )

    return make
