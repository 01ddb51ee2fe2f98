"""Comparing an uninterrupted run with runs that resume from its states, hook by hook, bit by bit.

`compare_resumed` does all of it; the functions it is made of are there for special cases.
"""

from __future__ import annotations

import hashlib
import io
import random
from typing import NamedTuple

import numpy as np
import torch
from naive_savers import NaiveStateSaver

from ttl_core import LoopComponent, hookimpl

POINTS = [
    name
    for name in dir(LoopComponent)
    if name.startswith("on_") and name not in ("on_log", "on_exception")
]
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


class LoopState:
    """Saving and resuming by the state of the loop."""

    @staticmethod
    def save(loop):
        return loop.state_dict(copy=False)

    @staticmethod
    def resume(loop, state, script):
        loop.load_state_dict(state)
        script(loop)


class NaiveState:
    """Saving as most scripts do, and training for as many of three epochs as are left."""

    @staticmethod
    def save(loop):
        saver = NaiveStateSaver()
        saver.on_safe_point(loop)
        return saver.states[0]

    @staticmethod
    def resume(loop, state, script):
        loop.components.append(NaiveStateSaver(resume_from=state))
        loop.train(3 - state["epoch_num"])


def to_bytes(state):
    """Return a state as the content of a file."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def from_bytes(file):
    """Return the state that a file holds."""
    return torch.load(io.BytesIO(file), weights_only=True)


# -- recording a run ------------------------------------------------------------------------


class Saved(NamedTuple):
    """A state as bytes, or its path, and the number of entries in the log when it was saved."""

    n: int
    file: object


class RunLog(LoopComponent):
    """A log of each hook with its position, each loss and each metric; also a saver of states.

    An entry is the point, the phase, the numbers of the epoch and of the batch, the steps of this
    train() and of the loop, and what else can be observed.

    Args:
        saver: what saves a state at each safe point; None to record what "checkpoint" saves.
        inside: whether states are saved inside epochs too.

    Attributes:
        log: the entries.
        saved: the states.
        finals: the state at the end of each train().
        ends: their bits.
    """

    name = "run-log"

    def __init__(self, saver=LoopState, inside=True):
        self.saver, self.inside = saver, inside
        self.log, self.saved, self.finals, self.ends = [], [], [], []
        for point in POINTS:
            setattr(self, point, self._make_hook(point))

    def _make_hook(self, point):
        def hook(loop):
            self._record(point, loop)
            if point == "on_safe_point" and self.saver and (self.inside or not loop.is_training):
                self.saved.append(Saved(len(self.log), to_bytes(self.saver.save(loop))))
            if point == "on_train_end":
                self.finals.append(loop.state_dict(allow_unsafe=True))
                self.ends.append(bits(self.finals[-1]))

        return hook

    def on_log(self, loop, metrics, level):
        values = {name: float(value).hex() for name, value in metrics.items()}
        self._record("on_log", loop, level, values)

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
        self._record("around_epoch", loop)
        try:
            return (yield)
        finally:
            self._record("end of around_epoch", loop)

    @hookimpl(optionalhook=True)
    def checkpoint_saved(self, loop, path):
        if self.saver is None:
            self.saved.append(Saved(len(self.log), path))

    def _record(self, point, loop, *observed):
        in_batch = point in IN_BATCH or (point == "on_safe_point" and loop.is_training)
        is_about_run = point in ("on_train_begin", "on_train_end")
        if point == "on_batch_end":
            observed = loop.loss.item().hex(), loop.is_training and loop.is_stepping
        phase = "" if is_about_run else loop.epoch_desc
        batch_num = loop.batch_num if in_batch else None
        steps = loop.optim_step_num, loop.global_step
        self.log.append((point, phase, loop.epoch_num, batch_num, *steps, *observed))


def bits(state):
    """Return the content of a state by path, in a form that is equal only where all bits are.

    Left out are the environment of the run and the component "checkpoint".
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
    """Train for three epochs, as the scripts of most runs do."""
    loop.train(3)


def run(make_loop, script=three_epochs, seed=0):
    """Return the log of a run: of a new loop that a script has used."""
    return _run(make_loop, script, seed)


def resume(make_loop, file, script=three_epochs, saver=LoopState, is_saving=False):
    """Return the log of a new loop, with other weights, that has resumed from a state."""

    def resumed_script(loop):
        if not is_saving:  # which takes longer than everything else
            loop.components["run-log"].saver = None
        saver.resume(loop, from_bytes(file), script)

    return _run(make_loop, resumed_script, seed=99)


def _run(make_loop, script, seed):
    seed_all(seed)
    loop = make_loop()
    try:
        script(loop)
    finally:
        # workers end at once when their loader is released; together with the loop they end slowly
        loop.train_data = loop.valid_data = None
        loop.data = ()
    return loop.components["run-log"]


class Outcome(NamedTuple):
    """The outcome of a run: the entries of its log, and the bits at the end of each train()."""

    log: list
    ends: list

    @property
    def model(self):
        """Return the bits of the model at the end."""
        return {path: its for path, its in self.ends[-1].items() if path.startswith("/model/")}


def outcome(run_log):
    """Return the outcome of a run."""
    return Outcome(run_log.log, run_log.ends)


def rest_of(run_log, n):
    """Return the expected outcome of resuming where the log of another run had `n` entries."""
    log = run_log.log
    begin = max(i for i, entry in enumerate(log[:n]) if entry[0] == "on_train_begin")
    first = log[begin - 1 : begin + 1]  # with around_run
    _, phase, epoch_num, batch_num, *steps = log[n - 1]
    if batch_num is not None:  # inside an epoch
        position = (phase, epoch_num, None, *steps)
        first += [("around_epoch", *position), ("on_epoch_begin", *position)]
    n_ends = sum(entry[0] == "on_train_end" for entry in log[n:])
    return Outcome(first + log[n:], run_log.ends[-n_ends:])


def compare_resumed(make_loop, script=three_epochs, *, saver=LoopState, every=1):
    """Run a script, then resume from its safe points in new loops.

    Args:
        make_loop: makes a loop with a RunLog.
        script: takes the loop and trains it.
        saver: what saves and resumes.
        every: resume from each `every`-th safe point.

    Yields:
        The expected and the actual outcome, for each safe point.
    """
    full = run(make_loop, script)
    assert full.saved
    for n, file in full.saved[::every]:
        yield rest_of(full, n), outcome(resume(make_loop, file, script, saver))


class ResumableStream:
    """Data without a length that keep their own position.

    Args:
        batches: the batches of an epoch.
    """

    def __init__(self, batches):
        self.batches = batches
        self.position = 0

    def __iter__(self):
        while self.position < len(self.batches):
            self.position += 1
            yield self.batches[self.position - 1]
        self.position = 0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]
