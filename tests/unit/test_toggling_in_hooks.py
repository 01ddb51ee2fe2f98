"""Components that are disabled and enabled inside hooks, and the wrappers that were entered."""

from __future__ import annotations

import pytest
from loops import call_order, make_component, make_loop, named
from recording import AroundRecorder

from ttl_core.hookspecs import POINTS


def toggling(toggle, *names):
    """Return a hook that disables or enables components once, and returns "!"."""
    waiting = [names]

    def hook(loop):
        if waiting:
            getattr(loop.components, toggle)(*waiting.pop())
        return "!"

    return hook


@pytest.mark.parametrize(
    ("toggle", "names", "now", "then"),
    [
        ("disable", ["toggle"], "a!b", "ab"),
        ("disable", ["a"], "a!b", "!b"),
        ("disable", ["b"], "a!b", "a!"),
        ("disable", ["a", "toggle", "b"], "a!b", ""),
        ("enable", ["off"], "a!b", "a!-b"),
    ],
    ids=["itself", "one before", "one after", "all", "a disabled one"],
)
def test_toggling_in_a_hook_takes_effect_at_the_next_hook_call(toggle, names, now, then):
    """The call in which a component is disabled or enabled ends as it began."""
    loop = make_loop(
        named("a"),
        make_component(name="toggle", on_batch_end=toggling(toggle, *names)),
        make_component(name="off", on_batch_end=lambda loop: "-"),
        named("b"),
    )
    loop.components.disable("off")
    assert (now, then) == (call_order(loop), call_order(loop))


def test_toggling_in_a_run_takes_effect_at_the_next_point(recorder):
    """A component that is disabled at one point is not called at the next one of the batch."""
    loop = make_loop(
        make_component(on_forward_pass=lambda loop: loop.components.disable("recorder")),
        make_component(on_batch_end=lambda loop: loop.components.enable("recorder")),
        valid_data=None,
        train_data=[0],
    )
    loop.components.append(recorder)
    loop.train(1)
    expected = [
        *("on_train_begin", "on_epoch_begin", "on_grads_reset", "on_batch_begin"),
        *("on_forward_pass", "on_epoch_end", "on_safe_point", "on_train_end"),
    ]
    assert expected == recorder.points


def test_a_component_may_disable_itself_permanently():
    """A component that disables itself is not called for the rest of the run."""
    seen = []

    def once(loop):
        seen.append(loop.batch_num)
        loop.components.disable("once")

    make_loop(make_component(name="once", on_batch_end=once), train_data=range(5)).train(2)
    assert [0] == seen


def test_a_block_inside_a_hook_ends_before_the_next_point():
    """disabled() in a hook affects only the hooks that are called inside its block."""
    seen = []

    def log_without_a(loop):
        with loop.components.disabled("a"):
            loop.log({"x": 1})
        loop.log({"y": 2})

    loop = make_loop(
        make_component(name="a", on_log=lambda metrics: seen.extend(metrics)),
        make_component(on_train_begin=log_without_a),
        train_data=(),
        valid_data=None,
    )
    loop.train(0)
    assert ["y"] == seen


def test_a_disabled_component_is_called_at_no_point(recorder):
    """Runs, failures and logs do not reach a disabled component."""
    loop = make_loop(recorder)
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
    assert [] == recorder.points


def test_a_disabled_component_gets_no_on_exception(recorder):
    """on_exception reaches enabled components only."""
    loop = make_loop(recorder, make_component(on_batch_end=lambda loop: 1 / 0))
    loop.components.disable(recorder)
    with pytest.raises(ZeroDivisionError):
        loop.train(1)
    assert [] == recorder.points


def test_wrappers_that_were_entered_are_left_when_their_component_is_disabled():
    """A component that is disabled in a run leaves what it has entered, and enters nothing more."""
    around = AroundRecorder()
    loop = make_loop(
        around, make_component(on_batch_end=toggling("disable", "around")), train_data=(0, 1)
    )
    loop.train(2)
    expected = [
        *("around begins run", "around begins epoch", "around begins batch"),
        *("around ends batch", "around ends epoch", "around ends run"),
    ]
    assert expected == around.events


def test_wrappers_of_a_disabled_component_are_left_when_the_run_fails():
    """An exception passes through the wrappers of a component that was disabled."""
    around = AroundRecorder()

    def fail(loop):
        loop.components.disable("around")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_loop(around, make_component(on_forward_pass=fail)).train(1)
    expected = [
        *("around begins run", "around begins epoch"),
        *("around ends epoch", "around ends run"),
    ]
    assert expected == around.events


def test_a_wrapper_that_is_enabled_in_a_run_enters_the_run_and_the_epoch():
    """It surrounds the rest of both, from the next hook call on."""
    around = AroundRecorder()
    loop = make_loop(
        around,
        make_component(on_forward_pass=toggling("enable", "around")),
        train_data=[0],
        valid_data=None,
    )
    loop.components.disable("around")
    loop.train(1)
    assert [
        *("around begins run", "around begins epoch", "around begins batch"),
        *("around ends batch", "around ends epoch", "around ends run"),
    ] == around.events
