"""What takes the place of `checkpoint` in a run of `ttl selftest`: it records, and is killed."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from ttl_checkpoint.captured import captured_by_functions, generator_text
from ttl_checkpoint.checkpoint import Checkpoint
from ttl_core import ArgumentError, hookimpl

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

DIGEST = ", digest "
"""What is between the type of a tensor and its values, in texts of facts."""

FACTS, STEPS = "facts.jsonl", "steps.jsonl"
CAPTURED, OWNED = "captured", "attributes"
"""The first part of the paths of what functions refer to, and of what components hold, besides
the state."""

CONTINUED, RESUMED = "continued", "resumed"
"""What happened where the first batch began after a save, and after a state was restored."""

_DEEPEST = 4  # of values within attributes
_PARTS = (  # of a state, in the order in which their differences are named
    *("generators", "data", "random", "model", "variables", "hidden", "metrics", "components"),
    "position",
)


class Kill(NamedTuple):
    """When a process is killed.

    Attributes:
        saver: the number of the component `checkpoint` in the script.
        step: the number of steps of its loop after which it is.
        seconds: how long after that.
    """

    saver: int
    step: int
    seconds: float


class Probe(Checkpoint):
    """A component `checkpoint` that records what there is whenever it saves.

    Attributes:
        folder: where records are, and the folder `work` in which the script runs.
        kill: when to kill this process; None to let it end.
    """

    name = "checkpoint"
    folder: ClassVar[Path]
    kill: ClassVar[Kill | None] = None
    _numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, *args: Any, **options: Any) -> None:
        self._number = next(self._numbers)
        self._next = ""  # what to record when the next batch of training begins
        super().__init__(*args, **options)
        if self.resume != "auto":
            raise ArgumentError(
                f"selftest starts the script again and again, but checkpoint has resume="
                f"{self.resume!r}. Let it resume by itself, resume='auto'"
            )

    def _save_in(self, directory: str | os.PathLike[str]) -> None:
        super()._save_in(directory)
        assert self.directory is not None
        work = self.folder / "work"
        if not self.directory.resolve().is_relative_to(work.resolve()):
            raise ArgumentError(
                f"selftest would write to {self.directory}: it runs the script in a folder of its "
                "own, so checkpoint needs a directory relative to that, such as 'runs/a', or none "
                "with 'run-folder' in the list"
            )

    def _save(self, loop: TrainTestLoop, reason: str, improved: float | None = None) -> bool:
        is_saved = super()._save(loop, reason, improved)
        if is_saved:
            self._record(loop, "saved")
            self._next = CONTINUED
        return is_saved

    @hookimpl(wrapper=True, tryfirst=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Begin as always, and remember whether the run resumes."""
        result = yield from super().on_train_begin(loop)
        self._next = RESUMED if loop.has_loaded_state else ""
        return result

    @hookimpl(tryfirst=True)
    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Record once what there is after a save, and when a state has been restored."""
        if self._next and loop.is_training:
            self._record(loop, self._next)
            self._next = ""

    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Save, and be killed if it is time."""
        super().on_safe_point(loop)
        at = self._number, loop.global_step
        _append(self.folder / STEPS, [*at, time.monotonic()])
        if self.kill is not None and self.kill[:2] == at:
            own = os.getpid()
            timer = threading.Timer(self.kill.seconds, os.kill, [own, signal.SIGKILL])
            timer.daemon = True  # a script that has ended before is one that ended
            timer.start()

    @hookimpl(tryfirst=True)
    def on_train_end(self, loop: TrainTestLoop) -> None:
        """Save, and record the end."""
        super().on_train_end(loop)
        self._record(loop, "ended")

    def _record(self, loop: TrainTestLoop, what: str) -> None:
        at = [self._number, loop.epoch_num, loop.global_step, what]
        _append(self.folder / FACTS, {"at": at, "facts": facts_of(loop)})


def _append(path: Path, value: Any) -> None:
    with path.open("a") as file:
        file.write(json.dumps(value) + "\n")


def facts_of(loop: TrainTestLoop) -> dict[str, str]:
    """Return what a loop and its components hold, as texts that tell all bits apart, by path.

    Args:
        loop: the loop.
    """
    state = loop.state_dict(copy=False, allow_unsafe=True)
    owned: dict[str, Any] = {}
    numbers = {k: v for k, v in vars(loop).items() if k[0] != "_" and isinstance(v, int | float)}
    for entry, component in zip(loop.manifest(), loop.components, strict=True):
        if not isinstance(component, Probe):
            of = f" of {entry['distribution']}" if entry["distribution"] else ""
            owned[f"component {entry['name']!r}{of}"] = vars(component)
    found: dict[tuple[str, ...], str]
    found = {(CAPTURED, *at): _text(held) for at, held in captured_by_functions(loop).items()}
    found |= dict(_leaves(owned | {"the loop variables": numbers}, (OWNED,), 0))
    for part in _PARTS:
        found |= dict(_leaves(state.get(part), (part,), -100))
    return {json.dumps(path): text for path, text in found.items()}


def _text(value: Any) -> str:
    state = generator_text(value)
    return repr(value) if state is None else f"generator{DIGEST}{state}"


def _leaves(value: Any, path: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the values within another one with their paths; those of other types are left out."""
    if isinstance(value, torch.Generator):
        value = value.get_state()
    elif isinstance(value, random.Random):
        value = str(value.getstate())
    elif isinstance(value, itertools.count):
        value = repr(value)
    if isinstance(value, torch.Tensor):
        yield path, _digest(value)
    elif value is None or isinstance(value, bool | int | float | str | bytes):
        text = repr(value)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        yield path, text if len(text) <= 60 else f"{text[:40]}... ({digest})"
    elif depth < _DEEPEST:
        items: Any = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list | tuple):
            items = enumerate(value)
        for key, item in items:
            yield from _leaves(item, (*path, str(key)), depth + 1)


def _digest(tensor: torch.Tensor) -> str:
    shape = f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
    try:
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        if not tensor.dim():
            return f"{tensor.item()!r} ({shape})"
        return f"{shape}{DIGEST}{hashlib.sha256(data.numpy().tobytes()).hexdigest()[:16]}"
    except (RuntimeError, NotImplementedError):  # sparse, or without values
        return f"{shape}, {tensor!r}"
