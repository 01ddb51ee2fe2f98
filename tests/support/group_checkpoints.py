"""What several processes save, and what a run that resumes from it comes to."""

import time
import warnings

import torch
from group_data import Lines
from group_loops import accuracy, facts, make_loop, whole
from group_stops import Fail, Stop
from torch.utils.data import DataLoader

from ttl_core import LoopComponent, use


class Draws(LoopComponent):
    """Noise in the scores, from random numbers that each process has of its own."""

    def on_forward_pass(self, loop):
        if loop.is_training:
            loop.scores = loop.scores + 0.1 * torch.randn(loop.scores.shape)


class Pause(LoopComponent):
    """Batches that take some time."""

    def __init__(self, seconds):
        self.seconds = seconds

    def on_batch_begin(self, loop):
        if loop.is_training:
            time.sleep(self.seconds)


class OwnState(LoopComponent):
    """State that differs between processes."""

    def __init__(self):
        self.numbers = []

    def on_batch_end(self, loop):
        self.numbers.append(loop.group.rank)

    def state_dict(self):
        return {"numbers": self.numbers}

    def load_state_dict(self, state):
        self.numbers = list(state["numbers"])


def _halved_in_the_end(optimizer, n_steps):
    return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, n_steps)


def saved(directory, *, fail=None, stop=None, own=False, n_epochs=3, noise=True, **options):
    """Train with checkpoints, and return what came of it, and the error that ended it."""
    components = [Draws()] if noise else []
    components += [OwnState()] if own else []
    components += [Pause(options.pop("pause"))] if "pause" in options else []
    components += [accuracy()] if options.pop("metrics", True) else []
    is_rich = options.pop("rich", False)
    components += [use("checkpoint", directory=directory, **options)]
    components += [Fail(*fail)] if fail else []
    components += [Stop(*stop)] if stop else []
    if is_rich:  # all that has state which is shared out
        components.insert(0, use("ema", decay=0.3))
        rich = {"optimizer": torch.optim.Adam, "scheduler": _halved_in_the_end}
    else:
        rich = {}
    loop = make_loop(*components, n=19, **rich)
    error = None
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.train(n_epochs)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
        if torch.distributed.is_initialized():
            loop.group.reset()
            loop.group.has_failed = False
    numbers = loop.components["own-state"].numbers if own else None
    optimizer = getattr(loop, "optimizer", None)  # None where the run could not begin
    return {
        **facts(loop),
        "error": error,
        "own": numbers,
        "optimizer": whole(optimizer.state_dict()["state"]) if optimizer else None,
        "averages": whole(dict(loop.components["ema"].state_dict())) if is_rich else None,
        "rate": optimizer.param_groups[0]["lr"] if optimizer else None,
        "draw": float(torch.rand(())),
        "warnings": [str(each.message) for each in caught],
    }


def saved_with(directory, options):
    """Call `saved` with options."""
    return saved(directory, **options)


class KeepPending(LoopComponent):
    """What is pending at the end of each epoch, in the state of the group."""

    def __init__(self):
        self.pending = []

    def on_safe_point(self, loop):
        if not loop.is_training:
            state = loop.state_dict(of_group=True)
            self.pending.append(state["components"]["grad-accumulation"].get("gradients", []))


def pending_of_a_stream():
    """Return the gradients that are pending between epochs of data without a length."""
    keep = KeepPending()
    loop = make_loop(use("grad-accumulation", every=3), keep, valid=False)
    lines = Lines()
    lines.set_rank(0, 1)
    loop.train_data = DataLoader(lines, 6 // loop.group.size)
    loop.train(4)
    pending = whole(keep.pending) if loop.group.is_main else None  # others have parts
    return {"pending": pending, **facts(loop)}


class ShardInOne(LoopComponent):
    """A state with a distributed tensor in one process only."""

    def __init__(self):
        self.parameter = None

    def on_train_begin(self, loop):
        self.parameter = next(loop.model.parameters()).detach()
        self.is_main = loop.group.is_main

    def state_dict(self):
        return {"tensor": self.parameter if self.is_main else None}

    def load_state_dict(self, state):
        """Keep nothing."""


def other_shards(directory):
    """Return the error of a checkpoint of it."""
    loop = make_loop(ShardInOne(), use("checkpoint", directory=directory), valid=False)
    try:
        loop.train(1)
    except Exception as error:
        loop.group.has_failed = False
        return f"{type(error).__name__}: {error}"
    return ""
