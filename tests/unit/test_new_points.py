"""Callback points that components bring, and that others implement and call."""

from __future__ import annotations

import types

import pytest

from ttl_core import (
    ComponentRejectedError,
    LoopComponent,
    TTLError,
    UnknownPointError,
    hookimpl,
    hookspec,
)


class Points:
    """The callback points of the components in this module."""

    @hookspec
    def acme_report(self, loop, x):
        """Report something."""

    @hookspec(firstresult=True)
    def acme_choose(self, loop, x=0):
        """Choose something."""

    @hookspec
    def acme_scale(self, loop, x, factor=10):
        """Scale something."""


class Acme(LoopComponent):
    """A component that brings callback points."""

    hookspecs = Points


def provider(hookspecs=Points, name="acme", **body):
    """Return a component of a class of its own that brings callback points."""
    return type("Provider", (LoopComponent,), {"hookspecs": hookspecs, "name": name, **body})()


def bringing(point, name="acme", **options):
    """Return a component that brings one callback point."""
    spec = hookspec(**options)(lambda loop, x: None)
    return provider(type("Brought", (), {point: staticmethod(spec)}), name)


@pytest.fixture
def impl(at):
    """Return a function that makes a component of marked hook methods: `impl(acme_report=f)`."""

    def impl(name=None, **functions):
        return at(name=name, **{point: hookimpl(f) for point, f in functions.items()})

    return impl


@pytest.fixture
def saying(impl):
    """Return a function that makes a component that returns its name where it is asked."""
    return lambda name: impl(name=name, acme_report=lambda x: f"{name}{x}")


def echo(impl):
    """Return a function that makes a component that returns one value."""
    return lambda value: impl(acme_report=lambda: value, acme_choose=lambda: value)


def report(loop, x=1):
    """Return what the implementations of acme_report say, as one word."""
    return " ".join(loop.hook.acme_report(loop=loop, x=x))


# -- bringing, implementing and calling -----------------------------------------------------


def as_class():
    """Return a class that declares acme_report."""
    return Points


def as_class_without_self():
    """Return a class that declares acme_report as a static method."""
    return type("Static", (), {"acme_report": staticmethod(hookspec(lambda loop, x: None))})


def as_module():
    """Return a module that declares acme_report, and holds other things besides."""

    def acme_report(loop, x):
        """Report something."""

    module = types.ModuleType("acme_points")
    module.acme_report = hookspec(acme_report)
    module.acme_helper = module.hookspec = hookspec
    return module


@pytest.mark.parametrize("namespace", [as_class, as_class_without_self, as_module])
def test_a_component_brings_points_in_a_class_or_a_module(loop_of, saying, namespace):
    """Whoever marks a method with hookimpl is called through loop.hook, in list order."""
    loop = loop_of(saying("a"), provider(namespace()), saying("b"))
    assert "a1 b1" == report(loop)


def test_it_may_implement_its_own_points(loop_of, saying):
    """A provider is a component like the others."""
    own = provider(acme_report=hookimpl(lambda self, x: f"own{x}"))
    assert "a1 own1 b1" == report(loop_of(saying("a"), own, saying("b")))


def test_names_begin_with_the_kebab_case_name_in_underscores(loop_of, impl):
    """A dash in a component's name is an underscore in those of its points."""
    done = impl(grad_clip_done=lambda x: f"done{x}")
    loop = loop_of(bringing("grad_clip_done", "grad-clip"), done)
    assert ["done1"] == loop.hook.grad_clip_done(loop=loop, x=1)


def test_a_point_returns_the_results_that_are_not_none(loop_of, impl):
    """None is no result, other empty values are."""
    results = [1, None, 0, [], "x"]
    loop = loop_of(
        Acme(), *(impl(acme_report=lambda r=r: r) for r in ()), *map(echo(impl), results)
    )
    assert [1, 0, [], "x"] == loop.hook.acme_report(loop=loop, x=1)


def test_a_point_that_nobody_implements_returns_no_results(loop_of):
    """Without implementations the list is empty."""
    loop = loop_of(Acme())
    assert [] == loop.hook.acme_report(loop=loop, x=1)


@pytest.mark.parametrize(
    ("results", "expected"), [([None, 0, 1], 0), ([None, None], None), ([], None)], ids=str
)
def test_firstresult_returns_the_first_that_is_not_none(loop_of, impl, results, expected):
    """A point with firstresult returns one result, or None."""
    loop = loop_of(Acme(), *map(echo(impl), results))
    assert expected == loop.hook.acme_choose(loop=loop, x=1)


def test_firstresult_asks_nobody_after_the_first_result(loop_of, impl):
    """Once somebody has answered, the others are not called."""
    asked = []
    loop = loop_of(Acme(), *(impl(acme_choose=lambda: asked.append(1) or 5) for _ in range(2)))
    loop.hook.acme_choose(loop=loop)
    assert [1] == asked


@pytest.mark.parametrize(
    ("implementation", "expected"),
    [
        (lambda: "nothing", "nothing"),
        (lambda factor, x: (factor, x), (10, 1)),
        (lambda x: x, 1),
        (lambda loop, x, factor: (x, factor), (1, 10)),
    ],
    ids=["none", "turned round", "without the default", "all"],
)
def test_an_implementation_gets_the_arguments_that_it_names(
    loop_of, impl, implementation, expected
):
    """Each is passed what it names, also what the caller left at its default."""
    loop = loop_of(Acme(), impl(acme_scale=implementation))
    assert [expected] == loop.hook.acme_scale(loop=loop, x=1)


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize(("given", "expected"), [({}, 10), ({"factor": 3}, 3)], ids=str)
def test_arguments_may_have_a_default_value(loop_of, impl, at, is_wrapped, given, expected):
    """A hookspec's default is used where the caller names nothing."""

    @hookimpl(wrapper=True)
    def wrapper(factor):
        results = yield
        return [*results, factor]

    loop = loop_of(Acme(), impl(acme_scale=lambda factor: factor))
    if is_wrapped:
        loop.components.append(at(acme_scale=wrapper))
    assert [expected] * (1 + is_wrapped) == loop.hook.acme_scale(loop=loop, x=1, **given)


def test_specname_names_the_point_of_a_method(loop_of, at):
    """A method of another name implements the point that its specname gives."""
    component = at(mine=hookimpl(specname="acme_report")(lambda x: f"mine{x}"))
    assert "mine1" == report(loop_of(Acme(), component))


def test_order_follows_the_rule_of_core_points(loop_of, at):
    """Wrappers, tryfirst, plain and trylast come in this order, and in each the list decides."""
    order = []

    def plain(name, **options):
        return at(acme_report=hookimpl(**options)(lambda: order.append(name)))

    def wrapper(name, **options):
        @hookimpl(wrapper=True, **options)
        def acme_report(loop, x):
            order.append(name)
            return (yield)

        return at(acme_report=acme_report)

    last, first = {"trylast": True}, {"tryfirst": True}
    loop = loop_of(
        *(plain("l1", **last), plain("p1"), wrapper("wl", **last), plain("f1", **first)),
        *(wrapper("w1"), Acme(), plain("l2", **last), plain("f2", **first), wrapper("w2")),
        *(plain("p2"), wrapper("wf", **first)),
    )
    report(loop)
    assert ["wf", "w1", "w2", "wl", "f1", "f2", "p1", "p2", "l1", "l2"] == order


def test_a_wrapper_sees_and_changes_the_results(loop_of, saying, at):
    """A wrapper gets the list that the caller would get."""

    @hookimpl(wrapper=True)
    def acme_report(x):
        results = yield
        return [*results, f"wrapped{x}"]

    assert "a1 wrapped1" == report(loop_of(Acme(), at(acme_report=acme_report), saying("a")))


def test_a_wrapper_of_firstresult_sees_the_one_result(loop_of, impl, at):
    """A wrapper around a point with firstresult gets one result, or None."""
    seen = []

    @hookimpl(wrapper=True)
    def acme_choose():
        seen.append((yield))
        return "changed"

    loop = loop_of(Acme(), at(acme_choose=acme_choose), echo(impl)(None), echo(impl)(7))
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
def test_a_point_takes_the_arguments_of_its_spec(loop_of, saying, is_implemented, given, problem):
    """A missing or an unknown argument is refused, whether or not somebody implements it."""
    loop = loop_of(Acme(), *([saying("a")] if is_implemented else []))
    with pytest.raises(TypeError, match=problem):
        loop.hook.acme_report(loop=loop, **given)


@pytest.mark.parametrize("has_been_called", [False, True])
def test_a_point_takes_keywords_only(loop_of, saying, has_been_called):
    """Arguments by position are refused, from the first call on."""
    loop = loop_of(Acme(), saying("a"))
    if has_been_called:
        report(loop)
    with pytest.raises(TypeError, match="positional"):
        loop.hook.acme_report(loop, 1)


def test_points_are_called_from_inside_hooks(loop_of, saying, at):
    """A component asks the others in the middle of a run."""
    told = []
    loop = loop_of(
        at(on_batch_end=lambda loop: told.append(report(loop, loop.batch_num))),
        saying("a"),
        Acme(),
        valid_data=None,
    )
    loop.train(1)
    assert ["a0", "a1"] == told


def test_points_are_explained(loop_of, saying, impl):
    """Explain and the printed list know the points of components, after those of the core."""
    loop = loop_of(saying("b"), Acme(), saying("a"), impl(on_log=lambda: None))
    explained = [line.split()[:2] for line in loop.explain("acme_report").splitlines()[1:]]
    assert [["1", "b"], ["2", "a"]] == explained
    printed = str(loop.components).split("\n\n")[1].splitlines()
    assert ["on_log       at", "acme_report  b, a"] == printed


def test_points_of_one_loop_are_not_those_of_another(loop_of):
    """What a component brings concerns the loop that it is in."""
    loop_of(Acme())
    assert not hasattr(loop_of().hook, "acme_report")


# -- coming and going -----------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, False])
def test_loop_hook_stays_one_object_and_sees_edits(loop_of, saying, at_once):
    """Whoever holds loop.hook calls those who are in the list now."""
    loop = loop_of(Acme(), saying("a"))
    hook = loop.hook
    if at_once:
        report(loop)
    loop.components.append(saying("b"))
    added = hook.acme_report(loop=loop, x=1)
    loop.components.move("b", before="a")
    loop.components.disable("a")
    assert hook is loop.hook
    assert (["a1", "b1"], ["b1"]) == (added, hook.acme_report(loop=loop, x=1))


def test_points_come_with_their_provider(loop_of, impl):
    """A point that is held back until its provider joins is there at the next call."""
    loop = loop_of()
    assert not hasattr(loop.hook, "acme_choose")
    loop.components.extend([echo(impl)(3), Acme()])
    assert 3 == loop.hook.acme_choose(loop=loop)


def test_points_leave_with_their_last_provider(loop_of):
    """When nobody brings a point any more, calling it is an error."""
    loop = loop_of(Acme(), Acme())
    for expected in (True, True, False):
        assert expected == hasattr(loop.hook, "acme_report")
        if loop.components:
            loop.components.pop()


def test_several_instances_of_one_provider_bring_one_point(loop_of, saying):
    """Each implementation is called once, however many providers there are."""
    loop = loop_of(Acme(), saying("a"), Acme(), Acme())
    assert "a1" == report(loop)
    del loop.components["acme"], loop.components["acme#3"]
    assert "a1" == report(loop)


def test_a_provider_that_is_off_still_brings_its_points(loop_of, saying):
    """The points stay, and only the provider's own implementations are not called."""
    own = provider(acme_report=hookimpl(lambda self: "own"))
    loop = loop_of(own, saying("a"))
    loop.components.disable("acme")
    off = report(loop)
    loop.components.append(saying("b"))
    assert ("a1", "a1 b1") == (off, report(loop))


REMOVALS = {
    "del": lambda loop: loop.components.__delitem__("acme"),
    "pop": lambda loop: loop.components.pop("acme"),
    "replace": lambda loop: loop.components.__setitem__("acme", LoopComponent()),
    "assign": lambda loop: setattr(loop, "components", loop.components[1:]),
}


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS.keys())
@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_provider_stays_while_others_implement_its_points(loop_of, saying, remove, is_enabled):
    """Removing it is refused, says whose implementation is left over, and changes nothing."""
    loop = loop_of(Acme(), saying("a"))
    if not is_enabled:
        loop.components.disable("a")
    with pytest.raises(ComponentRejectedError, match=r"component 'a' .* its acme_report is no"):
        remove(loop)
    assert ["acme", "a"] == loop.components.names()
    assert ("a1" if is_enabled else "") == report(loop)


def test_a_provider_leaves_together_with_who_implements_its_points(loop_of, saying):
    """An edit is judged by what it leaves."""
    loop = loop_of(Acme(), saying("a"), LoopComponent())
    del loop.components[:2]
    assert ["loop-component"] == loop.components.names()
    assert not hasattr(loop.hook, "acme_report")


def test_an_optional_implementation_waits_for_its_provider(loop_of, at):
    """With optionalhook it is dormant without a provider, and is called whenever there is one."""
    optional = at(acme_report=hookimpl(optionalhook=True)(lambda x: f"optional{x}"))
    loop = loop_of(optional)
    assert not hasattr(loop.hook, "acme_report")
    for _ in range(2):
        loop.components.append(Acme())
        assert "optional1" == report(loop)
        loop.components.remove("acme")
        assert not hasattr(loop.hook, "acme_report")


def test_core_points_go_on_when_points_come_and_go(loop_of, at, recorder, points):
    """A provider that joins and leaves in the middle of a run disturbs nobody."""
    join, leave = (
        at(on_epoch_begin=lambda loop: loop.components.append(Acme())),
        at(on_epoch_end=lambda loop: loop.components.remove("acme")),
    )
    loop_of(recorder).train(1)
    expected = list(points)
    points.clear()
    loop_of(join, recorder, leave).train(1)
    assert expected == points


def test_points_of_two_providers_come_and_go_on_their_own(loop_of, saying):
    """The points of one provider stay when another one leaves."""
    loop = loop_of(Acme(), bringing("other_ask", "other"), saying("a"))
    report(loop)
    del loop.components["other"]
    assert "a1" == report(loop)
    assert not hasattr(loop.hook, "other_ask")


# -- refusals -------------------------------------------------------------------------------


def test_two_providers_of_one_name_are_refused(loop_of, saying):
    """The error names both; the first one stays."""
    loop = loop_of(Acme(), saying("a"))
    with pytest.raises(ComponentRejectedError) as caught:
        loop.components.append(bringing("acme_report"))
    expected = (
        f"component 'acme' (class {__name__}.Provider) cannot join: it brings the callback point "
        f"'acme_report', and so does component 'acme' (class {__name__}.Acme). "
        "Take one of them out"
    )
    assert expected == str(caught.value)
    assert "a1" == report(loop)


def test_a_provider_may_be_replaced_by_another_one_of_its_name(loop_of, saying):
    """Where one leaves as the other joins, its points are the other's."""
    loop = loop_of(Acme(), saying("a"))
    report(loop)
    loop.components["acme"] = bringing("acme_report")
    assert "a1" == report(loop)
    assert not hasattr(loop.hook, "acme_choose")


@pytest.mark.parametrize("name", ["report", "acmereport", "other_report", "my_acme_report"])
def test_a_point_without_the_name_of_its_provider_is_refused(loop_of, name):
    """The error shows the name that it should have."""
    with pytest.raises(ComponentRejectedError, match=f"Call it acme_{name}$"):
        loop_of(bringing(name))


def test_historic_points_are_refused(loop_of):
    """The loop replays nothing."""
    with pytest.raises(ComponentRejectedError, match="'acme_report' is historic"):
        loop_of(bringing("acme_report", historic=True))


@pytest.mark.parametrize(
    ("hookspecs", "problem"),
    [
        (5, "no module or class"),
        (Points(), "no module or class"),
        (type("Empty", (), {"acme_report": lambda self, loop: None}), "hold no function marked"),
        (types.ModuleType("empty"), "hold no function marked"),
    ],
    ids=["number", "instance", "class without specs", "module without specs"],
)
def test_hookspecs_that_hold_no_points_are_refused(loop_of, hookspecs, problem):
    """A provider that brings nothing is a mistake."""
    with pytest.raises(ComponentRejectedError, match=problem):
        loop_of(provider(hookspecs))


@pytest.mark.parametrize(
    "spec",
    [lambda loop, *, x: None, lambda loop, *x: None, lambda loop, **x: None, lambda x: None],
    ids=["keyword-only", "*args", "**kwargs", "no loop"],
)
def test_a_point_that_nobody_could_implement_or_call_is_refused(loop_of, spec):
    """Every point takes `loop` and other arguments by name; its author is told at once."""
    brought = type("Brought", (), {"acme_report": staticmethod(hookspec(spec))})
    with pytest.raises(ComponentRejectedError, match="acme_report"):
        loop_of(provider(brought))


def yielding(loop):
    """Yield without being a wrapper."""
    yield


async def waiting(loop):
    """Be called without being awaited."""


MISFITS = {
    "unknown argument": (lambda loop, y: y, "takes y, which acme_report does not have"),
    "default": (lambda loop, x=1: x, "has a default value for an argument"),
    "keyword-only": (lambda *, x: x, "has keyword-only arguments"),
    "generator": (yielding, "yields, but is no wrapper"),
    "async": (waiting, "is async"),
}


def misfit(at, function, **options):
    """Return a component whose acme_report does not fit, made of a function of its own."""
    made = types.FunctionType(function.__code__, {}, "misfit", function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__
    return at(acme_report=hookimpl(**options)(made))


@pytest.mark.parametrize(("function", "problem"), MISFITS.values(), ids=MISFITS.keys())
def test_an_implementation_that_does_not_fit_is_refused(loop_of, at, saying, function, problem):
    """Its author is told what does not fit, and how to write it."""
    loop = loop_of(Acme(), saying("a"))
    with pytest.raises(ComponentRejectedError, match=f"'at' .* acme_report {problem}"):
        loop.components.append(misfit(at, function))
    assert "a1" == report(loop)


@pytest.mark.parametrize(("function", "problem"), MISFITS.values(), ids=MISFITS.keys())
def test_a_provider_is_refused_where_an_implementation_does_not_fit(loop_of, at, function, problem):
    """An optional implementation is checked as soon as its point comes."""
    loop = loop_of(misfit(at, function, optionalhook=True))
    with pytest.raises(ComponentRejectedError, match=f"'at' .* acme_report {problem}"):
        loop.components.append(Acme())
    assert ["at"] == loop.components.names()
    assert not hasattr(loop.hook, "acme_report")


def test_the_mend_of_a_misfit_shows_the_arguments_of_the_point(loop_of):
    """The line to write is the one of the hookspec."""

    class Misfit(LoopComponent):
        @hookimpl
        def acme_scale(self, loop, x, faktor):
            pass

    with pytest.raises(ComponentRejectedError, match=r"def acme_scale\(self, loop, x, factor\):"):
        loop_of(Acme(), Misfit())


def test_an_implementation_without_a_provider_is_refused(loop_of, saying):
    """The error says that nothing installed brings the point."""
    with pytest.raises(ComponentRejectedError) as caught:
        loop_of(saying("a"))
    text = str(caught.value)
    assert "its acme_report is no callback point of the core or of a component in the list" in text
    assert "Nothing that is installed has a name with which it begins" in text


def test_a_misspelled_implementation_is_refused_with_a_suggestion(loop_of, impl):
    """The points of the list are offered as those of the core are."""
    with pytest.raises(ComponentRejectedError, match="Did you mean 'acme_report'"):
        loop_of(Acme(), impl(acme_reprot=lambda x: x))


@pytest.mark.parametrize("name", ["acme_report", "on_batch_edn"])
def test_calling_a_point_that_nobody_brings_is_explained(loop_of, name):
    """The error is a TTLError and, as for every object, an AttributeError."""
    with pytest.raises(UnknownPointError) as caught:
        getattr(loop_of().hook, name)
    assert isinstance(caught.value, TTLError)
    assert isinstance(caught.value, AttributeError)
    assert f"no component in the list brings the callback point {name!r}" in str(caught.value)


def test_calling_a_misspelled_point_gets_a_suggestion(loop_of):
    """The nearest point is offered."""
    with pytest.raises(UnknownPointError, match="Did you mean 'acme_report'"):
        loop_of(Acme()).hook.acme_reprot(loop=None)


# -- when it fails --------------------------------------------------------------------------


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


class Innocent(LoopComponent):
    """A wrapper and an implementation that do no harm."""

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
def test_a_failure_in_a_point_of_a_component_is_attributed(loop_of, cls, has_others):
    """The note names who failed in the point, neither its caller nor a wrapper around it."""
    others = [Innocent()] if has_others else []
    loop = loop_of(Acme(), *others, cls(), Caller())
    with pytest.raises(ZeroDivisionError) as caught:
        loop.train(1)
    expected = (
        f"ttl: raised by component '{cls.__name__.lower()}' (class {__name__}.{cls.__name__}) "
        "in acme_report, train epoch, epoch_num=0, batch_num=0"
    )
    assert [expected] == caught.value.__notes__


def test_a_call_with_wrong_arguments_is_attributed_to_the_caller(loop_of, at):
    """Whoever calls a point wrongly is the one who failed."""

    class Wrong(LoopComponent):
        def on_batch_end(self, loop):
            loop.hook.acme_report(loop=loop)

    with pytest.raises(TypeError) as caught:
        loop_of(Acme(), Plain(), Wrong()).train(1)
    assert caught.value.__notes__[0].startswith("ttl: raised by component 'wrong'")
