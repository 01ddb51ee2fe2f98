"""The best checkpoint: resuming from it, its weights, and exporting them."""

import math

import pytest
import torch
from checkpoint_runs import CallAt, LogValues, make_loop, names_in, positions, weights
from safetensors import safe_open
from safetensors.torch import load_file
from ttl_checkpoint import Checkpoint, CheckpointError
from ttl_checkpoint.__main__ import main
from ttl_checkpoint.reading import read_state

from ttl_core import ArgumentError, LoopComponent, RunError, StateError, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step

FIRST, SECOND, THIRD = (f"{i:06}-epoch-{i}-step-{3 * i}" for i in (1, 2, 3))
FILE = "weights.safetensors"
VALUES = 3, 1, 2  # the second epoch is the best one


class LogLoss(LoopComponent):
    """A component that logs the loss of validation, on the weights that the model has then."""

    def on_epoch_begin(self, loop):
        self.losses = []

    def on_batch_end(self, loop):
        with torch.no_grad():
            inputs, targets = loop.batch
            self.losses.append(torch.nn.functional.cross_entropy(loop.model(inputs), targets))

    def on_epoch_end(self, loop):
        if loop.is_validating:
            loop.log({"loss": sum(self.losses) / len(self.losses)}, level="epoch")


class Worsen(LoopComponent):
    """A component that spoils the weights after the second epoch."""

    def on_batch_begin(self, loop):
        if loop.is_training and loop.global_step >= 6:
            with torch.no_grad():
                next(loop.model.parameters()).fill_(100.0)


EMA = use("ema", decay=0.5)


def ema_loop(directory, *others, averaging=EMA):
    """Return a loop with averages of weights, whose second epoch is the best one."""
    saving = Checkpoint(directory, signals=False, best="valid/loss", keep=9)
    return TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), averaging, LogLoss(), *others, saving],
        ComponentConformance.make_data(3),
        ComponentConformance.make_data(2),
    )


def test_best_path_is_the_best_one(tmp_path):
    """A15: the path of the checkpoint with the best metric; None before there is one."""
    loop = make_loop(tmp_path, LogValues(*VALUES), best="train/cost")
    saving = loop.components["checkpoint"]
    assert saving.best_path is None
    loop.train(3)
    assert tmp_path / SECOND == saving.best_path
    other = Checkpoint(tmp_path, best="train/cost")  # in another script
    assert tmp_path / SECOND == other.best_path


def test_best_path_follows_the_mode(tmp_path):
    """A15: with mode="max" the one with the highest value."""
    loop = make_loop(tmp_path, LogValues(*VALUES), best="train/cost", mode="max")
    loop.train(3)
    assert tmp_path / FIRST == loop.components["checkpoint"].best_path


def test_load_best_loads_its_weights(tmp_path):
    """A15: without averages they are those of the model at that time."""
    seen = []
    record = CallAt("on_epoch_end", lambda loop: seen.append(weights(loop)))
    loop = make_loop(tmp_path, LogValues(*VALUES), record, best="train/cost")
    loop.train(3)
    assert tmp_path / SECOND == loop.components["checkpoint"].load_best()
    assert seen[1] == weights(loop)


@pytest.mark.parametrize(
    "averaging",
    [
        EMA,
        use("ema", name="slow", decay=0.5),
        use("swa", start_epoch=0),
        use("swa", start_epoch=2),
    ],
    ids=["ema", "renamed", "swa", "later than the best"],
)
def test_load_best_loads_the_averages_that_were_measured(tmp_path, averaging):
    """A15: validation by hand and by the loop then gives the best value again."""
    loop = ema_loop(tmp_path, Worsen(), averaging=averaging)
    loop.train(3)
    path = loop.components["checkpoint"].load_best()
    best = read_state(path)["metrics"]["valid/loss"]
    assert tmp_path / SECOND == path
    losses = [
        torch.nn.functional.cross_entropy(loop.model.eval()(inputs), targets)
        for inputs, targets in ComponentConformance.make_data(2)
    ]
    assert best == sum(losses) / 2
    loop.validate()
    assert float(best) == loop.metrics["valid/loss"]


@pytest.mark.parametrize("averaging", [EMA, use("swa", start_epoch=0)], ids=["ema", "swa"])
def test_load_best_refuses_averages_of_another_name(tmp_path, averaging):
    """Those of the last step would replace the best ones; disabled, they do not."""
    ema_loop(tmp_path / "a", Worsen(), averaging=averaging).train(3)
    other = use(averaging.plugin, averaging.config, name="other")
    loop = ema_loop(tmp_path / "b", Worsen(), averaging=other)
    loop.train(3)
    last = weights(loop)
    best = Checkpoint(tmp_path / "a", best="valid/loss")
    saved = averaging.plugin
    with pytest.raises(StateError, match=rf"^'other' has averages .* averages of '{saved}'"):
        best.load_best(loop)
    assert last == weights(loop)
    loop.components.disable("other")
    loss = read_state(best.load_best(loop))["metrics"]["valid/loss"]
    loop.validate()
    assert float(loss) == loop.metrics["valid/loss"]


class OtherEma(LoopComponent):
    """A component that has the name of another one, and no averages."""

    name = "ema"


@pytest.mark.parametrize("others", [[], [OtherEma()]], ids=["nothing", "another one"])
def test_load_best_of_another_loop(tmp_path, others):
    """A15: a script that only tests gives its loop, without ema or with something else as ema."""
    ema_loop(tmp_path, Worsen()).train(3)
    saving = Checkpoint(tmp_path, best="valid/loss")
    loop = TrainTestLoop(
        ComponentConformance.make_model(),
        [LogLoss(), *others],
        None,
        ComponentConformance.make_data(2),
    )
    with pytest.raises(RunError, match=r"Give one: load_best\(loop\)"):
        saving.load_best()
    best = read_state(saving.load_best(loop))["metrics"]["valid/loss"]
    loop.validate()
    assert float(best) == loop.metrics["valid/loss"]


def test_load_best_is_refused_where_it_cannot_be_right(tmp_path):
    """A15: in a run, without a best one, for another model, and where all values are NaN."""
    loop = make_loop(tmp_path, best=None)
    loop.components.append(
        CallAt("on_batch_end", lambda loop: loop.components["checkpoint"].load_best())
    )
    with pytest.raises(RunError, match="while the loop is running"):
        loop.train(1)
    with pytest.raises(CheckpointError, match="as best='valid/loss'"):
        loop.components["checkpoint"].load_best()
    make_loop(tmp_path / "b", LogValues(1), best="train/cost").train(1)
    other = TrainTestLoop(torch.nn.Linear(2, 1))
    with pytest.raises(StateError, match="the model does not fit"):
        Checkpoint(tmp_path / "b", best="train/cost").load_best(other)
    loop = make_loop(tmp_path / "c", LogValues(float("nan")), best="train/cost")
    loop.train(1)
    with pytest.raises(CheckpointError, match="no value of it was finite"):
        loop.components["checkpoint"].load_best()


def test_resume_best_resumes_from_the_best_one(tmp_path):
    """A15: training continues behind it; started again, behind what was saved since."""
    config = {"best": "train/cost", "keep": None}
    make_loop(tmp_path, LogValues(*VALUES), **config).train(3)
    loop = make_loop(tmp_path, LogValues(5), resume="best", **config)
    loop.train(3)
    assert [(1, 3), (2, 6), (3, 9), (3, 9)] == positions(tmp_path)
    loop = make_loop(tmp_path, LogValues(5), resume="best", **config)
    loop.train(4)
    assert [(1, 3), (2, 6), (3, 9), (3, 9), (4, 12)] == positions(tmp_path)


def test_resume_best_starts_where_there_is_nothing(tmp_path):
    """A15: the first start of a script has none; where none is the best, it is an error."""
    loop = make_loop(tmp_path / "a", LogValues(1), best="train/cost", resume="best")
    loop.train(1)
    assert 1 == loop.epoch_num
    make_loop(tmp_path / "b").train(1)
    with pytest.raises(CheckpointError, match="has none to resume from"):
        make_loop(tmp_path / "b", resume="best").train(1)


# -- export ---------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [True, False])
def test_exports_the_averages_where_they_were_used(tmp_path, capsys, best):
    """A15: the file has the weights with which the model was validated."""
    ema_loop(tmp_path / "runs", Worsen()).train(3)
    target = tmp_path / "weights.safetensors"
    options = ["--best"] if best else []
    assert 0 == main([str(tmp_path / "runs"), *options, "--export", str(target)])
    path = tmp_path / "runs" / (SECOND if best else THIRD)
    assert f"{target} holds the weights of {path}\n" == capsys.readouterr().out
    averages = read_state(path)["components"]["ema"]
    found = load_file(target)
    assert {n.removeprefix("module.") for n in averages} - {"n_averaged"} == set(found)
    assert all(torch.equal(averages[f"module.{name}"], found[name]) for name in found)
    with safe_open(target, "pt") as file:
        assert ("true", path.name) == (file.metadata()["averages"], file.metadata()["checkpoint"])


def test_exports_tied_weights_and_one_checkpoint(tmp_path):
    """A15: without ema the model's own, each by all of its names; a path names one checkpoint."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    TrainTestLoop(model, [Checkpoint(tmp_path / "runs", signals=False)], [0] * 3).train(1)
    target = tmp_path / "weights.safetensors"
    assert 0 == main(["export", str(tmp_path / "runs" / FIRST), "-o", str(target)])
    found = load_file(target)
    assert {name: value.tolist() for name, value in model.state_dict().items()} == {
        name: value.tolist() for name, value in found.items()
    }
    assert ["runs", "weights.safetensors"] == names_in(tmp_path)


def test_the_former_command_exports_too(tmp_path):
    """A15: scripts that have `export DIRECTORY -o FILE` keep working."""
    make_loop(tmp_path / "runs").train(1)
    target = tmp_path / "weights.safetensors"
    assert 0 == main(["export", str(tmp_path / "runs"), "-o", str(target)])
    assert target.exists()


def test_the_best_one_is_only_exported(tmp_path, capsys):
    """A15: `--best` alone is not understood."""
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--best"])
    assert "give --export too" in capsys.readouterr().err


def test_export_says_what_is_missing(tmp_path, capsys):
    """A15: no checkpoint, none that is the best, a file that cannot be written."""
    make_loop(tmp_path / "runs").train(1)
    for arguments, expected in [
        ([tmp_path / "none", "-o", tmp_path / FILE], f"no checkpoint is in {tmp_path / 'none'}"),
        ([tmp_path / "runs", "--best", "-o", tmp_path / FILE], "no checkpoint of a best metric is"),
        ([tmp_path / "runs", "-o", tmp_path / "no" / FILE], "cannot be written"),
    ]:
        assert 1 == main(["export", *map(str, arguments)])
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.bin", "x.pt", "x"])
def test_export_refuses_other_suffixes(tmp_path, capsys, name):
    """Readers that go by the suffix would take the file for a pickle; the fix is named."""
    make_loop(tmp_path / "runs").train(1)
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "runs"), "--export", str(tmp_path / name)])
    error = " ".join(capsys.readouterr().err.split())
    assert error.endswith(f"Give --export {tmp_path / 'x.safetensors'}")
    assert ["runs"] == names_in(tmp_path)


class Extra(torch.nn.Module):
    """A module with state that is no tensor."""

    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


def test_export_refuses_what_safetensors_cannot_hold(tmp_path, capsys):
    """A15: the error names the value."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), Extra())
    TrainTestLoop(model, [Checkpoint(tmp_path / "runs", signals=False)], [0] * 3).train(1)
    assert 1 == main(["export", str(tmp_path / "runs"), "-o", str(tmp_path / FILE)])
    assert "'1._extra_state' is dict, and safetensors holds" in capsys.readouterr().err


def test_a_directory_may_be_called_export(tmp_path, monkeypatch, capsys):
    """A15: one argument is a directory to list."""
    monkeypatch.chdir(tmp_path)
    make_loop("export").train(1)
    assert 0 == main(["export"])
    assert FIRST in capsys.readouterr().out


# -- a metric that stops coming -------------------------------------------------------------


class LogIn(LoopComponent):
    """A component that logs a metric in some epochs."""

    def __init__(self, *epochs):
        self.epochs = epochs

    def on_epoch_end(self, loop):
        if loop.epoch_num in self.epochs:
            loop.log({"cost": 1.0}, level="epoch")


def test_a_metric_that_stops_coming_is_a_warning(tmp_path):
    """A7: one warning says since when; the old value does not count again."""
    loop = make_loop(tmp_path, LogIn(0, 1), best="train/cost")
    with pytest.warns(UserWarning, match="not in the last 3 epochs") as warned:
        loop.train(8)
    assert 1 == len(warned)


def test_a_metric_that_stops_coming_is_noticed_after_resuming(tmp_path):
    """A7: what came before the checkpoint is known."""
    make_loop(tmp_path, LogIn(0, 1), best="train/cost").train(4)
    with pytest.warns(UserWarning, match="not in the last 3 epochs"):
        make_loop(tmp_path, LogIn(0, 1), best="train/cost").train(5)


def test_a_metric_that_comes_rarely_is_no_warning(tmp_path):
    """A7: gaps that are as long as earlier ones are meant."""
    make_loop(tmp_path, LogIn(*range(0, 12, 3)), best="train/cost").train(12)


# -- another metric -------------------------------------------------------------------------


def test_another_metric_is_an_error_with_the_choices(tmp_path):
    """A6: the best value of one metric is no measure for another."""
    both = LogValues(3, 1), LogValues(0.5, 0.7, metric="accuracy")
    make_loop(tmp_path, *both, best="train/cost").train(2)
    with pytest.raises(StateError) as caught:
        make_loop(tmp_path, *both, best="train/accuracy", mode="max").train(3)
    for text in ("'train/cost', mode='min'", "'train/accuracy', mode='max'", "settings='new'"):
        assert text in str(caught.value)
    with pytest.raises(StateError, match="settings='saved'"):
        make_loop(tmp_path, *both, best="train/cost", mode="max").train(3)


@pytest.mark.parametrize(
    ("settings", "best", "expected"),
    [("new", 9, "train/accuracy"), ("saved", 1, "train/cost")],
)
def test_another_metric_can_be_chosen(tmp_path, settings, best, expected):
    """A6: the new one starts without a best value, the saved one continues."""
    both = LogValues(3, 1, 2), LogValues(50, 7, 9, metric="accuracy")
    make_loop(tmp_path, *both, best="train/cost", keep=None).train(2)
    loop = make_loop(
        tmp_path, *both, best="train/accuracy", mode="max", settings=settings, keep=None
    )
    loop.train(3)
    saving = loop.components["checkpoint"]
    assert best == saving.state_dict()["best"]
    assert expected == saving.state_dict()["monitor"]
    assert tmp_path / (THIRD if settings == "new" else SECOND) == saving.best_path


def test_a_checkpoint_of_an_earlier_version_has_no_metric_to_compare():
    """A6: its best value is taken for one of the metric of the script, as before."""
    saving = Checkpoint("runs", best="valid/loss")
    saving.load_state_dict({"best": 2.0, "run": "r"})
    assert 2.0 == saving.state_dict()["best"]
    saving = Checkpoint("runs")
    saving.load_state_dict({"best": math.inf, "run": "r"})
    assert math.inf == saving.state_dict()["best"]


# -- a run that was complete ----------------------------------------------------------------


def test_a_complete_run_says_so(tmp_path, caplog):
    """A6: and what to do; a run that continues says nothing of the kind."""
    make_loop(tmp_path).train(2)
    make_loop(tmp_path).train(3)
    assert "nothing was trained" not in caplog.text
    make_loop(tmp_path).train(3)
    assert (
        f"checkpoint: nothing was trained: the run in {tmp_path} is complete after 3 epochs and 9 "
        "steps. To train longer, give train() more epochs or steps. To start again, give another "
        "directory, or resume='never'"
    ) in caplog.text


def test_a_stopped_run_says_so(tmp_path, caplog):
    """A6: more epochs would not help there."""
    stop = CallAt("on_safe_point", lambda loop: loop.global_step == 4 and loop.stop())
    make_loop(tmp_path, stop).train(9)
    make_loop(tmp_path).train(9)
    assert "was stopped after 1 epochs and 4 steps. To train on, give resume=" in caplog.text


def test_folds_that_share_a_directory_are_told(tmp_path, caplog):
    """A6: the second fold would report the result of the first."""
    first, second = make_loop(tmp_path), make_loop(tmp_path)
    first.train(2)
    second.train(2)
    assert "folds and trials need directories of their own" in caplog.text


def test_a_metric_that_the_validation_data_cannot_have_is_refused(tmp_path):
    """Before the first batch, and nothing is written."""
    saving = use("checkpoint", directory=tmp_path, best="valid/loss")
    loop = TrainTestLoop(torch.nn.Linear(2, 1), [saving], [0])
    for valid_data in (None, {"a": [0]}):
        loop.valid_data = valid_data
        with pytest.raises(ArgumentError, match="'checkpoint' monitors 'valid/loss', but"):
            loop.train(1)
    assert [] == list(tmp_path.glob("*0*"))
