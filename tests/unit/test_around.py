"""Wrappers: their order, what they undo and when, and the results that pass through them."""

from __future__ import annotations

import pytest
from loops import make_component, make_loop
from recording import AroundRecorder

from ttl_core import hookimpl

WHOLE = [
    *("a begins run", "a begins epoch", "a begins batch"),
    *("a ends batch", "a ends epoch", "a ends run"),
]


def stop(loop):
    """Stop the loop."""
    loop.stop()


def fail(loop):
    """Fail with an exception."""
    raise ZeroDivisionError


def interrupt(loop):
    """Fail as ctrl-C makes it."""
    raise KeyboardInterrupt


def clear(loop):
    """Remove all components from the list."""
    loop.components.clear()


def disable(loop):
    """Disable the wrapper."""
    loop.components.disable("a")


def replace_all(loop):
    """Assign a list without the wrapper."""
    loop.components = []


def duplicate(loop):
    """Add a component that is in the list already, so that the next hook call fails."""
    loop.components.append(loop.components[0])


@pytest.fixture
def events():
    """Return the list to which wrappers add what they do."""
    return []


def test_the_first_wrapper_in_the_list_is_the_outermost(events):
    """Wrappers are nested in list order around all other implementations."""
    plain = make_component(on_batch_end=lambda loop: events.append("plain"))
    loop = make_loop(plain, AroundRecorder("a", events), AroundRecorder("b", events))
    loop.hook.on_batch_end(loop=loop)
    expected = ["a begins batch", "b begins batch", "plain", "b ends batch", "a ends batch"]
    assert expected == events


def test_around_hooks_surround_their_run_and_epochs(events):
    """What around-hooks surround is the body of the run, and of each epoch."""
    recorder = make_component(
        on_train_begin=lambda loop: events.append("on_train_begin"),
        on_epoch_begin=lambda loop: events.append("on_epoch_begin"),
        on_epoch_end=lambda loop: events.append("on_epoch_end"),
        on_safe_point=lambda loop: events.append("on_safe_point"),
        on_train_end=lambda loop: events.append("on_train_end"),
    )
    loop = make_loop(AroundRecorder("a", events), recorder, train_data=[0], valid_data=None)
    loop.train(n_epochs=1)
    batch = ["a begins batch", "a ends batch"]
    epoch = ["a begins epoch", "on_epoch_begin", *batch, "on_epoch_end", "a ends epoch"]
    run = ["on_train_begin", *epoch, "on_safe_point", "on_train_end"]
    assert ["a begins run", *run, "a ends run"] == events


@pytest.mark.parametrize(
    ("event", "exception"), [(fail, ZeroDivisionError), (interrupt, KeyboardInterrupt)]
)
def test_wrappers_are_undone_when_a_run_fails(events, event, exception):
    """What is in `finally:` after a yield runs on exceptions and on ctrl-C."""
    loop = make_loop(AroundRecorder("a", events), make_component(on_batch_end=event))
    with pytest.raises(exception):
        loop.train(n_epochs=1)
    assert WHOLE == events


def test_wrappers_are_undone_when_a_run_is_stopped(events):
    """What is in `finally:` after a yield runs on stop()."""
    make_loop(AroundRecorder("a", events), make_component(on_batch_end=stop)).train(n_epochs=1)
    assert WHOLE == events


@pytest.mark.parametrize("event", [clear, disable, replace_all])
def test_wrappers_are_undone_after_they_were_removed_or_disabled(events, event):
    """A wrapper that has been entered is left too if it is removed or disabled in between."""
    leaving = make_component(on_batch_end=event)
    loop = make_loop(AroundRecorder("a", events), leaving, train_data=[0, 1], valid_data=None)
    loop.train(n_epochs=1)
    assert WHOLE == events


def test_wrappers_are_undone_when_the_list_becomes_unusable(events):
    """After an error about the list itself, everything is undone."""
    loop = make_loop(
        AroundRecorder("a", events), make_component(on_batch_end=duplicate), train_data=[0]
    )
    with pytest.raises(ValueError, match="is in the list twice"):
        loop.train(n_epochs=1)
    assert WHOLE == events


def test_a_wrapper_that_joins_in_mid_epoch_surrounds_the_rest_of_it(events):
    """It enters the run and the epoch under way before its next hook."""
    joining = make_component(
        on_epoch_begin=lambda loop: loop.components.append(AroundRecorder("a", events))
    )
    make_loop(joining, train_data=[0], valid_data=None).train(n_epochs=1)
    assert WHOLE == events


def test_a_wrapper_sees_the_exception_of_what_it_surrounds():
    """An exception passes through the wrappers around the implementation that raised it."""
    seen = []

    @hookimpl(wrapper=True)
    def catching(loop):
        try:
            yield
        except ZeroDivisionError as exception:
            seen.append(type(exception))
            raise

    loop = make_loop(make_component(on_batch_end=catching), make_component(on_batch_end=fail))
    with pytest.raises(ZeroDivisionError):
        loop.train(n_epochs=1)
    assert [ZeroDivisionError] == seen


def test_a_wrapper_may_catch_an_exception():
    """A run continues if a wrapper catches what was raised inside it."""

    @hookimpl(wrapper=True)
    def catching(loop):
        try:
            return (yield)
        except ZeroDivisionError:
            return []

    loop = make_loop(make_component(on_batch_end=catching), make_component(on_batch_end=fail))
    loop.train(n_epochs=1)
    assert 1 == loop.epoch_num


def test_a_wrapper_sees_the_list_of_results():
    """The yield of a wrapper returns what the other implementations returned."""
    seen = []

    @hookimpl(wrapper=True)
    def recording(loop):
        results = yield
        seen.append(list(results))
        return results

    loop = make_loop(
        make_component(on_batch_end=recording),
        *(make_component(on_batch_end=lambda loop: 1) for _ in "ab"),
    )
    loop.hook.on_batch_end(loop=loop)
    assert [[1, 1]] == seen


def test_a_wrapper_may_change_the_list_of_results():
    """The caller gets what the wrapper returns."""

    @hookimpl(wrapper=True)
    def doubling(loop):
        results = yield
        return [2 * result for result in results]

    loop = make_loop(
        make_component(on_batch_end=doubling), make_component(on_batch_end=lambda loop: 3)
    )
    assert [6] == loop.hook.on_batch_end(loop=loop)
