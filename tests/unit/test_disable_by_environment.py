"""TTL_DISABLE: the environment disables components, and enable() cannot overrule it."""

from __future__ import annotations

import pytest
import torch
from loops import call_order, make_component, make_loop, named
from recording import warnings_of

from ttl_core import RequirementError, RunError, TrainTestLoop, use
from ttl_core.discovery import scanning

SOURCE = """
from ttl_core import LoopComponent

class Extra(LoopComponent):
    def on_batch_end(self, loop):
        return "extra"
"""


@pytest.fixture
def set_disabled(monkeypatch):
    """Return a function that sets TTL_DISABLE."""
    return lambda value: monkeypatch.setenv("TTL_DISABLE", value)


@pytest.fixture
def extra(install_component):
    """Install a component, and return its name."""
    return install_component("extra", SOURCE)


@pytest.mark.parametrize("value", ["a,c", " c , a ,,", "a,c,"])
def test_the_environment_disables_components(set_disabled, value):
    """A component that TTL_DISABLE names is in the list and is not called."""
    set_disabled(value)
    loop = make_loop(*map(named, "abcd"))
    assert "bd" == call_order(loop)
    assert list("abcd") == loop.components.names()
    assert [False, True] == [loop.components.is_enabled(name) for name in "ab"]


def test_the_environment_disables_components_that_join_later(set_disabled):
    """A component that is added later is not called either."""
    set_disabled("a")
    loop = make_loop(named("a"), named("b"))
    loop.components.append(loop.components.pop("a"))
    loop.components = [named("a"), *loop.components[:1]]
    assert "b" == call_order(loop)


def test_the_environment_overrules_enable(set_disabled):
    """enable() of a component that TTL_DISABLE names is an error."""
    set_disabled("a")
    loop = make_loop(named("a"), named("b"))
    loop.components.disable("b")
    with pytest.raises(RunError, match=r"component 'a' .* TTL_DISABLE=a disables it"):
        loop.components.enable("b", "a")
    assert "" == call_order(loop)


def test_the_environment_overrules_the_end_of_a_block(set_disabled):
    """A block may name a component that TTL_DISABLE names; it stays disabled afterwards."""
    set_disabled("a")
    loop = make_loop(named("a"), named("b"))
    with loop.components.disabled("a", "b"):
        during = call_order(loop)
    assert ("", "b") == (during, call_order(loop))


def test_the_printed_list_names_the_environment(set_disabled):
    """print(loop.components) says why a component is disabled."""
    set_disabled("a")
    loop = make_loop(*map(named, "ab"))
    _, a, b, *_ = str(loop.components).splitlines()
    assert [True, False] == [line.endswith("disabled by TTL_DISABLE") for line in (a, b)]


def test_a_numbered_name_disables_one_of_two(set_disabled):
    """Of two components with the same name, name#2 disables only the second one."""
    set_disabled("a#2")
    components = make_loop(named("a"), named("a")).components
    assert [True, False] == [components.is_enabled(component) for component in components]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("extra", [False, False, False]),
        ("mine", [True, False, True]),
        ("extra#2", [True, True, False]),
    ],
    ids=["entry point", "own name", "number"],
)
def test_the_name_of_an_entry_point_disables_all_instances(set_disabled, extra, value, expected):
    """TTL_DISABLE takes names in the list, and those of entry points for all made from them."""
    set_disabled(value)
    components = make_loop(extra, use(extra, name="mine"), extra).components
    assert ["extra", "mine", "extra#2"] == components.names()
    assert expected == [components.is_enabled(component) for component in components]


@pytest.mark.parametrize("value", ["ttl-extra/extra", "Ttl_Extra/extra"])
def test_a_name_with_its_distribution_disables_a_component(set_disabled, extra, value):
    """TTL_DISABLE takes what use() takes, and does not say that it is not installed."""
    set_disabled(value)
    loops = []
    assert [] == warnings_of(lambda: loops.append(make_loop(extra, named("extra"))))
    assert [False, True] == [loops[0].components.is_enabled(c) for c in loops[0].components]
    assert [] == warnings_of(lambda: make_loop(named("a")))


def test_a_name_of_another_distribution_is_warned_of(set_disabled, extra):
    """It disables nothing."""
    set_disabled("other/extra")
    with pytest.warns(UserWarning, match="TTL_DISABLE names 'other/extra', which is neither"):
        assert make_loop(extra).components.is_enabled(extra)


def test_a_requirement_that_the_environment_disables_is_refused_at_once(set_disabled):
    """A loop in which a component requires one that TTL_DISABLE names cannot be made."""
    set_disabled("a")
    with pytest.raises(RequirementError, match="TTL_DISABLE"):
        make_loop(named("a"), make_component(name="x", requires="a"))


def test_a_component_that_the_environment_disables_requires_nothing(set_disabled):
    """What a component requires may be absent if TTL_DISABLE names the component."""
    set_disabled("x")
    assert "b" == call_order(make_loop(named("b"), make_component(name="x", requires="a")))


def test_an_unknown_name_is_warned_of_once(set_disabled):
    """A misspelled name is warned of at the user's line, and not again by the next loop."""
    set_disabled("alpah")
    with pytest.warns(UserWarning, match="TTL_DISABLE") as caught:
        loops = [TrainTestLoop(torch.nn.Identity(), [named("alpha")]) for _ in range(2)]
    assert ["alpha", "alpha"] == [call_order(loop) for loop in loops]
    expected = (
        "TTL_DISABLE names 'alpah', which is neither installed nor in the loop. "
        "Did you mean 'alpha'? "
    )
    assert [expected.strip()] == [str(warning.message).strip() for warning in caught]
    assert [__file__] == [warning.filename for warning in caught]


def test_each_unknown_name_is_warned_of(set_disabled):
    """Two misspelled names give two warnings."""
    set_disabled("unknown-1,a,unknown-2")
    with pytest.warns(UserWarning, match="TTL_DISABLE") as caught:
        make_loop(named("a"))
    found = [str(warning.message).split("'")[1] for warning in caught]
    assert ["unknown-1", "unknown-2"] == found


def test_a_name_that_is_installed_but_not_in_the_loop_is_no_error(set_disabled, extra):
    """TTL_DISABLE may name a component that only another program has in its loop."""
    set_disabled(extra)
    loops = []
    assert [] == warnings_of(lambda: loops.append(make_loop(named("a"))))
    assert "a" == call_order(loops[0])


@pytest.mark.parametrize("value", [None, "", " , ", "a"], ids=repr)
def test_the_environment_costs_no_scan(set_disabled, monkeypatch, value):
    """Without TTL_DISABLE, and if all that it names is in the loop, nothing is scanned.

    A loop of hand-made components, its edits and its runs need no discovery.
    """
    monkeypatch.delenv("TTL_DISABLE", raising=False)
    if value is not None:
        set_disabled(value)
    monkeypatch.setattr(scanning, "_newest_scan", None)
    loop = make_loop(*map(named, "ab"))
    loop.components.disable("b")
    loop.components.append(named("c"))
    loop.components = loop.components[:]
    loop.train(1)
    assert scanning._newest_scan is None
