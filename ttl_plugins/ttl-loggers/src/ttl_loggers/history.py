"""The component `history`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ttl_core import Logger, LogRecord, PluginError
from ttl_loggers.rows import Row, add_records

_KEYS = ("epoch", "step")


class History(Logger):
    """The values of whole epochs, in memory. They are part of the state.

    Example:
        >>> from ttl_core import LoopComponent, TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> class LogLoss(LoopComponent):
        ...     def on_epoch_end(self, loop):
        ...         loop.log({"n_batches": loop.batch_num + 1}, level="epoch")
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), LogLoss(), History()],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=2)
        >>> for row in loop.components["history"].rows:
        ...     print(row)
        {'epoch': 0, 'step': 3, 'train/n_batches': 3}
        {'epoch': 1, 'step': 6, 'train/n_batches': 3}
    """

    main_only = False  # each process of a group may read its values

    def __init__(self) -> None:
        super().__init__(level="epoch")
        self._rows: list[Row] = []

    @property
    def rows(self) -> list[Row]:
        """A dict for each epoch: "epoch", "step" (`loop.global_step`), and values by name.

        Values that are logged at other steps, or a second time, have a dict of their own.
        """
        self.flush()
        return self._rows

    def to_pandas(self) -> Any:
        """Return the rows as a pandas.DataFrame, with NaN where a row has no value.

        Raises:
            PluginError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")  # only this method needs it
        except ImportError as error:
            raise PluginError(
                "history: to_pandas() needs pandas, which is not installed. Run "
                "`pip install pandas`, or use `rows`, which needs nothing"
            ) from error
        return pandas.DataFrame(self.rows, columns=None if self.rows else list(_KEYS))

    def write(self, records: Sequence[LogRecord]) -> None:
        """Add the values of records to the rows.

        Args:
            records: the records.
        """
        add_records(self._rows, records, self.skip, _KEYS)

    def position(self) -> list[dict[str, Any]]:
        """Return the rows."""
        return [dict(row) for row in self._rows]

    def seek(self, position: list[dict[str, Any]]) -> None:
        """Restore the rows.

        Args:
            position: what `position()` returned.
        """
        self._rows = [dict(row) for row in position]
