"""Loop variables: their values in each phase, and the error for unset ones."""

from __future__ import annotations

import pickle

import pytest
import torch
from data import Stream
from loops import make_component, make_loop
from recording import Recorder

from ttl_core import UnsetVariableError
from ttl_core.variables import loop_variables


@pytest.mark.parametrize(
    ("train_data", "length", "expected"),
    [
        (range(3), {"n_epochs": 2}, (2, 6)),
        (range(3), {"n_optim_steps": 4}, (None, 4)),
        (Stream(range(3)), {"n_epochs": 2}, (2, None)),
        (Stream(range(3)), {"n_optim_steps": 4}, (None, 4)),
    ],
)
def test_the_length_of_a_run_is_known_when_it_begins(train_data, length, expected):
    """n_epochs and n_optim_steps are set in on_train_begin, as far as they can be known."""
    recorder = Recorder("on_train_begin", "n_epochs", "n_optim_steps")
    make_loop(recorder, train_data=train_data).train(**length)
    assert [expected] == recorder.seen


def test_a_data_loader_over_a_stream_has_no_length():
    """A DataLoader that has __len__ but no length counts as data without one."""

    class Numbers(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(range(3))

    recorder = Recorder("on_epoch_begin", "n_batches")
    make_loop(recorder, train_data=torch.utils.data.DataLoader(Numbers()), valid_data=None).train(1)
    assert [None] == recorder.seen


def test_each_phase_has_its_variables():
    """In each epoch, one of three variables is True, and epoch_desc names it."""
    phase = ("epoch_desc", "is_training", "is_validating", "is_testing")
    recorder = Recorder("on_batch_begin", *phase)
    loop = make_loop(recorder, train_data=[0], valid_data=[0])
    loop.train(n_epochs=1)
    loop.test([0])
    expected = [("train", True, False, False), ("valid", False, True, False)]
    assert [*expected, ("test", False, False, True)] == recorder.seen


@pytest.mark.parametrize("point", ["on_train_begin", "on_safe_point", "on_train_end"])
def test_outside_epochs_there_is_no_phase(point):
    """Before, between and after epochs, all three variables are False."""
    recorder = Recorder(point, "is_training", "is_validating", "is_testing")
    make_loop(recorder, train_data=[0]).train(n_epochs=1)
    assert {(False, False, False)} == set(recorder.seen)


def test_batches_are_numbered_from_zero_in_each_epoch():
    """The loop sets batch to what the data yielded, and batch_num to its number in the epoch."""
    recorder = Recorder("on_batch_begin", "batch_num", "batch")
    make_loop(recorder, train_data="ab", valid_data="c").train(n_epochs=1)
    assert [(0, "a"), (1, "b"), (0, "c")] == recorder.seen


def test_n_batches_is_the_length_of_the_data_of_the_epoch():
    """Each epoch sets n_batches: to None if its data have no length."""
    recorder = Recorder("on_epoch_begin", "n_batches")
    make_loop(recorder, train_data=range(2), valid_data=Stream(range(3))).train(n_epochs=1)
    assert [2, None] == recorder.seen


def test_a_step_is_counted_after_it():
    """optim_step_num counts completed steps: it is 0 in the first on_optim_step."""
    recorder = Recorder("on_optim_step on_batch_end", "optim_step_num")
    make_loop(recorder, valid_data=None).train(n_epochs=1)
    assert [0, 1, 1, 2] == recorder.seen


def test_an_epoch_is_counted_after_its_validation():
    """epoch_num is that of the training epoch until its validation has ended."""
    recorder = Recorder("on_epoch_begin on_epoch_end on_safe_point", "epoch_desc", "epoch_num")
    make_loop(recorder, train_data=[0]).train(n_epochs=1)
    training = [("train", 0), ("train", 0), ("train", 0)]
    assert [*training, ("valid", 0), ("valid", 0), ("valid", 1)] == recorder.seen


def test_a_second_run_continues_to_count_epochs_and_global_steps_only():
    """epoch_num and global_step count from the first run, optim_step_num from each train()."""
    loop = make_loop()
    loop.train(n_epochs=2)
    loop.train(n_epochs=1)
    assert (3, 6, 2) == (loop.epoch_num, loop.global_step, loop.optim_step_num)


def test_test_counts_no_epoch_and_no_step():
    """A test changes no counter of training."""
    loop = make_loop()
    loop.train(n_epochs=1)
    loop.test([0])
    assert (1, 2, 2) == (loop.epoch_num, loop.global_step, loop.optim_step_num)


@pytest.mark.parametrize(
    "run",
    [lambda loop: loop.test([0]), lambda loop: loop.validate()],
    ids=["test", "validate"],
)
def test_an_evaluation_has_one_epoch(run):
    """test() and validate() set n_epochs to 1."""
    recorder = Recorder("on_epoch_begin", "n_epochs")
    run(make_loop(recorder))
    assert [1] == recorder.seen


@pytest.mark.parametrize(("data", "n_batches"), [("xyz", 3), (Stream(range(3)), None)])
def test_on_epoch_begin_may_replace_the_data_of_the_epoch(data, n_batches):
    """The epoch uses the data that are assigned to `data`, and n_batches is their length."""
    recorder = Recorder("on_batch_begin", "batch", "n_batches")
    replacing = make_component(on_epoch_begin=lambda loop: setattr(loop, "data", data))
    make_loop(replacing, recorder, valid_data=None).train(n_epochs=1)
    assert [(batch, n_batches) for batch in data] == recorder.seen


def test_replaced_data_are_used_for_one_epoch():
    """The next epoch uses train_data again."""
    first = make_component(on_epoch_begin=lambda loop: loop.epoch_num or setattr(loop, "data", "x"))
    recorder = Recorder("on_batch_begin", "batch")
    make_loop(first, recorder, train_data="a", valid_data=None).train(n_epochs=2)
    assert ["x", "a"] == recorder.seen


def test_the_safe_point_after_the_last_batch_follows_the_replaced_data():
    """The length of the new data decides which batch is known to be the last of the epoch."""
    replacing = make_component(on_epoch_begin=lambda loop: setattr(loop, "data", [0]))
    recorder = Recorder("on_safe_point", "is_training")
    make_loop(replacing, recorder, train_data=range(5), valid_data=None).train(n_epochs=1)
    assert [False] == recorder.seen


def test_reading_an_unset_variable_is_explained():
    """The error has the variable, the convention for setting it, and the enabled components."""
    loop = make_loop(make_component(name="on"), make_component(name="off"))
    loop.components.disable("off")
    with pytest.raises(UnsetVariableError) as caught:
        loop.optimizer  # noqa: B018
    message = str(caught.value)
    assert "'optimizer' (the optimizer; set by a component, in on_train_begin)" in message
    assert message.endswith("Enabled components: on")


def test_reading_the_loss_of_a_prediction_is_explained():
    """The error has the condition to write."""
    loop = make_loop(make_component(on_batch_end=lambda loop: loop.loss))
    with pytest.raises(UnsetVariableError, match=r"read it `if not loop\.is_predicting`"):
        loop.predict([0], collect=False)


def test_an_unset_variable_is_absent():
    """For hasattr(), and getattr() with a default, an unset loop variable does not exist."""
    assert not hasattr(make_loop(), "loss")


def test_the_text_about_an_unset_variable_is_written_when_it_is_read(monkeypatch):
    """So that `getattr(loop, name, None)` in each batch costs little; it survives pickling."""
    loop = make_loop()
    with pytest.raises(UnsetVariableError) as caught:
        loop.los  # noqa: B018
    assert "no component has set the loop variable 'los'" in str(caught.value)
    assert str(caught.value) == str(pickle.loads(pickle.dumps(caught.value)))
    monkeypatch.setattr(
        loop_variables, "suggest_variable", None
    )  # what writing the text would call
    assert None is getattr(loop, "los", None)
