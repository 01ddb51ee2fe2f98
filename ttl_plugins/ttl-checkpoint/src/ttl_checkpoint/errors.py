"""The errors that checkpoints on disk can cause."""

from __future__ import annotations

import unicodedata
import warnings

from ttl_core import TTLError
from ttl_core.arguments import user_stacklevel

_warned: set[str] = set()


class CheckpointError(TTLError, OSError):
    """A checkpoint that cannot be written or read."""


class CorruptError(CheckpointError):
    """A checkpoint whose files differ from what was written."""


def is_printable(text: str) -> bool:
    """Return whether a text has no control characters, which could act on a terminal."""
    return not any(map(_is_control, text))


def printable(text: object) -> str:
    r"""Return a text with its control characters escaped.

    Example:
        >>> printable("\x1b[2J of 1 \N{DEGREE SIGN}")
        '\\x1b[2J of 1 °'
    """
    return "".join(
        character.encode("unicode_escape").decode() if _is_control(character) else character
        for character in str(text)
    )


def _is_control(character: str) -> bool:
    # among them lone surrogates, which no stream can encode; Zl and Zp are separators of lines
    category = unicodedata.category(character)
    return category.startswith("C") or category in ("Zl", "Zp")


def os_reason(error: OSError) -> str:
    """Return the system's own words for an error, without number and path."""
    return error.strerror or str(error)


def warn_once(text: str) -> None:
    """Warn, unless this process has given the same warning before."""
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, UserWarning, stacklevel=user_stacklevel())
