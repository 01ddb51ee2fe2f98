"""Configuration of components that differs between a script and the state that it resumes from."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ttl_core.hooks.member import Member
from ttl_core.state.matching import saved_names
from ttl_core.state.protocol import State
from ttl_core.state.settings import Difference

_log = logging.getLogger(__name__)


class _Default:
    """The value of an argument that is not given."""

    def __repr__(self) -> str:
        return "the default"


_DEFAULT = _Default()


def log_changes(members: Sequence[Member], state: State) -> None:
    """Log which components are configured in another way than when a state was taken.

    That is no error: it is how runs are changed on purpose. What an argument is may be hidden
    behind the name of its class, as of a loss function.

    Args:
        members: the members of the list.
        state: the state from which the run resumes.
    """
    found = [
        Difference(member.name, *values)
        for member, record in _pairs(members, state)
        for values in _differences(record.get("config") or {}, member.record()["config"])
    ]
    if found:
        _log.warning(
            "the run resumes with another configuration than its state was taken with:%s",
            "".join(f"\n    {one}" for one in found),
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
        one, other = before.get(name, _DEFAULT), now.get(name, _DEFAULT)
        if one != other:
            yield name, one, other
