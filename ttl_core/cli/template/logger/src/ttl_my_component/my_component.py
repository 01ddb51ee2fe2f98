"""The component `my-component`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ttl_core import Logger, LogRecord, TrainTestLoop
from ttl_core.arguments import absolute_path


class MyComponent(Logger):
    """Write what is logged to a text file, a line for each value.

    Args:
        path: the file; a run that does not resume empties it.
        level: "batch" or "epoch" for the values of one level only; both by default.
        every: write the values of batches at each so many steps.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> import tempfile
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> path = Path(tempfile.mkdtemp()) / "values.txt"
        >>> model, data = ComponentConformance.make_model(), ComponentConformance.make_data()
        >>> loop = TrainTestLoop(model, [Step(), MyComponent(path=path)], data)
        >>> loop.train(n_epochs=1)
        >>> [line.rsplit(maxsplit=1)[0] for line in path.read_text().splitlines()]
        ['0 train/loss', '1 train/loss', '2 train/loss']
    """

    def __init__(
        self,
        *,
        path: str | Path = "values.txt",
        level: Literal["batch", "epoch"] | None = None,
        every: int = 1,
    ) -> None:
        super().__init__(level=level, every=every)
        self.path = absolute_path("path", path)
        self._size = 0  # bytes that hold whole lines

    def open(self, loop: TrainTestLoop) -> None:
        """Open the file, and remove what is behind the position that a run resumes from."""
        self.path.touch()
        self._file = self.path.open("r+b")
        self._file.truncate(self._size)

    def write(self, records: Sequence[LogRecord]) -> None:
        """Write all records, or after an error the same ones once more at the same place.

        Args:
            records: what was logged.
        """
        lines = []
        for record in records:
            lines += [f"{record.step} {name} {value}\n" for name, value in record.values.items()]
            for name in record.others:
                self.skip(name, "it is no number")
        data = "".join(lines).encode()
        self._file.seek(self._size)
        self._file.write(data)
        self._file.flush()
        self._size += len(data)

    def close(self, status: Literal["complete", "failed", "interrupted"]) -> None:
        """Close the file.

        Args:
            status: how the run has ended.
        """
        self._file.close()

    def position(self) -> int:
        """Return how much has been written, in bytes."""
        return self._size

    def seek(self, position: Any) -> None:
        """Have `open()` remove what was written after a position.

        Args:
            position: what `position()` returned.
        """
        self._size = position
