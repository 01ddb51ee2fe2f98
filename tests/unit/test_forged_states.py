"""C10: what is not as state_dict() returned it is an error about the state, and nothing raw."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from states import Holder, make_step_loop, take_state

from ttl_core import LoopComponent, StateError, TTLError

pytestmark = pytest.mark.usefixtures("one_thread")

REMOVED = object()


class Stepping(LoopComponent):
    """A component with a loop variable that has state."""

    def on_train_begin(self, loop):
        loop.kept = Holder()


def paths_of(value, path=()):
    """Yield the paths to all values in a state but those of weights and of random numbers."""
    items = value.items() if isinstance(value, dict) else []
    if isinstance(value, list | tuple) and len(value) < 10:
        items = enumerate(value)
    for key, item in items:
        yield (*path, key)
        # what schedulers hold, and optimizers for a parameter, is theirs
        if key not in ("model", "components", "scheduler") and path[2:] != ("state",):
            yield from paths_of(item, (*path, key))


def changed(state, path, value):
    """Return a copy of a state with one value changed, or None where it cannot be."""
    state = at = copy.deepcopy(state)
    for key in path[:-1]:
        at = at[key]
    if isinstance(at, tuple):
        return None
    if value is REMOVED:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return state


@pytest.mark.parametrize("index", [0, -1], ids=["inside an epoch", "between epochs"])
def test_a_forged_value_is_never_a_raw_error(index):
    """At every path of a state, each kind of value resumes or is an error of ttl's own."""
    state = take_state(Stepping(), n_epochs=2, index=index)
    refused, raw = 0, []
    for path in paths_of(state):
        for value in (REMOVED, None, -1, "text", {}):
            forged = changed(state, path, value)
            if forged is None:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    loop = make_step_loop(Stepping())
                    loop.load_state_dict(forged)
                    loop.train(2)
            except TTLError:
                refused += 1
            except Exception as error:
                raw.append((path, value, repr(error)))
    assert ([], True) == (raw, refused > 50)


def test_the_error_names_the_part_of_the_state():
    """It says which part it is, with the error that it caused."""
    state = take_state()
    del state["random"]["torch"]
    loop = make_step_loop()
    loop.load_state_dict(state)
    with pytest.raises(StateError) as caught:
        loop.train(2)
    assert (
        "the random numbers of the state cannot be restored: KeyError: 'torch'. It is not as "
        "state_dict() returned it"
    ) == str(caught.value)


def test_the_position_is_checked_when_a_state_is_loaded():
    """A position that no loop writes is refused by load_state_dict()."""
    state = take_state()
    state["position"] = {**state["position"], "train_num": "1"}
    with pytest.raises(StateError) as caught:
        make_step_loop().load_state_dict(state)
    assert (
        "position['train_num'] of the state is '1', but has to be of type int. It is not as "
        "state_dict() returned it"
    ) == str(caught.value)


@pytest.mark.parametrize(
    "forged",
    [{"position": -1}, {"position": 10**9}, {"keys": torch.zeros(3, dtype=torch.int64)}],
    ids=lambda forged: next(iter(forged)),
)
def test_numpy_is_given_no_state_that_it_has_not(forged):
    """It takes any, and reads memory that is not its own when it draws."""
    state = take_state()
    state["random"]["numpy"].update(forged)
    loop = make_step_loop()
    loop.load_state_dict(state)
    with pytest.raises(StateError, match="NumPy has no state of"):
        loop.train(2)
