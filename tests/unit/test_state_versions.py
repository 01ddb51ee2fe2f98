"""state_version and upgrade_state(): the states of other versions of a component."""

from __future__ import annotations

import pytest
from states import make_data, make_step_loop, resume, take_state, through_file

from ttl_core import ComponentRejectedError, LoopComponent, StateError, use

pytestmark = pytest.mark.usefixtures("one_thread")


class Best(LoopComponent):
    """A component with a state of one value, in its first version."""

    name = "best"

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


class LaterBest(Best):
    """The same in its third version, which reads the first two."""

    state_version = 3

    def state_dict(self):
        return {"values": [self.value]}

    def load_state_dict(self, state):
        (self.value,) = state["values"]

    def upgrade_state(self, state, from_version):
        if from_version == 1:
            state["best"] = state.pop("value")
        return {"values": [state["best"]]}


def of_release(state, version):
    """Return a state as if the component had been installed in a version of a distribution."""
    record = next(record for record in state["manifest"] if record["name"] == "best")
    record.update(distribution="acme-ttl", version=version)
    return state


def test_versions_are_in_the_state():
    """Each component with state has one, 1 if it declares none."""
    assert {"best": 1, "best#2": 3} == take_state(Best(), LaterBest())["state_versions"]


def test_a_state_of_the_same_version_is_not_upgraded():
    """It is loaded as it was returned."""
    loop = resume(through_file(take_state(LaterBest(5))), LaterBest())
    assert 5 == loop.components["best"].value


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_state_is_upgraded(version):
    """The component is given the state and its version, and loads what it returns."""
    state = take_state(Best(5))
    if version == 2:
        state["state_versions"]["best"] = 2
        state["components"]["best"] = {"best": 5}
    assert 5 == resume(state, LaterBest()).components["best"].value


def test_a_state_without_versions_is_of_the_first_one():
    """States that earlier versions of ttl-core saved are upgraded too."""
    state = take_state(Best(5))
    del state["state_versions"]
    assert 5 == resume(state, LaterBest()).components["best"].value


def test_an_upgrade_does_not_change_the_state():
    """A test before training upgrades a copy, and training once more."""
    loop = make_step_loop(LaterBest())
    loop.load_state_dict(take_state(Best(5)))
    loop.test(make_data(1))
    loop.train(2)
    assert 5 == loop.components["best"].value


def test_a_later_state_is_refused():
    """The error says which distribution and version to install, before anything is loaded."""
    state = of_release(take_state(LaterBest(5)), "2.1")
    with pytest.raises(StateError) as caught:
        resume(state, Best())
    expected = (
        f"component 'best' (class {__name__}.Best) cannot load its state of version 3, "
        "which is later than version 1, the one that this component reads. Install what saved it: "
        "pip install 'acme-ttl==2.1'. Or start it from scratch: ignore=['best']"
    )
    assert expected == str(caught.value)


def test_an_older_state_without_an_upgrade_is_refused():
    """The error says what is missing, and which class wrote the state if it is not installed."""

    class Abandoned(Best):
        state_version = 2

    with pytest.raises(StateError) as caught:
        resume(take_state(Best()), Abandoned())
    expected = (
        "cannot load its state of version 1, which is older than version 2, and this component has "
        f"no upgrade_state(). Use the class of that time, {__name__}.Best. Or start it "
        "from scratch: ignore=['best']"
    )
    assert str(caught.value).endswith(expected)


def test_a_state_of_an_unknown_version_can_be_ignored():
    """The component then starts from scratch."""
    assert 7 == resume(take_state(LaterBest(5)), Best(7), ignore=["best"]).components["best"].value


def test_an_upgrade_that_returns_nothing_is_an_error():
    """The error names the method, which has to return the state."""

    class Forgetful(LaterBest):
        def upgrade_state(self, state, from_version):
            state["values"] = [state.pop("value")]

    with pytest.raises(StateError, match=r"its upgrade_state\(\) returned None, but has to return"):
        resume(take_state(Best()), Forgetful())


def test_an_upgrade_that_fails_is_attributed():
    """The exception passes unchanged, with a note."""

    class Fragile(LaterBest):
        def upgrade_state(self, state, from_version):
            return state["absent"]

    with pytest.raises(KeyError) as caught:
        resume(take_state(Best()), Fragile())
    assert ["in upgrade_state"] == [note[-16:] for note in caught.value.__notes__]


@pytest.mark.parametrize("version", [0, "2", True, None])
def test_a_version_that_is_no_number_is_refused(version):
    """The component cannot join, and the error has the value."""
    part = type("Part", (LoopComponent,), {"state_version": version})()
    with pytest.raises(ComponentRejectedError) as caught:
        make_step_loop(part)
    expected = f"cannot join: its state_version is {version!r}, but has to be a whole number from 1"
    assert str(caught.value).endswith(expected)


def test_a_checkpoint_is_upgraded(tmp_path):
    """A run that resumes from a directory upgrades what an earlier version saved there."""

    def train(component, n_epochs):
        checkpoint = use("checkpoint", directory=tmp_path)
        loop = make_step_loop(component, checkpoint)
        loop.train(n_epochs)
        return loop

    train(Best(5), 1)
    loop = train(LaterBest(), 2)
    assert (5, 6) == (loop.components["best"].value, loop.global_step)
