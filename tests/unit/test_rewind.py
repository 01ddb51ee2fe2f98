"""rewind(): a run continues from an earlier state of itself."""

from functools import partial

import pytest
import torch
from states import assert_same_runs
from torch.utils.data import DataLoader, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from ttl_core import (
    ArgumentError,
    LoopComponent,
    RunError,
    SeededSampler,
    StateError,
    TrainTestLoop,
    hookimpl,
)
from ttl_core.testing import Step, tiny_data, tiny_loop, tiny_model


class Rewind(LoopComponent):
    """Takes a state at one safe point, and goes back to it once at another.

    Safe points are given by their number in the run, from 0.
    """

    def __init__(self, take_at, go_at, data="replay"):
        self.take_at, self.go_at, self.data = take_at, go_at, data
        self.n, self.state = 0, None

    def on_safe_point(self, loop):
        n, self.n = self.n, self.n + 1
        if n == self.take_at:
            self.state = loop.state_dict()
        if n == self.go_at:
            loop.rewind(self.state, self.data)


class Points(LoopComponent):
    """Records which hooks are called."""

    def __init__(self):
        self.called = []

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        self.called.append("enter")
        try:
            return (yield)
        finally:
            self.called.append("leave")

    def on_train_begin(self, loop):
        self.called.append("train_begin")

    def on_epoch_begin(self, loop):
        self.called.append(f"{loop.epoch_desc}_begin")

    def on_batch_begin(self, loop):
        self.called.append(loop.batch_num)

    def on_safe_point(self, loop):
        self.called.append("safe")


class Noise(LoopComponent):
    """Adds random numbers to the batch, as augmentation does."""

    def on_batch_begin(self, loop):
        inputs, targets = loop.batch
        loop.batch = inputs + torch.rand_like(inputs), targets


def trained(*components, **data):
    """Return a loop that was trained for three epochs."""
    torch.manual_seed(1)
    data = {"train_data": tiny_data(3), "valid_data": tiny_data(2), **data}
    loop = TrainTestLoop(tiny_model(), [Step(), Noise(), *components, "metrics"], **data)
    loop.train(n_epochs=3)
    return loop


@pytest.mark.parametrize(("take_at", "go_at"), [(0, 1), (1, 2), (2, 5), (3, 4), (0, 8), (7, 11)])
def test_replaying_comes_to_the_same_bits(take_at, go_at):
    """A run that goes back, inside an epoch or across some, ends as if it never had."""
    assert_same_runs(trained(Rewind(take_at, go_at)), trained())


def loader(num_workers=0, persistent=False):
    """Return data in a seeded order."""
    inputs = torch.cat([batch[0] for batch in tiny_data(3)])
    targets = torch.cat([batch[1] for batch in tiny_data(3)])
    dataset = TensorDataset(inputs, targets)
    return DataLoader(
        dataset,
        batch_size=6,
        sampler=SeededSampler(dataset),
        num_workers=num_workers,
        persistent_workers=persistent,
    )


@pytest.mark.parametrize(("num_workers", "persistent"), [(0, False), (1, True)])
def test_the_order_of_data_is_replayed(num_workers, persistent):
    """The epochs of a seeded sampler are those that they were, with persistent workers too."""

    def run(*components):
        data = loader(num_workers, persistent)
        return trained(*components, train_data=data, valid_data=loader(num_workers, persistent))

    assert_same_runs(run(Rewind(1, 6)), run())


def test_hooks_are_those_of_a_run_that_resumes():
    """The epoch is left and entered again; on_train_begin is not called, nor the safe point."""
    points = Points()
    loop = tiny_loop(Step(), points, Rewind(0, 1), n_batches=4, n_valid_batches=1)
    loop.train(n_epochs=1)
    begin = ["train_begin", "enter", "train_begin"]
    rewound = [*begin, 0, "safe", 1, "safe", "leave", "enter", "train_begin", 1, "safe"]
    tail = [2, "safe", 3, "leave", "safe", "enter", "valid_begin", 0, "leave", "safe"]
    assert points.called == rewound + tail


class Batches(LoopComponent):
    """Records the batches that are trained on, by epoch and number, with the step."""

    def __init__(self):
        self.seen = []

    def on_optim_step(self, loop):
        self.seen.append((loop.epoch_num, loop.batch_num, loop.global_step))


def test_skipping_continues_behind_the_current_batch():
    """Steps are undone, but the data continue: no batch is seen twice, none is left out."""
    seen = Batches()
    loop = tiny_loop(Step(), seen, Rewind(0, 1, "skip"), n_batches=4)
    loop.train(n_epochs=2)
    steps = [0, 1, 1, 2, 3, 4, 5, 6]
    batches = [(epoch, batch) for epoch in range(2) for batch in range(4)]
    assert seen.seen == [(*batch, step) for batch, step in zip(batches, steps, strict=True)]
    assert (loop.epoch_num, loop.global_step) == (2, 7)


def test_skipping_from_an_epoch_to_a_state_between_epochs():
    """The rest of the epoch follows, with what the state holds."""
    seen = Batches()
    loop = tiny_loop(Step(), seen, Rewind(3, 4, "skip"), "metrics")
    loop.train(n_epochs=2)
    assert seen.seen[2:] == [(0, 2, 2), (1, 0, 3), (1, 1, 3), (1, 2, 4)]
    assert loop.global_step == 5


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata's own
@pytest.mark.parametrize("make", [list, partial(StatefulDataLoader, batch_size=None)])
def test_skipping_from_the_end_of_an_epoch_into_it_ends_it_once_more(make):
    """Components get to log and step what is left of the epoch; no batch comes again."""
    ends = []

    class Ends(LoopComponent):
        def on_epoch_end(self, loop):
            ends.append((loop.epoch_desc, loop.epoch_num, loop.global_step))

    loop = tiny_loop(Step(), Ends(), Rewind(0, 2, "skip"), n_batches=3)
    loop.train_data, loop.valid_data = make(loop.train_data), None
    loop.train(n_epochs=2)
    assert [("train", 0, 3), ("train", 0, 1), ("train", 1, 4)] == ends


def test_skipping_uses_the_weights_of_the_state():
    """A skip equals a run by hand in which the batches in between did not exist."""
    loop = tiny_loop(Step(), Rewind(0, 2, "skip"), n_batches=5)
    loop.valid_data = None
    loop.train(n_epochs=1)
    first, _, _, *rest = tiny_data(5)
    plain = tiny_loop(Step())
    plain.train_data, plain.valid_data = [first, *rest], None
    plain.train(n_epochs=1)
    for one, other in zip(loop.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_state_is_used_again():
    """Neither rewinding nor what follows changes the state."""

    class Twice(LoopComponent):
        n, state = 0, None

        def on_safe_point(self, loop):
            if loop.global_step == 1 and self.state is None:
                self.state = loop.state_dict()
            if loop.global_step == 3 and self.n < 3:
                self.n += 1
                loop.rewind(self.state)

    assert_same_runs(trained(Twice()), trained())


def test_memory_of_a_state_is_used_again():
    """state_dict(out=...) keeps the newest state in the same memory, also between rewinds."""

    class Newest(LoopComponent):
        state, pointers, n = None, None, 0

        def on_safe_point(self, loop):
            if self.state is not None and loop.global_step in (2, 5) and self.n < 2:
                self.n += 1
                loop.rewind(self.state)
            self.state = loop.state_dict(out=self.state)
            pointers = [value.data_ptr() for value in self.state["model"].values()]
            assert self.pointers in (None, pointers)
            self.pointers = pointers

    newest = Newest()
    assert_same_runs(trained(newest), trained())
    assert newest.n == 2


def test_the_tensors_of_an_optimizer_stay_where_they_are():
    """Going back copies into the memory that an optimizer has, and allocates none."""

    class Watch(Rewind):
        memory = None

        def on_safe_point(self, loop):
            if self.n == self.go_at:
                self.memory = self.buffers(loop)
            if self.n == self.go_at + 1:
                assert self.buffers(loop) == self.memory
            super().on_safe_point(loop)

        @staticmethod
        def buffers(loop):
            states = loop.optimizer.state.values()
            return [state["momentum_buffer"].data_ptr() for state in states]

    trained(Watch(0, 1))


@pytest.mark.parametrize("point", ["on_batch_end", "on_epoch_end", "on_train_end"])
def test_it_is_refused_outside_of_safe_points(point):
    """Elsewhere components may be halfway through a batch."""

    class Late(LoopComponent):
        state = None

        def on_safe_point(self, loop):
            self.state = loop.state_dict()

    def call(self, loop):
        if self.state is not None:
            loop.rewind(self.state)

    setattr(Late, point, call)
    with pytest.raises(RunError, match="Call it in on_safe_point"):
        tiny_loop(Step(), Late()).train(n_epochs=2)


def test_it_is_refused_without_a_run():
    """What starts a run from a state is load_state_dict()."""
    with pytest.raises(RunError, match=r"load_state_dict\(\) before it"):
        tiny_loop(Step()).rewind({})


def test_a_state_of_another_train_is_refused():
    """The error says what to call instead, and the component that called gets it."""
    rewind = Rewind(0, None)
    loop = tiny_loop(Step(), rewind)
    loop.train(n_epochs=1)
    rewind.go_at = rewind.n
    with pytest.raises(StateError, match=r"taken in train\(\) number 1 .* but number 2 is under"):
        loop.train(n_epochs=1)


def test_a_state_of_another_model_is_refused_before_anything_changes():
    """The component may catch the error, and the run continues as it was."""

    class Careful(Rewind):
        error = None

        def on_safe_point(self, loop):
            if self.n == 1:
                self.state["model"]["extra"] = torch.ones(1)
            try:
                super().on_safe_point(loop)
            except StateError as error:
                self.error = str(error)

    careful = Careful(0, 1)
    assert_same_runs(trained(careful), trained())
    assert "the state has extra" in careful.error


def test_an_unknown_choice_is_refused():
    """There are two."""
    with pytest.raises(ArgumentError, match="replay"):
        tiny_loop(Step(), Rewind(0, 1, "repeat")).train(n_epochs=1)


def test_skipping_needs_an_order_that_can_be_repeated():
    """The error has the line to write."""
    data = loader()
    data = DataLoader(data.dataset, batch_size=6, shuffle=True)
    loop = tiny_loop(Step(), Between())
    loop.train_data = data
    with pytest.raises(StateError, match="SeededSampler"):
        loop.train(n_epochs=2)


class Between(LoopComponent):
    """Skips from the middle of an epoch to a state between epochs."""

    state = None

    def on_safe_point(self, loop):
        if not loop.is_training:
            self.state = loop.state_dict()
        elif self.state is not None:
            loop.rewind(self.state, "skip")


def test_stop_while_an_epoch_is_left_ends_the_run():
    """A wrapper that stops the run on its way out has the last word."""

    class Stop(LoopComponent):
        n = 0

        @hookimpl(wrapper=True)
        def around_epoch(self, loop):
            try:
                return (yield)
            finally:
                self.n += 1
                loop.stop()

    loop = tiny_loop(Stop(), Step(), Rewind(0, 1))
    loop.train(n_epochs=2)
    assert (loop.is_stopped, loop.global_step) == (True, 2)


def test_a_checkpointed_state_after_rewinding_resumes():
    """A state that is taken after a rewind is one of the run that never left."""

    class Keep(LoopComponent):
        states = ()

        def on_safe_point(self, loop):
            self.states = [*self.states, loop.state_dict()]

    keep = Keep()
    plain = trained()
    trained(Rewind(0, 5), keep)
    torch.manual_seed(1)
    loop = TrainTestLoop(
        tiny_model(), [Step(), Noise(), "metrics", Keep()], tiny_data(3), tiny_data(2)
    )
    loop.load_state_dict(keep.states[6])
    loop.train(n_epochs=3)
    assert_same_runs(loop, plain)


@pytest.mark.parametrize("take_at", [0, 2], ids=["inside an epoch", "between epochs"])
def test_after_a_rewind_that_fails_no_state_waits(take_at):
    """The next train() begins where this one has failed, not from the state."""

    class Fails(LoopComponent):
        def state_dict(self):
            return {"n": 1}

        def load_state_dict(self, state):
            raise StateError("it does not fit")

    loop = tiny_loop(Step(), Rewind(take_at, 4), Fails())
    with pytest.raises(StateError, match="it does not fit"):
        loop.train(n_epochs=3)
    assert not loop.has_loaded_state
    n_epochs = loop.epoch_num
    loop.components.remove("fails")
    loop.train(n_epochs=1)
    assert n_epochs + 1 == loop.epoch_num
