"""loop.state_dict(): at which points it may be called."""

from __future__ import annotations

import pytest
from loops import act_at
from recording import Recorder
from states import make_data, make_step_loop

from ttl_core import LoopComponent, RunError
from ttl_core.hookspecs import POINTS

pytestmark = pytest.mark.usefixtures("one_thread")


def position_of(loop):
    """Return the position in a state that is taken at any point."""
    return loop.state_dict(allow_unsafe=True)["position"]


def run_through(point, action):
    """Train, validate, test and predict with an action at a point; fail for on_exception."""
    is_failing = point == "on_exception"
    loop = make_step_loop(act_at(point, action), valid_data=make_data(1))
    if is_failing:
        loop.components.append(act_at("on_epoch_end", lambda loop: 1 // 0))
    for run, argument in ((loop.train, 1), (loop.test, make_data(1)), (loop.predict, make_data(1))):
        try:
            run(argument)
        except ZeroDivisionError:
            assert is_failing
    return loop


@pytest.mark.parametrize("point", [point for point in POINTS if point != "on_safe_point"])
def test_a_state_is_refused_at_every_other_point(point):
    """No run could be resumed from a point at which components may be half-way through a batch."""
    texts = set()

    def take(loop):
        with pytest.raises(RunError) as caught:
            loop.state_dict()
        texts.add(str(caught.value))

    run_through(point, take)
    expected = (
        "state_dict() was called outside of a safe point, where no run can resume: components "
        "may be halfway through a batch. Call it in on_safe_point"
    )
    assert {expected} == texts


@pytest.mark.parametrize(
    "point",
    [p for p in POINTS if p not in ("on_safe_point", "on_train_end", "around_run")],
)
def test_an_unsafe_state_has_no_position(point):
    """With allow_unsafe=True, a state is taken at every point, but no run can resume from it."""
    positions = []
    run_through(point, lambda loop: positions.append(position_of(loop)))
    assert positions
    assert {None} == set(positions)


def test_a_state_is_refused_outside_a_run():
    """Before a run and after it, there is no safe point."""
    loop = make_step_loop()
    for _ in range(2):
        with pytest.raises(RunError, match="Call it in on_safe_point"):
            loop.state_dict()
        assert loop.state_dict(allow_unsafe=True)["position"] is None
        loop.train(1)


def test_a_state_is_refused_in_a_nested_validation():
    """A validate() at a safe point has no safe point; after it, there still is one."""
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

    make_step_loop(Validate(), valid_data=make_data(1)).train(1)
    assert [None, 1] == positions


def test_there_is_a_position_after_the_last_safe_point():
    """In on_train_end of a complete run, a state from which to resume can still be taken."""
    recorder = Recorder("on_train_end", position_of)
    make_step_loop(recorder).train(2)
    assert [(2, 6, False)] == [
        (position["epoch_num"], position["global_step"], position["is_stopped"])
        for position in recorder.seen
    ]


@pytest.mark.parametrize(
    ("point", "expected"), [("on_safe_point", True), ("on_batch_end", None), ("on_epoch_end", None)]
)
def test_a_run_that_was_stopped_at_a_safe_point_has_a_position(point, expected):
    """A run that was stopped elsewhere ends half-way through a batch or an epoch."""
    recorder = Recorder("on_train_end", position_of)
    make_step_loop(act_at(point, lambda loop: loop.stop()), recorder).train(1)
    assert [expected] == [position and position["is_stopped"] for position in recorder.seen]
