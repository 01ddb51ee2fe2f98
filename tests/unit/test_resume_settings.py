"""A6: a script whose settings differ from those of the state is not resumed silently."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from recording import StateRecorder
from states import is_same, make_data, make_step_loop
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from ttl_core import ArgumentError, LoopComponent, SeededSampler, StateError, TrainTestLoop
from ttl_core.testing import Step

pytestmark = pytest.mark.usefixtures("one_thread")


class Rates(LoopComponent):
    """A component that records the learning rate of each batch."""

    def __init__(self):
        self.seen = []

    def on_batch_begin(self, loop):
        self.seen.append(loop.optimizer.param_groups[0]["lr"])


def step_with(make_optimizer, make_scheduler=None):
    """Return a class of steps with an optimizer and a scheduler."""

    class Steps(Step):
        """Steps with these."""

        name = "step"

        def on_train_begin(self, loop):
            loop.optimizer = make_optimizer(loop.model.parameters())
            if make_scheduler is None:
                loop.scheduler = None
            else:
                loop.scheduler = make_scheduler(loop.optimizer)

        def on_optim_step(self, loop):
            loop.optimizer.step()
            if loop.scheduler is not None:
                plateau = isinstance(loop.scheduler, lr_scheduler.ReduceLROnPlateau)
                loop.scheduler.step(*[1.0] * plateau)

    return Steps


SGD = partial(torch.optim.SGD, lr=0.1)


def make_loop(step, **options):
    """Return a loop that records states and learning rates."""
    return make_step_loop(StateRecorder(), Rates(), step=step, **options)


def states_of(step, n_epochs=2, **options):
    """Return the states of a run."""
    loop = make_loop(step, **options)
    loop.train(n_epochs)
    return loop.components["state-recorder"].states


CHOICES = (
    "\nChoose for load_state_dict() or checkpoint: settings='saved' to resume with the saved ones, "
    "settings='new' to resume with those of the script; or start again without the state"
)


def refusal(state, step, settings=None, n_epochs=2, **options):
    """Return the error of a run that resumes."""
    loop = make_loop(step, **options)
    loop.load_state_dict(state, settings=settings)
    with pytest.raises(StateError) as caught:
        loop.train(n_epochs)
    assert [] == loop.components["rates"].seen
    return str(caught.value)


def test_settings_that_differ_are_an_error_that_lists_them():
    """A6: learning rate and weight decay, saved and new, with the choices; nothing is trained."""
    old = step_with(SGD, partial(lr_scheduler.StepLR, step_size=2))
    new = step_with(
        partial(torch.optim.SGD, lr=0.2, weight_decay=0.5),
        partial(lr_scheduler.StepLR, step_size=3),
    )
    expected = (
        "the script has other settings than the state, which would override them:"
        "\n    optimizer lr: 0.1 saved, 0.2 new"
        "\n    optimizer weight_decay: 0 saved, 0.5 new"
        "\n    scheduler step_size: 2 saved, 3 new" + CHOICES
    )
    for state in states_of(old):
        assert expected == refusal(state, new)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            partial(lr_scheduler.OneCycleLR, max_lr=1, total_steps=6),
            partial(lr_scheduler.OneCycleLR, max_lr=1, total_steps=12),
            "scheduler total_steps: 6 saved, 12 new",
        ),
        (
            partial(lr_scheduler.CosineAnnealingLR, T_max=6),
            partial(lr_scheduler.CosineAnnealingLR, T_max=12),
            "scheduler T_max: 6 saved, 12 new",
        ),
        (
            partial(lr_scheduler.OneCycleLR, max_lr=1, total_steps=6, pct_start=0.5),
            partial(lr_scheduler.OneCycleLR, max_lr=1, total_steps=6),
            "scheduler _schedule_phases: ",
        ),
        (
            partial(lr_scheduler.MultiStepLR, milestones=[2, 4]),
            partial(lr_scheduler.MultiStepLR, milestones=[2, 5]),
            "scheduler milestones: {2: 1, 4: 1} saved, {2: 1, 5: 1} new",
        ),
        (
            lambda o: lr_scheduler.SequentialLR(
                o,
                [lr_scheduler.ConstantLR(o, total_iters=9), lr_scheduler.ExponentialLR(o, 0.9)],
                milestones=[2],
            ),
            lambda o: lr_scheduler.SequentialLR(
                o,
                [lr_scheduler.ConstantLR(o, total_iters=9), lr_scheduler.ExponentialLR(o, 0.8)],
                milestones=[2],
            ),
            "scheduler 1.gamma: 0.9 saved, 0.8 new",
        ),
        (
            partial(lr_scheduler.ReduceLROnPlateau, patience=1),
            partial(lr_scheduler.ReduceLROnPlateau, patience=2),
            "scheduler patience: 1 saved, 2 new",
        ),
    ],
    ids=["OneCycleLR", "CosineAnnealingLR", "pct_start", "MultiStepLR", "SequentialLR", "Plateau"],
)
def test_another_schedule_is_an_error(old, new, line):
    """A6: of every kind of scheduler, what differs is named, and nothing that follows from it."""
    text = refusal(states_of(step_with(SGD, old))[2], step_with(SGD, new))
    assert line in text
    assert 3 == len(text.splitlines())


def test_more_epochs_are_no_other_settings():
    """A6: n_epochs is fine to change."""
    loop = make_loop(step := step_with(SGD))
    loop.load_state_dict(states_of(step)[-1])
    loop.train(5)
    assert 5 == loop.epoch_num


def test_the_same_settings_after_components_changed_them_are_no_difference():
    """A6: what is compared is what on_train_begin has left, not the current values."""
    step = step_with(SGD, partial(lr_scheduler.ExponentialLR, gamma=0.5))
    full = states_of(step)
    loop = make_loop(step)
    loop.load_state_dict(full[3])
    loop.train(2)
    again = loop.components["state-recorder"].states
    assert is_same([s["model"] for s in full[4:]], [s["model"] for s in again])
    assert full[-1]["settings"] == again[-1]["settings"]


def test_the_saved_settings_can_be_chosen():
    """A6: with settings="saved" the run is that of the first script, and so are its states."""
    old = step_with(SGD, partial(lr_scheduler.CosineAnnealingLR, T_max=6))
    new = step_with(
        partial(torch.optim.SGD, lr=0.5), partial(lr_scheduler.CosineAnnealingLR, T_max=9)
    )
    states = states_of(old)
    for i in range(6):
        loop = make_loop(new)
        loop.load_state_dict(states[i], settings="saved")
        loop.train(2)
        resumed = [s["model"] for s in loop.components["state-recorder"].states]
        assert is_same([s["model"] for s in states[i + 1 :]], resumed)
        assert all(
            states[0]["settings"] == s["settings"] for s in loop.components["state-recorder"].states
        )


def cosine(step, lr=0.1, length=6):
    """Return the learning rate of cosine annealing at a step, by hand."""
    return lr * (1 + math.cos(math.pi * step / length)) / 2


@pytest.mark.parametrize(("lr", "length"), [(0.5, 6), (0.1, 9), (0.5, 9)])
@pytest.mark.parametrize("index", [0, 2, 4])
def test_the_new_settings_can_be_chosen(lr, length, index):
    """A6: with settings="new" the schedule is that of the new script from the current step on."""
    states = states_of(step_with(SGD, partial(lr_scheduler.CosineAnnealingLR, T_max=6)))
    new = step_with(
        partial(torch.optim.SGD, lr=lr), partial(lr_scheduler.CosineAnnealingLR, T_max=length)
    )
    loop = make_loop(new)
    loop.load_state_dict(states[index], settings="new")
    loop.train(3)
    expected = [cosine(step, lr, length) for step in range(index + 1, 9)]
    assert pytest.approx(expected) == loop.components["rates"].seen
    settings = loop.components["state-recorder"].states[-1]["settings"]
    assert (lr, length) == (settings["optimizer"]["lr"], settings["scheduler"]["T_max"])


def test_a_longer_one_cycle_schedule_can_be_chosen():
    """A6: OneCycleLR made longer runs to its new end, where it raised a ValueError."""
    make = partial(lr_scheduler.OneCycleLR, max_lr=1.0)
    states = states_of(step_with(SGD, partial(make, total_steps=6)), n_epochs=1)
    longer = step_with(SGD, partial(make, total_steps=12))
    loop, full = make_loop(longer), make_loop(longer)
    loop.load_state_dict(states[-1], settings="new")
    for one in (loop, full):
        one.train(3)
    assert full.components["rates"].seen[3:] == loop.components["rates"].seen


def test_a_schedule_that_has_ended_already_cannot_be_chosen():
    """A6: the error says which schedule has fewer steps than were made."""
    make = partial(lr_scheduler.OneCycleLR, max_lr=1.0)
    states = states_of(step_with(SGD, partial(make, total_steps=12)))
    text = refusal(states[-1], step_with(SGD, partial(make, total_steps=3)), "new", n_epochs=3)
    assert text.startswith("the loop variable 'scheduler' cannot come to where the run was: ")


def test_without_a_scheduler_the_new_learning_rate_holds_at_once():
    """A6: the rate is the new one; momentum and what else is the same keep their values."""
    states = states_of(step_with(SGD))
    loop = make_loop(step_with(partial(torch.optim.SGD, lr=torch.tensor(0.2), momentum=0.9)))
    loop.load_state_dict(states[1], settings="new")
    loop.train(2)
    assert pytest.approx([0.2] * 4) == [float(rate) for rate in loop.components["rates"].seen]
    assert 0.9 == loop.optimizer.param_groups[0]["momentum"]


def test_a_scheduler_that_follows_a_metric_keeps_its_progress():
    """A6: the rate that was halved once is half of the new one."""
    old = step_with(SGD, partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=1))
    new = step_with(
        partial(torch.optim.SGD, lr=0.4),
        partial(lr_scheduler.ReduceLROnPlateau, factor=0.5, patience=10),
    )
    states = states_of(old)
    assert 0.05 == states[3]["variables"]["optimizer"]["param_groups"][0]["lr"]
    loop = make_loop(new)
    loop.load_state_dict(states[3], settings="new")
    loop.train(2)
    assert pytest.approx([0.2, 0.2]) == loop.components["rates"].seen
    assert 10 == loop.scheduler.patience


def test_settings_of_several_groups_have_their_number():
    """A6: the error names the group."""

    def two(lr, parameters):
        first, *others = parameters
        return torch.optim.SGD([{"params": [first]}, {"params": others, "lr": lr}], lr=0.1)

    state = states_of(step_with(partial(two, 0.2)))[0]
    text = refusal(state, step_with(partial(two, 0.3)))
    assert "\n    optimizer param_groups.1.lr: 0.2 saved, 0.3 new\n" in text
    loop = make_loop(step_with(partial(two, 0.3)))
    loop.load_state_dict(state, settings="new")
    loop.train(1)
    assert [0.1, 0.3] == [group["lr"] for group in loop.optimizer.param_groups]


def test_a_run_that_had_ended_is_compared_too():
    """A6: a finished run with another learning rate does not return the old numbers silently."""
    state = states_of(step_with(SGD))[-1]
    assert "lr: 0.1 saved, 0.2 new" in refusal(state, step_with(partial(SGD, lr=0.2)))


def test_after_the_error_the_same_loop_can_be_given_a_choice():
    """A6: the train() call that failed does not count."""
    loop = make_loop(step_with(partial(SGD, lr=0.2)))
    loop.load_state_dict(states_of(step_with(SGD))[0])
    with pytest.raises(StateError):
        loop.train(2)
    loop.load_state_dict(states_of(step_with(SGD))[0], settings="saved")
    loop.train(2)
    assert (6, {0.1}) == (loop.global_step, set(loop.components["rates"].seen))


def test_a_state_of_an_earlier_version_overrides_settings_as_before():
    """A6: a state that does not record them is loaded without a comparison."""
    state = states_of(step_with(SGD))[0]
    del state["settings"], state["structure"]
    loop = make_loop(step_with(partial(SGD, lr=0.2)))
    loop.load_state_dict(state)
    loop.train(2)
    assert {0.1} == set(loop.components["rates"].seen)


def test_another_choice_is_refused():
    """A6: there are two."""
    state = states_of(step_with(SGD))[0]
    with pytest.raises(ArgumentError, match="settings is 'old'"):
        make_loop(step_with(SGD)).load_state_dict(state, settings="old")


# -- batch size -----------------------------------------------------------------------------


class Seen(LoopComponent):
    """A component that records batches."""

    def __init__(self):
        self.batches = []

    def on_batch_begin(self, loop):
        self.batches.append(loop.batch.tolist())


def make_sampled(batch_size, n=24):
    """Return a loop over samples in an order that can be repeated."""
    loader = DataLoader(range(n), batch_size=batch_size, sampler=SeededSampler(range(n)))
    return TrainTestLoop(torch.nn.Identity(), [StateRecorder(), Seen()], loader)


def sampled_state(batch_size, index):
    """Return a state of such a loop."""
    loop = make_sampled(batch_size)
    loop.train(1)
    return loop.components["state-recorder"].states[index]


@pytest.mark.parametrize("settings", [None, "saved"])
def test_another_batch_size_is_an_error(settings):
    """A6: batches of 4 samples cannot be counted in batches of 8."""
    loop = make_sampled(8)
    loop.load_state_dict(sampled_state(4, 1), settings=settings)
    with pytest.raises(StateError) as caught:
        loop.train(1)
    saved_only = "\nThe state cannot change the data: give them that one, or choose settings='new'"
    expected = (
        "the script has other settings than the state, which would override them:"
        f"\n    train_data batch_size: 4 saved, 8 new{saved_only if settings else CHOICES}"
    )
    assert expected == str(caught.value)


def test_a_new_batch_size_can_be_chosen():
    """A6: with settings="new", the samples that were consumed are skipped, and no others."""
    loop = make_sampled(8)
    loop.load_state_dict(sampled_state(4, 1), settings="new")
    loop.train(1)
    order = [int(index) for index in SeededSampler(range(24))]
    assert [order[8:16], order[16:]] == loop.components["seen"].batches


def test_a_new_batch_size_in_the_middle_of_a_batch_is_an_error():
    """A6: after 4 samples, no run can resume in batches of 8."""
    loop = make_sampled(8)
    loop.load_state_dict(sampled_state(4, 0), settings="new")
    with pytest.raises(StateError) as caught:
        loop.train(1)
    expected = (
        "the state was taken after 4 samples of an epoch, in batches of 4, from where no run can "
        "resume in batches of 8. Resume from a state between epochs, or with the saved batch size"
    )
    assert expected == str(caught.value)


def test_the_batch_size_of_data_whose_order_is_not_restored_may_change():
    """A6: a list of batches of another size is other data, and no setting."""
    step = step_with(SGD)
    states = states_of(step)
    loop = make_loop(step, data=[tuple(part[:3] for part in batch) for batch in make_data()])
    loop.load_state_dict(states[-1])
    loop.train(3)
    assert 9 == loop.global_step
