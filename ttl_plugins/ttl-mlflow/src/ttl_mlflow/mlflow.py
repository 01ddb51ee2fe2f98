"""The component `mlflow`."""

from __future__ import annotations

import logging
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ttl_core import ArgumentError, Logger, LogRecord, hookimpl
from ttl_core.arguments import describe, flag, mapping, text
from ttl_mlflow.keys import key_of

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop
    from ttl_mlflow.store import Run, Value

_log = logging.getLogger(__name__)


class Mlflow(Logger):
    """A run in MLflow: metrics, parameters, artifacts and the manifest.

    Args:
        tracking_uri: the store; by default that of the environment variable MLFLOW_TRACKING_URI,
            else a file mlflow.db in the folder of the run, or in the current directory.
        experiment: the name of the experiment, which is created if it does not exist.
        run_name: the name of the run; by default that of its folder, or one made up.
        tags: tags of the run.
        checkpoints: upload each checkpoint that the component `checkpoint` saves.
        artifacts: paths of files to upload when the run ends, such as "report.html"; relative ones
            are in the folder of the run, or in the current directory.
        level: "epoch" to write the values of whole epochs only, "batch" for those of batches only;
            both by default.
        every: write the values of batches at each so many steps.

    Attributes:
        run_id: MLflow's identifier of the run; None before the first value.
        tracking_uri: the store; None before the first run if it was not given.

    Raises:
        ArgumentError: an argument has an unusable value.
    """

    in_background = True

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str = "ttl",
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        checkpoints: bool = False,
        artifacts: Iterable[str | os.PathLike[str]] = (),
        level: Literal["batch", "epoch"] | None = None,
        every: int = 1,
    ) -> None:
        super().__init__(level=level, every=every)
        if tracking_uri is None:
            tracking_uri = os.environ.get("MLFLOW_TRACKING_URI")
        self.tracking_uri = None if tracking_uri is None else text("tracking_uri", tracking_uri)
        self.experiment = text("experiment", experiment)
        self.run_name = None if run_name is None else text("run_name", run_name)
        self.tags = mapping("tags", tags)
        self.checkpoints = flag("checkpoints", checkpoints)
        if isinstance(artifacts, str | os.PathLike) or not isinstance(artifacts, Iterable):
            raise ArgumentError(
                f"artifacts is {describe(artifacts)}, but has to be a list of paths"
            )
        self.artifacts = [Path(path) for path in artifacts]
        self._folder = Path()
        self._run: Run | None = None
        self._position: dict[str, Any] | None = None  # from which the run continues
        self._keys: dict[str, str] = {}  # by name
        self._uploads: list[tuple[Path, str]] = []  # that have yet to succeed

    @property
    def run_id(self) -> str | None:
        """MLflow's identifier of the run; None before the first value."""
        position = self.position()
        return None if position is None else position["run_id"]

    # -- a run ------------------------------------------------------------------------------

    def open(self, loop: TrainTestLoop) -> None:
        """Create the run, or continue it, and describe it."""
        from ttl_mlflow.store import Run  # imports mlflow, which takes seconds

        folder = vars(loop).get("run_folder")
        self._folder = Path.cwd() if folder is None else Path(folder)
        if self.tracking_uri is None:
            self.tracking_uri = f"sqlite:///{self._folder / 'mlflow.db'}"
        if self._run is None:
            position = self._position or {"run_id": None, "counts": {}}
            self._run = Run(self.tracking_uri, position["run_id"], position["counts"])
        if self.run_name is None:  # MLflow makes names up with Python's global random numbers
            self.run_name = f"run-{uuid.uuid4().hex[:8]}" if folder is None else self._folder.name
        self._run.begin(self.experiment, self.run_name, self.tags)
        params = self.configuration(loop).items()
        self._run.describe({self._key(key): value for key, value in params}, loop.manifest())

    def close(self, status: Literal["complete", "failed", "interrupted"]) -> None:
        """Upload artifacts, and mark the run as ended."""
        if self._run is not None and self._run.is_begun:
            self._uploads += [(self._folder / path, "") for path in self.artifacts]
            self._upload()
            for path, _ in self._uploads:
                _log.error("mlflow: %s has not been uploaded", path)
            self._uploads.clear()
            self._run.end(status)

    @hookimpl(optionalhook=True)  # for where `checkpoint` is not in the list
    def checkpoint_saved(self, loop: TrainTestLoop, path: Path) -> None:
        """Upload the checkpoint with the next values, if requested."""
        if self.checkpoints:
            self._uploads.append((path, f"checkpoints/{path.name}"))

    def _upload(self) -> None:
        """Upload what can be; the rest is kept until the next time."""
        if self._run is None or not self._run.is_begun:
            return
        for upload in list(self._uploads):
            path, place = upload
            try:
                if path.exists():  # else it was removed meanwhile, or never written
                    self._run.upload(path, place)
            except Exception as error:
                _log.warning("mlflow: %s cannot be uploaded now: %s", path, error)
                return
            self._uploads.remove(upload)

    # -- writing ----------------------------------------------------------------------------

    def write(self, records: Sequence[LogRecord]) -> None:
        """Write the numbers of records to the store.

        Args:
            records: the records.
        """
        assert self._run is not None  # since open()
        self._run.write([value for record in records for value in self._values(record)])
        self._upload()

    def _values(self, record: LogRecord) -> Iterator[Value]:
        from ttl_mlflow.store import Value

        for name, value in record.others.items():
            self.skip(name, f"a {type(value).__name__} is no number")
        for name, number in record.values.items():
            try:
                value = float(number)
            except OverflowError:
                value = math.inf if number > 0 else -math.inf
            yield Value(self._key(name), value, int(record.time * 1000), record.step)

    def _key(self, name: str) -> str:
        """Return the key for a name; say once if it is another one."""
        if name not in self._keys:
            self._keys[name] = key = key_of(name)
            if key != name:
                _log.warning("mlflow: %r is written as %r: MLflow refuses the name", name, key)
        return self._keys[name]

    def position(self) -> dict[str, Any] | None:
        """Return the run, and how many values it has of each metric."""
        if self._run is None or not self._run.is_begun:
            return self._position
        return {"run_id": self._run.run_id, "counts": dict(self._run.counts)}

    def seek(self, position: dict[str, Any] | None) -> None:
        """Continue a run: values that it has already are left out when they come again.

        Within one process a run that goes back to an earlier state may take another course from
        there, so nothing is left out then.

        Args:
            position: what `position()` returned.
        """
        if self._run is None:
            self._position = position
