"""disable(), enable() and disabled(): by name or component, at the same position and state."""

from __future__ import annotations

import pytest
from loops import MainLoop, call_order, make_component, make_loop, named

from ttl_core import DuplicateComponentError, LoopComponent, RequirementError, UnknownNameError


def test_a_disabled_component_is_not_called(loop):
    """disable() takes any number of names and components."""
    loop.components.disable("a", loop.components[2])
    assert "bd" == call_order(loop)


def test_a_disabled_component_stays_in_the_list(loop):
    """disable() changes neither position nor name."""
    loop.components.disable("a")
    assert list("abcd") == loop.components.names()


def test_an_enabled_component_is_called_at_its_old_position(loop):
    """enable() is the opposite of disable()."""
    loop.components.disable("b")
    call_order(loop)
    loop.components.enable("b")
    assert "abcd" == call_order(loop)


def test_a_disabled_component_moves_like_any_other(loop):
    """A component that was moved while disabled is enabled at its new position."""
    loop.components.disable("a")
    loop.components.reverse()
    loop.components.enable("a")
    assert "dcba" == call_order(loop)


def test_is_enabled_takes_a_name_or_a_component(components):
    """is_enabled() tells whether a component is enabled, by name or by itself."""
    components.disable("a")
    assert [False, True] == [components.is_enabled("a"), components.is_enabled(components[1])]


def test_disabling_takes_effect_at_the_next_hook_call():
    """The call in which a component is disabled still reaches it."""
    loop = make_loop(
        make_component(on_batch_end=lambda loop: loop.components.disable("a")), named("a")
    )
    assert ("a", "") == (call_order(loop), call_order(loop))


def test_swapping_by_name_is_refused_if_a_name_becomes_ambiguous():
    """In the middle of a swap, a name that is in the list twice is an error."""
    loop = make_loop(MainLoop(), LoopComponent())
    components = loop.components
    with pytest.raises(DuplicateComponentError, match="use indices, or move"):
        components["main-loop"], components["loop-component"] = components[1], components[0]


def test_enabled_components_are_called_at_their_old_positions(loop):
    """Each component is called where it was before, in whatever order they are enabled."""
    loop.components.disable("a", "c", "d")
    without = call_order(loop)
    loop.components.enable("d", "a")
    with_some = call_order(loop)
    loop.components.enable("c")
    assert ("b", "abd", "abcd") == (without, with_some, call_order(loop))


def test_an_enabled_component_has_its_old_state():
    """The component is the same object, and was not called while it was disabled."""
    calls = []
    a = make_component(name="a", on_batch_end=lambda: calls.append(1) or "a")
    loop = make_loop(a)
    for toggle in loop.components.disable, loop.components.enable:
        call_order(loop)
        toggle("a")
    call_order(loop)
    assert a is loop.components["a"]
    assert 2 == len(calls)


def test_disabling_twice_is_disabling_once(loop):
    """disable() and enable() set a state and do not count."""
    loop.components.disable("a", "a")
    loop.components.disable("a")
    loop.components.enable("a")
    assert "abcd" == call_order(loop)


def test_numbered_names_are_disabled_separately():
    """Each of two components with the same name can be disabled."""
    components = make_loop(named("a"), named("a")).components
    components.disable("a#2")
    assert [True, False] == [components.is_enabled(name) for name in components.names()]


@pytest.mark.parametrize(
    "toggle",
    [
        lambda c: c.enable("x"),
        lambda c: c.disable("a", "x"),
        lambda c: c.is_enabled("x"),
        lambda c: c.disabled("a", "x").__enter__(),
    ],
    ids=["enable", "disable", "is_enabled", "disabled"],
)
def test_an_unknown_name_is_explained(loop, toggle):
    """The error has the unknown name and those in the list, and nothing is changed."""
    with pytest.raises(UnknownNameError, match=r"no component 'x' is in the list. It holds: a, b"):
        toggle(loop.components)
    assert "abcd" == call_order(loop)


# -- disabled() -----------------------------------------------------------------------------


def test_components_can_be_disabled_for_a_block(loop):
    """disabled() disables components for the length of a block."""
    with loop.components.disabled("a", "b"):
        during = call_order(loop)
    assert ("cd", "abcd") == (during, call_order(loop))


def test_components_are_enabled_again_when_a_block_fails(loop):
    """disabled() enables its components again on exceptions."""
    with pytest.raises(ZeroDivisionError), loop.components.disabled("a"):
        raise ZeroDivisionError
    assert "abcd" == call_order(loop)


def test_what_was_disabled_before_a_block_stays_disabled(loop):
    """disabled() enables nothing that it has not disabled."""
    loop.components.disable("a")
    with loop.components.disabled("a", "b"):
        pass
    assert "bcd" == call_order(loop)


def test_a_component_that_was_removed_in_a_block_is_enabled_when_it_is_added_again(loop):
    """disabled() ends without an error after its component was removed."""
    with loop.components.disabled("a"):
        a = loop.components.pop("a")
        call_order(loop)
    loop.components.append(a)
    assert "bcda" == call_order(loop)


def test_blocks_can_be_nested(loop):
    """What an outer block has disabled stays disabled when an inner one ends."""
    seen = []
    with loop.components.disabled("a"):
        with loop.components.disabled("a", "b"):
            seen.append(call_order(loop))
        seen.append(call_order(loop))
    seen.append(call_order(loop))
    assert ["cd", "bcd", "abcd"] == seen


def test_nested_blocks_that_fail_enable_their_components(loop):
    """The exception passes through nested blocks unchanged, and each block ends."""
    with (
        pytest.raises(ZeroDivisionError, match="mine"),
        loop.components.disabled("a"),
        loop.components.disabled("b"),
    ):
        raise ZeroDivisionError("mine")
    assert "abcd" == call_order(loop)


def test_a_block_takes_components(loop):
    """disabled() takes names and components."""
    with loop.components.disabled(loop.components[0], "b"):
        during = call_order(loop)
    assert ("cd", "abcd") == (during, call_order(loop))


def test_a_component_may_be_enabled_inside_its_block(loop):
    """Inside a block, enable() works as outside."""
    with loop.components.disabled("a"):
        loop.components.enable("a")
        assert "abcd" == call_order(loop)
    assert "abcd" == call_order(loop)


def test_a_component_may_be_removed_inside_its_block(loop):
    """A block ends without an error after its component was removed."""
    with loop.components.disabled("a"):
        del loop.components["a"]
        call_order(loop)
    assert "bcd" == call_order(loop)


def test_a_list_may_be_assigned_inside_a_block(loop):
    """The component is enabled at the end also in a list that was assigned inside the block."""
    with loop.components.disabled("a"):
        loop.components = loop.components[::-1]
        during = call_order(loop)
    assert ("dcb", "dcba") == (during, call_order(loop))


def test_a_component_that_joins_inside_a_block_is_enabled(loop):
    """A block disables the components that it names, and no others."""
    with loop.components.disabled("a"):
        loop.components.append(named("x"))
        assert "bcdx" == call_order(loop)


def test_a_block_cannot_end_without_what_its_component_requires():
    """A component stays disabled if what it requires was removed in the block."""
    loop = make_loop(
        named("a"), make_component(name="x", requires="a", on_batch_end=lambda loop: "x")
    )
    block = loop.components.disabled("x")
    block.__enter__()
    del loop.components["a"]
    with pytest.raises(RequirementError, match=r"'x' .* requires 'a'"):
        block.__exit__(None, None, None)
    assert "" == call_order(loop)


def test_a_component_may_be_disabled_for_one_validation():
    """A block around validate() inside a run affects that validation only."""
    phases = []

    def validate(loop):
        if loop.is_training:
            with loop.components.disabled("a"):
                loop.validate()

    loop = make_loop(
        make_component(name="a", on_batch_end=lambda loop: phases.append(loop.epoch_desc)),
        make_component(on_batch_end=validate),
        train_data=(0, 1),
    )
    loop.train(1)
    assert ["train", "train", "valid"] == phases
