"""Order by name: hints of authors, add, arrange, move, and what a component requires."""

from __future__ import annotations

import re
import sys

import pytest
import torch

from ttl_core import (
    ArgumentError,
    ComponentRejectedError,
    LoopComponent,
    OrderCycleError,
    OrderWarning,
    RequirementError,
    TrainTestLoop,
    TTLError,
    UnknownNameError,
    arrange,
    hookimpl,
    use,
)

SOURCE = """
from ttl_core import LoopComponent

class Ordered(LoopComponent):
    after = "first"

    def __init__(self, **config):
        raise RuntimeError("nobody was to make one")
"""


def part(name, **hints):
    """Return a component with hints on its class, that says its name when it is called."""
    body = {"name": name, "on_batch_end": lambda self, loop: self.name, **hints}
    return type("Part", (LoopComponent,), body)()


def loop_of(*components):
    """Return a loop; what it warns of is the fault of the line that calls this."""
    return TrainTestLoop(torch.nn.Identity(), components)


def called(loop):
    """Return who is called at the next hook call, as one word."""
    return "".join(loop.hook.on_batch_end(loop=loop))


def told(action):
    """Return the OrderWarnings that an action gives."""
    with pytest.warns(OrderWarning) as caught:
        action()
    return [str(warning.message) for warning in caught]


@pytest.fixture
def ordered(tmp_path, monkeypatch):
    """Install a component `ordered` that comes after `first` and cannot be made."""
    info = tmp_path / "ttl_ordered-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ttl-ordered\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ttl.components]\nordered = ttl_ordered:Ordered\n")
    (tmp_path / "ttl_ordered.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("ttl_core.discovery.scanning._newest_scan", None)
    yield "ordered"
    sys.modules.pop("ttl_ordered", None)


# -- hints and a user's list ----------------------------------------------------------------


@pytest.mark.parametrize(
    "components",
    [
        [part("a", after="b"), part("b")],
        [part("a"), part("b", before="a")],
        [part("a", after=("x", "b")), part("b", before=["a", "x"])],
    ],
    ids=["after", "before", "both"],
)
def test_hints_never_reorder_what_a_user_listed(components):
    """The user is the referee: a list that contradicts hints is called as it was written."""
    with pytest.warns(OrderWarning):
        loop = loop_of(*components)
    assert "ab" == called(loop)


def test_a_warning_names_both_sides_and_the_mend():
    """Whoever reads the warning knows who stands where, who objects, and what to write."""
    (text,) = told(lambda: loop_of(part("bar", after="sums"), part("sums")))
    expected = (
        f"'bar' stands before 'sums', but component 'bar' (class {__name__}.Part) declares "
        "after='sums'. If that was not meant, write loop.components.move('sums', before='bar'), "
        "or arrange([...]) around the list"
    )
    assert expected == text


@pytest.mark.parametrize(
    "components",
    [
        [part("a", after="c"), part("b"), part("c")],
        [part("a"), part("b"), part("c", before="a")],
    ],
    ids=["after", "before"],
)
def test_the_mend_of_a_warning_mends(components):
    """The statement that a warning offers ends the contradiction."""
    loops = []
    (text,) = told(lambda: loops.append(loop_of(*components)))
    eval(re.search(r"loop\.components\.move\(.*?\)", text)[0], {"loop": loops[0]})
    assert "cab" == called(loops[0])


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ([part("a", after="b"), part("b", before="a")], 1),
        ([part("a", after=("b", "c")), part("b"), part("c")], 2),
        ([part("a", after="b"), part("b"), part("b")], 2),
        ([part("a", after="b"), part("a", after="b"), part("b")], 2),
    ],
    ids=["both sides declare it", "two others", "two instances", "two who declare it"],
)
def test_each_pair_is_warned_of_once(components, expected):
    """One pair gives one warning, whoever declares it."""
    assert expected == len(told(lambda: loop_of(*components)))


def test_a_pair_is_not_warned_of_again():
    """Neither later edits nor a list that is assigned repeat a warning."""
    a, b = part("a", after="b"), part("b")
    with pytest.warns(OrderWarning):
        loop = loop_of(a, b)
    loop.components.append(part("c"))
    loop.components.move("a", after="b")
    loop.components.reverse()
    loop.components = [a, b]
    assert "ab" == called(loop)


def test_each_loop_has_its_own_warnings():
    """A second loop with the same contradiction is told of it too."""
    for _ in range(2):
        assert 1 == len(told(lambda: loop_of(part("a", after="b"), part("b"))))


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.reverse(),
        lambda c: c.append(c.pop("b")),
        lambda c: c.insert(2, c.pop("b")),
        lambda c: c.insert("c", c.pop("b")),
        lambda c: c.extend([c.pop("b")]),
        lambda c: c.sort(key=lambda component: component.name),
        lambda c: c.move("b", after="a"),
        lambda c: c.__setitem__(slice(None), [c["a"], c["b"]]),
        lambda c: c.add(part("x", after="y", before="b")) or c.append(part("y")),
    ],
    ids=["reverse", "append", "insert", "by name", "extend", "sort", "move", "slice", "add"],
)
def test_every_edit_that_contradicts_a_hint_is_warned_of(edit):
    """Whichever operation brings a contradiction, it is told at the user's line."""
    components = loop_of(part("b"), part("a", after="b"), part("c")).components
    with pytest.warns(OrderWarning) as caught:
        edit(components)
    assert [__file__] == [warning.filename for warning in caught]


def test_a_loop_that_contradicts_a_hint_is_warned_of_where_it_is_made():
    """The warning points at the line of the user that makes the loop."""
    line = sys._getframe().f_lineno + 2
    with pytest.warns(OrderWarning) as caught:
        TrainTestLoop(torch.nn.Identity(), [part("a", after="b"), part("b")])
    assert [(__file__, line)] == [(warning.filename, warning.lineno) for warning in caught]


def test_a_list_that_contradicts_a_hint_is_warned_of_where_it_is_assigned():
    """The warning points at the line of the user that assigns the list."""
    loop = loop_of()
    line = sys._getframe().f_lineno + 2
    with pytest.warns(OrderWarning) as caught:
        loop.components = [part("a", after="b"), part("b")]
    assert [(__file__, line)] == [(warning.filename, warning.lineno) for warning in caught]


@pytest.mark.parametrize("hint", ["after", "before"])
@pytest.mark.parametrize("names", ["absent", "a", ["absent", "a"]], ids=repr)
def test_absent_names_and_ones_own_are_ignored(hint, names):
    """A hint on somebody who is not there says nothing, nor does one on the component itself."""
    assert "aab" == called(loop_of(part("a", **{hint: names}), part("a"), part("b")))


def test_hints_that_a_list_respects_give_no_warning():
    """An order that everybody wants is left alone."""
    assert "abc" == called(loop_of(part("a", before="c"), part("b", after="a"), part("c")))


@pytest.mark.parametrize("kind", [str, list, tuple, set, frozenset])
def test_hints_are_a_name_or_several(kind):
    """One name needs no brackets, and several come in any collection."""
    names = "b" if kind is str else kind(["b"])
    assert 1 == len(told(lambda: loop_of(part("a", after=names), part("b"))))


@pytest.mark.parametrize("hint", ["after", "before", "requires"])
@pytest.mark.parametrize("value", ["Not A Name", "", "a#2", "dist/a", ["a", 3], 5], ids=repr)
def test_hints_that_are_no_names_are_refused(hint, value):
    """A hint that could never match is an error that says who declared it, and what."""
    with pytest.raises(ComponentRejectedError, match=rf"'a' .* {hint}={re.escape(repr(value))}"):
        loop_of(part("a", **{hint: value}))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "cba"),
        ({"tryfirst": True}, "cba"),
        ({"trylast": True}, "cba"),
        ({"wrapper": True}, "cba"),
        ({"wrapper": True, "trylast": True}, "cba"),
    ],
    ids=str,
)
def test_implementations_of_one_kind_follow_the_list_when_it_is_turned_round(options, expected):
    """Within wrappers, tryfirst and trylast the list decides, after an edit as before it."""
    order = []

    def plain(self, loop):
        order.append(self.name)

    def wrapper(self, loop):
        order.append(self.name)
        return (yield)

    method = hookimpl(**options)(wrapper if "wrapper" in options else plain)
    loop = loop_of(*(part(name, on_batch_end=method) for name in "abc"))
    called(loop)
    loop.components.reverse()
    order.clear()
    called(loop)
    assert expected == "".join(order)


# -- add ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newcomer", "expected"),
    [
        (part("x"), "abcx"),
        (part("x", after="a"), "abcx"),
        (part("x", before="absent"), "abcx"),
        (part("x", before="b"), "axbc"),
        (part("x", before=("c", "b")), "axbc"),
        (part("x", after="a", before="c"), "abxc"),
        (part("y"), "aybc"),
        (part("y", before="c"), "aybc"),
        (part("y", before="a"), "yabc"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_add_chooses_the_place_by_the_hints(newcomer, expected):
    """Add puts a component before the first one that has to come after it, else at the end."""
    loop = loop_of(part("a"), part("b", after="y"), part("c"))
    loop.components.add(newcomer)
    assert expected == called(loop)


def test_add_stands_before_every_instance_that_it_has_to_precede():
    """Of several instances of one name the first one counts."""
    loop = loop_of(part("a"), part("b"), part("a"))
    loop.components.add(part("x", before="a"))
    assert "xaba" == called(loop)


def test_add_warns_where_no_place_will_do():
    """Where the list leaves no right place, what has to come after the newcomer does."""
    loop = loop_of(part("a"), part("b"))
    (text,) = told(lambda: loop.components.add(part("x", before="a", after="b")))
    assert "xab" == called(loop)
    assert text.startswith("'x' stands before 'b', but component 'x'")


def test_a_refused_add_changes_nothing():
    """What is no component does not enter."""
    loop = loop_of(part("a"))
    with pytest.raises(ComponentRejectedError):
        loop.components.add(5)
    assert "a" == called(loop)


# -- move, and places by name ---------------------------------------------------------------


@pytest.fixture
def loop():
    """Return a loop of the components a, b, c and d."""
    return loop_of(*map(part, "abcd"))


@pytest.mark.parametrize(
    ("item", "beside", "expected"),
    [
        ("a", {"before": "d"}, "bcad"),
        ("a", {"after": "d"}, "bcda"),
        ("d", {"before": "a"}, "dabc"),
        ("d", {"after": "a"}, "adbc"),
        ("b", {"before": "c"}, "abcd"),
        ("b", {"after": "a"}, "abcd"),
    ],
)
@pytest.mark.parametrize("by", ["name", "component"])
def test_move_puts_a_component_beside_another(loop, item, beside, expected, by):
    """Move takes names or components, and leaves the others in their order."""
    if by == "component":
        item = loop.components[item]
        beside = {side: loop.components[name] for side, name in beside.items()}
    loop.components.move(item, **beside)
    assert expected == called(loop)


def test_a_moved_component_keeps_its_name():
    """Of two with the same name, the numbers stay with the components."""
    components = loop_of(part("a"), part("a")).components
    components.move("a#2", before="a")
    assert ["a#2", "a"] == components.names()


@pytest.mark.parametrize(
    ("item", "beside", "error", "problem"),
    [
        ("a", {}, ArgumentError, "exactly one of before= and after="),
        ("a", {"before": "b", "after": "c"}, ArgumentError, "exactly one of before= and after="),
        ("a", {"before": "a"}, ArgumentError, "'a' cannot be moved before or after itself"),
        ("a", {"after": "a"}, ArgumentError, "'a' cannot be moved before or after itself"),
        ("x", {"before": "a"}, UnknownNameError, "no component 'x' is in the list"),
        ("a", {"after": "x"}, UnknownNameError, "no component 'x' is in the list"),
    ],
)
def test_a_move_that_makes_no_sense_is_refused(loop, item, beside, error, problem):
    """A refused move says why and changes nothing."""
    with pytest.raises(error, match=problem):
        loop.components.move(item, **beside)
    assert "abcd" == called(loop)


def test_a_component_is_replaced_by_name(loop):
    """Assigning to a name puts the newcomer in the place of the old one."""
    loop.components["b"] = part("x")
    assert "axcd" == called(loop)


def test_a_component_is_inserted_before_a_name(loop):
    """Insert takes a name in place of an index."""
    loop.components.insert("b", part("x"))
    assert "axbcd" == called(loop)


# -- arrange --------------------------------------------------------------------------------


def arranged(*components):
    """Return the names of components in the order that arrange gives them, as one word."""
    return "".join(component.name for component in arrange(components))


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ([], ""),
        ([part("c"), part("a"), part("b")], "cab"),
        ([part("a", after="c"), part("b"), part("c"), part("d")], "bcad"),
        ([part("a"), part("b"), part("c", before="a"), part("d")], "bcad"),
        ([part("a", after="d"), part("b", after="a"), part("c"), part("d")], "cdab"),
        ([part("a", after="absent"), part("b", before="absent")], "ab"),
        ([part("a", after="b"), part("b"), part("b")], "bba"),
        ([part("a", after="a"), part("a", before="a")], "aa"),
        ([part("b", requires="a"), part("a")], "ba"),
    ],
    ids=[
        *("nothing", "no hints", "after", "before", "a chain", "absent names", "two instances"),
        *("its own name", "requires"),
    ],
)
def test_arrange_moves_only_who_has_to_move(components, expected):
    """Arrange follows after and before, and otherwise leaves the order alone."""
    assert expected == arranged(*components)


def test_arrange_returns_a_new_list_of_the_same_objects():
    """The list that was given stays as it was."""
    a, b = part("a", after="b"), part("b")
    given = [a, b]
    found = arrange(given)
    assert [id(b), id(a)] == [id(item) for item in found]
    assert [id(a), id(b)] == [id(item) for item in given]


def test_arrange_takes_any_iterable():
    """Items may come from an iterator."""
    assert "ba" == arranged(*iter([part("a", after="b"), part("b")]))


def test_arrange_keeps_names_and_specs_and_makes_nothing(ordered):
    """Names of installed components are looked up for their hints, and stay names."""
    spec, first = use(ordered, name="mine", rate=3), part("first")
    found = arrange([ordered, spec, first])
    assert [id(first), id(ordered), id(spec)] == [id(item) for item in found]


def test_arrange_looks_names_up():
    """A name that is not installed is an error."""
    with pytest.raises(UnknownNameError, match="no component 'not-there' is installed"):
        arrange(["not-there"])


@pytest.mark.parametrize("thing", [5, None, LoopComponent], ids=repr)
def test_arrange_refuses_what_is_no_component(thing):
    """What could not enter a list is an error that says so."""
    with pytest.raises(TTLError, match="component"):
        arrange([part("a"), thing])


def test_what_arrange_returns_gives_no_warning():
    """An arranged list contradicts nobody."""
    components = [part("a", after="b"), part("b", after="c"), part("c")]
    assert "cba" == called(loop_of(*arrange(components)))


@pytest.mark.parametrize(
    ("components", "steps"),
    [
        (
            [part("a", after="b"), part("b", after="a")],
            [
                "  'a' before 'b', as 'b' declares after='a'",
                "  'b' before 'a', as 'a' declares after='b'",
            ],
        ),
        (
            [part("a", before="b"), part("x"), part("b", before="c"), part("c", before="a")],
            [
                "  'a' before 'b', as 'a' declares before='b'",
                "  'b' before 'c', as 'b' declares before='c'",
                "  'c' before 'a', as 'c' declares before='a'",
            ],
        ),
        (
            [part("a", before="b", after="b"), part("b")],
            [
                "  'a' before 'b', as 'a' declares before='b'",
                "  'b' before 'a', as 'a' declares after='b'",
            ],
        ),
    ],
    ids=["two who come after each other", "three", "one who contradicts itself"],
)
def test_a_cycle_is_printed_edge_by_edge(components, steps):
    """Hints that contradict one another are an error that says who declared which."""
    with pytest.raises(OrderCycleError) as caught:
        arrange(components)
    first, *found, last = str(caught.value).splitlines()
    assert "the hints contradict one another:" == first
    assert steps == sorted(found)
    assert "Write the order that you want as a list, without arrange()" == last


def test_a_list_may_hold_a_cycle():
    """Only arrange needs an answer; a user's list of the same components is called."""
    loops = []
    told(lambda: loops.append(loop_of(part("a", after="b"), part("b", after="a"))))
    assert "ab" == called(loops[0])


# -- requires -------------------------------------------------------------------------------


def needed():
    """Return the component that `needer` requires."""
    return part("n")


def needer():
    """Return a component that requires another one."""
    return part("r", requires="n")


@pytest.fixture
def pair():
    """Return a loop of three components, of which `r` requires `n`."""
    return loop_of(needed(), part("x"), needer())


def test_a_loop_without_what_is_required_is_refused():
    """The error names who requires whom and the two ways out."""
    with pytest.raises(RequirementError) as caught:
        loop_of(needer())
    expected = (
        f"component 'r' (class {__name__}.Part) requires 'n', which is not in the list. "
        "Put 'n' in, or take 'r' out first"
    )
    assert expected == str(caught.value)


def test_a_component_is_refused_where_what_it_requires_is_absent():
    """It may join as soon as the other one is there."""
    loop, late = loop_of(part("x")), needer()
    with pytest.raises(RequirementError, match=r"'r' .* requires 'n', which is not in the list"):
        loop.components.append(late)
    assert "x" == called(loop)
    loop.components.extend([late, needed()])
    assert "xrn" == called(loop)


def test_a_component_is_refused_where_what_it_requires_is_disabled():
    """What is off is as good as absent, and the error says how to mend that."""
    loop = loop_of(needed())
    loop.components.disable("n")
    with pytest.raises(RequirementError, match=r"requires 'n', which is disabled. Enable 'n', or"):
        loop.components.append(needer())
    assert ["n"] == loop.components.names()


def test_a_requirement_is_no_order():
    """Who is required may come later in the list."""
    assert "rn" == called(loop_of(needer(), needed()))


def enter_disabled(loop):
    """Begin a block in which `x` and `n` are off, and never end it."""
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
    "replace": lambda loop: loop.components.__setitem__("n", part("y")),
    "replace slice": lambda loop: loop.components.__setitem__(slice(0, 2), [part("y")]),
    "replace all": lambda loop: loop.components.__setitem__(slice(None), loop.components[1:]),
    "assign": lambda loop: setattr(loop, "components", loop.components[1:]),
    "disable": lambda loop: loop.components.disable("n"),
    "disable several": lambda loop: loop.components.disable("x", "n"),
    "disabled": enter_disabled,
}


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS.keys())
def test_what_an_enabled_component_requires_stays(pair, remove):
    """Taking it away in whichever way is refused and changes nothing."""
    components = pair.components
    with pytest.raises(RequirementError, match=r"component 'r' .* requires 'n'"):
        remove(pair)
    assert pair.components is components
    assert ["n", "x", "r"] == components.names()
    assert "nxr" == called(pair)


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS.keys())
def test_a_disabled_component_does_not_mind(pair, remove):
    """Who is off requires nothing."""
    pair.components.disable("r")
    remove(pair)
    assert "n" not in called(pair)


def test_a_component_comes_on_only_with_what_it_requires(pair):
    """Enabling is refused while what the component requires is absent, and it stays off."""
    pair.components.disable("r")
    del pair.components["n"]
    with pytest.raises(RequirementError, match="requires 'n', which is not in the list"):
        pair.components.enable("r")
    assert not pair.components.is_enabled("r")
    assert "x" == called(pair)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda c: c.clear(), ""),
        (lambda c: c.__delitem__(slice(0, 3, 2)), "x"),
        (lambda c: c.__setitem__(slice(None), [part("y")]), "y"),
        (lambda c: c.disable("n", "r"), "x"),
        (lambda c: c.disable("r", "n"), "x"),
    ],
    ids=["clear", "del", "replace", "disable", "disable the other way round"],
)
def test_both_may_go_at_once(pair, edit, expected):
    """An edit is judged by what it leaves."""
    edit(pair.components)
    assert expected == called(pair)


def test_both_come_on_at_once(pair):
    """The order of names in enable() does not matter."""
    pair.components.disable("r", "n")
    pair.components.enable("r", "n")
    assert "nxr" == called(pair)


def test_one_of_two_who_are_required_may_go():
    """As long as one of that name is on, a requirement is met."""
    loop = loop_of(needed(), needed(), needer())
    loop.components.disable("n")
    with pytest.raises(RequirementError):
        loop.components.disable("n#2")
    assert "nr" == called(loop)


def test_what_is_required_may_be_replaced_by_its_like(pair):
    """Another component of that name meets the requirement."""
    pair.components["n"] = needed()
    assert "nxr" == called(pair)


def test_a_chain_of_requirements_goes_together():
    """Whoever stands in the middle of a chain is required and requires."""
    loop = loop_of(part("a", requires="b"), part("b", requires="c"), part("c"))
    for refused in ["b", "c"], ["c", "a"], ["b"]:
        with pytest.raises(RequirementError):
            loop.components.disable(*refused)
    loop.components.disable("c", "b", "a")
    assert "" == called(loop)


def test_components_that_require_each_other_join_together():
    """Two that need each other enter in one edit."""
    loop = loop_of()
    loop.components.extend([part("a", requires="b"), part("b", requires="a")])
    assert "ab" == called(loop)


@pytest.mark.parametrize("places", [(0, 2), (2, 0), (0, 1), (1, 2)])
def test_swapping_works_although_what_is_required_is_absent_for_a_moment(pair, places):
    """Between the two assignments of a swap nobody complains."""
    i, j = places
    expected = list("nxr")
    expected[i], expected[j] = expected[j], expected[i]
    pair.components[i], pair.components[j] = pair.components[j], pair.components[i]
    assert "".join(expected) == called(pair)


def test_a_list_that_was_put_aside_does_not_come_back_without_what_it_requires(pair):
    """Assigning a saved list in which a requirement is not met any more is refused."""
    saved, pair.components = pair.components, [pair.components["n"]]
    pair.components.disable("n")
    with pytest.raises(RequirementError, match="requires 'n', which is disabled"):
        pair.components = saved
    assert ["n"] == pair.components.names()
