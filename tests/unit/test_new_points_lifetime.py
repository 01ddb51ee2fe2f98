"""Callback points of components: they exist as long as a provider is in the list."""

from __future__ import annotations

import pytest
from acme import Acme, make_provider, providing, report, reporting, returning
from loops import make_component, make_loop

from ttl_core import ComponentRejectedError, LoopComponent, hookimpl


@pytest.mark.parametrize("has_been_called", [True, False])
def test_loop_hook_stays_one_object_and_sees_edits(has_been_called):
    """A saved loop.hook calls the components that are in the list now."""
    loop = make_loop(Acme(), reporting("a"))
    hook = loop.hook
    if has_been_called:
        report(loop)
    loop.components.append(reporting("b"))
    added = hook.acme_report(loop=loop, x=1)
    loop.components.move("b", before="a")
    loop.components.disable("a")
    assert hook is loop.hook
    assert (["a1", "b1"], ["b1"]) == (added, hook.acme_report(loop=loop, x=1))


def test_points_exist_as_soon_as_a_provider_joins():
    """A point can be called as soon as its provider is in the list."""
    loop = make_loop()
    assert not hasattr(loop.hook, "acme_choose")
    loop.components.extend([returning(3), Acme()])
    assert 3 == loop.hook.acme_choose(loop=loop)


def test_points_exist_until_the_last_provider_is_removed():
    """A point that no component provides any more cannot be called."""
    loop = make_loop(Acme(), Acme())
    for expected in (True, True, False):
        assert expected == hasattr(loop.hook, "acme_report")
        if loop.components:
            loop.components.pop()


def test_several_instances_of_one_provider_provide_one_point():
    """Each implementation is called once, whatever the number of providers."""
    loop = make_loop(Acme(), reporting("a"), Acme(), Acme())
    assert "a1" == report(loop)
    del loop.components["acme"], loop.components["acme#3"]
    assert "a1" == report(loop)


def test_a_disabled_provider_still_provides_its_points():
    """Only the implementations of a disabled provider are not called."""
    own = make_provider(acme_report=hookimpl(lambda self: "own"))
    loop = make_loop(own, reporting("a"))
    loop.components.disable("acme")
    off = report(loop)
    loop.components.append(reporting("b"))
    assert ("a1", "a1 b1") == (off, report(loop))


REMOVALS = {
    "del": lambda loop: loop.components.__delitem__("acme"),
    "pop": lambda loop: loop.components.pop("acme"),
    "replace": lambda loop: loop.components.__setitem__("acme", LoopComponent()),
    "assign": lambda loop: setattr(loop, "components", loop.components[1:]),
}


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS.keys())
@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_provider_stays_while_others_implement_its_points(remove, is_enabled):
    """Removing it is an error that names the implementing component, and changes nothing."""
    loop = make_loop(Acme(), reporting("a"))
    if not is_enabled:
        loop.components.disable("a")
    with pytest.raises(ComponentRejectedError, match=r"'acme' .* cannot be removed: it provides"):
        remove(loop)
    assert ["acme", "a"] == loop.components.names()
    assert ("a1" if is_enabled else "") == report(loop)


def test_a_provider_may_be_removed_together_with_the_implementations_of_its_points():
    """Implementations are checked in the list that an edit leaves."""
    loop = make_loop(Acme(), reporting("a"), LoopComponent())
    del loop.components[:2]
    assert ["loop-component"] == loop.components.names()
    assert not hasattr(loop.hook, "acme_report")


def test_an_optional_implementation_waits_for_its_provider():
    """With optionalhook, an implementation is called whenever there is a provider."""
    optional = make_component(acme_report=hookimpl(optionalhook=True)(lambda x: f"optional{x}"))
    loop = make_loop(optional)
    assert not hasattr(loop.hook, "acme_report")
    for _ in range(2):
        loop.components.append(Acme())
        assert "optional1" == report(loop)
        loop.components.remove("acme")
        assert not hasattr(loop.hook, "acme_report")


def test_core_points_are_not_affected_by_a_provider_that_joins_in_a_run(recorder):
    """A provider that joins and is removed in a run changes no core point."""
    join, leave = (
        make_component(on_epoch_begin=lambda loop: loop.components.append(Acme())),
        make_component(on_epoch_end=lambda loop: loop.components.remove("acme")),
    )
    make_loop(recorder).train(1)
    expected = list(recorder.points)
    recorder.points.clear()
    make_loop(join, recorder, leave).train(1)
    assert expected == recorder.points


def test_points_of_two_providers_are_independent():
    """The points of one provider stay when another provider is removed."""
    loop = make_loop(Acme(), providing("other_ask", "other"), reporting("a"))
    report(loop)
    del loop.components["other"]
    assert "a1" == report(loop)
    assert not hasattr(loop.hook, "other_ask")
