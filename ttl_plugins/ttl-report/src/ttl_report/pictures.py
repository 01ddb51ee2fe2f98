"""The pictures in the folder of a run, which its page shows."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import NamedTuple

_MOST = 4
_LARGEST = 1 << 20  # bytes, so that pages stay of a few megabytes
_BEGIN, _END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class Picture(NamedTuple):
    """A picture.

    Attributes:
        name: the name of its file, without its type.
        source: what it is, as a URI that needs no file.
    """

    name: str
    source: str


def pictures_in(folder: Path) -> list[Picture]:
    """Return the first PNG files of a folder, by name; those that are not complete are left out.

    Args:
        folder: the folder.
    """
    found: list[Picture] = []
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("*.png")):
            if len(found) < _MOST and path.is_file() and path.stat().st_size <= _LARGEST:
                content = path.read_bytes()
                if content.startswith(_BEGIN) and content.endswith(_END):
                    text = base64.b64encode(content).decode()
                    found.append(Picture(path.stem, f"data:image/png;base64,{text}"))
    return found
