"""What runs when and why: the printed list, explain, the manifest as data, and the trace."""

from __future__ import annotations

import enum
import functools
import json
import math
import re
import sys
import types
from pathlib import Path

import numpy
import pytest
import torch

from ttl_core import (
    DuplicateComponentError,
    LoopComponent,
    UnknownPointError,
    hookimpl,
    use,
)

SOURCE = """
from ttl_core import LoopComponent

class Recorder(LoopComponent):
    def __init__(self, **config):
        pass

    def on_epoch_end(self, loop):
        return "recorder"
"""

OPTIONS = {
    "wrapper": {"wrapper": True},
    "wrapper-first": {"wrapper": True, "tryfirst": True},
    "wrapper-last": {"wrapper": True, "trylast": True},
    "first": {"tryfirst": True},
    "last": {"trylast": True},
}
"""The options of the components that a name stands for; those of other names have none."""


def part(name, point="on_batch_end"):
    """Return a component of a name with the options that belong to it, that notes its name."""

    def plain(self, loop):
        loop.order.append(name)

    def wrapper(self, loop):
        loop.order.append(name)
        return (yield)

    options = OPTIONS.get(name, {})
    method = hookimpl(**options)(wrapper if "wrapper" in options else plain)
    return type("Part", (LoopComponent,), {"name": name, point: method})()


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    """Install a component `recorder` that takes any configuration."""
    info = tmp_path / "ttl_recorder-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ttl-recorder\nVersion: 1.2.3\n")
    (info / "entry_points.txt").write_text("[ttl.components]\nrecorder = ttl_recorder:Recorder\n")
    (tmp_path / "ttl_recorder.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("ttl_core.discovery.scanning._newest_scan", None)
    yield "recorder"
    sys.modules.pop("ttl_recorder", None)


def explained(text):
    """Return the names of the components that explain lists, in order."""
    return [line.split()[1] for line in text.splitlines()[1:]]


class Story(LoopComponent):
    """A component that notes all its calls, with a wrapper around some of them."""

    def __init__(self):
        self.calls = []

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        self.calls.append(f"{loop.epoch_desc} begins")
        try:
            return (yield)
        finally:
            self.calls.append(f"{loop.epoch_desc} ends")

    def on_train_begin(self, loop):
        self.calls.append("on_train_begin")
        loop.log({"x": 1})

    def on_batch_end(self, loop):
        self.calls.append(f"batch {loop.batch_num}")

    def on_log(self, loop, metrics):
        self.calls.append(f"log {metrics}")


class Failing(LoopComponent):
    """A component that fails, and takes note of it."""

    def __init__(self):
        self.seen = []

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        return (yield)

    def on_batch_end(self, loop):
        raise ZeroDivisionError("mine")

    def on_exception(self, loop, exception):
        self.seen.append(exception)


# -- the printed list -----------------------------------------------------------------------


def test_a_printed_list_shows_places_origins_and_the_order_of_each_point(loop_of, recorder):
    """print(loop.components) shows who is there, from where, and who is called in which order."""
    loop = loop_of(
        part("last"), part("off"), recorder, part("wrapper"), part("first"), part("b", "on_log")
    )
    loop.components.disable("off")
    origin = f"{__name__}.Part"
    expected = f"""\
 #  component  from
 0  last       {origin}
 1  off        {origin}  off
 2  recorder   {"ttl-recorder 1.2.3"}
 3  wrapper    {origin}
 4  first      {origin}
 5  b          {origin}

on_batch_end  wrapper (wrapper), first (tryfirst), last (trylast)
on_epoch_end  recorder
on_log        b"""
    assert expected == str(loop.components)


def test_an_empty_list_says_so(loop_of):
    """Nothing is in it, and nothing is explained."""
    loop = loop_of()
    assert ("no components", "no components") == (str(loop.components), loop.explain())


def test_a_list_without_calls_shows_its_components(loop_of):
    """Where nobody implements anything, only the components are printed."""
    loop = loop_of(type("Part", (LoopComponent,), {})())
    expected = f" #  component  from\n 0  part       {__name__}.Part"
    assert expected == str(loop.components)


def test_a_list_that_cannot_be_called_prints_why(loop_of):
    """Whoever looks for a mistake in a list can print it."""
    loop = loop_of(part("a"), part("b"))
    loop.components.append(loop.components[0])
    *rows, empty, reason = str(loop.components).splitlines()
    assert ["#", "0", "1", "2"] == [row.split()[0] for row in rows]
    assert "" == empty
    assert reason.startswith("component 'a'")
    assert "stands twice" in reason


def test_points_are_listed_in_firing_order(loop_of):
    """The printed list is in the order in which the loop calls the points."""
    points = ["on_train_end", "on_epoch_begin", "on_batch_end", "on_train_begin"]
    loop = loop_of(*(part(f"a{i}", point) for i, point in enumerate(points)))
    expected = ["on_train_begin", "on_epoch_begin", "on_batch_end", "on_train_end"]
    printed = str(loop.components).split("\n\n")[1]
    assert expected == [line.split()[0] for line in printed.splitlines()]
    assert expected == re.findall(r"^\w+", loop.explain(), flags=re.MULTILINE)


# -- explain --------------------------------------------------------------------------------


def test_explain_gives_the_reasons(loop_of, recorder):
    """Each line says who, from which distribution and version, and what decides the place."""
    loop = loop_of(
        *(part(name, "on_epoch_end") for name in ["last", "off", "wrapper-last", "first"]),
        recorder,
    )
    loop.components.disable("off")
    origin = f"{__name__}.Part"
    other = "ttl-recorder 1.2.3".ljust(len(origin))
    expected = f"""\
on_epoch_end
  1  wrapper-last  {origin}  position 2, wrapper, trylast
  2  first         {origin}  position 3, tryfirst
  3  recorder      {other}  position 4
  4  last          {origin}  position 0, trylast"""
    assert expected == loop.explain("on_epoch_end")


NAMES = ["a", "last", "wrapper-last", "first", "wrapper", "b", "wrapper-first", "c"]


@pytest.mark.parametrize("turn", range(len(NAMES)))
@pytest.mark.parametrize("off", [(), ("a", "wrapper"), ("first", "last", "b")], ids=str)
def test_explain_tells_what_is_then_called(loop_of, turn, off):
    """The explained order is the order of the next call, for every mix and place."""
    loop = loop_of(*map(part, NAMES[turn:] + NAMES[:turn]))
    loop.components.disable(*off)
    loop.order = []
    told = explained(loop.explain("on_batch_end"))
    loop.hook.on_batch_end(loop=loop)
    assert loop.order == told
    assert len(NAMES) - len(off) == len(told)


def test_explain_follows_edits(loop_of):
    """What is explained is the list as it is now."""
    loop = loop_of(part("a"), part("b"))
    before = explained(loop.explain("on_batch_end"))
    loop.components.move("b", before="a")
    loop.components.append(part("first"))
    assert ["a", "b"] == before
    assert ["first", "b", "a"] == explained(loop.explain("on_batch_end"))


def test_explain_of_everything_is_that_of_each_point_in_use(loop_of):
    """Without a point, all that somebody implements are explained."""
    loop = loop_of(part("a"), part("b", "on_log"), part("wrapper", "around_run"))
    points = ["around_run", "on_batch_end", "on_log"]
    assert "\n\n".join(map(loop.explain, points)) == loop.explain()


def test_explain_of_a_point_that_nobody_implements_says_so(loop_of):
    """Silence would leave open whether the point exists."""
    assert "on_log\n  nobody implements it" == loop_of(part("a")).explain("on_log")


def test_explain_where_all_are_off_does_not_deny_them(loop_of):
    """A list of components of which none is called is not an empty list."""
    loop = loop_of(part("a"))
    loop.components.disable("a")
    assert "no components" != loop.explain()


def test_explain_of_an_unknown_point_offers_the_nearest(loop_of):
    """A misspelled point is an error with a suggestion and all points."""
    with pytest.raises(UnknownPointError) as caught:
        loop_of(part("a")).explain("on_batch_edn")
    text = str(caught.value)
    assert text.startswith("'on_batch_edn' is no callback point. Did you mean 'on_batch_end'? ")
    assert "on_train_begin" in text


def test_explain_of_a_list_that_cannot_be_called_is_an_error(loop_of):
    """Where there is no order, there is nothing to explain."""
    loop = loop_of(part("a"))
    loop.components.append(loop.components[0])
    with pytest.raises(DuplicateComponentError):
        loop.explain("on_batch_end")


class InScript(LoopComponent):
    """A component of the kind that a user has in a script."""

    __module__ = "__main__"

    def __init__(self, name):
        self.name = name

    def on_batch_end(self, loop):
        pass


class Autocast(InScript):
    """A wrapper of the kind that a user has in a script."""

    __module__ = "__main__"

    @hookimpl(wrapper=True, tryfirst=True)
    def on_batch_end(self, loop):
        return (yield)


@pytest.mark.parametrize("n_components", [3, 10])
def test_lines_are_readable_at_80_columns(loop_of, recorder, n_components):
    """With names as they are in use, neither the list nor an explanation needs a wide terminal."""
    names = [
        *("main-loop", "mixed-precision", "early-stopping", "checkpoint", "lr-scheduler"),
        *("grad-clip", "tensorboard", "ema", "metrics", "progress"),
    ]
    loop = loop_of(recorder, Autocast("amp"), *map(InScript, names[:n_components]))
    text = f"{loop.components}\n{loop.explain()}"
    assert [] == [line for line in text.splitlines() if len(line) > 80]


# -- the manifest ---------------------------------------------------------------------------


def test_the_manifest_is_what_runs_as_data(loop_of, recorder):
    """Each component is listed with its place, origin, state and configuration."""
    loop = loop_of(part("a"), use(recorder, name="mine", path="runs/a", keep=[1, None, True]))
    loop.components.disable("a")
    expected = [
        {
            "position": 0,
            "name": "a",
            "class": f"{__name__}.Part",
            "distribution": None,
            "version": None,
            "enabled": False,
            "config": {},
        },
        {
            "position": 1,
            "name": "mine",
            "class": "ttl_recorder.Recorder",
            "distribution": "ttl-recorder",
            "version": "1.2.3",
            "enabled": True,
            "config": {"path": "runs/a", "keep": [1, None, True]},
        },
    ]
    assert expected == loop.manifest()


def test_the_manifest_of_an_empty_list_is_empty(loop_of):
    """Nothing runs."""
    assert [] == loop_of().manifest()


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Loud(str):
    """A string that has more to say."""


class Talkative:
    """An object that has whatever attribute somebody asks for."""

    def __getattr__(self, name):
        return name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.1, 0.1),
        ("text", "text"),
        ([1, [2]], [1, [2]]),
        ((1, (2,)), [1, [2]]),
        ({"a": {"b": (1,)}}, {"a": {"b": [1]}}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({1: "a", None: {(1, 2): "b"}}, {"1": "a", "None": {"(1, 2)": "b"}}),
        ({1, 2}, "builtins.set"),
        (b"x", "builtins.bytes"),
        (1j, "builtins.complex"),
        (Color.RED, f"{__name__}.Color"),
        (Level.LOW, 1),
        (Loud("x"), "x"),
        (Story, f"{__name__}.Story"),
        (Failing().on_batch_end, f"{__name__}.Failing.on_batch_end"),
        (explained, f"{__name__}.explained"),
        (lambda: 0, f"{__name__}.<lambda>"),
        (functools.partial(explained, 1), "functools.partial"),
        (len, "builtins.len"),
        (torch.ones(2), "torch.Tensor"),
        (torch.float32, "torch.dtype"),
        (torch.device("cpu"), "torch.device"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (numpy.float64(0.5), 0.5),
        (numpy.float32(0.5), "numpy.float32"),
        (numpy.int64(3), "numpy.int64"),
        (numpy.ones(2), "numpy.ndarray"),
        (Path("a"), f"{type(Path()).__module__}.{type(Path()).__name__}"),
        (object(), "builtins.object"),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_configuration_in_the_manifest_is_json(loop_of, recorder, value, expected):
    """JSON values are what they are, all others are their qualified names."""
    (entry,) = loop_of(use(recorder, option=value)).manifest()
    assert {"option": expected} == json.loads(json.dumps(entry, allow_nan=False))["config"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [{"x": math.nan}]], ids=repr)
def test_numbers_that_json_does_not_have_are_written_all_the_same(loop_of, recorder, value):
    """NaN and infinity are no JSON values, and strict readers refuse a file that holds them."""
    manifest = loop_of(use(recorder, option=value)).manifest()
    assert manifest == json.loads(json.dumps(manifest, allow_nan=False))


@pytest.mark.parametrize(
    "value",
    [str.lower, (1).__add__, int.__add__, torch.Tensor.add, torch.relu, numpy.add],
    ids=lambda value: type(value).__name__,
)
def test_functions_that_are_not_written_in_python_are_named_too(loop_of, recorder, value):
    """Some of them have no module; the manifest holds a name for each."""
    (entry,) = loop_of(use(recorder, function=value)).manifest()
    assert str is type(json.loads(json.dumps(entry))["config"]["function"])


def test_an_object_that_has_every_attribute_is_named_by_its_class(loop_of, recorder):
    """What an object says of itself, as configuration objects do, is not asked."""
    (entry,) = loop_of(use(recorder, option=Talkative())).manifest()
    assert {"option": f"{__name__}.Talkative"} == entry["config"]


def test_the_manifest_can_be_taken_in_a_run(at, loop_of, recorder):
    """Whoever saves what runs does so from inside."""
    found = []
    loop = loop_of(recorder, at(on_train_begin=lambda loop: found.extend(loop.manifest())))
    loop.train(0)
    assert ["recorder", "at"] == [entry["name"] for entry in found]


# -- the trace ------------------------------------------------------------------------------


@pytest.fixture
def trace(monkeypatch, capsys):
    """Return a function that runs something traced and returns what was printed, as lines."""

    def trace(action):
        with monkeypatch.context() as patch:
            patch.setenv("TTL_TRACE", "1")
            capsys.readouterr()
            action()
            return capsys.readouterr().err.splitlines()

    return trace


TIME = r" \d+\.\d{3} ms"


def without_times(lines):
    """Return a trace without its times."""
    return [re.sub(TIME, "", line) for line in lines]


def test_the_trace_shows_each_call_nested_and_with_its_time(loop_of, trace):
    """A call that is made inside another is indented, and each has a time."""
    lines = trace(lambda: loop_of(Story(), train_data=(0, 1), valid_data=None).train(1))
    expected = [
        *("on_train_begin", "  on_log", "on_train_begin took"),
        *("around_epoch", "  on_batch_end", "  on_batch_end", "around_epoch took"),
    ]
    assert expected == without_times(lines)
    timed = [bool(re.search(f"{TIME}$", line)) for line in lines]
    assert [False, True, True, False, True, True, True] == timed


def test_the_trace_shows_calls_with_a_wrapper_once(loop_of, trace):
    """A wrapper and those it surrounds are one hook call."""
    loops = []

    def run():
        loops.append(loop_of(part("a"), part("wrapper"), part("last")))
        loops[0].order = []
        loops[0].hook.on_batch_end(loop=loops[0])

    assert ["on_batch_end"] == without_times(trace(run))
    assert ["wrapper", "a", "last"] == loops[0].order


def test_a_traced_run_is_the_same_run(loop_of, trace):
    """Tracing changes neither calls nor their order."""
    plain, traced = Story(), Story()
    loop_of(plain).train(2)
    trace(lambda: loop_of(traced).train(2))
    assert plain.calls == traced.calls


def test_a_traced_hook_returns_the_same_results(at, loop_of, trace):
    """Tracing changes no results."""
    results = []

    def run():
        loop = loop_of(at(on_batch_end=lambda loop: 1), at(on_batch_end=lambda loop: 0))
        results.extend(loop.hook.on_batch_end(loop=loop))

    trace(run)
    assert [1, 0] == results


def test_a_traced_run_can_be_stopped(at, loop_of, trace):
    """stop() passes through the trace, which closes what it has opened."""
    component = at(on_batch_end=lambda loop: loop.stop(), on_train_end=lambda loop: None)
    lines = trace(lambda: loop_of(component, train_data=(0, 1)).train(1))
    assert ["on_batch_end", "on_train_end"] == without_times(lines)


def failure(loop):
    """Return what a run raises."""
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        loop.train(1)
    return caught.value


def test_a_traced_run_fails_in_the_same_way(loop_of, trace):
    """The exception and its note are those of a run that is not traced."""
    found = []
    trace(lambda: found.append(failure(loop_of(Failing()))))
    assert failure(loop_of(Failing())).__notes__ == found[0].__notes__


def test_the_trace_of_a_failing_run_shows_on_exception(loop_of, trace):
    """on_exception is a hook call like any other, and those before it are closed."""
    lines = trace(lambda: failure(loop_of(Failing())))
    expected = ["around_run", "  on_batch_end", "around_run took", "on_exception"]
    assert expected == without_times(lines)


@pytest.mark.parametrize("value", [None, "", "0"], ids=repr)
def test_nothing_is_printed_without_the_trace(loop_of, monkeypatch, capsys, value):
    """Only TTL_TRACE=1 prints."""
    monkeypatch.delenv("TTL_TRACE", raising=False)
    if value is not None:
        monkeypatch.setenv("TTL_TRACE", value)
    loop_of(Story()).train(1)
    assert ("", "") == capsys.readouterr()


def test_disabled_components_leave_no_trace(loop_of, trace):
    """A hook that nobody implements any more is not called."""

    def run():
        loop = loop_of(Story())
        loop.components.disable("story")
        loop.train(1)

    assert [] == trace(run)
