"""The kit for authors: it finds each fault that it tests for, and accepts correct components."""

import random

import pytest
import torch

from ttl_core import LoopComponent, StateError, hookimpl
from ttl_core.testing import ComponentConformance, Step
from ttl_core.testing.probes import MOMENTS, PlannedError, Probe


class Quiet(LoopComponent):
    """A component without faults."""

    def on_batch_end(self, loop):
        self.seen = loop.batch_num


class TestQuiet(ComponentConformance):
    def make_components(self):
        return [Step(), Quiet()]


def kit_for(*components):
    """Return the kit for a step and components, the last of which is tested."""

    class Kit(ComponentConformance):
        def make_components(self):
            return [Step(), *(make() for make in components)]

    return Kit()


def component(**hooks):
    """Return a component class with these hooks."""
    return type("Bad", (LoopComponent,), hooks)


def test_finds_a_draw_from_the_global_generator_of_torch():
    """A component that draws from torch's global generator fails."""
    bad = component(on_batch_begin=lambda self, loop: torch.rand(1))
    with pytest.raises(AssertionError):
        kit_for(bad).test_leaves_random_streams_alone()


def test_finds_a_draw_from_the_global_generator_of_python():
    """A component that draws from Python's global generator fails."""
    bad = component(on_batch_begin=lambda self, loop: random.random() and None)
    with pytest.raises(AssertionError):
        kit_for(bad).test_leaves_random_streams_alone()


def test_finds_a_changed_module_mode():
    """A component that leaves a module in another mode fails."""
    bad = component(on_batch_begin=lambda self, loop: loop.model[1].eval() and None)
    with pytest.raises(AssertionError):
        kit_for(bad).test_leaves_modes_alone()


def test_finds_a_changed_grad_mode():
    """A component that leaves gradients enabled in validation fails."""
    bad = component(on_epoch_begin=lambda self, loop: torch.set_grad_enabled(True) and None)
    with pytest.raises(AssertionError):
        kit_for(bad).test_leaves_modes_alone()


def test_finds_exchanged_parameters():
    """A component that replaces parameters of the model fails."""

    def exchange(self, loop):
        loop.model[0].weight = torch.nn.Parameter(loop.model[0].weight.detach().clone())

    with pytest.raises(AssertionError):
        kit_for(component(on_train_begin=exchange)).test_leaves_modes_alone()


def test_finds_a_component_that_cannot_be_enabled_in_a_run():
    """A component that relies on having been called at the start of a run fails."""

    class Bad(LoopComponent):
        def on_train_begin(self, loop):
            self.count = 0

        def on_batch_end(self, loop):
            self.count += 1

    with pytest.raises(AttributeError):
        kit_for(Bad).test_can_be_toggled("on_epoch_begin", on=False)


def test_finds_a_component_that_cannot_be_stopped():
    """A component that is unusable after a stopped run fails."""

    class Bad(LoopComponent):
        is_open = False

        def on_epoch_begin(self, loop):
            assert not self.is_open
            self.is_open = True

        def on_epoch_end(self, loop):
            self.is_open = False

    with pytest.raises(AssertionError):
        kit_for(Bad).test_survives_stop("on_batch_begin", first=True)


def test_finds_a_component_that_swallows_exceptions():
    """A component that swallows the exceptions of others fails."""

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
    """A component that scales gradients by a number that gets smaller in each batch."""

    def __init__(self):
        self.scale = 1.0

    def on_backward_pass(self, loop):
        self.scale *= 0.9
        for parameter in loop.model.parameters():
            parameter.grad *= self.scale


class ShrinkingWithState(Shrinking):
    """The same component with a state."""

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


def test_finds_a_component_without_the_state_that_it_needs():
    """A component that needs a state and has none fails; with a state, it passes."""
    kit_for(ShrinkingWithState).test_resumes_exactly()
    with pytest.raises(AssertionError):
        kit_for(Shrinking).test_resumes_exactly()


def test_finds_state_that_cannot_be_saved():
    """A component whose state torch.load(weights_only=True) refuses fails."""
    bad = component(state_dict=lambda self: {"a": {1, self}}, load_state_dict=lambda self, _: None)
    with pytest.raises(StateError, match=r"bad\.a is builtins\.set"):
        kit_for(bad).test_resumes_exactly()


def test_finds_one_object_in_two_loops():
    """A factory that returns the same component for two loops fails."""
    one = Quiet()
    with pytest.raises(AssertionError):
        kit_for(lambda: one).test_is_created_for_each_loop()


def test_a_run_of_the_kit_reaches_every_point():
    """A full run of the kit with a step reaches every moment at which it can act."""
    seen = set()
    kit = kit_for()
    loop = kit._loop()
    loop.components.append(Probe(lambda loop, moment: seen.add(moment), *MOMENTS))
    kit._run_all(loop)
    assert set(MOMENTS) == seen
