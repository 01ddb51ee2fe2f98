"""Fork runs to be killed, from a process that has imported all and trained once, so runs are quick.

Run as a program it reads a request from each line of its input, forks a run, and prints how it
ended. A run is the script of a training with a saver in it; to go on, it is started again.
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
from naive import NaiveFile, NaiveState
from torch.utils.data import DataLoader, TensorDataset

from ttl_core import LoopComponent, TrainTestLoop, hookimpl, use

CHANGES = (
    *("open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "remove"),
    *("rmdir", "link", "symlink", "truncate", "ftruncate"),
)
"""The functions of `os` that take part in changing a disk."""

REAL = {name: getattr(os, name) for name in CHANGES if hasattr(os, name)}
N_EPOCHS = 6
LIMIT = 60  # seconds, for a run that hangs


# -- the script ------------------------------------------------------------------------------


def train(folder, saver, options):
    """Train a small network, with all that has a state and all that draws random numbers."""
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
        *(ledger, Jitter(), steps, use("grad-accumulation", every=2), use("ema", decay=0.9)),
        *("metrics", *make_saver(folder / "checkpoints", saver, options, ledger)),
    ]
    loop = TrainTestLoop(model, components, train_data, DataLoader(samples, batch_size=10))
    ledger.loop = loop
    loop.train(n_epochs=N_EPOCHS)
    (folder / "bits.json").write_text(json.dumps(bits(loop)))


def make_saver(directory, saver, options, ledger):
    """Return the component that saves, if one shall, in a list."""
    match saver:
        case "checkpoint":
            return [use("checkpoint", directory=directory, best="valid/loss", **options)]
        case "file":
            return [NaiveFile(directory, on_saved=ledger.note_saved)]
        case "state":
            return [NaiveStateFile(directory, ledger.note_saved)]
    return []


class Jitter(LoopComponent):
    """Draw from Python's and NumPy's global random numbers in every batch."""

    def on_batch_begin(self, loop):
        import numpy

        inputs, targets = loop.batch
        loop.batch = inputs * (random.random() + numpy.random.rand()), targets


class Ledger(LoopComponent):
    """Note on the disk what was announced as saved, and at which step each start goes on."""

    def __init__(self, path):
        self.path = path
        self.has_begun = False

    def note(self, **what):
        # not by functions that may kill: this is no part of a save
        descriptor = REAL["open"](self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        REAL["write"](descriptor, json.dumps(what).encode() + b"\n")
        REAL["fsync"](descriptor)
        REAL["close"](descriptor)

    def note_saved(self, path):
        self.note(saved=path.name, step=self.loop.global_step, best=None)

    @hookimpl(optionalhook=True)
    def checkpoint_saved(self, loop, path):
        manifest = json.loads((path / "manifest.json").read_text())
        self.note(saved=path.name, step=manifest["step"], best=manifest["best"])

    def on_batch_begin(self, loop):
        if not self.has_begun:
            self.has_begun = True
            self.note(begun=loop.global_step)

    def on_train_end(self, loop):
        if not self.has_begun:  # a run that had finished
            self.note(begun=loop.global_step)


class NaiveStateFile(NaiveState):
    """Put what most scripts save into a file that appears by being renamed."""

    def __init__(self, directory, note):
        self.path = directory / "last.pt"
        self._note = note
        super().__init__(torch.load(self.path) if self.path.exists() else None)

    def on_safe_point(self, loop):
        super().on_safe_point(loop)
        self.path.parent.mkdir(exist_ok=True)
        temporary = self.path.with_name(".tmp-last.pt")
        torch.save(self.states[-1], temporary)
        os.rename(temporary, self.path)
        self._note(self.path)


def bits(loop):
    """Return a digest of each part of what a run has ended with."""
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
    """Return what tells every bit of a nested value when it is printed."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, Mapping):
        return [(key, _plain(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


# -- what happens to it ----------------------------------------------------------------------


class Disk:
    """Stand before the functions of `os` that change the disk: note, slow down and kill.

    Args:
        kill: at which call of which save to kill the process, both from 1, and whether a write is
            half done by then. Save 0 is what comes before the first one. None to not kill.
        is_slow: whether calls take their time, and no write takes more than a few bytes.
    """

    def __init__(self, kill, is_slow):
        self.kill = kill
        self.is_slow = is_slow
        self.saves = [[]]  # the calls before the first save, and those of each
        self._paths = {}  # by descriptor

    def install(self):
        for name, real in REAL.items():
            setattr(os, name, partial(self._call, name, real))
        torch.save = partial(_save_through_os, torch.save)

    def _call(self, name, real, *args, **kwargs):
        target = self._paths.get(args[0], args[0])
        if _begins_save(name, str(target)):
            self.saves.append([])
        self.saves[-1].append((name, str(target)))
        if self.kill is not None and self.kill[:2] == [len(self.saves) - 1, len(self.saves[-1])]:
            if name == "write" and self.kill[2]:
                real(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        if self.is_slow:
            time.sleep(0.0001)
            if name == "write":
                args = args[0], args[1][:2048]
        result = real(*args, **kwargs)
        if name == "open":
            self._paths[result] = target
        elif name == "close":
            self._paths.pop(args[0], None)
        return result


def _begins_save(name, target):
    is_naive = target.endswith("last.pt")
    return name == "open" if is_naive else name == "mkdir" and "/.tmp-0" in target


def _save_through_os(save, value, file):
    """Write a file in place as `torch.save` does, which calls the system from C++ instead."""
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


# -- the nursery -----------------------------------------------------------------------------


def be_run(folder, saver, options, kill=None, is_slow=False):
    """Be a run, in a process of its own, to the end of it."""
    status = 1
    try:
        torch.set_num_threads(1)
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        disk = Disk(kill, is_slow)
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
    """Fork a run, kill it after a time if it has not ended, and return how that went."""
    ours, theirs = os.pipe()  # which ends when nobody holds it any more
    begun = time.perf_counter()
    pid = os.fork()
    if not pid:
        os.close(ours)
        be_run(Path(folder), **request)
    os.close(theirs)
    has_ended, _, _ = select.select([ours], [], [], after)
    if not has_ended:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(ours)
    seconds = time.perf_counter() - begun
    return {"status": os.waitstatus_to_exitcode(status), "seconds": seconds}


def main():
    """Get all ready that each run would have to, then fork those asked for."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), "checkpoint", {"every": 5})
    gc.collect()
    gc.freeze()
    threads = Path("/proc/self/task")  # on Linux; who forks must not have any but its main one
    if threads.exists() and len(list(threads.iterdir())) > 1:
        sys.exit("the nursery has threads, which a fork would not get")
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(fork_run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
