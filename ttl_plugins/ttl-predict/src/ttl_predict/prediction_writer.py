"""The component `prediction-writer`."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from ttl_core import ArgumentError, LoopComponent, RunError, hookimpl
from ttl_core.arguments import (
    absolute_path,
    describe,
    directory_or_run_folder,
    flag,
    one_of,
    whole_number,
)
from ttl_core.files import claim_directory, write_atomically
from ttl_predict.formats import FORMATS

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_MANIFEST = "_predictions.json"  # readers of a folder of Parquet files skip names with "_" in front


class PredictionWriter(LoopComponent):
    """The predictions of `loop.predict()`, written to files as they are computed.

    The rows of some batches make a file, `part-00000.parquet` and so on, in the order of the data.
    Beside them `_predictions.json` lists the files with their numbers of batches and rows, and says
    whether they are complete. A prediction that was interrupted resumes behind the last file; a
    complete one is written anew.

    Args:
        directory: where to write; by default the folder `predictions` in that of the run.
        format: "parquet", "npz" or "safetensors".
        columns: takes the loop and returns tensors by name, with a row for each sample. By default
            `loop.scores`: a mapping as it is, and a tensor as "scores".
        every: how many batches make a file.
        resume: whether to resume an interrupted prediction; if not, it is written anew.

    Raises:
        ArgumentError: an argument has an unusable value; in predict(), there is no directory.
        RunError: in predict(), columns are no tensors with as many rows; or another prediction
            writes to the directory; or the files of an interrupted one have another format, other
            columns, or more batches than the data; or several processes predict together.

    Example:
        >>> import tempfile
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> directory = tempfile.mkdtemp()
        >>> writer = PredictionWriter(directory, format="npz", every=2)
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), writer])
        >>> loop.predict(ComponentConformance.make_data(3), collect=False)
        >>> sorted(path.name for path in Path(directory).iterdir())
        ['_predictions.json', 'part-00000.npz', 'part-00001.npz']
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        format: Literal["parquet", "npz", "safetensors"] = "parquet",  # noqa: A002
        columns: Callable[[TrainTestLoop], Mapping[str, torch.Tensor]] | None = None,
        every: int = 64,
        resume: bool = True,
    ) -> None:
        self.directory = None if directory is None else absolute_path("directory", directory)
        self.format = one_of("format", format, FORMATS)
        if columns is not None and not callable(columns):
            raise ArgumentError(
                f"columns is {describe(columns)}, but has to take the loop and return tensors by "
                "name, as lambda loop: {'classes': loop.scores.argmax(1)} does"
            )
        self.columns = columns
        self.every = whole_number("every", every, at_least=1)
        self.resume = flag("resume", resume)
        self._folder: Path | None = None  # of this prediction; None outside of one
        self._parts: list[dict[str, Any]] = []
        self._names: list[str] | None = None  # of the columns; None until there are any
        self._pending: list[dict[str, torch.Tensor]] = []

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Begin a prediction where it was interrupted, and write what is left at its end."""
        if not loop.is_predicting:
            return (yield)
        if loop.group.size > 1:  # each has a part of the samples, and all would write one file
            raise RunError(
                f"prediction-writer writes the rows of one process, and does not work yet in a "
                f"group of {loop.group.size}. Predict in one process, or collect the scores that "
                "loop.predict() returns with loop.group.gather()"
            )
        folder = directory_or_run_folder(
            self.directory, loop, "prediction-writer", subfolder="predictions"
        )
        lock = claim_directory("prediction-writer", folder)
        try:
            return (yield from self._written(loop, folder))
        finally:
            lock.release()

    def _written(self, loop: TrainTestLoop, folder: Path) -> Generator[None, Any, Any]:
        """Write a prediction to a folder, where the yield is."""
        self._begin(folder)
        n_batches = sum(part["n_batches"] for part in self._parts)
        rest = _Rest(loop.data, n_batches)
        if n_batches:
            loop.data = rest
        is_complete = False
        try:
            result = yield
            if rest.n_missing:
                raise RunError(
                    f"an interrupted prediction in {self._folder} has files of {n_batches} "
                    f"batches, but these data have {n_batches - rest.n_missing}, so they are "
                    "others. Give the same data, another directory, or resume=False to write them "
                    "anew"
                )
            is_complete = True
            return result
        finally:
            # what was computed of a batch that failed is not in it
            self._write_part(is_complete)
            self._folder = None

    @hookimpl(trylast=True)
    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Take the rows of a batch of a prediction, and write them if it is time for a file."""
        if self._folder is None or not loop.is_predicting:
            return
        columns = self.columns(loop) if self.columns is not None else loop.scores
        if isinstance(columns, torch.Tensor):
            columns = {"scores": columns}
        checked = _checked(columns)
        self._check_names(sorted(checked))
        self._pending.append(checked)
        if len(self._pending) == self.every:
            self._write_part(is_complete=False)

    def _begin(self, folder: Path) -> None:
        path = folder / _MANIFEST
        before = json.loads(path.read_text()) if path.exists() else {"parts": []}
        is_interrupted = self.resume and not before.get("is_complete", True)
        if is_interrupted and before["format"] != self.format:
            raise RunError(
                f"an interrupted prediction in {folder} has files of the format "
                f"{before['format']!r}, but format is {self.format!r}. Give that one, or "
                "resume=False to write it anew"
            )
        self._folder, self._pending = folder, []
        self._parts = before["parts"] if is_interrupted else []
        self._names = before.get("columns") if is_interrupted else None
        if not is_interrupted:
            # first the list, so that no file that is gone is in it
            self._write_manifest(is_complete=False)
            for part in before["parts"]:
                (folder / part["file"]).unlink(missing_ok=True)

    def _check_names(self, names: list[str]) -> None:
        if self._names is None:
            self._names = names
        elif names != self._names:
            raise RunError(
                f"'prediction-writer' cannot write the columns {', '.join(names)} to "
                f"{self._folder}, where the batches before have {', '.join(self._names)}. Return "
                "the same columns for each batch; if the files are of an earlier call, give "
                "another directory, or resume=False to write them anew"
            )

    def _write_part(self, is_complete: bool) -> None:
        if self._folder is None:
            return
        if self._pending:
            tensors = {
                name: torch.cat([columns[name] for columns in self._pending]).cpu()
                for name in self._pending[0]
            }
            file = f"part-{len(self._parts):05}.{self.format}"
            with _saying_where(self._folder / file):
                write_atomically(self._folder / file, FORMATS[self.format](tensors))
            n_rows = len(next(iter(tensors.values())))
            part = {"file": file, "n_batches": len(self._pending), "n_rows": n_rows}
            self._parts.append(part)
            self._pending = []
        self._write_manifest(is_complete)

    def _write_manifest(self, is_complete: bool) -> None:
        content = {
            "format": self.format,
            "columns": self._names,
            "is_complete": is_complete,
            "parts": self._parts,
        }
        if self._folder is not None:
            text = json.dumps(content, indent=1)
            with _saying_where(self._folder / _MANIFEST):
                write_atomically(self._folder / _MANIFEST, text.encode())


class _Rest:
    """Batches without the first ones.

    Args:
        data: the batches.
        n: how many are left out.

    Attributes:
        n_missing: how many of those the data did not have.
    """

    def __init__(self, data: Any, n: int) -> None:
        self.data = data
        self.n = n
        self.n_missing = 0

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.data)
        self.n_missing = self.n - sum(1 for _ in itertools.islice(batches, self.n))
        yield from batches

    def __len__(self) -> int:
        return max(len(self.data) - self.n, 0)


@contextlib.contextmanager
def _saying_where(path: Path) -> Iterator[None]:
    """Turn the error of a path that cannot be written into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"'prediction-writer' cannot write {path}: {error.strerror or error}. The files before "
            "it are kept: when there is room, the same call of predict() resumes. Or give another "
            "directory="
        ) from error


def _checked(columns: Any) -> dict[str, torch.Tensor]:
    """Return columns without their graphs."""
    is_mapping = isinstance(columns, Mapping) and columns
    values = list(columns.values()) if is_mapping else [columns]
    if not is_mapping or not all(isinstance(v, torch.Tensor) and v.dim() for v in values):
        raise RunError(
            f"'prediction-writer' cannot write {describe(columns)}: it needs tensors by name, with "
            "a row for each sample. Give it columns=, as lambda loop: {'classes': "
            "loop.scores.argmax(1)}"
        )
    sizes = {name: len(value) for name, value in columns.items()}
    if len(set(sizes.values())) > 1:
        raise RunError(f"'prediction-writer' cannot write columns of several lengths: {sizes}")
    return {str(name): value.detach() for name, value in columns.items()}
