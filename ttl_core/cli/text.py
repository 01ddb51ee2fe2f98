"""Text for a terminal: width, indentation, cut lines, and summaries of docstrings."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable


def summary(documented: object) -> str:
    """Return the first paragraph of the docstring of a class or function."""
    import inspect

    return (inspect.getdoc(documented) or "undocumented").partition("\n\n")[0]


def signature(function: Callable[..., object]) -> str:
    """Return the name of a callback point, and its arguments without `self`."""
    import inspect

    parameters = inspect.signature(function).parameters.values()
    shown = [str(each.replace(annotation=each.empty)) for each in parameters if each.name != "self"]
    return f"{function.__name__}({', '.join(shown)})"


def indent(text: str, by: int = 4, *, break_long: bool = False) -> str:
    """Return text wrapped and indented.

    Args:
        text: the text.
        by: the number of spaces.
        break_long: whether to break long words, which cannot be copied and pasted then.
    """
    wrapper = textwrap.TextWrapper(
        min(terminal_width(), 100) - by, break_long_words=break_long, break_on_hyphens=False
    )
    lines = [line for part in text.splitlines() for line in wrapper.wrap(part) or [""]]
    return textwrap.indent("\n".join(lines), " " * by)


def terminal_width() -> int:
    """Return the number of columns of the terminal; 80 where there is none."""
    return os.get_terminal_size().columns if sys.stdout.isatty() else 80


def cut(text: str) -> str:
    """Return text with each line cut to the width of the terminal."""
    width = terminal_width()
    return "\n".join(
        line if len(line) <= width else f"{line[: width - 1].rstrip()}…"
        for line in text.splitlines()
    )
