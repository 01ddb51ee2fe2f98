"""Hook methods of unusual kinds: decorated, compiled, marked in unusual places."""

import asyncio
import functools
import inspect
import types

import pytest
import torch

from ttl_core import (
    ComponentRejectedError,
    LoopComponent,
    TrainTestLoop,
    hookimpl,
    hookspec,
)


def train(*components, n_batches=1):
    """Train on numbers and return the loop."""
    loop = TrainTestLoop(torch.nn.Identity(), components, [0] * n_batches)
    loop.train(1)
    return loop


def passing(function):
    """Decorate with functools.wraps, passing everything through."""

    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


def running(function):
    """Decorate an async or a generator function so that a call runs it to its end."""

    @functools.wraps(function)
    def inner(*args):
        if inspect.iscoroutinefunction(function):
            return asyncio.run(function(*args))
        return next(function(*args))

    return inner


class Compiled:
    """A function as compilers make it: a callable descriptor that is no Python function."""

    def __init__(self, function):
        self.function = function
        self.__name__ = function.__name__
        self.__signature__ = inspect.signature(function)

    def __call__(self, *args):
        return self.function(*args)

    def __get__(self, instance, owner=None):
        return self if instance is None else types.MethodType(self, instance)


def test_a_wrapper_behind_an_ordinary_decorator_wraps():
    """B1: it is called like any other wrapper, in every run."""
    log = []

    class Wrapper(LoopComponent):
        @hookimpl(wrapper=True)
        @passing
        def on_batch_begin(self, loop):
            log.append("before")
            result = yield
            log.append("after")
            return result

    class Plain(LoopComponent):
        def on_batch_begin(self, loop):
            log.append("inside")

    loop = train(Wrapper(), Plain())
    loop.train(1)
    assert ["before", "inside", "after"] * 2 == log


def test_a_proxy_of_a_component_is_refused():
    """B1: an object that only answers isinstance would have none of its hooks called."""

    class Proxy:
        def __init__(self, wrapped):
            self.wrapped = wrapped

        __class__ = LoopComponent

        def __getattr__(self, name):
            return getattr(self.wrapped, name)

    with pytest.raises(ComponentRejectedError, match="is a Proxy, not a component"):
        TrainTestLoop(torch.nn.Identity(), [Proxy(LoopComponent())])


def test_arguments_that_rest_would_miss_are_an_error():
    """B1: **rest receives nothing, so a hook that relies on it is refused with the fix."""

    class Rest(LoopComponent):
        def on_log(self, loop, **rest): ...

    with pytest.raises(ComponentRejectedError) as caught:
        train(Rest())
    assert "its on_log takes **rest, which would receive nothing" in str(caught.value)
    assert "def on_log(self, loop, metrics, level):" in str(caught.value)


def test_rest_where_nothing_is_missed_is_fine():
    """A point whose arguments are all named leaves nothing for **rest."""
    log = []

    class Rest(LoopComponent):
        def on_batch_end(self, loop, *args, **rest):
            log.append((args, rest))

    train(Rest())
    assert [((), {})] == log


def test_compiled_functions_are_called():
    """B2: a method need not be written in Python, if its signature can be read."""
    log = []

    class Fast(LoopComponent):
        on_batch_end = Compiled(lambda self, loop: log.append(type(self).__name__))
        on_log = Compiled(lambda self, level, metrics: log.append((level, metrics)))

    train(Fast()).log({"x": 1})
    assert ["Fast", ("batch", {"x": 1})] == log


def test_a_failure_in_a_compiled_function_is_attributed():
    """The note names the component and the point."""

    class Fast(LoopComponent):
        on_batch_end = Compiled(lambda self, loop: 1 // 0)

    with pytest.raises(ZeroDivisionError) as caught:
        train(Fast())
    assert "raised by component 'fast'" in caught.value.__notes__[0]
    assert "in on_batch_end" in caught.value.__notes__[0]


def test_a_compiled_function_without_a_signature_is_refused():
    """The loop cannot tell what to pass to it."""

    class Opaque(LoopComponent):
        on_batch_end = staticmethod(max)

    with pytest.raises(ComponentRejectedError, match="has arguments that cannot be read"):
        train(Opaque())


@pytest.mark.parametrize("kind", ["async", "generator"])
def test_a_decorator_may_turn_a_function_into_a_plain_one(kind):
    """B2: what matters is what the decorated function is."""
    log = []

    if kind == "async":

        class Decorated(LoopComponent):
            @running
            async def on_batch_end(self, loop):
                log.append(kind)
    else:

        class Decorated(LoopComponent):
            @running
            def on_batch_end(self, loop):
                log.append(kind)
                yield

    train(Decorated())
    assert [kind] == log


@pytest.mark.parametrize("kind", ["async", "generator"])
def test_a_decorator_that_does_not_run_it_is_an_error(kind):
    """A generator or coroutine that nothing runs would be a hook that silently does nothing."""
    if kind == "async":

        class Decorated(LoopComponent):
            @passing
            async def on_batch_end(self, loop): ...
    else:

        class Decorated(LoopComponent):
            @passing
            def on_batch_end(self, loop):
                yield

    with pytest.raises(TypeError, match="which is not run: its decorator") as caught:
        train(Decorated())
    assert "component 'decorated'" in caught.value.__notes__[0]


def test_a_decorator_may_set_a_signature():
    """B2: __signature__ tells what to pass, whatever the code takes."""
    log = []

    def with_signature(function):
        def inner(*args):
            return function(*args)

        inner.__name__ = function.__name__
        inner.__signature__ = inspect.signature(function)
        return inner

    class Decorated(LoopComponent):
        @with_signature
        def on_log(self, metrics):
            log.append(metrics)

    train(Decorated()).log({"x": 1})
    assert [{"x": 1}] == log


@pytest.mark.parametrize("method", [staticmethod, classmethod], ids=["static", "class"])
def test_a_mark_may_be_above_staticmethod_and_classmethod(method):
    """B2: the order of decorators does not matter, for plain hooks and for wrappers."""
    log = []

    def wrapper(*args):
        log.append("before")
        return (yield)

    def around(loop):
        return (yield from wrapper())

    def around_of_class(cls, loop):
        return (yield from wrapper())

    function = around if method is staticmethod else around_of_class
    component = type(
        "Marked",
        (LoopComponent,),
        {"on_batch_end": hookimpl(wrapper=True)(method(function))},
    )()
    train(component)
    assert ["before"] == log


@pytest.mark.parametrize("method", [staticmethod, classmethod], ids=["static", "class"])
def test_a_hookspec_may_be_a_marked_staticmethod_or_classmethod(method):
    """B2: the same holds for callback points, of several instances too."""

    def spec_of_class(cls, loop, value): ...

    def spec(loop, value): ...

    points = type(
        "Points",
        (),
        {"provider_asks": hookspec(method(spec if method is staticmethod else spec_of_class))},
    )

    class Provider(LoopComponent):
        hookspecs = points

        @hookimpl
        def provider_asks(self, value):
            return value

    loop = train(Provider(), Provider())
    assert [3, 3] == loop.hook.provider_asks(loop=loop, value=3)


@pytest.mark.parametrize("argument", ["_", "__1__", "_0", "__all__"])
def test_an_argument_of_any_name_gets_its_own_value(argument):
    """B2: names in the written source do not collide with arguments."""
    namespace = {"hookspec": hookspec, "hookimpl": hookimpl, "LoopComponent": LoopComponent}
    exec(
        f"""
class Points:
    @hookspec
    def provider_asks(self, loop, {argument}): ...

class Provider(LoopComponent):
    hookspecs = Points
    @hookimpl
    def provider_asks(self, {argument}):
        return {argument}
""",
        namespace,
    )
    provider = namespace["Provider"]
    loop = train(provider(), provider(), provider())
    assert ["own"] * 3 == loop.hook.provider_asks(loop=loop, **{argument: "own"})


def test_callables_on_the_instance_are_its_own_affair():
    """B2: a component may keep functions under names that begin like those of hooks."""

    class Improving(LoopComponent):
        def __init__(self, function):
            self.on_improve = function

    train(Improving(print))


def test_a_misspelled_hook_on_the_instance_is_refused():
    """A function that was most likely meant as a hook is not silently left out."""
    component = LoopComponent()
    component.on_batch_ends = print
    with pytest.raises(ComponentRejectedError, match="Did you mean 'on_batch_end'"):
        train(component)


def test_a_hook_with_another_name_is_disabled_by_none_on_the_instance():
    """As a component does that has nothing to do at a point with its configuration."""

    class Two(LoopComponent):
        def __init__(self):
            self.note = None
            self.seen = []

        def on_batch_begin(self, loop):
            self.seen.append("begin")

        @hookimpl(specname="on_batch_begin", trylast=True)
        def note(self, loop):
            raise AssertionError

    two = Two()
    train(two)
    assert ["begin"] == two.seen


def test_a_hook_set_on_the_instance_is_called():
    """A function under the name of a callback point is its hook."""
    log = []
    component = LoopComponent()
    component.on_batch_end = lambda loop: log.append(loop.batch_num)
    train(component)
    assert [0] == log


def test_a_registration_that_fails_fails_again(monkeypatch):
    """B1: after an error of pluggy's, no component is silently left out."""

    class Broken(LoopComponent):
        @hookimpl(wrapper=True)
        def on_batch_begin(self, loop):
            return (yield)

    log = []

    class Counted(LoopComponent):
        def on_batch_end(self, loop):
            log.append(1)

    loop = TrainTestLoop(torch.nn.Identity(), [Broken(), Counted()], [0])
    original = type(loop._manager)._verify_hook

    def refusing(self, hook, impl):
        if hook.name == "on_batch_begin":
            raise RuntimeError("refused")
        return original(self, hook, impl)

    monkeypatch.setattr(type(loop._manager), "_verify_hook", refusing)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="refused"):
            loop.train(1)
    monkeypatch.undo()
    loop.train(1)
    assert [1] == log


def test_an_overriding_method_keeps_the_place_of_the_one_it_overrides():
    """tryfirst, and the name of the point, are those of the nearest method with a mark."""
    called = []

    class First(LoopComponent):
        @hookimpl(tryfirst=True, specname="on_batch_end")
        def note(self, loop):
            called.append("first")

    class Second(First):
        def note(self, loop):
            called.append("second")
            super().note(loop)

    class Plain(LoopComponent):
        def on_batch_end(self, loop):
            called.append("plain")

    train(Plain(), Second())
    assert ["second", "first", "plain"] == called


def test_none_in_place_of_a_method_is_refused_with_what_to_write():
    """It does not disable what it hides."""

    class Base(LoopComponent):
        def on_batch_end(self, loop): ...

    class Without(Base):
        on_batch_end = None

    with pytest.raises(ComponentRejectedError, match=r"on_batch_end = LoopComponent\.on_batch_end"):
        train(Without())


def test_a_hook_of_a_mixin_behind_the_base_class_is_refused_with_the_order_to_write():
    """The empty method of LoopComponent hides it, so it would never be called."""

    class Saver:
        def on_batch_end(self, loop): ...

    class Behind(LoopComponent, Saver): ...

    with pytest.raises(ComponentRejectedError, match=r"class Behind\(Saver, LoopComponent\)"):
        train(Behind())


def test_a_wrapper_of_a_mixin_behind_the_base_class_is_refused_too():
    """It is marked, so it is meant as a hook, whatever its form."""

    class Timer:
        @hookimpl(wrapper=True)
        def around_run(self, loop):
            return (yield)

    class Behind(LoopComponent, Timer): ...

    with pytest.raises(ComponentRejectedError, match=r"class Behind\(Timer, LoopComponent\)"):
        train(Behind())


def test_a_marked_method_of_a_mixin_behind_the_base_class_is_called():
    """Nothing hides it, as it has a name of its own."""
    called = []

    class Counter:
        @hookimpl(specname="on_batch_end")
        def count(self, loop):
            called.append("counter")

    class Behind(LoopComponent, Counter): ...

    train(Behind())
    assert called == ["counter"]


def test_a_hook_of_a_mixin_in_front_of_the_base_class_is_called():
    """The order of bases is Python's."""
    called = []

    class Saver:
        def on_batch_end(self, loop):
            called.append("saver")

    class InFront(Saver, LoopComponent): ...

    train(InFront())
    assert called == ["saver"]


def test_a_callback_of_another_library_behind_the_base_class_is_left_alone():
    """Its methods have the names of callback points by chance: they take other arguments."""

    class Foreign:
        def on_epoch_end(self, trainer, pl_module): ...

    class Both(LoopComponent, Foreign): ...

    train(Both())


def test_a_method_that_was_checked_for_one_point_is_checked_for_another():
    """That a function is sound is remembered together with its point."""
    takes_two = type(
        "TakesTwo", (LoopComponent,), {"on_log": lambda self, loop, metrics, level: None}
    )
    train(takes_two())
    wrong = type("Wrong", (LoopComponent,), {"on_batch_end": vars(takes_two)["on_log"]})
    with pytest.raises(ComponentRejectedError, match="takes metrics, level"):
        train(wrong())
