"""The behaviour of `hf-callback`, with callbacks that users may have written."""

import json
import math

import pytest
import torch
from ttl_adapters import HFCallback, UnsupportedAccessError

from ttl_core import ArgumentError, LoopComponent
from ttl_core.testing import tiny_data

EVENTS = (
    *("on_init_end", "on_train_begin", "on_epoch_begin", "on_step_begin", "on_substep_end"),
    *("on_pre_optimizer_step", "on_optimizer_step", "on_step_end", "on_epoch_end", "on_train_end"),
    *("on_prediction_step", "on_evaluate", "on_predict", "on_log"),
)


def recording(**functions):
    """Return a callback that records the names of its events, and calls functions in some."""

    class Recording:
        def __init__(self):
            self.called = []

    def event(name):
        def call(self, args, state, control, **keywords):
            self.called.append(name)
            return functions.get(name, lambda *_, **__: None)(args, state, control, **keywords)

        return call

    for name in EVENTS:
        setattr(Recording, name, event(name))
    return Recording()


class Accumulate(LoopComponent):
    """Two batches make a step."""

    def on_batch_begin(self, loop):
        loop.is_stepping = loop.batch_num % 2 == 1


def test_calls_events_in_the_order_of_the_trainer(make_loop):
    """A step is of several batches where gradients accumulate."""
    callback = recording()
    make_loop(HFCallback(callback), Accumulate(), n_train=2, n_valid=1).train(n_epochs=1)
    assert callback.called == [
        *("on_init_end", "on_train_begin", "on_epoch_begin", "on_step_begin", "on_substep_end"),
        *("on_pre_optimizer_step", "on_optimizer_step", "on_step_end", "on_log", "on_epoch_end"),
        *("on_prediction_step", "on_log", "on_evaluate", "on_train_end"),
    ]


@pytest.mark.parametrize(
    ("run", "last"),
    [
        (lambda loop: loop.validate(), ["on_log", "on_evaluate"]),
        (lambda loop: loop.test(tiny_data(1)), ["on_log", "on_evaluate"]),
        (lambda loop: loop.predict(tiny_data(1)), ["on_predict"]),
    ],
    ids=["validate", "test", "predict"],
)
def test_calls_events_of_runs_that_do_not_train(make_loop, run, last):
    """A test is an evaluation, too."""
    callback = recording()
    run(make_loop(HFCallback(callback), n_valid=1))
    assert ["on_prediction_step", *last] == callback.called


def test_the_state_follows_the_loop(make_loop):
    """What callbacks read of the state is what the loop does."""
    found = []

    def look(args, state, control, **_):
        found.append((state.epoch, state.global_step, state.max_steps, state.num_train_epochs))

    callback = recording(on_step_end=look, on_evaluate=look)
    loop = make_loop(HFCallback(callback), n_train=2)
    loop.train(n_epochs=1)
    assert [(0.5, 1, 2, 1), (1.0, 2, 2, 1), (1.0, 2, 2, 1)] == found
    found.clear()
    loop.train(n_optim_steps=1)
    assert [(1.5, 3, 3, math.inf), (2.0, 3, 3, math.inf)] == found


def test_objects_are_given_by_keyword(make_loop):
    """Those are the model, the optimizer, the scheduler and the data."""
    found = {}
    callback = recording(
        on_step_end=lambda args, state, control, **keywords: found.update(keywords)
    )
    loop = make_loop(HFCallback(callback))
    loop.train(n_epochs=1)
    assert found == {
        "model": loop.model,
        "processing_class": None,
        "optimizer": loop.optimizer,
        "lr_scheduler": None,
        "train_dataloader": loop.train_data,
        "eval_dataloader": loop.valid_data,
    }


@pytest.mark.parametrize("name", ["eval_loss", "valid/loss", "eval_valid/loss"])
def test_metrics_are_found_by_both_names(make_loop, name):
    """They are listed by the names of transformers, and found by those of ttl."""
    found = []

    def look(args, state, control, metrics, **_):
        found.append((list(metrics), metrics[name], metrics.get(name), name in metrics))

    loop = make_loop(HFCallback(recording(on_evaluate=look)))
    loop.train(n_epochs=1)
    loss = loop.metrics["valid/loss"]
    assert [(["eval_loss"], loss, loss, True)] == found


def test_several_validation_sets_are_several_evaluations(make_loop):
    """Each has its own values, by the name that the Trainer gives them."""
    found = []
    callback = recording(
        on_evaluate=lambda args, state, control, metrics, **_: found.append(list(metrics))
    )
    sets = {"easy": tiny_data(1), "hard": tiny_data(1)}
    make_loop(HFCallback(callback), valid_data=sets).train(n_epochs=1)
    assert [["eval_easy_loss"], ["eval_hard_loss"]] == found


@pytest.mark.parametrize("returned", [False, True], ids=["set", "returned"])
def test_stops_at_the_safe_point(make_loop, returned):
    """A control that is set, or another one that is returned, stops training."""

    class Other:
        should_training_stop = True
        should_epoch_stop = should_save = should_evaluate = should_log = False

    def stop(args, state, control, **_):
        if state.global_step == 6 and returned:
            return Other()
        control.should_training_stop = state.global_step == 6
        return control

    loop = make_loop(HFCallback(recording(on_step_end=stop)))
    loop.train(n_epochs=9)
    assert (6, 1) == (loop.global_step, loop.epoch_num)


def test_asking_to_stop_in_the_last_step_changes_nothing(make_loop):
    """The run ends there anyway, and its last epoch counts."""

    def stop(args, state, control, **_):
        control.should_training_stop = state.global_step >= state.max_steps

    loop = make_loop(HFCallback(recording(on_step_end=stop)), n_valid=0)
    loop.train(n_epochs=2)
    assert (2, None) == (loop.epoch_num, loop.stopped_by)


def test_evaluates_at_the_safe_point(make_loop):
    """should_evaluate validates after the step; after the last one the epoch is validated."""

    def ask(args, state, control, **_):
        control.should_evaluate = state.global_step in (1, 4)

    steps = []
    callback = recording(
        on_step_end=ask,
        on_evaluate=lambda args, state, control, **_: steps.append(state.global_step),
    )
    make_loop(HFCallback(callback)).train(n_epochs=1)
    assert [1, 4] == steps


def test_to_evaluate_takes_data(make_loop):
    """Without validation data it is an error."""

    def ask(args, state, control, **_):
        control.should_evaluate = True

    loop = make_loop(HFCallback(recording(on_epoch_end=ask)), n_valid=0)
    with pytest.raises(ArgumentError, match="valid_data is None"):
        loop.train(n_epochs=1)


def test_values_of_batches_are_logged_where_they_are_asked_for(make_loop):
    """That is by should_log, and every so many steps by logging_steps."""
    found = []

    def log(args, state, control, logs, **_):
        found.append((state.global_step, sorted(logs)))

    def ask(args, state, control, **_):
        control.should_log = state.global_step == 1

    callback = recording(on_log=log, on_step_end=ask)
    loop = make_loop(HFCallback(callback, args={"logging_steps": 3}), n_valid=0)
    loop.train(n_epochs=1)
    step = ["epoch", "learning_rate", "loss"]
    assert [(1, step), (3, step), (4, ["epoch", "loss"])] == found


def test_arguments_have_defaults_and_are_given_by_name(make_loop, tmp_path):
    """Those that follow the loop do; a TrainingArguments is taken as it is."""
    found = []

    def look(args, state, control, **_):
        found.append((args.eval_strategy, args.num_train_epochs, args.seed, args.output_dir))
        assert found[-1][2] == json.loads(args.to_json_string())["seed"]

    given = {"seed": 3, "output_dir": str(tmp_path)}
    make_loop(HFCallback(recording(on_train_begin=look), args=given)).train(n_epochs=2)
    assert [("epoch", 2, 3, str(tmp_path))] == found

    class TrainingArguments:
        logging_strategy, logging_steps = "no", 500
        metric_for_best_model = None

    arguments = TrainingArguments()
    callback = recording(on_train_begin=lambda args, *_, **__: found.append(args))
    make_loop(HFCallback(callback, args=arguments)).train(n_epochs=1)
    assert arguments is found[-1]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            lambda args, state, control: args.deepspeed,
            r"Recording uses args\.deepspeed, .*Give it: args=\{'deepspeed': \.\.\.\}",
        ),
        (
            lambda args, state, control: state.log_history,
            r"Recording uses state\.log_history, .*Instead: the component history",
        ),
        (
            lambda args, state, control: setattr(state, "global_step", 3),
            r"Recording sets state\.global_step, .*There is: nothing",
        ),
        (
            lambda args, state, control: setattr(control, "should_save", True),
            r"Recording sets control\.should_save, .*Instead: the component checkpoint",
        ),
        (
            lambda args, state, control: setattr(control, "should_epoch_stop", True),
            r"Recording sets control\.should_epoch_stop, .*Instead: the component limit-batches",
        ),
    ],
)
def test_what_is_not_there_is_an_error_that_names_it(make_loop, action, message):
    """The error names the callback, the attribute, and what there is instead."""
    callback = recording(on_step_end=lambda args, state, control, **_: action(args, state, control))
    with pytest.raises(UnsupportedAccessError, match=message):
        make_loop(HFCallback(callback)).train(n_epochs=1)


class Patience:
    """A callback that exports its state, and stops when the loss was no better for some epochs."""

    def __init__(self, patience=2):
        self.patience, self.n_bad = patience, 0

    def on_evaluate(self, args, state, control, metrics, **_):
        is_better = state.best_metric is None or metrics["eval_loss"] < state.best_metric - 10
        self.n_bad = 0 if is_better else self.n_bad + 1
        control.should_training_stop = self.n_bad >= self.patience

    def state(self):
        return {"args": {"patience": self.patience}, "attributes": {"n_bad": self.n_bad}}


def test_state_is_what_is_exported(make_loop, keep):
    """From each safe point the attributes, the best value and a stop are restored."""
    loop = make_loop(HFCallback(Patience()), keep)
    loop.train(n_epochs=9)
    assert (3, 5 * 3) == (loop.epoch_num, len(keep.states))
    for state in keep.states:
        callback = Patience()
        other = make_loop(HFCallback(callback))
        other.load_state_dict(state)
        other.train(n_epochs=9)
        assert (2, 3) == (callback.n_bad, other.epoch_num)
        adapters = [each.components["hf-callback"] for each in (loop, other)]
        assert adapters[0].state_dict() == adapters[1].state_dict()


def test_enabled_in_mid_run_it_starts_with_the_next_epoch(make_loop):
    """Its events are never called without those for the beginning."""
    callback = recording()

    class Enable(LoopComponent):
        def on_batch_end(self, loop):
            if loop.global_step == 2:
                loop.components.enable("hf-callback")

    loop = make_loop(Enable(), HFCallback(callback), n_valid=0)
    loop.components.disable("hf-callback")
    loop.train(n_epochs=2)
    assert ["on_init_end", "on_train_begin", "on_epoch_begin"] == callback.called[:3]
    assert 4 == callback.called.count("on_step_end")


@pytest.mark.parametrize(
    ("callback", "args", "message"),
    [
        (Patience, None, "callback is the class Patience"),
        (torch.nn.Identity(), None, "which is no callback of transformers"),
        (Patience(), 3, "args is 3, but has to be a mapping"),
        (
            type("NotebookProgressCallback", (Patience,), {"__module__": "transformers.utils"})(),
            None,
            "Instead: the component progress",
        ),
    ],
)
def test_refuses_what_cannot_work(callback, args, message):
    """It is refused when the component is made."""
    with pytest.raises(ArgumentError, match=message):
        HFCallback(callback, args)
