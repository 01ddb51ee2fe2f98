"""`rollback` goes back to a healthy state when the loss spikes."""

import logging
import os
import threading

import pytest
import torch
from states import assert_same_runs
from torch.optim import lr_scheduler

from ttl_core import ArgumentError, LoopComponent, RunError, TrainTestLoop, hookimpl, use
from ttl_core.testing import Step, tiny_data, tiny_loop, tiny_model


class SmallSteps(Step):
    """Plain steps with a scheduler whose rates follow from its base rates."""

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.scheduler = torch.optim.lr_scheduler.LambdaLR(loop.optimizer, lambda n: 1 / (1 + n))


class Spikes(LoopComponent):
    """Multiplies the loss in the batches of some numbers, as broken data would."""

    def __init__(self, *batches, factor=1e4):
        self.batches, self.factor = batches, factor

    def on_loss_compute(self, loop):
        if loop.is_training and loop.batch_num in self.batches:
            loop.loss = loop.loss * self.factor


def trained(*components, n_batches=40, **config):
    """Return a loop that was trained for an epoch."""
    rollback = use("rollback", **{"every": 5, "n_quiet": 5, "threshold": 40, **config})
    loop = tiny_loop(SmallSteps(), *components, rollback, n_batches=n_batches)
    loop.valid_data = None
    loop.train(n_epochs=1)
    return loop


@pytest.mark.parametrize("factor", [1e6, float("nan")])
def test_a_spike_is_undone_with_the_batches_since_the_healthy_state(factor):
    """The end is that of a run on the other batches alone, to the bit."""
    loop = trained(Spikes(27, factor=factor))
    data = tiny_data(40)
    # states are taken after steps 1, 6, 11 ...; 21 is the newest that five quiet steps followed
    plain = TrainTestLoop(tiny_model(), [SmallSteps()], data[:21] + data[28:])
    plain.train(n_epochs=1)
    assert loop.components["rollback"].n_rollbacks == 1
    assert loop.global_step == plain.global_step == 33
    for one, other in zip(loop.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_spike_before_the_first_state_is_an_error():
    """No larger number of rollbacks would help, so the message does not suggest one."""
    with pytest.raises(RunError, match=r"no state yet\. Look at the first data") as caught:
        trained(Spikes(0, factor=float("nan")))
    assert "max_rollbacks" not in str(caught.value)


def test_a_run_without_spikes_is_left_alone():
    """Noise is no spike."""
    loop = trained()
    assert (loop.components["rollback"].n_rollbacks, loop.global_step) == (0, 40)


def test_rates_are_lowered_each_time():
    """Those of the optimizer and those that the scheduler computes from."""
    loop = trained(Spikes(20, 30, factor=float("nan")), lr_factor=0.5)
    assert loop.components["rollback"].n_rollbacks == 2
    assert loop.scheduler.base_lrs == [0.025]
    (group,) = loop.optimizer.param_groups
    assert group["lr"] == pytest.approx(0.025 / (1 + loop.global_step))


def test_two_spikes_from_one_state_lower_the_rates_twice():
    """A state that holds none of the changes is given all of them."""
    loop = trained(Spikes(20, 21, factor=float("nan")), lr_factor=0.5)
    assert loop.components["rollback"].n_rollbacks == 2
    assert loop.scheduler.base_lrs == [0.025]


def test_a_run_resumed_behind_the_last_batch_of_an_epoch_lowers_the_rates():
    """A state that is taken before the next batch has what is to be done then."""
    states = []

    class Keep(LoopComponent):
        def on_safe_point(self, loop):
            states.append((loop.batch_num, loop.state_dict()))

    class OfFirstEpoch(Spikes):
        def on_loss_compute(self, loop):
            if loop.epoch_num == 0:
                super().on_loss_compute(loop)

    def make():
        rollback = use("rollback", every=2, n_quiet=1, lr_factor=0.5)
        return tiny_loop(
            Step(), OfFirstEpoch(5, factor=float("nan")), rollback, Keep(), n_batches=6
        )

    loop = make()
    loop.train(n_epochs=2)
    state = next(state for batch_num, state in states if batch_num == 5)
    resumed = make()
    resumed.load_state_dict(state)
    resumed.train(n_epochs=2)
    assert_same_runs(loop, resumed)


SCHEDULERS = {
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 5, cycle_momentum=False),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.LambdaLR(o, lambda n: 0.9**n)], [3]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.LambdaLR(o, lambda n: 1.0)]),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_rates_are_lowered_whatever_the_scheduler_computes_them_from(name):
    """Upper bounds, and the rates of schedulers in others, are scaled too."""

    class Scheduled(Step):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.scheduler = SCHEDULERS[name](loop.optimizer)

    rates = []
    for factor in (1.0, 0.5):
        rollback = use("rollback", every=5, n_quiet=5, threshold=40, lr_factor=factor)
        spikes = Spikes(27, factor=float("nan"))
        loop = tiny_loop(Scheduled(), spikes, rollback, n_batches=40)
        loop.train(n_epochs=1)
        rates.append(loop.optimizer.param_groups[0]["lr"])
    assert rates[0] / 2 == pytest.approx(rates[1])


def test_it_gives_up():
    """The error says how often, what the loss was, and what to do."""
    spikes = Spikes(20, 21, 22, factor=float("nan"))
    with pytest.raises(RunError, match=r"loss is nan in step .* went back 2 times\. Look at"):
        trained(spikes, max_rollbacks=2)


def test_what_it_does_is_logged(caplog):
    """To logging, and as a value to loggers."""
    logged = Logged()
    with caplog.at_level(logging.WARNING):
        trained(logged, Spikes(27, factor=float("nan")))
    assert "the loss is nan in step 28" in caplog.text
    assert "The run goes back to step 21" in caplog.text
    assert logged.values == [(21, 1)]


class Logged(LoopComponent):
    def __init__(self):
        self.values = []

    def on_log(self, loop, metrics, level):
        if "train/n-rollbacks" in metrics:
            self.values.append((loop.global_step, metrics["train/n-rollbacks"]))


class Begin(LoopComponent):
    """The steps at which training epochs begin."""

    def __init__(self):
        self.steps = []

    def on_epoch_begin(self, loop):
        if loop.is_training:
            self.steps.append(loop.global_step)


class Killed(BaseException):
    """A kill."""


class Kill(LoopComponent):
    def __init__(self, step):
        self.step = step

    def on_batch_begin(self, loop):
        if loop.global_step == self.step:
            raise Killed


def test_resuming_prefers_proven_checkpoints(tmp_path):
    """A checkpoint after which the run was killed too early is not the one to resume from."""

    def make_loop(*components):
        checkpoint = use("checkpoint", directory=tmp_path, every=4, keep=2, signals=False)
        rollback = use("rollback", every=5, n_quiet=5, threshold=40)
        loop = tiny_loop(SmallSteps(), checkpoint, rollback, *components, n_batches=40)
        loop.valid_data = None
        return loop

    with pytest.raises(Killed):
        make_loop(Kill(14)).train(n_epochs=1)
    saved = sorted(path.name for path in tmp_path.glob("0*"))
    marked = sorted(path.parent.name for path in tmp_path.glob("0*/unproven"))
    assert [name.rpartition("-")[2] for name in saved] == ["4", "8", "12"]
    assert [name.rpartition("-")[2] for name in marked] == ["12"]
    loop = make_loop(Begin())
    loop.train(n_epochs=1)
    assert [8] == loop.components["begin"].steps
    assert not list(tmp_path.glob("0*/unproven"))[1:]  # the end of a run proves the others


class KillWhenSaved(LoopComponent):
    @hookimpl(tryfirst=True)
    def checkpoint_saved(self, path):
        if path.name.endswith("-step-12"):
            raise Killed


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_checkpoint_is_marked_as_unproven_when_it_appears(tmp_path, asynchronous):
    """A run that is killed as soon as one is there does not resume from it."""

    def make_loop(component):
        checkpoint = use("checkpoint", directory=tmp_path, every=4, asynchronous=asynchronous)
        rollback = use("rollback", every=5, n_quiet=3, threshold=40)
        return tiny_loop(SmallSteps(), component, checkpoint, rollback, n_batches=40)

    with pytest.raises(Killed):
        make_loop(KillWhenSaved()).train(n_epochs=1)
    newest = max(path.name for path in tmp_path.glob("0*"))
    assert newest.endswith("-step-12")
    loop = make_loop(Begin())
    loop.train(n_epochs=1)
    assert loop.components["begin"].steps[0] in (4, 8)  # as a thread has written the latter


@pytest.mark.parametrize("asynchronous", [False, True])
def test_no_checkpoint_is_unproven_when_a_run_has_ended(tmp_path, asynchronous):
    """Nor one that a thread was still writing then."""
    checkpoint = use("checkpoint", directory=tmp_path, every=4, asynchronous=asynchronous)
    tiny_loop(SmallSteps(), checkpoint, use("rollback", n_quiet=5), n_batches=8).train(n_epochs=1)
    assert not [*tmp_path.glob("0*/unproven")]


class Signal(LoopComponent):
    """An event that is set when the run has gone back."""

    def __init__(self):
        self.has_gone_back = threading.Event()

    def on_log(self, loop, metrics, level):
        if "train/n-rollbacks" in metrics:
            self.has_gone_back.set()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_checkpoint_from_before_a_rollback_stays_unproven(tmp_path, monkeypatch, asynchronous):
    """Also one that a thread was still writing when the run went back."""
    checkpoint = use(
        "checkpoint", directory=tmp_path, every=4, keep=None, asynchronous=asynchronous
    )
    rollback, signal, rename = use("rollback", every=5, n_quiet=5), Signal(), os.rename

    def rename_late(source, target):
        if asynchronous and str(target).endswith("3-epoch-0-step-12"):
            assert signal.has_gone_back.wait(30)
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_late)
    loop = tiny_loop(SmallSteps(), signal, checkpoint, rollback, n_batches=40)
    inputs, targets = loop.train_data[12]
    loop.train_data[12] = inputs * float("nan"), targets
    loop.train(n_epochs=1)
    assert 1 == loop.components["rollback"].n_rollbacks
    marked = sorted(path.parent.name for path in tmp_path.glob("0*/unproven"))
    assert ["000002-epoch-0-step-8", "000003-epoch-0-step-12"] == marked


def test_the_newest_proven_checkpoint_is_kept_beside_newer_ones(tmp_path):
    """Also where more are saved than `keep` until one is proven."""

    def make_loop(*components):
        checkpoint = use("checkpoint", directory=tmp_path, every=2, keep=2, signals=False)
        rollback = use("rollback", every=5, n_quiet=7, threshold=40)
        return tiny_loop(SmallSteps(), checkpoint, rollback, *components, n_batches=40)

    with pytest.raises(Killed):
        make_loop(Kill(19)).train(n_epochs=1)
    steps = [path.name.rpartition("-")[2] for path in sorted(tmp_path.glob("0*"))]
    assert ["10", "14", "16", "18"] == steps  # 14 is the one that will be proven next
    loop = make_loop(Begin())
    loop.train(n_epochs=1)
    assert [10] == loop.components["begin"].steps


def test_resuming_takes_an_unproven_checkpoint_where_there_is_no_other(tmp_path):
    """Soon after the beginning none is proven yet; they are intact nonetheless."""
    checkpoint = use("checkpoint", directory=tmp_path, every=4, signals=False)
    with pytest.raises(Killed):
        tiny_loop(SmallSteps(), checkpoint, "rollback", Kill(10), n_batches=40).train(n_epochs=1)
    assert 2 == len(list(tmp_path.glob("0*/unproven")))
    loop = tiny_loop(SmallSteps(), checkpoint, "rollback", Begin(), n_batches=40)
    loop.train(n_epochs=1)
    assert [8] == loop.components["begin"].steps
    assert not list(tmp_path.glob("corrupt-*"))


@pytest.mark.parametrize("config", [{"threshold": 0}, {"lr_factor": 0}, {"window": 2}])
def test_unusable_arguments_are_refused(config):
    """Before anything is trained."""
    with pytest.raises(ArgumentError):
        trained(**config)
