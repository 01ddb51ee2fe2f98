"""The behaviour of `keras-callback`, with callbacks that users may have written."""

import numpy
import pytest
import torch
from ttl_adapters import KerasCallback, UnsupportedAccessError

from ttl_core import ArgumentError, LoopComponent
from ttl_core.testing import tiny_data

HOOKS = (
    *("on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end"),
    *("on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"),
    *("on_epoch_end", "on_train_end", "on_predict_begin", "on_predict_batch_begin"),
    *("on_predict_batch_end", "on_predict_end"),
)


def recording(**functions):
    """Return a callback that records the names of its hooks, and calls functions in some."""

    class Recording:
        def __init__(self):
            self.called = []

        def set_model(self, model):
            self.model = model

        def set_params(self, params):
            self.params = params

    def hook(name):
        def call(self, *arguments, logs):
            self.called.append(name)
            if name in functions:
                functions[name](self, *arguments, logs)

        return call

    for name in HOOKS:
        setattr(Recording, name, hook(name))
    return Recording()


def test_calls_hooks_in_the_order_of_keras(make_loop):
    """Validation comes before the end of the epoch."""
    callback = recording()
    make_loop(KerasCallback(callback), n_train=1, n_valid=1).train(n_epochs=1)
    assert callback.called == [
        *("on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end"),
        *("on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"),
        *("on_epoch_end", "on_train_end"),
    ]
    assert {"verbose": 1, "epochs": 1, "steps": 1} == callback.params


@pytest.mark.parametrize(
    ("run", "phase"),
    [
        (lambda loop: loop.validate(), "test"),
        (lambda loop: loop.test(tiny_data(1)), "test"),
        (lambda loop: loop.predict(tiny_data(1)), "predict"),
    ],
    ids=["validate", "test", "predict"],
)
def test_calls_hooks_of_runs_that_do_not_train(make_loop, run, phase):
    """validate() and test() are what Keras calls a test."""
    callback = recording()
    run(make_loop(KerasCallback(callback), n_valid=1))
    hooks = ("begin", "batch_begin", "batch_end", "end")
    assert [f"on_{phase}_{hook}" for hook in hooks] == callback.called


def test_logs_are_numbers_by_both_names(make_loop):
    """They are listed by the names of Keras, and found by those of ttl."""
    found = []

    def look(callback, epoch, logs):
        found.append((epoch, list(logs), logs["valid/loss"], logs["val_loss"]))

    loop = make_loop(KerasCallback(recording(on_epoch_end=look)))
    loop.train(n_epochs=1)
    loss = loop.metrics["valid/loss"]
    assert [(0, ["loss", "val_loss"], loss, loss)] == found


def test_batches_have_their_loss_and_predictions_their_scores(make_loop):
    """The loss of a batch is its own, as a number."""
    found = []
    callback = recording(
        on_train_batch_end=lambda callback, batch, logs: found.append((batch, logs)),
        on_test_end=lambda callback, logs: found.append(logs),
        on_predict_batch_end=lambda callback, batch, logs: found.append(logs["outputs"].shape),
    )
    loop = make_loop(KerasCallback(callback), n_train=1, n_valid=1)
    loop.train(n_epochs=1)
    loop.predict(tiny_data(1))
    train, valid = loop.metrics["train/loss"], loop.metrics["valid/loss"]
    assert [(0, {"loss": train}), {"loss": valid}, (6, 2)] == found


def test_default_hooks_of_keras_are_not_called(make_loop):
    """They do nothing, or call the hook of the old name."""
    called = []

    class OldStyle:
        def on_train_batch_end(self, batch, logs=None):
            raise AssertionError("this is a default of Keras")

        on_train_batch_end._is_default = True

        def on_batch_end(self, batch, logs=None):
            called.append(batch)

    make_loop(KerasCallback(OldStyle()), n_train=2).train(n_epochs=1)
    assert [0, 1] == called


def test_stops_at_the_safe_point(make_loop):
    """stop_training in a batch stops after it; at the end of an epoch, after that."""

    def stop(callback, batch, logs):
        callback.model.stop_training = callback.called.count("on_train_batch_end") == 6

    loop = make_loop(KerasCallback(recording(on_train_batch_end=stop)))
    loop.train(n_epochs=9)
    assert (6, 1) == (loop.global_step, loop.epoch_num)

    def stop_after(callback, epoch, logs):
        callback.model.stop_training = epoch == 1

    loop = make_loop(KerasCallback(recording(on_epoch_end=stop_after)))
    loop.train(n_epochs=9)
    assert 2 == loop.epoch_num


def test_learning_rates_keep_their_proportion(make_loop):
    """The rate that is read and set is that of the first group; the others are scaled."""

    class Groups(LoopComponent):
        def on_train_begin(self, loop):
            loop.optimizer.add_param_group({"params": [torch.ones(1)], "lr": 0.3})
            loop.optimizer.add_param_group({"params": [torch.ones(1)], "lr": torch.tensor(0.2)})

    def halve(callback, epoch, logs):
        callback.model.optimizer.learning_rate = callback.model.optimizer.learning_rate / 2

    loop = make_loop(Groups(), KerasCallback(recording(on_epoch_begin=halve)))
    loop.train(n_epochs=1)
    rates = [float(group["lr"]) for group in loop.optimizer.param_groups]
    assert pytest.approx([0.05, 0.15, 0.1]) == rates


def test_weights_are_arrays(make_loop):
    """get_weights returns copies, which set_weights restores."""
    taken = []

    def take(callback, logs):
        taken.extend(callback.model.get_weights())

    def restore(callback, logs):
        callback.model.set_weights(taken)

    loop = make_loop(KerasCallback(recording(on_train_begin=take, on_train_end=restore)))
    before = [tensor.clone() for tensor in loop.model.state_dict().values()]
    loop.train(n_epochs=1)
    assert {numpy.ndarray} == {type(array) for array in taken}
    after = loop.model.state_dict().values()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            lambda model: model.save("a.keras"),
            r"Recording uses model\.save, .*Instead: the component checkpoint; a model of Keras",
        ),
        (lambda model: model.fit(), r"Recording uses model\.fit, .*Instead: loop\.train\(\)"),
        (lambda model: model.compile(), r"Recording uses model\.compile, .*supervised"),
        (lambda model: model.layers, r"Recording uses model\.layers, which ttl-adapters does not"),
        (
            lambda model: setattr(model, "loss", 3),
            r"Recording sets model\.loss, .*There is: history, stop_training",
        ),
        (
            lambda model: model.optimizer.iterations,
            r"Recording uses model\.optimizer\.iterations, .*Instead: loop\.global_step",
        ),
    ],
)
def test_what_is_not_there_is_an_error_that_names_it(make_loop, action, message):
    """The error names the callback, the attribute, and what there is instead."""
    callback = recording(on_train_begin=lambda callback, logs: action(callback.model))
    with pytest.raises(UnsupportedAccessError, match=message):
        make_loop(KerasCallback(callback)).train(n_epochs=1)


class Plateau:
    """A callback that keeps what Keras' own do: numbers, lists, arrays and an object."""

    def __init__(self, patience=2):
        self.patience, self.kept = patience, object()

    def set_model(self, model):
        self.model = model

    def on_train_begin(self, logs=None):
        self.best, self.wait, self.losses, self.weights = None, 0, [], None

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["val_loss"])
        self.wait += 1
        if self.best is None:
            self.best, self.wait = numpy.float64(logs["val_loss"]), 0
            self.weights = self.model.get_weights()
        self.model.stop_training = self.wait == self.patience


def facts(callback):
    """Return the state of such a callback."""
    return callback.best, callback.wait, callback.losses, [w.tolist() for w in callback.weights]


def test_state_is_the_attributes_that_have_changed(make_loop, keep):
    """From each safe point they are restored; arguments are those of the script."""
    callback = Plateau()
    loop = make_loop(KerasCallback(callback), keep)
    loop.train(n_epochs=9)
    assert (3, 5 * 3) == (loop.epoch_num, len(keep.states))
    for state in keep.states:
        again = Plateau()
        other = make_loop(KerasCallback(again))
        other.load_state_dict(state)
        other.train(n_epochs=9)
        assert (3, facts(callback)) == (other.epoch_num, facts(again))


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Plateau, "callback is the class Plateau"),
        (torch.nn.Identity(), "which is no callback of Keras"),
        (
            type("BackupAndRestore", (Plateau,), {"__module__": "keras.src.callbacks"})(),
            "is a BackupAndRestore of Keras, .* Instead: the component checkpoint",
        ),
    ],
)
def test_refuses_what_cannot_work(callback, message):
    """It is refused when the component is made."""
    with pytest.raises(ArgumentError, match=message):
        KerasCallback(callback)
