"""PyTorch's protocol of objects that have state."""

from __future__ import annotations

from typing import Any

State = dict[str, Any]
"""What `state_dict()` returns."""


def has_state(value: object) -> bool:
    """Return whether a value has the methods `state_dict()` and `load_state_dict()`."""
    return callable(getattr(value, "state_dict", None)) and callable(
        getattr(value, "load_state_dict", None)
    )
