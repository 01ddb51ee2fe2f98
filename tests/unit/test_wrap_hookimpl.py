"""`wrap_hookimpl`: a component replaces what the loop calls of the others."""

import functools
import traceback

import pytest
from loops import make_loop as make_loop_of

from ttl_core import LoopComponent, hookimpl


class Recorder(LoopComponent):
    """A recorder of all calls of other components, that asks for each once."""

    def __init__(self, label="", calls=None):
        self.label = label
        self.asked = []
        self.calls = [] if calls is None else calls

    def wrap_hookimpl(self, function, *, component, point, is_wrapper):
        self.asked.append((component, point, is_wrapper))

        @functools.wraps(function)
        def call(*arguments):
            self.calls.append(f"{self.label}{component}.{point}")
            return function(*arguments)

        return call


class Part(LoopComponent):
    @hookimpl(wrapper=True)
    def around_run(self, loop):
        return (yield)

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        return (yield)

    def on_batch_end(self, loop):
        loop.log({"x": 1})

    def on_log(self, metrics):
        pass


def make_loop(*components):
    """Return a loop of one batch."""
    return make_loop_of(*components, train_data=[0], valid_data=None)


CALLS = ["part.around_run", "part.around_epoch", "part.on_batch_end", "part.on_log"]


def test_every_call_of_the_others_is_replaced():
    """Wrappers, plain methods, and what is called within them, each asked for once."""
    recorder = Recorder()
    make_loop(Part(), recorder).train(1)
    assert CALLS == recorder.calls
    assert sorted(set(recorder.asked)) == sorted(recorder.asked)
    assert ("part", "around_run", True) in recorder.asked
    assert ("part", "on_log", False) in recorder.asked


def test_it_is_in_effect_while_it_is_enabled():
    """Disabled, in mid-run too, it replaces nothing; enabled again, all."""
    recorder = Recorder()
    loop = make_loop(Part(), recorder)
    loop.components.disable(recorder)
    loop.train(1)
    assert [] == recorder.asked
    loop.components.enable(recorder)
    loop.train(1)
    assert CALLS == recorder.calls


def test_disabled_in_mid_run_it_ends_at_once():
    """The next hook call is that of the component itself."""

    class Disable(LoopComponent):
        def on_epoch_begin(self, loop):
            loop.components.disable("recorder")

    recorder = Recorder()
    make_loop(Part(), Disable(), recorder).train(1)
    assert ["part.around_run", "part.around_epoch", "disable.on_epoch_begin"] == recorder.calls


def test_several_of_them_surround_each_other_in_list_order():
    """The first in the list is the outermost one, and none is given its own methods."""
    calls = []
    one, two = Recorder("1 ", calls), Recorder("2 ", calls)
    make_loop(one, two, Part()).train(1)
    assert [f"{label} {call}" for call in CALLS for label in (1, 2)] == calls


def test_it_sees_components_that_join_in_mid_run():
    """What joins during a run is replaced too, its around-hooks also."""

    class Join(LoopComponent):
        def on_epoch_begin(self, loop):
            if "part" not in loop.components:
                loop.components.append(Part())

    recorder = Recorder()
    make_loop(Join(), recorder).train(1)
    assert ["join.on_epoch_begin", *CALLS] == recorder.calls


@pytest.mark.parametrize("trace", ["0", "1"])
@pytest.mark.parametrize("wrapper", [False, True])
def test_an_exception_is_attributed_to_the_component_that_raised_it(trace, wrapper, monkeypatch):
    """Its note names the component whose method was replaced."""

    class Failing(LoopComponent):
        if wrapper:

            @hookimpl(wrapper=True)
            def on_batch_end(self):
                yield
                raise ValueError("bad")
        else:

            def on_batch_end(self):
                raise ValueError("bad")

    monkeypatch.setenv("TTL_TRACE", trace)
    recorder = Recorder()
    with pytest.raises(ValueError, match="bad") as caught:
        make_loop(Part(), Failing(), recorder).train(1)
    assert "failing.on_batch_end" in recorder.calls
    assert "component 'failing'" in "".join(traceback.format_exception_only(caught.value))
