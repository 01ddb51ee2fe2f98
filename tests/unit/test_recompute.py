"""loop.recompute(): the loss of a training batch once more."""

from __future__ import annotations

import pytest
import torch
from loops import act_at
from recording import LogRecorder
from states import make_data, make_step_loop

from ttl_core import LoopComponent, RunError, TrainTestLoop, UnsetVariableError


def recompute_at(point, found, batch=None, times=1):
    """Return a component that recomputes a batch at a point, and keeps the losses."""

    def act(loop):
        if loop.is_training or point != "on_batch_end":
            found.extend(loop.recompute(batch) for _ in range(times))

    return act_at(point, act)


@pytest.mark.parametrize("point", ["on_backward_pass", "on_optim_step", "on_batch_end"])
def test_the_loss_is_that_of_the_current_parameters(point):
    """It is what the model computes at that time, and has a graph."""
    found, expected = [], []

    def compute(loop):
        expected.append(loop.loss_func(loop.model(loop.batch[0]), loop.batch[1]).item())

    make_step_loop(recompute_at(point, found), act_at(point, compute)).train(1)
    assert expected == [loss.item() for loss in found]
    assert all(loss.requires_grad for loss in found)


def test_the_variables_of_the_batch_are_restored():
    """Batch, its size, scores, loss and whether it steps are afterwards what they were."""
    names = ("batch", "batch_size", "scores", "loss", "is_stepping")
    other = (torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    before, after, within = [], [], []

    class Change(LoopComponent):
        def on_batch_begin(self, loop):
            loop.batch_size = 77

        def on_loss_compute(self, loop):
            within.append((loop.batch is other, loop.batch_size))
            loop.is_stepping = loop.batch is not other

        def on_batch_end(self, loop):
            before.append([id(getattr(loop, name)) for name in names])
            loop.recompute(other)
            after.append([id(getattr(loop, name)) for name in names])

    make_step_loop(Change()).train(1)
    assert before == after
    assert [(False, 77), (True, 2)] * 3 == within


def test_nothing_is_logged_meanwhile():
    """What components log at either level reaches neither on_log nor loop.metrics."""

    class Log(LoopComponent):
        def on_loss_compute(self, loop):
            loop.log({"value": 1.0})
            loop.log({"n": loop.batch_num}, level="epoch")

    again = recompute_at("on_batch_end", [])
    loops = [make_step_loop(Log(), LogRecorder(), *more) for more in ([], [again])]
    for loop in loops:
        loop.train(1)
    names = [[metrics.keys() for metrics, _ in loop.components[2].logged] for loop in loops]
    assert (names[0], loops[0].metrics) == (names[1], loops[1].metrics)


def test_metrics_of_a_recomputed_batch_are_not_kept():
    """loop.metrics holds what was logged in the batch itself."""

    class Count(LoopComponent):
        n = 0

        def on_loss_compute(self, loop):
            self.n += 1
            loop.log({"n": self.n}, level="epoch")

    loop = make_step_loop(Count(), recompute_at("on_batch_end", [], times=3), data=make_data(1))
    loop.train(1)
    assert ({"train/n": 1}, 4) == (loop.metrics, loop.components["count"].n)


@pytest.mark.parametrize(
    "point",
    ["around_run", "on_train_begin", "around_epoch", "on_epoch_begin", "on_safe_point"],
)
def test_outside_a_training_batch_it_is_refused(point):
    """The error says where to call it."""
    messages = []

    def act(loop):
        if point == "around_epoch" and "batch" in vars(loop):
            return  # behind its yield
        with pytest.raises(RunError) as caught:
            loop.recompute()
        messages.append(str(caught.value))

    make_step_loop(act_at(point, act)).train(1)
    assert {
        "recompute() was called outside a training batch. Call it in on_backward_pass, "
        "on_optim_step or on_batch_end"
    } == set(messages)


def test_an_epoch_without_a_current_batch_computes_one_that_is_given():
    """As one that is resumed behind its last batch, which a component may only learn at its end."""
    found = []

    def act(loop):
        found.append(loop.recompute(make_data(1)[0]).item())
        assert not {"batch", "loss", "scores"} & vars(loop).keys()

    make_step_loop(act_at("on_epoch_begin", act)).train(1)
    assert 1 == len(found)


def test_in_other_phases_it_is_refused():
    """Validation, tests and prediction compute no loss to step by."""
    loop = make_step_loop(recompute_at("on_forward_pass", []), valid_data=make_data(1))
    for run in (loop.validate, lambda: loop.test(make_data(1)), lambda: loop.predict(make_data(1))):
        with pytest.raises(RunError, match="outside a training batch"):
            run()


@pytest.mark.parametrize("point", ["on_forward_pass", "on_loss_compute"])
def test_in_the_points_that_it_calls_it_is_refused(point):
    """The error says that it would call itself."""
    with pytest.raises(RunError) as caught:
        make_step_loop(recompute_at(point, [])).train(1)
    expected = (
        "recompute() was called inside itself: it calls on_forward_pass and on_loss_compute. "
        "Call it in on_backward_pass, on_optim_step or on_batch_end"
    )
    assert expected == str(caught.value)


def test_a_loss_that_is_computed_elsewhere_is_an_error():
    """The loss of the first computation is not returned as a new one."""

    class Late(LoopComponent):
        def on_backward_pass(self, loop):
            loop.loss = loop.model(loop.batch).sum()

        def on_batch_end(self, loop):
            loop.recompute()

    loop = TrainTestLoop(torch.nn.Linear(2, 1), [Late()], [torch.ones(1, 2)])
    with pytest.raises(UnsetVariableError, match="'loss'"):
        loop.train(1)


def test_after_an_error_in_it_the_loop_can_train_again():
    """The loop is then as it was: it logs, and recomputes."""

    class Fragile(LoopComponent):
        fails = True

        def on_forward_pass(self, loop):
            if self.fails and loop.batch[0].sum() == 0:
                raise ArithmeticError

    found, recorder, fragile = [], LogRecorder(), Fragile()
    zeros = (torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    loop = make_step_loop(fragile, recompute_at("on_batch_end", found, batch=zeros), recorder)
    with pytest.raises(ArithmeticError) as caught:
        loop.train(1)
    assert "in on_forward_pass, train epoch" in caught.value.__notes__[0]
    fragile.fails = False
    recorder.logged.clear()
    loop.train(1)
    assert (3, 3) == (len(found), len(recorder.logged))


def test_between_epochs_no_earlier_batch_is_computed_again():
    """There is none under way when an epoch begins, also behind another one."""
    errors = []

    class Recompute(LoopComponent):
        def on_epoch_begin(self, loop):
            with pytest.raises(RunError) as caught:
                loop.recompute()
            errors.append(caught.value)

    make_step_loop(Recompute()).train(2)
    assert len(errors) >= 2
