"""On and off: by name, at any time, from inside hooks, and by the environment."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch

from ttl_core import (
    LoopComponent,
    RequirementError,
    RunError,
    TrainTestLoop,
    UnknownNameError,
    hookimpl,
    use,
)
from ttl_core.hookspecs import POINTS

SOURCE = """
from ttl_core import LoopComponent

class Switch(LoopComponent):
    def on_batch_end(self, loop):
        return "switch"
"""


class Named(LoopComponent):
    """A component with a name that says it, and how often it has been called."""

    def __init__(self, name):
        self.name = name
        self.count = 0

    def on_batch_end(self, loop):
        self.count += 1
        return self.name


@pytest.fixture
def loop(loop_of):
    """Return a loop of the components a, b, c and d."""
    return loop_of(*map(Named, "abcd"))


def called(loop):
    """Return who is called at the next hook call, as one word."""
    return "".join(loop.hook.on_batch_end(loop=loop))


# -- place and state ------------------------------------------------------------------------


def test_who_comes_on_again_has_its_old_place(loop):
    """Each component is called where it was before, whatever the order of switching."""
    loop.components.disable("a", "c", "d")
    off = called(loop)
    loop.components.enable("d", "a")
    some = called(loop)
    loop.components.enable("c")
    assert ("b", "abd", "abcd") == (off, some, called(loop))


def test_who_comes_on_again_has_its_old_state(loop):
    """The component is the same object, and nothing was called on it meanwhile."""
    a = loop.components["a"]
    for switch in loop.components.disable, loop.components.enable:
        called(loop)
        switch("a")
    called(loop)
    assert a is loop.components["a"]
    assert 2 == a.count


def test_switching_twice_is_switching_once(loop):
    """disable() and enable() say what shall be, and do not count."""
    loop.components.disable("a", "a")
    loop.components.disable("a")
    loop.components.enable("a")
    assert "abcd" == called(loop)


def test_numbered_names_are_switched_on_their_own(loop_of):
    """Of two with the same name each has a switch."""
    components = loop_of(Named("a"), Named("a")).components
    components.disable("a#2")
    assert [True, False] == [components.is_enabled(name) for name in components.names()]


@pytest.mark.parametrize(
    "switch",
    [
        lambda c: c.enable("x"),
        lambda c: c.disable("a", "x"),
        lambda c: c.is_enabled("x"),
        lambda c: c.disabled("a", "x").__enter__(),
    ],
    ids=["enable", "disable", "is_enabled", "disabled"],
)
def test_an_unknown_name_is_explained(loop, switch):
    """Each switch says which name is not there and who is, and switches nobody."""
    with pytest.raises(UnknownNameError, match=r"no component 'x' is in the list. It holds: a, b"):
        switch(loop.components)
    assert "abcd" == called(loop)


# -- for a while ----------------------------------------------------------------------------


def test_blocks_can_be_nested(loop):
    """Whoever an outer block has switched off stays off when an inner one ends."""
    seen = []
    with loop.components.disabled("a"):
        with loop.components.disabled("a", "b"):
            seen.append(called(loop))
        seen.append(called(loop))
    seen.append(called(loop))
    assert ["cd", "bcd", "abcd"] == seen


def test_a_block_that_fails_switches_back_from_inside_out(loop):
    """The exception passes through nested blocks unchanged, and each one ends."""
    with (
        pytest.raises(ZeroDivisionError, match="mine"),
        loop.components.disabled("a"),
        loop.components.disabled("b"),
    ):
        raise ZeroDivisionError("mine")
    assert "abcd" == called(loop)


def test_a_block_takes_components(loop):
    """disabled() takes names and components."""
    with loop.components.disabled(loop.components[0], "b"):
        during = called(loop)
    assert ("cd", "abcd") == (during, called(loop))


def test_a_block_may_switch_on_what_it_has_switched_off(loop):
    """Inside a block, enable() works as ever."""
    with loop.components.disabled("a"):
        loop.components.enable("a")
        assert "abcd" == called(loop)
    assert "abcd" == called(loop)


def test_a_component_may_leave_inside_the_block(loop):
    """A block ends well when its component has been taken out meanwhile."""
    with loop.components.disabled("a"):
        del loop.components["a"]
        called(loop)
    assert "bcd" == called(loop)


def test_a_block_outlives_its_list(loop):
    """Who was off comes on also in a list that was assigned inside the block."""
    with loop.components.disabled("a"):
        loop.components = loop.components[::-1]
        during = called(loop)
    assert ("dcb", "dcba") == (during, called(loop))


def test_a_component_that_joins_inside_a_block_is_on(loop):
    """A block switches off whom it names, and nobody else."""
    with loop.components.disabled("a"):
        loop.components.append(Named("x"))
        assert "bcdx" == called(loop)


def test_a_block_cannot_end_without_what_its_component_requires(at, loop_of):
    """Who was switched off stays off when what it requires has left meanwhile."""
    loop = loop_of(Named("a"), at(name="x", requires="a", on_batch_end=lambda loop: "x"))
    block = loop.components.disabled("x")
    block.__enter__()
    del loop.components["a"]
    with pytest.raises(RequirementError, match=r"'x' .* requires 'a'"):
        block.__exit__(None, None, None)
    assert "" == called(loop)


def test_validation_may_go_without_somebody(at, loop_of):
    """A block around validate() inside a run concerns that validation only."""
    phases = []

    def validate(loop):
        if loop.is_training:
            with loop.components.disabled("a"):
                loop.validate()

    loop = loop_of(
        at(name="a", on_batch_end=lambda loop: phases.append(loop.epoch_desc)),
        at(on_batch_end=validate),
        train_data=(0, 1),
    )
    loop.train(1)
    assert ["train", "train", "valid"] == phases


# -- from inside hooks ----------------------------------------------------------------------


def switching(switch, *names):
    """Return a hook that switches components once."""
    waiting = [names]

    def hook(loop):
        if waiting:
            getattr(loop.components, switch)(*waiting.pop())
        return "!"

    return hook


@pytest.mark.parametrize(
    ("switch", "names", "now", "then"),
    [
        ("disable", ["switch"], "a!b", "ab"),
        ("disable", ["a"], "a!b", "!b"),
        ("disable", ["b"], "a!b", "a!"),
        ("disable", ["a", "switch", "b"], "a!b", ""),
        ("enable", ["off"], "a!b", "a!-b"),
    ],
    ids=["itself", "one before", "one after", "everybody", "one who was off"],
)
def test_switching_in_a_hook_counts_from_the_next_hook_call(at, loop_of, switch, names, now, then):
    """The call in which somebody is switched goes on as it began."""
    loop = loop_of(
        Named("a"),
        at(name="switch", on_batch_end=switching(switch, *names)),
        at(name="off", on_batch_end=lambda loop: "-"),
        Named("b"),
    )
    loop.components.disable("off")
    assert (now, then) == (called(loop), called(loop))


def test_switching_in_a_run_counts_from_the_next_point(at, loop_of, recorder, points):
    """The very next point of the same batch is without whom an earlier one has switched off."""
    loop = loop_of(
        at(on_forward_pass=lambda loop: loop.components.disable("recorder")),
        at(on_batch_end=lambda loop: loop.components.enable("recorder")),
        valid_data=None,
        train_data=[0],
    )
    recorder.name = "recorder"
    loop.components.append(recorder)
    loop.train(1)
    expected = [
        *("on_train_begin", "on_epoch_begin", "on_grads_reset", "on_batch_begin"),
        *("on_forward_pass", "on_epoch_end", "on_safe_point", "on_train_end"),
    ]
    assert expected == points


def test_a_component_may_switch_itself_off_for_good(at, loop_of):
    """Whoever has nothing more to do costs nothing for the rest of the run."""
    seen = []

    def once(loop):
        seen.append(loop.batch_num)
        loop.components.disable("once")

    loop_of(at(name="once", on_batch_end=once), train_data=range(5)).train(2)
    assert [0] == seen


def test_a_block_inside_a_hook_ends_before_the_next_point(at, loop_of):
    """disabled() in a hook concerns the hooks that are called inside its block."""
    seen = []

    def log_without_a(loop):
        with loop.components.disabled("a"):
            loop.log({"x": 1})
        loop.log({"y": 2})

    loop = loop_of(
        at(name="a", on_log=lambda metrics: seen.extend(metrics)),
        at(on_train_begin=log_without_a),
        train_data=(),
        valid_data=None,
    )
    loop.train(0)
    assert ["y"] == seen


def test_a_disabled_component_is_called_at_no_point(loop_of, recorder, points):
    """Runs, failures and logs pass by who is off."""
    loop = loop_of(recorder)
    loop.components.disable(recorder)
    loop.train(1)
    loop.test([0])
    loop.validate()
    loop.log({"loss": 1})
    for point in POINTS:
        if point.startswith("on_"):
            given = {"metrics": {}, "level": "batch"} if point == "on_log" else {}
            given |= {"exception": None} if point == "on_exception" else {}
            getattr(loop.hook, point)(loop=loop, **given)
    assert [] == points


def test_a_disabled_component_does_not_hear_of_failures(at, loop_of, recorder, points):
    """on_exception reaches enabled components only."""
    loop = loop_of(recorder, at(on_batch_end=lambda loop: 1 / 0))
    loop.components.disable(recorder)
    with pytest.raises(ZeroDivisionError):
        loop.train(1)
    assert [] == points


class Around(LoopComponent):
    """A component that notes what it does and undoes around everything."""

    name = "around"

    def __init__(self):
        self.events = []

    def note(self, what):
        self.events.append(f"{what} begins")
        try:
            yield
        finally:
            self.events.append(f"{what} ends")

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        return (yield from self.note("run"))

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        return (yield from self.note("epoch"))

    @hookimpl(wrapper=True)
    def on_batch_end(self, loop):
        return (yield from self.note("batch"))


def test_wrappers_that_were_entered_are_undone_when_their_component_is_off(at, loop_of):
    """Who is switched off in the middle still undoes what it has begun, and begins no more."""
    around = Around()
    loop = loop_of(around, at(on_batch_end=switching("disable", "around")), train_data=(0, 1))
    loop.train(2)
    expected = [
        *("run begins", "epoch begins", "batch begins"),
        *("batch ends", "epoch ends", "run ends"),
    ]
    assert expected == around.events


def test_wrappers_are_undone_when_the_run_fails_after_they_are_off(at, loop_of):
    """Also an exception finds the wrappers of a disabled component on its way."""
    around = Around()

    def fail(loop):
        loop.components.disable("around")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop_of(around, at(on_forward_pass=fail)).train(1)
    assert ["run begins", "epoch begins", "epoch ends", "run ends"] == around.events


def test_a_wrapper_that_comes_on_in_the_middle_ends_nothing(at, loop_of):
    """Who is switched on in a run gets no replay of what has begun before."""
    around = Around()
    loop = loop_of(
        around,
        at(on_forward_pass=switching("enable", "around")),
        train_data=[0],
        valid_data=None,
    )
    loop.components.disable("around")
    loop.train(1)
    assert ["batch begins", "batch ends"] == around.events


# -- the environment takes away -------------------------------------------------------------


@pytest.fixture
def taking_away(monkeypatch):
    """Return a function that sets TTL_DISABLE."""
    return lambda value: monkeypatch.setenv("TTL_DISABLE", value)


@pytest.fixture
def switch(tmp_path, monkeypatch):
    """Install a component `switch`."""
    info = tmp_path / "ttl_switch-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ttl-switch\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ttl.components]\nswitch = ttl_switch:Switch\n")
    (tmp_path / "ttl_switch.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("ttl_core.discovery.scanning._newest_scan", None)
    yield "switch"
    sys.modules.pop("ttl_switch", None)


@pytest.mark.parametrize("value", ["a,c", " c , a ,,", "a,c,"])
def test_the_environment_takes_components_away(loop_of, taking_away, value):
    """Whoever TTL_DISABLE names is in the list and is not called."""
    taking_away(value)
    loop = loop_of(*map(Named, "abcd"))
    assert "bd" == called(loop)
    assert list("abcd") == loop.components.names()
    assert [False, True] == [loop.components.is_enabled(name) for name in "ab"]


def test_the_environment_takes_away_who_joins_later(loop_of, taking_away):
    """Also a component that is put in later is not called."""
    taking_away("a")
    loop = loop_of(Named("a"), Named("b"))
    loop.components.append(loop.components.pop("a"))
    loop.components = [Named("a"), *loop.components[:1]]
    assert "b" == called(loop)


def test_the_environment_wins_over_enable(loop_of, taking_away):
    """enable() cannot bring back what TTL_DISABLE has taken, and says so."""
    taking_away("a")
    loop = loop_of(Named("a"), Named("b"))
    loop.components.disable("b")
    with pytest.raises(RunError, match=r"component 'a' .* TTL_DISABLE=a takes it away"):
        loop.components.enable("b", "a")
    assert "" == called(loop)


def test_the_environment_wins_over_the_end_of_a_block(loop_of, taking_away):
    """A block may name whom TTL_DISABLE has taken, who stays away after it."""
    taking_away("a")
    loop = loop_of(Named("a"), Named("b"))
    with loop.components.disabled("a", "b"):
        during = called(loop)
    assert ("", "b") == (during, called(loop))


def test_the_environment_is_named_where_components_are_listed(loop_of, taking_away):
    """print(loop.components) tells why somebody is off."""
    taking_away("a")
    loop = loop_of(*map(Named, "ab"))
    _, a, b, *_ = str(loop.components).splitlines()
    assert [True, False] == [line.endswith("off, by TTL_DISABLE") for line in (a, b)]


def test_a_numbered_name_takes_one_of_two_away(loop_of, taking_away):
    """Of two with the same name, name#2 takes only the second one."""
    taking_away("a#2")
    components = loop_of(Named("a"), Named("a")).components
    assert [True, False] == [components.is_enabled(component) for component in components]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("switch", [False, False, False]),
        ("mine", [True, False, True]),
        ("switch#2", [True, True, False]),
    ],
    ids=["entry point", "own name", "number"],
)
def test_an_entry_points_name_takes_all_its_instances_away(
    loop_of, taking_away, switch, value, expected
):
    """TTL_DISABLE takes names of the list, and names of entry points for all made from them."""
    taking_away(value)
    components = loop_of(switch, use(switch, name="mine"), switch).components
    assert ["switch", "mine", "switch#2"] == components.names()
    assert expected == [components.is_enabled(component) for component in components]


def test_a_requirement_that_the_environment_takes_away_is_missed_at_once(at, loop_of, taking_away):
    """A loop in which somebody requires whom TTL_DISABLE names is refused where it is made."""
    taking_away("a")
    with pytest.raises(RequirementError, match="TTL_DISABLE"):
        loop_of(Named("a"), at(name="x", requires="a"))


def test_who_is_taken_away_requires_nothing(at, loop_of, taking_away):
    """TTL_DISABLE takes away a component together with what it requires."""
    taking_away("x")
    assert "b" == called(loop_of(Named("b"), at(name="x", requires="a")))


def test_a_name_that_nobody_has_is_warned_of_once(taking_away):
    """A misspelled TTL_DISABLE is told at the user's line, and not by the next loop again."""
    taking_away("alpah")
    with pytest.warns(UserWarning, match="TTL_DISABLE") as caught:
        loops = [TrainTestLoop(torch.nn.Identity(), [Named("alpha")]) for _ in range(2)]
    assert ["alpha", "alpha"] == [called(loop) for loop in loops]
    expected = (
        "TTL_DISABLE names 'alpah', which is neither installed nor in the loop. "
        "Did you mean 'alpha'? "
    )
    assert [expected.strip()] == [str(warning.message).strip() for warning in caught]
    assert [__file__] == [warning.filename for warning in caught]


def test_each_name_that_nobody_has_is_warned_of(loop_of, taking_away):
    """Two misspelled names give two warnings."""
    taking_away("nobody-1,a,nobody-2")
    with pytest.warns(UserWarning, match="TTL_DISABLE") as caught:
        loop_of(Named("a"))
    found = [str(warning.message).split("'")[1] for warning in caught]
    assert ["nobody-1", "nobody-2"] == found


def test_a_name_that_is_installed_but_not_in_the_loop_is_no_mistake(loop_of, taking_away, switch):
    """TTL_DISABLE may name what some other program of the user's has in its loop."""
    taking_away(switch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_of(Named("a"))
    assert "a" == called(loop)
    assert [] == caught


@pytest.mark.parametrize("value", [None, "", " , ", "a"], ids=repr)
def test_the_environment_costs_no_scan(loop_of, taking_away, monkeypatch, value):
    """Without TTL_DISABLE, and where all it names are in the loop, nobody asks what is installed.

    A loop of hand-made components, its edits and its runs need no discovery.
    """
    monkeypatch.delenv("TTL_DISABLE", raising=False)
    if value is not None:
        taking_away(value)
    monkeypatch.setattr("ttl_core.discovery.scanning._newest_scan", None)
    loop = loop_of(*map(Named, "ab"))
    loop.components.disable("b")
    loop.components.append(Named("c"))
    loop.components = loop.components[:]
    loop.train(1)
    assert scanning._newest_scan is None
