"""The component `tensorboard`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ttl_core import Logger, LogRecord
from ttl_core.arguments import absolute_path, directory_or_run_folder, whole_number
from ttl_tensorboard.event_file import EventFile, read_events

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop
    from ttl_tensorboard.events import Encoder

_log = logging.getLogger(__name__)

_START = {"step": 0, "file": "", "begin": 0, "end": 0}  # of a run that has written nothing


class Tensorboard(Logger):
    """Event files for TensorBoard: numbers, texts, images, histograms and the configuration.

    Args:
        directory: the directory of the event files; by default "tensorboard" in the folder of the
            run.
        level: "epoch" to write the values of whole epochs only, "batch" for those of batches only;
            both by default.
        every: write the values of batches at each so many steps.
        histograms: write histograms of weights and gradients at each so many steps; never by
            default.
        graph: an input of the model, a tensor or a tuple of several, with which to trace its graph.

    Attributes:
        path: the event file that is written; None before the first value.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> import tempfile
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> board = Tensorboard(tempfile.mkdtemp())
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), board],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> board.path.name.startswith("events.out.tfevents.")
        True
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        level: Literal["batch", "epoch"] | None = None,
        every: int = 1,
        histograms: int | None = None,
        graph: Any = None,
    ) -> None:
        super().__init__(level=level, every=every)
        self.directory = None if directory is None else absolute_path("directory", directory)
        self.histograms = histograms and whole_number("histograms", histograms, at_least=1)
        self.graph = graph
        self._file: EventFile | None = None
        self._encoder: Encoder | None = None
        self._description = b""  # the events that describe the run
        self._heading = b""  # the same, until they are written
        self._position: dict[str, Any] = dict(_START)
        self._is_at_position = False  # whether the next event follows the one at the position
        self._hides = False  # whether what is after the position was written by a run before

    @property
    def path(self) -> Path | None:
        """The event file that is written; None before the first value."""
        return None if self._file is None else self._file.path

    # -- a run ------------------------------------------------------------------------------

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Check before work starts that the directory can be written to.

        Raises:
            ArgumentError: it cannot be, or there is none.
            RunError: another run writes there.
        """
        self._find_directory(loop)
        self._hides |= self._file is None  # such as a run that was killed before its first state

    def on_test_begin(self, loop: TrainTestLoop) -> None:
        """Check before work starts that the directory can be written to.

        Raises:
            ArgumentError: it cannot be, or there is none.
            RunError: another run writes there.
        """
        self._find_directory(loop)

    def _find_directory(self, loop: TrainTestLoop) -> Path:
        # for the whole life of the component
        self.directory = directory_or_run_folder(
            self.directory, loop, "tensorboard", subfolder="tensorboard"
        )
        self.claim_directory("tensorboard", self.directory)
        return self.directory

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Take histograms, of the gradients with which the optimizer has stepped."""
        is_due = self.histograms and loop.global_step % self.histograms == 0
        if is_due and loop.is_training and loop.is_stepping:
            from ttl_tensorboard.histograms import histograms_of

            record = LogRecord({}, "batch", loop.global_step, loop.epoch_num, time.time())
            record.others.update(histograms_of(loop.model))
            self.collect(record)
        super().on_batch_end(loop)

    def open(self, loop: TrainTestLoop) -> None:
        """Describe the run."""
        from ttl_tensorboard import events  # imports tensorboard, which takes a second

        directory = self._find_directory(loop)
        if self._encoder is None:
            step = self._position["step"]
            self._description = events.describe_run(self.configuration(loop), loop.manifest(), step)
            if self.graph is not None:
                self._description += events.describe_model(loop.model, self.graph, self.skip)
            self._heading = self._description
            self._encoder = events.Encoder(self.skip)
        if self._file is None:
            self._file = EventFile(directory)

    def close(self, status: Literal["complete", "failed", "interrupted"]) -> None:
        """Write how the run has ended."""
        from ttl_tensorboard.events import describe_end

        if self._file is not None and self._is_at_position:
            self._file.append(describe_end(status, self._position["step"]))

    # -- writing ----------------------------------------------------------------------------

    def write(self, records: Sequence[LogRecord]) -> None:
        """Add the values of records to the event file.

        Args:
            records: the records.

        Raises:
            OSError: they cannot be written.
        """
        try:
            self._write(records)
        except FileNotFoundError as error:  # it was removed during the run
            _log.warning("tensorboard: %s. A new file is begun", error)
            assert self.directory is not None  # since open()
            self._file, self._heading = EventFile(self.directory), self._description
            self._position = {**_START, "step": self._position["step"]}
            self._is_at_position = False
            self._write(records)

    def _write(self, records: Sequence[LogRecord]) -> None:
        file, encoder = self._file, self._encoder
        assert file is not None and encoder is not None  # noqa: PT018  # since open()
        if not self._is_at_position:
            self._continue(file)
        position, data = self._position, bytearray()
        for record in records:
            if record.step != position["step"]:
                begin = file.size + len(data)
                position = {"step": record.step, "file": file.path.name, "begin": begin}
            data += encoder.encode(record)
        file.append(data)
        self._position = {**position, "end": file.size}

    # The readers of event files hide what was written from a step on if a file says that the run
    # was restarted there. A state is taken in the midst of the values of its last step, after those
    # of its batch and before those of its epoch. All of them are hidden, and those before the state
    # copied into the new file, just as they are.

    def _continue(self, file: EventFile) -> None:
        """Hide what was written after the position, and describe the run."""
        from ttl_tensorboard.events import begin

        position = self._position
        heading = begin(position["step"] if self._hides else None) + self._heading
        kept = b""
        if position["file"]:
            kept = read_events(file.path.with_name(position["file"]), position)
        start = file.size + len(heading)
        file.append(heading + kept)
        self._position = {
            "step": position["step"],
            "file": file.path.name,
            "begin": start,
            "end": file.size,
        }
        self._heading = b""
        self._hides = False
        self._is_at_position = True

    def position(self) -> dict[str, Any]:
        """Return the last step, and where its events are."""
        return dict(self._position)

    def seek(self, position: dict[str, Any]) -> None:
        """Forget what was written after a position.

        Args:
            position: what `position()` returned.
        """
        self._position = dict(position)
        self._hides = True
        self._is_at_position = False
