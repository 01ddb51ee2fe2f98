"""repr() of a component: its class, and what was given for its arguments."""

import torch

from ttl_core import LoopComponent


class Decay(LoopComponent):
    """A component with arguments."""

    def __init__(self, rate, *, every=1, model=None):
        self.rate = rate
        self.every = every
        self.model = model


def test_shows_what_differs_from_the_defaults():
    """Arguments that are attributes are shown, but defaults are not."""
    assert "Decay(rate=0.5)" == repr(Decay(0.5))
    assert "Decay(rate=0.5, every=2)" == repr(Decay(0.5, every=2))


def test_is_short():
    """A value with a long repr is shown by its type."""
    assert "Decay(rate=0, model=a Sequential)" == repr(
        Decay(0, model=torch.nn.Sequential(*[torch.nn.Linear(9, 9) for _ in range(99)]))
    )


def test_a_component_without_arguments_is_its_class():
    """Without arguments there is the name of the class alone."""
    assert "LoopComponent()" == repr(LoopComponent())
