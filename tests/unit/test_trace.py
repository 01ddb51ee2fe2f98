"""TTL_TRACE=1: hook calls are printed as they happen, and nothing else changes."""

from __future__ import annotations

import re

import pytest
from loops import implementing, make_component, make_loop

from ttl_core import LoopComponent, hookimpl


class CallRecorder(LoopComponent):
    """A recorder of its own calls, with a wrapper around some of them."""

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
    """A component that fails, and records the exception."""

    def __init__(self):
        self.seen = []

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        return (yield)

    def on_batch_end(self, loop):
        raise ZeroDivisionError("mine")

    def on_exception(self, loop, exception):
        self.seen.append(exception)


@pytest.fixture
def trace(monkeypatch, capsys):
    """Return a function that runs something with a trace, and returns the printed lines."""

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


def test_the_trace_shows_each_call_nested_and_with_its_time(trace):
    """A call that is made inside another is indented, and each has a time."""
    lines = trace(lambda: make_loop(CallRecorder(), train_data=(0, 1), valid_data=None).train(1))
    expected = [
        *("on_train_begin", "  on_log", "on_train_begin took"),
        *("around_epoch", "  on_batch_end", "  on_batch_end", "around_epoch took"),
    ]
    assert expected == without_times(lines)
    timed = [bool(re.search(f"{TIME}$", line)) for line in lines]
    assert [False, True, True, False, True, True, True] == timed


def test_the_trace_shows_calls_with_a_wrapper_once(trace):
    """A wrapper and the implementations that it surrounds are one hook call."""
    called = []

    def run():
        wrapper, last = implementing("b", wrapper=True), implementing("c", trylast=True)
        loop = make_loop(implementing("a"), wrapper, last)
        loop.called = called
        loop.hook.on_batch_end(loop=loop)

    assert ["on_batch_end"] == without_times(trace(run))
    assert ["b", "a", "c"] == [component.name for component in called]


def test_a_traced_run_is_the_same_run(trace):
    """A trace changes neither the calls nor their order."""
    plain, traced = CallRecorder(), CallRecorder()
    make_loop(plain).train(2)
    trace(lambda: make_loop(traced).train(2))
    assert plain.calls == traced.calls


def test_a_traced_hook_returns_the_same_results(trace):
    """A trace changes no results."""
    results = []

    def run():
        loop = make_loop(
            make_component(on_batch_end=lambda loop: 1), make_component(on_batch_end=lambda loop: 0)
        )
        results.extend(loop.hook.on_batch_end(loop=loop))

    trace(run)
    assert [1, 0] == results


def test_a_traced_run_can_be_stopped(trace):
    """stop() ends a run with a trace as it ends any other run."""
    component = make_component(
        on_batch_end=lambda loop: loop.stop(), on_train_end=lambda loop: None
    )
    lines = trace(lambda: make_loop(component, train_data=(0, 1)).train(1))
    assert ["on_batch_end", "on_train_end"] == without_times(lines)


def failure_of(loop):
    """Return what a run raises."""
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        loop.train(1)
    return caught.value


def test_a_traced_run_fails_in_the_same_way(trace):
    """The exception and its note are those of a run that is not traced."""
    found = []
    trace(lambda: found.append(failure_of(make_loop(Failing()))))
    assert failure_of(make_loop(Failing())).__notes__ == found[0].__notes__


def test_the_trace_of_a_failing_run_shows_on_exception(trace):
    """on_exception is traced like any other hook call, after those that failed."""
    lines = trace(lambda: failure_of(make_loop(Failing())))
    expected = ["around_run", "  on_batch_end", "around_run took", "on_exception"]
    assert expected == without_times(lines)


@pytest.mark.parametrize("value", [None, "", "0"], ids=repr)
def test_nothing_is_printed_without_the_trace(monkeypatch, capsys, value):
    """Without TTL_TRACE=1, nothing is printed."""
    monkeypatch.delenv("TTL_TRACE", raising=False)
    if value is not None:
        monkeypatch.setenv("TTL_TRACE", value)
    make_loop(CallRecorder()).train(1)
    assert ("", "") == capsys.readouterr()


def test_disabled_components_leave_no_trace(trace):
    """A hook whose implementations are all disabled is not called."""

    def run():
        loop = make_loop(CallRecorder())
        loop.components.disable("call-recorder")
        loop.train(1)

    assert [] == trace(run)
