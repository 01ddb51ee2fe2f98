"""stop(): it ends a run from any point."""

from __future__ import annotations

import contextlib
import threading

import pytest
import torch
from loops import make_component, make_loop
from recording import Recorder

from ttl_core import LoopComponent, RunError, TrainTestLoop, hookimpl

IN_TRAINING = [
    *("on_train_begin", "on_epoch_begin", "on_grads_reset", "on_batch_begin", "on_forward_pass"),
    *("on_loss_compute", "on_backward_pass", "on_optim_step", "on_batch_end", "on_safe_point"),
    "on_epoch_end",
]


def validate(loop):
    """Validate, in training only."""
    if loop.is_training:
        loop.validate()


def stop(loop):
    """Stop the loop."""
    loop.stop()


@hookimpl(wrapper=True)
def stop_before(loop):
    """Stop before what the wrapper surrounds."""
    loop.stop()
    yield


@hookimpl(wrapper=True)
def stop_after(loop):
    """Stop after what the wrapper surrounds."""
    yield
    loop.stop()


@pytest.mark.parametrize("point", IN_TRAINING)
def test_stop_skips_the_rest_of_its_point_and_of_the_run(recorder, point):
    """After stop(), no component is called any more, except in on_train_end."""
    loop = make_loop(recorder)
    loop.train(n_epochs=1)
    expected = [*recorder.points[: recorder.points.index(point)], "on_train_end"]
    recorder.points.clear()
    loop.components.insert(0, make_component(**{point: stop}))
    loop.train(n_epochs=1)
    assert expected == recorder.points


@pytest.mark.parametrize("point", IN_TRAINING)
def test_an_epoch_that_was_stopped_does_not_count(point):
    """stop() does not change epoch_num."""
    loop = make_loop(make_component(**{point: stop}))
    loop.train(n_epochs=3)
    assert 0 == loop.epoch_num


@pytest.mark.parametrize(
    ("around", "expected"),
    [
        ({"around_run": stop_before}, ["on_train_end"]),
        ({"around_epoch": stop_before}, ["on_train_begin", "on_train_end"]),
        (
            {"around_epoch": stop_after},
            ["on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end"],
        ),
    ],
    ids=["around_run, before", "around_epoch, before", "around_epoch, after"],
)
def test_an_around_hook_can_stop_the_run(recorder, around, expected):
    """stop() before or after the yield of an around-hook ends the run."""
    make_loop(make_component(**around), recorder, train_data=[0]).train(n_epochs=3)
    assert expected == [point for point in recorder.points if "epoch" in point or "train" in point]


@pytest.mark.parametrize(
    "functions",
    [{"around_run": stop_after}, {"on_train_end": stop}],
    ids=["after around_run", "on_train_end"],
)
def test_stopping_a_run_that_is_over_has_no_effect(recorder, functions):
    """After on_train_end has begun, there is nothing to stop."""
    loop = make_loop(make_component(**functions), recorder)
    loop.train(n_epochs=2)
    assert ("on_train_end", 2) == (recorder.points[-1], loop.epoch_num)


def test_stopping_outside_a_run_has_no_effect():
    """stop() before train() does not stop the run."""
    loop = make_loop()
    loop.stop()
    loop.train(n_epochs=2)
    assert 2 == loop.epoch_num


def test_stopping_while_a_run_fails_has_no_effect():
    """stop() in on_exception neither hides the failure nor is a second one."""
    loop = make_loop(make_component(on_batch_end=lambda loop: 1 // 0, on_exception=stop))
    with pytest.raises(ZeroDivisionError) as caught:
        loop.train(n_epochs=1)
    assert 1 == len(caught.value.__notes__)


def test_stopping_in_a_nested_validation_ends_the_enclosing_run(recorder):
    """stop() in a validate() that was called in training ends training."""
    stopping = make_component(on_batch_end=lambda loop: loop.is_validating and loop.stop())
    loop = make_loop(make_component(on_loss_compute=validate), stopping, recorder)
    loop.train(n_epochs=2)
    assert ["on_loss_compute", "on_train_end"] == recorder.points[-2:]
    assert 0 == loop.epoch_num


def test_stopping_a_nested_validation_restores_the_loop_variables():
    """In on_train_end, the variables are those of the training batch that was stopped."""
    stopping = make_component(on_batch_end=lambda loop: loop.is_validating and loop.stop())
    variables = Recorder("on_train_end", "epoch_desc", "batch", "n_epochs")
    make_loop(
        make_component(on_loss_compute=validate),
        stopping,
        variables,
        train_data="a",
        valid_data="b",
    ).train(n_epochs=2)
    assert [("train", "a", 2)] == variables.seen


def test_stopping_a_validation_outside_a_run_ends_it(recorder):
    """After stop() in a validate() outside a run, validate() returns."""
    make_loop(make_component(on_batch_begin=stop), recorder).validate()
    assert ["on_epoch_begin"] == recorder.points


@pytest.mark.parametrize("point", ["on_test_begin", "on_epoch_begin", "on_batch_end"])
def test_stopping_a_test_ends_it(recorder, point):
    """After stop() in a test(), on_test_end fires."""
    make_loop(make_component(**{point: stop}), recorder).test(range(3))
    assert ("on_test_end", 0) == (recorder.points[-1], recorder.points.count("on_epoch_end"))


def test_stopping_in_on_test_end_has_no_effect(recorder):
    """After stop() in on_test_end, the other components are still called."""
    make_loop(make_component(on_test_end=stop), recorder).test([])
    assert "on_test_end" == recorder.points[-1]


def test_stop_leaves_no_notes():
    """stop() is no failure: the exception that passes through wrappers has no note."""
    seen = []

    @hookimpl(wrapper=True)
    def catching(loop):
        try:
            yield
        except BaseException as exception:
            seen.append(exception)
            raise

    loop = make_loop(make_component(around_run=catching), make_component(around_run=stop_before))
    loop.train(n_epochs=1)
    assert [[]] == [getattr(exception, "__notes__", []) for exception in seen]


def test_a_loop_tells_whether_it_was_stopped():
    """`is_stopped` is True from stop() until train() is called again."""
    seen = []
    loop = make_loop(make_component(on_train_end=lambda loop: seen.append(loop.is_stopped)))
    loop.train(n_epochs=1)
    with_stop = make_component(on_epoch_begin=stop)
    loop.components.insert(0, with_stop)
    loop.train(n_epochs=1)
    loop.components.remove(with_stop)
    loop.train(n_epochs=1)
    assert [False, True, False] == seen


@pytest.mark.parametrize("how", ["hook", "wrapper", "validate", "function"])
def test_what_has_stopped_a_run_is_known_with_its_reason(how):
    """Also where it was called in a wrapper, a nested validation, or a function of a component."""

    class Ending(LoopComponent):
        @hookimpl(wrapper=True)
        def on_batch_end(self, loop):
            if how == "wrapper":
                loop.stop("enough")
            return (yield)

        def on_safe_point(self, loop):
            if how == "hook":
                loop.stop("enough")
            if how == "validate":
                loop.validate([0])
            if how == "function":
                (lambda: loop.stop("enough"))()

        def on_epoch_end(self, loop):
            if how == "validate" and loop.is_validating:
                loop.stop("enough")

    loop = TrainTestLoop(torch.nn.Identity(), [LoopComponent(), Ending()], [0, 1])
    assert loop.stopped_by is None
    loop.train(1)
    assert ("ending", "enough") == loop.stopped_by
    loop.components.clear()
    loop.train(1)
    assert loop.stopped_by is None


def test_a_stop_that_does_not_reach_the_run_does_not_stop_it():
    """Where something swallows it, the run continues, and its states are no ends of a run."""
    states = []

    class Swallow(LoopComponent):
        def on_batch_begin(self, loop):
            with contextlib.suppress(BaseException):
                loop.stop()

        def on_safe_point(self, loop):
            states.append(loop.state_dict())

    loop = make_loop(Swallow())
    loop.train(n_epochs=2)
    assert (2, False, None) == (loop.epoch_num, loop.is_stopped, loop.stopped_by)
    assert not any(state["position"]["is_stopped"] for state in states)


def test_another_thread_cannot_stop_the_run():
    """The error says what to write instead; the run continues."""
    errors = []

    def call(loop):
        try:
            loop.stop()
        except RunError as error:
            errors.append(str(error))

    class StopInThread(LoopComponent):
        def on_epoch_begin(self, loop):
            thread = threading.Thread(target=call, args=[loop], name="button")
            thread.start()
            thread.join()

    loop = make_loop(StopInThread())
    loop.train(n_epochs=1)
    assert (1, False) == (loop.epoch_num, loop.is_stopped)
    assert errors[0].startswith("stop() was called in the thread 'button', which is not the one of")
