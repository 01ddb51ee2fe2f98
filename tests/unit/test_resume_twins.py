"""Several components of one name: each resumes from its own state, or none does."""

from __future__ import annotations

import re

import pytest
import torch
from states import is_same, make_step_loop, resume, take_state, through_file

from ttl_core import LoopComponent, StateError, use

pytestmark = pytest.mark.usefixtures("one_thread")


class Average(LoopComponent):
    """A component whose state follows from its configuration.

    Args:
        decay: its configuration.
        name: its name in a list.
    """

    def __init__(self, decay, name=None):
        self.decay, self.name = decay, name
        self.loaded = None
        self.generator = torch.Generator().manual_seed(int(100 * decay))

    def state_dict(self):
        return {"of": self.decay}

    def load_state_dict(self, state):
        self.loaded = state["of"]


def loaded(state, *components, **options):
    """Return what components have loaded when a run resumes from a state."""
    resume(state, *components, n_epochs=1, **options)
    return [component.loaded for component in components]


def taken(*decays):
    """Return a state of several averages, as it is read from a file."""
    return through_file(take_state(*map(Average, decays)))


@pytest.mark.parametrize("decays", [(0.9, 0.99), (0.99, 0.9)], ids=["as before", "swapped"])
def test_states_belong_to_the_same_configuration(decays):
    """Two that were swapped in the script are not swapped in their states."""
    assert list(decays) == loaded(taken(0.9, 0.99), *map(Average, decays))


def test_names_and_numbers_do_not_matter():
    """With names of their own, they are still found by configuration."""
    slow, fast = Average(0.99, name="slow"), Average(0.9, name="fast")
    assert [0.99, 0.9] == loaded(taken(0.9, 0.99), slow, fast)


def test_three_of_two_configurations_are_found():
    """Those of one configuration are in the order in which they were."""
    state = taken(0.9, 0.99, 0.9)
    for i in (1, 3):
        state["components"]["average#3" if i == 3 else "average"]["of"] = i
    assert [0.99, 1, 3] == loaded(state, Average(0.99), Average(0.9), Average(0.9))


def test_random_numbers_belong_to_the_same_configuration():
    """Generators in their attributes are restored with them."""
    first, second = Average(0.9), Average(0.99)
    first.generator.manual_seed(1)
    second.generator.manual_seed(2)
    state = take_state(first, second)
    swapped = Average(0.99), Average(0.9)
    resume(state, *swapped, n_epochs=1)
    assert [2, 1] == [component.generator.initial_seed() for component in swapped]


def test_what_is_left_over_is_named_as_in_the_state():
    """The error names the state that none belongs to, and its advice drops that one."""
    state = taken(0.9, 0.99)
    with pytest.raises(StateError) as caught:
        loaded(state, Average(0.99))
    assert "the state holds component 'average' (" in str(caught.value)
    (advice,) = re.findall(r"ignore=\['(.*)'\]", str(caught.value))
    assert [0.99] == loaded(state, Average(0.99), ignore=[advice])


def test_one_that_is_new_is_named_as_in_the_script():
    """A second one before it takes its name, not its state."""
    state = taken(0.9)
    with pytest.raises(StateError, match=r"component 'average' .* has state, but the state holds"):
        loaded(state, Average(0.99), Average(0.9))
    assert [None, 0.9] == loaded(state, Average(0.99), Average(0.9), ignore=["average"])


def test_one_of_them_may_change_its_configuration():
    """As for a single one, its name then tells which it is, as the others are found."""
    assert [0.9, 0.99] == loaded(taken(0.9, 0.99), Average(0.5), Average(0.99))


@pytest.mark.parametrize(
    ("new", "saved_left", "new_left"),
    [
        (
            (0.5, 0.6),
            "'average' decay=0.9, 'average#2' decay=0.99",
            "'average' decay=0.5, 'average#2' decay=0.6",
        ),
        ((0.99, 0.5), "'average' decay=0.9", "'average#2' decay=0.5"),
        ((0.5,), "'average' decay=0.9, 'average#2' decay=0.99", "'average' decay=0.5"),
    ],
    ids=["both changed", "swapped and changed", "removed and changed"],
)
def test_what_cannot_be_told_apart_is_refused(new, saved_left, new_left):
    """The error has both sides; the saved configuration, and to start from scratch, both work."""
    state = taken(0.9, 0.99)
    with pytest.raises(StateError) as caught:
        loaded(state, *map(Average, new))
    left = sorted({*re.findall(r"'(average\S*)'", saved_left + new_left)})
    assert str(caught.value) == (
        "the state does not tell which of several Average is which, as their configuration has "
        f"changed:\n    saved: {saved_left}\n    new: {new_left}\n"
        f"Resume with the saved configuration, or without these states: ignore={left}. Names of "
        "their own tell them apart from then on, whatever their configuration is: "
        "use(..., name=...), or the attribute `name`"
    )
    assert [0.9, 0.99] == loaded(state, Average(0.9), Average(0.99))
    found = loaded(state, *map(Average, new), ignore=left)
    assert [decay if decay == 0.99 else None for decay in new] == found


def test_names_of_their_own_tell_them_apart():
    """With names of their own they are themselves whatever their configuration is."""
    state = take_state(Average(0.9, name="fast"), Average(0.99, name="slow"))
    again = Average(0.5, name="slow"), Average(0.6, name="fast")
    assert [0.99, 0.9] == loaded(state, *again)


def test_installed_components_are_found_by_what_use_was_given():
    """The configuration is that of the manifest."""
    one, other = use("ema", decay=0.9), use("ema", decay=0.99)
    state = take_state(one, other, n_epochs=2, index=-1)
    loop = make_step_loop(other, one)
    loop.load_state_dict(state)
    loop.train(2)
    expected = state["components"]
    assert is_same(expected["ema"], loop.components["ema#2"].state_dict())
    assert is_same(expected["ema#2"], loop.components["ema"].state_dict())
    assert not is_same(expected["ema"], expected["ema#2"])


def test_a_test_before_training_finds_them_too():
    """test() uses the states of the same configuration."""
    components = Average(0.99), Average(0.9)
    loop = make_step_loop(*components)
    loop.load_state_dict(taken(0.9, 0.99))
    loop.test(loop.train_data)
    assert [0.99, 0.9] == [component.loaded for component in components]
