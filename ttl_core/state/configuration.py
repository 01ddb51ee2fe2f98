"""Configuration of components that differs between a script and the state that it resumes from."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ttl_core.hooks.member import Member
from ttl_core.state.matching import saved_names
from ttl_core.state.protocol import State

_log = logging.getLogger(__name__)
_NOT_GIVEN = object()


def log_changes(members: Sequence[Member], state: State) -> None:
    """Log which components are configured in another way than when a state was taken.

    That is no error: it is how runs are changed on purpose. What an argument is may be hidden
    behind the name of its class, as of a loss function.

    Args:
        members: the members of the list.
        state: the state from which the run resumes.
    """
    lines = [
        f"\n    {member.name} {name}: {_shown(before)} saved, {_shown(now)} new"
        for member, record in _pairs(members, state)
        for name, before, now in _differences(record.get("config") or {}, member.record()["config"])
    ]
    if lines:
        _log.warning(
            "the run resumes with another configuration than its state was taken with:%s",
            "".join(lines),
        )


def _pairs(members: Sequence[Member], state: State) -> Iterator[tuple[Member, State]]:
    """Yield the members that were in the list when a state was taken, with their records."""
    records = {record["name"]: record for record in state["manifest"]}
    names = saved_names(members, state["manifest"])
    for member in members:
        record = records.get(names.get(member.name, ""))
        if record is not None:
            yield member, record


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*before, *now]):
        one, other = before.get(name, _NOT_GIVEN), now.get(name, _NOT_GIVEN)
        if one != other:
            yield name, one, other


def _shown(value: Any) -> str:
    if value is _NOT_GIVEN:
        return "the default"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
