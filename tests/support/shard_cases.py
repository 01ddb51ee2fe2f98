"""Checkpoints that several processes write together: cases for groups of test processes."""

import contextlib
import errno
import functools
import os
import signal
from pathlib import Path
from unittest import mock

import group_checkpoints
import group_loops
import torch
from kill_server import DISK_CALLS
from ttl_checkpoint import shard_files
from ttl_checkpoint.store import Store
from ttl_checkpoint.writer import Writer

from ttl_core import LoopComponent, local_part, map_nested, use
from ttl_core.shards import StoredTensor
from ttl_core.state import parts, ranks

RICH = {"every": 3, "noise": False, "metrics": False, "rich": True}
"""Options with all that has state which is shared out."""


def saved(directory, **options):
    """Return what a training with checkpoints comes to."""
    return group_checkpoints.saved(directory, **{**RICH, **options})


def saved_without_gathering(directory, options):
    """Return the same; a tensor that is put together while it saves or resumes is an error."""

    def refuse(*_):
        raise AssertionError("a whole tensor")

    read = StoredTensor.read

    def read_part(self, where=None):
        return read(self, where) if where is not None else refuse()

    with contextlib.ExitStack() as stack:
        for module in (parts, ranks):
            stack.enter_context(mock.patch.object(module, "whole_tensor", refuse))
        stack.enter_context(mock.patch.object(StoredTensor, "read", read_part))
        return saved(directory, **options)


# -- saving again what was loaded ------------------------------------------------------------


class SaveAgain(LoopComponent):
    """The state of a run that is over, in a checkpoint elsewhere."""

    def __init__(self, directory):
        self.directory = directory

    def on_train_end(self, loop):
        store = Store(self.directory)
        options = {"asynchronous": False, "keep": None, "mode": "min", "on_failure": "raise"}
        writer = Writer(store, on_written=lambda: None, **options)
        writer.open(loop)
        writer.save(loop, reason="end", run="again", best=None)
        writer.close()


def saved_again(source, target, options):
    """Resume a run that is over, save it elsewhere, and return what there is, whole."""
    again = SaveAgain(target)
    with mock.patch.object(group_checkpoints, "accuracy", return_value=again):
        return saved(source, **{**options, "metrics": True})


# -- failures --------------------------------------------------------------------------------


def failed(directory, how, options):
    """Return what a training comes to in which rank 1 does not write its file."""
    rank = int(os.environ["RANK"])
    with contextlib.ExitStack() as stack:
        if how == "another directory" and rank == 1:
            directory = Path(directory) / "another"
        elif how == "full" and rank == 1:
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            stack.enter_context(mock.patch.object(shard_files, "write_durably", side_effect=error))
        elif how == "stuck":
            stack.enter_context(mock.patch.object(shard_files, "_PATIENCE", 0.3))
            if rank == 1:
                nothing = mock.patch.object(shard_files, "write_atomically")
                stack.enter_context(nothing)
        return saved(directory, **options)


class Kill:
    """A kill of this process in its second checkpoint, at a call that changes the disk.

    Args:
        at: the number of the call; None for no kill.

    Attributes:
        n_calls: how many there were in that checkpoint.
    """

    def __init__(self, at):
        self.at = at
        self.n_begun = self.n_calls = 0

    def install(self):
        """Replace the functions of `os`."""
        begin = shard_files.GroupSave.__init__

        @functools.wraps(begin)
        def counted(*args):
            self.n_begun += 1
            begin(*args)

        shard_files.GroupSave.__init__ = counted
        for name in filter(functools.partial(hasattr, os), DISK_CALLS):
            setattr(os, name, functools.partial(self._call, getattr(os, name)))

    def _call(self, original, *args, **kwargs):
        if self.n_begun == 2:
            self.n_calls += 1
            if self.n_calls == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)


def killed(directory, victim, at, options):
    """Return what a run comes to of which one process is killed, if anything, and its calls."""
    kill = Kill(at if int(os.environ["RANK"]) == victim else None)
    kill.install()
    shard_files._PATIENCE_AFTER_FAILURE = 0.5  # the process is killed, and not slow
    facts = None
    with contextlib.suppress(RuntimeError):  # of tensors that are put together without the victim
        facts = saved(directory, **options)
    return facts, kill.n_calls


# -- other state -----------------------------------------------------------------------------


class Own:
    """A loop variable with a state that differs between processes."""

    def __init__(self, number):
        self.number = number

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


class SetOwn(LoopComponent):
    """The loop variable `own`, with the number of the process that has made it."""

    def on_train_begin(self, loop):
        loop.own = Own(loop.group.rank if loop.global_step == 0 else None)


def own_variable(directory, n_epochs):
    """Return the number in a variable after a run, and what the run has failed with."""
    loop = group_loops.make_loop(SetOwn(), use("checkpoint", directory=directory), valid=False)
    try:
        loop.train(n_epochs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return loop.own.number


class Poison(LoopComponent):
    """A number that is none, in the part of rank 1."""

    def on_epoch_end(self, loop):
        if loop.group.rank == 1:
            with torch.no_grad():
                local_part(next(loop.model.parameters())).fill_(torch.nan)


def poisoned(directory):
    """Train with it for an epoch."""
    group_loops.make_loop(Poison(), use("checkpoint", directory=directory), valid=False).train(1)


class Sums(LoopComponent):
    """A tensor that is the sum of those of processes, which have no slices of it."""

    def on_train_begin(self, loop):
        from torch.distributed.tensor import DTensor, Partial

        mesh = next(loop.model.parameters()).device_mesh
        self.tensor = DTensor.from_local(torch.ones(3), mesh, [Partial()], run_check=False)

    def state_dict(self):
        return {"tensor": self.tensor}

    def load_state_dict(self, state):
        """Keep nothing."""


def summed(directory):
    """Train with it for an epoch."""
    group_loops.make_loop(Sums(), use("checkpoint", directory=directory), valid=False).train(1)


def best_weights(directory):
    """Return the best weights of a directory of checkpoints, whole."""
    loop = group_loops.make_loop(use("ema", decay=0.6), use("checkpoint", directory=directory))
    with contextlib.suppress(Exception):
        loop.test(loop.valid_data)  # in which the model is shared out
    path = loop.components["checkpoint"].load_best(loop)
    averages = dict(loop.components["ema"].state_dict())
    return path.name, group_loops.whole([dict(loop.model.state_dict()), averages])


def bytes_of_parts(path):
    """Return the sizes of the files of processes in a checkpoint."""
    return {file.name: file.stat().st_size for file in sorted(Path(path).glob("rank-*.bin"))}


def n_numbers(state):
    """Return how many numbers the tensors of a nested value have."""
    total = 0

    def add(value):
        nonlocal total
        total += value.numel() if isinstance(value, torch.Tensor) else 0
        return value

    map_nested(add, state)
    return total
