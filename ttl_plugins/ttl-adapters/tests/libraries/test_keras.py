"""The callbacks of Keras 3, with Keras: `make adapters` runs them in `.venv-peers`."""

import contextlib
import csv
import io
import os

import pytest
import torch
from ttl_adapters import KerasCallback, UnsupportedAccessError

from ttl_core import ArgumentError, LoopComponent
from ttl_core.testing import tiny_data

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when Keras is imported
keras = pytest.importorskip(
    "keras", reason="Keras is not installed with ttl: `make adapters` tests its callbacks"
)

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries warn as they like


def weights(model):
    """Return the weights of a model as lists."""
    return [tensor.tolist() for tensor in model.state_dict().values()]


def make_keras_model():
    """Return a model of Keras."""
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])


def fit_by_keras(callback, n_epochs):
    """Train a model of Keras by Keras, on the data of `make_loop`."""
    model = make_keras_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    train, valid = (
        [torch.cat(parts).numpy() for parts in zip(*tiny_data(n), strict=True)] for n in (4, 2)
    )
    model.fit(
        *train,
        batch_size=6,
        validation_data=valid,
        validation_batch_size=6,
        epochs=n_epochs,
        verbose=0,
        callbacks=[callback],
    )


def test_hooks_are_called_in_the_order_of_keras(make_loop):
    """In training and in its validation they are the same."""

    def record(called):
        def hook(name):
            return lambda self, *_, **__: called.append(name)

        names = [n for n in vars(keras.callbacks.Callback) if n.startswith("on_")]
        names = [n for n in names if n not in ("on_batch_begin", "on_batch_end")]
        return type("Record", (keras.callbacks.Callback,), {name: hook(name) for name in names})()

    theirs, ours = [], []
    fit_by_keras(record(theirs), n_epochs=2)
    make_loop(KerasCallback(record(ours))).train(n_epochs=2)
    assert theirs == ours


@pytest.mark.parametrize("config", [{}, {"restore_best_weights": True}])
@pytest.mark.parametrize("monitor", ["val_loss", "valid/loss"])
def test_early_stopping_stops(make_loop, monitor, config):
    """It restores the best weights, on request."""
    first = []

    class Keep(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_training:
                first.append(weights(loop.model))

    callback = keras.callbacks.EarlyStopping(
        monitor, mode="min", min_delta=10, patience=2, **config
    )
    loop = make_loop(Keep(), KerasCallback(callback))
    loop.train(n_epochs=9)
    assert (3, 2) == (loop.epoch_num, callback.stopped_epoch)
    assert first[0 if config else 2] == weights(loop.model)


def test_early_stopping_resumes(make_loop, keep):
    """From each safe point it stops in the same epoch, with the same weights."""

    def make():
        return keras.callbacks.EarlyStopping(min_delta=10, patience=2, restore_best_weights=True)

    whole = make_loop(KerasCallback(make()), keep)
    whole.train(n_epochs=9)
    for state in keep.states:
        loop = make_loop(KerasCallback(make()))
        loop.load_state_dict(state)
        loop.train(n_epochs=9)
        assert (3, weights(whole.model)) == (loop.epoch_num, weights(loop.model))


def test_model_checkpoint_saves_a_model_of_keras(make_loop, tmp_path):
    """loop.model may be one, which saves itself."""
    model = make_keras_model()
    callbacks = keras.callbacks
    best = callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5", save_weights_only=True, save_best_only=True
    )
    each = callbacks.ModelCheckpoint(tmp_path / "{epoch}-{val_loss:.2f}.keras")
    loop = make_loop(KerasCallback(best), KerasCallback(each), model=model)
    loop.train(n_epochs=2)
    assert 3 == len(list(tmp_path.iterdir()))
    other = make_keras_model()
    other.load_weights(tmp_path / "best.weights.h5")
    assert weights(model) == weights(other)


def test_model_checkpoint_of_a_module_is_an_error(make_loop, tmp_path):
    """A module of torch cannot write a file of Keras."""
    callback = keras.callbacks.ModelCheckpoint(tmp_path / "a.weights.h5", save_weights_only=True)
    loop = make_loop(KerasCallback(callback))
    message = r"ModelCheckpoint uses model\.save_weights, .*Instead: the component checkpoint"
    with pytest.raises(UnsupportedAccessError, match=message):
        loop.train(n_epochs=1)


def by_hand(model, n_epochs, rate_of):
    """Train at a rate of each epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(n_epochs):
        optimizer.param_groups[0]["lr"] = rate_of(epoch)
        for inputs, targets in tiny_data(4):
            model.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    return weights(model)


def test_learning_rate_scheduler_is_the_loop_by_hand(make_loop, make_network):
    """The rate is set before each epoch."""
    callback = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 / (epoch + 1))
    loop = make_loop(KerasCallback(callback))
    loop.train(n_epochs=3)
    expected = by_hand(make_network(), 3, lambda epoch: 0.1 / (epoch + 1))
    assert expected == weights(loop.model)


def test_reduce_on_plateau_is_the_loop_by_hand_and_resumes(make_loop, make_network, keep):
    """The rate is reduced when a metric is no better, also after resuming anywhere."""

    def make():
        return keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=2, min_delta=10)

    loop = make_loop(KerasCallback(make()), keep)
    loop.train(n_epochs=6)
    expected = by_hand(make_network(), 6, lambda epoch: 0.1 * 0.5 ** max(0, (epoch - 1) // 2))
    assert expected == weights(loop.model)
    for state in keep.states:
        loop = make_loop(KerasCallback(make()))
        loop.load_state_dict(state)
        loop.train(n_epochs=6)
        assert expected == weights(loop.model)


def test_csv_logger_writes_a_row_an_epoch(make_loop, tmp_path, keep):
    """A run that resumes appends to the file."""

    def make(append):
        return KerasCallback(keras.callbacks.CSVLogger(tmp_path / "log.csv", append=append))

    loop = make_loop(make(append=False), keep)
    loop.train(n_epochs=2)
    other = make_loop(make(append=True))
    other.load_state_dict(keep.states[-1])
    other.train(n_epochs=3)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert ["0", "1", "2"] == [row["epoch"] for row in rows]
    assert loop.metrics["valid/loss"] == float(rows[1]["val_loss"])


def test_terminate_on_nan_stops(make_loop, capsys):
    """It stops after the batch whose loss is not finite, or raises its own error."""
    loop = make_loop(KerasCallback(keras.callbacks.TerminateOnNaN()), lr=float("nan"))
    loop.train(n_epochs=9)
    assert 2 == loop.global_step
    callback = keras.callbacks.TerminateOnNaN(raise_error=True)
    with pytest.raises(RuntimeError, match="NaN or Inf loss encountered at batch 1"):
        make_loop(KerasCallback(callback), lr=float("nan")).train(n_epochs=9)


def test_lambda_callback_calls_functions(make_loop):
    """Functions get what hooks get."""
    found = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: found.append((epoch, sorted(logs))),
        on_train_batch_end=lambda batch, logs: found.append(batch),
    )
    make_loop(KerasCallback(callback), n_train=2).train(n_epochs=1)
    assert [0, 1, (0, ["loss", "val_loss"])] == found


def test_history_keeps_the_values(make_loop):
    """As in Keras it is an attribute of the model that callbacks see."""
    history, seen = keras.callbacks.History(), []
    seeing = keras.callbacks.LambdaCallback(on_train_end=lambda logs: seen.append(logs))
    loop = make_loop(KerasCallback(history), KerasCallback(seeing))
    loop.train(n_epochs=2)
    assert ([0, 1], ["loss", "val_loss"]) == (history.epoch, sorted(history.history))
    assert loop.metrics["valid/loss"] == history.history["val_loss"][-1] == seen[0]["val_loss"]
    assert history is history.model.history


def test_progbar_logger_shows_epochs(make_loop):
    """The bar counts all batches, and ends with the values of the epoch."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        loop = make_loop(KerasCallback(keras.callbacks.ProgbarLogger()))
        loop.train(n_epochs=2)
        loop.test(tiny_data(1))
        loop.predict(tiny_data(1))
    assert "Epoch 2/2" in output.getvalue()
    assert f"val_loss: {loop.metrics['valid/loss']:.4f}" in output.getvalue()


def test_remote_monitor_sends_values(make_loop, monkeypatch):
    """It sends the values of each epoch."""
    requests = pytest.importorskip("requests")
    sent = []
    monkeypatch.setattr(requests, "post", lambda url, json, headers: sent.append(json))
    callback = keras.callbacks.RemoteMonitor(send_as_json=True)
    make_loop(KerasCallback(callback)).train(n_epochs=1)
    assert [["epoch", "loss", "val_loss"]] == [sorted(each) for each in sent]


@pytest.mark.parametrize(
    ("make", "instead"),
    [
        (lambda path: keras.callbacks.TensorBoard(path), "the component tensorboard"),
        (lambda path: keras.callbacks.BackupAndRestore(path), "the component checkpoint"),
        (lambda path: keras.callbacks.SwapEMAWeights(), "the component ema"),
    ],
)
def test_what_needs_the_trainer_of_keras_is_refused(make, instead, tmp_path):
    """The error names the component that there is instead."""
    with pytest.raises(ArgumentError, match=f"of Keras, which needs more.*Instead: {instead}"):
        KerasCallback(make(tmp_path))


def test_the_example_of_its_page_runs(run_example):
    """It is skipped where the documentation is tested."""
    run_example("keras-callback")
