"""A1 and A18: what a user most likely did not mean is said, with the fix."""

import pytest
import torch
from loops import make_component, make_loop
from torch.utils.data import DataLoader

from ttl_core import (
    ArgumentError,
    ComponentRejectedError,
    ConfigurationError,
    LoopComponent,
    RunError,
    TrainTestLoop,
    TTLError,
    UnknownNameError,
    UnsetVariableError,
    use,
)


def validate_in_mid_epoch(data):
    """Train on data, and validate on them after the first batch."""

    class Validate(LoopComponent):
        def on_batch_end(self, loop):
            if loop.is_training and loop.batch_num == 0:
                loop.validate(data)

    make_loop(Validate(), train_data=data, valid_data=None).train(1)


class Stateful(list):
    """Data that keep the position of their newest iterator."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state): ...


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["persistent workers", "state"])
def test_a_loader_that_two_epochs_would_share_is_refused(kind):
    """A1: a second iterator would disturb the one of the training epoch."""
    if kind == "state":
        data = Stateful([1, 2])
    else:
        data = DataLoader(range(4), num_workers=1, persistent_workers=True)
    with pytest.raises(RunError, match=r"that the training epoch is using, .* second DataLoader"):
        validate_in_mid_epoch(data)


def test_a_plain_loader_that_two_epochs_share_is_fine():
    """A DataLoader without persistent workers gives each epoch an iterator of its own."""
    validate_in_mid_epoch(DataLoader(range(4)))


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"epochs": 3}, r"Write train\(n_epochs=3\)"),
        ({"max_epochs": 3}, r"Write train\(n_epochs=3\)"),
        ({"steps": 10}, r"Write train\(n_optim_steps=10\)"),
    ],
)
def test_another_name_for_the_length_of_training_is_corrected(arguments, fix):
    """train(epochs=3) says how the argument is called; it is a TypeError too."""
    with pytest.raises(ConfigurationError, match=fix):
        make_loop().train(**arguments)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fit", r"To train, call train\(n_epochs=\.\.\.\)"),
        ("evaluate", r"call validate\(\) or test\(data\)"),
        ("los", "Did you mean 'loss'"),
        ("optimiser", "Did you mean 'optimizer'"),
        ("trian", "Did you mean 'train'"),
    ],
)
def test_a_misspelled_attribute_of_a_loop_is_corrected(name, hint):
    """The error suggests the nearest variable or method."""
    with pytest.raises(UnsetVariableError, match=hint):
        getattr(make_loop(), name)


@pytest.mark.parametrize("value", [True, torch.tensor(True)], ids=["bool", "tensor"])
@pytest.mark.parametrize(
    "name", ["stop_training", "should_stop", "should_training_stop", "stop", "model.stop_training"]
)
def test_a_flag_that_stops_a_run_of_another_library_is_said(name, value):
    """It would have no effect, without a word."""
    owner, _, flag = f"loop.{name}".rpartition(".")

    def request_stop(loop):
        if loop.is_training and loop.epoch_num == 0:
            setattr(loop.model if owner == "loop.model" else loop, flag, value)

    loop = make_loop(make_component(on_epoch_end=request_stop))
    with pytest.warns(UserWarning, match=rf"^loop\.{name} is True, .* call loop\.stop\(\)$"):
        loop.train(1)


def test_a_flag_that_a_component_reads_stops_the_run():
    """Nothing is said of it, nor of one that is False."""

    def request_stop(loop):
        loop.should_stop, loop.stop_training = True, False

    def stop(loop):
        if loop.should_stop:
            loop.stop()

    loop = make_loop(make_component(on_epoch_end=request_stop, on_safe_point=stop))
    loop.should_stop = False
    loop.train(3)
    assert loop.is_stopped


@pytest.mark.parametrize("arguments", [("a", 1), ("a",), (["a"],), (1.5, "epoch")], ids=repr)
def test_logging_without_a_mapping_is_corrected(arguments):
    """log("a", 1) says how values are given."""
    with pytest.raises(ArgumentError, match=r"Write loop\.log\(\{'loss': value\}\)"):
        make_loop().log(*arguments)


def test_a_model_and_data_that_are_swapped_are_named_briefly():
    """The error does not print tensors, and shows the order of arguments."""
    data = [(torch.zeros(100, 100), torch.zeros(100))] * 1000
    with pytest.raises(ArgumentError) as caught:
        TrainTestLoop(data, [], torch.nn.Identity())
    assert (
        "model is a list, but has to be a torch.nn.Module. The arguments are "
        "TrainTestLoop(model, components, train_data, valid_data)"
    ) == str(caught.value)


@pytest.mark.parametrize("name", ["early_stopping", "EarlyStopping", "Early-Stopping"])
def test_another_spelling_of_a_name_is_corrected(name):
    """The error suggests the name by the grammar."""
    with pytest.raises(UnknownNameError, match="Did you mean 'early-stopping'"):
        use(name)


@pytest.mark.parametrize("name", ["onbatchend", "onBatchEnd", "OnBatchEnd", "On_batch_end"])
def test_a_point_in_another_spelling_is_refused(name):
    """A method that differs from a point by case and underscores would never be called."""
    with pytest.raises(ComponentRejectedError, match=f"its {name} .* mean 'on_batch_end'"):
        make_loop(make_component(**{name: lambda loop: None}))


@pytest.mark.parametrize(
    ("theirs", "hint"),
    [
        ("on_validation_end", "'on_epoch_end', where loop.is_validating?"),
        ("on_validation_epoch_start", "'on_epoch_begin', where loop.is_validating?"),
        ("on_test_batch_end", "'on_batch_end', where loop.is_testing?"),
        ("on_step_end", "'on_batch_end'?"),
        ("on_epoch_start", "'on_epoch_begin'?"),
        ("on_batch_ends", "'on_batch_end'?"),
        ("on_fit_start", "'on_train_begin'?"),
        ("on_training_end", "'on_train_end'?"),
        ("on_predict_epoch_end", "'on_predict_end'?"),
        ("on_before_optimizer_step", "'on_optim_step'?"),
        ("on_save_checkpoint", "'state_dict'?"),
    ],
)
def test_callback_points_of_other_libraries_are_translated(theirs, hint):
    """The error says which point is called there, and in which phase."""
    with pytest.raises(ComponentRejectedError) as caught:
        make_loop(make_component(**{theirs: lambda loop: None}))
    assert f"Did you mean {hint}" in str(caught.value)


@pytest.mark.parametrize(
    ("plugin", "theirs", "ours"),
    [
        ("checkpoint", "monitor", "best"),
        ("checkpoint", "save_top_k", "keep"),
        ("grad-clip", "gradient_clip_val", "max_norm"),
        ("grad-accumulation", "steps", "every"),
    ],
)
def test_arguments_of_other_libraries_are_translated(plugin, theirs, ours):
    """The error suggests what the argument is called here."""
    with pytest.raises(ConfigurationError, match=f"no argument '{theirs}'. Did you mean '{ours}'?"):
        make_loop(use(plugin, **{theirs: 1}))


@pytest.mark.parametrize("method", ["training_step", "validation_step", "configure_optimizers"])
def test_a_component_in_the_way_of_another_library_is_refused(method):
    """Its methods would never be called."""
    component = type("Module", (LoopComponent,), {method: lambda self, batch: None})()
    with pytest.raises(ComponentRejectedError, match=f"its {method} is not called: .* on_forward"):
        make_loop(component)


def test_a_hook_may_call_a_method_of_any_name():
    """A component that implements a hook calls its own methods."""

    class Own(LoopComponent):
        def training_step(self, batch):
            return batch

        def on_forward_pass(self, loop):
            loop.scores = self.training_step(loop.batch)

    loop = make_loop(Own(), train_data=[7], valid_data=None)
    loop.train(1)
    assert 7 == loop.scores


def test_a_loop_that_trains_nothing_warns():
    """Steps are counted, but no component computes scores, a loss, gradients or a step."""
    loop = TrainTestLoop(torch.nn.Linear(1, 1), [LoopComponent()], [0])
    with pytest.warns(UserWarning, match="so the model is not trained. Put 'supervised'") as caught:
        loop.train(1)
    assert __file__ == caught[0].filename


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("point", ["on_forward_pass", "on_backward_pass", "on_optim_step"])
def test_a_loop_with_a_step_does_not_warn(point):
    """One component that takes part in a step is enough."""
    make_loop(make_component(**{point: lambda loop: None})).train(1)


@pytest.mark.filterwarnings("error")
def test_a_model_without_parameters_does_not_warn():
    """There is nothing to train in it."""
    TrainTestLoop(torch.nn.Identity(), [], [0]).train(1)


def test_each_of_these_errors_is_one_of_ttl():
    """They can be caught by one type."""
    with pytest.raises(TTLError):
        make_loop().log("a", 1)
