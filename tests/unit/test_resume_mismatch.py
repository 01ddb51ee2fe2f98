"""loop.load_state_dict(): a state that does not fit the loop is an error, or a warning."""

from __future__ import annotations

import copy

import pytest
import torch
from loops import act_at
from recording import StateRecorder, messages_of
from states import Holder, is_same, make_data, make_model, make_step_loop, resume, take_state

from ttl_core import LoopComponent, StateError
from ttl_core.testing import Step

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_component_that_is_missing_is_an_error():
    """The error has its name, its class or package, and how to resume without it."""
    with pytest.raises(StateError) as caught:
        resume(take_state(Holder(name="memory")), Holder(name="memoru"))
    expected = (
        "the state holds component 'memory' (class states.Holder), but no component of that "
        "name with state is in the list. Did you mean 'memoru'? Add it, or resume without it: "
        "ignore=['memory']"
    )
    assert expected == str(caught.value)


def test_a_component_that_is_new_is_an_error():
    """The error has its name, and how to start it without a state."""
    with pytest.raises(StateError) as caught:
        resume(take_state(), Holder())
    expected = (
        "component 'holder' (class states.Holder) has state, but the state holds none for it: "
        "it was not in the list. To start it from scratch: ignore=['holder']"
    )
    assert expected == str(caught.value)


@pytest.mark.parametrize("ignore", ["holder", ["holder"], {"other", "holder"}])
@pytest.mark.parametrize("side", ["missing", "new"])
def test_components_can_be_ignored_by_name(ignore, side):
    """With ignore=, the run resumes without a missing component, or with a new one."""
    holder = Holder(5)
    loop = resume(
        *([take_state(holder)] if side == "missing" else [take_state(), holder]), ignore=ignore
    )
    assert (2, 6, 5) == (loop.epoch_num, loop.global_step, holder.value)


class ExtraVariable(LoopComponent):
    """A component that sets a loop variable with state."""

    def on_train_begin(self, loop):
        loop.memory = Holder(3)


def test_a_loop_variable_that_is_missing_is_an_error():
    """The error has its name, those of the others, and how to resume without it."""
    with pytest.raises(StateError) as caught:
        resume(take_state(ExtraVariable()))
    expected = (
        "the state holds the loop variable 'memory', which is not set at the end of "
        "on_train_begin. Variables with state are: optimizer, scheduler. Add the component "
        "that sets it, or resume without it: ignore=['memory']"
    )
    assert expected == str(caught.value)


def test_a_loop_variable_that_is_new_is_an_error():
    """The error has its name, and how to start it without a state."""
    with pytest.raises(StateError) as caught:
        resume(take_state(), ExtraVariable())
    expected = (
        "the loop variable 'memory', a Holder, has state, but the state holds none for it. To "
        "start it from scratch: ignore=['memory']"
    )
    assert expected == str(caught.value)


@pytest.mark.parametrize("side", ["missing", "new"])
def test_loop_variables_can_be_ignored_by_name(side):
    """With ignore=, the run resumes without a missing component, or with a new one."""
    saved, present = ([ExtraVariable()], []) if side == "missing" else ([], [ExtraVariable()])
    assert 6 == resume(take_state(*saved), *present, ignore="memory").global_step


class TwoGroups(Step):
    """Steps of an optimizer that has a separate group for one parameter."""

    name = "step"

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.optimizer.param_groups[0]["params"].pop()
        loop.optimizer.add_param_group({"params": [loop.model[2].bias]})
        loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=2)


def test_other_parameter_groups_are_an_error():
    """The error has the name of the optimizer, and the sizes of both lists of groups."""
    with pytest.raises(StateError) as caught:
        resume(take_state(), step=TwoGroups)
    expected = (
        "the loop variable 'optimizer', a SGD, has parameter groups with [5, 1] parameters, but "
        "the state was taken with [6]. Make it with the same groups in on_train_begin"
    )
    assert expected == str(caught.value)


def test_a_model_that_does_not_fit_is_an_error():
    """The message has what differs, also if a test is called before training."""
    wider = make_model()
    wider[2] = torch.nn.Linear(8, 3)
    state, loop = take_state(), make_step_loop(model=wider)
    loop.load_state_dict(state)
    for run, argument in ((loop.test, make_data(1)), (loop.train, 1)):
        with pytest.raises(StateError) as caught:
            run(argument)
        assert str(caught.value) == (
            "the model does not fit the state: 2.bias has shape (3,), in the state shape (2,); "
            "2.weight has shape (3, 8), in the state shape (2, 8). Create the model that the state "
            "was taken of"
        )


def test_a_model_with_other_layers_is_reported_before_its_optimizer():
    """If the parameters of the optimizer differ because the model does, the error is about that."""
    with pytest.raises(StateError, match="the model does not fit the state"):
        resume(take_state(), model=torch.nn.Linear(4, 2))


def test_a_state_that_does_not_fit_changes_nothing():
    """Names are compared before anything is loaded."""
    state = take_state(Holder())
    loop = make_step_loop()
    before = copy.deepcopy(loop.model.state_dict())
    loop.load_state_dict(state)
    with pytest.raises(StateError, match="the state holds component 'holder'"):
        loop.train(1)
    assert is_same(before, loop.model.state_dict())


@pytest.mark.parametrize("method", ["state_dict", "load_state_dict"])
def test_a_component_that_fails_at_its_state_is_named(method, monkeypatch):
    """The exception passes unchanged, with a note that names the component and the method."""
    state = take_state(Holder())
    monkeypatch.setattr(Holder, method, lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError) as caught:
        resume(state, Holder(), StateRecorder())
    expected = f"ttl: raised by component 'holder' (class states.Holder) in {method}"
    assert expected == caught.value.__notes__[0]


def warnings_when_resuming(state, *components):
    """Return the texts of the warnings when a run resumes from a state."""
    return messages_of(lambda: resume(state, *components, n_epochs=1), UserWarning)


def test_resuming_in_the_same_environment_gives_no_warning():
    """If nothing has changed, there is no warning."""
    assert [] == warnings_when_resuming(take_state(Holder()), Holder())


def test_a_component_of_another_version_is_warned_of():
    """The run resumes, and the warning has the version of the state."""
    state = take_state(Holder())
    next(r for r in state["manifest"] if r["name"] == "holder").update(
        distribution="acme-ttl", version="0.9"
    )
    expected = (
        "component 'holder' (class states.Holder) resumes from the state of acme-ttl 0.9. If "
        "that does not fit, install that version"
    )
    assert [expected] == warnings_when_resuming(state, Holder())


@pytest.mark.parametrize(
    ("what", "saved"),
    [("threads", 77), ("torch", "1.0"), ("machine", "m68k NONE"), ("device", "NVIDIA X")],
)
def test_another_environment_is_warned_of(what, saved):
    """The run resumes, and the warning says that its bits may differ, and why."""
    state = take_state()
    now = state["environment"][what]
    state["environment"][what] = saved
    expected = (
        "the run resumes, but may differ in bits from one that was not interrupted: "
        f"{what} {saved}, now {now}"
    )
    assert [expected] == warnings_when_resuming(state)


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_warning_points_at_the_call_of_train(is_wrapped):
    """The warning points at the user's line."""
    state = {**take_state(), "environment": {**take_state()["environment"], "threads": 77}}
    around = act_at("around_run", lambda loop: None)
    loop = make_step_loop(*[around] * is_wrapped)
    loop.load_state_dict(state)
    with pytest.warns(UserWarning, match="may differ in bits") as found:
        loop.train(1)
    assert [__file__] == [warning.filename for warning in found]


def test_another_number_of_threads_is_warned_of():
    """The state is compared with the present number of threads."""
    state, before = take_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        (text,) = warnings_when_resuming(state)
    finally:
        torch.set_num_threads(before)
    assert f"threads {before}, now {before + 1}" in text
