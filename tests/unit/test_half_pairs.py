"""state_dict() without load_state_dict(), or the reverse: never ignored silently."""

from __future__ import annotations

import pytest
from loops import make_component
from recording import StateRecorder, messages_of
from states import make_step_loop

from ttl_core import ComponentRejectedError, LoopComponent


class Half:
    """An object with one of the two methods of state."""

    def state_dict(self):
        return {}


def test_a_component_that_only_returns_its_state_is_refused():
    """It cannot join, and the error has the line to write."""
    part = make_component(state_dict=dict)
    with pytest.raises(ComponentRejectedError) as caught:
        make_step_loop(part)
    expected = (
        "component 'part' (class loops.Part) cannot join: it has state_dict() but no "
        "load_state_dict(), so its state would be lost when a run resumes. Write both, or give "
        "that one another name:\n    def load_state_dict(self, state):"
    )
    assert expected == str(caught.value)


def test_a_component_that_only_loads_its_state_is_refused():
    """It cannot join later either, and the list stays as it was."""
    loop = make_step_loop()
    with pytest.raises(ComponentRejectedError, match=r"no state_dict\(\)"):
        loop.components.append(make_component(load_state_dict=print))
    assert ["step"] == loop.components.names()


@pytest.mark.parametrize("n_epochs", [1, 2])
def test_a_loop_variable_with_half_a_pair_is_warned_of(n_epochs):
    """The first state that is taken gives one warning, which names the variable and its class."""

    class Set(LoopComponent):
        def on_train_begin(self, loop):
            loop.half = Half()

    loop = make_step_loop(Set(), StateRecorder())
    expected = (
        "loop variables are part of a state if they have both methods of state. Not saved: "
        "'half', a Half, has state_dict() but no load_state_dict()"
    )
    assert [expected] == messages_of(lambda: loop.train(n_epochs), UserWarning)
