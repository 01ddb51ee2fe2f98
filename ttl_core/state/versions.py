"""The versions of what components return as their state, and upgrades from older ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ttl_core.errors import StateError
from ttl_core.hooks.member import Member
from ttl_core.state.gather import noting_component
from ttl_core.state.protocol import State
from ttl_core.state.snapshot import snapshot


def version_in(state: State, name: str) -> int:
    """Return the version of the state of a component.

    Args:
        state: the state of a loop.
        name: the name of the component in it.
    """
    version: int = state.get("state_versions", {}).get(name, 1)  # ttl-core 0.1 saved none
    return version


def check_version(member: Member, version: int, record: State) -> None:
    """Check that a component reads states of a version.

    Args:
        member: the member of the component.
        version: the version of the state.
        record: what the manifest of the state says of the component.

    Raises:
        StateError: it does not.
    """
    if is_readable(member, version):
        return
    now = member.component.state_version
    problem = f"is later than version {now}, the one that this component reads"
    if version < now:
        problem = f"is older than version {now}, and this component has no upgrade_state()"
    fix = f"Use the class of that time, {record['class']}"
    if record["distribution"]:
        fix = f"Install what saved it: pip install '{record['distribution']}=={record['version']}'"
    raise StateError(
        f"{member} cannot load its state of version {version}, which {problem}. {fix}. Or start "
        f"it from scratch: ignore=[{member.name!r}]"
    )


def is_readable(member: Member, version: int) -> bool:
    """Return whether a component reads states of a version, after an upgrade if need be."""
    component = member.component
    now: int = component.state_version
    return version == now or (version < now and hasattr(component, "upgrade_state"))


def upgraded_states(components: Mapping[str, Member], state: State) -> State:
    """Return the states of components in the versions that these read.

    Args:
        components: the members of components by their names in the state.
        state: the state of a loop, which is not changed.

    Raises:
        StateError: a component returned none.
    """
    states = {}
    for name, member in components.items():
        version, states[name] = version_in(state, name), state["components"][name]
        if version != member.component.state_version:
            with noting_component(member, "upgrade_state"):
                copy: Any = snapshot(states[name])
                states[name] = member.component.upgrade_state(copy, version)
            if states[name] is None:
                raise StateError(
                    f"{member} has lost its state: its upgrade_state() returned None, but has to "
                    "return the state of the new version"
                )
    return states
