"""loop.state_dict(): what a state holds."""

from __future__ import annotations

import collections
import gc
import math
import random
import sys

import numpy
import pytest
import torch
from loops import act_at
from recording import Recorder, StateRecorder
from states import Holder, is_same, make_data, make_step_loop, resume, take_state, through_file

from ttl_core import LoopComponent, generator_state

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_state_holds_these_things():
    """The keys are fixed, and each part is that of the loop."""
    holder, recorder = Holder(5), StateRecorder(copy=False)
    loop = make_step_loop(holder, recorder)
    loop.train(1)
    state = recorder.states[-1]
    assert ["best"] == list(state["components"]["holder"])
    assert {
        "version",
        "position",
        "model",
        "variables",
        "metrics",
        "components",
        "state_versions",
        "random",
        "data",
        "environment",
        "manifest",
        "earlier",
        "settings",
        "structure",
        "hidden",
        "generators",
    } == state.keys()
    assert is_same(loop.model.state_dict(), state["model"])
    assert is_same(loop.optimizer.state_dict(), state["variables"]["optimizer"])
    assert is_same(loop.scheduler.state_dict(), state["variables"]["scheduler"])
    assert loop.manifest() == state["manifest"]


def test_a_position_has_the_counters_of_the_loop():
    """Inside an epoch, a position also has the number of batches."""
    recorder = StateRecorder()
    make_step_loop(recorder, valid_data=make_data(1)).train(2)
    found = [
        (p["epoch"] and p["epoch"]["n_batches"], p["epoch_num"], p["is_trained"], p["global_step"])
        for p in (state["position"] for state in recorder.states)
    ]
    expected = [
        *((1, 0, False, 1), (2, 0, False, 2), (None, 0, True, 3), (None, 1, False, 3)),
        *((1, 1, False, 4), (2, 1, False, 5), (None, 1, True, 6), (None, 2, False, 6)),
    ]
    assert expected == found


def variables_of(**variables):
    """Return what a state holds of plain steps and of variables, given as functions of the loop."""

    class Set(LoopComponent):
        def on_train_begin(self, loop):
            for name, value in variables.items():
                setattr(loop, name, value(loop))

    return take_state(Set(), Holder(name="other"))["variables"]


def test_an_object_with_two_names_is_held_once():
    """An object that two variables hold is saved under the first of its names."""
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
    ids=["private", "a class", "an empty state", "a component", "no state"],
)
def test_only_public_variables_with_state_are_held(variables):
    """Private variables, classes, components and empty states are not held."""
    assert ["optimizer", "scheduler"] == list(variables_of(**variables))


def test_data_are_not_a_variable():
    """The state of data is held apart from variables."""

    class Data(list):
        def state_dict(self):
            return {"at": 1}

        def load_state_dict(self, state):
            pass

    state = take_state(data=Data(make_data()), valid_data=Data(make_data(1)))
    assert ["optimizer", "scheduler"] == list(state["variables"])
    assert {"train": {"loader": {"at": 1}}, "valid": {"loader": {"at": 1}}} == state["data"]
    assert {"at": 1} == state["position"]["epoch"]["loader"]


def test_disabled_components_are_held_too():
    """Every component with state is held, under its name in the list."""
    recorder = StateRecorder()
    loop = make_step_loop(Holder(1), Holder(2), Holder(3, name="third"), recorder)
    loop.components.disable("third")
    loop.train(1)
    expected = {"holder": {"best": 1}, "holder#2": {"best": 2}, "third": {"best": 3}}
    assert expected == recorder.states[0]["components"]


def test_the_states_of_random_generators_are_held():
    """A state holds that of each global random generator."""
    found = []
    make_step_loop(
        act_at(
            "on_safe_point",
            lambda loop: found.append(
                (random.getstate(), numpy.random.get_state(), torch.get_rng_state())
            ),
        ),
        recorder := StateRecorder(),
    ).train(1)
    python, of_numpy, of_torch = found[0]
    saved = recorder.states[0]["random"]
    version, internal, gauss = saved["python"]
    assert python == (version, tuple(internal.tolist()), gauss)
    assert of_numpy[1].tolist() == saved["numpy"]["keys"].tolist()
    assert torch.equal(of_torch, saved["torch"])


def test_the_generator_of_numpy_is_left_out_if_numpy_is_not_imported(monkeypatch):
    """A state has none of NumPy's generator, and does not import NumPy."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert take_state()["random"]["numpy"] is None


@pytest.mark.parametrize(
    "draw", [random.random, numpy.random.standard_normal, lambda: torch.randn(3).sum()]
)
def test_random_numbers_continue(draw):
    """The numbers that are drawn after resuming are those of the complete run."""
    full = Recorder("on_batch_begin", lambda loop: float(draw()))
    state = take_state(full, n_epochs=2, index=3)
    for number in range(3):  # whatever the generators' states are
        draw()
        rest = Recorder("on_batch_begin", lambda loop: float(draw()))
        resume(state, rest)
        assert full.seen[4:] == rest.seen, number


def test_metrics_of_numpy_are_held_as_numbers():
    """Scalars of NumPy, as scores often are, and tensors of one number become Python's."""
    values = {
        "a": numpy.float64(0.5),
        "b": numpy.int32(2),
        "c": numpy.array([3.0]),
        "d": numpy.bool_(True),
        "e": torch.tensor(1.5),
        "f": 4,
    }
    state = take_state(act_at("on_batch_end", lambda loop: loop.log(values, level="epoch")))
    found = {name.removeprefix("train/"): value for name, value in state["metrics"].items()}
    expected = {"a": 0.5, "b": 2, "c": 3.0, "d": True, "e": 1.5, "f": 4}
    assert is_same(expected, found)


def test_a_state_is_the_same_after_loading_it_from_a_file():
    """A complete state can be saved, and loaded with weights_only=True."""
    values = {"loss": numpy.float32(0.5), "nan": math.nan}
    state = take_state(
        Holder({"x": [torch.ones(2), (1, None)]}),
        act_at("on_batch_end", lambda loop: loop.log(values, level="epoch")),
        index=-1,
    )
    assert is_same(state, through_file(state))


@pytest.mark.parametrize(
    ("generator", "draw", "library"),
    [
        (torch.Generator(), lambda g: torch.rand(1, generator=g), "torch"),
        (random.Random(0), random.Random.random, "python"),
        (numpy.random.default_rng(0), numpy.random.Generator.random, "numpy"),
        (numpy.random.RandomState(0), lambda g: g.rand(), "numpy"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_state_of_a_generator_tells_what_it_draws_next(generator, draw, library):
    """It is of types that a state may hold, and another one after a number was drawn."""
    before = generator_state(generator)
    assert [library] == list(before)
    assert is_same(before, generator_state(generator))
    assert is_same(before, through_file(before))
    draw(generator)
    assert not is_same(before, generator_state(generator))


@pytest.mark.parametrize(
    "value", [random.SystemRandom(), random, 3, None], ids=["system", "module", "number", "None"]
)
def test_what_is_no_generator_has_no_state_of_one(value):
    """The random numbers of the system cannot be repeated."""
    assert generator_state(value) is None


def test_a_queue_may_change_while_a_state_is_taken():
    """As that of a thread, which runs where collecting garbage lets it, in the midst of a walk."""

    class Queue(LoopComponent):
        def __init__(self):
            self.queue = collections.deque(range(50))

    component = Queue()
    loop = make_step_loop(component)
    kept = [(i, str(i)) for i in range(5000)]  # so that further tuples take new memory
    thresholds = gc.get_threshold()
    change = lambda phase, info: component.queue.rotate()  # noqa: E731
    gc.callbacks.append(change)
    gc.set_threshold(1)
    try:
        state = loop.state_dict(allow_unsafe=True)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(change)
    assert ({}, 5000) == (state["generators"], len(kept))
