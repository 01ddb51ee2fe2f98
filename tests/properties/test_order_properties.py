"""Calls after edits, toggles and requirements, compared with small models of §5 of the design."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import recording_hook

from ttl_core import LoopComponent, OrderWarning, RequirementError, TrainTestLoop, hookspec

NAMES = "abcde"
KINDS: dict[str, dict[str, bool]] = {
    "wrapper, first": {"wrapper": True, "tryfirst": True},
    "wrapper": {"wrapper": True},
    "wrapper, last": {"wrapper": True, "trylast": True},
    "first": {"tryfirst": True},
    "plain": {},
    "last": {"trylast": True},
}
"""The kinds of implementations, in the order in which they are called."""
POINTS = ("on_batch_end", "on_train_begin", "provider_point")


class Points:
    """The callback points that the components called `provider` provide."""

    @hookspec
    def provider_point(self, loop: Any) -> None:
        """Do nothing."""


kinds = st.sampled_from([*KINDS, None])
names = st.sampled_from(NAMES[:3])
hints = st.lists(st.sampled_from([*NAMES, "absent"]), max_size=2, unique=True).map(tuple)


@st.composite
def calling(draw: st.DrawFn) -> LoopComponent:
    """Return a component with hints, and with a kind of implementation, or none, of each point."""
    kind = {point: draw(kinds) for point in POINTS}
    methods = {
        point: recording_hook(**KINDS[kind[point]], optionalhook=True)
        for point in POINTS
        if kind[point]
    }
    hinted = {"after": draw(hints), "before": draw(hints)}
    body = {"name": draw(names), "kind": kind, **methods, **hinted}
    return type("Calling", (LoopComponent,), body)()


class Model:
    """What a list of components should contain, with the rule of §5 for its calls."""

    def __init__(self, components: Sequence[LoopComponent]) -> None:
        self.list = list(components)
        self.off: list[LoopComponent] = []

    def position(self, component: LoopComponent) -> int:
        return next(i for i, other in enumerate(self.list) if other is component)

    def is_enabled(self, component: LoopComponent) -> bool:
        return not any(other is component for other in self.off)

    def set_enabled(self, component: LoopComponent, on: bool) -> None:
        self.off = [other for other in self.off if other is not component]
        if not on:
            self.off.append(component)

    def remove(self, component: LoopComponent) -> LoopComponent:
        return self.list.pop(self.position(component))

    def insertion_index(self, new: Any) -> int:
        """Return where `add` inserts a component: before the first one that has to be after it."""
        for i, other in enumerate(self.list):
            if new.name != other.name and (new.name in other.after or other.name in new.before):
                return i
        return len(self.list)

    def calls(self, point: str) -> list[LoopComponent]:
        """Return the components to call at a point, kind by kind, and in each by the list."""
        return [
            component
            for kind in KINDS
            for component in self.list
            if self.is_enabled(component) and component.kind[point] == kind
        ]


def append(data: Any, model: Model, components: Any, new: Any) -> None:
    """Append a component."""
    model.list.append(new)
    components.append(new)


def insert(data: Any, model: Model, components: Any, new: Any) -> None:
    """Insert a component before another one, by name."""
    old = pick(data, model)
    model.list.insert(model.position(old), new)
    components.insert(name_of(components, old), new)


def add(data: Any, model: Model, components: Any, new: Any) -> None:
    """Add a component at the position that hints choose."""
    model.list.insert(model.insertion_index(new), new)
    components.add(new)


def replace(data: Any, model: Model, components: Any, new: Any) -> None:
    """Replace a component, by name."""
    old = pick(data, model)
    model.list[model.position(old)] = new
    components[name_of(components, old)] = new


def remove(data: Any, model: Model, components: Any, new: Any) -> None:
    """Remove a component, by name."""
    old = pick(data, model)
    components.remove(name_of(components, model.remove(old)))


def move(data: Any, model: Model, components: Any, new: Any) -> None:
    """Move a component beside another one."""
    moved, beside = pick(data, model), pick(data, model)
    side = data.draw(st.sampled_from(["before", "after"]))
    if moved is not beside:
        model.remove(moved)
        model.list.insert(model.position(beside) + (side == "after"), moved)
        components.move(name_of(components, moved), **{side: beside})


def swap(data: Any, model: Model, components: Any, new: Any) -> None:
    """Swap two components."""
    i, j = (model.position(pick(data, model)) for _ in range(2))
    model.list[i], model.list[j] = model.list[j], model.list[i]
    components[i], components[j] = components[j], components[i]


def reverse(data: Any, model: Model, components: Any, new: Any) -> None:
    """Reverse the list."""
    model.list.reverse()
    components.reverse()


def disable(data: Any, model: Model, components: Any, new: Any) -> None:
    """Disable a component, by name."""
    old = pick(data, model)
    model.set_enabled(old, on=False)
    components.disable(name_of(components, old))


def enable(data: Any, model: Model, components: Any, new: Any) -> None:
    """Enable a component, by name."""
    old = pick(data, model)
    model.set_enabled(old, on=True)
    components.enable(name_of(components, old))


FOR_EMPTY_LISTS = [append, add, reverse]
EDITS = [append, insert, add, replace, remove, move, swap, reverse, disable, enable]


def pick(data: Any, model: Model) -> Any:
    """Return any component of the list."""
    return model.list[data.draw(st.integers(0, len(model.list) - 1))]


def name_of(components: Any, component: LoopComponent) -> str:
    """Return the name that a component has in a list."""
    return components.names()[components.index(component)]


@contextmanager
def ignoring_order() -> Iterator[None]:
    """Give no warnings about hints that a list contradicts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OrderWarning)
        yield


def provider() -> LoopComponent:
    """Return a component that provides a callback point and implements none."""
    body = {"name": "provider", "hookspecs": Points, "kind": dict.fromkeys(POINTS)}
    return type("Provider", (LoopComponent,), body)()


def assert_calls_are_those_of(model: Model, loop: TrainTestLoop) -> None:
    """Check which components are called at each point, by loop.hook and by the loop itself."""
    is_provided = any(component.name == "provider" for component in model.list)
    assert is_provided == hasattr(loop.hook, "provider_point")
    for point in POINTS if is_provided else POINTS[:2]:
        loop.called = []
        getattr(loop.hook, point)(loop=loop)
        assert identities(model.calls(point)) == identities(loop.called)
    loop.called = []
    loop.train(0)
    assert identities(model.calls("on_train_begin")) == identities(loop.called)


def identities(components: Sequence[object]) -> list[int]:
    """Return the ids of objects."""
    return [id(component) for component in components]


@given(st.lists(calling() | st.builds(provider), max_size=5), st.data())
@settings(deadline=None, max_examples=150)
def test_after_any_edits_the_calls_follow_the_rule(
    start: list[LoopComponent], data: st.DataObject
) -> None:
    """After edits, moves and toggles by name, the next call of each point follows the rule.

    That is: wrappers, tryfirst, plain and trylast, and in each by the list, whatever the hints. The
    point that a component provides exists as long as a provider is in the list.
    """
    model = Model(start)
    with ignoring_order():
        loop = TrainTestLoop(torch.nn.Identity(), model.list, train_data=())
        assert_calls_are_those_of(model, loop)
        for edit in data.draw(st.lists(st.sampled_from(EDITS), max_size=8)):
            if model.list or edit in FOR_EMPTY_LISTS:
                new = data.draw(calling() | st.builds(provider))
                edit(data, model, loop.components, new)
                assert_calls_are_those_of(model, loop)


@given(st.lists(calling(), min_size=1, max_size=6), st.data())
@settings(deadline=None, max_examples=150)
def test_toggling_never_changes_the_order_of_the_others(
    components: list[LoopComponent], data: st.DataObject
) -> None:
    """The others are called in the same order, and an enabled component has its old position."""

    def called(point: str) -> list[int]:
        loop.called = []
        getattr(loop.hook, point)(loop=loop)
        return identities(loop.called)

    with ignoring_order():
        loop = TrainTestLoop(torch.nn.Identity(), [provider(), *components])
    before = {point: called(point) for point in POINTS}
    off = data.draw(st.lists(st.sampled_from(loop.components.names()), unique=True))
    hidden = identities([loop.components[name] for name in off])
    with loop.components.disabled(*off):
        for point in POINTS:
            assert [c for c in before[point] if c not in hidden] == called(point)
    assert before == {point: called(point) for point in POINTS}


# -- requirements ---------------------------------------------------------------------------


@st.composite
def requiring(draw: st.DrawFn) -> LoopComponent:
    """Return a component that may require others."""
    body = {
        "name": draw(names),
        "requires": draw(st.lists(names, max_size=1)),
        "kind": {"on_batch_end": "plain"},
        "on_batch_end": recording_hook(),
    }
    return type("Requiring", (LoopComponent,), body)()


def is_met(model: Model) -> bool:
    """Tell whether all that an enabled component requires is in the list and enabled."""
    on = [component for component in model.list if model.is_enabled(component)]
    return all(
        needed == component.name or any(other.name == needed for other in on)
        for component in on
        for needed in component.requires
    )


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_an_edit_is_refused_exactly_if_a_requirement_would_not_be_met(data: st.DataObject) -> None:
    """After each edit, the calls are those of the new list, or those of the old one."""
    model = Model([])
    loop = TrainTestLoop(torch.nn.Identity(), [])
    for edit in data.draw(st.lists(st.sampled_from(EDITS), max_size=12)):
        if not model.list and edit not in FOR_EMPTY_LISTS:
            continue
        next_model = Model(model.list)
        next_model.off = list(model.off)
        try:
            edit(data, next_model, loop.components, data.draw(requiring()))
        except RequirementError:
            assert not is_met(next_model)
        else:
            assert is_met(next_model)
            model = next_model
        loop.called = []
        loop.hook.on_batch_end(loop=loop)
        assert identities(model.list) == identities(loop.components)
        assert identities(model.calls("on_batch_end")) == identities(loop.called)
