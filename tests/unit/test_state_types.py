"""loop.state_dict(): only what torch.load(weights_only=True) accepts may be in a state."""

from __future__ import annotations

import enum
import pathlib
import pickle
import re
from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import act_at
from states import Holder, is_same, make_step_loop, take_state, through_file

from ttl_core import LoopComponent, StateError

pytestmark = pytest.mark.usefixtures("one_thread")

PATHS = pathlib.PurePosixPath.__module__  # it is pathlib._local in Python 3.13


class Colour(enum.Enum):
    """An enumeration, which files cannot hold."""

    RED = 1


class Text(str):
    """A string of another type."""


class Record(dict):
    """A dict of another type."""


class Thing:
    """An object of an unknown type."""


@dataclass
class Data:
    """A dataclass."""

    x: int = 1


Point = namedtuple("Point", "x")
PLAIN = "plain Python values and tensors, and recreate it from them when they are loaded"
REFUSED = [
    (numpy.float64(1), "best is numpy.float64", "float(...)"),
    (numpy.int32(1), "best is numpy.int32", "int(...)"),
    (numpy.bool_(True), f"best is numpy.{numpy.bool_.__name__}", "bool(...)"),
    (numpy.zeros(2), "best is numpy.ndarray", "torch.from_numpy(...)"),
    (torch.Generator(), "best is torch._C.Generator", "its get_state()"),
    (deque(), "best is collections.deque", "list(...)"),
    (defaultdict(int), "best is collections.defaultdict", "dict(...)"),
    (pathlib.PurePosixPath("a"), f"best is {PATHS}.PurePosixPath", "str(...)"),
    (Colour.RED, f"best is {__name__}.Colour", "its value"),
    (Data(), f"best is {__name__}.Data", "dataclasses.asdict(...)"),
    (Point(1), f"best is {__name__}.Point", "tuple(...)"),
    (Text("a"), f"best is {__name__}.Text", "str(...)"),
    (Record(), f"best is {__name__}.Record", "dict(...)"),
    (lambda: 1, "best is builtins.function", PLAIN),
    (Thing(), f"best is {__name__}.Thing", PLAIN),
    (frozenset(), "best is builtins.frozenset", PLAIN),
    ({"a": [0, {2: numpy.float32(1)}]}, "best.a.1.2 is numpy.float32", "float(...)"),
    ((1, (numpy.float32(1),)), "best.1.0 is numpy.float32", "float(...)"),
    ({Text("k"): 1}, f"best is {__name__}.Text", "str(...)"),
    ({"a": {numpy.int64(3): 1}}, "best.a is numpy.int64", "int(...)"),
]


def name_of(value):
    """Return a short name of a value, for the names of tests."""
    return type(value).__name__


@pytest.mark.parametrize(("value", "leaf", "fix"), REFUSED, ids=name_of)
def test_a_value_that_a_file_cannot_hold_is_refused(value, leaf, fix):
    """The error names the component, the path of keys, the type, and what to return instead."""
    with pytest.raises(StateError) as caught:
        take_state(Holder(value, name="metrics"))
    text = str(caught.value)
    keys = [key for key in [*nested_keys(value)] if type(key) not in (str, int)]
    path = f"the key {keys[0]!r} of metrics." if keys else "metrics."
    expected = (
        "component 'metrics' (class states.Holder) has state that "
        f"torch.load(weights_only=True) refuses: {path}{leaf}: return {fix}"
    )
    assert expected == text
    with pytest.raises((pickle.PickleError, AttributeError, TypeError)):  # torch agrees
        through_file(value)


def nested_keys(value):
    """Yield the keys in a nested value."""
    if type(value) is dict:
        for key, item in value.items():
            yield key
            yield from nested_keys(item)


def test_a_value_can_be_refused_before_the_first_batch():
    """state_dict(allow_unsafe=True) in on_train_begin raises the error there."""
    loop = make_step_loop(
        Holder(deque()), act_at("on_train_begin", lambda loop: loop.state_dict(allow_unsafe=True))
    )
    with pytest.raises(StateError, match=r"holder\.best is collections\.deque: return list"):
        loop.train(1)
    assert 0 == loop.global_step


def test_values_are_refused_in_variables_and_metrics_too():
    """The error says whether the value is in a loop variable or in the metrics."""

    class Set(LoopComponent):
        def on_train_begin(self, loop):
            loop.memory = Holder(deque())

    what = r"the loop variable 'memory' has state .*: memory\.best is collections\.deque: return li"
    with pytest.raises(StateError, match=what):
        take_state(Set())
    log = act_at("on_batch_end", lambda loop: loop.log({"x": numpy.zeros(2)}, level="epoch"))
    what = r"the metrics has state .*: metrics\.train/x is numpy\.ndarray: return torch\.from_numpy"
    with pytest.raises(StateError, match=what):
        take_state(log)


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary(min_size=1)
    | st.sampled_from([torch.float32, torch.device("cpu"), torch.Size([2]), torch.ones(2, 2)])
    | st.builds(torch.zeros, st.lists(st.integers(0, 3), max_size=3))
)
keys = st.text() | st.integers() | st.none() | st.booleans() | st.floats(allow_nan=False)


def containers(inner):
    """Return nested values of these."""
    return (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3).map(OrderedDict)
    )


@settings(deadline=None)
@given(st.recursive(plain, containers, max_leaves=10))
def test_plain_values_are_accepted_and_loaded_unchanged(value):
    """Nested plain values and tensors are never refused, and are the same after loading."""
    loop = make_step_loop(Holder(value))
    its_state = loop.state_dict(allow_unsafe=True)["components"]["holder"]
    assert is_same({"best": value}, through_file(its_state))


@pytest.mark.parametrize(
    "value",
    [
        *(b"", 1 << 2048),
        pytest.param([1 << 2048]),
        pytest.param({1 << 2048: 1}),
    ],
    ids=["no bytes", "a huge number", "one in a list", "one as a key"],
)
def test_extreme_values_are_loaded_unchanged_or_refused(value):
    """A value at the limits of a plain type is refused, or is the same after loading."""
    try:
        state = take_state(Holder(value))
    except StateError:
        return
    assert {"best": value} == through_file(state["components"]["holder"])


paths = st.lists(st.integers(0, 2) | st.sampled_from("abc"), max_size=4)
refused = st.sampled_from([deque(), numpy.float32(1), Colour.RED, Thing(), Point(1), {1}.copy])


@settings(deadline=None)
@given(paths, refused, st.recursive(plain, containers, max_leaves=4))
def test_a_value_that_is_refused_is_always_found(path_to_leaf, leaf, other):
    """At any depth, and beside any other values, the error has the path of the value."""
    value = leaf
    for step in reversed(path_to_leaf):
        value = {"z": other, step: value} if isinstance(step, str) else [other] * step + [value]
    loop = make_step_loop(Holder(value))
    path = re.escape(".".join(map(str, ["holder", "best", *path_to_leaf])))
    name = re.escape(f"{type(leaf).__module__}.{type(leaf).__qualname__}")
    with pytest.raises(StateError, match=f"refuses: {path} is {name}: return "):
        loop.state_dict(allow_unsafe=True)
