"""Failing runs: the note names the component that failed, and no other."""

from __future__ import annotations

import functools

import pytest
import torch
from failures import Failure, Harmless, attribution, bare, fail, failure_of
from loops import make_component, make_loop
from recording import StateRecorder

from ttl_core import ArgumentError, LoopComponent, hookimpl


def wrapping(function):
    """Decorate with functools.wraps."""

    @functools.wraps(function)
    def inner(*args):
        return function(*args)

    return inner


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


FAILING = [
    *(Plain, Inherited, Overriding, WithoutArguments, Static, ClassMethod, Renamed, First),
    *(Bare, Wrapping, NoGrad, Chained, InTheModel, BeforeYield, AfterYield, NoGradAfterYield),
    *(InHelper, ReturningBeforeYield, YieldingTwice),
]


@pytest.mark.parametrize("cls", FAILING)
def test_the_only_component_is_named(cls):
    """The note has the name of the component and of the point."""
    failing = cls()
    failing.name = "failing"
    exception = failure_of(lambda: make_loop(failing).train(n_epochs=1))
    assert ("failing", "on_batch_begin") == attribution(exception)


@pytest.mark.parametrize("cls", FAILING)
def test_the_component_that_fails_is_named_among_others(cls):
    """Neither wrappers around it nor components beside it are named."""
    failing = cls()
    failing.name = "failing"
    loop = make_loop(Harmless(), failing, Harmless())
    exception = failure_of(lambda: loop.train(n_epochs=1))
    assert ("failing", "on_batch_begin") == attribution(exception)


class FailingAt(LoopComponent):
    """A component that fails at one point, or at none."""

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
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_instances_of_one_class_are_distinguished(point, failing):
    """Of several components with the same code, the one that failed is named."""
    loop = make_loop(*(FailingAt(point if i == failing else None) for i in range(3)))
    exception = failure_of(lambda: loop.train(n_epochs=1))
    assert (loop.components.names()[failing], point) == attribution(exception)


@pytest.mark.parametrize("cls", FAILING)
def test_a_disabled_component_with_the_same_code_is_not_named(cls):
    """A disabled component has not failed, although its code is the same."""
    loop = make_loop(cls(), cls())
    loop.components.disable(loop.components[0])
    exception = failure_of(lambda: loop.train(n_epochs=1))
    assert (loop.components.names()[1], "on_batch_begin") == attribution(exception)


def test_the_innermost_component_is_named():
    """A component that fails in a hook that another component called is named."""
    calling = make_component(name="calling", on_batch_end=lambda loop: loop.log({"loss": 1}))
    loop = make_loop(calling, make_component(name="logger", on_log=fail))
    assert ("logger", "on_log") == attribution(failure_of(lambda: loop.train(n_epochs=1)))


def test_a_wrapper_that_replaces_an_exception_is_named():
    """A wrapper that raises another exception in place of one has raised it."""

    @hookimpl(wrapper=True)
    def replacing(loop):
        try:
            yield
        except ZeroDivisionError as error:
            raise Failure from error

    loop = make_loop(
        make_component(name="wrapper", on_batch_end=replacing),
        make_component(on_batch_end=lambda loop: 1 // 0),
    )
    assert ("wrapper", "on_batch_end") == attribution(failure_of(lambda: loop.train(n_epochs=1)))


@pytest.mark.parametrize("around", ["around_run", "around_epoch"])
@pytest.mark.parametrize("leave", ["clear", "disable", "stay"])
def test_a_wrapper_that_was_removed_is_still_named(around, leave):
    """A wrapper that fails after its yield is named, also if it was removed or disabled before."""

    @hookimpl(wrapper=True)
    def failing_later(loop):
        yield
        fail()

    def leaving(loop):
        match leave:
            case "clear":
                loop.components.clear()
            case "disable":
                loop.components.disable("failing")

    loop = make_loop(
        make_component(name="failing", **{around: failing_later}),
        make_component(on_epoch_begin=leaving),
    )
    assert ("failing", around) == attribution(failure_of(lambda: loop.train(n_epochs=1)))


def test_a_component_that_removes_itself_and_fails_is_named():
    """A component that was removed in the call in which it fails is named."""

    def leaving(loop):
        loop.components.remove("failing")
        loop.log({"loss": 1})
        fail()

    loop = make_loop(make_component(name="failing", on_batch_end=leaving))
    assert ("failing", "on_batch_end") == attribution(failure_of(lambda: loop.train(n_epochs=1)))


def test_an_error_of_the_loop_is_not_attributed_to_a_wrapper_around_it():
    """One that an exception only passes through has not raised it."""
    keep = StateRecorder()
    make_loop(keep).train(n_epochs=2)

    @hookimpl(wrapper=True)
    def passing(loop):
        return (yield)

    loop = make_loop(make_component(around_run=passing))
    loop.load_state_dict(keep.states[-1])
    with pytest.raises(ArgumentError, match="n_epochs is 1") as caught:
        loop.train(n_epochs=1)
    assert not getattr(caught.value, "__notes__", None)


@pytest.mark.parametrize("delegates", [False, True])
def test_an_error_of_a_wrapper_itself_is_attributed_to_it(delegates):
    """Before its yield, and after it."""

    @hookimpl(wrapper=True)
    def around_run(loop):
        yield
        raise ValueError("afterwards")

    @hookimpl(wrapper=True)
    def delegating(loop):
        return (yield from around_run(loop))

    loop = make_loop(make_component(around_run=delegating if delegates else around_run))
    with pytest.raises(ValueError, match="afterwards") as caught:
        loop.train(n_epochs=1)
    assert "in around_run" in caught.value.__notes__[0]
