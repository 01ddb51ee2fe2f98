"""Callback points of components: providers and implementations that are refused."""

from __future__ import annotations

import types

import pytest
from acme import Acme, Points, make_implementation, make_provider, providing, report, reporting
from loops import make_component, make_loop
from recording import warnings_of

from ttl_core import (
    ComponentRejectedError,
    LoopComponent,
    TTLError,
    UnknownPointError,
    hookimpl,
    hookspec,
)


def test_two_providers_of_one_name_are_refused():
    """The error names both, and the first one stays."""
    loop = make_loop(Acme(), reporting("a"))
    with pytest.raises(ComponentRejectedError) as caught:
        loop.components.append(providing("acme_report"))
    expected = (
        "component 'acme#2' (class acme.Provider) cannot join: it provides the callback point "
        "'acme_report', and so does component 'acme' (class acme.Acme). "
        "Remove one of them"
    )
    assert expected == str(caught.value)
    assert "a1" == report(loop)


def test_a_provider_may_be_replaced_by_another_one_of_its_name():
    """After one provider replaced another, the points are those of the new one."""
    loop = make_loop(Acme(), reporting("a"))
    report(loop)
    loop.components["acme"] = providing("acme_report")
    assert "a1" == report(loop)
    assert not hasattr(loop.hook, "acme_choose")


@pytest.mark.parametrize("name", ["report", "acmereport", "other_report", "my_acme_report"])
def test_a_point_without_the_name_of_its_provider_is_refused(name):
    """The error shows a name that the point could have."""
    with pytest.raises(ComponentRejectedError, match=f"Call it acme_{name}$"):
        make_loop(providing(name))


def test_historic_points_are_refused():
    """The loop replays no calls, so a point cannot be historic."""
    with pytest.raises(ComponentRejectedError, match="'acme_report' is historic"):
        make_loop(providing("acme_report", historic=True))


@pytest.mark.parametrize(
    ("hookspecs", "problem"),
    [
        (5, "not a module or class"),
        (Points(), "not a module or class"),
        (type("Empty", (), {"acme_report": lambda self, loop: None}), "hold no function marked"),
        (types.ModuleType("empty"), "hold no function marked"),
    ],
    ids=["number", "instance", "class without specs", "module without specs"],
)
def test_hookspecs_that_hold_no_points_are_refused(hookspecs, problem):
    """A provider without callback points is an error."""
    with pytest.raises(ComponentRejectedError, match=problem):
        make_loop(make_provider(hookspecs))


@pytest.mark.parametrize(
    "spec",
    [lambda loop, *, x: None, lambda loop, *x: None, lambda loop, **x: None, lambda x: None],
    ids=["keyword-only", "*args", "**kwargs", "no loop"],
)
def test_a_point_that_cannot_be_implemented_or_called_is_refused(spec):
    """Every point has to take `loop` and other arguments by name."""
    provided = type("Provided", (), {"acme_report": staticmethod(hookspec(spec))})
    with pytest.raises(ComponentRejectedError, match="acme_report"):
        make_loop(make_provider(provided))


def yielding(loop):
    """A generator that is no wrapper."""
    yield


async def waiting(loop):
    """A function that would have to be awaited."""


MISFITS = {
    "unknown argument": (lambda loop, y: y, "takes y, which acme_report does not have"),
    "default": (lambda loop, x=1: x, "has a default value for an argument"),
    "keyword-only": (lambda *, x: x, "has keyword-only arguments"),
    "generator": (yielding, "yields, but is no wrapper"),
    "async": (waiting, "is async"),
}


def misfit(function, **options):
    """Return a component whose acme_report is a copy of a function that does not fit."""
    made = types.FunctionType(function.__code__, {}, "misfit", function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__
    return make_component(acme_report=hookimpl(**options)(made))


@pytest.mark.parametrize(("function", "problem"), MISFITS.values(), ids=MISFITS.keys())
def test_an_implementation_that_does_not_fit_is_refused(function, problem):
    """The error says what does not fit."""
    loop = make_loop(Acme(), reporting("a"))
    with pytest.raises(ComponentRejectedError, match=f"'part' .* acme_report {problem}"):
        loop.components.append(misfit(function))
    assert "a1" == report(loop)


@pytest.mark.parametrize(("function", "problem"), MISFITS.values(), ids=MISFITS.keys())
def test_a_provider_is_refused_if_an_implementation_does_not_fit(function, problem):
    """An optional implementation is checked as soon as a provider joins."""
    loop = make_loop(misfit(function, optionalhook=True))
    with pytest.raises(ComponentRejectedError, match=f"'part' .* acme_report {problem}"):
        loop.components.append(Acme())
    assert ["part"] == loop.components.names()
    assert not hasattr(loop.hook, "acme_report")


def test_the_fix_of_a_misfit_shows_the_arguments_of_the_point():
    """The error shows the line to write, with the arguments of the hookspec."""

    class Misfit(LoopComponent):
        @hookimpl
        def acme_scale(self, loop, x, faktor):
            pass

    with pytest.raises(ComponentRejectedError, match=r"def acme_scale\(self, loop, x, factor\):"):
        make_loop(Acme(), Misfit())


def test_an_implementation_without_a_provider_is_refused():
    """The error says that nothing that is installed provides the point."""
    with pytest.raises(ComponentRejectedError) as caught:
        make_loop(reporting("a"))
    text = str(caught.value)
    assert (
        "its acme_report is not a callback point of the core or of a component in the list" in text
    )
    assert "No installed component has a name that it begins with" in text


def test_a_misspelled_implementation_is_refused_with_a_suggestion():
    """The error suggests points of components, like those of the core."""
    with pytest.raises(ComponentRejectedError, match="Did you mean 'acme_report'"):
        make_loop(Acme(), make_implementation(acme_reprot=lambda x: x))


@pytest.mark.parametrize("name", ["acme_report", "on_batch_edn"])
def test_calling_a_point_without_a_provider_is_explained(name):
    """The error is a TTLError and, as for every object, an AttributeError."""
    with pytest.raises(UnknownPointError) as caught:
        getattr(make_loop().hook, name)
    assert isinstance(caught.value, TTLError)
    assert isinstance(caught.value, AttributeError)
    assert f"no component in the list provides the callback point {name!r}" in str(caught.value)


def test_calling_a_misspelled_point_gets_a_suggestion():
    """The error suggests the nearest point."""
    with pytest.raises(UnknownPointError, match="Did you mean 'acme_report'"):
        make_loop(Acme()).hook.acme_reprot(loop=None)


# -- when the provider is there ----------------------------------------------------------------


def test_a_misspelled_implementation_is_told_what_the_provider_provides():
    """The provider that is in the list already is not to be added."""
    with pytest.raises(ComponentRejectedError) as caught:
        make_loop(Acme(), make_implementation(acme_zzzzzzzz=lambda x: x))
    assert str(caught.value).endswith(
        "component 'acme' (class acme.Acme) provides acme_choose, acme_report, acme_scale"
    )


def test_calling_a_misspelled_point_is_told_what_the_provider_provides():
    """loop.hook does not advise to add the provider that is there either."""
    with pytest.raises(UnknownPointError) as caught:
        make_loop(Acme()).hook.acme_zzzzzzzz(loop=None)
    assert str(caught.value) == (
        "no component in the list provides the callback point 'acme_zzzzzzzz'. component 'acme' "
        "(class acme.Acme) provides acme_choose, acme_report, acme_scale"
    )


def test_a_misspelled_optional_implementation_is_warned_of():
    """It waits without a word while its provider is absent, and not when that is there."""
    waiting = make_component(acme_reprot=hookimpl(optionalhook=True)(lambda x: x))
    loop = make_loop(waiting)
    with pytest.warns(UserWarning, match="acme_reprot") as caught:
        loop.components.append(Acme())
    expected = (
        "component 'part' (class loops.Part) implements acme_reprot, which is never called: "
        "component 'acme' (class acme.Acme) does not provide it. Did you mean 'acme_report'? It "
        "provides acme_choose, acme_report, acme_scale"
    )
    assert [expected] == [str(warning.message) for warning in caught]
    assert __file__ == caught[0].filename
    assert [] == warnings_of(lambda: loop.components.reverse())


def test_an_optional_implementation_may_wait_for_another_provider():
    """The names of others begin with other words."""
    waiting = make_component(other_report=hookimpl(optionalhook=True)(lambda x: x))
    assert [] == warnings_of(lambda: make_loop(waiting, Acme()))


def test_a_subclass_of_a_provider_provides_its_points():
    """It has a name of its own, and may be beside its base class."""

    class Better(Acme):
        pass

    assert "a1" == report(make_loop(Better(), reporting("a")))
    assert "a1" == report(make_loop(Acme(), Better(), reporting("a")))


def test_a_provider_whose_points_are_implemented_cannot_be_removed():
    """The error is about what was removed, and names the one that needs it."""
    loop = make_loop(Acme(), reporting("a"))
    with pytest.raises(ComponentRejectedError) as caught:
        del loop.components["acme"]
    expected = (
        "component 'acme' (class acme.Acme) cannot be removed: it provides the callback point "
        "'acme_report', which component 'a' (class loops.Part) implements. Remove 'a' first"
    )
    assert expected == str(caught.value)
    assert "a1" == report(loop)


def test_a_provider_and_its_implementation_leave_together():
    """One edit may remove both."""
    loop = make_loop(Acme(), reporting("a"))
    loop.components.clear()
    assert [] == loop.components.names()
