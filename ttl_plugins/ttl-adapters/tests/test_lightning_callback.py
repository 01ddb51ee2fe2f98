"""The behaviour of `lightning-callback`, with callbacks that users may have written."""

import pytest
import torch
from ttl_adapters import LightningCallback, UnsupportedAccessError

from ttl_core import ArgumentError, Group, GroupError, LoopComponent, RunError, use
from ttl_core.testing import tiny_data

HOOKS = (
    *("setup", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start"),
    *("on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_train_batch_end", "on_validation_start"),
    *("on_validation_epoch_start", "on_validation_batch_start", "on_validation_batch_end"),
    *("on_validation_epoch_end", "on_validation_end", "on_train_epoch_end", "on_train_end"),
    *("on_fit_end", "teardown", "on_test_start", "on_test_epoch_start", "on_test_batch_start"),
    *("on_test_batch_end", "on_test_epoch_end", "on_test_end", "on_predict_start"),
    *("on_predict_epoch_start", "on_predict_batch_start", "on_predict_batch_end"),
    *("on_predict_epoch_end", "on_predict_end", "on_exception"),
)


def recording(**functions):
    """Return a callback that records the names of its hooks, and calls functions in some."""

    class Recording:
        def __init__(self):
            self.called = []

    def hook(name):
        def call(self, trainer, pl_module, *arguments, stage=None):
            self.called.append(name)
            if name in functions:
                functions[name](trainer, pl_module, *arguments)

        return call

    for name in HOOKS:
        setattr(Recording, name, hook(name))
    return Recording()


def test_calls_hooks_in_the_order_of_lightning(make_loop):
    """In training, validation comes before the end of the epoch."""
    callback = recording()
    make_loop(LightningCallback(callback), n_train=1, n_valid=1).train(n_epochs=1)
    assert callback.called == [
        *("setup", "on_fit_start", "on_train_start", "on_train_epoch_start"),
        *("on_before_zero_grad", "on_train_batch_start", "on_before_backward"),
        *("on_after_backward", "on_before_optimizer_step", "on_train_batch_end"),
        *("on_validation_start", "on_validation_epoch_start", "on_validation_batch_start"),
        *("on_validation_batch_end", "on_validation_epoch_end", "on_validation_end"),
        *("on_train_epoch_end", "on_train_end", "on_fit_end", "teardown"),
    ]


@pytest.mark.parametrize(
    ("run", "phase"),
    [
        (lambda loop: loop.validate(), "validation"),
        (lambda loop: loop.test(tiny_data(1)), "test"),
        (lambda loop: loop.predict(tiny_data(1)), "predict"),
    ],
    ids=["validate", "test", "predict"],
)
def test_calls_hooks_of_runs_that_do_not_train(make_loop, run, phase):
    """validate(), test() and predict() have their own hooks."""
    callback = recording()
    run(make_loop(LightningCallback(callback), n_valid=1))
    hooks = ("start", "epoch_start", "batch_start", "batch_end", "epoch_end", "end")
    assert ["setup", *(f"on_{phase}_{hook}" for hook in hooks), "teardown"] == callback.called


def test_an_exception_is_told(make_loop):
    """The callback is told of an exception, and is not torn down, as in Lightning."""

    def fail(*_):
        raise KeyError("planned")

    callback = recording(on_train_batch_end=fail)
    with pytest.raises(KeyError, match="planned"):
        make_loop(LightningCallback(callback)).train(n_epochs=1)
    assert ["on_train_batch_end", "on_exception"] == callback.called[-2:]


def test_hooks_get_what_lightning_gives(make_loop):
    """That is the step's outputs, the batch, its number, and the index of the validation set."""
    found = {}
    callback = recording(
        on_train_batch_end=lambda t, m, *rest: found.update(train=rest),
        on_validation_batch_end=lambda t, m, *rest: found.update(valid=rest),
        on_predict_batch_end=lambda t, m, *rest: found.update(predict=rest),
        on_before_backward=lambda t, m, loss: found.update(loss=loss),
    )
    data = tiny_data(4)
    loop = make_loop(LightningCallback(callback), valid_data={"a": data[:1], "b": data[1:3]})
    loop.train(n_epochs=1)
    assert found["loss"].item() == found["train"][0]["loss"].item()
    assert (3, 1, 1) == (found["train"][2], *found["valid"][2:])
    assert torch.equal(data[2][0], found["valid"][1][0])
    (scores,) = loop.predict(data[:1])
    assert torch.equal(scores, found["predict"][0])


def test_several_validation_sets_are_one_validation(make_loop):
    """Validation starts before the first set and ends after the last one."""
    callback = recording()
    sets = {"easy": tiny_data(1), "hard": tiny_data(1)}
    make_loop(LightningCallback(callback), n_train=1, valid_data=sets).train(n_epochs=1)
    found = [name for name in callback.called if "validation" in name]
    batch = ["on_validation_batch_start", "on_validation_batch_end"]
    assert found == [
        *("on_validation_start", "on_validation_epoch_start", *batch, *batch),
        *("on_validation_epoch_end", "on_validation_end"),
    ]


def test_the_trainer_follows_the_loop(make_loop):
    """What callbacks read of the trainer is what the loop does."""
    found = []

    def look(trainer, module, *_):
        found.append(
            (trainer.current_epoch, trainer.max_epochs, trainer.global_step, trainer.state.fn)
        )

    callback = recording(on_train_epoch_start=look, on_train_epoch_end=look, on_train_end=look)
    loop = make_loop(LightningCallback(callback))
    loop.train(n_epochs=2)
    expected = [(0, 2, 0), (0, 2, 4), (1, 2, 4), (1, 2, 8), (2, 2, 8)]
    assert [(*each, "fit") for each in expected] == found
    found.clear()
    loop.train(n_epochs=1)
    assert [(2, 3, 8, "fit"), (2, 3, 12, "fit"), (3, 3, 12, "fit")] == found


def test_the_module_is_the_model(make_loop):
    """What the model has, the module has, and what is set on the module is set on the model."""
    found = {}

    def use_module(trainer, module):
        module.extra = 3
        found.update(
            same=module.backbone is trainer.model.backbone,
            names=[name for name, _ in module.named_parameters()],
            scores=module(torch.ones(1, 4)).shape,
            device=module.device,
        )

    loop = make_loop(LightningCallback(recording(on_fit_start=use_module)))
    loop.train(n_epochs=0)
    names = ["backbone.weight", "backbone.bias", "head.weight", "head.bias"]
    cpu = torch.device("cpu")
    assert {"same": True, "names": names, "scores": (1, 2), "device": cpu} == found
    assert 3 == loop.model.extra


@pytest.mark.parametrize("name", ["valid/loss", "val_loss", "val/loss"])
def test_metrics_are_found_by_both_names(make_loop, name):
    """A callback monitors a metric by the name of ttl, or as users of Lightning call it."""
    found = []
    callback = recording(
        on_train_epoch_end=lambda trainer, _: found.append(trainer.callback_metrics[name])
    )
    loop = make_loop(LightningCallback(callback))
    loop.train(n_epochs=1)
    assert [torch.tensor(loop.metrics["valid/loss"])] == found


def test_stops_at_the_safe_point(make_loop):
    """should_stop in a batch stops after it, behind components that save there."""

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            self.saved = loop.global_step

    def stop(trainer, *_):
        trainer.should_stop = trainer.global_step == 6

    callback = recording(on_train_batch_end=stop)
    loop = make_loop(LightningCallback(callback), Save())
    loop.train(n_epochs=9)
    assert (6, 6, 1) == (loop.global_step, loop.components["save"].saved, loop.epoch_num)
    assert "Recording asked for it" == loop.stopped_by.reason


def test_a_stop_in_the_last_batch_waits_for_the_validation(make_loop):
    """The epoch is validated, counts, and its end is told."""

    def stop(trainer, *_):
        trainer.should_stop = trainer.is_last_batch

    callback = recording(on_train_batch_end=stop)
    loop = make_loop(LightningCallback(callback))
    loop.train(n_epochs=9)
    assert (1, 1) == (loop.epoch_num, callback.called.count("on_train_epoch_end"))


def test_without_validation_an_epoch_ends_after_its_batches(make_loop):
    """on_train_epoch_end is called at the safe point that follows."""
    callback = recording()
    make_loop(LightningCallback(callback), n_train=1, n_valid=0).train(n_epochs=2)
    assert 2 == callback.called.count("on_train_epoch_end")
    assert not any("validation" in name for name in callback.called)


def test_logs_by_the_level_of_the_hook(make_loop):
    """log() in hooks of batches logs at batch level, else at epoch level, under the same name."""
    logged = []

    class Log(LoopComponent):
        def on_log(self, loop, metrics, level):
            logged.extend((name, value, level) for name, value in metrics.items() if value == 7)

    callback = recording(
        on_train_batch_end=lambda trainer, module, *_: module.log("a", 7, prog_bar=True),
        on_train_epoch_start=lambda *_: callback.log_dict({"train/b": 7}),
        on_train_epoch_end=lambda *_: callback.log("c", 7, on_epoch=True),
        on_train_batch_start=lambda trainer, *_: trainer.logger.log_metrics({"train/d": 7}, step=0),
    )
    make_loop(LightningCallback(callback), Log(), n_train=1).train(n_epochs=1)
    assert logged == [
        ("train/b", 7, "epoch"),
        ("train/d", 7, "batch"),
        ("train/a", 7, "batch"),
        ("c", 7, "epoch"),
    ]


@pytest.mark.parametrize(
    ("hook", "options"), [("on_train_batch_end", {"on_epoch": True}), ("on_test_batch_end", {})]
)
def test_a_mean_over_the_epoch_is_refused(make_loop, hook, options):
    """It is not computed, and is not silently another value."""
    callback = recording(**{hook: lambda trainer, module, *_: module.log("a", 1.0, **options)})
    loop = make_loop(LightningCallback(callback))
    run = loop.test if "test" in hook else lambda _: loop.train(n_epochs=1)
    with pytest.raises(RunError, match=f"Recording logs a in {hook}, as a mean over the epoch"):
        run(tiny_data(1))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            lambda trainer, module: trainer.tuner,
            r"Recording uses trainer\.tuner, which ttl-adapters does not support\. There is: ",
        ),
        (
            lambda trainer, module: trainer.current_epok,
            r"Did you mean 'current_epoch'\? There is: callback_metrics, ",
        ),
        (
            lambda trainer, module: setattr(trainer, "accumulate_grad_batches", 2),
            r"Recording sets trainer\.accumulate_grad_batches, .* Instead: the component grad-acc",
        ),
        (
            lambda trainer, module: setattr(trainer, "max_epochs", 2),
            r"sets trainer\.max_epochs, .*There is: should_stop\n",
        ),
        (
            lambda trainer, module: setattr(trainer.fit_loop, "max_batches", 2),
            r"Recording sets trainer\.fit_loop\.max_batches",
        ),
        (
            lambda trainer, module: trainer.logger.experiment,
            r"uses trainer\.logger\.experiment, .*such as the component tensorboard",
        ),
        (
            lambda trainer, module: module.hparams,
            r"uses pl_module\.hparams, .* Instead: an attribute of the model",
        ),
        (
            lambda trainer, module: module.no_layer,
            r"uses pl_module\.no_layer, which ttl-adapters does not support",
        ),
    ],
)
def test_what_is_not_there_is_an_error_that_names_it(make_loop, action, message):
    """The error names the callback, the attribute, and what there is instead."""
    loop = make_loop(LightningCallback(recording(on_train_start=action)))
    with pytest.raises(UnsupportedAccessError, match=message):
        loop.train(n_epochs=1)


def test_a_default_is_used_where_an_attribute_is_missing(make_loop):
    """Callbacks may ask whether the trainer has something."""
    found = []
    callback = recording(on_train_start=lambda t, m: found.append(getattr(t, "tuner", "none")))
    make_loop(LightningCallback(callback)).train(n_epochs=0)
    assert ["none"] == found


def test_an_unset_loop_variable_is_named(make_loop):
    """What the trainer has, but the loop lacks, is the loop's own error."""

    class Forget(LoopComponent):
        def on_train_begin(self, loop):
            del loop.optimizer

    callback = recording(on_train_start=lambda trainer, module: trainer.optimizers)
    loop = make_loop(Forget(), LightningCallback(callback))
    with pytest.raises(AttributeError, match="no component has set the loop variable 'optimizers'"):
        loop.train(n_epochs=1)


def test_saves_weights_and_states(make_loop, tmp_path):
    """save_checkpoint writes a file as Lightning has it, without what is its own."""

    def save(trainer, module):
        trainer.save_checkpoint(tmp_path / "a" / "all.ckpt")
        trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)

    loop = make_loop(LightningCallback(recording(on_train_epoch_end=save)))
    loop.train(n_epochs=1)
    found = torch.load(tmp_path / "a" / "all.ckpt", weights_only=True)
    assert (0, 4, []) == (found["epoch"], found["global_step"], found["lr_schedulers"])
    assert [0.1] == [state["param_groups"][0]["lr"] for state in found["optimizer_states"]]
    loop.model.load_state_dict(found["state_dict"])
    weights = torch.load(tmp_path / "weights.ckpt", weights_only=True)
    assert ["epoch", "global_step", "state_dict"] == list(weights)


class JoinTwo(LoopComponent):
    """A group of two processes, of which the other one never answers."""

    def join_group(self):
        class Two(Group):
            size = 2

            def any(self, flag):
                raise GroupError("no answer")

            barrier = broadcast = lambda self, value=None: self.any(value)

        return Two()


def test_decisions_are_those_of_the_group_but_in_a_failure(make_loop, tmp_path):
    """A process that fails saves alone, as it must not wait for the others."""

    def save(trainer, *_):
        trainer.strategy.reduce_boolean_decision(True)
        trainer.save_checkpoint(tmp_path / "a.ckpt")

    callback = recording(on_train_start=save, on_exception=save)
    with pytest.raises(GroupError, match="no answer"):
        make_loop(JoinTwo(), LightningCallback(callback)).train(n_epochs=1)
    assert ["a.ckpt"] == [path.name for path in tmp_path.iterdir()]


class Count:
    """A callback with state of both kinds."""

    def __init__(self):
        self.n_epochs, self.n_batches, self.loaded = 0, 0, None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.n_batches += 1

    def on_train_epoch_end(self, trainer, pl_module):
        self.n_epochs += 1
        trainer.should_stop = self.n_epochs == 2

    def state_dict(self):
        return {"n_epochs": self.n_epochs}

    def load_state_dict(self, state_dict):
        self.n_epochs = state_dict["n_epochs"]

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["n_batches"] = self.n_batches

    def on_load_checkpoint(self, trainer, pl_module, checkpoint):
        self.n_batches = checkpoint["n_batches"]
        self.loaded = sorted(checkpoint)


def test_state_is_that_of_the_callback(make_loop, keep):
    """From each safe point, what state_dict returns and on_save_checkpoint adds is restored."""
    make_loop(LightningCallback(Count()), keep).train(n_epochs=5)
    assert 2 * 5 == len(keep.states)
    for state in keep.states:
        callback = Count()
        loop = make_loop(LightningCallback(callback))
        loop.load_state_dict(state)
        loop.train(n_epochs=5)
        assert (2, 8, 2) == (callback.n_epochs, callback.n_batches, loop.epoch_num)
    keys = ["epoch", "global_step", "lr_schedulers", "n_batches", "optimizer_states", "state_dict"]
    assert keys == callback.loaded


def test_a_run_that_resumes_inside_an_epoch_does_not_begin_it_again(make_loop, keep):
    """The state of the callback is that of behind its on_train_epoch_start, as in Lightning."""
    make_loop(LightningCallback(recording()), keep).train(n_epochs=1)
    first, *_, last = keep.states
    for state, n_begun in ((first, 1), (last, 1)):
        callback = recording()
        loop = make_loop(LightningCallback(callback))
        loop.load_state_dict(state)
        loop.train(n_epochs=2)
        assert n_begun == callback.called.count("on_train_epoch_start")


def test_enabled_in_mid_run_it_starts_with_the_next_epoch(make_loop):
    """Its hooks are never called without those for the beginning."""
    callback = recording()

    class Enable(LoopComponent):
        def on_batch_end(self, loop):
            if loop.global_step == 2:
                loop.components.enable("lightning-callback")

    loop = make_loop(Enable(), LightningCallback(callback), n_valid=0)
    loop.components.disable("lightning-callback")
    loop.train(n_epochs=2)
    begin = ["setup", "on_fit_start", "on_train_start", "on_train_epoch_start"]
    assert begin == callback.called[:4]
    assert 4 == callback.called.count("on_train_batch_end")


def test_forks_are_without_it(make_loop):
    """A callback may write files and show things."""
    assert ["train"] == make_loop(LightningCallback(recording())).fork().components.names()


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Count, r"callback is the class Count: write callback=Count\(\.\.\.\)"),
        (3, "callback is 3, which is no callback of Lightning: it has none of the methods setup"),
        (
            type("WeightAveraging", (Count,), {"__module__": "lightning.pytorch.callbacks"})(),
            "is a WeightAveraging of Lightning, which needs more .* Instead: the component ema",
        ),
    ],
)
def test_refuses_what_cannot_work(callback, message):
    """It is refused when the component is made."""
    with pytest.raises(ArgumentError, match=message):
        LightningCallback(callback)


def test_two_callbacks_are_told_apart_by_name(make_loop):
    """A list takes several, each with its own state."""
    one, other = Count(), Count()
    specs = [use("lightning-callback", callback=each) for each in (one, other)]
    loop = make_loop(*specs)
    loop.train(n_epochs=1)
    assert ["train", "lightning-callback", "lightning-callback#2"] == loop.components.names()
    assert (1, 1) == (one.n_epochs, other.n_epochs)
