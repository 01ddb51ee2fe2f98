"""A run in a store of MLflow. To import this module takes seconds: it imports mlflow."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

# Before MLflow is imported. By its own defaults a call to a server that is down takes minutes, in
# which training would wait; the logger tries again later by itself.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

_MAX_METRICS = 1000  # of one call, as of the next two: limits of MLflow
_MAX_PARAMS = 100
_MAX_PARAM_LENGTH = 6000
_STATUS = {"complete": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_SQLITE = "sqlite:///"


class Value(NamedTuple):
    """A value of a metric; `time` in milliseconds since 1970."""

    key: str
    value: float
    time: int
    step: int


class Run:
    """A run in a store of MLflow, to which each value is written once.

    MLflow cannot remove values. A run that resumes counts those that the store has of each metric,
    and leaves out as many of those that come again.

    Args:
        uri: the tracking URI of the store.
        run_id: the run to continue; None for a new one, which `create` makes.
        counts: how many values of each key the run had at the state from which it continues.

    Attributes:
        counts: how many values of each key have been written.
    """

    def __init__(self, uri: str, run_id: str | None, counts: Mapping[str, int]) -> None:
        _quiet()
        if uri.startswith(_SQLITE):
            create_store(Path(uri.removeprefix(_SQLITE)))
        self._client = MlflowClient(uri)
        self._uri = uri
        self._n_done = 0  # of the values that are given to `write` until it succeeds
        self._is_described = False
        self._id = run_id
        self.counts = Counter(counts)
        self._surplus: Counter[str] | None = None if run_id else Counter()  # None: to be counted

    @property
    def is_begun(self) -> bool:
        """Whether the store has the run."""
        return self._id is not None

    @property
    def run_id(self) -> str:
        """The identifier of the run."""
        assert self._id is not None  # since begin()
        return self._id

    def begin(self, experiment: str, name: str, tags: Mapping[str, str]) -> None:
        """Create the run, or mark it as running again.

        Args:
            experiment: the name of its experiment, which is created if it does not exist.
            name: its name.
            tags: its tags.
        """
        if self._id is not None:
            self._client.update_run(self.run_id, status="RUNNING")
            return
        about = {"mlflow.source.name": sys.argv[0], "mlflow.source.type": "LOCAL", **tags}
        run = self._client.create_run(self._experiment_id(experiment), tags=about, run_name=name)
        self._id = run.info.run_id

    def _experiment_id(self, name: str) -> str:
        if (found := self._client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        place = None  # that of the server
        if self._uri.startswith(_SQLITE):  # beside the store; MLflow's default is relative to cwd
            place = Path(self._uri.removeprefix(_SQLITE)).with_name("mlartifacts").as_uri()
        try:
            return str(self._client.create_experiment(name, artifact_location=place))
        except MlflowException:  # another process may have created it in between
            if (found := self._client.get_experiment_by_name(name)) is None:
                raise
            return str(found.experiment_id)

    def describe(self, params: Mapping[str, Any], manifest: Sequence[Any]) -> None:
        """Write what runs, once in the life of this object.

        Args:
            params: the parameters by key.
            manifest: what `loop.manifest()` returns, an artifact.
        """
        if self._is_described:
            return
        known = self._client.get_run(self.run_id).data.params  # MLflow refuses to change them
        shown = [
            Param(key, str(value)[:_MAX_PARAM_LENGTH])
            for key, value in params.items()
            if key not in known
        ]
        for start in range(0, len(shown), _MAX_PARAMS):
            self._client.log_batch(self.run_id, params=shown[start : start + _MAX_PARAMS])
        self._client.log_text(self.run_id, json.dumps(manifest, indent=2), "manifest.json")
        self._is_described = True

    def write(self, values: Sequence[Value]) -> None:
        """Write values, but for those that the store has from a run that was killed.

        Args:
            values: the values; if this raises an exception, to be given again, and more.
        """
        surplus = self._count_surplus() if self._surplus is None else self._surplus
        while chunk := values[self._n_done : self._n_done + _MAX_METRICS]:
            rest, new = surplus.copy(), []
            for value in chunk:
                if rest[value.key] > 0:
                    rest[value.key] -= 1
                else:
                    new.append(Metric(*value))
            if new:
                self._client.log_batch(self.run_id, metrics=new)
            self._surplus = surplus = rest
            self.counts.update(value.key for value in chunk)
            self._n_done += len(chunk)
        self._n_done = 0

    def _count_surplus(self) -> Counter[str]:
        keys = self._client.get_run(self.run_id).data.metrics
        stored = {key: len(self._client.get_metric_history(self.run_id, key)) for key in keys}
        return Counter(stored) - self.counts

    def upload(self, path: Path, place: str) -> None:
        """Add a file or a directory to the artifacts of the run.

        Args:
            path: its path.
            place: the directory among the artifacts; "" for the top one.
        """
        upload = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        upload(self.run_id, str(path), place or None)

    def end(self, status: Literal["complete", "failed", "interrupted"]) -> None:
        """Mark the run as ended.

        Args:
            status: the status that `Logger.close` gets.
        """
        self._client.set_terminated(self.run_id, _STATUS[status])


def create_store(path: Path) -> None:
    """Create a file with the tables of MLflow, all of them or none, if there is no file.

    MLflow takes seconds to create them one by one, and cannot use a file that has only some, as
    after a kill or on a full disk: no later run could write to it.
    """
    if path.exists() or not path.parent.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        new = Path(folder) / path.name
        MlflowClient(f"{_SQLITE}{new}").search_experiments(max_results=1)
        try:
            path.hardlink_to(new)  # unlike a rename it spares a file that is there since
        except FileExistsError:  # of another process
            pass
        except OSError:  # a file system without links
            if not path.exists():
                new.rename(path)


def _quiet() -> None:
    """Keep MLflow from logging each step of creating its tables, and each failure twice."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
