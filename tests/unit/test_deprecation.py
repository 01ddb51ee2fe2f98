"""Deprecated callback points and arguments: told once a class, where the author sees it."""

from __future__ import annotations

import functools
import warnings

import pytest

from ttl_core import LoopComponent, hookimpl, hookspec

FILE = "their/package.py"
SOURCE = """
from ttl_core import LoopComponent, hookimpl

class {name}(LoopComponent):
    @hookimpl{options}
    def {point}({arguments}):
        return 1
"""
LINE = 5
"""The line in SOURCE where the implementation begins."""


class Points:
    """Callback points of which some are deprecated."""

    @hookspec(warn_on_impl=DeprecationWarning("use acme_new"))
    def acme_old(self, loop):
        """Be what nobody should implement any more."""

    @hookspec(warn_on_impl_args={"old": DeprecationWarning("use new"), "older": UserWarning("!")})
    def acme_new(self, loop, old, older, new):
        """Be what everybody should implement."""


class Acme(LoopComponent):
    hookspecs = Points


def author(point="acme_old", arguments="self, loop", name="Theirs", options="()"):
    """Return a component class that somebody else has written in a file of theirs."""
    source = SOURCE.format(name=name, point=point, arguments=arguments, options=options)
    names = {"__name__": "their.package"}
    exec(compile(source, FILE, "exec"), names)
    return names[name]


def told(action):
    """Return the warnings that an action gives, however often Python would show them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return caught


def provider(category):
    """Return a provider of a point that is deprecated with a category of warnings."""
    spec = hookspec(warn_on_impl=category("use another"))(lambda loop: None)
    specs = type("Specs", (), {"acme_old": staticmethod(spec)})
    return type("Provider", (LoopComponent,), {"name": "acme", "hookspecs": specs})()


def test_an_implementation_of_a_deprecated_point_is_warned_of(loop_of):
    """The warning says who implements what, and what the author of the point says about it."""
    (warning,) = told(lambda: loop_of(Acme(), author()()))
    expected = (
        "component 'theirs' (class their.package.Theirs) implements acme_old, which is "
        "deprecated: use acme_new"
    )
    assert expected == str(warning.message)


def test_the_warning_points_at_the_implementation(loop_of):
    """Its author finds the line to change."""
    (warning,) = told(lambda: loop_of(Acme(), author()()))
    assert (FILE, LINE) == (warning.filename, warning.lineno)


@pytest.mark.parametrize(
    "category", [DeprecationWarning, PendingDeprecationWarning, FutureWarning, UserWarning]
)
def test_the_warning_is_a_future_warning_whatever_the_spec_says(loop_of, category):
    """A DeprecationWarning would be shown to nobody outside of __main__."""
    (warning,) = told(lambda: loop_of(provider(category), author()()))
    assert FutureWarning is warning.category
    assert str(warning.message).endswith("use another")


def test_python_shows_the_warning_by_default(loop_of):
    """With the filters of an interpreter that was started without options it is seen."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")
        for hidden in DeprecationWarning, PendingDeprecationWarning, ImportWarning:
            warnings.simplefilter("ignore", hidden, append=True)
        loop_of(Acme(), author()())
    assert [FutureWarning] == [warning.category for warning in caught]


def test_each_class_is_told_once(loop_of):
    """Neither a second instance, nor an edit, nor a second loop repeats the warning."""
    theirs = author()

    def use():
        loop = loop_of(Acme(), theirs(), theirs())
        loop.components.append(theirs())
        loop.components.reverse()
        loop.components.disable("theirs")
        loop.components.enable("theirs")
        loop.hook.acme_old(loop=loop)
        loop_of(theirs(), Acme())

    assert 1 == len(told(use))


def test_every_class_is_told(loop_of):
    """Two authors get a warning each."""
    found = told(lambda: loop_of(Acme(), author()(), author(name="Others")()))
    names = [str(warning.message).split("'")[1] for warning in found]
    assert ["theirs", "others"] == names


def test_a_class_that_inherits_an_implementation_is_told_where_that_is(loop_of):
    """The line to change is the one of the base class."""
    heir = type("Heir", (author(),), {})
    (warning,) = told(lambda: loop_of(Acme(), heir()))
    assert (FILE, LINE) == (warning.filename, warning.lineno)
    assert "'heir'" in str(warning.message)


def test_a_decorated_implementation_is_told_where_it_is_written(loop_of):
    """Behind functools.wraps the author's own line is found."""
    inner = author().acme_old

    @functools.wraps(inner)
    def acme_old(*args):
        return inner(*args)

    decorated = type("Decorated", (LoopComponent,), {"acme_old": hookimpl(acme_old)})
    (warning,) = told(lambda: loop_of(Acme(), decorated()))
    assert (FILE, LINE) == (warning.filename, warning.lineno)


def test_an_implementation_by_another_name_is_warned_of(loop_of):
    """Specname leads to the same point."""
    theirs = author(point="mine", options="(specname='acme_old')")
    (warning,) = told(lambda: loop_of(Acme(), theirs()))
    assert "implements acme_old" in str(warning.message)


def test_an_optional_implementation_is_warned_of_when_its_point_comes(loop_of):
    """Without a provider nothing is deprecated."""
    theirs = author(options="(optionalhook=True)")
    loops = []
    assert [] == told(lambda: loops.append(loop_of(theirs())))
    assert 1 == len(told(lambda: loops[0].components.append(Acme())))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("self", []),
        ("self, loop, new", []),
        ("self, old", ["acme_new(old), which is deprecated: use new"]),
        (
            "self, older, new, old",
            [
                "acme_new(old), which is deprecated: use new",
                "acme_new(older), which is deprecated: !",
            ],
        ),
    ],
)
def test_who_takes_a_deprecated_argument_is_warned_of(loop_of, arguments, expected):
    """Each deprecated argument that an implementation names is told, and no other."""
    theirs = author("acme_new", arguments)
    found = told(lambda: loop_of(Acme(), theirs(), theirs()))
    assert expected == [str(warning.message).split(" implements ")[1] for warning in found]
    assert {FutureWarning} >= {warning.category for warning in found}


def test_who_implements_nothing_deprecated_is_not_warned_of(loop_of):
    """Neither the provider, nor who only calls the point, is told."""

    class Caller(LoopComponent):
        def on_train_begin(self, loop):
            loop.hook.acme_old(loop=loop)

    assert [] == told(lambda: loop_of(Acme(), Caller(), author("on_log")()).train(0))


def test_a_deprecated_point_works(loop_of):
    """Whoever implements it is called as before."""
    loops = []
    told(lambda: loops.append(loop_of(Acme(), author()())))
    assert [1] == loops[0].hook.acme_old(loop=loops[0])


def test_a_warning_that_is_an_error_refuses_the_component(loop_of):
    """Where warnings are errors, an edit that gives one changes nothing."""
    loop = loop_of(Acme())
    with pytest.raises(FutureWarning):
        loop.components.append(author()())
    assert ["acme"] == loop.components.names()
    assert [] == loop.hook.acme_old(loop=loop)
