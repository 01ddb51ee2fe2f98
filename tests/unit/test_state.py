"""loop.state_dict() and loop.load_state_dict(): when, what a state holds, and what fits it."""

from __future__ import annotations

import copy
import enum
import io
import math
import pathlib
import pickle
import random
import re
import sys
import warnings
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_core import (
    ArgumentError,
    LoopComponent,
    RunError,
    StateError,
    TrainTestLoop,
    hookimpl,
)
from ttl_core import state as core_state
from ttl_core.hookspecs import POINTS
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")

make_model, make_data = ComponentConformance.make_model, ComponentConformance.make_data


def position_of(loop):
    """Return the position in a state that may be taken at any point."""
    return loop.state_dict(allow_unsafe=True)["position"]


class Holder(LoopComponent):
    """Have a state of one value.

    Args:
        value: the value.
        name: its name in the list.
    """

    def __init__(self, value=0, name="holder"):
        self.value = value
        self.name = name

    def state_dict(self):
        return {"best": self.value}

    def load_state_dict(self, state):
        self.value = state["best"]


class Keep(LoopComponent):
    """Keep the state at each safe point."""

    def __init__(self, **options):
        self.options = options
        self.states = []

    def on_safe_point(self, loop):
        self.states.append(loop.state_dict(**self.options))


class Draw(LoopComponent):
    """Draw a random number in each training batch."""

    def __init__(self, draw):
        self.draw = draw
        self.seen = []

    def on_batch_begin(self, loop):
        self.seen.append(float(self.draw()))


def act(point, action):
    """Return a component that does something at a point, on both sides where it is around."""

    @hookimpl(wrapper=True)
    def around(loop):
        action(loop)
        try:
            return (yield)
        finally:
            action(loop)

    hook = around if point.startswith("around_") else lambda loop: action(loop)
    return type("Act", (LoopComponent,), {point: staticmethod(hook)})()


def make_loop(*components, data=None, valid_data=None, model=None, step=Step):
    """Return a loop of plain steps and other components."""
    return TrainTestLoop(
        model or make_model(), [step(), *components], data or make_data(), valid_data
    )


def taken(*components, n_epochs=1, index=0, **options):
    """Return the state at a safe point of a run, the first one by default."""
    keep = Keep()
    make_loop(*components, keep, **options).train(n_epochs)
    return keep.states[index]


def through_file(state):
    """Return what comes back from a file, as safely as checkpoints are loaded."""
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


def is_same(one, other):
    """Tell whether two nested values are equal in types and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if isinstance(one, dict):
        return list(one) == list(other) and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    return repr(one) == repr(other)  # 0.0 is not -0.0, and nan is nan


# -- when -----------------------------------------------------------------------------------


def runs_through(point, action):
    """Train, validate and test with an action at a point, and fail where that is to happen."""
    is_failing = point == "on_exception"
    loop = make_loop(act(point, action), valid_data=make_data(1))
    if is_failing:
        loop.components.append(act("on_epoch_end", lambda loop: 1 // 0))
    for run, argument in ((loop.train, 1), (loop.test, make_data(1))):
        try:
            run(argument)
        except ZeroDivisionError:
            assert is_failing
    return loop


@pytest.mark.parametrize("point", [point for point in POINTS if point != "on_safe_point"])
def test_a_state_is_refused_at_every_other_point(point):
    """Where components may be half-way through something, no run could go on."""
    texts = set()

    def ask(loop):
        with pytest.raises(RunError) as caught:
            loop.state_dict()
        texts.add(str(caught.value))

    runs_through(point, ask)
    expected = (
        "state_dict() was called where no run could go on from it: components may be half-way "
        "through a batch. Call it in on_safe_point"
    )
    assert {expected} == texts


@pytest.mark.parametrize(
    "point",
    [p for p in POINTS if p not in ("on_safe_point", "on_train_end", "around_run")],
)
def test_a_state_to_look_into_has_no_position(point):
    """With allow_unsafe=True there is a state at every point, from which no run can resume."""
    positions = []
    runs_through(
        point, lambda loop: positions.append(loop.state_dict(allow_unsafe=True)["position"])
    )
    assert positions
    assert {None} == set(positions)


def test_a_state_is_refused_outside_a_run():
    """Before a run and after it there is no safe point."""
    loop = make_loop()
    for _ in range(2):
        with pytest.raises(RunError, match="Call it in on_safe_point"):
            loop.state_dict()
        assert loop.state_dict(allow_unsafe=True)["position"] is None
        loop.train(1)


def test_a_state_is_refused_in_a_nested_validation():
    """A validate() that is called at a safe point is none itself, but the point goes on to be."""
    positions = []

    class Validate(LoopComponent):
        def on_safe_point(self, loop):
            loop.validate()
            positions.append(loop.state_dict()["position"]["epoch"]["n_batches"])
            loop.components.remove(self)

        def on_batch_end(self, loop):
            if loop.is_validating:
                with pytest.raises(RunError, match="Call it in on_safe_point"):
                    loop.state_dict()
                positions.append(loop.state_dict(allow_unsafe=True)["position"])

    make_loop(Validate(), valid_data=make_data(1)).train(1)
    assert [None, 1] == positions


def test_there_is_a_position_after_the_last_safe_point():
    """In on_train_end of a run that came to its end, a state to go on from can still be had."""
    positions = []
    look = act(
        "on_train_end",
        lambda loop: positions.append(loop.state_dict(allow_unsafe=True)["position"]),
    )
    make_loop(look).train(2)
    assert [(2, 6, False)] == [
        (position["epoch_num"], position["global_step"], position["is_stopped"])
        for position in positions
    ]


@pytest.mark.parametrize(
    ("point", "expected"), [("on_safe_point", True), ("on_batch_end", None), ("on_epoch_end", None)]
)
def test_a_run_that_was_stopped_at_a_safe_point_has_a_position(point, expected):
    """Stopped elsewhere, a run is half-way through a batch or an epoch when it ends."""
    positions = []
    look = act(
        "on_train_end",
        lambda loop: positions.append(loop.state_dict(allow_unsafe=True)["position"]),
    )
    make_loop(act(point, lambda loop: loop.stop()), look).train(1)
    assert [expected] == [position and position["is_stopped"] for position in positions]


# -- what a state holds ---------------------------------------------------------------------


def test_a_state_holds_these_things():
    """Its keys are fixed, and each part is what the loop had."""
    holder, keep = Holder(5), Keep(copy=False)
    loop = make_loop(holder, keep)
    loop.train(1)
    state = keep.states[-1]
    assert ["best"] == list(state["components"]["holder"])
    assert {
        "version",
        "position",
        "model",
        "variables",
        "metrics",
        "components",
        "random",
        "data",
        "environment",
        "manifest",
    } == state.keys()
    assert is_same(loop.model.state_dict(), state["model"])
    assert is_same(loop.optimizer.state_dict(), state["variables"]["optimizer"])
    assert is_same(loop.scheduler.state_dict(), state["variables"]["scheduler"])
    assert loop.manifest() == state["manifest"]


def test_a_position_says_where_the_run_stands():
    """Inside an epoch it has the number of batches, else none; counts are the loop's."""
    keep = Keep()
    make_loop(keep, valid_data=make_data(1)).train(2)
    found = [
        (p["epoch"] and p["epoch"]["n_batches"], p["epoch_num"], p["is_trained"], p["global_step"])
        for p in (state["position"] for state in keep.states)
    ]
    expected = [
        *((1, 0, False, 1), (2, 0, False, 2), (None, 0, True, 3), (None, 1, False, 3)),
        *((1, 1, False, 4), (2, 1, False, 5), (None, 1, True, 6), (None, 2, False, 6)),
    ]
    assert expected == found


def variables_of(**variables):
    """Return what a state holds of plain steps and these variables: functions of the loop."""

    class Set(LoopComponent):
        def on_train_begin(self, loop):
            for name, value in variables.items():
                setattr(loop, name, value(loop))

    return taken(Set(), Holder(name="other"))["variables"]


def test_an_object_with_two_names_is_held_once():
    """What is one and the same object is saved under the first of its names."""
    memory = Holder(7)
    found = variables_of(
        opt=lambda loop: loop.optimizer,
        net=lambda loop: loop.model,
        memory=lambda loop: memory,
        other_name=lambda loop: memory,
    )
    assert ["optimizer", "scheduler", "memory"] == list(found)


@pytest.mark.parametrize(
    "variables",
    [
        {"_private": lambda loop: Holder()},
        {"kind": lambda loop: Holder},
        {"criterion": lambda loop: torch.nn.CrossEntropyLoss()},
        {"alias": lambda loop: loop.components["other"]},
        {"rate": lambda loop: 0.1},
    ],
    ids=["private", "a class", "nothing to save", "a component", "no state"],
)
def test_what_is_no_public_variable_with_state_is_not_held(variables):
    """Private variables, classes, components and what has nothing to save stay out."""
    assert ["optimizer", "scheduler"] == list(variables_of(**variables))


def test_data_are_not_a_variable():
    """Data with a state of their own are asked for it, but not saved as a variable."""

    class Data(list):
        def state_dict(self):
            return {"at": 1}

        def load_state_dict(self, state):
            pass

    state = taken(data=Data(make_data()), valid_data=Data(make_data(1)))
    assert ["optimizer", "scheduler"] == list(state["variables"])
    assert {"train": {"loader": {"at": 1}}, "valid": {"loader": {"at": 1}}} == state["data"]
    assert {"at": 1} == state["position"]["epoch"]["loader"]


def test_components_that_are_off_are_held_too():
    """Every component with state is in it, under its name in the list."""
    keep = Keep()
    loop = make_loop(Holder(1), Holder(2), Holder(3, name="third"), keep)
    loop.components.disable("third")
    loop.train(1)
    expected = {"holder": {"best": 1}, "holder#2": {"best": 2}, "third": {"best": 3}}
    assert expected == keep.states[0]["components"]


def test_random_states_are_those_of_the_moment():
    """It holds the state of each global random stream."""
    found = []
    make_loop(
        act(
            "on_safe_point",
            lambda loop: found.append(
                (random.getstate(), numpy.random.get_state(), torch.get_rng_state())
            ),
        ),
        keep := Keep(),
    ).train(1)
    python, of_numpy, of_torch = found[0]
    saved = keep.states[0]["random"]
    assert python == saved["python"]
    assert of_numpy[1].tolist() == saved["numpy"]["keys"]
    assert torch.equal(of_torch, saved["torch"])


def test_random_states_of_numpy_are_left_out_where_nobody_imported_it(monkeypatch):
    """Without NumPy there is none of its state, and nothing imports it."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert taken()["random"]["numpy"] is None


@pytest.mark.parametrize(
    "draw", [random.random, numpy.random.standard_normal, lambda: torch.randn(3).sum()]
)
def test_random_numbers_go_on(draw):
    """The numbers drawn after going on are those of the run that was not interrupted."""
    whole = Draw(draw)
    state = taken(whole, n_epochs=2, index=3)
    for number in range(3):  # wherever the streams are
        draw()
        rest = Draw(draw)
        loop = make_loop(rest)
        loop.load_state_dict(state)
        loop.train(2)
        assert whole.seen[4:] == rest.seen, number


def test_metrics_of_numpy_are_held_as_numbers():
    """NumPy's scalars, which a loss or a score often is, become Python's; tensors stay."""
    values = {
        "a": numpy.float64(0.5),
        "b": numpy.int32(2),
        "c": numpy.array([3.0]),
        "d": numpy.bool_(True),
        "e": torch.tensor(1.5),
        "f": 4,
    }
    state = taken(act("on_batch_end", lambda loop: loop.log(values, level="epoch")))
    found = {name.removeprefix("train/"): value for name, value in state["metrics"].items()}
    expected = {"a": 0.5, "b": 2, "c": 3.0, "d": True, "e": torch.tensor(1.5), "f": 4}
    assert is_same(expected, found)


def test_a_state_comes_back_from_a_file():
    """All of it passes through a file that is loaded with weights_only=True."""
    values = {"loss": numpy.float32(0.5), "nan": math.nan}
    state = taken(
        Holder({"x": [torch.ones(2), (1, None)]}),
        act("on_batch_end", lambda loop: loop.log(values, level="epoch")),
        index=-1,
    )
    assert is_same(state, through_file(state))


# -- copies ---------------------------------------------------------------------------------


def test_a_state_does_not_change_as_training_goes_on():
    """By default it is a snapshot."""
    at_once = []
    keep = Keep()
    make_loop(
        keep, act("on_safe_point", lambda loop: at_once.append(copy.deepcopy(keep.states[-1])))
    ).train(2)
    assert all(map(is_same, at_once, keep.states))
    weights = [state["model"]["0.weight"] for state in keep.states]
    assert not any(map(torch.equal, weights, weights[1:]))


def test_without_a_copy_a_state_changes_as_training_goes_on():
    """With copy=False its tensors are the live ones: all states are the last one."""
    keep = Keep(copy=False)
    loop = make_loop(keep)
    loop.train(2)
    pointers = {state["model"]["0.weight"].data_ptr() for state in keep.states}
    assert {loop.model[0].weight.data_ptr()} == pointers


def test_tied_weights_are_one_tensor_in_a_copy():
    """What is one tensor in the loop is one in the copy, so a file holds it once."""
    layers = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
    model = torch.nn.Sequential(*layers)
    model[1].weight = model[0].weight
    weights = taken(model=model)["model"]
    assert weights["0.weight"] is weights["1.weight"]
    assert weights["0.weight"] is not weights["2.weight"]
    assert weights["0.weight"].data_ptr() != model[0].weight.data_ptr()


def test_a_copy_keeps_the_versions_of_a_models_modules():
    """A module that upgrades what older versions of it saved can tell what is not old."""

    class Doubled(torch.nn.Linear):
        """Hold twice what version 1 held."""

        _version = 2

        def _load_from_state_dict(self, state, prefix, metadata, *rest):
            if metadata.get("version", 1) < 2:
                state[f"{prefix}weight"] = 2 * state[f"{prefix}weight"]
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    state = taken(model=Doubled(4, 2))
    loop = make_loop(model=Doubled(4, 2))
    loop.load_state_dict(state)
    loop.test(make_data(1))
    assert torch.equal(state["model"]["weight"], loop.model.weight)


def pointers(state):
    """Return where the tensors of a nested value lie."""
    if isinstance(state, torch.Tensor):
        return {state.data_ptr()} if state.numel() else set()
    values = state.values() if isinstance(state, dict) else state
    return set().union(*map(pointers, values)) if isinstance(state, dict | list | tuple) else set()


def test_a_copy_can_reuse_the_memory_of_an_earlier_one():
    """With into= the tensors lie where those of the earlier state lay, and are the new values."""
    found = []

    class Look(LoopComponent):
        def on_safe_point(self, loop):
            earlier = loop.state_dict()
            before = pointers(earlier)
            again = loop.state_dict(out=earlier)
            found.append((before == pointers(again), is_same(loop.state_dict(), again)))

    make_loop(Look()).train(1)
    assert [(True, True)] * 3 == found


trees = st.recursive(
    st.integers(0, 3)
    | st.builds(
        lambda shape, value: torch.full(shape, float(value)),
        st.lists(st.integers(0, 3), max_size=2),
        st.integers(-3, 3),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(trees, trees)
def test_a_copy_into_another_is_the_same_as_a_new_one(before, now):
    """Whatever the earlier state was, also of other shapes, the copy has the right values."""
    copied = core_state.snapshot(now, core_state.snapshot(before))
    assert is_same(now, copied)
    assert not pointers(now) & pointers(copied)


def test_what_is_no_longer_one_tensor_is_two_in_a_copy_into_another():
    """A best value that was the last one too keeps its value when the last one changes."""
    first = torch.tensor(1.0)
    earlier = core_state.snapshot({"best": first, "last": first})
    now = {"best": first, "last": torch.tensor(2.0)}
    assert is_same(now, core_state.snapshot(now, earlier))


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ({1}, lambda value: value.add(2)),
        (Counter("a"), lambda value: value.update("b")),
        (bytearray(b"a"), lambda value: value.append(1)),
    ],
    ids=["set", "Counter", "bytearray"],
)
def test_a_copy_is_one_of_everything_that_can_change(value, change):
    """What a file may hold and a component may change is copied, or refused."""
    try:
        state = taken(Holder(value))["components"]["holder"]
    except StateError:
        return
    before = copy.deepcopy(value)
    change(value)
    assert {"best": before} == state


# -- what may be in a state -----------------------------------------------------------------


class Colour(enum.Enum):
    """Be a value of a kind that files cannot hold."""

    RED = 1


class Text(str):
    """Be a text of another type."""


class Record(dict):
    """Be a dict of another type."""


class Thing:
    """Be something else."""


@dataclass
class Data:
    """Be a dataclass."""

    x: int = 1


Point = namedtuple("Point", "x")
ANEW = "plain Python values and tensors, and make it anew from them when they are loaded"
REFUSED = [
    (numpy.float64(1), "best is numpy.float64", "float(...)"),
    (numpy.int32(1), "best is numpy.int32", "int(...)"),
    (numpy.bool_(True), "best is numpy.bool", "bool(...)"),
    (numpy.zeros(2), "best is numpy.ndarray", "torch.from_numpy(...)"),
    (torch.Generator(), "best is torch._C.Generator", "its get_state()"),
    (deque(), "best is collections.deque", "list(...)"),
    (defaultdict(int), "best is collections.defaultdict", "dict(...)"),
    (pathlib.PurePosixPath("a"), "best is pathlib.PurePosixPath", "str(...)"),
    (Colour.RED, f"best is {__name__}.Colour", "its value"),
    (Data(), f"best is {__name__}.Data", "dataclasses.asdict(...)"),
    (Point(1), f"best is {__name__}.Point", "tuple(...)"),
    (Text("a"), f"best is {__name__}.Text", "str(...)"),
    (Record(), f"best is {__name__}.Record", "dict(...)"),
    (lambda: 1, "best is builtins.function", ANEW),
    (Thing(), f"best is {__name__}.Thing", ANEW),
    (frozenset(), "best is builtins.frozenset", ANEW),
    ({"a": [0, {2: numpy.float32(1)}]}, "best.a.1.2 is numpy.float32", "float(...)"),
    ((1, (numpy.float32(1),)), "best.1.0 is numpy.float32", "float(...)"),
    ({Text("k"): 1}, f"best is {__name__}.Text", "str(...)"),
    ({"a": {numpy.int64(3): 1}}, "best.a is numpy.int64", "int(...)"),
]


def name_of(value):
    """Return a short name of a value, for the names of tests."""
    return type(value).__name__


@pytest.mark.parametrize(("value", "leaf", "fix"), REFUSED, ids=name_of)
def test_what_a_file_cannot_hold_is_refused(value, leaf, fix):
    """The error names the component, the path of keys, the type, and what to return instead."""
    with pytest.raises(StateError) as caught:
        taken(Holder(value, name="metrics"))
    text = str(caught.value)
    keys = [key for key in [*nested_keys(value)] if type(key) not in (str, int)]
    path = f"the key {keys[0]!r} of metrics." if keys else "metrics."
    expected = (
        f"component 'metrics' (class {__name__}.Holder) has state that "
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


def test_a_leaf_is_refused_before_work_starts():
    """state_dict(allow_unsafe=True) in on_train_begin reports it there."""
    loop = make_loop(
        Holder(deque()), act("on_train_begin", lambda loop: loop.state_dict(allow_unsafe=True))
    )
    with pytest.raises(StateError, match=r"holder\.best is collections\.deque: return list"):
        loop.train(1)
    assert 0 == loop.global_step


def test_what_a_file_cannot_hold_is_refused_in_variables_and_metrics_too():
    """Loop variables and metrics are named as such."""

    class Set(LoopComponent):
        def on_train_begin(self, loop):
            loop.memory = Holder(deque())

    what = r"the loop variable 'memory' has state .*: memory\.best is collections\.deque: return li"
    with pytest.raises(StateError, match=what):
        taken(Set())
    log = act("on_batch_end", lambda loop: loop.log({"x": numpy.zeros(2)}, level="epoch"))
    what = r"the metrics has state .*: metrics\.train/x is numpy\.ndarray: return torch\.from_numpy"
    with pytest.raises(StateError, match=what):
        taken(log)


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
def test_plain_values_are_accepted_and_come_back(value):
    """Nested plain values and tensors are never refused, and a file gives them back."""
    loop = make_loop(Holder(value))
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
def test_what_is_accepted_comes_back_from_a_file(value):
    """Also at the edges of a plain type, what is accepted can be loaded, or it is refused."""
    try:
        state = taken(Holder(value))
    except StateError:
        return
    assert {"best": value} == through_file(state["components"]["holder"])


places = st.lists(st.integers(0, 2) | st.sampled_from("abc"), max_size=4)
refused = st.sampled_from([deque(), numpy.float32(1), Colour.RED, Thing(), Point(1), {1}.copy])


@settings(deadline=None)
@given(places, refused, st.recursive(plain, containers, max_leaves=4))
def test_one_leaf_that_is_refused_is_always_found(place, leaf, other):
    """However deep it lies, and whatever lies beside it, the error has its path."""
    value = leaf
    for step in reversed(place):
        value = {"z": other, step: value} if isinstance(step, str) else [other] * step + [value]
    loop = make_loop(Holder(value))
    path = re.escape(".".join(map(str, ["holder", "best", *place])))
    name = re.escape(f"{type(leaf).__module__}.{type(leaf).__qualname__}")
    with pytest.raises(StateError, match=f"refuses: {path} is {name}: return "):
        loop.state_dict(allow_unsafe=True)


# -- going on: what is taken, and when ------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "None"),
        ({}, "{}"),
        ([1], "[1]"),
        ({"model": torch.zeros(99)}, "a dict"),
        (torch.nn.Linear(2, 1).state_dict(), "a OrderedDict"),
    ],
    ids=["None", "empty", "list", "another dict", "weights"],
)
def test_what_is_no_state_is_refused(value, what):
    """Weights alone, or anything else, is no state of a loop."""
    with pytest.raises(StateError) as caught:
        make_loop().load_state_dict(value)
    expected = f"{what} is no state of a loop: load_state_dict() takes what state_dict() returned"
    assert expected == str(caught.value)


def test_a_state_of_another_version_is_refused():
    """What another ttl-core wrote in another way is not read."""
    with pytest.raises(StateError) as caught:
        make_loop().load_state_dict({**taken(), "version": 99})
    expected = (
        "the state is of version 99, this ttl-core reads version 1. Use the version of ttl-core "
        "that wrote it"
    )
    assert expected == str(caught.value)


def test_a_state_to_look_into_is_refused():
    """A state without a position is none to go on from, and the error says what it is for."""
    loop = make_loop()
    with pytest.raises(StateError) as caught:
        loop.load_state_dict(loop.state_dict(allow_unsafe=True))
    expected = (
        "the state was not taken at a safe point, so no run can go on from it. It is there to be "
        "looked into: take what you need, as model.load_state_dict(state['model']) does"
    )
    assert expected == str(caught.value)


@pytest.mark.parametrize("point", ["on_epoch_begin", "on_batch_end", "on_safe_point"])
def test_a_state_is_not_loaded_into_a_run_under_way(point):
    """Once a run has begun there is nothing to load into."""
    state = taken()
    loop = make_loop(act(point, lambda loop: loop.load_state_dict(state)))
    with pytest.raises(RunError) as caught:
        loop.train(1)
    expected = (
        "load_state_dict() was called when the loop was running already. Call it before train(), "
        "or in on_train_begin"
    )
    assert expected == str(caught.value)


def test_a_state_is_not_loaded_inside_a_validation_or_test():
    """A test that has begun takes no state either."""
    state = taken()
    loop = make_loop(act("on_batch_end", lambda loop: loop.load_state_dict(state)))
    with pytest.raises(RunError, match="was called when the loop was running already"):
        loop.test(make_data(1))


def final(loop, n_epochs=2):
    """Return what a run ends with."""
    loop.train(n_epochs)
    state = loop.state_dict(allow_unsafe=True)
    return {name: state[name] for name in ("model", "variables", "components")}


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("point", [None, "around_run", "on_train_begin"])
def test_a_run_goes_on_to_the_same_bits(index, point):
    """Loaded before train(), or as it begins, a state leads where the whole run leads."""
    options = {"valid_data": make_data(2)}
    whole = final(make_loop(Holder(3), Keep(), **options))
    state = taken(Holder(3), n_epochs=2, index=index, **options)
    loop = make_loop(Holder(), Keep(), **options)
    if point is None:
        loop.load_state_dict(state)
    else:
        is_done = []

        def load(loop):
            if not is_done:
                is_done.append(loop.load_state_dict(state))

        loop.components.append(act(point, load))
    assert is_same(whole, final(loop))
    assert (2, 6) == (loop.epoch_num, loop.global_step)


def test_what_is_made_of_something_is_put_back_after_it(monkeypatch):
    """Model, optimizers, schedulers, other variables, components, whatever the names' order."""
    loaded = []

    def watch(cls):
        original = cls.load_state_dict

        def load(self, *args, **kwargs):
            loaded.append(cls.__name__)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(cls, "load_state_dict", load)

    class Backwards(LoopComponent):
        def on_train_begin(self, loop):
            optimizer, scheduler = vars(loop).pop("optimizer"), vars(loop).pop("scheduler")
            loop.memory, loop.scheduler, loop.optimizer = Memory(), scheduler, optimizer

    class Memory(Holder):
        """Be a variable, not a component."""

    state = taken(Holder(), Backwards())
    scheduler = torch.optim.lr_scheduler.StepLR
    for cls in (torch.nn.Sequential, torch.optim.SGD, scheduler, Memory, Holder):
        watch(cls)
    go_on(state, Holder(), Backwards())
    expected = ["Sequential", "SGD", "StepLR", "Memory", "Holder"]
    assert expected == loaded


def test_what_most_scripts_save_does_not_lead_to_the_same_bits():
    """The test above fails against a saver that forgets where it stood in the epoch."""
    from naive_savers import NaiveStateSaver

    saver = NaiveStateSaver()
    keep_first = act(
        "on_safe_point", lambda loop: saver.states.__setitem__(-1, copy.deepcopy(saver.states[-1]))
    )
    whole = final(make_loop(saver, keep_first))
    assert not is_same(whole, final(make_loop(NaiveStateSaver(saver.states[0]))))


def test_the_last_state_loaded_counts():
    """A second load_state_dict() takes the place of the first."""
    first, second = (taken(Holder(value)) for value in (1, 2))
    loop = make_loop(holder := Holder())
    loop.load_state_dict(first)
    loop.load_state_dict(second)
    loop.train(1)
    assert 2 == holder.value


def test_a_state_can_be_loaded_into_many_loops():
    """Training on from a state does not change it."""
    state = taken(Holder(torch.zeros(2)))
    before = copy.deepcopy(state)
    ends = []
    for _ in range(2):
        loop = make_loop(Holder(torch.ones(2)))
        loop.components.append(
            act("on_epoch_end", lambda loop: loop.components["holder"].value.add_(1))
        )
        loop.load_state_dict(state)
        ends.append(final(loop))
    assert is_same(*ends)
    assert is_same(before, state)


def test_test_and_validate_see_the_model_that_was_loaded():
    """Before train() goes on, the model and what components hold is that of the state."""
    state = taken(Holder(5), index=-1)
    seen = []
    loop = make_loop(
        act("on_epoch_end", lambda loop: seen.append(loop.model[0].weight.clone())),
        Holder(),
        valid_data=make_data(1),
    )
    loop.load_state_dict(state)
    loop.validate()
    loop.test(make_data(1))
    assert 5 == loop.components["holder"].value
    assert 2 == len(seen)
    assert all(torch.equal(state["model"]["0.weight"], weight) for weight in seen)
    assert (0, 0) == (loop.epoch_num, loop.global_step)
    loop.train(2)
    assert (2, 6) == (loop.epoch_num, loop.global_step)


# -- going on: what fits --------------------------------------------------------------------


def go_on(state, *components, ignore=(), n_epochs=2, **options):
    """Go on from a state in a new loop, and return the loop."""
    loop = make_loop(*components, **options)
    loop.load_state_dict(state, ignore=ignore)
    loop.train(n_epochs)
    return loop


def test_a_component_that_is_missing_is_an_error():
    """It is named, with its class or package, and the way to go on without it."""
    with pytest.raises(StateError) as caught:
        go_on(taken(Holder(name="memory")), Holder(name="memoru"))
    expected = (
        f"the state holds component 'memory' (class {__name__}.Holder), but no component of that "
        "name with state is in the list. Did you mean 'memoru'? Put it back, or go on without it: "
        "ignore=['memory']"
    )
    assert expected == str(caught.value)


def test_a_component_that_is_new_is_an_error():
    """It is named, with the way to let it start afresh."""
    with pytest.raises(StateError) as caught:
        go_on(taken(), Holder())
    expected = (
        f"component 'holder' (class {__name__}.Holder) has state, but the state holds none for it: "
        "it was not in the list. To let it start afresh: ignore=['holder']"
    )
    assert expected == str(caught.value)


@pytest.mark.parametrize("ignore", ["holder", ["holder"], {"other", "holder"}])
@pytest.mark.parametrize("side", ["missing", "new"])
def test_components_can_be_ignored_by_name(ignore, side):
    """With ignore= the run goes on without what is missing, or with what is new."""
    holder = Holder(5)
    loop = go_on(*([taken(holder)] if side == "missing" else [taken(), holder]), ignore=ignore)
    assert (2, 6, 5) == (loop.epoch_num, loop.global_step, holder.value)


class Extra(LoopComponent):
    """Set a loop variable with state."""

    def on_train_begin(self, loop):
        loop.memory = Holder(3)


def test_a_loop_variable_that_is_missing_is_an_error():
    """It is named, with those that there are, and the way to go on without it."""
    with pytest.raises(StateError) as caught:
        go_on(taken(Extra()))
    expected = (
        "the state holds the loop variable 'memory', which nobody has set by the end of "
        "on_train_begin. Variables with state are: optimizer, scheduler. Put back the component "
        "that sets it, or go on without it: ignore=['memory']"
    )
    assert expected == str(caught.value)


def test_a_loop_variable_that_is_new_is_an_error():
    """It is named, with the way to let it start afresh."""
    with pytest.raises(StateError) as caught:
        go_on(taken(), Extra())
    expected = (
        "the loop variable 'memory', a Holder, has state, but the state holds none for it. To let "
        "it start afresh: ignore=['memory']"
    )
    assert expected == str(caught.value)


@pytest.mark.parametrize("side", ["missing", "new"])
def test_loop_variables_can_be_ignored_by_name(side):
    """With ignore= the run goes on without what is missing, or with what is new."""
    state, components = (taken(Extra()), []) if side == "missing" else (taken(), [Extra()])
    assert 6 == go_on(state, *components, ignore="memory").global_step


class TwoGroups(Step):
    """Optimize one layer apart from the rest."""

    name = "step"

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.optimizer.param_groups[0]["params"].pop()
        loop.optimizer.add_param_group({"params": [loop.model[2].bias]})
        loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=2)


def test_other_parameter_groups_are_an_error():
    """An optimizer of other groups is named, with the sizes of both."""
    with pytest.raises(StateError) as caught:
        go_on(taken(), step=TwoGroups)
    expected = (
        "the loop variable 'optimizer', a SGD, has parameter groups with [5, 1] parameters, but "
        "the state was taken with [6]. Make it with the same groups in on_train_begin"
    )
    assert expected == str(caught.value)


def test_a_model_that_does_not_fit_is_an_error():
    """What differs is in the message, also where a test comes before training."""
    wider = make_model()
    wider[2] = torch.nn.Linear(8, 3)
    state, loop = taken(), make_loop(model=wider)
    loop.load_state_dict(state)
    for run, argument in ((loop.test, make_data(1)), (loop.train, 1)):
        with pytest.raises(StateError) as caught:
            run(argument)
        assert str(caught.value) == (
            "the model does not fit the state: 2.bias has shape (3,), in the state shape (2,); "
            "2.weight has shape (3, 8), in the state shape (2, 8). Make the model that the state "
            "was taken of"
        )


def test_a_model_of_other_layers_is_named_before_its_optimizer():
    """An optimizer has other parameters because the model has: the model is what to mend."""
    with pytest.raises(StateError, match="the model does not fit the state"):
        go_on(taken(), model=torch.nn.Linear(4, 2))


def test_a_state_that_does_not_fit_changes_nothing():
    """Names are compared before anything is loaded."""
    state = taken(Holder())
    loop = make_loop()
    before = copy.deepcopy(loop.model.state_dict())
    loop.load_state_dict(state)
    with pytest.raises(StateError, match="the state holds component 'holder'"):
        loop.train(1)
    assert is_same(before, loop.model.state_dict())


@pytest.mark.parametrize("method", ["state_dict", "load_state_dict"])
def test_a_component_that_fails_at_its_state_is_named(method, monkeypatch):
    """Its exception passes unchanged, with a note that says who failed at what."""
    state = taken(Holder())
    monkeypatch.setattr(Holder, method, lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError) as caught:
        go_on(state, Holder(), Keep())
    expected = f"ttl: raised by component 'holder' (class {__name__}.Holder) in {method}"
    assert expected == caught.value.__notes__[0]


def warned(state, *components):
    """Return the texts of the warnings as a run goes on from a state."""
    loop = make_loop(*components)
    loop.load_state_dict(state)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        loop.train(1)
    assert {UserWarning} >= {warning.category for warning in found}
    return [str(warning.message) for warning in found]


def test_going_on_in_the_same_surroundings_is_silent():
    """Where nothing is different, nothing is said."""
    assert [] == warned(taken(Holder()), Holder())


def test_a_component_of_another_version_is_warned_of():
    """The run goes on, and says which version the state is of."""
    state = taken(Holder())
    next(r for r in state["manifest"] if r["name"] == "holder").update(
        distribution="acme-ttl", version="0.9"
    )
    expected = (
        f"component 'holder' (class {__name__}.Holder) goes on from the state of acme-ttl 0.9. If "
        "that does not fit, install that version"
    )
    assert [expected] == warned(state, Holder())


@pytest.mark.parametrize(
    ("what", "saved"),
    [("threads", 77), ("torch", "1.0"), ("machine", "m68k NONE"), ("device", "NVIDIA X")],
)
def test_other_surroundings_are_warned_of(what, saved):
    """The run goes on, and says that its bits may differ, and why."""
    state = taken()
    now = state["environment"][what]
    state["environment"][what] = saved
    expected = (
        "the run goes on, but may differ in bits from one that was not interrupted: "
        f"{what} {saved}, now {now}"
    )
    assert [expected] == warned(state)


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_warning_points_to_the_call_of_train(is_wrapped):
    """It is shown with the line of the user's code, as every warning should be."""
    state = {**taken(), "environment": {**taken()["environment"], "threads": 77}}
    around = act("around_run", lambda loop: None)
    loop = make_loop(*[around] * is_wrapped)
    loop.load_state_dict(state)
    with pytest.warns(UserWarning, match="may differ in bits") as found:
        loop.train(1)
    assert [__file__] == [warning.filename for warning in found]


def test_another_thread_count_is_noticed():
    """What is compared is what is so now."""
    state, before = taken(), torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        (text,) = warned(state)
    finally:
        torch.set_num_threads(before)
    assert f"threads {before}, now {before + 1}" in text


# -- going on: how far ----------------------------------------------------------------------


def test_fewer_epochs_than_were_done_are_an_error():
    """n_epochs counts from where that train() began at first."""
    state = taken(n_epochs=3, index=-1)
    with pytest.raises(ArgumentError, match=r"n_epochs is 2, but the state was taken .*\b3\b"):
        go_on(state, n_epochs=2)
    assert 3 == go_on(state, n_epochs=3).epoch_num


def test_fewer_steps_than_were_done_are_an_error():
    """n_optim_steps counts from where that train() began at first."""
    state = taken(n_epochs=2, index=3)
    short, longer = make_loop(), make_loop()
    for loop in (short, longer):
        loop.load_state_dict(state)
    with pytest.raises(ArgumentError, match=r"n_optim_steps is 3, but .* after 4 "):
        short.train(n_optim_steps=3)
    longer.train(n_optim_steps=5)
    assert 5 == longer.global_step


def test_earlier_calls_of_train_return_at_once():
    """In a restarted script, what came before the train() of the state fires no hook."""
    keep = Keep()
    loop = make_loop(keep)
    loop.train(1)
    loop.train(2)
    points = []
    other = make_loop(Keep(), act("on_train_begin", lambda loop: points.append(loop.epoch_num)))
    other.load_state_dict(keep.states[4])
    other.train(1)
    assert ([], 0) == (points, other.global_step)
    other.train(2)
    assert ([1], 9, 3) == (points, other.global_step, other.epoch_num)
    assert is_same(loop.model.state_dict(), other.model.state_dict())


def test_a_state_of_an_earlier_call_of_train_is_an_error():
    """A loop that has trained once cannot go on from the middle of its first train()."""
    state = taken()
    loop = make_loop()
    loop.train(1)
    loop.load_state_dict(state)
    with pytest.raises(RunError) as caught:
        loop.train(1)
    expected = (
        "the state was taken in train() number 1 of its loop, but this is number 2. Load it before "
        "that one, in a new loop"
    )
    assert expected == str(caught.value)


def test_a_run_that_had_finished_loads_and_returns():
    """Nothing is trained, and the model is the one that the run ended with."""
    points, states = [], []
    whole = make_loop(
        act("on_train_end", lambda loop: states.append(loop.state_dict(allow_unsafe=True)))
    )
    whole.train(2)
    loop = make_loop(
        act("on_epoch_begin", points.append), act("on_train_end", lambda loop: points.append("end"))
    )
    loop.load_state_dict(states[0])
    loop.train(2)
    assert (["end"], 6, 2) == (points, loop.global_step, loop.epoch_num)
    assert is_same(whole.model.state_dict(), loop.model.state_dict())


def test_a_run_that_was_stopped_loads_and_returns():
    """A decision to stop holds in the restarted script too, however many epochs it asks for."""
    states = []
    make_loop(
        act("on_safe_point", lambda loop: loop.global_step == 4 and loop.stop()),
        act("on_train_end", lambda loop: states.append(loop.state_dict(allow_unsafe=True))),
    ).train(9)
    loop = make_loop()
    loop.load_state_dict(states[0])
    loop.train(9)
    assert (4, 1) == (loop.global_step, loop.epoch_num)
    assert is_same(states[0]["model"], loop.model.state_dict())
