"""Components that require others: an edit that leaves a requirement unmet is refused."""

from __future__ import annotations

import pytest
from loops import call_order, make_loop, named

from ttl_core import RequirementError


def make_required():
    """Return the component that the other one requires."""
    return named("n")


def make_requiring():
    """Return a component that requires the other one."""
    return named("r", requires="n")


@pytest.fixture
def pair():
    """Return a loop of three components, of which `r` requires `n`."""
    return make_loop(make_required(), named("x"), make_requiring())


def test_a_loop_without_what_is_required_is_refused():
    """The error names both components and the two fixes."""
    with pytest.raises(RequirementError) as caught:
        make_loop(make_requiring())
    expected = (
        "component 'r' (class loops.Part) requires 'n', which is not in the list. "
        "Add 'n', or remove 'r' first"
    )
    assert expected == str(caught.value)


def test_a_component_is_refused_if_what_it_requires_is_absent():
    """It may join together with what it requires."""
    loop, late = make_loop(named("x")), make_requiring()
    with pytest.raises(RequirementError, match=r"'r' .* requires 'n', which is not in the list"):
        loop.components.append(late)
    assert "x" == call_order(loop)
    loop.components.extend([late, make_required()])
    assert "xrn" == call_order(loop)


def test_a_component_is_refused_if_what_it_requires_is_disabled():
    """A disabled component meets no requirement, and the error says how to fix that."""
    loop = make_loop(make_required())
    loop.components.disable("n")
    with pytest.raises(RequirementError, match=r"requires 'n', which is disabled. Enable 'n', or"):
        loop.components.append(make_requiring())
    assert ["n"] == loop.components.names()


def test_a_requirement_is_no_order():
    """A required component may be later in the list."""
    assert "rn" == call_order(make_loop(make_requiring(), make_required()))


def enter_disabled(loop):
    """Begin a block in which `x` and `n` are disabled, and do not end it."""
    loop.block = loop.components.disabled("x", "n")
    loop.block.__enter__()


REMOVALS = {
    "del by index": lambda loop: loop.components.__delitem__(0),
    "del by name": lambda loop: loop.components.__delitem__("n"),
    "del slice": lambda loop: loop.components.__delitem__(slice(0, 2)),
    "remove": lambda loop: loop.components.remove(loop.components[0]),
    "remove by name": lambda loop: loop.components.remove("n"),
    "pop": lambda loop: loop.components.pop(0),
    "pop by name": lambda loop: loop.components.pop("n"),
    "replace": lambda loop: loop.components.__setitem__("n", named("y")),
    "replace slice": lambda loop: loop.components.__setitem__(slice(0, 2), [named("y")]),
    "replace all": lambda loop: loop.components.__setitem__(slice(None), loop.components[1:]),
    "assign": lambda loop: setattr(loop, "components", loop.components[1:]),
    "disable": lambda loop: loop.components.disable("n"),
    "disable several": lambda loop: loop.components.disable("x", "n"),
    "disabled": enter_disabled,
}


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS.keys())
def test_what_an_enabled_component_requires_stays(pair, remove):
    """Removing or disabling it is refused and changes nothing."""
    components = pair.components
    with pytest.raises(RequirementError, match=r"component 'r' .* requires 'n'"):
        remove(pair)
    assert pair.components is components
    assert ["n", "x", "r"] == components.names()
    assert "nxr" == call_order(pair)


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS.keys())
def test_a_disabled_component_requires_nothing(pair, remove):
    """What only a disabled component requires can be removed or disabled."""
    pair.components.disable("r")
    remove(pair)
    assert "n" not in call_order(pair)


def test_a_component_is_enabled_only_with_what_it_requires(pair):
    """Enabling is refused while a required component is absent, and it stays disabled."""
    pair.components.disable("r")
    del pair.components["n"]
    with pytest.raises(RequirementError, match="requires 'n', which is not in the list"):
        pair.components.enable("r")
    assert not pair.components.is_enabled("r")
    assert "x" == call_order(pair)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda c: c.clear(), ""),
        (lambda c: c.__delitem__(slice(0, 3, 2)), "x"),
        (lambda c: c.__setitem__(slice(None), [named("y")]), "y"),
        (lambda c: c.disable("n", "r"), "x"),
        (lambda c: c.disable("r", "n"), "x"),
    ],
    ids=["clear", "del", "replace", "disable", "disable in reverse"],
)
def test_both_may_be_removed_at_once(pair, edit, expected):
    """Requirements are checked in the list that an edit leaves."""
    edit(pair.components)
    assert expected == call_order(pair)


def test_both_may_be_enabled_at_once(pair):
    """The order of names in enable() does not matter."""
    pair.components.disable("r", "n")
    pair.components.enable("r", "n")
    assert "nxr" == call_order(pair)


def test_one_of_two_required_components_may_be_disabled():
    """A requirement is met as long as one component of that name is enabled."""
    loop = make_loop(make_required(), make_required(), make_requiring())
    loop.components.disable("n")
    with pytest.raises(RequirementError):
        loop.components.disable("n#2")
    assert "nr" == call_order(loop)


def test_a_required_component_may_be_replaced_by_one_of_its_name(pair):
    """Another component of that name meets the requirement."""
    pair.components["n"] = make_required()
    assert "nxr" == call_order(pair)


def test_a_chain_of_requirements_is_disabled_at_once():
    """A component in the middle of a chain is required and requires another one."""
    loop = make_loop(named("a", requires="b"), named("b", requires="c"), named("c"))
    for refused in ["b", "c"], ["c", "a"], ["b"]:
        with pytest.raises(RequirementError):
            loop.components.disable(*refused)
    loop.components.disable("c", "b", "a")
    assert "" == call_order(loop)


def test_components_that_require_each_other_join_together():
    """Two components that require each other join in one edit."""
    loop = make_loop()
    loop.components.extend([named("a", requires="b"), named("b", requires="a")])
    assert "ab" == call_order(loop)


@pytest.mark.parametrize("places", [(0, 2), (2, 0), (0, 1), (1, 2)])
def test_swapping_works_although_a_required_component_is_absent_in_between(pair, places):
    """Between the two assignments of a swap, an unmet requirement is no error."""
    i, j = places
    expected = list("nxr")
    expected[i], expected[j] = expected[j], expected[i]
    pair.components[i], pair.components[j] = pair.components[j], pair.components[i]
    assert "".join(expected) == call_order(pair)


def test_a_saved_list_is_refused_if_a_requirement_is_no_longer_met(pair):
    """Assigning a saved list in which a requirement is no longer met is refused."""
    saved, pair.components = pair.components, [pair.components["n"]]
    pair.components.disable("n")
    with pytest.raises(RequirementError, match="requires 'n', which is disabled"):
        pair.components = saved
    assert ["n"] == pair.components.names()
