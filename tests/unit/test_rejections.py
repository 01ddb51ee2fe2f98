"""What is refused when a component joins: hooks that could not be called as intended."""

from __future__ import annotations

import functools

import pytest
import torch
from loops import make_component, make_loop

from ttl_core import ComponentRejectedError, LoopComponent, TrainTestLoop, hookimpl, hookspec


def bare(function):
    """Decorate without functools.wraps."""

    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


def wrapping(function):
    """Decorate with functools.wraps."""

    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


class Misspelled(LoopComponent):
    def on_batch_edn(self, loop): ...


class Imagined(LoopComponent):
    def on_xyz(self, loop): ...


class MisspelledAround(LoopComponent):
    @hookimpl(wrapper=True)
    def around_epochs(self, loop):
        yield


class MisspelledSpecname(LoopComponent):
    @hookimpl(specname="on_batch_edn")
    def count(self, loop): ...


class MarkedNoPoint(LoopComponent):
    @hookimpl
    def batch_end(self, loop): ...


class Number(LoopComponent):
    on_batch_end = 5


class Property(LoopComponent):
    @property
    def on_batch_end(self):
        raise AssertionError("a property is not to be run")


class CallableObject(LoopComponent):
    on_batch_end = torch.nn.Identity()


class Partial(LoopComponent):
    on_batch_end = functools.partial(print)


class BuiltIn(LoopComponent):
    on_batch_end = print


class NestedClass(LoopComponent):
    class on_batch_end: ...  # noqa: N801


class UnknownArgument(LoopComponent):
    def on_batch_end(self, loop, batch): ...


class OldName(LoopComponent):
    def on_batch_end(self, learner): ...


class Default(LoopComponent):
    def on_batch_end(self, loop=None): ...


class DefaultOfItsOwn(LoopComponent):
    def on_batch_end(self, loop, every=10): ...


class KeywordOnly(LoopComponent):
    def on_batch_end(self, *, loop): ...


class Anything(LoopComponent):
    def on_batch_end(self, *args, **kwargs): ...


class BareDecorated(LoopComponent):
    @bare
    def on_batch_end(self, loop): ...


class WithoutSelf(LoopComponent):
    def on_batch_end(loop): ...  # noqa: N805


class WithoutArguments(LoopComponent):
    def on_batch_end(): ...


class Async(LoopComponent):
    async def on_batch_end(self, loop): ...


class AsyncGenerator(LoopComponent):
    @hookimpl(wrapper=True)
    async def on_batch_end(self, loop):
        yield


class UnmarkedGenerator(LoopComponent):
    def on_batch_end(self, loop):
        yield


class WithoutYield(LoopComponent):
    @hookimpl(wrapper=True)
    def on_batch_end(self, loop): ...


class PlainAround(LoopComponent):
    def around_epoch(self, loop): ...


class UnmarkedAround(LoopComponent):
    def around_epoch(self, loop):
        yield


class OldWrapper(LoopComponent):
    @hookimpl(hookwrapper=True)
    def on_batch_end(self, loop):
        yield


class Historic(LoopComponent):
    class hookspecs:  # noqa: N801
        @hookspec(historic=True)
        def historic_begin(self, loop): ...


class ForeignPrefix(LoopComponent):
    class hookspecs:  # noqa: N801
        @hookspec
        def other_begin(self, loop): ...


class NoSpecs(LoopComponent):
    class hookspecs:  # noqa: N801
        def no_specs_begin(self, loop): ...


class SpecsOfAnInstance(LoopComponent):
    hookspecs = object()


class ImpossibleHint(LoopComponent):
    after = ("No Name",)


RIGHT = "Write:\n    def on_batch_end(self, loop):"


@pytest.mark.parametrize(
    ("cls", "problem", "fix"),
    [
        (Misspelled, "on_batch_edn is not a callback point", "Did you mean 'on_batch_end'?"),
        (Imagined, "on_xyz is not a callback point", "The points are: around_run, on_train_begin,"),
        (MisspelledAround, "around_epochs is not a callback point", "Did you mean 'around_epoch'?"),
        (MisspelledSpecname, "count is not a callback point", "Did you mean 'on_batch_end'?"),
        (MarkedNoPoint, "batch_end is not a callback point", "Did you mean 'on_batch_end'?"),
        (Number, "on_batch_end is a int", "not a function or method"),
        (Property, "on_batch_end is a property", "not a function or method"),
        (CallableObject, "on_batch_end is a Identity", "not a function or method"),
        (Partial, "on_batch_end is a partial", "not a function or method"),
        (NestedClass, "on_batch_end is a type", "not a function or method"),
        (BuiltIn, "has keyword-only arguments", "Write"),
        (UnknownArgument, "takes batch, which on_batch_end does not have", RIGHT),
        (OldName, "takes learner, which on_batch_end does not have", RIGHT),
        (Default, "has a default value for an argument", RIGHT),
        (DefaultOfItsOwn, "has a default value for an argument", RIGHT),
        (KeywordOnly, "has keyword-only arguments", RIGHT),
        (Anything, "takes only * arguments", RIGHT),
        (BareDecorated, "takes only * arguments", "a decorator without functools.wraps"),
        (WithoutSelf, "has no self", RIGHT),
        (WithoutArguments, "has no self", RIGHT),
        (Async, "is async", "Write it with plain def"),
        (AsyncGenerator, "is async", "Write it with plain def"),
        (UnmarkedGenerator, "yields, but is no wrapper", "Put @hookimpl(wrapper=True) above it"),
        (WithoutYield, "never yields", "Yield once"),
        (PlainAround, "can only be a wrapper", "Put @hookimpl(wrapper=True) above it"),
        (UnmarkedAround, "can only be a wrapper", "Put @hookimpl(wrapper=True) above it"),
        (OldWrapper, "marked hookwrapper=True", "Write @hookimpl(wrapper=True)"),
        (Historic, "point 'historic_begin' is historic", "Write @hookspec without it"),
        (ForeignPrefix, "'other_begin', whose name", "Call it foreign_prefix_other_begin"),
        (NoSpecs, "hold no function", "marked with @hookspec"),
        (SpecsOfAnInstance, "not a module or class", "marked with @hookspec"),
        (ImpossibleHint, "'No Name' is not a component's name", "as in after = ('metrics',)"),
    ],
)
def test_what_could_not_be_called_as_intended_is_refused(cls, problem, fix):
    """The error says what is wrong, and how to fix it."""
    with pytest.raises(ComponentRejectedError) as caught:
        TrainTestLoop(torch.nn.Identity(), [cls()])
    assert problem in str(caught.value)
    assert fix in str(caught.value)


def test_the_error_names_the_component_and_the_line():
    """The error has the component, its class, and the line of the method."""
    with pytest.raises(ComponentRejectedError) as caught:
        TrainTestLoop(torch.nn.Identity(), [Default()])
    first, *_, last = str(caught.value).splitlines()
    component = f"component 'default' (class {__name__}.Default) cannot join: its on_batch_end has"
    assert first.startswith(component)
    assert f"    at {__file__}:{Default.on_batch_end.__code__.co_firstlineno}" == last


def test_a_refused_component_leaves_the_others_alone():
    """A list works as before after it refused a component."""
    loop = make_loop(make_component(on_batch_end=lambda loop: "called"))
    with pytest.raises(ComponentRejectedError):
        loop.components.append(Misspelled())
    assert ["called"] == loop.hook.on_batch_end(loop=loop)


def test_an_inherited_mistake_is_refused_too():
    """A subclass is refused for a method of its base class."""
    subclass = type("Subclass", (Default,), {})
    with pytest.raises(ComponentRejectedError, match="has a default value"):
        TrainTestLoop(torch.nn.Identity(), [subclass()])


def test_a_mistake_on_the_instance_is_refused_too():
    """A method that was assigned to an instance is checked like any other."""
    component = LoopComponent()
    component.on_batch_edn = lambda loop: None
    with pytest.raises(ComponentRejectedError, match="Did you mean 'on_batch_end'"):
        TrainTestLoop(torch.nn.Identity(), [component])


# -- what is no component -------------------------------------------------------------------


def test_a_class_in_place_of_an_instance_is_refused():
    """The error says how to make an instance."""
    with pytest.raises(ComponentRejectedError, match=r"is a class.* Write LoopComponent\(\.\.\.\)"):
        TrainTestLoop(torch.nn.Identity(), [LoopComponent])


@pytest.mark.parametrize("thing", [5, None, print, torch.nn.Identity(), ["x"]], ids=repr)
def test_what_is_no_component_is_refused(thing):
    """The error says what a list may contain."""
    with pytest.raises(ComponentRejectedError, match="A list takes instances of LoopComponent"):
        TrainTestLoop(torch.nn.Identity(), [thing])


@pytest.mark.parametrize("thing", ["metrics", LoopComponent(), 5, None])
def test_what_is_no_list_is_refused(thing):
    """The error about one component, or nothing, instead of a list shows the list to write."""
    with pytest.raises(ComponentRejectedError, match=r"is not a list of components\. Write \["):
        TrainTestLoop(torch.nn.Identity(), thing)


# -- what is accepted -----------------------------------------------------------------------


class Static(LoopComponent):
    @staticmethod
    def on_batch_end(loop):
        return "called"


class ClassMethod(LoopComponent):
    @classmethod
    def on_batch_end(cls, loop):
        return "called"


class Unnamed(LoopComponent):
    def on_batch_end(self):
        return "called"


class Extra(LoopComponent):
    def on_batch_end(self, loop, *args):
        return "called"


class Decorated(LoopComponent):
    @torch.no_grad()
    @wrapping
    def on_batch_end(self, loop):
        return "called"


class Renamed(LoopComponent):
    @hookimpl(specname="on_batch_end")
    def count(self, loop):
        return "called"


class Assigned(LoopComponent):
    def __init__(self):
        self.on_batch_end = self.count

    def count(self, loop):
        return "called"


class Mixed:
    def on_batch_end(self, loop):
        return "called"


class Inherited(Mixed, LoopComponent): ...


class Harmless(LoopComponent):
    on_what = 5
    one_more = on_batch = None

    def on_batch_end(self, loop):
        return "called"

    def once_more(self, *args, **kwargs): ...

    def _on_private(self): ...

    @property
    def gpu(self):
        raise AssertionError("a property is not to be run")

    @hookimpl(optionalhook=True)
    def elsewhere_happens(self, loop): ...


@pytest.mark.parametrize(
    "cls",
    [Static, ClassMethod, Unnamed, Extra, Decorated, Renamed, Assigned, Inherited, Harmless],
)
def test_a_method_that_can_be_called_is_accepted(cls):
    """Every kind of Python function that implements a point is called."""
    loop = make_loop(cls())
    assert ["called"] == loop.hook.on_batch_end(loop=loop)


def test_a_point_that_is_not_overridden_is_not_called():
    """The no-ops of the base class are not called, also if a class in between overrides them."""

    class Calling(LoopComponent):
        def on_batch_end(self, loop):
            return "called"

    class NotCalling(Calling):
        on_batch_end = LoopComponent.on_batch_end

    loop = make_loop(NotCalling())
    assert [] == loop.hook.on_batch_end(loop=loop)


def test_a_point_that_an_instance_does_not_need_is_not_called():
    """A configuration may leave a point out, by the no-op of the base class in its place."""

    class Sometimes(LoopComponent):
        def __init__(self):
            self.on_batch_end = super().on_batch_end

        def on_batch_end(self, loop):
            return "called"

    loop = make_loop(Sometimes())
    assert [] == loop.hook.on_batch_end(loop=loop)
    assert "not implemented" in loop.explain("on_batch_end")


def test_super_works_in_every_point():
    """A component may call the no-op of the base class."""

    class Polite(LoopComponent):
        def on_batch_end(self, loop):
            return [super().on_batch_end(loop)]

    loop = make_loop(Polite())
    assert [[None]] == loop.hook.on_batch_end(loop=loop)
