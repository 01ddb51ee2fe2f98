"""The loop: its arguments, how long it runs, accumulation, and modes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from data import Wrapped
from loops import make_component, make_loop
from recording import Recorder

from ttl_core import (
    ArgumentError,
    ComponentRejectedError,
    LoopComponent,
    RunError,
    TrainTestLoop,
    UnsetVariableError,
)


@pytest.mark.parametrize("model", [None, torch.nn.Linear, lambda batch: batch, "model"])
def test_a_model_that_is_no_module_is_refused(model):
    """The model of a loop has to be an instance of torch.nn.Module."""
    with pytest.raises(ArgumentError, match=r"model is .*, but has to be a torch\.nn\.Module"):
        TrainTestLoop(model, [])


@pytest.mark.parametrize("name", ["train_data", "valid_data"])
def test_data_that_cannot_be_iterated_over_are_refused(name):
    """The error says which data are not iterable."""
    with pytest.raises(ArgumentError, match=f"{name} is 5, which cannot be iterated over"):
        TrainTestLoop(torch.nn.Identity(), [], **{name: 5})


def test_the_counters_of_a_new_loop_are_zero():
    """Before the first run, all counters are 0, and the loop is in no phase."""
    loop = TrainTestLoop(torch.nn.Identity())
    counters = (loop.epoch_num, loop.optim_step_num, loop.global_step)
    assert (0, 0, 0) == counters
    assert (False, False, False) == (loop.is_training, loop.is_validating, loop.is_testing)


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_loop_cannot_be_copied(copying):
    """A copy would share parts of the loop, so it is refused."""
    with pytest.raises(TypeError, match="a loop cannot be copied or pickled"):
        copying(make_loop())


# -- how long a run is ----------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"n_epochs": 1, "n_optim_steps": 1}])
def test_train_takes_exactly_one_length(arguments):
    """train() without a length, or with two, is an error."""
    with pytest.raises(ArgumentError, match="exactly one of n_epochs and n_optim_steps"):
        make_loop().train(**arguments)


@pytest.mark.parametrize("name", ["n_epochs", "n_optim_steps"])
@pytest.mark.parametrize("count", [-1, True, 1.0, "1"], ids=repr)
def test_a_count_is_a_whole_number_from_zero(name, count):
    """Negative numbers, booleans, floats and strings are no counts."""
    with pytest.raises(
        ArgumentError, match=f"{name} is {count!r}, but has to be a whole number from 0"
    ):
        make_loop().train(**{name: count})


@pytest.mark.parametrize("name", ["n_epochs", "n_optim_steps"])
def test_training_of_length_zero_only_begins_and_ends(recorder, name):
    """A run of length 0 has no epoch."""
    make_loop(recorder).train(**{name: 0})
    assert ["on_train_begin", "on_train_end"] == recorder.points


def test_the_epoch_of_the_last_step_ends_as_if_its_data_had_ended(recorder):
    """With n_optim_steps, the last epoch is cut, ended, validated and counted."""
    loop = make_loop(recorder, train_data=range(3), valid_data=())
    loop.train(n_optim_steps=4)
    training = ["on_batch_end", "on_epoch_end", "on_safe_point"]
    validation = ["on_epoch_begin", "on_epoch_end", "on_safe_point"]
    assert [*training, *validation, "on_train_end"] == recorder.points[-7:]
    assert (2, 4) == (loop.epoch_num, loop.optim_step_num)


@pytest.mark.parametrize("length", [{"n_epochs": 3}, {"n_optim_steps": 3}], ids=repr)
def test_an_epoch_without_a_batch_fails(length):
    """A8: empty training data are an error, however the run is counted."""
    with pytest.raises(RunError, match="train epoch 0 had no batch in its data, a list"):
        make_loop(train_data=[]).train(**length)


def test_a_loader_that_drops_its_only_batch_fails():
    """A8: drop_last with too few samples is named."""
    data = torch.utils.data.DataLoader(range(3), batch_size=4, drop_last=True)
    with pytest.raises(RunError, match="drop_last=True drops the only batch"):
        make_loop(train_data=data).train(1)


def test_an_epoch_without_a_step_fails_if_steps_are_counted():
    """With n_optim_steps, an epoch in which no batch steps is an error, not an endless run."""
    never = make_component(on_batch_begin=lambda loop: setattr(loop, "is_stepping", False))
    with pytest.raises(RunError, match="made no optimization step"):
        make_loop(never, train_data=[0]).train(n_optim_steps=1)


@pytest.mark.parametrize(
    "data", [iter([1]), (n for n in [1]), map(abs, [1])], ids=["list", "generator", "map"]
)
@pytest.mark.parametrize("name", ["train_data", "valid_data"])
def test_an_iterator_for_several_epochs_is_refused(name, data):
    """A8: it would be used up after the first one, so work does not start."""
    with pytest.raises(ArgumentError, match=f"{name} is a .*, which is used up after one epoch"):
        make_loop(**{"train_data": [0], name: data}).train(2)


def test_a_wrapped_iterator_for_several_epochs_is_refused():
    """It is used up after the first one as without the wrapper."""
    with pytest.raises(ArgumentError, match="train_data is a list_iterator, which is used up"):
        make_loop(train_data=Wrapped(iter([1]))).train(2)


def test_an_iterator_for_one_epoch_is_fine():
    """One epoch goes through it once."""
    loop = make_loop(train_data=iter([1, 2]), valid_data=None)
    loop.train(1)
    assert 2 == loop.global_step


def test_used_up_validation_data_are_an_error():
    """A8: a second validation over the same iterator would validate on nothing."""
    loop = make_loop(valid_data=iter([1]))
    loop.validate()
    with pytest.raises(RunError, match=r"valid epoch 0 had no batch .* which is used up"):
        loop.validate()


def test_used_up_validation_data_in_a_wrapper_are_an_error():
    """The error names the data, and not the wrapper that yields nothing."""
    loop = make_loop(valid_data=Wrapped(iter([1])))
    loop.validate()
    with pytest.raises(RunError, match=r"had no batch in its data, a list_iterator, which is used"):
        loop.validate()


def test_exhausted_data_fail_if_steps_are_counted():
    """With n_optim_steps, an iterator that is exhausted in the second epoch is an error."""
    loop = make_loop(train_data=iter(range(2)))
    with pytest.raises(RunError, match=r"train epoch 1 had no batch .* which is used up"):
        loop.train(n_optim_steps=3)


@pytest.mark.parametrize("name", ["train_data", "valid_data", "test_data"])
def test_a_run_needs_its_data(name):
    """train(), validate() and test() say which data are missing."""
    loop = TrainTestLoop(torch.nn.Identity())
    run = {
        "train_data": lambda: loop.train(n_epochs=1),
        "valid_data": loop.validate,
        "test_data": lambda: loop.test(None),
    }[name]
    with pytest.raises(ArgumentError, match=f"{name} is None"):
        run()


@pytest.mark.parametrize("run", ["train", "test"])
@pytest.mark.parametrize("point", ["on_train_begin", "on_batch_end", "on_epoch_end"])
def test_a_run_inside_a_run_is_refused(run, point):
    """A component can call neither train() nor test() in a run."""
    again = {"train": lambda loop: loop.train(1), "test": lambda loop: loop.test([])}[run]
    with pytest.raises(RunError, match=rf"{run}\(\) was called while this loop is running"):
        make_loop(make_component(**{point: again})).train(n_epochs=1)


def test_a_loop_runs_again_after_a_run_that_failed():
    """After a run that failed, the loop can run again."""
    failing = make_component(on_batch_end=lambda loop: 1 // 0)
    loop = make_loop(failing)
    with pytest.raises(ZeroDivisionError):
        loop.train(n_epochs=1)
    loop.components.remove(failing)
    loop.train(n_epochs=1)
    assert 1 == loop.epoch_num


# -- accumulation ---------------------------------------------------------------------------


def test_a_batch_without_a_step_keeps_its_gradients(recorder):
    """If is_stepping is cleared, there is no step, and no reset before the next batch."""
    accumulating = make_component(
        on_batch_begin=lambda loop: setattr(loop, "is_stepping", loop.batch_num % 2 == 1)
    )
    make_loop(accumulating, recorder, train_data=range(4), valid_data=None).train(n_epochs=1)
    around_steps = [
        p for p in recorder.points if p in ("on_grads_reset", "on_optim_step", "on_batch_end")
    ]
    two_batches = ["on_grads_reset", "on_batch_end", "on_optim_step", "on_batch_end"]
    assert [*two_batches, *two_batches] == around_steps


@pytest.mark.parametrize("point", ["on_batch_begin", "on_loss_compute", "on_backward_pass"])
def test_is_stepping_may_be_cleared_until_the_backward_pass_has_ended(point):
    """No step is made or counted if a component cleared is_stepping in time."""
    clearing = make_component(**{point: lambda loop: setattr(loop, "is_stepping", False)})
    loop = make_loop(clearing)
    loop.train(n_epochs=1)
    assert 0 == loop.optim_step_num


def test_pending_gradients_are_dropped_when_training_ends():
    """The first batch of the next train() clears the gradients."""
    clearing = make_component(on_batch_begin=lambda loop: setattr(loop, "is_stepping", False))
    resets = Recorder("on_batch_begin", "batch_num")
    resets.on_grads_reset = lambda loop: resets.seen.append("reset")
    loop = make_loop(clearing, resets, train_data=[0], valid_data=None)
    loop.train(n_epochs=2)
    loop.train(n_epochs=1)
    assert ["reset", 0, 0, "reset", 0] == resets.seen


# -- modes ----------------------------------------------------------------------------------


def test_gradients_are_disabled_outside_training_only():
    """The loop computes gradients in training, and none in validation and test."""
    modes = []
    recorder = make_component(
        on_batch_begin=lambda loop: modes.append((loop.model.training, torch.is_grad_enabled()))
    )
    loop = make_loop(recorder, train_data=[0], valid_data=[0])
    loop.train(n_epochs=1)
    loop.test([0])
    assert [(True, True), (False, False), (False, False)] == modes


def test_validation_is_not_in_inference_mode():
    """Tensors that are made in validation can take part in training afterwards."""
    modes = []
    make_loop(
        make_component(on_batch_begin=lambda loop: modes.append(torch.is_inference_mode_enabled()))
    ).train(n_epochs=1)
    assert {False} == set(modes)


def test_a_surrounding_no_grad_is_respected():
    """Training inside torch.no_grad() computes no gradients."""
    modes = []
    loop = make_loop(
        make_component(on_batch_begin=lambda loop: modes.append(torch.is_grad_enabled()))
    )
    with torch.no_grad():
        loop.train(n_epochs=1)
    assert {False} == set(modes)


@pytest.mark.parametrize(
    "run",
    [
        lambda data: TrainTestLoop(torch.nn.Identity(), [], data),
        lambda data: make_loop().test(data),
        lambda data: make_loop().predict(data),
    ],
    ids=["train", "test", "predict"],
)
def test_a_mapping_of_sets_is_for_validation_only(run):
    """Elsewhere its names would be taken for batches."""
    with pytest.raises(ArgumentError, match="Only validation takes several sets by name"):
        run({"easy": [1]})


def test_an_epoch_begins_without_a_batch():
    """What was set for the last one of the epoch before it is gone."""
    found = []

    class Look(LoopComponent):
        def on_epoch_begin(self, loop):
            found.extend(name for name in ("batch", "batch_num", "loss") if hasattr(loop, name))

        def on_batch_end(self, loop):
            loop.loss = 0

    make_loop(Look()).train(n_epochs=2)
    assert [] == found


@pytest.mark.parametrize(
    "data",
    [torch.ones(4, 3), torch.utils.data.TensorDataset(torch.ones(4, 3))],
    ids=["a tensor", "a data set"],
)
def test_samples_in_place_of_batches_are_warned_of(data):
    """Each would be taken for a batch."""
    with pytest.warns(UserWarning, match=r"is taken for a batch. Write DataLoader\(...") as warned:
        TrainTestLoop(torch.nn.Identity(), [], data)
    assert __file__ == warned[0].filename


def test_inputs_and_targets_in_place_of_batches_are_refused():
    """Two tensors of one length, unlike each other, are no two batches."""
    with pytest.raises(ArgumentError, match="looks like inputs and targets"):
        make_loop().test((torch.ones(4, 3), torch.ones(4)))
    make_loop().test((torch.ones(4, 3), torch.ones(4, 3)))  # are two batches


def test_a_mapping_in_place_of_a_list_of_components_is_refused():
    """Its configurations would be lost."""
    with pytest.raises(ComponentRejectedError, match="components are a mapping"):
        TrainTestLoop(torch.nn.Identity(), {"ema": {"decay": 0.5}})


def test_data_in_place_of_components_are_shown_in_short():
    """With the order of the arguments."""
    batches = [[torch.ones(100, 100)] * 9]
    with pytest.raises(ComponentRejectedError) as caught:
        TrainTestLoop(torch.nn.Identity(), batches)
    assert str(caught.value).startswith("a list is not a component. A list takes instances of")
    assert str(caught.value).endswith("TrainTestLoop(model, components, train_data, valid_data)")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("epoch", "Did you mean 'epoch_num'?"),
        ("batch_idx", "Did you mean 'batch_num'?"),
        ("global_steps", "Did you mean 'global_step'?"),
        ("lr", "It is in `optimizer.param_groups`."),
        ("stop_training", "To stop the run, call stop()."),
    ],
)
def test_names_of_other_libraries_are_translated(name, hint):
    """An unset variable is often one that has another name here."""
    with pytest.raises(UnsetVariableError) as caught:
        getattr(make_loop(), name)
    assert hint in str(caught.value)


def test_a_variable_by_convention_is_not_taken_for_another_one():
    """It is known what sets it: a near name would be no help."""
    with pytest.raises(UnsetVariableError) as caught:
        _ = make_loop().optimizer
    assert "set by" in str(caught.value)
    assert "Did you mean" not in str(caught.value)


def test_no_private_name_is_suggested():
    """They are not for users."""
    with pytest.raises(UnsetVariableError) as caught:
        _ = make_loop().epochs
    assert "'_epochs'" not in str(caught.value)
