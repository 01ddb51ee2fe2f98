"""Numbers, durations and times as a page shows them."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Any

UNKNOWN = "\N{EN DASH}"
"""What is shown for what is not known."""

_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
"""Units of time in seconds, each with the one that is shown behind it."""


def number(value: float | str | None) -> str:
    """Return a number in about four digits; whole ones, and texts such as "nan", as they are.

    Example:
        >>> [number(value) for value in (0.0312345, 1234567, 1e-7, 12.0, float("nan"))]
        ['0.03123', '1,234,567', '1e-07', '12', 'nan']
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e4 and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units.

    Example:
        >>> [duration(seconds) for seconds in (0.0123, 4.56, 75, 7265, 2e5)]
        ['12 ms', '4.6 s', '1 min 15 s', '2 h 1 min', '2 d 7 h']
    """
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995e-3:
        return f"{1e6 * seconds:.0f} \N{MICRO SIGN}s"
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    size, unit, smaller, name = next(each for each in _UNITS if whole >= each[0])
    return f"{whole // size} {unit} {whole % size // smaller} {name}"


def moment(seconds: float | None) -> str:
    """Return a time since 1970 as local date and time; a dash where it is not known."""
    if seconds is None:
        return UNKNOWN
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def setting(value: Any) -> str:
    """Return a value of a component's configuration as short text: objects by their last name.

    Example:
        >>> setting(0.1), setting("min"), setting({"lr": 0.1}), setting(None)
        ('0.1', 'min', '{"lr": 0.1}', 'none')
        >>> setting({"$object": "torch.nn.CrossEntropyLoss"})
        'CrossEntropyLoss'
        >>> setting({"$ref": "torch.optim:SGD", "lr": 0.1})
        'SGD(lr=0.1)'
    """
    if value is None:
        return "none"
    return value if isinstance(value, str) else _nested(value)


def _nested(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_nested, value))}]"
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    for mark in ("$object", "$ref", "$float"):  # as manifests hold what JSON has no type for
        if isinstance(value.get(mark), str):
            name = value[mark] if mark == "$float" else re.split("[.:]", value[mark])[-1]
            rest = ", ".join(f"{k}={_nested(v)}" for k, v in value.items() if k != mark)
            return f"{name}({rest})" if rest else name
    items = (f"{json.dumps(k, ensure_ascii=False)}: {_nested(v)}" for k, v in value.items())
    return f"{{{', '.join(items)}}}"
