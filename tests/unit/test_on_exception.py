"""on_exception: it fires once in a run that fails, and reaches every enabled component."""

from __future__ import annotations

import pytest
from failures import attribution, fail, failure_of
from loops import make_component, make_loop

from ttl_core import DuplicateComponentError, hookimpl


@pytest.mark.parametrize(
    "run",
    [lambda loop: loop.train(1), lambda loop: loop.test([0]), lambda loop: loop.validate()],
    ids=["train", "test", "validate"],
)
def test_on_exception_fires_once_in_a_run_that_fails(recorder, run):
    """Every kind of run fires on_exception once, as its last point."""
    loop = make_loop(recorder, make_component(on_batch_end=fail))
    failure_of(lambda: run(loop))
    assert ("on_exception", 1) == (recorder.points[-1], recorder.points.count("on_exception"))


def test_a_nested_validation_is_part_of_the_run_that_fails(recorder):
    """A failure in a nested validate() fires on_exception once."""
    calling = make_component(on_batch_end=lambda loop: loop.is_validating or loop.validate())
    failure_of(
        lambda: make_loop(recorder, calling, make_component(on_epoch_end=fail)).train(n_epochs=1)
    )
    assert 1 == recorder.points.count("on_exception")


@pytest.mark.parametrize("point", ["around_run", "on_train_begin", "on_train_end"])
def test_on_exception_fires_after_failures_outside_epochs(recorder, point):
    """on_exception fires also if a run fails at its beginning or its end."""

    @hookimpl(wrapper=True)
    def around(loop):
        yield
        fail()

    failure_of(lambda: make_loop(recorder, make_component(**{point: around})).train(n_epochs=1))
    assert "on_exception" == recorder.points[-1]


def test_on_exception_gets_the_exception_with_its_note():
    """A component that reports a failure can name the component that failed."""
    seen = []
    reporter = make_component(
        on_exception=lambda exception: seen.append((exception, attribution(exception)))
    )
    loop = make_loop(reporter, make_component(name="failing", on_batch_end=fail))
    exception = failure_of(lambda: loop.train(n_epochs=1))
    assert [(exception, ("failing", "on_batch_end"))] == seen


@hookimpl(wrapper=True)
def fail_before(loop):
    """Fail before the others."""
    fail()
    yield


@hookimpl(wrapper=True)
def fail_after(loop):
    """Fail after the others."""
    yield
    fail()


@hookimpl(wrapper=True)
def return_before(loop):
    """Return before the yield, which is an error in pluggy."""
    if loop is None:
        yield


@hookimpl(wrapper=True)
def yield_twice(loop):
    """Yield again, which is an error in pluggy."""
    yield
    yield


FAILING = [fail, fail_before, fail_after, return_before, yield_twice]


@pytest.mark.parametrize("second", FAILING)
def test_on_exception_reaches_every_component(second):
    """If a component fails in on_exception, the others are still called."""
    called = []
    loop = make_loop(
        make_component(on_exception=lambda loop: called.append("before")),
        make_component(on_exception=second),
        make_component(on_exception=lambda loop: called.append("after")),
        make_component(on_batch_end=lambda loop: 1 // 0),
    )
    with pytest.raises(ZeroDivisionError):
        loop.train(n_epochs=1)
    assert ["before", "after"] == called


@pytest.mark.parametrize("second", FAILING)
def test_a_failure_in_on_exception_becomes_a_note(second):
    """The second failure is a note of the first one."""
    loop = make_loop(
        make_component(on_exception=second), make_component(on_batch_end=lambda loop: 1 // 0)
    )
    with pytest.raises(ZeroDivisionError) as raised:
        loop.train(n_epochs=1)
    first, then = raised.value.__notes__
    assert "in on_batch_end" in first
    assert "then failed in on_exception: " in then


def test_the_note_of_a_second_failure_names_its_component():
    """The note has the name of the component that failed in on_exception."""
    loop = make_loop(
        make_component(name="second", on_exception=fail), make_component(on_batch_end=fail)
    )
    exception = failure_of(lambda: loop.train(n_epochs=1))
    assert "component 'second'" in exception.__notes__[1]


def test_a_wrapper_surrounds_on_exception():
    """on_exception can have wrappers, like every point."""
    events = []

    @hookimpl(wrapper=True)
    def around(loop):
        events.append("begins")
        yield
        events.append("ends")

    observer = make_component(on_exception=lambda loop: events.append("called"))
    failure_of(
        lambda: make_loop(observer, make_component(on_exception=around, on_batch_end=fail)).train(
            n_epochs=1
        )
    )
    assert ["begins", "called", "ends"] == events


def test_disabled_components_get_no_on_exception(recorder):
    """on_exception reaches enabled components only."""
    loop = make_loop(recorder, make_component(on_batch_end=fail))
    loop.components.disable(recorder)
    failure_of(lambda: loop.train(n_epochs=1))
    assert [] == recorder.points


def test_a_component_that_joins_in_the_call_that_fails_gets_on_exception(recorder):
    """on_exception is the next hook call, with the list as it is then."""

    def joining(loop):
        loop.components.append(recorder)
        fail()

    failure_of(lambda: make_loop(make_component(on_batch_end=joining)).train(n_epochs=1))
    assert ["on_exception"] == recorder.points


def test_a_component_that_is_removed_in_the_call_that_fails_gets_no_on_exception(recorder):
    """on_exception does not reach a component that is no longer in the list."""

    def leaving(loop):
        loop.components.remove(recorder)
        fail()

    failure_of(
        lambda: make_loop(make_component(on_train_begin=leaving), recorder).train(n_epochs=1)
    )
    assert [] == recorder.points


def test_on_exception_fires_after_the_list_has_become_unusable(recorder):
    """If the list itself is the failure, the components that were in it before are called."""

    def doubling(loop):
        loop.components *= 2

    loop = make_loop(recorder, make_component(on_train_begin=doubling))
    with pytest.raises(DuplicateComponentError):
        loop.train(n_epochs=1)
    assert ["on_train_begin", "on_exception"] == recorder.points
