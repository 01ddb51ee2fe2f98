"""A program that forks training runs, to which test_signals.py sends signals.

It imports torch and trains once before it forks, so that a run starts at once. It reads lines of
JSON from its standard input, {"run": the name of a function, **its arguments}, and it and the runs
write a line to its standard output for each event.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
import traceback

import torch
from naive_savers import NaiveFileSaver
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data._utils import worker
from ttl_checkpoint import Checkpoint

from ttl_core import LoopComponent, SeededSampler, TrainTestLoop, hookimpl, use
from ttl_core.testing import Step

N_EPOCHS, N_BATCHES, BATCH_SIZE = 3, 4, 4
N_VALID_BATCHES = 8  # more than workers prefetch, so that a dead worker is always noticed


def say(*words):
    """Write a line of words, unbuffered."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def read_line():
    """Return a line of the standard input, and read nothing after it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return None
        line += byte
    return line.decode().strip()


def sleep_long():
    """Sleep for a minute, or until a signal comes.

    The sleeps are short, as a signal just before a long one would be handled after it.
    """
    for _ in range(6000):
        time.sleep(0.01)


# -- components -----------------------------------------------------------------------------


class Reporter(LoopComponent):
    """A component that says which callback points fire, as far as signals matter."""

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


class Pause(LoopComponent):
    """A component that waits at one point of one batch, while signals are sent.

    Args:
        point: the name of the callback point.
        step: the value of `global_step`.
        desc: "train" or "valid".
        batch: the number of the first batch at which to wait.
        sleeps: whether to sleep afterwards, for so long that only a signal can end it.
    """

    def __init__(self, point, step, desc="train", batch=0, sleeps=False):
        self.is_over = False

        @hookimpl(optionalhook=True)
        def wait(loop):
            is_reached = (step, desc) == (loop.global_step, loop.epoch_desc)
            if is_reached and not self.is_over and vars(loop).get("batch_num", 0) >= batch:
                self.is_over = True
                say("here")
                read_line()
                if sleeps:
                    say("asleep")
                    sleep_long()

        setattr(self, point, wait)


class NaiveFlagSaver(NaiveFileSaver):
    """A saver that also saves after SIGTERM, by a handler that sets a flag, as scripts do."""

    received = False

    def on_train_begin(self, loop):
        signal.signal(signal.SIGTERM, self.set_flag)

    def set_flag(self, number, frame):
        self.received = True

    def on_safe_point(self, loop):
        if self.received:
            torch.save(loop.state_dict(copy=False), self.path)
            sys.exit(143)
        super().on_safe_point(loop)


class OnceAt(LoopComponent):
    """A component that calls a function at one point, once."""

    def __init__(self, point, act):
        self.is_done = False

        def once(loop):
            if not self.is_done:
                self.is_done = True
                act(loop)

        setattr(self, point, once)


def make_loader(n_batches, *, shuffle=None, n_workers=0, context=None, **others):
    """Return a loader of the same samples each time, in an order by seed unless told otherwise."""
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
    """Say a digest of the weights, the optimizer and the random numbers."""
    digest = hashlib.sha256()
    for state in (loop.model.state_dict(), loop.optimizer.state_dict()["state"]):
        for tensor in state.values() if "0.weight" in state else tensors_of(state):
            digest.update(tensor.numpy().tobytes())
    digest.update(torch.get_rng_state().numpy().tobytes())
    say("bits", loop.global_step, digest.hexdigest())


def tensors_of(states):
    """Return the momenta in an optimizer's state."""
    return [state["momentum_buffer"] for state in states.values()]


SAVERS = {"checkpoint": Checkpoint, "naive": NaiveFileSaver, "flag": NaiveFlagSaver}


# -- the runs -------------------------------------------------------------------------------


def train(directory, saver="checkpoint", pause=None, options=(), alive=None, **data):
    """Train, and say a digest of the bits at the end.

    Args:
        directory: where the checkpoints are.
        saver: a name of `SAVERS`.
        pause: the arguments of a Pause.
        options: further arguments of the saver.
        alive: a named pipe to hold open for as long as this process, or a worker, lives. Workers
            then check every tenth of a second whether this process lives; usually every 5 s.
        **data: further arguments of `make_loop`.
    """
    if alive is not None:
        os.set_inheritable(os.open(alive, os.O_WRONLY), True)
        worker.MP_STATUS_CHECK_INTERVAL = 0.1
    components = [Reporter(), SAVERS[saver](directory, **dict(options))]
    loop = make_loop(*([Pause(**pause)] if pause else []), *components, **data)
    loop.train(N_EPOCHS)
    say_bits(loop)


class SlowStart:
    """A `worker_init_fn` that takes a second, and opens a pipe for as long as the worker lives.

    Args:
        alive: the named pipe, to which it writes a byte when it begins.
    """

    def __init__(self, alive):
        self.alive = alive

    def __call__(self, worker_id):
        os.write(os.open(self.alive, os.O_WRONLY), b"1")
        time.sleep(1)


def train_with_slow_workers(directory, alive, context):
    """Train with a worker that takes a second to start."""
    loop = make_loop(Checkpoint(directory), n_workers=1, context=context)
    loop.train_data.worker_init_fn = SlowStart(alive)
    loop.train(1)


def train_with_slow_disk(directory):
    """Train with asynchronous saving to a disk on which each sync takes 0.1 seconds."""
    fsync = os.fsync

    def slow(descriptor):
        time.sleep(0.1)
        fsync(descriptor)
        say("written")

    os.fsync = slow
    pause = {"point": "on_batch_begin", "step": N_BATCHES + 1}
    train(directory, pause=pause, options={"asynchronous": True})


def train_with_handlers(directory, ignoring=False):
    """Train with earlier handlers, or ignored signals; say whether they are restored afterwards."""
    signal.signal(signal.SIGTERM, lambda number, frame: say("earlier handler", number))
    if ignoring:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    earlier = handlers()
    pause = Pause("on_batch_begin", 1)
    with contextlib.suppress(SystemExit):
        make_loop(pause, Reporter(), Checkpoint(directory)).train(N_EPOCHS)
    say("restored", handlers() == earlier)


def train_to_the_end(directory, others=(), disabled=False):
    """Train without signals, and say whether the earlier handlers are restored afterwards.

    Args:
        directory: where the checkpoints are.
        others: directories of further savers.
        disabled: whether the saver is disabled until the middle of the run.
    """
    earlier = handlers()
    loop = make_loop(Checkpoint(directory), *map(Checkpoint, others))
    if disabled:
        loop.components.disable("checkpoint")
        enable = OnceAt("on_batch_end", lambda loop: loop.components.enable("checkpoint"))
        loop.components.append(enable)
    loop.train(N_EPOCHS)
    say("restored", handlers() == earlier)


def train_and_continue(directory, pause):
    """Train, with a signal after the last safe point, and say whether the script continues."""
    loop = make_loop(Pause(**pause), Reporter(), Checkpoint(directory))
    loop.train(N_EPOCHS)
    say("the script continues")


def train_with_closed_stderr(directory):
    """Train where the standard error is a pipe that is no longer read."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 2)
    train(directory, pause={"point": "on_batch_begin", "step": 1})


def train_with_processes(directory):
    """Train with a component that forks a process, and say whether it can be terminated."""

    def fork(loop):
        context = multiprocessing.get_context("fork")
        has_started = context.Event()
        process = context.Process(target=set_and_sleep, args=[has_started])
        process.start()
        has_started.wait()
        process.terminate()
        process.join(3)
        say("child", process.exitcode)
        process.kill()

    make_loop(Checkpoint(directory), OnceAt("on_batch_begin", fork)).train(1)


def set_and_sleep(flag):
    """Set an event when this process has started, and do not end."""
    flag.set()
    sleep_long()


def interrupt_validation(directory, signal_name="SIGTERM", keep=3, steps=100, **options):
    """Train with a long validation in which a signal comes; say how many batches followed it."""

    class SignalInValidation(LoopComponent):
        n_after = None

        def on_batch_begin(self, loop):
            if self.n_after is not None:
                self.n_after += 1
            elif loop.is_validating and loop.batch_num == 2:
                self.n_after = 0
                say("safe", loop.global_step)
                signal.raise_signal(getattr(signal, signal_name))

    component = SignalInValidation()
    others = [use("ema", decay=0.2), use("validate-every", steps=steps), Reporter()]
    loop = make_loop(component, *others, Checkpoint(directory, keep=keep, **options))
    try:
        loop.train(N_EPOCHS)
    finally:
        say("batches after", component.n_after)


def train_with_averages(directory, steps=100):
    """Train with averages and validations in mid-epoch; say at which steps, and the bits."""
    validated = []

    class Count(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_validating:
                validated.append(loop.global_step)

    others = [use("ema", decay=0.2), use("validate-every", steps=steps), Count()]
    loop = make_loop(*others, Checkpoint(directory))
    loop.train(N_EPOCHS)
    say("validated", validated)
    say_bits(loop)


def train_in_thread(directory):
    """Train in another thread than the main one, and say whether handlers were changed."""
    earlier = handlers()
    loop = make_loop(Reporter(), Checkpoint(directory), n_workers=2)
    loop.components.append(OnceAt("on_batch_end", lambda _: say("changed", handlers() != earlier)))
    thread = threading.Thread(target=loop.train, args=[N_EPOCHS])
    thread.start()
    thread.join()
    say_bits(loop)


def train_without_signals(directory):
    """Train with signals=False, and say whether handlers were changed."""
    earlier = handlers()
    loop = make_loop(Checkpoint(directory, signals=False))
    loop.components.append(OnceAt("on_batch_end", lambda _: say("changed", handlers() != earlier)))
    loop.train(1)


def run_script(directory, path, number):
    """Run a script with a directory and the number of a signal, as Python does."""
    sys.argv = [path, directory, str(number)]
    runpy.run_path(path, run_name="__main__")


def handlers():
    """Return the handlers of the two signals."""
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


# -- forking --------------------------------------------------------------------------------


def fork_on_demand():
    """Fork a process for each line; in that process, return what it has to run."""
    torch.set_num_threads(1)
    make_loop().train(1)  # which imports what torch imports lazily
    gc.freeze()  # the garbage collector of forked processes leaves all this alone
    say("ready")
    while (line := read_line()) is not None:
        try:
            task = json.loads(line)
        except ValueError:  # it was for a run that had ended by then
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
    """Run something, and end as Python does, but without destroying modules, which takes 1 s."""
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
