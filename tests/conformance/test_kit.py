"""The kit finds what it is there to find, and lets pass what is right."""

import random

import pytest
import torch

from ttl_core import LoopComponent, StateError, hookimpl
from ttl_core.testing import MOMENTS, ComponentConformance, PlannedError, Probe, Step


class Quiet(LoopComponent):
    """Do nothing wrong."""

    def on_batch_end(self, loop):
        self.seen = loop.batch_num


class TestQuiet(ComponentConformance):
    def make_components(self):
        return [Step(), Quiet()]


def kit_for(*components):
    """Return the kit for a step and components, the last of them under test."""

    class Kit(ComponentConformance):
        def make_components(self):
            return [Step(), *(make() for make in components)]

    return Kit()


def component(**hooks):
    """Return a component class with these hooks."""
    return type("Bad", (LoopComponent,), hooks)


def test_finds_a_draw_from_the_global_generator_of_torch():
    """A component that draws from torch's global generator is found."""
    bad = component(on_batch_begin=lambda self, loop: torch.rand(1))
    with pytest.raises(AssertionError):
        kit_for(bad).test_leaves_random_streams_alone()


def test_finds_a_draw_from_the_global_generator_of_python():
    """A component that draws from Python's global generator is found."""
    bad = component(on_batch_begin=lambda self, loop: random.random() and None)
    with pytest.raises(AssertionError):
        kit_for(bad).test_leaves_random_streams_alone()


def test_finds_a_changed_module_mode():
    """A component that leaves a module in another mode is found."""
    bad = component(on_batch_begin=lambda self, loop: loop.model[1].eval() and None)
    with pytest.raises(AssertionError):
        kit_for(bad).test_leaves_modes_alone()


def test_finds_a_changed_grad_mode():
    """A component that leaves gradients on in validation is found."""
    bad = component(on_epoch_begin=lambda self, loop: torch.set_grad_enabled(True) and None)
    with pytest.raises(AssertionError):
        kit_for(bad).test_leaves_modes_alone()


def test_finds_exchanged_parameters():
    """A component that puts other parameters into the model is found."""

    def exchange(self, loop):
        loop.model[0].weight = torch.nn.Parameter(loop.model[0].weight.detach().clone())

    with pytest.raises(AssertionError):
        kit_for(component(on_train_begin=exchange)).test_leaves_modes_alone()


def test_finds_what_breaks_when_it_comes_on_late():
    """A component that relies on having seen the start of a run is found."""

    class Bad(LoopComponent):
        def on_train_begin(self, loop):
            self.count = 0

        def on_batch_end(self, loop):
            self.count += 1

    with pytest.raises(AttributeError):
        kit_for(Bad).test_comes_on_and_off("on_epoch_begin", on=False)


def test_finds_what_survives_no_stop():
    """A component that is left unusable by a stopped run is found."""

    class Bad(LoopComponent):
        is_open = False

        def on_epoch_begin(self, loop):
            assert not self.is_open
            self.is_open = True

        def on_epoch_end(self, loop):
            self.is_open = False

    with pytest.raises(AssertionError):
        kit_for(Bad).test_survives_stop("on_batch_begin", first=True)


def test_finds_what_swallows_exceptions():
    """A component that swallows the exceptions of others is found."""

    class Bad(LoopComponent):
        @hookimpl(wrapper=True)
        def on_batch_end(self, loop):
            try:
                return (yield)
            except PlannedError:
                return None

    with pytest.raises(AssertionError, match="swallowed"):
        kit_for(Bad).test_survives_an_exception("on_batch_end", first=True)


class Shrinking(LoopComponent):
    """Scale gradients by a number that it counts down itself."""

    def __init__(self):
        self.scale = 1.0

    def on_backward_pass(self, loop):
        self.scale *= 0.9
        for parameter in loop.model.parameters():
            parameter.grad *= self.scale


class ShrinkingWithState(Shrinking):
    """Do the same, and remember it."""

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


def test_finds_what_is_not_remembered_when_a_run_goes_on():
    """A component that needs state and has none is found; with it, it passes."""
    kit_for(ShrinkingWithState).test_goes_on_exactly()
    with pytest.raises(AssertionError):
        kit_for(Shrinking).test_goes_on_exactly()


def test_finds_state_that_cannot_be_saved():
    """A component whose state torch.load(weights_only=True) refuses is found."""
    bad = component(state_dict=lambda self: {"a": {1, self}}, load_state_dict=lambda self, _: None)
    with pytest.raises(StateError, match=r"bad\.a is builtins\.set"):
        kit_for(bad).test_goes_on_exactly()


def test_finds_one_object_in_two_loops():
    """A factory that gives the same component to two loops is found."""
    one = Quiet()
    with pytest.raises(AssertionError):
        kit_for(lambda: one).test_is_made_anew()


def test_acts_at_every_point_that_a_run_has():
    """A full run of the kit with a step passes every moment at which it can act."""
    seen = set()
    kit = kit_for()
    loop = kit._loop()
    loop.components.append(Probe(lambda loop, moment: seen.add(moment), *MOMENTS))
    kit._run_all(loop)
    assert set(MOMENTS) == seen
