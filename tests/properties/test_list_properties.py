"""The list of components compared with a plain list, and the calls with the rule of their order."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import recording_hook

from ttl_core import DuplicateComponentError, LoopComponent, TrainTestLoop

KINDS: list[dict[str, bool]] = [
    *({"wrapper": True, "tryfirst": True}, {"wrapper": True}, {"wrapper": True, "trylast": True}),
    *({"tryfirst": True}, {}, {"trylast": True}),
]
"""The options of an implementation, in the order in which they are called."""


def make_part(kind: int, name: str | None) -> LoopComponent:
    """Return a component whose implementation of on_batch_end is of one of KINDS."""
    body = {"name": name, "kind": kind, "on_batch_end": recording_hook(**KINDS[kind])}
    return type("Part", (LoopComponent,), body)()


POOL = [make_part(kind, name) for kind in range(len(KINDS)) for name in (None, None, "a", "part")]
Edit = Callable[[list[Any]], object]


def swap(components: list[Any]) -> None:
    """Swap the first and the last component."""
    components[0], components[-1] = components[-1], components[0]


def rotate(components: list[Any]) -> None:
    """Move the first component to the end."""
    components.append(components.pop(0))


def call(method: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Edit]:
    """Return a strategy for calls of a method of a list."""
    return st.builds(methodcaller, st.just(method), *arguments)


positions = st.integers(-6, 6)
slices = st.slices(5)
one = st.sampled_from(POOL)
several = st.lists(one, max_size=4)
edits = st.one_of(
    call("append", one),
    call("extend", several),
    call("__iadd__", several),
    call("__imul__", st.integers(0, 2)),
    call("insert", positions, one),
    call("__setitem__", positions, one),
    call("__setitem__", slices, several),
    call("__delitem__", positions | slices),
    call("pop", positions),
    call("remove", one),
    call("reverse"),
    call("clear"),
    st.just(methodcaller("sort", key=POOL.index)),
    st.sampled_from([swap, rotate]),
)


def outcome(edit: Edit, components: list[Any]) -> str | None:
    """Make an edit, and return the type of the error that it raised, if any."""
    try:
        edit(components)
    except (IndexError, ValueError) as error:
        return "IndexError" if isinstance(error, IndexError) else "ValueError"
    return None


def make_loop(components: list[LoopComponent]) -> TrainTestLoop:
    """Return a loop that records its calls."""
    loop = TrainTestLoop(torch.nn.Identity(), components)
    loop.called = []
    return loop


def names_of(loop: TrainTestLoop) -> dict[LoopComponent, str]:
    """Return the name of each component in the list."""
    return dict(zip(loop.components, loop.components.names(), strict=True))


def has_duplicates(components: list[LoopComponent]) -> bool:
    """Tell whether a component is in a list twice."""
    return len(set(components)) < len(components)


@given(several, st.lists(edits, max_size=12))
@settings(deadline=None, max_examples=150)
def test_a_list_of_components_holds_what_a_plain_list_holds(
    start: list[LoopComponent], changes: list[Edit]
) -> None:
    """After the same edits, both lists are the same, and both have refused the same edits."""
    plain, components = list(start), make_loop(start).components
    for edit in changes:
        assert outcome(edit, plain) == outcome(edit, components)
        assert plain == components


@given(several, st.lists(edits, max_size=12), st.sets(st.integers(0, 11)))
@settings(deadline=None, max_examples=150)
def test_names_are_unique_and_stay(
    start: list[LoopComponent], changes: list[Edit], calls: set[int]
) -> None:
    """No two components have the same name, and a component keeps its name while in the list."""
    loop = make_loop(start)
    for i, edit in enumerate(changes):
        before = names_of(loop)
        outcome(edit, loop.components)
        after = names_of(loop)
        assert len(after) == len(set(after.values()))
        if edit is rotate:  # which takes a component out and puts it in again
            continue
        staying = before.keys() & after.keys()
        assert {c: before[c] for c in staying} == {c: after[c] for c in staying}
        if i in calls and not has_duplicates(loop.components):
            loop.hook.on_batch_end(loop=loop)


@given(several, st.lists(edits, max_size=6), st.sets(one))
@settings(deadline=None, max_examples=150)
def test_calls_follow_the_list_under_the_rule(
    start: list[LoopComponent], changes: list[Edit], off: set[LoopComponent]
) -> None:
    """A hook calls wrappers, tryfirst, plain and trylast in this order, and in each by the list."""
    loop = make_loop(start)
    for edit in changes:
        outcome(edit, loop.components)
    loop.components.disable(*[c for c in loop.components if c in off])
    if has_duplicates(loop.components):
        with pytest.raises(DuplicateComponentError):
            loop.hook.on_batch_end(loop=loop)
    else:
        loop.hook.on_batch_end(loop=loop)
        enabled = [c for c in loop.components if c not in off]
        assert sorted(enabled, key=lambda c: c.kind) == loop.called
