"""Runs that are watched, and the same runs gone on with in new loops."""

from __future__ import annotations

import hashlib
import io
import random
from typing import NamedTuple

import numpy as np
import torch
from naive import NaiveState

from ttl_core import LoopComponent, hookimpl

PLAIN = [name for name in dir(LoopComponent) if name.startswith("on_")]
POINTS = [name for name in PLAIN if name not in ("on_log", "on_exception")]
IN_BATCH = {
    *("on_grads_reset", "on_batch_begin", "on_forward_pass", "on_loss_compute"),
    *("on_backward_pass", "on_optim_step", "on_batch_end"),
}


def seed_all(seed):
    """Seed what random numbers are drawn from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


# -- savers ---------------------------------------------------------------------------------


class Exact:
    """Save as the loop does."""

    @staticmethod
    def save(loop):
        return loop.state_dict(copy=False)

    @staticmethod
    def go_on(loop, state, script):
        loop.load_state_dict(state)
        script(loop)


class Naive:
    """Save as most scripts do, and train for as many of three epochs as are left."""

    @staticmethod
    def save(loop):
        naive = NaiveState()
        naive.on_safe_point(loop)
        return naive.states[0]

    @staticmethod
    def go_on(loop, state, script):
        loop.components.append(NaiveState(resume_from=state))
        loop.train(3 - state["epoch_num"])


def written(state):
    """Return a state as the bytes of a file."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def read(file):
    """Return the state that was written."""
    return torch.load(io.BytesIO(file), weights_only=True)


# -- what is watched ------------------------------------------------------------------------


class Saved(NamedTuple):
    """Hold the file, or the path, of a state, and how many entries the log had when it was made."""

    n: int
    file: object


class Watch(LoopComponent):
    """Log each hook with where it fires, each loss and what others log; keep states and ends.

    An entry of the log is the point, the phase, the numbers of the epoch and of the batch, the
    steps of this train() and of the loop, and what there is to see.

    Args:
        saver: what makes a state at each safe point; None to note what "checkpoint" saves instead.
        inside: whether states are made inside epochs too.

    Attributes:
        log: the entries.
        saved: the states.
        finals: the states that each train() ended with.
        ends: their bits.
    """

    name = "watch"

    def __init__(self, saver=Exact, inside=True):
        self.saver, self.inside = saver, inside
        self.log, self.saved, self.finals, self.ends = [], [], [], []
        for point in POINTS:
            setattr(self, point, self._look_at(point))

    def _look_at(self, point):
        def look(loop):
            self._note(point, loop)
            if point == "on_safe_point" and self.saver and (self.inside or not loop.is_training):
                self.saved.append(Saved(len(self.log), written(self.saver.save(loop))))
            if point == "on_train_end":
                self.finals.append(loop.state_dict(allow_unsafe=True))
                self.ends.append(bits(self.finals[-1]))

        return look

    def on_log(self, loop, metrics, level):
        values = {name: float(value).hex() for name, value in metrics.items()}
        self._note("on_log", loop, level, values)

    def on_exception(self, loop, exception):
        self.log.append(("on_exception", type(exception)))

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        self.log.append(("around_run",))
        try:
            return (yield)
        finally:
            self.log.append(("end of around_run",))

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        self._note("around_epoch", loop)
        try:
            return (yield)
        finally:
            self._note("end of around_epoch", loop)

    @hookimpl(optionalhook=True)
    def checkpoint_saved(self, loop, path):
        if self.saver is None:
            self.saved.append(Saved(len(self.log), path))

    def _note(self, point, loop, *seen):
        in_batch = point in IN_BATCH or (point == "on_safe_point" and loop.is_training)
        is_about_run = point in ("on_train_begin", "on_train_end")
        if point == "on_batch_end":
            seen = loop.loss.item().hex(), loop.is_training and loop.is_stepping
        phase = "" if is_about_run else loop.epoch_desc
        batch_num = loop.batch_num if in_batch else None
        steps = loop.optim_step_num, loop.global_step
        self.log.append((point, phase, loop.epoch_num, batch_num, *steps, *seen))


def bits(state):
    """Return what is in a state by path, in a form that is equal where all bits are.

    Left out are the surroundings of the run, and what says when to save and where to go on from.
    """
    components = {name: its for name, its in state["components"].items() if name != "checkpoint"}
    manifest = [record for record in state["manifest"] if record["name"] != "checkpoint"]
    own = {"environment": None, "components": components, "manifest": manifest}
    return dict(_leaves({**state, **own}, ""))


def _leaves(value, path):
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}/{key}")
    elif isinstance(value, list | tuple) and any(isinstance(v, dict | torch.Tensor) for v in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}/{i}")
    elif isinstance(value, torch.Tensor):
        data = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        yield path, (value.dtype, tuple(value.shape), hashlib.sha256(data).hexdigest())
    else:
        yield path, repr(value)


# -- running --------------------------------------------------------------------------------


def three_epochs(loop):
    """Be the script of most runs."""
    loop.train(3)


def watched(make_loop, script=three_epochs, seed=0):
    """Return the watch of a loop that was made and used by a script."""
    return _run(make_loop, script, seed)


def gone_on(make_loop, file, script=three_epochs, saver=Exact, is_saving=False):
    """Return the watch of a new loop, with other weights, that went on from a state."""

    def go_on(loop):
        if not is_saving:  # it takes longer than all else
            loop.components["watch"].saver = None
        saver.go_on(loop, read(file), script)

    return _run(make_loop, go_on, seed=99)


def _run(make_loop, run, seed):
    seed_all(seed)
    loop = make_loop()
    try:
        run(loop)
    finally:
        # their workers end at once then; collected with the loop, they would be waited for
        loop.train_data = loop.valid_data = None
        loop.data = ()
    return loop.components["watch"]


class Outcome(NamedTuple):
    """Hold what came of a run: its log, and the bits that each train() ended with."""

    log: list
    ends: list

    @property
    def model(self):
        """Return the bits of the model at the end."""
        return {path: its for path, its in self.ends[-1].items() if path.startswith("/model/")}


def outcome(watch):
    """Return what came of a run."""
    return Outcome(watch.log, watch.ends)


def rest_of(watch, n):
    """Return what is expected of a run that goes on from where another one had `n` entries."""
    log = watch.log
    begin = max(i for i, entry in enumerate(log[:n]) if entry[0] == "on_train_begin")
    first = log[begin - 1 : begin + 1]  # with around_run
    _, phase, epoch_num, batch_num, *steps = log[n - 1]
    if batch_num is not None:  # inside an epoch
        place = (phase, epoch_num, None, *steps)
        first += [("around_epoch", *place), ("on_epoch_begin", *place)]
    n_ends = sum(entry[0] == "on_train_end" for entry in log[n:])
    return Outcome(first + log[n:], watch.ends[-n_ends:])


def going_on(make_loop, script=three_epochs, *, saver=Exact, every=1):
    """Go on from the safe points of a run in new loops.

    Args:
        make_loop: makes a loop that is watched.
        script: takes the loop and trains it.
        saver: what has made the states.
        every: from every how many safe points to go on.

    Yields:
        What is expected, and what came of it, for each safe point.
    """
    whole = watched(make_loop, script)
    assert whole.saved
    for n, file in whole.saved[::every]:
        yield rest_of(whole, n), outcome(gone_on(make_loop, file, script, saver))


class Stream:
    """Be data without a length that know where they stand.

    Args:
        batches: the batches of an epoch.
    """

    def __init__(self, batches):
        self.batches = batches
        self.at = 0

    def __iter__(self):
        while self.at < len(self.batches):
            self.at += 1
            yield self.batches[self.at - 1]
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]
