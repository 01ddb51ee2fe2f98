"""What `limit-batches` does."""

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, hookimpl, use


class Look(LoopComponent):
    """Note the batches and what the loop takes for their number."""

    def __init__(self):
        self.seen = {}
        self.n_batches = {}

    def on_train_begin(self, loop):
        self.n_optim_steps = loop.n_optim_steps

    def on_batch_end(self, loop):
        self.seen.setdefault(loop.epoch_desc, []).append(loop.batch)
        self.n_batches[loop.epoch_desc] = loop.n_batches


class Stream:
    """Be data without a length that count how many batches were taken."""

    def __init__(self):
        self.n_taken = 0

    def __iter__(self):
        for batch in range(5):
            self.n_taken += 1
            yield batch


def ran(data=range(5), n_epochs=1, others=(), **config):
    """Return what was seen in a run with limits."""
    look = Look()
    components = [look, *others, use("limit-batches", **config)]
    loop = TrainTestLoop(torch.nn.Identity(), components, data, range(10, 14))
    loop.train(n_epochs=n_epochs)
    loop.test(range(20, 23))
    return look


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        ({"n": 2}, (2, 2, 2)),
        ({"train": 3, "valid": 1}, (3, 1, 3)),
        ({"n": 2, "test": 1}, (2, 2, 1)),
        ({"n": 100}, (5, 4, 3)),
        ({}, (5, 4, 3)),
    ],
)
def test_goes_through_the_first_batches_of_each_phase(config, numbers):
    """Each phase has its limit, or the one for all; n_batches follows."""
    look = ran(**config)
    train, valid, test = numbers
    expected = {
        "train": list(range(train)),
        "valid": list(range(10, 10 + valid)),
        "test": list(range(20, 20 + test)),
    }
    assert (expected, dict(zip(expected, numbers, strict=True))) == (look.seen, look.n_batches)


@pytest.mark.parametrize(("limit", "expected"), [(2, 6), (None, 15), (100, 15)])
def test_number_of_optimization_steps_is_right_when_schedulers_are_built(limit, expected):
    """A component before it in the list that builds a scheduler sees the smaller number."""
    assert expected == ran(n_epochs=3, train=limit).n_optim_steps


@pytest.mark.parametrize("place", [0, 9])
def test_number_of_optimization_steps_is_right_with_accumulation(place):
    """Whoever accumulates, before or after it in the list, divides the smaller number."""

    class Accumulate(LoopComponent):
        @hookimpl(wrapper=True)
        def on_train_begin(self, loop):
            loop.n_optim_steps = loop.n_epochs * -(-loop.n_optim_steps // loop.n_epochs // 2)
            return (yield)

    look = Look()
    loop = TrainTestLoop(torch.nn.Identity(), [look, Accumulate()], range(50))
    loop.components.insert(place, use("limit-batches", train=5))
    loop.train(n_epochs=3)
    assert 9 == look.n_optim_steps


def test_a_run_by_steps_keeps_its_number():
    """Where steps are given, shorter epochs make no fewer of them."""
    look = Look()
    loop = TrainTestLoop(
        torch.nn.Identity(), [look, use("limit-batches", train=2)], range(5), range(3)
    )
    loop.train(n_optim_steps=7)
    assert (7, 7, 4) == (look.n_optim_steps, loop.global_step, loop.epoch_num)


def test_data_without_a_length_have_none_afterwards():
    """A limit may be more than there are, so the number of batches stays unknown."""
    data = Stream()
    look = ran(data, train=2)
    assert ([0, 1], None, None) == (
        look.seen["train"],
        look.n_batches["train"],
        look.n_optim_steps,
    )


def test_takes_no_batch_that_it_does_not_give():
    """A slow stream is not asked for one batch more than the limit."""
    data = Stream()
    ran(data, train=2)
    assert 2 == data.n_taken


def test_takes_a_data_loader():
    """The loader of each epoch is cut short, with its length."""
    loader = torch.utils.data.DataLoader(torch.arange(10), batch_size=2)
    look = ran(loader, train=2)
    assert ([[0, 1], [2, 3]], 2) == (
        [batch.tolist() for batch in look.seen["train"]],
        look.n_batches["train"],
    )


@pytest.mark.parametrize("config", [{"n": 0}, {"train": 1.5}, {"valid": "2"}, {"test": -1}])
def test_refuses_what_is_no_number_of_batches(config):
    """The error names the argument and what it was."""
    ((name, value),) = config.items()
    with pytest.raises(ValueError, match=f"{name} is {value!r}"):
        ran(**config)
