"""Bugs that leave something behind in the process: the kit finds each of them."""

import atexit
import contextlib
import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings

import numpy
import pytest
import torch
from specimens import SPECIMENS, failure, found_by, kit_for, specimens_of

from ttl_core import LoopComponent, hookimpl


@found_by("leaves_no_threads", "the thread 'prefetch' still runs")
class Thread(LoopComponent):
    """It starts a thread that is never asked to end."""

    def on_train_begin(self, loop):
        self.over = threading.Event()
        threading.Thread(target=self.over.wait, args=[5], name="prefetch", daemon=True).start()

    def clean_up(self):
        self.over.set()


@found_by("leaves_the_process_as_it_was", "the handler of SIGUSR1 was")
class Handler(LoopComponent):
    """It replaces a signal handler, for good."""

    def on_train_begin(self, loop):
        signal.signal(signal.SIGUSR1, lambda *_: loop.stop())

    def clean_up(self):
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


@found_by("survives_an_exception", "the handler of SIGUSR2 was")
class HandlerAfterFailure(LoopComponent):
    """It restores a signal handler in on_train_end, which does not fire where a run fails."""

    def on_train_begin(self, loop):
        self.before = signal.signal(signal.SIGUSR2, lambda *_: None)

    def on_train_end(self, loop):
        signal.signal(signal.SIGUSR2, self.before)

    def clean_up(self):
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)


@found_by("leaves_the_process_as_it_was", "the number of atexit functions")
class AtExit(LoopComponent):
    """It registers a function for the end of the process with each instance."""

    def __init__(self):
        atexit.register(self.clean_up)

    def on_batch_end(self, loop):
        self.batch_num = loop.batch_num

    def clean_up(self):
        atexit.unregister(self.clean_up)


@found_by("leaves_no_open_files", "is still open")
class OpenFile(LoopComponent):
    """It opens a file that it does not close before it is garbage."""

    def on_train_begin(self, loop):
        self.stream = open(os.devnull, "w")  # noqa: SIM115

    def on_batch_end(self, loop):
        self.stream.write(f"{loop.batch_num}\n")

    def clean_up(self):
        self.stream.close()


@found_by("survives_an_exception", "is still open")
class OpenFileAfterFailure(LoopComponent):
    """It closes its file in on_train_end only."""

    stream = None

    def on_train_begin(self, loop):
        self.stream = open(os.devnull, "w")  # noqa: SIM115

    def on_train_end(self, loop):
        if self.stream:
            self.stream.close()

    def clean_up(self):
        if self.stream:
            self.stream.close()


@found_by("leaves_the_process_as_it_was", "the working directory was")
class WorkingDirectory(LoopComponent):
    """It changes into the directory of its files."""

    def on_train_begin(self, loop):
        os.chdir("/")


@found_by("leaves_the_process_as_it_was", "the environment variable TTL_BUG")
class Environment(LoopComponent):
    """It sets an environment variable for a library."""

    def on_train_begin(self, loop):
        os.environ["TTL_BUG"] = "1"

    def clean_up(self):
        os.environ.pop("TTL_BUG", None)


@found_by("leaves_the_process_as_it_was", "warnings.filters was")
class WarningFilters(LoopComponent):
    """It silences a warning of torch for all that follows."""

    def on_train_begin(self, loop):
        warnings.filterwarnings("ignore", message="lr_scheduler.step")


@found_by("leaves_the_process_as_it_was", "the handlers of the root logger")
class LogHandler(LoopComponent):
    """It adds a handler to the root logger in each run."""

    def on_train_begin(self, loop):
        self.handler = logging.NullHandler()
        logging.getLogger().addHandler(self.handler)

    def clean_up(self):
        logging.getLogger().removeHandler(self.handler)


@found_by("leaves_the_process_as_it_was", "the garbage collector was")
class GarbageCollector(LoopComponent):
    """It turns the garbage collector off, for speed."""

    def on_train_begin(self, loop):
        gc.disable()

    def clean_up(self):
        gc.enable()


@found_by("leaves_the_process_as_it_was", "sys.excepthook was")
class ExceptHook(LoopComponent):
    """It exchanges the function that prints tracebacks."""

    def on_train_begin(self, loop):
        sys.excepthook = lambda *_: None

    def clean_up(self):
        sys.excepthook = sys.__excepthook__


@found_by("leaves_torch_as_it_was", "the default dtype was torch.float32 and is torch.float64")
class DefaultDtype(LoopComponent):
    """It sets the default dtype, for good."""

    def on_train_begin(self, loop):
        torch.set_default_dtype(torch.float64)

    def clean_up(self):
        torch.set_default_dtype(torch.float32)


@found_by("leaves_modes_alone", "the default dtype was torch.float32 and is torch.float64")
class DefaultDtypeInRun(DefaultDtype):
    """It sets the default dtype for the time of a run, for all components."""

    def on_train_end(self, loop):
        torch.set_default_dtype(torch.float32)


@found_by("leaves_torch_as_it_was", "the default device was cpu and is meta")
class DefaultDevice(LoopComponent):
    """It sets the default device when training is over."""

    def on_predict_end(self, loop):
        torch.set_default_device("meta")

    def clean_up(self):
        torch.set_default_device(None)


@found_by("leaves_torch_as_it_was", "deterministic algorithms was")
class Deterministic(LoopComponent):
    """It asks for deterministic algorithms, for good."""

    def on_train_begin(self, loop):
        torch.use_deterministic_algorithms(True, warn_only=True)

    def clean_up(self):
        torch.use_deterministic_algorithms(False)


@found_by("leaves_torch_as_it_was", "torch.backends.cudnn was")
class Benchmark(LoopComponent):
    """It turns a switch of cuDNN on, for good."""

    def on_train_begin(self, loop):
        torch.backends.cudnn.benchmark = True

    def clean_up(self):
        torch.backends.cudnn.benchmark = False


@found_by("leaves_torch_as_it_was", "anomaly detection was False and is True")
class Anomaly(LoopComponent):
    """It turns the detection of anomalies on, for good."""

    def on_train_begin(self, loop):
        torch.autograd.set_detect_anomaly(True)

    def clean_up(self):
        torch.autograd.set_detect_anomaly(False)


@found_by("leaves_torch_as_it_was", "autocast on the CPU was")
class Autocast(LoopComponent):
    """It enters autocast and leaves it at the end of the next epoch only."""

    autocast = None

    def on_batch_begin(self, loop):
        if self.autocast is None:
            self.autocast = torch.autocast("cpu", torch.bfloat16)
            self.autocast.__enter__()

    def clean_up(self):
        if self.autocast is not None:
            self.autocast.__exit__(None, None, None)


@found_by("survives_an_exception", "autocast on the CPU was")
class AutocastAfterFailure(LoopComponent):
    """It leaves autocast in on_loss_compute, which does not fire where the forward pass fails."""

    autocast = None

    def on_batch_begin(self, loop):
        if self.autocast is None:
            self.autocast = torch.autocast("cpu", torch.bfloat16)
            self.autocast.__enter__()

    def on_batch_end(self, loop):
        if self.autocast is not None:
            self.autocast.__exit__(None, None, None)
            self.autocast = None

    def clean_up(self):
        self.on_batch_end(None)


@found_by("leaves_modes_alone", "the grad mode was False and is True")
class GradMode(LoopComponent):
    """It turns gradients on in validation."""

    def on_epoch_begin(self, loop):
        torch.set_grad_enabled(True)


@found_by("leaves_torch_as_it_was", "the option 'precision' of printed tensors was 4 and is 12")
class PrintOptions(LoopComponent):
    """It prints tensors with many digits, once."""

    def on_train_begin(self, loop):
        torch.set_printoptions(precision=12)


@found_by("leaves_the_process_as_it_was", "the option 'precision' of printed arrays was 8 and is 2")
class NumpyPrintOptions(LoopComponent):
    """It prints arrays with few digits, once."""

    def on_train_begin(self, loop):
        numpy.set_printoptions(precision=2)


@found_by("leaves_the_process_as_it_was", "of errors of NumPy was warn and is raise")
class NumpyErrors(LoopComponent):
    """It lets NumPy raise where a number overflows, for all that follows."""

    def on_train_begin(self, loop):
        numpy.seterr(over="raise")


@found_by("leaves_the_process_as_it_was", "the umask was")
class Umask(LoopComponent):
    """It makes its files private, and those of all others."""

    def on_train_begin(self, loop):
        os.umask(0o067)


@found_by("leaves_torch_as_it_was", "the global hooks of modules was")
class GlobalHook(LoopComponent):
    """It hooks all modules of all models."""

    def on_train_begin(self, loop):
        hook = torch.nn.modules.module.register_module_forward_hook
        self.handle = hook(lambda *_: None)

    def clean_up(self):
        self.handle.remove()


@found_by("leaves_random_streams_alone", "the global random stream of torch was")
class DrawFromTorch(LoopComponent):
    """It draws from the global generator of torch."""

    def on_batch_begin(self, loop):
        self.drawn = torch.rand(1)


@found_by("leaves_random_streams_alone", "the global random stream of Python was")
class DrawFromPython(LoopComponent):
    """It draws from the global generator of Python."""

    def on_epoch_begin(self, loop):
        self.drawn = random.random()


@found_by("leaves_random_streams_alone", "the global random stream of NumPy was")
class DrawFromNumpy(LoopComponent):
    """It draws from the global generator of NumPy."""

    def on_log(self, loop, metrics, level):
        self.drawn = numpy.random.rand()


@found_by("leaves_random_streams_alone", "the global random stream of torch was")
class Reseed(LoopComponent):
    """It seeds torch with 0 at the start of training."""

    def on_train_begin(self, loop):
        torch.manual_seed(0)


@found_by("leaves_random_streams_alone", "creating it uses global random numbers")
class DrawInInit(LoopComponent):
    """It draws a name for the run when it is created."""

    def __init__(self):
        self.run = random.randrange(10**6)

    def on_train_begin(self, loop):
        self.started = True


@found_by("leaves_the_process_as_it_was", "it has written 'epochs.txt' into the working directory")
class WritesWhereItIs(LoopComponent):
    """It writes a file into the folder in which the script happens to run."""

    def on_epoch_end(self, loop):
        with open("epochs.txt", "a") as file:
            file.write("1")


@found_by("can_be_toggled", "the environment variable TTL_BUG")
class NotUndoneWhenDisabled(LoopComponent):
    """It cleans up in on_train_end, which is not called where it was disabled meanwhile."""

    def on_train_begin(self, loop):
        os.environ["TTL_BUG"] = "1"

    def on_train_end(self, loop):
        os.environ.pop("TTL_BUG", None)

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        try:
            return (yield)
        except BaseException:
            os.environ.pop("TTL_BUG", None)
            raise

    def clean_up(self):
        os.environ.pop("TTL_BUG", None)


@pytest.mark.parametrize("cls", specimens_of(__name__), ids=lambda cls: cls.__name__)
def test_finds(cls, monkeypatch, tmp_path):
    """The check that is named finds the bug, and says so in words."""
    monkeypatch.chdir(tmp_path)
    check, words = SPECIMENS[cls]
    made = []

    def make():
        made.append(cls())
        return made[-1]

    streams = random.getstate(), torch.get_rng_state(), numpy.random.get_state()
    try:
        with warnings.catch_warnings():
            assert words in failure(kit_for(make), check)
    finally:
        for component in reversed(made):  # each restores what it found
            with contextlib.suppress(AttributeError):
                component.clean_up()
        random.setstate(streams[0])
        torch.set_rng_state(streams[1])
        numpy.random.set_state(streams[2])
        torch.set_grad_enabled(True)
