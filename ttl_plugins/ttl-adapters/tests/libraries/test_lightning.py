"""The callbacks of Lightning, with Lightning: `make adapters` runs them in `.venv-peers`."""

import contextlib
import functools
import io
import logging
import re

import pytest
import torch
from ttl_adapters import LightningCallback, UnsupportedAccessError

from ttl_core import ArgumentError, LoopComponent
from ttl_core.testing import tiny_data

pl = pytest.importorskip(
    "lightning.pytorch",
    reason="Lightning is not installed with ttl: `make adapters` tests its callbacks",
)
callbacks = pl.callbacks

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries warn as they like


def weights(loop):
    """Return the weights of a loop as lists."""
    return [parameter.tolist() for parameter in loop.model.parameters()]


def record(names, called):
    """Return a class of callbacks that record the names of their hooks."""

    def hook(name):
        return lambda self, *_, **__: called.append(name)

    return type("Record", (pl.Callback,), {name: hook(name) for name in names})


def fit_by_lightning(callback, model, lr=0.1, max_epochs=1, **options):
    """Train as `make_loop` does, by Lightning."""

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, batch_idx):
            loss = torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            self.log("train/loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch, batch_idx):
            loss = torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            self.log("valid/loss", loss)

        def configure_optimizers(self):
            return torch.optim.SGD(self.model.parameters(), lr=lr)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    loaders = [torch.utils.data.DataLoader(tiny_data(n), batch_size=None) for n in (4, 2)]
    trainer.fit(Module(), *loaders)
    return trainer


def test_hooks_are_called_in_the_order_of_the_trainer(make_loop, make_network):
    """The one exception is on_before_zero_grad, which comes before the batch."""
    names = [name for name in vars(pl.Callback) if name.startswith("on_")] + ["setup", "teardown"]
    names = [name for name in names if name not in ("on_save_checkpoint", "on_load_checkpoint")]
    theirs, ours = [], []
    fit_by_lightning(record(names, theirs)(), make_network(), max_epochs=2)
    make_loop(LightningCallback(record(names, ours)())).train(n_epochs=2)
    moved = "on_before_zero_grad"
    assert [n for n in theirs if n != moved] == [n for n in ours if n != moved]
    assert 8 == theirs.count(moved) == ours.count(moved)
    assert "on_train_batch_start" == ours[ours.index(moved) + 1]


@pytest.mark.parametrize("config", [{}, {"check_on_train_epoch_end": False}])
def test_early_stopping_stops_where_lightning_stops(make_loop, make_network, config):
    """It leaves the same weights, and has the same state."""

    def make():
        return callbacks.EarlyStopping("valid/loss", patience=2, min_delta=0.02, **config)

    theirs, ours, model = make(), make(), make_network()
    trainer = fit_by_lightning(theirs, model, max_epochs=20)
    loop = make_loop(LightningCallback(ours))
    loop.train(n_epochs=20)
    assert 2 < loop.epoch_num == trainer.current_epoch < 20
    assert [parameter.tolist() for parameter in model.parameters()] == weights(loop)
    assert pytest.approx(theirs.best_score.item()) == ours.best_score.item()
    assert (theirs.stopped_epoch, theirs.wait_count) == (ours.stopped_epoch, ours.wait_count)


def test_early_stopping_resumes(make_loop, keep):
    """From each safe point it stops in the same epoch."""

    def make():
        return LightningCallback(callbacks.EarlyStopping("val_loss", min_delta=10, patience=2))

    make_loop(make(), keep).train(n_epochs=9)
    assert 3 * 5 == len(keep.states)
    for state in keep.states:
        loop = make_loop(make())
        loop.load_state_dict(state)
        loop.train(n_epochs=9)
        assert (3, 2) == (loop.epoch_num, loop.components[-1].callback.wait_count)


def test_early_stopping_names_a_missing_metric(make_loop):
    """Its own error lists the names that there are."""
    loop = make_loop(LightningCallback(callbacks.EarlyStopping("val/los")))
    with pytest.raises(RuntimeError, match="`train/loss`, `valid/loss`"):
        loop.train(n_epochs=1)


def test_model_checkpoint_keeps_the_best(make_loop, tmp_path):
    """Files have metrics in their names, the best ones and the last one stay."""
    callback = callbacks.ModelCheckpoint(
        tmp_path, "{epoch}-{val_loss:.3f}", monitor="valid/loss", save_top_k=2, save_last=True
    )
    loop = make_loop(LightningCallback(callback))
    loop.train(n_epochs=3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [1, 2] == [int(re.match(r"epoch=(\d)-val_loss=0\.\d{3}\.ckpt", n)[1]) for n in names[:2]]
    assert ["last.ckpt"] == names[2:]
    best = torch.load(callback.best_model_path, weights_only=True)
    assert (2, 12) == (best["epoch"], best["global_step"])
    loop.model.load_state_dict(best["state_dict"])


def test_model_checkpoint_saves_every_few_steps(make_loop, tmp_path):
    """By default in the folder of the run, else in the current directory."""

    class Folder(LoopComponent):
        def on_train_begin(self, loop):
            loop.run_folder = tmp_path

    callback = callbacks.ModelCheckpoint(every_n_train_steps=3, save_top_k=-1)
    loop = make_loop(Folder(), LightningCallback(callback))
    loop.run_folder = tmp_path
    loop.train(n_epochs=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"] == names


def test_model_checkpoint_resumes(make_loop, tmp_path, keep):
    """A resumed run knows which files are the best."""

    def make():
        return callbacks.ModelCheckpoint(tmp_path, monitor="valid/loss", save_top_k=1)

    make_loop(LightningCallback(make()), keep).train(n_epochs=2)
    callback = make()
    loop = make_loop(LightningCallback(callback))
    loop.load_state_dict(keep.states[-1])
    loop.train(n_epochs=4)
    assert [callback.best_model_path] == [str(path) for path in tmp_path.iterdir()]


def test_on_exception_checkpoint_saves(make_loop, tmp_path):
    """It writes a file when a run fails."""

    class Fail(LoopComponent):
        def on_batch_end(self, loop):
            raise KeyError("planned")

    callback = callbacks.OnExceptionCheckpoint(tmp_path)
    with pytest.raises(KeyError):
        make_loop(LightningCallback(callback), Fail()).train(n_epochs=1)
    assert ["on_exception.ckpt"] == [path.name for path in tmp_path.iterdir()]


def test_learning_rate_monitor_logs(make_loop):
    """Learning rates are logged at batch level, in training under its prefix."""
    logged = []

    class Log(LoopComponent):
        def on_log(self, loop, metrics, level):
            logged.extend((n, v, level) for n, v in metrics.items() if n.startswith("train/lr"))

    class Decay(LoopComponent):
        def on_train_begin(self, loop):
            loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, 1, gamma=0.5)

    monitor = callbacks.LearningRateMonitor(logging_interval="step")
    make_loop(Decay(), Log(), LightningCallback(monitor), n_train=2).train(n_epochs=1)
    expected = [("train/lr-SGD", 0.1, "batch"), ("train/lr-SGD", 0.05, "batch")]
    assert expected == logged
    assert {"lr-SGD": [0.1, 0.05]} == monitor.lrs


def test_timer_stops(make_loop, monkeypatch):
    """It stops behind the step in which its time is over, here a second a step."""
    timer = callbacks.Timer(duration={"seconds": 6})
    loop = make_loop(LightningCallback(timer))
    monkeypatch.setattr(timer, "time_elapsed", lambda *_: loop.global_step)
    loop.train(n_epochs=9)
    assert (6, 1) == (loop.global_step, loop.epoch_num)


def test_timer_measures(make_loop, keep):
    """It has measured training and validation, and restores what it has measured."""
    timer = callbacks.Timer()
    make_loop(LightningCallback(timer), keep).train(n_epochs=1)
    assert timer.time_elapsed("train") > timer.time_elapsed("validate") > 0
    again = callbacks.Timer(duration={"seconds": 1000})
    loop = make_loop(LightningCallback(again))
    state = keep.states[-1]
    state["components"]["lightning-callback"]["callback"]["state"]["time_elapsed"]["train"] = 1000.0
    loop.load_state_dict(state)
    loop.train(n_epochs=9)
    assert 5 == loop.global_step


@pytest.mark.parametrize("name", ["TQDMProgressBar", "RichProgressBar"])
def test_progress_bars_show_epochs_and_metrics(make_loop, name, monkeypatch):
    """The bar counts all batches."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        loop = make_loop(LightningCallback(getattr(callbacks, name)()))
        loop.train(n_epochs=2)
        loop.test(tiny_data(1))
        loop.predict(tiny_data(1))
    text = re.sub(r"\x1b\[[\d;?]*\w", "", output.getvalue())
    assert re.search(r"Epoch 1[:/]", text)
    assert "4/4" in text
    assert re.search(r"(valid/loss|loss)[=:]", text)


@pytest.mark.parametrize("name", ["ModelSummary", "RichModelSummary"])
def test_summaries_show_the_layers(make_loop, name, caplog, capsys):
    """The layers are those of the model, with their parameters."""
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    with caplog.at_level(logging.INFO):
        make_loop(LightningCallback(getattr(callbacks, name)())).train(n_epochs=0)
    text = caplog.text + capsys.readouterr().out
    assert re.search(r"backbone\W+Linear\W+20\b", text)
    assert re.search(r"head\W+Linear\W+10\b", text)


def test_lambda_callback_calls_functions(make_loop):
    """Functions get what hooks get."""
    found = []
    callback = callbacks.LambdaCallback(
        on_train_epoch_end=lambda trainer, module: found.append(trainer.current_epoch),
        on_train_batch_end=lambda trainer, module, outputs, batch, i: found.append(f"batch {i}"),
    )
    make_loop(LightningCallback(callback), n_train=1).train(n_epochs=2)
    assert ["batch 0", 0, "batch 0", 1] == found


def finetune_by_hand(model, n_epochs, unfreeze_at):
    """Train the head alone, and from an epoch on the backbone at a tenth of the rate."""
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    for epoch in range(n_epochs):
        if epoch == unfreeze_at:
            optimizer.add_param_group({"params": [*model.backbone.parameters()], "lr": 0.01})
        elif epoch > unfreeze_at:
            optimizer.param_groups[1]["lr"] *= 2
        for inputs, targets in tiny_data(4):
            model.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()


def test_backbone_finetuning_is_the_loop_by_hand(make_loop, make_network):
    """The backbone is frozen, then trained at a lower rate."""
    callback = callbacks.BackboneFinetuning(1, backbone_initial_ratio_lr=0.1)
    loop = make_loop(LightningCallback(callback))
    loop.train(n_epochs=3)
    expected = make_network()
    finetune_by_hand(expected, 3, unfreeze_at=1)
    assert [p.tolist() for p in expected.parameters()] == weights(loop)


def test_backbone_finetuning_resumes(make_loop, keep):
    """From each safe point, also behind that at which it has added a group of parameters."""

    def make():
        return LightningCallback(callbacks.BackboneFinetuning(1))

    whole = make_loop(make(), keep)
    whole.train(n_epochs=3)
    for state in keep.states:
        loop = make_loop(make())
        loop.load_state_dict(state)
        loop.train(n_epochs=3)
        assert weights(whole) == weights(loop)


def test_a_callback_of_a_user_has_its_usual_hooks(make_loop, tmp_path, keep):
    """It logs, reads data and optimizers, prints in the main process alone, and keeps state."""

    class Own(pl.Callback):
        def __init__(self):
            self.n_samples = 0

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.n_samples += len(batch[0])
            self.log("norm", pl_module.head.weight.grad.norm())
            assert outputs["loss"].item() > 0

        def on_train_epoch_end(self, trainer, pl_module):
            assert trainer.is_global_zero
            assert 0.1 == trainer.optimizers[0].param_groups[0]["lr"]
            pl_module.log("samples", float(self.n_samples), prog_bar=True)

        def on_fit_end(self, trainer, pl_module):
            (tmp_path / "weights").write_text(str(len(pl_module.state_dict())))

        def state_dict(self):
            return {"n_samples": self.n_samples}

        def load_state_dict(self, state_dict):
            self.n_samples = state_dict["n_samples"]

    loop = make_loop(LightningCallback(Own()), keep)
    loop.train(n_epochs=2)
    assert (48.0, "4") == (loop.metrics["samples"], (tmp_path / "weights").read_text())
    resumed = make_loop(LightningCallback(Own()))
    resumed.load_state_dict(keep.states[1])
    resumed.train(n_epochs=2)
    assert 48.0 == resumed.metrics["samples"]


@pytest.mark.parametrize(
    ("make", "instead"),
    [
        (lambda: callbacks.StochasticWeightAveraging(0.1), "the component swa"),
        (lambda: callbacks.EMAWeightAveraging(), "the component ema"),
        (
            lambda: callbacks.GradientAccumulationScheduler({0: 2}),
            "the component grad-accumulation",
        ),
        (lambda: callbacks.DeviceStatsMonitor(), "the components memory and throughput"),
        (lambda: callbacks.LearningRateFinder(), "the component lr-finder"),
        (lambda: callbacks.BatchSizeFinder(), "a batch size of your choice"),
        (lambda: callbacks.ThroughputMonitor(len), "the component throughput"),
        (lambda: callbacks.BasePredictionWriter(), "the component prediction-writer"),
    ],
)
def test_what_changes_how_lightning_trains_is_refused(make, instead):
    """The error names the component that there is instead."""
    with pytest.raises(ArgumentError, match=f"of Lightning, which needs more.*Instead: {instead}"):
        LightningCallback(make())


def test_what_the_trainer_lacks_is_named(make_loop):
    """The error names the callback, the attribute, and what there is instead."""

    class Tune(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            trainer.validate(pl_module)

    loop = make_loop(LightningCallback(Tune()))
    message = r"Tune uses trainer\.validate, .*Instead: loop\.validate\(\)"
    with pytest.raises(UnsupportedAccessError, match=message):
        loop.train(n_epochs=1)


def test_both_packages_of_lightning_are_known():
    """`pytorch_lightning` has classes of its own."""
    other = pytest.importorskip("pytorch_lightning").callbacks
    LightningCallback(other.EarlyStopping("val_loss"))
    with pytest.raises(ArgumentError, match="the component swa"):
        LightningCallback(functools.partial(other.StochasticWeightAveraging, 0.1)())


def test_the_example_of_its_page_runs(run_example):
    """It is skipped where the documentation is tested."""
    run_example("lightning-callback")
