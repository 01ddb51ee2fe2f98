"""Components that cannot be enabled beside others, or twice."""

from __future__ import annotations

import pytest
from loops import call_order, make_loop, named

from ttl_core import ConflictError, LoopComponent


def make_conflicting(**attributes):
    """Return a component that conflicts with `a`."""
    return named("c", conflicts="a", **attributes)


class Single(LoopComponent):
    """A component that has to be the only one of its class."""

    only_once = True

    def __init__(self, name="single"):
        self.name = name


def test_two_components_that_conflict_are_refused():
    """The error names both, the one that declares it, and the fix."""
    with pytest.raises(ConflictError) as caught:
        make_loop(named("a"), make_conflicting())
    expected = (
        "component 'c' (class loops.Part) and component 'a' (class loops.Part) cannot both be "
        "enabled: 'c' declares conflicts='a'. Remove or disable one of them, as with "
        "loop.components.disable('a')"
    )
    assert expected == str(caught.value)


def test_a_component_is_refused_beside_one_that_it_conflicts_with():
    """The list stays what it was."""
    loop = make_loop(named("a"))
    with pytest.raises(ConflictError):
        loop.components.append(make_conflicting())
    assert "a" == call_order(loop)


def test_the_order_of_conflicting_components_does_not_matter():
    """The one that declares the conflict may be there already."""
    loop = make_loop(make_conflicting())
    with pytest.raises(ConflictError, match="'c' declares conflicts='a'"):
        loop.components.append(named("a"))
    assert "c" == call_order(loop)


@pytest.mark.parametrize("disabled", ["a", "c"])
def test_a_disabled_component_conflicts_with_none(disabled):
    """Either may be enabled while the other one is disabled, and not both."""
    loop = make_loop(named("a"))
    loop.components.disable("a")
    loop.components.append(make_conflicting())
    if disabled == "c":
        loop.components.disable("c")
        loop.components.enable("a")
    with pytest.raises(ConflictError):
        loop.components.enable(disabled)
    assert not loop.components.is_enabled(disabled)
    assert call_order(loop) == ("c" if disabled == "a" else "a")


def test_a_component_that_the_environment_disables_conflicts_with_none(monkeypatch):
    """TTL_DISABLE resolves a conflict."""
    monkeypatch.setenv("TTL_DISABLE", "a")
    assert "c" == call_order(make_loop(named("a"), make_conflicting()))


def test_several_conflicts_are_declared_as_a_sequence():
    """Each of several names is a conflict."""
    with pytest.raises(ConflictError, match="conflicts='b'"):
        make_loop(named("b"), named("x", conflicts=("a", "b")))


def test_a_component_does_not_conflict_with_itself():
    """Its own name declares that there may be no second one."""
    single = named("x", conflicts="x")
    assert "x" == call_order(make_loop(single))
    with pytest.raises(ConflictError):
        make_loop(named("x", conflicts="x"), named("x", conflicts="x"))


def test_a_component_that_must_be_the_only_one_is_refused_twice():
    """The error names both, also where they have names of their own."""
    with pytest.raises(ConflictError) as caught:
        make_loop(Single("one"), Single("two"))
    where = f"(class {__name__}.Single)"
    assert str(caught.value).startswith(
        f"component 'one' {where} and component 'two' {where} cannot both be enabled: 'one' "
        "declares only_once=True. "
    )


def test_a_component_that_must_be_the_only_one_may_be_replaced():
    """In one edit a second one takes the place of the first."""
    loop = make_loop(Single())
    loop.components["single"] = Single()
    loop.components = [Single()]
    assert ["single"] == loop.components.names()


def test_a_second_one_may_be_in_the_list_disabled():
    """Only those that are enabled count."""
    loop = make_loop(Single())
    loop.components.disable("single")
    loop.components.append(Single())
    with pytest.raises(ConflictError, match="'single#2'"):
        loop.components.enable("single")
    assert [False, True] == [loop.components.is_enabled(c) for c in loop.components]


def test_of_one_entry_point_there_may_be_one(install_distribution):
    """Where the entry point is a function, its name decides."""
    source = """
from ttl_core import LoopComponent

def make():
    return type("Made", (LoopComponent,), {"only_once": True})()
"""
    install_distribution("acme-made", {"ttl.components": {"made": "acme_made:make"}}, source)
    with pytest.raises(ConflictError, match=r"component 'made#2' \(acme-made 1.0\)"):
        make_loop("made", "made")
