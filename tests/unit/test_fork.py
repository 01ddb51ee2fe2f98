"""fork(): a second loop in the same state."""

import random

import pytest
import torch
from states import assert_same_runs
from torch.utils.data import DataLoader, TensorDataset

from ttl_core import (
    ArgumentError,
    LoopComponent,
    RunError,
    SeededSampler,
    StateError,
    TrainTestLoop,
    use,
)
from ttl_core.testing import Step, tiny_data, tiny_loop, tiny_model


class Noise(LoopComponent):
    """Adds random numbers to the batch, as augmentation does."""

    def on_batch_begin(self, loop):
        inputs, targets = loop.batch
        loop.batch = inputs + torch.rand_like(inputs) * random.random(), targets


class At(LoopComponent):
    """Calls a function at a safe point by its number."""

    def __init__(self, n, function):
        self.n, self.function, self.n_seen = n, function, 0

    def on_safe_point(self, loop):
        self.n_seen += 1
        if self.n_seen == self.n:
            self.function(loop)

    def fork(self):
        return None


def loader():
    """Return data in a seeded order."""
    inputs = torch.cat([batch[0] for batch in tiny_data(3)])
    targets = torch.cat([batch[1] for batch in tiny_data(3)])
    dataset = TensorDataset(inputs, targets)
    return DataLoader(dataset, batch_size=6, sampler=SeededSampler(dataset))


def make_loop(*components, data=loader):
    """Return a loop with random numbers and state."""
    items = [Step(), Noise(), "metrics", use("ema", decay=0.2), *components]
    return TrainTestLoop(tiny_model(), items, data(), tiny_data(2))


def trained(loop):
    """Train a loop, and return it."""
    torch.manual_seed(2)
    random.seed(2)
    loop.train(n_epochs=3)
    return loop


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_a_fork_at_a_safe_point_trains_as_its_loop_does(n):
    """It ends in the same bits, and the loop in those of a run without a fork."""
    forks = []

    def train_fork(loop):
        fork = loop.fork()
        fork.train(n_epochs=3)
        forks.append(fork)

    loop = trained(make_loop(At(n, train_fork)))
    assert_same_runs(loop, trained(make_loop()))
    assert_same_runs(forks[0], loop)


def test_a_fork_is_trained_later():
    """Its state and random numbers are those of when it was made, whenever it is trained."""
    forks = []
    loop = trained(make_loop(At(2, lambda loop: forks.append(loop.fork()))))
    torch.rand(3)
    before = torch.get_rng_state(), random.getstate()
    forks[0].train(n_epochs=3)
    assert_same_runs(forks[0], loop)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_a_fork_before_training_begins_as_its_loop_does():
    """The call draws no random number, and the fork's run leaves those of the process."""
    torch.manual_seed(2)
    random.seed(2)
    loop = make_loop()
    fork = loop.fork()
    fork.train(n_epochs=3)
    loop.train(n_epochs=3)
    assert_same_runs(loop, fork)


def test_a_fork_between_two_runs_trains_as_the_second_does():
    """Counters and metrics are those of the loop."""
    loop = trained(make_loop(At(99, None)))
    fork = loop.fork()
    fork.train(n_epochs=1)
    loop.train(n_epochs=1)
    assert_same_runs(loop, fork)


def test_a_fork_in_on_train_begin_trains_as_the_run_does():
    """The train() of the fork is that of the loop."""
    forks = []

    class Begin(LoopComponent):
        def on_train_begin(self, loop):
            forks.append(loop.fork())

        def fork(self):
            return None

    loop = trained(make_loop(Begin()))
    forks[0].train(n_epochs=3)
    assert_same_runs(forks[0], loop)


def test_nothing_is_shared():
    """Neither parameters, components, nor the position of data."""
    loop = make_loop()
    fork = loop.fork()
    own = {p.data_ptr() for p in loop.model.parameters()}
    assert own.isdisjoint(p.data_ptr() for p in fork.model.parameters())
    assert not {id(c) for c in loop.components} & {id(c) for c in fork.components}
    fork.train(n_epochs=1)
    assert (loop.train_data.sampler.epoch, fork.train_data.sampler.epoch) == (0, 1)
    assert loop.train_data.dataset is fork.train_data.dataset


def test_configuration_that_names_parts_of_the_model_names_those_of_the_copy():
    """What a spec was given of the model is that of the fork's model there."""
    model = tiny_model()
    loop = TrainTestLoop(
        model,
        [
            use(
                "supervised",
                loss_func=torch.nn.functional.cross_entropy,
                optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            )
        ],
        tiny_data(),
    )
    fork = loop.fork()
    before = [p.clone() for p in model.parameters()]
    fork.train(n_epochs=1)
    assert all(map(torch.equal, before, model.parameters()))
    assert not torch.equal(before[0], next(iter(fork.model.parameters())))


def test_components_are_left_out_by_name():
    """Those that are named, and those whose fork() returns None."""
    loop = make_loop(At(1, None))
    loop.components.disable("metrics")
    fork = loop.fork(without=["ema"])
    assert fork.components.names() == ["step", "noise", "metrics"]
    assert not fork.components.is_enabled("metrics")


def test_an_unknown_name_is_refused():
    """With the one that is meant."""
    with pytest.raises(ArgumentError, match="Did you mean 'ema'"):
        make_loop().fork(without=["emma"])


def test_a_component_by_hand_that_may_change_has_to_say_how():
    """The error names the attribute, and both ways out."""

    class Memory(LoopComponent):
        def __init__(self):
            self.seen = []

    with pytest.raises(StateError, match=r"attribute 'seen' may change\. Give its class a method"):
        tiny_loop(Memory()).fork()


def test_a_component_that_returns_itself_is_refused():
    """Both loops would share it."""

    class Same(LoopComponent):
        def fork(self):
            return self

    with pytest.raises(StateError, match="has to return another component"):
        tiny_loop(Same()).fork()


def test_an_iterator_cannot_be_shared():
    """Both loops would take batches of it."""
    with pytest.raises(StateError, match="both would take batches"):
        make_loop(data=lambda: iter(tiny_data(3))).fork()


def test_it_is_refused_inside_an_epoch():
    """Components may be halfway through a batch there."""

    class Early(LoopComponent):
        def on_forward_pass(self, loop):
            loop.fork()

    with pytest.raises(RunError, match="Call it in on_safe_point, in on_train_begin"):
        tiny_loop(Early(), Step()).train(n_epochs=1)


def test_variables_that_a_script_sets_are_copied():
    """What does not change is the same object; the rest is a copy."""
    loop = make_loop()
    loop.loss_func, loop.limits, loop.note = torch.nn.CrossEntropyLoss(), [1, 2], "text"
    loop.train(n_epochs=1)
    fork = loop.fork()
    assert ([1, 2], "text") == (fork.limits, fork.note)
    assert fork.limits is not loop.limits
    assert not hasattr(fork, "batch")


def test_a_class_of_loops_with_other_arguments_is_refused():
    """With what it has to accept."""

    class Fixed(TrainTestLoop):
        def __init__(self, model):
            super().__init__(model, [Step()], tiny_data(1))

    with pytest.raises(StateError, match="Let its __init__ take these"):
        Fixed(tiny_model()).fork()


def test_attributes_in_slots_are_looked_at_too():
    """A fork would share what they hold."""

    class Slotted(LoopComponent):
        __slots__ = ("seen",)

        def __init__(self):
            self.seen = []

    with pytest.raises(StateError, match="its attribute 'seen' may change"):
        make_loop(Slotted()).fork()


def test_components_of_one_name_keep_it():
    """Their numbers are given by the list."""

    class Count(LoopComponent):
        pass

    fork = make_loop(Count(), Count()).fork()
    assert ["count", "count#2"] == fork.components.names()[-2:]


def test_a_fork_within_a_test_trains_as_the_next_train():
    """The train() before it has ended."""
    numbers = []

    class ForkInTest(LoopComponent):
        def on_test_begin(self, loop):
            numbers.append(loop.fork()._resumption.progress.train_num)

        def fork(self):
            return None

    loop = make_loop(ForkInTest())
    loop.train(n_epochs=1)
    loop.test(tiny_data(1))
    assert [1] == numbers
