"""A component can read its state before train() resumes from it."""

from states import Holder, make_step_loop, take_state

from ttl_core import LoopComponent


class Read(LoopComponent):
    """A record of the state of another component, as it is known in on_train_begin."""

    def __init__(self, component):
        self.component = component

    def on_train_begin(self, loop):
        self.found = loop.loaded_state_of(self.component)


def read(state, holder):
    """Return what a run knows of the state of a component when it begins to resume."""
    reader = Read(holder)
    loop = make_step_loop(holder, reader)
    if state is not None:
        loop.load_state_dict(state, ignore=[holder.name])
    loop.train(n_epochs=2)
    return reader.found


def test_it_is_that_of_the_loaded_state():
    """Of the component of that name, before its load_state_dict() is called."""
    assert {"best": 7} == read(take_state(Holder(7)), Holder(0))


def test_it_is_a_copy():
    """Changing it changes nothing that is loaded."""
    holder = Holder([])

    class Change(LoopComponent):
        def on_train_begin(self, loop):
            loop.loaded_state_of(holder)["best"].append(1)

    loop = make_step_loop(holder, Change())
    loop.load_state_dict(take_state(Holder([5])))
    loop.train(n_epochs=2)
    assert [5] == holder.value


def test_there_is_none_without_a_loaded_state():
    """Nor where the state has none of the component."""
    assert read(None, Holder(0)) is None
    assert read(take_state(), Holder(0)) is None


def test_there_is_none_where_the_state_is_of_a_version_that_cannot_be_read():
    """Which is an error when it is loaded, unless it is ignored."""
    state = take_state(Holder(7))
    state["state_versions"]["holder"] = 2
    assert read(state, Holder(0)) is None
