"""Failing runs: the note that says who failed, and on_exception."""

from __future__ import annotations

import functools
import re

import pytest
import torch

from ttl_core import DuplicateComponentError, LoopComponent, RunError, hookimpl


class Failure(Exception):  # noqa: N818
    """What components of this module raise."""


def fail():
    """Fail, some frames away from the component that is to blame."""
    raise Failure


def caught(run):
    """Return what a run raised."""
    with pytest.raises((Failure, KeyboardInterrupt, RuntimeError)) as raised:
        run()
    return raised.value


def blamed(exception):
    """Return the name of the component and the point that an exception's first note gives."""
    return re.match(
        r"ttl: raised by component '(.+?)' .* in (\w+)", exception.__notes__[0]
    ).groups()


def bare(function):
    """Decorate without functools.wraps."""

    def inner(self, loop):
        return function(self, loop)

    return inner


def wrapping(function):
    """Decorate with functools.wraps."""

    @functools.wraps(function)
    def inner(*args):
        return function(*args)

    return inner


# -- who is blamed --------------------------------------------------------------------------


class Innocent(LoopComponent):
    """Take part in everything, with every kind of method, and do no harm."""

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        return (yield)

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        return (yield)

    @hookimpl(wrapper=True, specname="on_batch_begin")
    @torch.no_grad()
    def surround(self, loop):
        return (yield)

    @bare
    def on_batch_begin(self, loop): ...

    @bare
    def on_epoch_begin(self, loop): ...

    def on_exception(self, loop): ...


class Plain(LoopComponent):
    def on_batch_begin(self, loop):
        fail()


class Inherited(Plain): ...


class Overriding(Plain):
    def on_batch_begin(self, loop):
        super().on_batch_begin(loop)


class WithoutArguments(LoopComponent):
    def on_batch_begin(self):
        fail()


class Static(LoopComponent):
    @staticmethod
    def on_batch_begin(loop):
        fail()


class ClassMethod(LoopComponent):
    @classmethod
    def on_batch_begin(cls, loop):
        fail()


class Renamed(LoopComponent):
    @hookimpl(specname="on_batch_begin")
    def start(self, loop):
        fail()


class First(LoopComponent):
    @hookimpl(tryfirst=True)
    def on_batch_begin(self, loop):
        fail()


class Bare(LoopComponent):
    @bare
    def on_backward_pass(self, loop): ...

    @bare
    def on_batch_begin(self, loop):
        fail()

    @bare
    def on_batch_end(self, loop): ...


class Wrapping(LoopComponent):
    @wrapping
    def on_batch_begin(self, loop):
        fail()


class NoGrad(LoopComponent):
    @torch.no_grad()
    def on_batch_begin(self, loop):
        fail()


class Chained(LoopComponent):
    def on_batch_begin(self, loop):
        try:
            {}["key"]
        except KeyError as error:
            raise Failure from error


class InTheModel(LoopComponent):
    def on_batch_begin(self, loop):
        loop.model.register_forward_pre_hook(lambda model, inputs: fail())
        loop.model(None)


class BeforeYield(LoopComponent):
    @hookimpl(wrapper=True)
    def on_batch_begin(self, loop):
        fail()
        yield


class AfterYield(LoopComponent):
    @hookimpl(wrapper=True)
    def on_batch_begin(self, loop):
        yield
        fail()


class NoGradAfterYield(LoopComponent):
    @hookimpl(wrapper=True)
    @torch.no_grad()
    def on_batch_begin(self, loop):
        yield
        fail()


class InHelper(LoopComponent):
    @hookimpl(wrapper=True)
    def on_batch_begin(self, loop):
        yield from self.surround()

    def surround(self):
        yield
        fail()


class ReturningBeforeYield(LoopComponent):
    @hookimpl(wrapper=True)
    def on_batch_begin(self, loop):
        if loop is None:
            yield


class YieldingTwice(LoopComponent):
    @hookimpl(wrapper=True)
    def on_batch_begin(self, loop):
        yield
        yield


GUILTY = [
    *(Plain, Inherited, Overriding, WithoutArguments, Static, ClassMethod, Renamed, First),
    *(Bare, Wrapping, NoGrad, Chained, InTheModel, BeforeYield, AfterYield, NoGradAfterYield),
    *(InHelper, ReturningBeforeYield, YieldingTwice),
]


@pytest.mark.parametrize("cls", GUILTY)
def test_the_component_that_fails_is_blamed_alone(loop_of, cls):
    """The note of a loop's only component has its name and its point."""
    guilty = cls()
    guilty.name = "guilty"
    exception = caught(lambda: loop_of(guilty).train(n_epochs=1))
    assert ("guilty", "on_batch_begin") == blamed(exception)


@pytest.mark.parametrize("cls", GUILTY)
def test_the_component_that_fails_is_blamed_among_others(loop_of, cls):
    """Neither wrappers around it nor components beside it are blamed."""
    guilty = cls()
    guilty.name = "guilty"
    loop = loop_of(Innocent(), guilty, Innocent())
    exception = caught(lambda: loop.train(n_epochs=1))
    assert ("guilty", "on_batch_begin") == blamed(exception)


class Choosy(LoopComponent):
    """Fail at one point, if at all."""

    def __init__(self, fails_at):
        self.fails_at = fails_at

    def on_batch_end(self, loop):
        if self.fails_at == "on_batch_end":
            fail()

    @hookimpl(wrapper=True)
    def on_epoch_end(self, loop):
        yield
        if self.fails_at == "on_epoch_end":
            fail()


@pytest.mark.parametrize("point", ["on_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("guilty", [0, 1, 2])
def test_instances_of_one_class_are_told_apart(loop_of, point, guilty):
    """Of several components with the same code, the one that failed is blamed."""
    loop = loop_of(*(Choosy(point if i == guilty else None) for i in range(3)))
    exception = caught(lambda: loop.train(n_epochs=1))
    assert (loop.components.names()[guilty], point) == blamed(exception)


@pytest.mark.parametrize("cls", GUILTY)
def test_a_disabled_double_is_not_blamed(loop_of, cls):
    """Who is switched off has not failed, though its code is the same."""
    loop = loop_of(cls(), cls())
    loop.components.disable(loop.components[0])
    exception = caught(lambda: loop.train(n_epochs=1))
    assert (loop.components.names()[1], "on_batch_begin") == blamed(exception)


def test_whoever_was_called_deepest_is_blamed(at, loop_of):
    """A component that fails in a hook called by another component is blamed."""
    calling = at(name="calling", on_batch_end=lambda loop: loop.log({"loss": 1}))
    loop = loop_of(calling, at(name="logger", on_log=fail))
    assert ("logger", "on_log") == blamed(caught(lambda: loop.train(n_epochs=1)))


def test_who_raises_another_exception_in_its_place_is_blamed(at, loop_of):
    """A wrapper that turns one exception into another has raised it."""

    @hookimpl(wrapper=True)
    def turning(loop):
        try:
            yield
        except ZeroDivisionError as error:
            raise Failure from error

    loop = loop_of(at(name="turning", on_batch_end=turning), at(on_batch_end=lambda loop: 1 // 0))
    assert ("turning", "on_batch_end") == blamed(caught(lambda: loop.train(n_epochs=1)))


@pytest.mark.parametrize("around", ["around_run", "around_epoch"])
@pytest.mark.parametrize("leave", ["clear", "disable", "stay"])
def test_a_wrapper_that_has_left_is_still_blamed(at, loop_of, around, leave):
    """Who fails in undoing is named, also when taken out or switched off meanwhile."""

    @hookimpl(wrapper=True)
    def undoing(loop):
        yield
        fail()

    def leaving(loop):
        match leave:
            case "clear":
                loop.components.clear()
            case "disable":
                loop.components.disable("guilty")

    loop = loop_of(at(name="guilty", **{around: undoing}), at(on_epoch_begin=leaving))
    assert ("guilty", around) == blamed(caught(lambda: loop.train(n_epochs=1)))


def test_a_component_that_takes_itself_out_and_fails_is_blamed(at, loop_of):
    """A component that left in the very call in which it fails is named."""

    def leaving(loop):
        loop.components.remove("guilty")
        loop.log({"loss": 1})
        fail()

    loop = loop_of(at(name="guilty", on_batch_end=leaving))
    assert ("guilty", "on_batch_end") == blamed(caught(lambda: loop.train(n_epochs=1)))


# -- what the note says ---------------------------------------------------------------------


def test_the_note_names_component_class_point_epoch_and_batch(loop_of):
    """All that is known about a failure stands in one line."""

    class Late(LoopComponent):
        def on_batch_end(self, loop):
            if (loop.epoch_num, loop.batch_num) == (2, 1):
                fail()

    exception = caught(lambda: loop_of(Late()).train(n_epochs=3))
    who = f"component 'late' (class {__name__}.{Late.__qualname__})"
    expected = f"ttl: raised by {who} in on_batch_end, train epoch, epoch_num=2, batch_num=1"
    assert [expected] == exception.__notes__


@pytest.mark.parametrize(
    ("point", "where"),
    [
        ("on_train_begin", "in on_train_begin"),
        ("on_epoch_begin", "in on_epoch_begin, train epoch, epoch_num=0"),
        ("on_safe_point", "in on_safe_point, train epoch, epoch_num=0, batch_num=0"),
        ("on_train_end", "in on_train_end"),
    ],
)
def test_the_note_says_no_more_than_there_is(at, loop_of, point, where):
    """Outside epochs and batches the note has none."""
    exception = caught(lambda: loop_of(at(**{point: fail})).train(n_epochs=1))
    assert exception.__notes__[0].endswith(where)


def test_the_note_names_the_phase(at, loop_of):
    """Validation is told from training."""
    failing = at(on_batch_end=lambda loop: loop.is_validating and fail())
    exception = caught(lambda: loop_of(failing).train(n_epochs=1))
    assert exception.__notes__[0].endswith("valid epoch, epoch_num=0, batch_num=0")


def test_a_nested_validation_is_told(at, loop_of):
    """A failure in a validate() names its own epoch, and who called for it."""
    calling = at(name="calling", on_train_begin=lambda loop: loop.validate())
    guilty = at(name="guilty", on_batch_begin=fail)
    exception = caught(lambda: loop_of(calling, guilty).train(n_epochs=1))
    where = "in on_batch_begin, valid epoch, epoch_num=0, batch_num=0"
    assert "guilty" == blamed(exception)[0]
    assert f"{where}, in a validate() called by component 'calling'" in exception.__notes__[0]
    assert exception.__notes__[0].endswith("in on_train_begin")


@pytest.mark.parametrize("length", [0, 1])
def test_data_that_fail_are_blamed(loop_of, length):
    """An exception of the data is no component's."""

    def batches():
        yield from range(length)
        fail()

    exception = caught(lambda: loop_of(Innocent(), train_data=batches()).train(n_epochs=1))
    after = ", after batch_num=0" if length else ""
    expected = f"ttl: raised by the data, not by a component, train epoch, epoch_num=0{after}"
    assert [expected] == exception.__notes__


def test_an_error_of_the_loop_itself_has_no_note(loop_of):
    """What the loop says on purpose says it all."""
    with pytest.raises(RunError) as raised:
        loop_of(Innocent(), train_data=[]).train(n_optim_steps=1)
    assert not hasattr(raised.value, "__notes__")


def test_a_failure_has_one_note_however_deep(at, loop_of):
    """A failure that passes a nested validation is noted once."""
    calling = at(on_batch_end=lambda loop: loop.is_validating or loop.validate())
    exception = caught(lambda: loop_of(calling, at(on_epoch_end=fail)).train(n_epochs=1))
    assert 1 == len(exception.__notes__)


# -- the exception itself -------------------------------------------------------------------


class StrictError(Exception):
    """An exception that takes no notes."""

    def add_note(self, note):
        raise TypeError


class SpoiledError(Exception):
    """An exception whose notes are no list."""

    __notes__ = None


class SlottedError(Exception):
    """An exception that lets nothing be set."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


@pytest.mark.parametrize(
    "cls",
    [
        *(Failure, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, AttributeError),
        *(RuntimeError, StrictError, SpoiledError, SlottedError),
    ],
)
@pytest.mark.parametrize("around", [[], [Innocent]], ids=["alone", "inside wrappers"])
def test_an_exception_passes_as_it_is(at, loop_of, around, cls):
    """What a component raises is what train() raises, also where on_exception fails."""
    exception = cls()

    def failing(loop):
        raise exception

    failing = at(on_batch_begin=failing, on_exception=fail)
    loop = loop_of(*(innocent() for innocent in around), failing)
    with pytest.raises(cls) as raised:
        loop.train(n_epochs=1)
    assert exception is raised.value


def test_an_interrupted_run_is_noted_like_any_other(at, loop_of):
    """An interruption says in whose code it came."""

    def interrupt(loop):
        raise KeyboardInterrupt

    loop = loop_of(Innocent(), at(name="slow", on_batch_end=interrupt))
    assert ("slow", "on_batch_end") == blamed(caught(lambda: loop.train(n_epochs=1)))


def test_an_exception_passes_from_a_list_that_has_become_unusable(at, loop_of):
    """Who spoils the list and then fails is heard with the failure."""

    def failing(loop):
        loop.components *= 2
        fail()

    loop = loop_of(at(name="guilty", on_batch_end=failing))
    assert ("guilty", "on_batch_end") == blamed(caught(lambda: loop.train(n_epochs=1)))


def test_a_failure_that_a_component_handled_is_none(at, loop_of, recorder, points):
    """A run goes on after a validate() whose exception was caught."""

    def trying(loop):
        with pytest.raises(Failure):
            loop.validate()
        loop.stop()

    loop = loop_of(at(on_train_begin=trying, on_epoch_begin=fail), recorder)
    loop.train(n_epochs=1)
    assert ["on_train_end"] == points


# -- on_exception ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run",
    [lambda loop: loop.train(1), lambda loop: loop.test([0]), lambda loop: loop.validate()],
    ids=["train", "test", "validate"],
)
def test_on_exception_fires_once_in_a_run_that_fails(at, loop_of, recorder, points, run):
    """Every kind of run tells of its failure once, and ends with it."""
    loop = loop_of(recorder, at(on_batch_end=fail))
    caught(lambda: run(loop))
    assert ("on_exception", 1) == (points[-1], points.count("on_exception"))


def test_a_nested_validation_is_part_of_the_run_that_fails(at, loop_of, recorder, points):
    """A failure in a nested validate() fires on_exception once."""
    calling = at(on_batch_end=lambda loop: loop.is_validating or loop.validate())
    caught(lambda: loop_of(recorder, calling, at(on_epoch_end=fail)).train(n_epochs=1))
    assert 1 == points.count("on_exception")


@pytest.mark.parametrize("point", ["around_run", "on_train_begin", "on_train_end"])
def test_a_run_may_fail_from_beginning_to_end(at, loop_of, recorder, points, point):
    """on_exception tells of failures outside epochs too."""

    @hookimpl(wrapper=True)
    def around(loop):
        yield
        fail()

    caught(lambda: loop_of(recorder, at(**{point: around})).train(n_epochs=1))
    assert "on_exception" == points[-1]


def test_on_exception_is_given_the_exception_with_its_note(at, loop_of):
    """Whoever reports a failure can tell who failed."""
    seen = []
    reporting = at(on_exception=lambda exception: seen.append((exception, blamed(exception))))
    loop = loop_of(reporting, at(name="guilty", on_batch_end=fail))
    exception = caught(lambda: loop.train(n_epochs=1))
    assert [(exception, ("guilty", "on_batch_end"))] == seen


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
    """Return before the yield, which pluggy takes for an error."""
    if loop is None:
        yield


@hookimpl(wrapper=True)
def yield_twice(loop):
    """Yield again, which pluggy takes for an error."""
    yield
    yield


FAILING = [fail, fail_before, fail_after, return_before, yield_twice]


@pytest.mark.parametrize("second", FAILING)
def test_on_exception_reaches_every_component(at, loop_of, second):
    """A failure in on_exception keeps nobody from hearing of the first one."""
    heard = []
    loop = loop_of(
        at(on_exception=lambda loop: heard.append("before")),
        at(on_exception=second),
        at(on_exception=lambda loop: heard.append("after")),
        at(on_batch_end=lambda loop: 1 // 0),
    )
    with pytest.raises(ZeroDivisionError):
        loop.train(n_epochs=1)
    assert ["before", "after"] == heard


@pytest.mark.parametrize("second", FAILING)
def test_a_failure_in_on_exception_becomes_a_note(at, loop_of, second):
    """The first failure carries the second one."""
    loop = loop_of(at(on_exception=second), at(on_batch_end=lambda loop: 1 // 0))
    with pytest.raises(ZeroDivisionError) as raised:
        loop.train(n_epochs=1)
    first, then = raised.value.__notes__
    assert "in on_batch_end" in first
    assert "then failed in on_exception: " in then


def test_the_note_of_a_second_failure_names_its_component(at, loop_of):
    """Who failed in on_exception is told by name."""
    loop = loop_of(at(name="second", on_exception=fail), at(on_batch_end=fail))
    exception = caught(lambda: loop.train(n_epochs=1))
    assert "component 'second'" in exception.__notes__[1]


def test_a_wrapper_surrounds_on_exception(at, loop_of):
    """on_exception has wrappers like every point."""
    story = []

    @hookimpl(wrapper=True)
    def around(loop):
        story.append("begins")
        yield
        story.append("ends")

    hearing = at(on_exception=lambda loop: story.append("heard"))
    caught(lambda: loop_of(hearing, at(on_exception=around, on_batch_end=fail)).train(n_epochs=1))
    assert ["begins", "heard", "ends"] == story


def test_disabled_components_are_not_told(loop_of, at, recorder, points):
    """on_exception asks the enabled ones only."""
    loop = loop_of(recorder, at(on_batch_end=fail))
    loop.components.disable(recorder)
    caught(lambda: loop.train(n_epochs=1))
    assert [] == points


def test_who_joins_in_the_call_that_fails_is_told(at, loop_of, recorder, points):
    """on_exception is the next hook call, with the list as it is then."""

    def joining(loop):
        loop.components.append(recorder)
        fail()

    caught(lambda: loop_of(at(on_batch_end=joining)).train(n_epochs=1))
    assert ["on_exception"] == points


def test_who_leaves_in_the_call_that_fails_is_not_told(at, loop_of, recorder, points):
    """Whoever is no longer in the list does not hear of the failure."""

    def leaving(loop):
        loop.components.remove(recorder)
        fail()

    caught(lambda: loop_of(at(on_train_begin=leaving), recorder).train(n_epochs=1))
    assert [] == points


def test_a_list_that_has_become_unusable_keeps_nobody_from_being_told(
    at, loop_of, recorder, points
):
    """Where the list itself is the failure, those who were in it before are told."""

    def doubling(loop):
        loop.components *= 2

    loop = loop_of(recorder, at(on_train_begin=doubling))
    with pytest.raises(DuplicateComponentError):
        loop.train(n_epochs=1)
    assert ["on_train_begin", "on_exception"] == points
