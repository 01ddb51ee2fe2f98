"""loop.explain(): which implementations a point calls, in which order, and why."""

from __future__ import annotations

import pytest
from loops import implementing, make_loop

from ttl_core import DuplicateComponentError, LoopComponent, UnknownPointError, hookimpl

OPTIONS = {
    "wrapper": {"wrapper": True},
    "wrapper-first": {"wrapper": True, "tryfirst": True},
    "wrapper-last": {"wrapper": True, "trylast": True},
    "first": {"tryfirst": True},
    "last": {"trylast": True},
}
"""The options of the implementations of components, by name; those of other names have none."""


def part(name, point="on_batch_end"):
    """Return a component whose implementation has the options of its name."""
    return implementing(name, point, **OPTIONS.get(name, {}))


def names_in(text):
    """Return the names of the components in an explanation, in order."""
    return [line.split()[1] for line in text.splitlines()[1:]]


def test_explain_gives_the_reasons(configurable):
    """Each line has component, distribution, version, and what decides the position."""
    loop = make_loop(
        *(part(name, "on_epoch_end") for name in ["last", "off", "wrapper-last", "first"]),
        configurable,
    )
    loop.components.disable("off")
    expected = """\
on_epoch_end
  1  wrapper-last  loops.Part              position 2, wrapper, trylast
  2  first         loops.Part              position 3, tryfirst
  3  configurable  ttl-configurable 1.2.3  position 4
  4  last          loops.Part              position 0, trylast"""
    assert expected == loop.explain("on_epoch_end")


NAMES = ["a", "last", "wrapper-last", "first", "wrapper", "b", "wrapper-first", "c"]


@pytest.mark.parametrize("shift", range(len(NAMES)))
@pytest.mark.parametrize("off", [(), ("a", "wrapper"), ("first", "last", "b")], ids=str)
def test_explain_gives_the_order_of_the_next_call(shift, off):
    """The explained order is the order of the next call, at every position in the list."""
    loop = make_loop(*map(part, NAMES[shift:] + NAMES[:shift]))
    loop.components.disable(*off)
    loop.called = []
    explained = names_in(loop.explain("on_batch_end"))
    loop.hook.on_batch_end(loop=loop)
    assert [component.name for component in loop.called] == explained
    assert len(NAMES) - len(off) == len(explained)


def test_explain_follows_edits():
    """The present list is explained."""
    loop = make_loop(part("a"), part("b"))
    before = names_in(loop.explain("on_batch_end"))
    loop.components.move("b", before="a")
    loop.components.append(part("first"))
    assert ["a", "b"] == before
    assert ["first", "b", "a"] == names_in(loop.explain("on_batch_end"))


def test_explain_without_a_point_is_that_of_all_implemented_points():
    """Without a point, all points that a component implements are explained."""
    loop = make_loop(part("a"), part("b", "on_log"), part("wrapper", "around_run"))
    points = ["around_run", "on_batch_end", "on_log"]
    assert "\n\n".join(map(loop.explain, points)) == loop.explain()


def test_explain_of_a_point_without_implementations_says_so():
    """A point that no component implements is explained as such."""
    assert "on_log\n  not implemented" == make_loop(part("a")).explain("on_log")


def test_explain_of_disabled_components_is_not_that_of_an_empty_list():
    """A list of components that are all disabled is not an empty list."""
    loop = make_loop(part("a"))
    loop.components.disable("a")
    assert "no components" != loop.explain()


def test_explain_of_an_unknown_point_suggests_the_nearest():
    """A misspelled point is an error with a suggestion and all points."""
    with pytest.raises(UnknownPointError) as caught:
        make_loop(part("a")).explain("on_batch_edn")
    text = str(caught.value)
    assert text.startswith("'on_batch_edn' is not a callback point. Did you mean 'on_batch_end'? ")
    assert "on_train_begin" in text


def test_explain_of_a_list_that_cannot_be_called_is_an_error():
    """If there is no order of calls, explain() raises the error of the call."""
    loop = make_loop(part("a"))
    loop.components.append(loop.components[0])
    with pytest.raises(DuplicateComponentError):
        loop.explain("on_batch_end")


class InScript(LoopComponent):
    """A component that is defined in a user's script."""

    __module__ = "__main__"

    def __init__(self, name):
        self.name = name

    def on_batch_end(self, loop):
        pass


class Autocast(InScript):
    """A wrapper that is defined in a user's script."""

    __module__ = "__main__"

    @hookimpl(wrapper=True, tryfirst=True)
    def on_batch_end(self, loop):
        return (yield)


@pytest.mark.parametrize("n_components", [3, 10])
def test_lines_are_readable_at_80_columns(configurable, n_components):
    """With usual names, neither the printed list nor an explanation needs a wide terminal."""
    names = [
        *("main-loop", "mixed-precision", "early-stopping", "checkpoint", "lr-scheduler"),
        *("grad-clip", "tensorboard", "ema", "metrics", "progress"),
    ]
    loop = make_loop(configurable, Autocast("amp"), *map(InScript, names[:n_components]))
    text = f"{loop.components}\n{loop.explain()}"
    assert [] == [line for line in text.splitlines() if len(line) > 80]
