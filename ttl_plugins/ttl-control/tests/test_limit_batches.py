"""The behaviour of `limit-batches`."""

import numpy
import pytest
import torch

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, hookimpl, use


class Recorder(LoopComponent):
    """A component that records the batches and the numbers that the loop has for them."""

    def __init__(self):
        self.seen = {}
        self.n_batches = {}

    def on_train_begin(self, loop):
        self.n_optim_steps = loop.n_optim_steps

    def on_batch_end(self, loop):
        self.seen.setdefault(loop.epoch_desc, []).append(loop.batch)
        self.n_batches[loop.epoch_desc] = loop.n_batches


class Stream:
    """Data without a length that count how many batches were taken."""

    def __init__(self):
        self.n_taken = 0

    def __iter__(self):
        for batch in range(5):
            self.n_taken += 1
            yield batch


def ran(data=range(5), n_epochs=1, others=(), **config):
    """Return what was recorded in a run with limits."""
    record = Recorder()
    components = [record, *others, use("limit-batches", **config)]
    loop = TrainTestLoop(torch.nn.Identity(), components, data, range(10, 14))
    loop.train(n_epochs=n_epochs)
    loop.test(range(20, 23))
    return record


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
    record = ran(**config)
    train, valid, test = numbers
    expected = {
        "train": list(range(train)),
        "valid": list(range(10, 10 + valid)),
        "test": list(range(20, 20 + test)),
    }
    assert (expected, dict(zip(expected, numbers, strict=True))) == (record.seen, record.n_batches)


@pytest.mark.parametrize(("limit", "expected"), [(2, 6), (None, 15), (100, 15)])
def test_number_of_optimization_steps_is_right_when_schedulers_are_built(limit, expected):
    """A component placed before it that builds a scheduler sees the smaller number."""
    assert expected == ran(n_epochs=3, train=limit).n_optim_steps


@pytest.mark.parametrize("place", [0, 9])
def test_number_of_optimization_steps_is_right_with_accumulation(place):
    """A component that accumulates, before or after it in the list, divides the smaller number."""

    class Accumulate(LoopComponent):
        @hookimpl(wrapper=True)
        def on_train_begin(self, loop):
            loop.n_optim_steps = loop.n_epochs * -(-loop.n_optim_steps // loop.n_epochs // 2)
            return (yield)

    record = Recorder()
    loop = TrainTestLoop(torch.nn.Identity(), [record, Accumulate()], range(50))
    loop.components.insert(place, use("limit-batches", train=5))
    loop.train(n_epochs=3)
    assert 9 == record.n_optim_steps


def test_a_run_by_steps_keeps_its_number():
    """Where the number of steps is given, shorter epochs do not change it."""
    record = Recorder()
    loop = TrainTestLoop(
        torch.nn.Identity(), [record, use("limit-batches", train=2)], range(5), range(3)
    )
    loop.train(n_optim_steps=7)
    assert (7, 7, 4) == (record.n_optim_steps, loop.global_step, loop.epoch_num)


def test_data_without_a_length_still_have_none():
    """There may be fewer batches than the limit, so their number stays unknown."""
    data = Stream()
    record = ran(data, train=2)
    assert ([0, 1], None, None) == (
        record.seen["train"],
        record.n_batches["train"],
        record.n_optim_steps,
    )


def test_takes_no_batch_beyond_the_limit():
    """A stream yields exactly as many batches as are used."""
    data = Stream()
    ran(data, train=2)
    assert 2 == data.n_taken


@pytest.mark.parametrize(
    ("config", "n"),
    [({"n": 2}, 2), ({"predict": 1}, 1), ({"n": 2, "predict": 3}, 3), ({"test": 1}, 5)],
)
def test_limits_prediction(config, n):
    """A prediction, which has no on_epoch_begin, has its limit too; n_batches follows."""
    record = Recorder()
    loop = TrainTestLoop(torch.nn.Identity(), [record, use("limit-batches", **config)])
    loop.predict(range(5), collect=False)
    assert ({"predict": list(range(n))}, {"predict": n}) == (record.seen, record.n_batches)


def test_limits_each_of_several_validation_sets():
    """Where there are several validation sets, each has the limit."""
    record = Recorder()
    loop = TrainTestLoop(torch.nn.Identity(), [record, use("limit-batches", valid=2)])
    loop.validate({"one": [1, 2, 3], "two": [4, 5, 6]})
    assert {"valid": [1, 2, 4, 5]} == record.seen


def test_takes_a_data_loader():
    """A DataLoader is cut short, and so is its length."""
    loader = torch.utils.data.DataLoader(torch.arange(10), batch_size=2)
    record = ran(loader, train=2)
    assert ([[0, 1], [2, 3]], 2) == (
        [batch.tolist() for batch in record.seen["train"]],
        record.n_batches["train"],
    )


@pytest.mark.parametrize(
    "config", [{"n": 0}, {"train": 1.5}, {"valid": "2"}, {"test": -1}, {"predict": True}]
)
def test_refuses_an_unusable_number_of_batches(config):
    """The error names the argument and its value."""
    ((name, value),) = config.items()
    with pytest.raises(ArgumentError, match=f"{name} is {value!r}"):
        ran(**config)


def test_takes_numbers_of_numpy():
    """A NumPy integer is a whole number."""
    assert [0, 1] == ran(train=numpy.int64(2)).seen["train"]
