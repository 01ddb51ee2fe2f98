"""print(loop.components): what is in the list, from which package, and the order of calls."""

from __future__ import annotations

import re

from loops import implementing, make_component, make_loop


def test_a_printed_list_shows_positions_origins_and_the_order_of_each_point(configurable):
    """print(loop.components) shows what is in the list, from where, and the order of calls."""
    loop = make_loop(
        implementing("last", trylast=True),
        implementing("off"),
        configurable,
        implementing("wrapper", wrapper=True),
        implementing("first", tryfirst=True),
        implementing("b", "on_log"),
    )
    loop.components.disable("off")
    expected = """\
 #  component     from
 0  last          loops.Part
 1  off           loops.Part              disabled
 2  configurable  ttl-configurable 1.2.3
 3  wrapper       loops.Part
 4  first         loops.Part
 5  b             loops.Part

on_batch_end  wrapper (wrapper), first (tryfirst), last (trylast)
on_epoch_end  configurable
on_log        b"""
    assert expected == str(loop.components)


def test_an_empty_list_says_so():
    """An empty list is printed and explained as such."""
    loop = make_loop()
    assert ("no components", "no components") == (str(loop.components), loop.explain())


def test_a_list_without_calls_shows_its_components():
    """If no component implements a point, only the components are printed."""
    loop = make_loop(make_component())
    expected = " #  component  from\n 0  part       loops.Part"
    assert expected == str(loop.components)


def test_a_list_that_cannot_be_called_is_printed_with_the_reason():
    """A list with an error can still be printed."""
    loop = make_loop(implementing("a"), implementing("b"))
    loop.components.append(loop.components[0])
    *rows, empty, reason = str(loop.components).splitlines()
    assert ["#", "0", "1", "2"] == [row.split()[0] for row in rows]
    assert "" == empty
    assert reason.startswith("component 'a'")
    assert "is in the list twice" in reason


def test_points_are_listed_in_firing_order():
    """Points are printed in the order in which the loop calls them."""
    points = ["on_train_end", "on_epoch_begin", "on_batch_end", "on_train_begin"]
    loop = make_loop(*(implementing(f"a{i}", point) for i, point in enumerate(points)))
    expected = ["on_train_begin", "on_epoch_begin", "on_batch_end", "on_train_end"]
    printed = str(loop.components).split("\n\n")[1]
    assert expected == [line.split()[0] for line in printed.splitlines()]
    assert expected == re.findall(r"^\w+", loop.explain(), flags=re.MULTILINE)
