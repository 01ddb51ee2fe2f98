"""The runs to which test_signals.py sends signals, each a process of its own.

As a program this imports torch once, and forks a process for each run that it is told to do. It
reads lines of JSON from its standard input, {"run": ..., **arguments}, and writes what happens to
its standard output, as the runs do.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback

import torch
from naive import NaiveFile
from torch.utils.data import DataLoader, TensorDataset
from ttl_checkpoint import Checkpoint

from ttl_core import LoopComponent, SeededSampler, TrainTestLoop, hookimpl
from ttl_core.testing import Step

N_EPOCHS, N_BATCHES, BATCH_SIZE = 3, 4, 4
N_VALID_BATCHES = 8  # more than workers fetch ahead, so that nobody misses one that has died


def say(*words):
    """Write a line of words at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def read_line():
    """Return a line of the standard input, and read no further."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return None
        line += byte
    return line.decode().strip()


def wait_here(*words):
    """Say a line, and wait for one."""
    say(*words)
    read_line()


def sleep_long():
    """Sleep for a minute, or until a signal comes, which just before one long sleep would wait."""
    for _ in range(6000):
        time.sleep(0.01)


# -- what is in the runs --------------------------------------------------------------------


class Tell(LoopComponent):
    """Say what the loop comes to, as far as signals matter."""

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        try:
            return (yield)
        finally:
            say("run is left")

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        try:
            return (yield)
        finally:
            if sys.exc_info()[0]:
                say("epoch is left")

    def on_safe_point(self, loop):
        say("safe", loop.global_step, loop.epoch_desc)

    @hookimpl(optionalhook=True)
    def checkpoint_saved(self, loop, path):
        say("saved", path.name)

    def on_train_end(self, loop):
        say("train ends")

    def on_exception(self, loop, exception):
        say("exception", type(exception).__name__)


class Moment(LoopComponent):
    """Wait, at one point of one batch, while signals are sent.

    Args:
        point: the name of the callback point.
        step: the number of the optimization step.
        desc: "train" or "valid".
        batch: the number of the batch from which on to look.
        sleeps: whether to sleep then, for so long that only a signal can end it.
    """

    def __init__(self, point, step, desc="train", batch=0, sleeps=False):
        self.is_over = False

        @hookimpl(optionalhook=True)
        def wait(loop):
            is_there = (step, desc) == (loop.global_step, loop.epoch_desc)
            if is_there and not self.is_over and vars(loop).get("batch_num", 0) >= batch:
                self.is_over = True
                wait_here("here")
                if sleeps:
                    say("asleep")
                    sleep_long()

        setattr(self, point, wait)


class FlagFile(NaiveFile):
    """Save as NaiveFile, and when SIGTERM came, as scripts do it that handle it themselves."""

    received = False

    def on_train_begin(self, loop):
        signal.signal(signal.SIGTERM, self.note)

    def note(self, number, frame):
        self.received = True

    def on_safe_point(self, loop):
        if self.received:
            torch.save(loop.state_dict(copy=False), self.path)
            sys.exit(143)
        super().on_safe_point(loop)


class At(LoopComponent):
    """Do something at one point, once."""

    def __init__(self, point, act):
        self.is_done = False

        def once(loop):
            if not self.is_done:
                self.is_done = True
                act(loop)

        setattr(self, point, once)


def make_loader(n_batches, *, shuffle=None, n_workers=0, context=None, **others):
    """Return a loader of the same samples each time, in an order that a seed decides or not."""
    generator = torch.Generator().manual_seed(1)
    n = n_batches * BATCH_SIZE
    dataset = TensorDataset(
        torch.randn(n, 4, generator=generator), torch.randint(0, 2, (n,), generator=generator)
    )
    order = {"shuffle": shuffle} if shuffle is not None else {"sampler": SeededSampler(dataset)}
    return DataLoader(
        dataset,
        BATCH_SIZE,
        num_workers=n_workers,
        multiprocessing_context=context if n_workers else None,
        **order,
        **others,
    )


def make_loop(*components, n_workers=0, context="fork", shuffle=None):
    """Return a loop whose bits depend on random numbers, on the order of data, and on momentum."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)
    )
    train_data = make_loader(N_BATCHES, shuffle=shuffle, n_workers=n_workers, context=context)
    valid_data = None
    if context == "fork":  # the others take seconds to start
        valid_data = make_loader(
            N_VALID_BATCHES, shuffle=False, n_workers=n_workers, context=context
        )
    return TrainTestLoop(model, [*components, Step()], train_data, valid_data)


def say_bits(loop):
    """Say a digest of what training has led to."""
    digest = hashlib.sha256()
    for state in (loop.model.state_dict(), loop.optimizer.state_dict()["state"]):
        for tensor in state.values() if "0.weight" in state else tensors_of(state):
            digest.update(tensor.numpy().tobytes())
    digest.update(torch.get_rng_state().numpy().tobytes())
    say("bits", loop.global_step, digest.hexdigest())


def tensors_of(states):
    """Return the momenta of an optimizer's state."""
    return [state["momentum_buffer"] for state in states.values()]


SAVERS = {"checkpoint": Checkpoint, "naive": NaiveFile, "flag": FlagFile}


# -- the runs -------------------------------------------------------------------------------


def train(directory, saver="checkpoint", moment=None, options=(), alive=None, **data):
    """Train, and say in the end to which bits that has led.

    Args:
        directory: where the checkpoints are.
        saver: a name of `SAVERS`.
        moment: the arguments of a Moment.
        options: further arguments of the saver.
        alive: a named pipe to hold open for as long as this process, or a worker, lives.
        **data: further arguments of `make_loop`.
    """
    if alive is not None:
        os.set_inheritable(os.open(alive, os.O_WRONLY), True)
    components = [Tell(), SAVERS[saver](directory, **dict(options))]
    loop = make_loop(*([Moment(**moment)] if moment else []), *components, **data)
    loop.train(N_EPOCHS)
    say_bits(loop)


def train_with_slow_disk(directory):
    """Train with asynchronous saving to a disk that takes its time."""
    fsync = os.fsync

    def slow(descriptor):
        time.sleep(0.1)
        fsync(descriptor)
        say("written")

    os.fsync = slow
    moment = {"point": "on_batch_begin", "step": N_BATCHES + 1}
    train(directory, moment=moment, options={"asynchronous": True})


def train_with_handlers(directory, ignoring=False):
    """Train where signals were handled before, or ignored, and say who handles them afterwards."""
    signal.signal(signal.SIGTERM, lambda number, frame: say("earlier handler", number))
    if ignoring:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    earlier = handlers()
    moment = Moment("on_batch_begin", 1)
    with contextlib.suppress(SystemExit):
        make_loop(moment, Tell(), Checkpoint(directory)).train(N_EPOCHS)
    say("restored", handlers() == earlier)


def train_to_the_end(directory, others=(), disabled=False):
    """Train without signals, and say whether they are then handled as before.

    Args:
        directory: where the checkpoints are.
        others: directories of further savers.
        disabled: whether the saver is switched on in mid-run only.
    """
    earlier = handlers()
    loop = make_loop(Checkpoint(directory), *map(Checkpoint, others))
    if disabled:
        loop.components.disable("checkpoint")
        switch_on = At("on_batch_end", lambda loop: loop.components.enable("checkpoint"))
        loop.components.append(switch_on)
    loop.train(N_EPOCHS)
    say("restored", handlers() == earlier)


def train_and_go_on(directory, moment):
    """Train, with a signal after the last safe point, and say if the script goes on."""
    loop = make_loop(Moment(**moment), Tell(), Checkpoint(directory))
    loop.train(N_EPOCHS)
    say("the script goes on")


def train_deaf(directory):
    """Train where nobody reads the standard error any more."""
    ours, theirs = os.pipe()
    os.close(ours)
    os.dup2(theirs, 2)
    train(directory, moment={"point": "on_batch_begin", "step": 1})


def train_with_processes(directory):
    """Train with a process of its own in a batch, and say if that can be ended."""

    def fork(loop):
        context = multiprocessing.get_context("fork")
        is_there = context.Event()
        process = context.Process(target=set_and_sleep, args=[is_there])
        process.start()
        is_there.wait()
        process.terminate()
        process.join(3)
        say("child", process.exitcode)
        process.kill()

    make_loop(Checkpoint(directory), At("on_batch_begin", fork)).train(1)


def set_and_sleep(flag):
    """Tell that this process has begun, and do not end."""
    flag.set()
    sleep_long()


def train_in_thread(directory):
    """Train in a thread that is not the main one, and say whether signals were left alone."""
    earlier = handlers()
    loop = make_loop(Tell(), Checkpoint(directory), n_workers=2)
    loop.components.append(At("on_batch_end", lambda _: say("changed", handlers() != earlier)))
    thread = threading.Thread(target=loop.train, args=[N_EPOCHS])
    thread.start()
    thread.join()
    say_bits(loop)


def train_without_signals(directory):
    """Train with signals=False, and say whether they were left alone."""
    earlier = handlers()
    loop = make_loop(Checkpoint(directory, signals=False))
    loop.components.append(At("on_batch_end", lambda _: say("changed", handlers() != earlier)))
    loop.train(1)


def handlers():
    """Return who handles the two signals."""
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


# -- one process for each -------------------------------------------------------------------


def fork_on_demand():
    """Fork a process for each line; return what it shall do, in that process."""
    torch.set_num_threads(1)
    make_loop().train(1)  # imports what torch leaves for later
    gc.freeze()  # of this nothing is to be taken apart
    say("ready")
    while (line := read_line()) is not None:
        try:
            task = json.loads(line)
        except ValueError:  # meant for a run that had ended
            continue
        pid = os.fork()
        if not pid:
            os.setsid()
            os.dup2(os.open(task.pop("errors"), os.O_WRONLY | os.O_CREAT), 2)
            say("pid", os.getpid())
            return task
        _, status = os.waitpid(pid, 0)
        say("ended", os.waitstatus_to_exitcode(status))
    return None


def end_quickly(run):
    """Run something, and end as Python does, but for a second in which it takes modules apart."""
    status = 0
    try:
        run()
    except SystemExit as error:
        status = error.code
    except BaseException as error:
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        status = 1
    os._exit(status)


if __name__ == "__main__":
    task = fork_on_demand()
    if task is not None:
        run, is_natural = globals()[task.pop("run")], task.pop("naturally", False)
        if is_natural:  # as a script that was started by itself
            gc.unfreeze()
            run(**task)
        else:
            end_quickly(lambda: run(**task))
