"""The behaviour of `validate-every`."""

import numpy
import pytest
import torch

from ttl_core import ArgumentError, LoopComponent, RunError, TrainTestLoop, use


class Recorder(LoopComponent):
    """A component that records at which step each validation is made."""

    def __init__(self):
        self.validated = []

    def on_epoch_begin(self, loop):
        if loop.is_validating:
            self.validated.append(loop.global_step)


class Stream:
    """Data without a length."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter([0] * self.n)


def make_loop(steps, *others, data=10, valid_data=(0,)):
    """Return a loop that validates every so many steps, of so many batches."""
    data = data if isinstance(data, Stream) else [0] * data
    components = [Recorder(), *others, use("validate-every", steps=steps)]
    return TrainTestLoop(torch.nn.Identity(), components, data, valid_data)


@pytest.mark.parametrize(
    ("steps", "data", "n_epochs", "expected"),
    [
        (4, 10, 2, [4, 8, 10, 12, 16, 20]),
        (5, 10, 1, [5, 10]),
        (10, 10, 2, [10, 20]),
        (15, 10, 2, [10, 15, 20]),
        (1, 2, 1, [1, 2]),
        (5, Stream(10), 1, [5, 10, 10]),
    ],
)
def test_validates_every_so_many_steps(steps, data, n_epochs, expected):
    """Validations are evenly spread, and not doubled where the end of an epoch is known."""
    loop = make_loop(steps, data=data)
    loop.train(n_epochs=n_epochs)
    assert expected == loop.components["recorder"].validated


def test_does_not_validate_twice_after_the_last_step_of_a_run():
    """Where the number of steps is given, the last epoch ends with its own validation only."""
    loop = make_loop(3)
    loop.train(n_optim_steps=6)
    assert [3, 6] == loop.components["recorder"].validated


def test_batches_that_do_not_step_do_not_count():
    """With accumulation it validates once a step, not once a batch."""

    class Accumulate(LoopComponent):
        def on_batch_begin(self, loop):
            loop.is_stepping = loop.batch_num % 2 == 1

    loop = make_loop(2, Accumulate())
    loop.train(n_epochs=1)
    assert [2, 4, 5] == loop.components["recorder"].validated


def test_validates_after_other_components_have_used_the_batch():
    """A component placed after it that updates in on_batch_end has done so."""
    seen = []

    class Update(LoopComponent):
        def on_batch_end(self, loop):
            if loop.is_training:
                self.updated = loop.global_step

        def on_epoch_begin(self, loop):
            if loop.is_validating:
                seen.append(self.updated)

    loop = make_loop(4)
    loop.components.append(Update())
    loop.train(n_epochs=1)
    assert [4, 8, 10] == seen


def test_values_are_there_at_the_safe_point_after_the_step():
    """A component that saves or stops at the step's own safe point has the new values."""
    seen = []

    class Log(LoopComponent):
        def on_epoch_end(self, loop):
            loop.log({"step": loop.global_step}, level="epoch")

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            seen.append(loop.metrics.get("valid/step"))

    loop = make_loop(2, Log(), Save(), data=4)
    loop.train(n_epochs=1)
    assert [None, 2, 2, 2, 4] == seen


def test_validates_on_all_of_several_sets():
    """Where there are several validation sets, each time all of them are validated."""
    loop = make_loop(4, valid_data={"one": [0], "two": [0]})
    loop.train(n_epochs=1)
    assert [4, 4, 8, 8, 10, 10] == loop.components["recorder"].validated


def test_needs_validation_data():
    """Without validation data train() is an error before the first batch."""
    loop = make_loop(2, valid_data=None)
    with pytest.raises(RunError, match="no validation data"):
        loop.train(n_epochs=1)
    assert 0 == loop.global_step


@pytest.mark.parametrize("steps", [0, 1.5, "2", True])
def test_refuses_an_unusable_number_of_steps(steps):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=f"steps is {steps!r}"):
        make_loop(steps)


def test_takes_a_number_of_numpy():
    """A NumPy integer is a whole number."""
    loop = make_loop(numpy.int64(4))
    loop.train(n_epochs=1)
    assert [4, 8, 10] == loop.components["recorder"].validated
