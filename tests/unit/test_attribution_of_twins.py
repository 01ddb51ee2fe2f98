"""B7: the note names the right one of two components of one class."""

import functools

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, hookimpl


def passing(function):
    """Decorate with functools.wraps."""

    @functools.wraps(function)
    def inner(*args):
        return function(*args)

    return inner


class Twin(LoopComponent):
    """A component that fails if it is the bad one."""

    def __init__(self, name):
        self.name = name

    def fail_if_bad(self):
        if self.name == "bad":
            raise ZeroDivisionError


class Plain(Twin):
    def on_batch_end(self, loop):
        self.fail_if_bad()


class Decorated(Twin):
    @passing
    def on_batch_end(self, loop):
        self.fail_if_bad()


class WithoutSelf(Twin):
    def on_batch_end(self, loop):
        fail = self.fail_if_bad
        del self
        fail()


class Before(Twin):
    @hookimpl(wrapper=True)
    def on_batch_end(self, loop):
        self.fail_if_bad()
        return (yield)


class After(Twin):
    @hookimpl(wrapper=True)
    def on_batch_end(self, loop):
        result = yield
        self.fail_if_bad()
        return result


class AfterWithoutSelf(Twin):
    @hookimpl(wrapper=True)
    def on_batch_end(self, loop):
        fail = self.fail_if_bad
        del self
        result = yield
        fail()
        return result


class OnUnwinding(Twin):
    @hookimpl(wrapper=True)
    def on_batch_end(self, loop):
        fail = self.fail_if_bad
        del self
        try:
            return (yield)
        except KeyError:
            fail()
            raise


class Never(Twin):
    @hookimpl(wrapper=True)
    def on_batch_end(self, loop):
        if self.name != "bad":
            yield


class Twice(Twin):
    @hookimpl(wrapper=True)
    def on_batch_end(self, loop):
        yield
        if self.name == "bad":
            yield


class AroundEpoch(Twin):
    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        fail = self.fail_if_bad
        del self
        result = yield
        fail()
        return result


class AroundTwice(Twin):
    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        yield
        if self.name == "bad":
            yield


class Failing(LoopComponent):
    def on_batch_end(self, loop):
        raise KeyError


CLASSES = [
    *(Plain, Decorated, WithoutSelf, Before, After, AfterWithoutSelf, OnUnwinding, Never, Twice),
    *(AroundEpoch, AroundTwice),
]


@pytest.mark.parametrize("names", [("good", "bad"), ("bad", "good")], ids=" ".join)
@pytest.mark.parametrize("cls", CLASSES)
def test_the_bad_twin_is_named(cls, names):
    """Whatever kind of hook fails, and in whatever order the twins are."""
    components = [cls(name) for name in names]
    if cls is OnUnwinding:
        components.append(Failing())
    loop = TrainTestLoop(torch.nn.Identity(), components, [0])
    with pytest.raises((ZeroDivisionError, RuntimeError, KeyError)) as caught:
        loop.train(1)
    assert "raised by component 'bad'" in caught.value.__notes__[0]


@pytest.mark.parametrize("cls", [AroundEpoch, AroundTwice])
def test_the_bad_twin_that_joined_in_mid_run_is_named(cls):
    """Late wrappers are driven by the same functions."""

    class Join(LoopComponent):
        def on_batch_end(self, loop):
            if len(loop.components) == 1:
                loop.components.extend([cls("good"), cls("bad")])

    loop = TrainTestLoop(torch.nn.Identity(), [Join()], [0, 1])
    with pytest.raises((ZeroDivisionError, RuntimeError)) as caught:
        loop.train(1)
    assert "raised by component 'bad'" in caught.value.__notes__[0]
