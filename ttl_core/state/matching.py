"""Which component of a list, and which loop variable, each saved state belongs to."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ttl_core.arguments import did_you_mean, user_stacklevel
from ttl_core.errors import StateError
from ttl_core.hooks.member import Member
from ttl_core.state.gather import public_variables, stateful_variables
from ttl_core.state.optimizers import check_class, check_groups, is_of_another_class
from ttl_core.state.protocol import State, has_state
from ttl_core.state.versions import check_version, is_readable, version_in

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop


def saved_names(
    members: Sequence[Member], records: Iterable[State], ignore: Collection[str] = ()
) -> dict[str, str]:
    """Return the names that the members of a list have in a state, where they are in it.

    These are their own names. Only where several have one name with numbers, as "ema" and "ema#2",
    which say nothing but the place in a list, are they told apart by their configuration; one that
    is left over is still itself where its configuration has changed.

    Args:
        members: the members.
        records: the manifest of the state.
        ignore: names that may be left over.
    """
    saved = {record["name"]: record for record in records}
    there = {member.name: member.record() for member in members}
    numbered = _numbered(saved) | _numbered(there)
    found = {name: name for name in there if name in saved and _base(name) not in numbered}
    alike = [
        (name, other)
        for name, record in there.items()
        for other, saved_record in saved.items()
        if {_base(name), _base(other)} & numbered
        and _class_name(record) == _class_name(saved_record)
        and record["config"] == saved_record.get("config")
    ]
    for name, other in sorted(alike, key=lambda names: names[0] != names[1]):
        if name not in found and other not in found.values():
            found[name] = other
    for name, record in there.items():
        old, new = _left_over(_class_name(record), saved, there, found, ignore)
        if old == new == [name]:
            found[name] = name
    return found


def match_components(
    members: Sequence[Member], state: State, ignore: Collection[str]
) -> dict[str, Member]:
    """Return the members to load by their names in a state; warn of those of another version.

    Args:
        members: the members of a list.
        state: the state of a loop.
        ignore: names of components whose state may be missing, unused, or of an unknown version.

    Raises:
        StateError: a state or a component is left over, or is one of several that cannot be told
            apart, or the state is of a version that the component does not read.
    """
    saved, records = state["components"], {record["name"]: record for record in state["manifest"]}
    there = {member.name: member for member in members if has_state(member.component)}
    names = saved_names(members, state["manifest"], ignore)
    _check_told_apart({name: records[name] for name in saved}, there, names, ignore)
    for name in saved.keys() - {names.get(name) for name in there} - set(ignore):
        raise StateError(
            f"the state holds component {name!r} ({_origin(records[name])}), but no component of "
            f"that name with state is in the list. {did_you_mean(name, there)}Add it, or "
            f"resume without it: ignore=[{name!r}]"
        )
    found: dict[str, Member] = {}
    for name, member in there.items():
        saved_name = names.get(name, "")
        if saved_name in saved:
            version = version_in(state, saved_name)
            if name in ignore and not is_readable(member, version):
                continue
            check_version(member, version, records[saved_name])
            _warn_of_another_release(member, records[saved_name])
            found[saved_name] = member
        elif name not in ignore and _class_of(records.get(saved_name)) != _class_of(
            member.record()
        ):
            # of the same class, it was in the list when it had no state yet: before an upgrade
            raise StateError(
                f"{member} has state, but the state holds none for it: it was not in the list. To "
                f"start it from scratch: ignore=[{name!r}]"
            )
    return found


def match_variables(
    loop: TrainTestLoop, members: Sequence[Member], state: State, ignore: Collection[str]
) -> dict[str, Any]:
    """Return the loop variables to load by their names, optimizers and then schedulers first.

    Args:
        loop: the loop.
        members: the members of its list, whose components are no variables.
        state: the state of a loop.
        ignore: names of variables whose state may be missing, unused, or of another class.

    Raises:
        StateError: a state or a variable is left over, or does not fit.
    """
    saved, structure = state["variables"], state.get("structure", {})
    there = stateful_variables(loop, members)
    named = public_variables(loop)
    found: dict[str, Any] = {}
    for name in saved:
        value = named.get(name)
        if has_state(value):
            record = structure.get(name)
            if name in ignore and is_of_another_class(value, record):
                continue
            check_class(name, value, record)
            check_groups(name, value, saved[name], record, loop.model)
            found[name] = value
        elif name not in ignore:
            raise _missing_variable(name, there)
    for name in state.get("hidden", {}).keys() - set(ignore):
        if not has_state(named.get(name)):
            raise _missing_variable(name, there)
    known = {id(value) for value in found.values()}
    for name, value in there.items():
        if id(value) not in known and name not in ignore and value.state_dict():
            raise StateError(
                f"the loop variable {name!r}, a {type(value).__name__}, has state, but the state "
                f"holds none for it. To start it from scratch: ignore=[{name!r}]"
            )
    optimizers = {n: v for n, v in found.items() if isinstance(v, Optimizer)}
    schedulers = {n: v for n, v in found.items() if isinstance(v, LRScheduler)}
    return optimizers | schedulers | found


def _missing_variable(name: str, there: Collection[str]) -> StateError:
    return StateError(
        f"the state holds the loop variable {name!r}, which is not set at the end of "
        f"on_train_begin. Variables with state are: {', '.join(there) or 'none'}. Add "
        f"the component that sets it, or resume without it: ignore=[{name!r}]"
    )


# -- several of one name --------------------------------------------------------------------


def _base(name: str) -> str:
    return name.partition("#")[0]


def _numbered(names: Iterable[str]) -> set[str]:
    """Return the names that several components have, apart from their numbers."""
    return {base for base, count in Counter(map(_base, names)).items() if count > 1}


def _class_name(record: State) -> str:
    name: str = record["class"]
    return name.rpartition(".")[2]  # its module may be another one in another version


def _left_over(
    class_name: str,
    saved: Mapping[str, State],
    there: Mapping[str, State],
    found: Mapping[str, str],
    ignore: Collection[str],
) -> tuple[list[str], list[str]]:
    """Return the names of one class in a state and in a list that belong to none in the other."""

    def left(records: Mapping[str, State], used: Collection[str]) -> list[str]:
        names = records.keys() - used - set(ignore)
        return sorted(name for name in names if _class_name(records[name]) == class_name)

    return left(saved, found.values()), left(there, found.keys())


def _check_told_apart(
    saved: Mapping[str, State],
    members: Mapping[str, Member],
    found: Mapping[str, str],
    ignore: Collection[str],
) -> None:
    """Check that none of several components of one name is left over on both sides.

    Args:
        saved: what the manifest says of the components that the state holds, by name.
        members: the members of components with state, by name.
        found: the names in the state of those that were found.
        ignore: names that may be left over.

    Raises:
        StateError: there are such components.
    """
    there = {name: member.record() for name, member in members.items()}
    numbered = _numbered(saved) | _numbered(there)
    for class_name in dict.fromkeys(map(_class_name, there.values())):
        old, new = _left_over(class_name, saved, there, found, ignore)
        if old and new and numbered & {_base(name) for name in old + new}:
            raise StateError(
                f"the state does not tell which of several {class_name} is which, as their "
                f"configuration has changed:\n"
                f"    saved: {_described(old, saved)}\n"
                f"    new: {_described(new, there)}\n"
                "Resume with the saved configuration, or without these states: "
                f"ignore={sorted({*old, *new})}. Names of their own tell them apart from then on, "
                "whatever their configuration is: use(..., name=...), or the attribute `name`"
            )


def _described(names: Iterable[str], records: Mapping[str, State]) -> str:
    def described(name: str) -> str:
        config = records[name].get("config") or {}
        return " ".join([repr(name), *(f"{key}={value!r}" for key, value in config.items())])

    return ", ".join(map(described, names))


# -- where they are from --------------------------------------------------------------------


def _warn_of_another_release(member: Member, record: State) -> None:
    now = member.record()
    if (record["distribution"], record["version"]) != (now["distribution"], now["version"]):
        warnings.warn(
            f"{member} resumes from the state of {_origin(record)}. If that does not fit, install "
            "that version",
            UserWarning,
            stacklevel=user_stacklevel(),
        )


def _class_of(record: State | None) -> object:
    return record and record["class"]


def _origin(record: State) -> str:
    by = " ".join(filter(None, (record["distribution"], record["version"])))
    return by or f"class {record['class']}"
