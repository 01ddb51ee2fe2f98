"""The component `wandb`."""

from __future__ import annotations

import logging
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ttl_core import Logger, LogRecord
from ttl_core.arguments import absolute_path, mapping, one_of, text

if TYPE_CHECKING:
    from wandb import Run

    from ttl_core import TrainTestLoop
    from ttl_wandb.offline import OfflineFile

_log = logging.getLogger(__name__)

_STEP = "global_step"  # the name of the x-axis
_RESERVED = {_STEP, "_step", "_timestamp", "_runtime", "_wandb"}
_PREFIX = "logged/"
_EXIT_CODES = {"complete": 0, "failed": 1, "interrupted": 130}


class Wandb(Logger):
    """A run in Weights & Biases, online, or in files on this machine.

    Args:
        project: the name of the project.
        run_name: the name of the run; by default that of its folder, or one by wandb.
        entity: the user or team; by default that of the key.
        mode: "online" or "offline"; by default the environment variable WANDB_MODE, else online if
            there is a key for the server.
        directory: where wandb has its folder "wandb"; by default the folder of the run, or the
            current directory.
        settings: further settings of wandb, by name.
        level: "epoch" to write the values of whole epochs only, "batch" for those of batches only;
            both by default.
        every: write the values of batches at each so many steps.

    Attributes:
        run_id: the identifier of the run.

    Raises:
        ArgumentError: an argument has an unusable value.
    """

    def __init__(
        self,
        project: str | None = None,
        *,
        run_name: str | None = None,
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        directory: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        level: Literal["batch", "epoch"] | None = None,
        every: int = 1,
    ) -> None:
        super().__init__(level=level, every=every)
        self.project = None if project is None else text("project", project)
        self.run_name = None if run_name is None else text("run_name", run_name)
        self.entity = None if entity is None else text("entity", entity)
        self.mode = mode and one_of("mode", mode, ("online", "offline"))
        self.directory = None if directory is None else absolute_path("directory", directory)
        self.settings = mapping("settings", settings)
        self.run_id = uuid.uuid4().hex[:8]
        self._run: Run | None = None
        self._n_rows = 0  # that have been logged
        self._n_stored = 0  # that wandb has from a process that was killed
        self._n_done = 0  # of the records that are given to write() until it succeeds
        self._file: OfflineFile | None = None  # of a run that is offline
        self._unwritten: dict[int, dict[str, Any]] = {}  # rows that are not yet in the file
        self._names: dict[str, str] = {}  # in wandb, by name

    # -- a run ------------------------------------------------------------------------------

    def open(self, loop: TrainTestLoop) -> None:
        """Begin the run, or continue it."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to wandb's makers
        import wandb

        from ttl_wandb.offline import OfflineFile, n_rows

        folder = vars(loop).get("run_folder")
        self.directory = self.directory or Path(folder or Path.cwd())
        mode = self.mode or self._default_mode()
        options: dict[str, Any] = {  # nothing asks, waits for long or writes into a progress bar
            "console": "off",
            "silent": True,
            "init_timeout": 30,
            "x_transaction_log_flush_interval": 0.2,  # seconds; 15 by default
            "reinit": "create_new",  # beside runs of the program's own
            **self.settings,
        }
        self._run = run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=self.run_name or (folder and Path(folder).name),
            id=self.run_id,
            resume="allow",
            mode=mode,
            dir=str(self.directory),
            config={**self.configuration(loop), "manifest": loop.manifest()},
            settings=wandb.Settings(**options),
        )
        run.define_metric("*", step_metric=_STEP)
        stored = n_rows(self.directory, self.run_id) if run.offline else run.starting_step
        self._n_stored = max(self._n_stored, stored)
        if run.offline:
            self._file = OfflineFile(Path(run.dir).parent / f"run-{self.run_id}.wandb")
        for number, row in self._unwritten.items():
            if number >= self._n_stored:
                run.log(row, step=number, commit=True)

    def _default_mode(self) -> Literal["online", "offline"] | None:
        """Return None if the environment chooses, else whether there is a key for the server."""
        if os.environ.get("WANDB_MODE"):
            return None
        from wandb import Settings
        from wandb.sdk.lib.wbauth import read_netrc_auth

        settings = Settings()
        settings.update_from_env_vars(dict(os.environ))
        if settings.api_key or settings.identity_token_file:
            return "online"
        if read_netrc_auth(host=settings.base_url):
            return "online"
        _log.info(
            "wandb: there is no key for %s, so the run is offline. To upload it later: wandb sync "
            "%s/wandb/offline-run-*-%s",
            settings.base_url,
            self.directory,
            self.run_id,
        )
        return "offline"

    def close(self, status: Literal["complete", "failed", "interrupted"]) -> None:
        """End the run, with an exit code."""
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=_EXIT_CODES[status])

    # -- writing ----------------------------------------------------------------------------

    def write(self, records: Sequence[LogRecord]) -> None:
        """Log the numbers of records, each record as a row.

        Args:
            records: the records.
        """
        assert self._run is not None  # since open()
        for record in records:
            for name, value in record.others.items():
                self.skip(name, f"a {type(value).__name__} is no number")
        for record in records[self._n_done :]:
            if record.values:
                if self._n_rows >= self._n_stored:
                    row = {self._name(name): _storable(v) for name, v in record.values.items()}
                    # wandb numbers rows by what it calls step, which has to grow
                    row[_STEP] = record.step
                    self._run.log(row, step=self._n_rows, commit=True)
                    if self._file is not None:
                        self._unwritten[self._n_rows] = row
                self._n_rows += 1
            self._n_done += 1
        self._n_done = 0
        self._forget_written()

    def _forget_written(self) -> None:
        """Drop the rows that are in the file: a kill -9 does not lose them."""
        if self._file is not None:
            for number, _ in self._file.new_rows():
                self._unwritten.pop(number, None)

    def _name(self, name: str) -> str:
        """Return a name as it is in wandb; say once if it is another one."""
        if name not in self._names:
            valid = name.encode("utf-8", "backslashreplace").decode()
            if valid in _RESERVED or valid.startswith(_PREFIX):
                valid = f"{_PREFIX}{valid}"
            if valid != name:
                _log.warning("wandb: %r is written as %r: wandb takes no such name", name, valid)
            self._names[name] = valid
        return self._names[name]

    def position(self) -> dict[str, Any]:
        """Return the run, how many rows it has, and those of them that a kill -9 would lose."""
        self._forget_written()
        unwritten = [[number, dict(row)] for number, row in self._unwritten.items()]
        return {"run_id": self.run_id, "n_rows": self._n_rows, "unwritten": unwritten}

    def seek(self, position: dict[str, Any]) -> None:
        """Continue a run: rows that it has already are left out when they come again.

        Within one process a run that goes back to an earlier state may take another course from
        there, so nothing is left out then.

        Args:
            position: what `position()` returned.
        """
        if not self._n_rows:
            self.run_id = position["run_id"]
            self._n_rows = position["n_rows"]
            self._unwritten = dict(position["unwritten"])


def _storable(value: int | float) -> int | float:
    """Return a number that wandb can store: an integer has 64 bits there."""
    if isinstance(value, float) or abs(value) < 2**63:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
