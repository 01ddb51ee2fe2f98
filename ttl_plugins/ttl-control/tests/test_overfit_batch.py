"""The behaviour of `overfit-batch`."""

import pytest
import torch

from ttl_core import LoopComponent, RunError, TrainTestLoop


class Recorder(LoopComponent):
    """A component that records each batch with its phase."""

    def __init__(self):
        self.seen = []
        self.n_batches = set()

    def on_batch_end(self, loop):
        self.seen.append((loop.epoch_desc, loop.batch))
        self.n_batches.add(loop.n_batches)


def make_loop(train_data=(1, 2, 3), valid_data=(4, 5)):
    """Return a loop that repeats one batch."""
    return TrainTestLoop(torch.nn.Identity(), [Recorder(), "overfit-batch"], train_data, valid_data)


class Counting:
    """Data without a length that differ in each epoch."""

    def __init__(self):
        self.epoch = 0

    def __iter__(self):
        self.epoch += 1
        return iter([self.epoch * 10, self.epoch * 10 + 1])


def test_gives_the_same_batch_in_training_and_validation():
    """Epochs keep their length and have only the first training batch."""
    loop = make_loop()
    loop.train(n_epochs=2)
    recorder = loop.components["recorder"]
    epoch = [("train", 1)] * 3 + [("valid", 1)] * 2
    assert (epoch * 2, {3, 2}) == (recorder.seen, recorder.n_batches)


def test_gives_the_same_batch_where_data_are_shuffled():
    """It is the first batch of the first epoch in all later ones; data without length work."""
    loop = make_loop(Counting(), None)
    loop.train(n_epochs=2)
    loop.train(n_epochs=1)
    assert [("train", 10)] * 6 == loop.components["recorder"].seen


def test_gives_the_training_batch_in_a_validation_before_training():
    """validate() on its own uses the batch that training will have."""
    loop = make_loop()
    loop.validate()
    assert [("valid", 1)] * 2 == loop.components["recorder"].seen


def test_repeats_a_validation_batch_where_there_are_no_training_data():
    """A loop without training data repeats its first validation batch."""
    loop = make_loop(None)
    loop.validate()
    assert [("valid", 4)] * 2 == loop.components["recorder"].seen


def test_leaves_tests_alone():
    """A test has its own data."""
    loop = make_loop()
    loop.test([7, 8])
    assert [("test", 7), ("test", 8)] == loop.components["recorder"].seen


def test_leaves_predictions_alone():
    """A prediction has its own data."""
    loop = make_loop()
    loop.predict([7, 8], collect=False)
    assert [("predict", 7), ("predict", 8)] == loop.components["recorder"].seen


def test_repeats_the_batch_in_each_of_several_validation_sets():
    """Where there are several validation sets, each is as long as it is without the component."""
    loop = make_loop(valid_data={"one": [4, 5], "two": [6]})
    loop.train(n_epochs=1)
    assert [("train", 1)] * 3 + [("valid", 1)] * 3 == loop.components["recorder"].seen


def test_a_model_learns_the_batch():
    """Training on the batch alone drives its loss to zero."""
    torch.manual_seed(0)
    data = [(torch.randn(4, 8), torch.randn(4, 1)) for _ in range(20)]
    loop = make_loop(data, data)

    class Learn(LoopComponent):
        def on_batch_begin(self, loop):
            inputs, targets = loop.batch
            loop.loss = (loop.model(inputs) - targets).square().mean()
            if loop.is_training:
                gradients = torch.autograd.grad(loop.loss, list(loop.model.parameters()))
                for parameter, gradient in zip(loop.model.parameters(), gradients, strict=True):
                    parameter.data -= 0.05 * gradient

    loop.model = torch.nn.Linear(8, 1)
    loop.components.append(Learn())
    loop.train(n_epochs=50)
    assert loop.loss < 1e-6


def test_empty_data_are_an_error():
    """Without a first batch there is an error that names the cause."""
    with pytest.raises(RunError, match="the data are empty"):
        make_loop([]).train(n_epochs=1)
