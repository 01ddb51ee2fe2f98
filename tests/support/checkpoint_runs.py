"""Short training runs that save checkpoints, and what is in their directories afterwards."""

from pathlib import Path

import pytest
from ttl_checkpoint import Checkpoint
from ttl_checkpoint.reading import verify
from ttl_checkpoint.store import Store

from ttl_core import LoopComponent, TrainTestLoop, hookimpl
from ttl_core.testing import ComponentConformance, Step

N_BATCHES = 3  # of an epoch
FIRST, SECOND = "000001-epoch-1-step-3", "000002-epoch-2-step-6"
ENDS = [(1, 3), (2, 6)]  # epoch and step of the two


# -- runs -----------------------------------------------------------------------------------


def train(saver, n_epochs=2):
    """Train with a saver, and return the loop."""
    loop = TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), saver],
        ComponentConformance.make_data(N_BATCHES),
    )
    loop.train(n_epochs)
    return loop


def make_loop(directory, *others, data=None, valid_data=None, **config):
    """Return a loop with Checkpoint, and with other components before it."""
    checkpoint = Checkpoint(directory, **{"signals": False, **config})
    return TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), *others, checkpoint],
        ComponentConformance.make_data(N_BATCHES) if data is None else data,
        valid_data,
    )


def interrupt(directory, n_steps, *others, **config):
    """Train until the run is interrupted after a number of steps, as if by ctrl-C."""
    with pytest.raises(KeyboardInterrupt):
        make_loop(directory, *others, InterruptAfter(n_steps), **config).train(3)


def fail(directory, n_steps, error=ZeroDivisionError, **config):
    """Train until a component fails after a number of steps, and return the loop."""
    loop = make_loop(directory, FailAfter(n_steps, error), **config)
    with pytest.raises(error):
        loop.train(3)
    return loop


# -- components -----------------------------------------------------------------------------


class CallAt(LoopComponent):
    """A component that calls a function of the loop at one point."""

    def __init__(self, point, function):
        setattr(self, point, lambda loop: function(loop))


class LogValues(LoopComponent):
    """A component that logs one value after the other, at the ends of training epochs."""

    def __init__(self, *values, metric="cost"):
        self.values = values
        self.metric = metric

    def on_epoch_end(self, loop):
        if loop.is_training and self.values:
            value = self.values[loop.epoch_num % len(self.values)]
            loop.log({self.metric: value}, level="epoch")


class Announced(LoopComponent):
    """A record of the checkpoints that were announced; each has to be intact by then."""

    def __init__(self):
        self.paths = []

    @hookimpl
    def checkpoint_saved(self, loop, path):
        verify(path)
        self.paths.append(path)


class CountBatches(LoopComponent):
    """A counter of training batches."""

    n = 0

    def on_batch_end(self, loop):
        self.n += loop.is_training


class InterruptAfter(LoopComponent):
    """A component that interrupts training after a number of steps, as if by ctrl-C."""

    def __init__(self, n_steps):
        self.n_steps = n_steps

    def on_batch_begin(self, loop):
        if loop.is_training and loop.global_step == self.n_steps:
            raise KeyboardInterrupt


class FailAfter(LoopComponent):
    """A component that fails after a number of steps."""

    def __init__(self, n_steps, error=ZeroDivisionError):
        self.n_steps = n_steps
        self.error = error

    def on_backward_pass(self, loop):
        if loop.global_step == self.n_steps:
            raise self.error


# -- results --------------------------------------------------------------------------------


def weights(loop):
    """Return the weights of a loop as a list of numbers, bit for bit."""
    return [value.tolist() for value in loop.model.state_dict().values()]


def names_in(directory):
    """Return the names in a directory, in order, except of hidden files."""
    return sorted(path.name for path in Path(directory).iterdir() if path.name[0] != ".")


def manifests(directory):
    """Return the manifests of all checkpoints in a directory, in the order they were saved."""
    return [verify(path) for path in Store(directory).everything()]


def positions(directory):
    """Return epoch and step of the checkpoints in a directory, in the order they were saved."""
    return [(manifest["epoch"], manifest["step"]) for manifest in manifests(directory)]


def reasons(directory):
    """Return why the checkpoints in a directory were saved, in the order they were."""
    return [manifest["reason"] for manifest in manifests(directory)]


def newest(directory):
    """Return the path of the newest checkpoint."""
    return Store(directory).checkpoints()[0]
