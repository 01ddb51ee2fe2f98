"""Pages: from a document to HTML, into a file, and back."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ttl_core.files import write_atomically
from ttl_report import formats
from ttl_report.environment import documentation_url

FORMAT = 1
"""The version of the data in a page."""

_HERE = Path(__file__).parent
_DATA = re.compile(rb'<script type="application/json" id="ttl-data">(.*?)</script>', re.DOTALL)


class PageError(ValueError):
    """A file that is not the report of a run, or not one that this version reads."""


def render(template: str, document: Mapping[str, Any], **values: Any) -> str:
    """Return the HTML of a document.

    Args:
        template: the name of the template.
        document: data that JSON can hold; the page holds it too.
        **values: other values of the template.
    """
    return _environment().get_template(template).render(document=document, **values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [_static("uplot/uPlot.iife.min.js"), _static("charts.js")]
    styles = [_static("uplot/uPlot.min.css") + _static("style.css")]
    environment.globals |= {
        "scripts": [Markup(script) for script in scripts],
        "styles": [Markup(style) for style in styles],
        "policy": _policy(scripts, styles),
        "uplot_license": Markup(_static("uplot/LICENSE")),
        "version": metadata.version("ttl-report"),
        "documentation_url": documentation_url,
    }
    environment.filters |= {
        "number": formats.number,
        "duration": formats.duration,
        "moment": formats.moment,
        "setting": formats.setting,
        "embedded": embedded,
    }
    return environment


def _static(name: str) -> str:
    return (_HERE / "static" / name).read_text(encoding="utf-8")


def _policy(scripts: list[str], styles: list[str]) -> str:
    """Return the policy of a page: its own scripts and styles, and nothing from elsewhere.

    Autoescape keeps what was logged from being markup; should it ever fail, nothing runs.
    """

    def digests(texts: list[str]) -> str:
        found = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in texts)
        return " ".join(f"'sha256-{digest.decode()}'" for digest in found)

    return (
        f"default-src 'none'; script-src {digests(scripts)}; style-src {digests(styles)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def embedded(document: Mapping[str, Any]) -> Markup:
    r"""Return a document as JSON that can be between the tags of a script.

    Example:
        >>> print(embedded({"name": "</script>"}))
        {"name":"\u003c/script\u003e"}
    """
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def write(path: Path, html: str) -> None:
    """Write a page, so that at any time the file is the previous page or this one.

    Args:
        path: the file; its folder is created if it is missing.
        html: the page.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name that was logged may hold half a character, which no encoding takes
    write_atomically(path, html.encode("utf-8", "backslashreplace"))


def read(path: Path) -> dict[str, Any]:
    """Return the document in the report of a run.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        PageError: it is not the report of a run, or of a later version.
    """
    found = _DATA.search(path.read_bytes())
    try:
        document = json.loads(found[1]) if found else None
    except ValueError:
        document = None
    if not isinstance(document, dict) or "format" not in document:
        raise PageError("it is no report of ttl-report, or it is damaged")
    if document["format"] != FORMAT:
        raise PageError(
            f"it has format {document['format']!r}, but this version of ttl-report reads format "
            f"{FORMAT}: install the version that has written it"
        )
    if document.get("kind") != "run":
        raise PageError("it is a comparison: give the folders of its runs")
    return document
