"""What `supervised` does."""

from collections import namedtuple
from functools import partial

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, TTLError, use

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
MSE = torch.nn.MSELoss()
Pair = namedtuple("Pair", "inputs targets")


def make_data(n_batches=4):
    """Return batches for a model of two features and one score."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 2, generator=generator), torch.randn(8, 1, generator=generator))
        for _ in range(n_batches)
    ]


def make_model():
    """Return the same small model each time."""
    torch.manual_seed(0)
    return torch.nn.Linear(2, 1)


def make_loop(*others, data=None, valid_data=None, **config):
    """Return a loop with `supervised` and other components."""
    config = {"loss_func": MSE, "optimizer": SGD, **config}
    return TrainTestLoop(
        make_model(), [use("supervised", **config), *others], data or make_data(), valid_data
    )


def trained_by_hand(n_epochs, scheduler=None):
    """Return the weights that a hand-written loop arrives at."""
    model, data = make_model(), make_data()
    optimizer = SGD(model.parameters())
    scheduler = scheduler and scheduler(optimizer, n_epochs * len(data))
    for _ in range(n_epochs):
        for inputs, targets in data:
            optimizer.zero_grad()
            MSE(model(inputs), targets).backward()
            optimizer.step()
            if scheduler:
                scheduler.step()
    return model.state_dict()


def assert_same(one, other):
    """Check that two state dicts hold the same bits."""
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_trains_to_the_same_bits_as_a_loop_written_by_hand():
    """Weights are exactly those of the loop that one would write by hand."""
    loop = make_loop()
    loop.train(3)
    assert_same(trained_by_hand(3), loop.model.state_dict())


def test_gives_a_scheduler_factory_the_number_of_steps():
    """A scheduler made by a factory spans just the steps of the run."""
    decay = lambda optimizer, n: torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, n)  # noqa: E731
    loop = make_loop(scheduler=decay)
    loop.train(3)
    assert_same(trained_by_hand(3, decay), loop.model.state_dict())
    assert loop.scheduler.get_last_lr() == [0.0]


def test_steps_a_scheduler_once_an_epoch_where_told():
    """With scheduler_interval="epoch" the learning rate changes between epochs only."""
    loop = make_loop(
        scheduler=lambda optimizer, _: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
        scheduler_interval="epoch",
        valid_data=make_data(1),
    )
    loop.train(2)
    assert loop.scheduler.get_last_lr() == [0.025]


def test_takes_an_optimizer_that_is_made_already():
    """An optimizer instance is used as it is, in every train()."""
    model = make_model()
    optimizer = SGD(model.parameters())
    loop = TrainTestLoop(
        model, [use("supervised", loss_func=MSE, optimizer=optimizer)], make_data()
    )
    loop.train(1)
    loop.train(1)
    assert loop.optimizer is optimizer


def test_makes_a_new_optimizer_in_each_train():
    """A factory starts each train() with fresh optimizer state, as the seed's example does."""
    loop = make_loop()
    loop.train(1)
    first = loop.optimizer
    loop.train(1)
    assert loop.optimizer is not first


@pytest.mark.parametrize(
    "kind",
    [
        lambda inputs, targets: (inputs, targets),
        lambda inputs, targets: [inputs, targets],
        lambda inputs, targets: {"inputs": inputs, "targets": targets},
        Pair,
    ],
    ids=["tuple", "list", "dict", "namedtuple"],
)
def test_finds_inputs_and_targets(kind):
    """Pairs and mappings of inputs and targets need no configuration."""
    loop = make_loop(data=[kind(*batch) for batch in make_data()])
    loop.train(3)
    assert_same(trained_by_hand(3), loop.model.state_dict())


def test_splits_any_batch_with_a_function():
    """A split function takes whatever the data yield."""
    data = [{"x": {"deep": inputs}, "y": targets} for inputs, targets in make_data()]
    loop = make_loop(data=data, split=lambda batch: (batch["x"]["deep"], batch["y"]))
    loop.train(3)
    assert_same(trained_by_hand(3), loop.model.state_dict())


def test_moves_nested_batches_to_the_device():
    """Every tensor of a nested batch arrives on the device, and its containers keep their kind."""

    class Look(LoopComponent):
        def on_batch_end(self, loop):
            self.batch = loop.batch

    look = Look()
    batch = Pair({"a": [torch.ones(2, 2)], "b": "text"}, torch.ones(2, 1))
    loop = make_loop(
        look, data=[batch], device="meta", split=lambda batch: (batch.inputs["a"][0], batch.targets)
    )
    loop.train(1)
    assert type(look.batch) is Pair
    assert [torch.device("meta")] * 2 == [
        look.batch.inputs["a"][0].device,
        look.batch.targets.device,
    ]
    assert look.batch.inputs["b"] == "text"


def test_tests_batches_without_targets():
    """In testing, targets may be missing: then there are scores and no loss."""
    loop = make_loop()
    loop.train(1)
    loop.test([inputs for inputs, _ in make_data()])
    assert loop.loss is None
    assert loop.scores.shape == (8, 1)


def test_refuses_training_batches_without_targets():
    """In training, missing targets are an error that shows how to say where they are."""
    with pytest.raises(ValueError, match="split=function"):
        make_loop(data=[inputs for inputs, _ in make_data()]).train(1)


def test_logs_the_loss_of_each_batch():
    """Each batch logs its loss, detached, under the name of its phase."""

    class Look(LoopComponent):
        def __init__(self):
            self.logged = []

        def on_log(self, metrics, level):
            self.logged.append(
                (level, {name: value.requires_grad for name, value in metrics.items()})
            )

    look = Look()
    make_loop(look, data=make_data(2), valid_data=make_data(1)).train(1)
    train, valid = {"train/loss": False}, {"valid/loss": False}
    assert [("batch", train), ("batch", train), ("batch", valid)] == look.logged


def test_explains_that_it_came_on_in_mid_batch():
    """Switched on between the forward and the backward pass it raises an error of ttl's."""

    class Late(LoopComponent):
        def on_forward_pass(self, loop):
            loop.components.enable("supervised")

    loop = make_loop(Late())
    loop.components.disable("supervised")
    with pytest.raises(TTLError, match="in the middle of a batch"):
        loop.train(1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"loss_func": torch.nn.MSELoss}, "loss_func"),
        ({"loss_func": "mse"}, "loss_func"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"scheduler": "cosine"}, "scheduler"),
        ({"scheduler_interval": "batch"}, "neither 'step' nor 'epoch'"),
        ({"device": "quantum"}, "quantum"),
    ],
)
def test_refuses_wrong_configuration_before_work_starts(config, message):
    """What cannot work is refused when the component is made, naming the argument."""
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        make_loop(**config)


def test_refuses_a_made_scheduler_for_an_optimizer_yet_to_be_made():
    """A scheduler instance belongs to an optimizer, so a factory of another one is refused."""
    scheduler = torch.optim.lr_scheduler.StepLR(SGD(make_model().parameters()), 1)
    with pytest.raises(TypeError, match="factory"):
        make_loop(scheduler=scheduler)
