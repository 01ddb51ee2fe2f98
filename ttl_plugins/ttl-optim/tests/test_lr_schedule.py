"""The behaviour of `lr-schedule`."""

import math
from functools import partial

import pytest
import torch
from torch.optim import lr_scheduler
from ttl_optim import GradAccumulation, LrSchedule, LrWarmup
from ttl_optim.conformance import StepWithoutScheduler

from ttl_core import ArgumentError, LoopComponent, StateError
from ttl_core.testing import Step, Stream


class Plain(StepWithoutScheduler):
    """Steps of plain SGD that record the learning rates that were used."""

    def __init__(self, lr=1.0):
        self.lr, self.used = lr, []

    def on_train_begin(self, loop):
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=self.lr)
        loop.optimizer.register_step_post_hook(
            lambda optimizer, *_: self.used.append(float(optimizer.param_groups[0]["lr"]))
        )
        loop.scheduler = None


def by_torch(make_scheduler, n):
    """Return the learning rates of n steps with a scheduler of torch."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler, used = make_scheduler(optimizer), []
    for _ in range(n):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


@pytest.mark.parametrize(
    ("config", "make_scheduler"),
    [
        ({"kind": "cosine"}, partial(lr_scheduler.CosineAnnealingLR, T_max=12)),
        (
            {"kind": "linear", "final": 0.1},
            partial(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.1, total_iters=12),
        ),
        ({"kind": "constant"}, partial(lr_scheduler.ConstantLR, factor=1.0)),
        (
            {"kind": "cosine", "warmup": 4, "final": 0.5},
            lambda optimizer: lr_scheduler.SequentialLR(
                optimizer,
                [
                    lr_scheduler.LinearLR(optimizer, 0.25, 1.0, total_iters=3),
                    lr_scheduler.CosineAnnealingLR(optimizer, T_max=8, eta_min=0.5),
                ],
                milestones=[4],
            ),
        ),
    ],
    ids=["cosine", "linear", "constant", "warm-up and cosine"],
)
def test_is_the_schedule_of_torch_over_the_length_of_the_run(make_loop, config, make_scheduler):
    """The rates are those of torch's schedulers, of which the length has to be given by hand."""
    step = Plain()
    make_loop(LrSchedule(**config), step=step).train(2)
    assert pytest.approx(by_torch(make_scheduler, 12)) == step.used


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"kind": "wsd", "warmup": 2, "decay": 4}, [0.5, *[1] * 8, 0.75, 0.5, 0.25]),
        ({"kind": "wsd", "warmup": 0.25, "decay": 1 / 3, "final": 0.2}, None),
        ({"kind": "inverse-sqrt", "warmup": 4}, None),
    ],
)
def test_the_kinds_that_torch_does_not_have(make_loop, config, expected):
    """They are what their formulas say."""
    if expected is None and config["kind"] == "wsd":
        expected = [1 / 3, 2 / 3, 1, *[1] * 6, 0.8, 0.6, 0.4]
    elif expected is None:
        expected = [0.25, 0.5, 0.75, 1.0, *(math.sqrt(4 / (i + 1)) for i in range(4, 12))]
    step = Plain()
    make_loop(LrSchedule(**config), step=step).train(2)
    assert pytest.approx(expected) == step.used


def test_the_length_is_that_of_optimization_steps(make_loop):
    """With accumulation, at any place in the list, it ends with the last step."""
    for order in (1, -1):
        step = Plain()
        components = [LrSchedule("linear"), GradAccumulation(2)][::order]
        make_loop(*components, step=step).train(2)
        assert pytest.approx([1 - i / 6 for i in range(6)]) == step.used


def test_each_train_has_the_whole_schedule(make_loop):
    """A second train() begins it again."""
    step = Plain()
    loop = make_loop(LrSchedule("linear"), step=step)
    loop.train(1)
    loop.train(n_optim_steps=3)
    assert pytest.approx([1 - i / 6 for i in range(6)] + [1, 2 / 3, 1 / 3]) == step.used


def test_groups_keep_their_ratios_and_tensors(make_loop):
    """Every group has the factor, and a rate that is a tensor stays the same object."""
    rate = torch.tensor(2.0)

    class Groups(StepWithoutScheduler):
        def on_train_begin(self, loop):
            first, *others = loop.model.parameters()
            groups = [{"params": [first], "lr": rate}, {"params": others, "lr": 4.0}]
            loop.optimizer, loop.scheduler = torch.optim.SGD(groups), None

    loop = make_loop(LrSchedule("linear"), step=Groups())
    loop.train(1)
    rates = [group["lr"] for group in loop.optimizer.param_groups]
    assert rates[0] is rate
    assert pytest.approx([2 / 6, 4 / 6]) == [float(each) for each in rates]


def test_lr_warmup_on_top_of_it(make_loop):
    """Both factors are multiplied, in any order."""
    step = Plain()
    make_loop(LrWarmup(4), LrSchedule("linear"), step=step).train(1)
    ramp = [min(1, (i + 1) / 4) for i in range(6)]
    assert pytest.approx([(1 - i / 6) * factor for i, factor in enumerate(ramp)]) == step.used


def test_enabled_in_mid_run_it_is_where_it_would_be(make_loop):
    """Disabled, the rate stays; enabled again, it is what it would have been."""

    class Toggle(LoopComponent):
        def on_safe_point(self, loop):
            loop.components.disable("lr-schedule")
            if loop.global_step >= 4:
                loop.components.enable("lr-schedule")

    step = Plain()
    make_loop(LrSchedule("linear"), Toggle(), step=step).train(1)
    assert pytest.approx([1, 1, 1, 1, 2 / 6, 1 / 6]) == step.used


def saved_after(make_loop, n, through_file):
    """Return the state of a run of 12 steps after some of them."""
    states = {}

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            states.setdefault(loop.global_step, loop.state_dict())

    make_loop(LrSchedule("linear"), Save(), step=Plain()).train(2)
    return through_file(states[n])


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [("new", lambda i: 1 - i / 18), ("saved", lambda i: max(0, 1 - i / 12))],
)
def test_resumes_with_another_length_on_request(make_loop, through_file, schedule, factor):
    """A longer run follows the schedule of its own length, or of the saved one."""
    state, step = saved_after(make_loop, 4, through_file), Plain()
    loop = make_loop(LrSchedule("linear", schedule=schedule), LoopComponent(), step=step)
    loop.components[-1].name = "save"
    loop.load_state_dict(state)
    loop.train(3)
    assert pytest.approx([factor(i) for i in range(4, 18)]) == step.used


def test_another_length_without_a_choice_is_an_error(make_loop, through_file):
    """It has both lengths and the choices; the same length resumes."""
    state = saved_after(make_loop, 4, through_file)
    loop = make_loop(LrSchedule("linear"), step=Plain())
    loop.load_state_dict(state)
    with pytest.raises(StateError, match=r"12 steps, and this one has 18.*schedule='new'"):
        loop.train(3)


def test_another_shape_without_a_choice_is_an_error(make_loop, through_file):
    """It names what differs and the choices: another schedule of the same length is one too."""
    state = saved_after(make_loop, 4, through_file)
    loop = make_loop(LrSchedule("cosine", final=0.1), step=Plain())
    loop.load_state_dict(state, ignore=["save"])
    message = r"kind='linear', and this one has 'cosine', final=0.0, .*schedule='new'"
    with pytest.raises(StateError, match=message):
        loop.train(2)


@pytest.mark.parametrize(
    ("schedule", "factor"), [("new", lambda i: 1.0), ("saved", lambda i: 1 - i / 12)]
)
def test_resumes_with_another_shape_on_request(make_loop, through_file, schedule, factor):
    """It follows the new schedule from the current step on, or the saved one."""
    state, step = saved_after(make_loop, 4, through_file), Plain()
    loop = make_loop(LrSchedule("constant", schedule=schedule), step=step)
    loop.load_state_dict(state, ignore=["save"])
    loop.train(2)
    assert pytest.approx([factor(i) for i in range(4, 12)]) == step.used


@pytest.mark.parametrize(("settings", "full"), [("saved", 1.0), ("new", 0.5)])
def test_another_learning_rate_is_a_setting_to_choose(make_loop, through_file, settings, full):
    """The full rate is that of the state or that of the script, as chosen for all settings."""
    state, step = saved_after(make_loop, 4, through_file), Plain(lr=0.5)
    loop = make_loop(LrSchedule("linear"), step=step)
    loop.load_state_dict(state, settings=settings)
    loop.train(2)
    assert pytest.approx([full * (1 - i / 12) for i in range(4, 12)]) == step.used


def test_refuses_a_second_schedule(make_loop):
    """Where loop.scheduler would change the rates too, the error says so."""
    with pytest.raises(ArgumentError, match=r"so does loop.scheduler, a StepLR"):
        make_loop(LrSchedule("linear"), step=Step()).train(1)


def test_data_without_a_length_need_the_number_of_steps(make_loop):
    """With n_steps= it works, without it the error says what to do."""
    loop = make_loop(LrSchedule("linear"), step=Plain(), data=Stream(make_loop().train_data))
    with pytest.raises(ArgumentError, match="give it n_steps="):
        loop.train(1)
    loop.components["lr-schedule"] = LrSchedule("linear", n_steps=12)
    loop.train(1)
    assert pytest.approx([1 - i / 12 for i in range(6)]) == loop.components[0].used


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "cosinus"}, "kind is 'cosinus'.*Did you mean 'cosine'"),
        ({"kind": "linear", "warmup": 1.5}, "warmup is 1.5.*share"),
        ({"kind": "linear", "warmup": -1}, "warmup is -1"),
        ({"kind": "linear", "final": "0"}, "final is '0'"),
        ({"kind": "constant", "final": 0.1}, "final is 0.1, but .* 'constant' has no end"),
        ({"kind": "inverse-sqrt", "final": 0.1}, "'inverse-sqrt' has no end"),
        ({"kind": "cosine", "decay": 0.3}, "decay is 0.3, but only .* 'wsd' .* is 'cosine'"),
        ({"kind": "linear", "n_steps": 0}, "n_steps is 0"),
        ({"kind": "linear", "schedule": "old"}, "schedule is 'old'"),
    ],
)
def test_refuses_unusable_arguments(config, message):
    """The error names the argument, its value, and what it has to be."""
    with pytest.raises(ArgumentError, match=message):
        LrSchedule(**config)
