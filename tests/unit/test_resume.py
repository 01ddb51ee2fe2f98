"""loop.load_state_dict(): when a state is loaded, and that a run resumes to the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from loops import act_at
from naive_savers import NaiveStateSaver
from recording import StateRecorder
from states import Holder, is_same, make_data, make_step_loop, resume, take_state, train_to_end

from ttl_core import LoopComponent, RunError, StateError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "None"),
        ({}, "{}"),
        ([1], "[1]"),
        ({"model": torch.zeros(9)}, "a dict"),
        (torch.nn.Linear(2, 1).state_dict(), "a OrderedDict"),
    ],
    ids=["None", "empty", "list", "another dict", "weights"],
)
def test_what_is_no_state_is_refused(value, what):
    """Neither weights alone nor anything else is a state of a loop."""
    with pytest.raises(StateError) as caught:
        make_step_loop().load_state_dict(value)
    expected = (
        f"{what} is not a state of a loop: load_state_dict() takes what state_dict() returned"
    )
    assert expected == str(caught.value)


def test_a_state_of_another_version_is_refused():
    """A state in the format of another version of ttl-core is an error."""
    with pytest.raises(StateError) as caught:
        make_step_loop().load_state_dict({**take_state(), "version": 99})
    expected = (
        "the state is of version 99, this ttl-core reads version 1. Use the version of ttl-core "
        "that wrote it"
    )
    assert expected == str(caught.value)


def test_an_unsafe_state_is_refused():
    """No run can resume from a state without a position, and the error says what it is for."""
    loop = make_step_loop()
    with pytest.raises(StateError) as caught:
        loop.load_state_dict(loop.state_dict(allow_unsafe=True))
    expected = (
        "the state was not taken at a safe point, so no run can resume from it. It is there to "
        "inspect: take what you need, as in model.load_state_dict(state['model'])"
    )
    assert expected == str(caught.value)


@pytest.mark.parametrize("point", ["on_epoch_begin", "on_batch_end", "on_safe_point"])
def test_loading_a_state_in_a_run_is_refused(point):
    """After a run has begun, load_state_dict() is an error."""
    state = take_state()
    loop = make_step_loop(act_at(point, lambda loop: loop.load_state_dict(state)))
    with pytest.raises(RunError) as caught:
        loop.train(1)
    expected = (
        "load_state_dict() was called while the loop is running. Call it before train(), "
        "or in on_train_begin"
    )
    assert expected == str(caught.value)


def test_loading_a_state_in_a_test_is_refused():
    """After a test has begun, load_state_dict() is an error too."""
    state = take_state()
    loop = make_step_loop(act_at("on_batch_end", lambda loop: loop.load_state_dict(state)))
    with pytest.raises(RunError, match="was called while the loop is running"):
        loop.test(make_data(1))


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("point", [None, "around_run", "on_train_begin"])
def test_a_run_resumes_to_the_same_bits(index, point):
    """From a state that is loaded before train(), or as it begins, a run ends like the full run."""
    options = {"valid_data": make_data(2)}
    full = train_to_end(make_step_loop(Holder(3), StateRecorder(), **options))
    state = take_state(Holder(3), n_epochs=2, index=index, **options)
    loop = make_step_loop(Holder(), StateRecorder(), **options)
    if point is None:
        loop.load_state_dict(state)
    else:
        is_done = []

        def load(loop):
            if not is_done:
                is_done.append(loop.load_state_dict(state))

        loop.components.append(act_at(point, load))
    assert is_same(full, train_to_end(loop))
    assert (2, 6) == (loop.epoch_num, loop.global_step)


def test_objects_are_restored_after_those_that_they_refer_to(monkeypatch):
    """Model, optimizers, schedulers, other variables, components, whatever the order of names."""
    loaded = []

    def record(cls):
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
        """A loop variable with a state."""

    state = take_state(Holder(), Backwards())
    scheduler = torch.optim.lr_scheduler.StepLR
    for cls in (torch.nn.Sequential, torch.optim.SGD, scheduler, Memory, Holder):
        record(cls)
    resume(state, Holder(), Backwards())
    expected = ["Sequential", "SGD", "StepLR", "Memory", "Holder"]
    assert expected == loaded


def test_what_most_scripts_save_does_not_resume_to_the_same_bits():
    """The test above fails with a saver that does not save the position inside the epoch."""
    saver = NaiveStateSaver()
    keep_first = act_at(
        "on_safe_point", lambda loop: saver.states.__setitem__(-1, copy.deepcopy(saver.states[-1]))
    )
    full = train_to_end(make_step_loop(saver, keep_first))
    assert not is_same(full, train_to_end(make_step_loop(NaiveStateSaver(saver.states[0]))))


def test_the_state_that_was_loaded_last_is_used():
    """A second load_state_dict() replaces the first one."""
    first, second = (take_state(Holder(value)) for value in (1, 2))
    loop = make_step_loop(holder := Holder())
    loop.load_state_dict(first)
    loop.load_state_dict(second)
    loop.train(1)
    assert 2 == holder.value


def test_a_state_can_be_loaded_into_many_loops():
    """Resuming from a state does not change it."""
    state = take_state(Holder(torch.zeros(2)))
    before = copy.deepcopy(state)
    ends = []
    for _ in range(2):
        loop = make_step_loop(Holder(torch.ones(2)))
        loop.components.append(
            act_at("on_epoch_end", lambda loop: loop.components["holder"].value.add_(1))
        )
        loop.load_state_dict(state)
        ends.append(train_to_end(loop))
    assert is_same(*ends)
    assert is_same(before, state)


def test_test_and_validate_use_the_loaded_model():
    """Before train() resumes, the model and the components already have the state."""
    state = take_state(Holder(5), index=-1)
    seen = []
    loop = make_step_loop(
        act_at("on_epoch_end", lambda loop: seen.append(loop.model[0].weight.clone())),
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
