"""The component `trackio`."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from ttl_core import ArgumentError, Logger, LogRecord
from ttl_core.arguments import text

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)

_RESERVED = {"project", "run", "timestamp", "step", "time", "metrics"}  # names of Trackio's own
_MAX_INTEGER = 2**63 - 1


class Trackio(Logger):
    """A run in the store of Trackio on this machine, which `trackio show` shows.

    Args:
        project: the name of the project.
        run_name: the name of the run; by default that of its folder, or one made up.
        level: "epoch" to write the values of whole epochs only, "batch" for those of batches only;
            both by default.
        every: write the values of batches at each so many steps.

    Attributes:
        run_id: Trackio's identifier of the run.

    Raises:
        ArgumentError: an argument has an unusable value.
    """

    def __init__(
        self,
        project: str,
        *,
        run_name: str | None = None,
        level: Literal["batch", "epoch"] | None = None,
        every: int = 1,
    ) -> None:
        super().__init__(level=level, every=every)
        self.project = text("project", project)
        self.run_name = None if run_name is None else text("run_name", run_name)
        self.run_id = uuid.uuid4().hex
        self._n_rows = 0
        self._config: dict[str, Any] | None = None  # until it is written
        self._names: dict[str, str] = {}  # in the store, by name

    # -- a run ------------------------------------------------------------------------------

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Check before work starts that Trackio takes the name of the project.

        Raises:
            ArgumentError: it does not.
        """
        from trackio.sqlite_storage import SQLiteStorage

        try:
            SQLiteStorage.validate_project_name(self.project)
        except ValueError as error:
            raise ArgumentError(f"trackio refuses the project {self.project!r}: {error}") from None

    def open(self, loop: TrainTestLoop) -> None:
        """Describe the run."""
        if self.run_name is None:
            folder = vars(loop).get("run_folder")
            self.run_name = f"run-{self.run_id[:8]}" if folder is None else folder.name
        created = datetime.now(UTC).isoformat()
        about = {"_Created": created, "_Username": None, "_Group": None}  # for the dashboard
        self._config = {**self.configuration(loop), "manifest": loop.manifest(), **about}

    # -- writing ----------------------------------------------------------------------------

    def write(self, records: Sequence[LogRecord]) -> None:
        """Write the numbers of records to the store.

        The public interface, `trackio.log`, hands them to a thread: what a state says to be written
        might not be, and is lost if the process is killed. Here they are in the store when this
        method returns, and rows that have come before, by their identifiers, are left out.

        Args:
            records: the records.
        """
        from trackio.sqlite_storage import SQLiteStorage

        for record in records:
            for name, value in record.others.items():
                self.skip(name, f"a {type(value).__name__} is no number")
        rows = [record for record in records if record.values]
        SQLiteStorage.bulk_log(
            self.project,
            str(self.run_name),
            [
                {self._name(name): _storable(value) for name, value in record.values.items()}
                for record in rows
            ],
            steps=[record.step for record in rows],
            timestamps=[datetime.fromtimestamp(record.time, UTC).isoformat() for record in rows],
            config=self._config,
            log_ids=[f"{self.run_id}-{self._n_rows + i}" for i in range(len(rows))],
            run_id=self.run_id,
        )
        self._n_rows += len(rows)
        self._config = None

    def _name(self, name: str) -> str:
        """Return a name as it is in the store; say once if it is another one."""
        if name not in self._names:
            valid = name.encode("utf-8", "backslashreplace").decode()
            if valid in _RESERVED or valid.startswith("__"):
                valid = f"__{valid}"  # as Trackio renames them
            if valid != name:
                _log.warning("trackio: %r is written as %r: Trackio refuses the name", name, valid)
            self._names[name] = valid
        return self._names[name]

    def position(self) -> dict[str, Any]:
        """Return the run, and how many rows it has."""
        return {"run_id": self.run_id, "run_name": self.run_name, "n_rows": self._n_rows}

    def seek(self, position: dict[str, Any]) -> None:
        """Continue a run: rows that it has already are left out when they come again.

        Within one process a run that goes back to an earlier state may take another course from
        there, so nothing is left out then.

        Args:
            position: what `position()` returned.
        """
        if not self._n_rows:
            self.run_id = position["run_id"]
            self.run_name = position["run_name"]
            self._n_rows = position["n_rows"]


def _storable(value: int | float) -> int | float:
    """Return a number that Trackio can store: an integer has 64 bits there."""
    if isinstance(value, float) or abs(value) <= _MAX_INTEGER:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
