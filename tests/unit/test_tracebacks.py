"""A19: tracebacks show the frames of the user and of components."""

import traceback

import pytest
import torch
from loops import make_component, make_loop
from recording import AroundRecorder

from ttl_core import RunError, StateError, UnknownNameError, hookimpl


def frames_of(exception):
    """Return the names of the functions in a traceback, outermost first, with their files."""
    return [
        (frame.f_code.co_name, frame.f_globals["__name__"])
        for frame, _ in traceback.walk_tb(exception.__traceback__)
    ]


def fail(loop):
    """Fail, with another exception as the cause."""
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


def failing_run():
    """Return the exception of a run with wrappers around the failure."""
    loop = make_loop(AroundRecorder(), make_component(on_batch_end=fail))
    with pytest.raises(ValueError, match="second") as caught:
        loop.train(1)
    return caught.value


def test_frames_of_ttl_and_pluggy_are_left_out():
    """One frame of the loop is left, of the method that the user called."""
    modules = [module.partition(".")[0] for _, module in frames_of(failing_run())]
    assert ["ttl_core"] == [module for module in modules if module in ("ttl_core", "pluggy")]


def test_the_failing_function_is_the_innermost_frame():
    """The place of the failure is what a traceback ends with."""
    assert "fail" == frames_of(failing_run())[-1][0]


def test_the_traceback_of_a_cause_is_shortened_too():
    """Each exception of the chain shows its own frames only."""
    assert [("fail", __name__)] == frames_of(failing_run().__cause__)


def test_all_frames_are_shown_if_the_environment_asks_for_them(monkeypatch):
    """TTL_FULL_TRACEBACK=1 keeps the frames of ttl, written-out hooks among them."""
    monkeypatch.setenv("TTL_FULL_TRACEBACK", "1")
    modules = {module for _, module in frames_of(failing_run())}
    assert {"ttl_core.loop", "ttl_core.hooks.compilation"} <= modules


def test_an_error_of_the_loop_shows_where_it_was_raised():
    """Without a frame of a component, the innermost frame of ttl stays."""
    with pytest.raises(RunError) as caught:
        make_loop(train_data=[]).train(1)
    assert "ttl_core.variables.data" == frames_of(caught.value)[-1][1]


def test_the_note_still_attributes_the_exception():
    """The attribution is made before frames are left out."""
    assert "in on_batch_end" in failing_run().__notes__[0]


def test_an_interruption_that_a_component_explains_is_not_attributed():
    """A19: a preempted run ends with the component's own note."""

    def preempt(loop):
        error = KeyboardInterrupt()
        error.add_note("saved; start the script again to resume")
        raise error

    with pytest.raises(KeyboardInterrupt) as caught:
        make_loop(make_component(on_batch_end=preempt)).train(1)
    assert ["saved; start the script again to resume"] == caught.value.__notes__


@hookimpl(wrapper=True)
def passing(loop):
    """Surround, without a part in what fails."""
    return (yield)


@hookimpl(wrapper=True)
def delegating(loop):
    """Surround by another generator, as a component that calls super() does."""
    return (yield from passing(loop))


@pytest.mark.parametrize("wrapper", [passing, delegating])
def test_wrappers_that_an_exception_passes_through_are_left_out(wrapper):
    """They have no part in it."""
    around = make_component(around_run=wrapper, around_epoch=wrapper, on_batch_end=wrapper)
    loop = make_loop(around, make_component(on_batch_end=fail))
    with pytest.raises(ValueError, match="second") as caught:
        loop.train(1)
    assert not {"passing", "delegating"} & {name for name, _ in frames_of(caught.value)}


@pytest.mark.parametrize("wrapper", [passing, delegating])
def test_wrappers_that_an_error_of_the_loop_passes_through_are_not_blamed(wrapper):
    """Its message is complete."""

    def make_optimizer(lr):
        def on_train_begin(loop):
            loop.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr)

        return make_component(on_train_begin=on_train_begin)

    states = []
    keep = make_component(on_safe_point=lambda loop: states.append(loop.state_dict()))
    make_loop(make_optimizer(0.1), keep).train(1)
    loop = make_loop(make_component(around_run=wrapper), make_optimizer(0.2))
    loop.load_state_dict(states[0], ignore=["component"])
    with pytest.raises(StateError, match=r"0\.1 saved, 0\.2 new") as caught:
        loop.train(1)
    assert not getattr(caught.value, "__notes__", None)


def test_a_loop_that_cannot_be_created_shows_the_line_of_the_script():
    """And one frame of ttl."""
    with pytest.raises(UnknownNameError) as caught:
        make_loop("metrcis")
    modules = [module.partition(".")[0] for _, module in frames_of(caught.value)]
    assert ["ttl_core"] == [module for module in modules if module in ("ttl_core", "pluggy")]
