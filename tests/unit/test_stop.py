"""stop(): the end of a run, asked for from any point."""

from __future__ import annotations

import pytest

from ttl_core import hookimpl

IN_TRAINING = [
    *("on_train_begin", "on_epoch_begin", "on_grads_reset", "on_batch_begin", "on_forward_pass"),
    *("on_loss_compute", "on_backward_pass", "on_optim_step", "on_batch_end", "on_safe_point"),
    "on_epoch_end",
]


def validate(loop):
    """Validate in training."""
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
def test_stop_skips_the_rest_of_its_point_and_of_the_run(at, loop_of, recorder, points, point):
    """Whoever comes after the one who stops sees nothing more but on_train_end."""
    loop = loop_of(recorder)
    loop.train(n_epochs=1)
    expected = [*points[: points.index(point)], "on_train_end"]
    points.clear()
    loop.components.insert(0, at(**{point: stop}))
    loop.train(n_epochs=1)
    assert expected == points


@pytest.mark.parametrize("point", IN_TRAINING)
def test_an_epoch_that_was_stopped_does_not_count(at, loop_of, point):
    """stop() leaves epoch_num as it is."""
    loop = loop_of(at(**{point: stop}))
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
def test_an_around_hook_can_stop_the_run(at, loop_of, recorder, points, around, expected):
    """stop() before or after the yield of an around-hook ends the run."""
    loop_of(at(**around), recorder, train_data=[]).train(n_epochs=3)
    assert expected == points


@pytest.mark.parametrize(
    "functions",
    [{"around_run": stop_after}, {"on_train_end": stop}],
    ids=["after around_run", "on_train_end"],
)
def test_stopping_a_run_that_is_over_has_no_effect(at, loop_of, recorder, points, functions):
    """After on_train_end has begun there is nothing left to stop."""
    loop = loop_of(at(**functions), recorder)
    loop.train(n_epochs=2)
    assert ("on_train_end", 2) == (points[-1], loop.epoch_num)


def test_stopping_outside_a_run_has_no_effect(loop_of):
    """A stop() before train() does not stop it."""
    loop = loop_of()
    loop.stop()
    loop.train(n_epochs=2)
    assert 2 == loop.epoch_num


def test_stopping_while_a_run_fails_has_no_effect(at, loop_of):
    """stop() in on_exception neither hides the failure nor counts as a second one."""
    loop = loop_of(at(on_batch_end=lambda loop: 1 // 0, on_exception=stop))
    with pytest.raises(ZeroDivisionError) as caught:
        loop.train(n_epochs=1)
    assert 1 == len(caught.value.__notes__)


def test_stopping_in_a_nested_validation_ends_the_enclosing_run(at, loop_of, recorder, points):
    """stop() in a validate() that training asked for ends training."""
    stopping = at(on_batch_end=lambda loop: loop.is_validating and loop.stop())
    loop = loop_of(at(on_loss_compute=validate), stopping, recorder)
    loop.train(n_epochs=2)
    assert ["on_loss_compute", "on_train_end"] == points[-2:]
    assert 0 == loop.epoch_num


def test_stopping_a_nested_validation_puts_back_the_loop_variables(at, loop_of, watching):
    """on_train_end sees the variables of the training batch that was stopped."""
    stopping = at(on_batch_end=lambda loop: loop.is_validating and loop.stop())
    watch = watching("on_train_end", "epoch_desc", "batch", "n_epochs")
    loop_of(at(on_loss_compute=validate), stopping, watch, train_data="a", valid_data="b").train(
        n_epochs=2
    )
    assert [("train", "a", 2)] == watch.seen


def test_stopping_a_validation_of_its_own_ends_it(at, loop_of, recorder, points):
    """stop() in a validate() that no run asked for returns from it."""
    loop_of(at(on_batch_begin=stop), recorder).validate()
    assert ["on_epoch_begin"] == points


@pytest.mark.parametrize("point", ["on_test_begin", "on_epoch_begin", "on_batch_end"])
def test_stopping_a_test_ends_it(at, loop_of, recorder, points, point):
    """stop() in a test() leads to on_test_end."""
    loop_of(at(**{point: stop}), recorder).test(range(3))
    assert ("on_test_end", 0) == (points[-1], points.count("on_epoch_end"))


def test_stopping_in_on_test_end_has_no_effect(at, loop_of, recorder, points):
    """All components get their on_test_end."""
    loop_of(at(on_test_end=stop), recorder).test([])
    assert "on_test_end" == points[-1]


def test_stop_leaves_no_notes(at, loop_of):
    """stop() is no failure: what travels through wrappers carries no note."""
    seen = []

    @hookimpl(wrapper=True)
    def catching(loop):
        try:
            yield
        except BaseException as exception:
            seen.append(exception)
            raise

    loop_of(at(around_run=catching), at(around_run=stop_before)).train(n_epochs=1)
    assert [[]] == [getattr(exception, "__notes__", []) for exception in seen]
