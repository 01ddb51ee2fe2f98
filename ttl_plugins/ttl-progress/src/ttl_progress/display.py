"""The display in a terminal: a row for each epoch under way, below all that is printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import chain

import rich
from rich.console import Console, RenderableType
from rich.control import strip_control_codes
from rich.live import Live
from rich.segment import Segment, Segments
from rich.table import Table

from ttl_progress.epoch import SEPARATOR
from ttl_progress.log_streams import LogStreams


class Display:
    """Rows below all that is printed in a terminal, and lines in any output.

    Args:
        console: where to print; None for rich's own console.
    """

    def __init__(self, console: Console | None) -> None:
        self._given_console = console
        self._live: Live | None = None
        self._log_streams = LogStreams()

    def start(self) -> bool:
        """Start to show rows, if the output is a terminal; return whether it is."""
        if self._live is None and self.is_live:
            # without a thread: only the loop's own thread reads tensors
            is_transient = not self._console.is_jupyter
            self._live = Live(console=self._console, auto_refresh=False, transient=is_transient)
            self._log_streams = LogStreams()
            self._live.start()
            self._log_streams.replace()
            # rich hides it, and a process that is killed would leave the terminal without one
            self._console.show_cursor(True)
        return self._live is not None

    def show(self, rows: Iterable[Sequence[RenderableType]]) -> None:
        """Show rows in place of the present ones, if the display was started."""
        if self._live is None:
            return
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for _ in ("batches", "rate", "time left"):
            table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, ratio=2)
        for row in rows:
            table.add_row(*row)
        self._live.update(table, refresh=True)

    def stop(self) -> None:
        """Remove the rows, and leave the terminal as it was."""
        if self._live is not None:
            self._log_streams.restore()
            self._live.stop()
            if self._live.ipy_widget is not None:
                # Empty, it has no height. If it was closed, messages about it that are still on
                # their way from the page would become warnings in the middle of the output.
                self._live.ipy_widget.clear_output()
            self._live = None

    def print(self, line: str) -> None:
        """Print a line above the rows, without markup; in a terminal, broken between its parts."""
        lines = [line]
        if len(line) > self.width and self.is_live:
            lines = _broken(line, self.width)
        # segments are faster than a Text
        pairs = ((Segment(strip_control_codes(each)), Segment.line()) for each in lines)
        self._console.print(Segments(chain.from_iterable(pairs)), soft_wrap=True)

    def print_table(self, table: Table) -> None:
        """Print a table above the rows."""
        self._console.print(table)

    @property
    def width(self) -> int:
        """The number of columns of the output."""
        return self._console.width

    @property
    def _console(self) -> Console:
        return self._given_console or rich.get_console()

    @property
    def is_live(self) -> bool:
        """Whether the output is a terminal, or a notebook with widgets."""
        console = self._console
        if console.is_jupyter:
            return find_spec("ipywidgets") is not None  # with which rich updates the rows
        # with FORCE_COLOR, rich's own console takes every output for a terminal
        return console.is_interactive and (self._given_console is not None or console.file.isatty())


def _broken(line: str, width: int) -> list[str]:
    """Return a line as several, none of which is longer than a width, if its parts are not."""
    lines = [""]
    for part in line.split(SEPARATOR):
        joined = SEPARATOR.join(filter(None, (lines[-1], part)))
        if len(joined) <= width or not lines[-1].strip():
            lines[-1] = joined
        else:
            lines.append(f"    {part}")
    return lines
