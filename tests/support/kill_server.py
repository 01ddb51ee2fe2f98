"""A program that forks training runs, which are killed at a time or at a call of the system.

It imports torch and trains once before it forks, so that a run takes a tenth of a second. It reads
a request from each line of its standard input, and prints how the run has ended. A run is a script
with a saver; to resume, it is started again.
"""

import gc
import hashlib
import io
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from naive_savers import NaiveFileSaver, NaiveStateSaver
from torch.utils.data import DataLoader, TensorDataset

from ttl_core import LoopComponent, TrainTestLoop, hookimpl, use

DISK_CALLS = (
    *("open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "remove"),
    *("rmdir", "link", "symlink", "truncate", "ftruncate"),
)
"""The functions of `os` that take part in changing a disk."""

ORIGINALS = {name: getattr(os, name) for name in DISK_CALLS if hasattr(os, name)}
N_EPOCHS = 3
LIMIT = 60  # seconds, for a run that hangs


# -- the script ------------------------------------------------------------------------------


def train(folder, saver, options):
    """Train a small network, with everything that has state or draws random numbers."""
    import numpy

    from ttl_core import SeededSampler, SeededSamples

    torch.manual_seed(1)
    random.seed(2)
    numpy.random.seed(3)
    first, last = torch.nn.Linear(8, 16, bias=False), torch.nn.Linear(16, 3, bias=False)
    model = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Dropout(0.5), last)
    samples = TensorDataset(torch.randn(20, 8), torch.randint(3, (20,)))
    train_samples = SeededSamples(samples)
    train_data = DataLoader(train_samples, batch_size=4, sampler=SeededSampler(samples, seed=4))
    ledger = Ledger(folder / "ledger.jsonl")
    steps = use(
        "supervised",
        loss_func=torch.nn.CrossEntropyLoss(),
        optimizer=partial(torch.optim.Adam, lr=0.01),
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR,
        device=None,
    )
    components = [
        *(ledger, RandomScale(), steps, use("grad-accumulation", every=2), use("ema", decay=0.5)),
        *("metrics", *make_saver(folder / "checkpoints", saver, options, ledger)),
    ]
    loop = TrainTestLoop(model, components, train_data, DataLoader(samples, batch_size=10))
    ledger.loop = loop
    loop.train(n_epochs=N_EPOCHS)
    (folder / "bits.json").write_text(json.dumps(bits(loop)))


def make_saver(directory, saver, options, ledger):
    """Return a list of the component that saves, or of none."""
    match saver:
        case "checkpoint":
            return [use("checkpoint", directory=directory, best="valid/loss", **options)]
        case "file":
            return [NaiveFileSaver(directory, on_saved=ledger.record_saved)]
        case "state":
            return [RenamedStateSaver(directory, ledger.record_saved)]
    return []


class RandomScale(LoopComponent):
    """A component that draws from Python's and NumPy's global random numbers in every batch."""

    def on_batch_begin(self, loop):
        import numpy

        inputs, targets = loop.batch
        loop.batch = inputs * (random.random() + numpy.random.rand()), targets


class Ledger(LoopComponent):
    """A record on disk of each save that was announced, and of the step at which each start began.

    Args:
        path: the file; each record is a line of JSON.
    """

    def __init__(self, path):
        self.path = path
        self.has_begun = False

    def record(self, **values):
        # by the original functions, which do not kill: this is no part of a save
        descriptor = ORIGINALS["open"](self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        ORIGINALS["write"](descriptor, json.dumps(values).encode() + b"\n")
        ORIGINALS["fsync"](descriptor)
        ORIGINALS["close"](descriptor)

    def record_saved(self, path):
        self.record(saved=path.name, step=self.loop.global_step, best=None)

    @hookimpl(optionalhook=True)
    def checkpoint_saved(self, loop, path):
        manifest = json.loads((path / "manifest.json").read_text())
        self.record(saved=path.name, step=manifest["step"], best=manifest["best"])

    def on_batch_begin(self, loop):
        if not self.has_begun:
            self.has_begun = True
            self.record(begun=loop.global_step)

    def on_train_end(self, loop):
        if not self.has_begun:  # a run that had finished
            self.record(begun=loop.global_step)


class RenamedStateSaver(NaiveStateSaver):
    """A saver of what most scripts save, to a file that appears complete, by being renamed."""

    def __init__(self, directory, on_saved):
        self.path = directory / "last.pt"
        self._on_saved = on_saved
        super().__init__(torch.load(self.path) if self.path.exists() else None)

    def on_safe_point(self, loop):
        super().on_safe_point(loop)
        self.path.parent.mkdir(exist_ok=True)
        temporary = self.path.with_name(".tmp-last.pt")
        torch.save(self.states[-1], temporary)
        os.rename(temporary, self.path)
        self._on_saved(self.path)


def bits(loop):
    """Return a digest of each part of a loop at the end of a run."""
    import numpy

    position = loop.epoch_num, loop.global_step, loop.optim_step_num
    generators = random.getstate(), numpy.random.get_state()[1:], torch.get_rng_state()
    parts = {
        "model": loop.model.state_dict(),
        "optimizer": loop.optimizer.state_dict(),
        "scheduler": loop.scheduler.state_dict(),
        "averages": loop.components["ema"].state_dict(),
        "metrics": loop.metrics,
        "position": position,
        "random numbers": generators,
    }
    return {
        name: hashlib.sha256(repr(_plain(part)).encode()).hexdigest()
        for name, part in parts.items()
    }


def _plain(value):
    """Return a nested value in a form whose repr shows every bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, Mapping):
        return [(key, _plain(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


# -- calls that change the disk --------------------------------------------------------------


class PatchedDisk:
    """Replacements of the functions of `os` that change the disk: they record, delay and kill.

    Args:
        kill: the save and its call at which to kill the process, both from 1, and whether a write
            is half done by then. Save 0 is what comes before the first one. None for no kill.
        is_slow: whether each call takes longer, and each write takes few bytes only.

    Attributes:
        saves: the calls before the first save, and those of each save: name and path.
    """

    def __init__(self, kill, is_slow):
        self.kill = kill
        self.is_slow = is_slow
        self.saves = [[]]
        self._paths = {}  # by descriptor

    def install(self):
        """Replace the functions, and let `torch.save` use them."""
        for name, original in ORIGINALS.items():
            setattr(os, name, partial(self._call, name, original))
        torch.save = partial(_save_through_os, torch.save)

    def _call(self, name, original, *args, **kwargs):
        target = self._paths.get(args[0], args[0])
        if _begins_save(name, str(target)):
            self.saves.append([])
        self.saves[-1].append((name, str(target)))
        if self.kill is not None and self.kill[:2] == [len(self.saves) - 1, len(self.saves[-1])]:
            if name == "write" and self.kill[2]:
                original(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        if self.is_slow:
            time.sleep(0.0001)
            if name == "write":
                args = args[0], args[1][:2048]
        result = original(*args, **kwargs)
        if name == "open":
            self._paths[result] = target
        elif name == "close":
            self._paths.pop(args[0], None)
        return result


def _begins_save(name, target):
    is_naive = target.endswith("last.pt")
    return name == "open" if is_naive else name == "mkdir" and "/.tmp-0" in target


def _save_through_os(save, value, file):
    """Write a file in place, as `torch.save` does, but not from C++: it could not be patched."""
    if not isinstance(file, Path):
        save(value, file)
        return
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    stream = io.BytesIO()
    save(value, stream)
    content = stream.getvalue()
    while content:
        content = content[os.write(descriptor, content) :]
    os.close(descriptor)


# -- forking ---------------------------------------------------------------------------------


def run_in_child(folder, saver, options, kill=None, is_slow=False):
    """Run the script in this process, which was forked for it, and end the process."""
    status = 1
    try:
        torch.set_num_threads(1)
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        disk = PatchedDisk(kill, is_slow)
        disk.install()
        train(folder, saver, options)
        (folder / "calls.json").write_text(json.dumps(disk.saves))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def fork_run(folder, after=LIMIT, **request):
    """Fork a run, and kill it if it has not ended after some seconds.

    Returns:
        Its exit status, as subprocess has it, and how many seconds it took.
    """
    reading, writing = os.pipe()  # it ends when the child, which holds the other end, does
    start = time.perf_counter()
    pid = os.fork()
    if not pid:
        os.close(reading)
        run_in_child(Path(folder), **request)
    os.close(writing)
    has_ended, _, _ = select.select([reading], [], [], after)
    if not has_ended:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(reading)
    seconds = time.perf_counter() - start
    return {"status": os.waitstatus_to_exitcode(status), "seconds": seconds}


def main():
    """Prepare what each run needs, then fork a run for each request."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), "checkpoint", {"every": 5})
    gc.collect()
    gc.freeze()
    threads = Path("/proc/self/task")  # on Linux
    if threads.exists() and len(list(threads.iterdir())) > 1:
        sys.exit("this process has several threads, of which a fork copies only one")
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(fork_run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
