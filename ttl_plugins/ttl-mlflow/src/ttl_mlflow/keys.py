"""Keys of MLflow for names of any characters."""

from __future__ import annotations

import hashlib
import posixpath
import re

_MAX_LENGTH = 250  # of a key in MLflow's stores
_ESCAPED = re.compile(r"[^/\w.\- ]|-(?=0x)")  # what MLflow refuses, and what looks like an escape


def key_of(name: str) -> str:
    """Return the key for a name: the name itself, if MLflow takes it.

    Other characters are written as their number: "acc@5" is "acc-0x40-5". No two names have the
    same key.

    Args:
        name: the name.

    Example:
        >>> key_of("train/loss"), key_of("acc@5"), key_of("a//b")
        ('train/loss', 'acc-0x40-5', 'a-0x2f--0x2f-b')
    """
    key = _ESCAPED.sub(lambda match: _escaped(match[0]), name)
    if not key or posixpath.normpath(key) != key or key.startswith((".", "/")):  # as of a file
        key = re.sub(r"^\.|/", lambda match: _escaped(match[0]), key) or "-0x-"
    if len(key) > _MAX_LENGTH:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        key = f"{key[: _MAX_LENGTH - len(digest) - 4]}-0x-{digest}"
    return key


def _escaped(character: str) -> str:
    return f"-{ord(character):#x}-"
