"""The callbacks of transformers, with transformers: `make adapters` runs them in `.venv-peers`."""

import contextlib
import io

import pytest
from ttl_adapters import HFCallback, UnsupportedAccessError

from ttl_core import LoopComponent
from ttl_core.testing import tiny_data

transformers = pytest.importorskip(
    "transformers",
    reason="transformers is not installed with ttl: `make adapters` tests its callbacks",
)

pytestmark = pytest.mark.filterwarnings("ignore")  # libraries warn as they like


def train_by_transformers(callback, model, folder, **options):
    """Train as `make_loop` does, by the Trainer, with two batches of validation."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = model

        def forward(self, inputs, labels):
            scores = self.network(inputs)
            return {"loss": torch.nn.functional.cross_entropy(scores, labels), "logits": scores}

    def samples(n):
        return [
            {"inputs": one, "labels": label}
            for inputs, labels in tiny_data(n)
            for one, label in zip(inputs, labels, strict=True)
        ]

    args = transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=6,
        per_device_eval_batch_size=6,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="epoch",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    trainer = transformers.Trainer(
        Model(), args, train_dataset=samples(4), eval_dataset=samples(2), callbacks=[callback]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer


def test_events_are_called_in_the_order_of_the_trainer(make_loop, make_network, tmp_path):
    """The one exception is on_log of training, which comes before on_epoch_end."""

    def record(called):
        def event(name):
            return lambda self, *_, **__: called.append(name)

        names = [n for n in vars(transformers.TrainerCallback) if n.startswith("on_")]
        cls = type("Record", (transformers.TrainerCallback,), {n: event(n) for n in names})
        return cls()

    theirs, ours = [], []
    train_by_transformers(record(theirs), make_network(), tmp_path, num_train_epochs=2)
    make_loop(HFCallback(record(ours))).train(n_epochs=2)
    theirs.pop(-2)  # the summary of the run, that the Trainer logs
    assert [n for n in theirs if n != "on_log"] == [n for n in ours if n != "on_log"]
    assert 4 == theirs.count("on_log") == ours.count("on_log")


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "valid/loss"])
def test_early_stopping_stops(make_loop, metric):
    """The metric is named as in transformers, or as in ttl."""
    callback = transformers.EarlyStoppingCallback(2, 10.0)
    args = {"metric_for_best_model": metric}
    loop = make_loop(HFCallback(callback, args=args))
    loop.train(n_epochs=9)
    assert (3, 2) == (loop.epoch_num, callback.early_stopping_patience_counter)


def test_early_stopping_resumes(make_loop, keep):
    """From each safe point it stops in the same epoch."""

    def make():
        return HFCallback(transformers.EarlyStoppingCallback(2, 10.0))

    make_loop(make(), keep).train(n_epochs=9)
    assert 3 * 5 == len(keep.states)
    for state in keep.states:
        loop = make_loop(make())
        loop.load_state_dict(state)
        loop.train(n_epochs=9)
        assert 3 == loop.epoch_num


def test_early_stopping_takes_training_arguments(make_loop, tmp_path):
    """A TrainingArguments is used as it is."""
    args = transformers.TrainingArguments(
        tmp_path,
        eval_strategy="epoch",
        metric_for_best_model="loss",
        greater_is_better=False,
        report_to="none",
    )
    loop = make_loop(HFCallback(transformers.EarlyStoppingCallback(2, 10.0), args=args))
    loop.train(n_epochs=9)
    assert 3 == loop.epoch_num


def test_early_stopping_of_a_greater_metric(make_loop):
    """greater_is_better is respected."""

    class Better(LoopComponent):
        def on_epoch_end(self, loop):
            loop.log({"score": loop.epoch_num}, level="epoch")

    args = {"metric_for_best_model": "score", "greater_is_better": True}
    loop = make_loop(Better(), HFCallback(transformers.EarlyStoppingCallback(1), args=args))
    loop.train(n_epochs=4)
    assert (4, None) == (loop.epoch_num, loop.stopped_by)


def test_printer_prints_logs(make_loop, capsys):
    """Values of epochs, and those of batches every so many steps."""
    args = {"logging_steps": 2}
    make_loop(HFCallback(transformers.PrinterCallback(), args=args)).train(n_epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert 4 == len(lines)
    assert all("'learning_rate': '0.1'" in line for line in lines[:2])
    assert lines[2].startswith("{'loss': '0.")
    assert lines[3].startswith("{'eval_loss': '0.")


def test_progress_callback_shows_steps(make_loop):
    """The bar counts all steps, and that of an evaluation its batches."""
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        loop = make_loop(HFCallback(transformers.ProgressCallback()))
        loop.train(n_epochs=2)
        loop.test(tiny_data(1))
        loop.predict(tiny_data(1))
    assert "8/8" in output.getvalue()
    assert "2/2" in output.getvalue()
    assert "'eval_loss'" in output.getvalue()


def test_tensorboard_callback_writes_values(make_loop, tmp_path):
    """Values have the names and steps that the Trainer gives them."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from transformers.integrations import TensorBoardCallback

    args = {"output_dir": str(tmp_path), "logging_steps": 1}
    make_loop(HFCallback(TensorBoardCallback(), args=args)).train(n_epochs=2)
    (file,) = tmp_path.rglob("events.*")
    found = events.EventAccumulator(str(file))
    found.Reload()
    assert [4, 8] == [event.step for event in found.Scalars("eval/loss")]
    assert {*range(1, 9)} == {event.step for event in found.Scalars("train/loss")}


def test_default_flow_evaluates_by_steps(make_loop):
    """It asks for what the arguments say, and to stop in the last step."""
    n_validated = []

    class CountValidations(LoopComponent):
        def on_epoch_begin(self, loop):
            if loop.is_validating:
                n_validated.append(loop.global_step)

    args = {"eval_strategy": "steps", "eval_steps": 3, "save_steps": 0}
    flow = HFCallback(transformers.DefaultFlowCallback(), args=args)
    loop = make_loop(flow, CountValidations())
    loop.train(n_epochs=2)
    assert ([3, 4, 6, 8], 2, None) == (n_validated, loop.epoch_num, loop.stopped_by)


def test_default_flow_that_saves_is_an_error(make_loop):
    """Saving is what checkpoint does."""
    flow = HFCallback(transformers.DefaultFlowCallback(), args={"save_strategy": "epoch"})
    message = r"DefaultFlowCallback sets control\.should_save, .*Instead: the component checkpoint"
    with pytest.raises(UnsupportedAccessError, match=message):
        make_loop(flow).train(n_epochs=1)


class StopAfter(transformers.TrainerCallback):
    """A callback of a user that returns the control."""

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        assert 0.1 == optimizer.param_groups[0]["lr"]
        if state.global_step == 6:
            control.should_training_stop = True
        return control


class NewControl(transformers.TrainerCallback):
    """A callback of a user that returns another control."""

    def on_step_end(self, args, state, control, **kwargs):
        return transformers.TrainerControl(should_training_stop=state.global_step == 6)


@pytest.mark.parametrize("cls", [StopAfter, NewControl])
def test_a_callback_of_a_user_stops(make_loop, cls):
    """The run stops at the next safe point."""
    loop = make_loop(HFCallback(cls()))
    loop.train(n_epochs=9)
    assert 6 == loop.global_step


def test_a_callback_of_a_user_writes_a_file(make_loop, tmp_path):
    """A row for each evaluation, as such callbacks have it."""

    class WriteRows(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.file = (tmp_path / "rows.csv").open("w")

        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            if state.is_world_process_zero:
                self.file.write(f"{state.epoch},{state.global_step},{metrics['eval_loss']}\n")

        def on_train_end(self, args, state, control, **kwargs):
            self.file.close()

    loop = make_loop(HFCallback(WriteRows()))
    loop.train(n_epochs=2)
    rows = (tmp_path / "rows.csv").read_text().splitlines()
    assert [["1.0", "4"], ["2.0", "8"]] == [row.split(",")[:2] for row in rows]
    assert str(loop.metrics["valid/loss"]) == rows[1].split(",")[2]


def test_a_callback_of_a_user_exports_its_state(make_loop, keep):
    """An ExportableState is restored with the loop."""
    from transformers.trainer_callback import ExportableState

    class Count(transformers.TrainerCallback, ExportableState):
        n_steps = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.n_steps += 1

        def state(self):
            return {"args": {}, "attributes": {"n_steps": self.n_steps}}

    make_loop(HFCallback(Count()), keep).train(n_epochs=1)
    callback = Count()
    loop = make_loop(HFCallback(callback))
    loop.load_state_dict(keep.states[1])
    loop.train(n_epochs=2)
    assert 8 == callback.n_steps


def test_the_example_of_its_page_runs(run_example):
    """It is skipped where the documentation is tested."""
    run_example("hf-callback")
