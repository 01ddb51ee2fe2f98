"""Callback points that components provide, and that others implement and call."""

from __future__ import annotations

import types

import pytest
from acme import (
    Acme,
    Points,
    make_implementation,
    make_provider,
    providing,
    report,
    reporting,
    returning,
)
from loops import make_component, make_loop

from ttl_core import LoopComponent, hookimpl, hookspec


def as_class():
    """Return a class that declares acme_report."""
    return Points


def as_class_without_self():
    """Return a class that declares acme_report as a static method."""
    return type("Static", (), {"acme_report": staticmethod(hookspec(lambda loop, x: None))})


def as_module():
    """Return a module that declares acme_report and has other attributes too."""

    def acme_report(loop, x):
        """Report something."""

    module = types.ModuleType("acme_points")
    module.acme_report = hookspec(acme_report)
    module.acme_helper = module.hookspec = hookspec
    return module


@pytest.mark.parametrize("namespace", [as_class, as_class_without_self, as_module])
def test_a_component_provides_points_in_a_class_or_a_module(namespace):
    """Methods that are marked with hookimpl are called through loop.hook, in list order."""
    loop = make_loop(reporting("a"), make_provider(namespace()), reporting("b"))
    assert "a1 b1" == report(loop)


def test_a_provider_may_implement_its_own_points():
    """A provider is called at its position in the list, like the others."""
    own = make_provider(acme_report=hookimpl(lambda self, x: f"own{x}"))
    assert "a1 own1 b1" == report(make_loop(reporting("a"), own, reporting("b")))


def test_names_begin_with_the_kebab_case_name_in_underscores():
    """A dash in a component's name is an underscore in the names of its points."""
    done = make_implementation(grad_clip_done=lambda x: f"done{x}")
    loop = make_loop(providing("grad_clip_done", "grad-clip"), done)
    assert ["done1"] == loop.hook.grad_clip_done(loop=loop, x=1)


def test_a_point_returns_the_results_that_are_not_none():
    """None is no result, other empty values are."""
    loop = make_loop(Acme(), *map(returning, [1, None, 0, [], "x"]))
    assert [1, 0, [], "x"] == loop.hook.acme_report(loop=loop, x=1)


def test_a_point_without_implementations_returns_no_results():
    """Without implementations the list is empty."""
    loop = make_loop(Acme())
    assert [] == loop.hook.acme_report(loop=loop, x=1)


@pytest.mark.parametrize(
    ("results", "expected"), [([None, 0, 1], 0), ([None, None], None), ([], None)], ids=str
)
def test_firstresult_returns_the_first_that_is_not_none(results, expected):
    """A point with firstresult returns one result, or None."""
    loop = make_loop(Acme(), *map(returning, results))
    assert expected == loop.hook.acme_choose(loop=loop, x=1)


def test_firstresult_calls_no_component_after_the_first_result():
    """After the first result, the other implementations are not called."""
    calls = []
    loop = make_loop(
        Acme(), *(make_implementation(acme_choose=lambda: calls.append(1) or 5) for _ in range(2))
    )
    loop.hook.acme_choose(loop=loop)
    assert [1] == calls


@pytest.mark.parametrize(
    ("implementation", "expected"),
    [
        (lambda: "nothing", "nothing"),
        (lambda factor, x: (factor, x), (10, 1)),
        (lambda x: x, 1),
        (lambda loop, x, factor: (x, factor), (1, 10)),
    ],
    ids=["none", "reversed", "without the default", "all"],
)
def test_an_implementation_gets_the_arguments_that_it_names(implementation, expected):
    """Each is passed the arguments that it names, also those that the caller left out."""
    loop = make_loop(Acme(), make_implementation(acme_scale=implementation))
    assert [expected] == loop.hook.acme_scale(loop=loop, x=1)


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize(("given", "expected"), [({}, 10), ({"factor": 3}, 3)], ids=str)
def test_arguments_may_have_a_default_value(is_wrapped, given, expected):
    """The default of the hookspec is used if the caller leaves the argument out."""

    @hookimpl(wrapper=True)
    def wrapper(factor):
        results = yield
        return [*results, factor]

    loop = make_loop(Acme(), make_implementation(acme_scale=lambda factor: factor))
    if is_wrapped:
        loop.components.append(make_component(acme_scale=wrapper))
    assert [expected] * (1 + is_wrapped) == loop.hook.acme_scale(loop=loop, x=1, **given)


def test_specname_names_the_point_of_a_method():
    """A method of another name implements the point that its specname gives."""
    component = make_component(mine=hookimpl(specname="acme_report")(lambda x: f"mine{x}"))
    assert "mine1" == report(make_loop(Acme(), component))


def test_order_follows_the_rule_of_core_points():
    """Wrappers, tryfirst, plain and trylast are called in this order, and in each by the list."""
    order = []

    def plain(name, **options):
        return make_component(acme_report=hookimpl(**options)(lambda: order.append(name)))

    def wrapper(name, **options):
        @hookimpl(wrapper=True, **options)
        def acme_report(loop, x):
            order.append(name)
            return (yield)

        return make_component(acme_report=acme_report)

    last, first = {"trylast": True}, {"tryfirst": True}
    loop = make_loop(
        *(plain("l1", **last), plain("p1"), wrapper("wl", **last), plain("f1", **first)),
        *(wrapper("w1"), Acme(), plain("l2", **last), plain("f2", **first), wrapper("w2")),
        *(plain("p2"), wrapper("wf", **first)),
    )
    report(loop)
    assert ["wf", "w1", "w2", "wl", "f1", "f2", "p1", "p2", "l1", "l2"] == order


def test_a_wrapper_sees_and_changes_the_results():
    """A wrapper gets the list that the caller would get."""

    @hookimpl(wrapper=True)
    def acme_report(x):
        results = yield
        return [*results, f"wrapped{x}"]

    assert "a1 wrapped1" == report(
        make_loop(Acme(), make_component(acme_report=acme_report), reporting("a"))
    )


def test_a_wrapper_of_firstresult_sees_the_one_result():
    """A wrapper around a point with firstresult gets one result, or None."""
    seen = []

    @hookimpl(wrapper=True)
    def acme_choose():
        seen.append((yield))
        return "changed"

    loop = make_loop(
        Acme(),
        make_component(acme_choose=acme_choose),
        returning(None),
        returning(7),
    )
    assert "changed" == loop.hook.acme_choose(loop=loop)
    loop.components.pop()
    loop.hook.acme_choose(loop=loop)
    assert [7, None] == seen


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "missing"),
        ({"x": 1, "y": 2}, "unexpected"),
    ],
)
@pytest.mark.parametrize("is_implemented", [False, True])
def test_a_point_takes_the_arguments_of_its_spec(is_implemented, given, problem):
    """A missing or an unknown argument is refused, with and without implementations."""
    loop = make_loop(Acme(), *([reporting("a")] if is_implemented else []))
    with pytest.raises(TypeError, match=problem):
        loop.hook.acme_report(loop=loop, **given)


@pytest.mark.parametrize("has_been_called", [False, True])
def test_a_point_takes_keywords_only(has_been_called):
    """Arguments by position are refused, from the first call on."""
    loop = make_loop(Acme(), reporting("a"))
    if has_been_called:
        report(loop)
    with pytest.raises(TypeError, match="positional"):
        loop.hook.acme_report(loop, 1)


def test_points_are_called_from_inside_hooks():
    """A component can call a point of a component in a run."""
    reports = []
    loop = make_loop(
        make_component(on_batch_end=lambda loop: reports.append(report(loop, loop.batch_num))),
        reporting("a"),
        Acme(),
        valid_data=None,
    )
    loop.train(1)
    assert ["a0", "a1"] == reports


def test_points_are_explained():
    """explain() and the printed list have the points of components, after those of the core."""
    loop = make_loop(
        reporting("b"), Acme(), reporting("a"), make_implementation(on_log=lambda: None)
    )
    explained = [line.split()[:2] for line in loop.explain("acme_report").splitlines()[1:]]
    assert [["1", "b"], ["2", "a"]] == explained
    printed = str(loop.components).split("\n\n")[1].splitlines()
    assert ["on_log       part", "acme_report  b, a"] == printed


def test_points_of_one_loop_are_not_those_of_another():
    """A component provides points only to the loop in whose list it is."""
    make_loop(Acme())
    assert not hasattr(make_loop().hook, "acme_report")


# -- failures -------------------------------------------------------------------------------


class Plain(LoopComponent):
    @hookimpl
    def acme_report(self, loop, x):
        raise ZeroDivisionError


class Before(LoopComponent):
    @hookimpl(wrapper=True)
    def acme_report(self, loop, x):
        raise ZeroDivisionError
        yield


class After(LoopComponent):
    @hookimpl(wrapper=True)
    def acme_report(self, loop, x):
        yield
        raise ZeroDivisionError


class Harmless(LoopComponent):
    """A component with a wrapper and an implementation that do not fail."""

    @hookimpl(wrapper=True)
    def acme_report(self, loop, x):
        return (yield)

    @hookimpl(specname="acme_report")
    def second(self, loop):
        pass


class Caller(LoopComponent):
    def on_batch_end(self, loop):
        loop.hook.acme_report(loop=loop, x=loop.batch)


@pytest.mark.parametrize("cls", [Plain, Before, After])
@pytest.mark.parametrize("has_others", [False, True])
def test_a_failure_in_a_point_of_a_component_is_attributed(cls, has_others):
    """The note names the component that failed, neither the caller nor a wrapper around it."""
    others = [Harmless()] if has_others else []
    loop = make_loop(Acme(), *others, cls(), Caller())
    with pytest.raises(ZeroDivisionError) as caught:
        loop.train(1)
    expected = (
        f"ttl: raised by component '{cls.__name__.lower()}' (class {__name__}.{cls.__name__}) "
        "in acme_report, train epoch, epoch_num=0, batch_num=0"
    )
    assert [expected] == caught.value.__notes__


def test_a_call_with_wrong_arguments_is_attributed_to_the_caller():
    """A component that calls a point with wrong arguments is the one that failed."""

    class Wrong(LoopComponent):
        def on_batch_end(self, loop):
            loop.hook.acme_report(loop=loop)

    with pytest.raises(TypeError) as caught:
        make_loop(Acme(), Plain(), Wrong()).train(1)
    assert caught.value.__notes__[0].startswith("ttl: raised by component 'wrong'")
