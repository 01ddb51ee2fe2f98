"""The order of calls at one point: wrappers, tryfirst, plain and trylast, and in each the list."""

from __future__ import annotations

import pytest
from loops import implementing, make_loop

FIRST, LAST, WRAPPER = {"tryfirst": True}, {"trylast": True}, {"wrapper": True}
KINDS = [{}, FIRST, LAST, WRAPPER, FIRST | WRAPPER, LAST | WRAPPER]


def make_loop_of(**options):
    """Return a loop of components, given the options of their implementations by name."""
    return make_loop(*(implementing(name, **given) for name, given in options.items()))


def call(loop):
    """Return the names of the components that are called, in order."""
    loop.called = []
    loop.hook.on_batch_end(loop=loop)
    return [component.name for component in loop.called]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_implementations_of_one_kind_keep_the_order_of_the_list(options):
    """Among implementations with the same options, the list decides."""
    assert ["a", "b", "c"] == call(make_loop_of(a=options, b=options, c=options))


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_implementations_of_one_kind_follow_the_list_when_it_is_reversed(options):
    """Among implementations with the same options, the list decides after an edit too."""
    loop = make_loop_of(a=options, b=options, c=options)
    call(loop)
    loop.components.reverse()
    assert ["c", "b", "a"] == call(loop)


def test_tryfirst_is_called_before_and_trylast_after_the_plain_ones():
    """The options tryfirst and trylast overrule the list."""
    assert ["first", "plain", "last"] == call(make_loop_of(last=LAST, plain={}, first=FIRST))


def test_wrappers_are_called_before_all_others():
    """A wrapper surrounds the tryfirst implementations too."""
    assert ["wrapper", "first"] == call(make_loop_of(first=FIRST, wrapper=WRAPPER | LAST))


def test_among_wrappers_tryfirst_is_outermost_and_trylast_innermost():
    """The options tryfirst and trylast order wrappers among themselves."""
    loop = make_loop_of(last=WRAPPER | LAST, wrapper=WRAPPER, first=WRAPPER | FIRST)
    assert ["first", "wrapper", "last"] == call(loop)
