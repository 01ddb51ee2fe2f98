"""What the loop does, one behaviour after the other. The whole order: test_reference_model.py."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from ttl_core import (
    ArgumentError,
    LoopComponent,
    RunError,
    TrainTestLoop,
    UnsetVariableError,
)

Pair = namedtuple("Pair", ["data", "labels"])


class Stream:
    """Three batches without a length."""

    def __iter__(self):
        return iter(range(3))


# -- making a loop --------------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, torch.nn.Linear, lambda batch: batch, "model"])
def test_a_model_that_is_no_module_is_refused(model):
    """A loop takes an instance of torch.nn.Module and nothing else."""
    with pytest.raises(ArgumentError, match=r"model is .*, no torch\.nn\.Module"):
        TrainTestLoop(model, [])


@pytest.mark.parametrize("name", ["train_data", "valid_data"])
def test_data_that_cannot_be_iterated_over_are_refused(name):
    """Data have to be iterable, and the error says which are not."""
    with pytest.raises(ArgumentError, match=f"{name} is 5, which cannot be iterated over"):
        TrainTestLoop(torch.nn.Identity(), [], **{name: 5})


def test_a_new_loop_has_counted_nothing():
    """Before any run all counters are 0 and it is in no phase."""
    loop = TrainTestLoop(torch.nn.Identity())
    counters = (loop.epoch_num, loop.optim_step_num, loop.global_step)
    assert (0, 0, 0) == counters
    assert (False, False, False) == (loop.is_training, loop.is_validating, loop.is_testing)


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_loop_cannot_be_copied(loop_of, copying):
    """A copy would share half of the loop, so it is refused."""
    with pytest.raises(TypeError, match="a loop cannot be copied or pickled"):
        copying(loop_of())


# -- how long a run is ----------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"n_epochs": 1, "n_optim_steps": 1}])
def test_train_takes_exactly_one_length(loop_of, arguments):
    """Without a length, or with two, train() is refused."""
    with pytest.raises(ArgumentError, match="exactly one of n_epochs and n_optim_steps"):
        loop_of().train(**arguments)


@pytest.mark.parametrize("name", ["n_epochs", "n_optim_steps"])
@pytest.mark.parametrize("count", [-1, True, 1.0, "1"], ids=repr)
def test_a_count_is_a_whole_number_from_zero(loop_of, name, count):
    """Negative numbers, booleans, floats and strings are no counts."""
    with pytest.raises(ArgumentError, match=f"{name} is {count!r}, no whole number from 0"):
        loop_of().train(**{name: count})


@pytest.mark.parametrize("name", ["n_epochs", "n_optim_steps"])
def test_training_for_nothing_only_begins_and_ends(loop_of, recorder, points, name):
    """A run of length 0 has no epoch."""
    loop_of(recorder).train(**{name: 0})
    assert ["on_train_begin", "on_train_end"] == points


def test_the_epoch_of_the_last_step_ends_as_if_its_data_had_ended(loop_of, recorder, points):
    """With n_optim_steps the last epoch is cut, closed, validated and counted."""
    loop = loop_of(recorder, train_data=range(3), valid_data=())
    loop.train(n_optim_steps=4)
    training = ["on_batch_end", "on_epoch_end", "on_safe_point"]
    validation = ["on_epoch_begin", "on_epoch_end", "on_safe_point"]
    assert [*training, *validation, "on_train_end"] == points[-7:]
    assert (2, 4) == (loop.epoch_num, loop.optim_step_num)


def test_an_epoch_without_a_step_fails_where_steps_are_counted(loop_of):
    """Empty data under n_optim_steps are an error instead of an endless run."""
    with pytest.raises(RunError, match="made no optimization step"):
        loop_of(train_data=[]).train(n_optim_steps=1)


def test_data_that_are_used_up_fail_where_steps_are_counted(loop_of):
    """An iterator that gives nothing in the second epoch is an error under n_optim_steps."""
    loop = loop_of(train_data=iter(range(2)))
    with pytest.raises(RunError, match="train epoch 1 made no optimization step"):
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
def test_a_run_inside_a_run_is_refused(at, loop_of, run, point):
    """A component can start neither train() nor test()."""
    again = {"train": lambda loop: loop.train(1), "test": lambda loop: loop.test([])}[run]
    with pytest.raises(RunError, match=rf"{run}\(\) was called while this loop is running"):
        loop_of(at(**{point: again})).train(n_epochs=1)


def test_a_loop_runs_again_after_a_run_that_failed(at, loop_of):
    """A failure leaves the loop able to run."""
    failing = at(on_batch_end=lambda loop: 1 // 0)
    loop = loop_of(failing)
    with pytest.raises(ZeroDivisionError):
        loop.train(n_epochs=1)
    loop.components.remove(failing)
    loop.train(n_epochs=1)
    assert 1 == loop.epoch_num


# -- loop variables -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train_data", "length", "expected"),
    [
        (range(3), {"n_epochs": 2}, (2, 6)),
        (range(3), {"n_optim_steps": 4}, (None, 4)),
        (Stream(), {"n_epochs": 2}, (2, None)),
        (Stream(), {"n_optim_steps": 4}, (None, 4)),
    ],
)
def test_the_length_of_a_run_is_known_when_it_begins(
    loop_of, train_data, length, expected, watching
):
    """n_epochs and n_optim_steps are set in on_train_begin, as far as they can be known."""
    watch = watching("on_train_begin", "n_epochs", "n_optim_steps")
    loop_of(watch, train_data=train_data).train(**length)
    assert [expected] == watch.seen


def test_a_data_loader_over_a_stream_has_no_length(loop_of, watching):
    """A DataLoader that has __len__ but no length counts as data without one."""

    class Numbers(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(range(3))

    watch = watching("on_epoch_begin", "n_batches")
    loop_of(watch, train_data=torch.utils.data.DataLoader(Numbers()), valid_data=None).train(1)
    assert [None] == watch.seen


def test_each_phase_is_told_by_its_variables(loop_of, watching):
    """In each epoch one of three variables is True, and epoch_desc names it."""
    phase = ("epoch_desc", "is_training", "is_validating", "is_testing")
    watch = watching("on_batch_begin", *phase)
    loop = loop_of(watch, train_data=[0], valid_data=[0])
    loop.train(n_epochs=1)
    loop.test([0])
    expected = [("train", True, False, False), ("valid", False, True, False)]
    assert [*expected, ("test", False, False, True)] == watch.seen


@pytest.mark.parametrize("point", ["on_train_begin", "on_safe_point", "on_train_end"])
def test_outside_epochs_no_phase_is_on(loop_of, point, watching):
    """Before, between and after epochs nobody is training or validating."""
    watch = watching(point, "is_training", "is_validating", "is_testing")
    loop_of(watch, train_data=[0]).train(n_epochs=1)
    assert {(False, False, False)} == set(watch.seen)


def test_batches_are_numbered_from_zero_in_each_epoch(loop_of, watching):
    """The loop sets batch to what the data yielded, and batch_num to how many were before."""
    watch = watching("on_batch_begin", "batch_num", "batch")
    loop_of(watch, train_data="ab", valid_data="c").train(n_epochs=1)
    assert [(0, "a"), (1, "b"), (0, "c")] == watch.seen


def test_n_batches_is_the_length_of_the_data_of_the_epoch(loop_of, watching):
    """Each epoch sets n_batches, to None where its data have no length."""
    watch = watching("on_epoch_begin", "n_batches")
    loop_of(watch, train_data=range(2), valid_data=Stream()).train(n_epochs=1)
    assert [2, None] == watch.seen


def test_a_step_is_counted_after_it(loop_of, watching):
    """optim_step_num counts the steps that are done: 0 in the first on_optim_step."""
    watch = watching("on_optim_step on_batch_end", "optim_step_num")
    loop_of(watch, valid_data=None).train(n_epochs=1)
    assert [0, 1, 1, 2] == watch.seen


def test_an_epoch_is_counted_after_its_validation(loop_of, watching):
    """epoch_num is that of the training epoch until its validation is over."""
    watch = watching("on_epoch_begin on_epoch_end on_safe_point", "epoch_desc", "epoch_num")
    loop_of(watch, train_data=[0]).train(n_epochs=1)
    training = [("train", 0), ("train", 0), ("train", 0)]
    assert [*training, ("valid", 0), ("valid", 0), ("valid", 1)] == watch.seen


def test_a_second_run_goes_on_counting_epochs_and_global_steps_only(loop_of):
    """epoch_num and global_step count since the loop was made, optim_step_num since train()."""
    loop = loop_of()
    loop.train(n_epochs=2)
    loop.train(n_epochs=1)
    assert (3, 6, 2) == (loop.epoch_num, loop.global_step, loop.optim_step_num)


def test_test_counts_no_epoch_and_no_step(loop_of):
    """A test changes no counter of training."""
    loop = loop_of()
    loop.train(n_epochs=1)
    loop.test([0])
    assert (1, 2, 2) == (loop.epoch_num, loop.global_step, loop.optim_step_num)


@pytest.mark.parametrize(
    "run",
    [lambda loop: loop.test([0]), lambda loop: loop.validate()],
    ids=["test", "validate"],
)
def test_a_run_of_one_epoch_says_so(loop_of, run, watching):
    """test() and validate() set n_epochs to 1."""
    watch = watching("on_epoch_begin", "n_epochs")
    run(loop_of(watch))
    assert [1] == watch.seen


@pytest.mark.parametrize(("data", "n_batches"), [("xyz", 3), (Stream(), None)])
def test_on_epoch_begin_may_replace_the_data_of_the_epoch(at, loop_of, data, n_batches, watching):
    """What is assigned to `data` is what the epoch goes through, and n_batches follows."""
    watch = watching("on_batch_begin", "batch", "n_batches")
    replacing = at(on_epoch_begin=lambda loop: setattr(loop, "data", data))
    loop_of(replacing, watch, valid_data=None).train(n_epochs=1)
    assert [(batch, n_batches) for batch in data] == watch.seen


def test_replaced_data_last_for_one_epoch(at, loop_of, watching):
    """The next epoch goes through train_data again."""
    first = at(on_epoch_begin=lambda loop: loop.epoch_num or setattr(loop, "data", "x"))
    watch = watching("on_batch_begin", "batch")
    loop_of(first, watch, train_data="a", valid_data=None).train(n_epochs=2)
    assert ["x", "a"] == watch.seen


def test_the_safe_point_after_the_last_batch_follows_the_replaced_data(at, loop_of, watching):
    """Whether a batch is known to be the last of its epoch is told by the new data's length."""
    replacing = at(on_epoch_begin=lambda loop: setattr(loop, "data", [0]))
    watch = watching("on_safe_point", "is_training")
    loop_of(replacing, watch, train_data=range(5), valid_data=None).train(n_epochs=1)
    assert [False] == watch.seen


def test_a_variable_that_nobody_set_is_explained(at, loop_of):
    """The error names the variable, who sets it by convention, and who is enabled."""
    loop = loop_of(at(name="on"), at(name="off"))
    loop.components.disable("off")
    with pytest.raises(UnsetVariableError) as caught:
        loop.optimizer  # noqa: B018
    message = str(caught.value)
    assert "'optimizer' (the optimizer; a component sets it in on_train_begin)" in message
    assert message.endswith("Enabled components: on")


def test_a_variable_that_nobody_set_is_absent(loop_of):
    """A loop variable that nobody set is none for hasattr and getattr's default either."""
    assert not hasattr(loop_of(), "loss")


# -- accumulation ---------------------------------------------------------------------------


def test_a_batch_without_a_step_keeps_its_gradients(at, loop_of, recorder, points):
    """Where is_stepping is cleared there is no step, and no reset before the next batch."""
    waiting = at(on_batch_begin=lambda loop: setattr(loop, "is_stepping", loop.batch_num % 2 == 1))
    loop_of(waiting, recorder, train_data=range(4), valid_data=None).train(n_epochs=1)
    around_steps = [p for p in points if p in ("on_grads_reset", "on_optim_step", "on_batch_end")]
    two_batches = ["on_grads_reset", "on_batch_end", "on_optim_step", "on_batch_end"]
    assert [*two_batches, *two_batches] == around_steps


@pytest.mark.parametrize("point", ["on_batch_begin", "on_loss_compute", "on_backward_pass"])
def test_is_stepping_may_be_cleared_until_the_backward_pass_has_ended(at, loop_of, point):
    """No step is made or counted where a component cleared is_stepping in time."""
    clearing = at(**{point: lambda loop: setattr(loop, "is_stepping", False)})
    loop = loop_of(clearing)
    loop.train(n_epochs=1)
    assert 0 == loop.optim_step_num


def test_what_is_pending_is_dropped_when_training_ends(at, loop_of, watching):
    """The first batch of the next train() clears the gradients."""
    clearing = at(on_batch_begin=lambda loop: setattr(loop, "is_stepping", False))
    resets = watching("on_batch_begin", "batch_num")
    resets.on_grads_reset = lambda loop: resets.seen.append("reset")
    loop = loop_of(clearing, resets, train_data=[0], valid_data=None)
    loop.train(n_epochs=2)
    loop.train(n_epochs=1)
    assert ["reset", 0, 0, "reset", 0] == resets.seen


# -- modes ----------------------------------------------------------------------------------


def test_gradients_are_off_outside_training_only(at, loop_of):
    """The loop computes gradients in training and not in validation and test."""
    modes = []
    looking = at(
        on_batch_begin=lambda loop: modes.append((loop.model.training, torch.is_grad_enabled()))
    )
    loop = loop_of(looking, train_data=[0], valid_data=[0])
    loop.train(n_epochs=1)
    loop.test([0])
    assert [(True, True), (False, False), (False, False)] == modes


def test_validation_is_not_in_inference_mode(at, loop_of):
    """Tensors that are made in validation can take part in training afterwards."""
    modes = []
    loop_of(at(on_batch_begin=lambda loop: modes.append(torch.is_inference_mode_enabled()))).train(
        n_epochs=1
    )
    assert {False} == set(modes)


def test_an_ambient_no_grad_is_left_alone(at, loop_of):
    """Training inside torch.no_grad() computes no gradients."""
    modes = []
    loop = loop_of(at(on_batch_begin=lambda loop: modes.append(torch.is_grad_enabled())))
    with torch.no_grad():
        loop.train(n_epochs=1)
    assert {False} == set(modes)


# -- log() ----------------------------------------------------------------------------------


class Logger(LoopComponent):
    """Keep what was logged."""

    def __init__(self) -> None:
        self.logged = []

    def on_log(self, loop, metrics, level):
        self.logged.append((metrics, level))


def test_names_get_the_prefix_of_their_epoch(at, loop_of):
    """What is logged inside an epoch is named after it."""
    logger = Logger()
    loop = loop_of(at(on_epoch_end=lambda loop: loop.log({"loss": 1})), logger)
    loop.train(n_epochs=1)
    loop.test([])
    names = [name for metrics, _ in logger.logged for name in metrics]
    assert ["train/loss", "valid/loss", "test/loss"] == names


@pytest.mark.parametrize("point", ["on_train_begin", "on_safe_point", "on_train_end"])
def test_names_get_no_prefix_outside_epochs(at, loop_of, point):
    """What is logged before, between or after epochs keeps its name."""
    logger = Logger()
    logging = at(**{point: lambda loop: loop.log({"lr": 1})})
    loop_of(logging, logger, train_data=[0]).train(n_epochs=1)
    assert {"lr"} == {name for metrics, _ in logger.logged for name in metrics}


def test_a_logged_tensor_is_detached_and_not_copied(loop_of):
    """on_log gets the values without their graph, in the same memory."""
    logger, loss = Logger(), torch.ones(1, requires_grad=True) * 2
    loop_of(logger).log({"loss": loss})
    logged = logger.logged[0][0]["loss"]
    assert (False, loss.data_ptr()) == (logged.requires_grad, logged.data_ptr())


def test_only_values_of_an_epoch_are_kept(loop_of):
    """loop.metrics holds the newest values of level "epoch"."""
    loop = loop_of()
    loop.log({"loss": 1})
    loop.log({"accuracy": 2}, level="epoch")
    loop.log({"accuracy": 3}, level="epoch")
    assert {"accuracy": 3} == loop.metrics


def test_metrics_are_kept_before_on_log(at, loop_of):
    """Components find in loop.metrics what on_log tells them."""
    seen = []
    loop = loop_of(at(on_log=lambda loop: seen.append(dict(loop.metrics))))
    loop.log({"loss": 1}, level="epoch")
    assert [{"loss": 1}] == seen


@pytest.mark.parametrize(("arguments", "level"), [({}, "batch"), ({"level": "epoch"}, "epoch")])
def test_on_log_is_told_the_level(loop_of, arguments, level):
    """The level is "batch" unless said otherwise."""
    logger = Logger()
    loop_of(logger).log({"loss": 1}, **arguments)
    assert [({"loss": 1}, level)] == logger.logged


def test_an_unknown_level_is_refused(loop_of):
    """There are two levels."""
    with pytest.raises(ArgumentError, match="'run', neither 'batch' nor 'epoch'"):
        loop_of().log({}, level="run")


# -- batch_size -----------------------------------------------------------------------------

THREE = torch.zeros(3, 5)


@dataclass(slots=True)
class Slotted:
    """A batch without a __dict__."""

    data: torch.Tensor


def ring():
    """Return a batch that refers to itself before it comes to its tensor."""
    batch = SimpleNamespace()
    batch.itself, batch.data = batch, THREE
    return batch


@pytest.mark.parametrize(
    "batch",
    [
        THREE,
        (THREE, torch.zeros(7)),
        [["text", [THREE]]],
        {"text": "a", "data": {"ids": THREE}},
        Pair(data=THREE, labels=torch.zeros(7)),
        SimpleNamespace(id=1, data=(THREE,)),
        (torch.tensor(1.0), THREE),
        Slotted(THREE),
        ring(),
    ],
    ids=["tensor", "tuple", "list", "dict", "namedtuple", "object", "scalar", "slots", "ring"],
)
def test_the_batch_size_is_the_length_of_the_first_tensor(loop_of, batch, watching):
    """A tensor is found wherever it lies in the batch."""
    watch = watching("on_batch_begin", "batch_size")
    loop_of(watch, train_data=[batch], valid_data=None).train(n_epochs=1)
    assert [3] == watch.seen


def test_a_component_sets_the_size_of_one_batch(at, loop_of, watching):
    """A batch_size that was set holds for its batch, and no longer."""
    setting = at(
        on_batch_begin=lambda loop: loop.batch_num or setattr(loop, "batch_size", 99),
    )
    watch = watching("on_batch_end", "batch_size")
    loop_of(setting, watch, train_data=[THREE, THREE], valid_data=[THREE]).train(n_epochs=1)
    assert [99, 3, 99] == watch.seen


def test_a_size_that_was_set_between_batches_reaches_none(at, loop_of, watching):
    """A batch_size that is set in on_epoch_begin is not that of a later batch."""
    setting = at(on_epoch_begin=lambda loop: loop.epoch_num and setattr(loop, "batch_size", 99))
    watch = watching("on_batch_end", "batch_size")
    loop_of(setting, watch, train_data=[THREE, THREE], valid_data=None).train(n_epochs=2)
    assert [3, 3, 3, 3] == watch.seen


def test_a_batch_without_a_tensor_has_no_size(loop_of, watching):
    """The error says that a component has to set batch_size, and where."""
    watch = watching("on_batch_end", "batch_size")
    with pytest.raises(UnsetVariableError, match=r"'batch_size' .* sets it in on_batch_begin"):
        loop_of(watch, train_data=["text"]).train(n_epochs=1)
