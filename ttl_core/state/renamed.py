"""States of components whose entry points have been renamed since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ttl_core import discovery
from ttl_core.state.protocol import State


def with_current_names(state: Mapping[str, Any]) -> State:
    """Return a state in which components have the names that their entry points have now.

    Args:
        state: the state.
    """
    names: dict[str, str] = {}  # in the list, by former ones
    manifest = [dict(record) for record in state["manifest"]]
    for record in manifest:
        plugin = record.get("plugin")
        found = discovery.find_all(f"{record['distribution']}/{plugin}") if plugin else []
        if plugin and found and found[0].name != plugin:
            discovery.warn_of_former_name(plugin, str(found[0]))
            base, mark, number = record["name"].partition("#")
            record["plugin"] = found[0].name
            if base == plugin:
                names[record["name"]] = found[0].name + mark + number
                record["name"] = names[record["name"]]
    if not names:
        return dict(state)

    def renamed(path: str) -> str:
        parts = path.split(".")
        return ".".join([parts[0], names.get(parts[1], parts[1]), *parts[2:]])

    by_name = ("components", "state_versions")
    return {
        **state,
        "manifest": manifest,
        **{key: {names.get(n, n): v for n, v in state.get(key, {}).items()} for key in by_name},
        "generators": {
            renamed(path) if path.startswith("components.") else path: its
            for path, its in state.get("generators", {}).items()
        },
    }
