"""Deprecated callback points and arguments: a warning once a class, at the author's line."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
from loops import make_loop
from recording import warnings_of

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
    """Callback points, some of which are deprecated."""

    @hookspec(warn_on_impl=DeprecationWarning("use acme_new"))
    def acme_old(self, loop):
        """Fire no more."""

    @hookspec(warn_on_impl_args={"old": DeprecationWarning("use new"), "older": UserWarning("!")})
    def acme_new(self, loop, old, older, new):
        """Fire in place of acme_old."""


class Acme(LoopComponent):
    hookspecs = Points


def make_class(point="acme_old", arguments="self, loop", name="Theirs", options="()"):
    """Return a component class that is defined in the file of another package."""
    source = SOURCE.format(name=name, point=point, arguments=arguments, options=options)
    names = {"__name__": "their.package"}
    exec(compile(source, FILE, "exec"), names)
    return names[name]


def provider(category):
    """Return a provider of a point that is deprecated with a category of warnings."""
    spec = hookspec(warn_on_impl=category("use another"))(lambda loop: None)
    specs = type("Specs", (), {"acme_old": staticmethod(spec)})
    return type("Provider", (LoopComponent,), {"name": "acme", "hookspecs": specs})()


def test_an_implementation_of_a_deprecated_point_is_warned_of():
    """The warning has the component, the point, and the text of the hookspec."""
    (warning,) = warnings_of(lambda: make_loop(Acme(), make_class()()))
    expected = (
        "component 'theirs' (class their.package.Theirs) implements acme_old, which is "
        "deprecated: use acme_new"
    )
    assert expected == str(warning.message)


def test_the_warning_points_at_the_implementation():
    """The warning has the file and the line of the implementation."""
    (warning,) = warnings_of(lambda: make_loop(Acme(), make_class()()))
    assert (FILE, LINE) == (warning.filename, warning.lineno)


@pytest.mark.parametrize(
    "category", [DeprecationWarning, PendingDeprecationWarning, FutureWarning, UserWarning]
)
def test_the_warning_is_a_future_warning_whatever_the_spec_says(category):
    """A DeprecationWarning would not be shown outside of __main__."""
    (warning,) = warnings_of(lambda: make_loop(provider(category), make_class()()))
    assert FutureWarning is warning.category
    assert str(warning.message).endswith("use another")


def test_python_shows_the_warning_by_default():
    """With the default filters of an interpreter, the warning is shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")
        for hidden in DeprecationWarning, PendingDeprecationWarning, ImportWarning:
            warnings.simplefilter("ignore", hidden, append=True)
        make_loop(Acme(), make_class()())
    assert [FutureWarning] == [warning.category for warning in caught]


def test_each_class_is_warned_of_once():
    """Neither a second instance, nor an edit, nor a second loop repeats the warning."""
    cls = make_class()

    def use():
        loop = make_loop(Acme(), cls(), cls())
        loop.components.append(cls())
        loop.components.reverse()
        loop.components.disable("theirs")
        loop.components.enable("theirs")
        loop.hook.acme_old(loop=loop)
        make_loop(cls(), Acme())

    assert 1 == len(warnings_of(use))


def test_every_class_is_warned_of():
    """Two classes give a warning each."""
    found = warnings_of(lambda: make_loop(Acme(), make_class()(), make_class(name="Others")()))
    names = [str(warning.message).split("'")[1] for warning in found]
    assert ["theirs", "others"] == names


def test_the_warning_points_at_an_inherited_implementation():
    """For a subclass, the warning points at the line of the base class."""
    subclass = type("Heir", (make_class(),), {})
    (warning,) = warnings_of(lambda: make_loop(Acme(), subclass()))
    assert (FILE, LINE) == (warning.filename, warning.lineno)
    assert "'heir'" in str(warning.message)


def test_the_warning_points_at_a_decorated_implementation():
    """With functools.wraps, the warning points at the decorated function."""
    inner = make_class().acme_old

    @functools.wraps(inner)
    def acme_old(*args):
        return inner(*args)

    decorated = type("Decorated", (LoopComponent,), {"acme_old": hookimpl(acme_old)})
    (warning,) = warnings_of(lambda: make_loop(Acme(), decorated()))
    assert (FILE, LINE) == (warning.filename, warning.lineno)


def test_an_implementation_by_another_name_is_warned_of():
    """An implementation with specname is warned of too."""
    cls = make_class(point="mine", options="(specname='acme_old')")
    (warning,) = warnings_of(lambda: make_loop(Acme(), cls()))
    assert "implements acme_old" in str(warning.message)


def test_an_optional_implementation_is_warned_of_when_a_provider_joins():
    """Without a provider, nothing is deprecated."""
    cls = make_class(options="(optionalhook=True)")
    loops = []
    assert [] == warnings_of(lambda: loops.append(make_loop(cls())))
    assert 1 == len(warnings_of(lambda: loops[0].components.append(Acme())))


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
def test_an_implementation_with_a_deprecated_argument_is_warned_of(arguments, expected):
    """Each deprecated argument that an implementation names gives a warning, and no other."""
    cls = make_class("acme_new", arguments)
    found = warnings_of(lambda: make_loop(Acme(), cls(), cls()))
    assert expected == [str(warning.message).split(" implements ")[1] for warning in found]
    assert {FutureWarning} >= {warning.category for warning in found}


def test_a_class_without_deprecated_implementations_is_not_warned_of():
    """Neither the provider nor a component that only calls the point gives a warning."""

    class Caller(LoopComponent):
        def on_train_begin(self, loop):
            loop.hook.acme_old(loop=loop)

    loop = make_loop(Acme(), Caller(), make_class("on_log")())
    loop.model = torch.nn.Identity()  # in which nothing could be trained
    assert [] == warnings_of(lambda: loop.train(0))


def test_a_deprecated_point_works():
    """Its implementations are called as before."""
    loops = []
    warnings_of(lambda: loops.append(make_loop(Acme(), make_class()())))
    assert [1] == loops[0].hook.acme_old(loop=loops[0])


def test_a_warning_that_is_an_error_refuses_the_component():
    """If warnings are errors, an edit that gives one changes nothing."""
    loop = make_loop(Acme())
    with pytest.raises(FutureWarning):
        loop.components.append(make_class()())
    assert ["acme"] == loop.components.names()
    assert [] == loop.hook.acme_old(loop=loop)
