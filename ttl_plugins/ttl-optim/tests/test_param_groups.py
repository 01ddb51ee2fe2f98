"""The behaviour of `param-groups`, against groups made by hand."""

from functools import partial

import pytest
import torch
from torch.optim import lr_scheduler
from ttl_optim import Freeze, GradAccumulation, LrSchedule, ParamGroups

from ttl_core import ArgumentError, LoopComponent
from ttl_core.testing import ComponentConformance, Step


class Adam(Step):
    """Steps of AdamW with a scheduler."""

    def __init__(self, make_scheduler=None, groups=None):
        self.make_scheduler, self.groups = make_scheduler, groups

    def on_train_begin(self, loop):
        parameters = self.groups(loop.model) if self.groups else loop.model.parameters()
        loop.optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)
        loop.scheduler = self.make_scheduler and self.make_scheduler(loop.optimizer)


PATTERNS = {"2.*": {"lr_scale": 0.5}, "2.bias": {"betas": (0.5, 0.9)}}


def by_hand(model, head_rate=0.05):
    """Return the groups that the patterns stand for, in the same order."""
    first, norm, last = model
    return [
        {"params": [first.weight]},
        {"params": [first.bias, norm.weight, norm.bias], "weight_decay": 0.0},
        {"params": [last.weight], "lr": head_rate},
        {"params": [last.bias], "lr": head_rate, "weight_decay": 0.0, "betas": (0.5, 0.9)},
    ]


SCHEDULERS = {
    "none": None,
    "recursive": partial(lr_scheduler.StepLR, step_size=2, gamma=0.5),
    "closed form": partial(lr_scheduler.LambdaLR, lr_lambda=lambda i: 1 / (i + 1)),
    "in a sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, 0.25, total_iters=4),
            lr_scheduler.CosineAnnealingLR(optimizer, T_max=8),
        ],
        milestones=[4],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_is_the_run_with_groups_made_by_hand(make_loop, name):
    """Under any scheduler, weights and rates are those of an optimizer with these groups."""
    split = make_loop(ParamGroups(PATTERNS), step=Adam(SCHEDULERS[name]))
    plain = make_loop(step=Adam(SCHEDULERS[name], by_hand))
    for loop in (split, plain):
        loop.train(2)
    for one, other in zip(plain.optimizer.param_groups, split.optimizer.param_groups, strict=True):
        assert len(one["params"]) == len(other["params"])
        rates = [(group["lr"], group.get("initial_lr", 0)) for group in (one, other)]
        assert rates[0] == pytest.approx(rates[1])
        for name in ("weight_decay", "betas"):
            assert one[name] == other[name]
    torch.testing.assert_close(plain.model.state_dict(), split.model.state_dict())


def test_one_cycle_scales_its_peaks(make_loop):
    """The rates that OneCycleLR keeps in the groups are scaled too."""
    scheduler = partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=20)
    loop = make_loop(ParamGroups({"2.*": {"lr_scale": 0.5}}), step=Adam(scheduler))
    loop.train(2)
    rates = [group["lr"] for group in loop.optimizer.param_groups]
    assert rates[0] == pytest.approx(2 * rates[2])
    assert rates[0] == pytest.approx(2 * rates[3])


@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_with_a_schedule_and_accumulation_at_any_place(make_loop, place):
    """`lr-schedule` scales all groups alike."""
    others = [LrSchedule("linear"), GradAccumulation(2)]
    others.insert(place * 2, ParamGroups(PATTERNS))
    split = make_loop(*others, step=Adam())
    plain = make_loop(LrSchedule("linear"), GradAccumulation(2), step=Adam(groups=by_hand))
    for loop in (split, plain):
        loop.train(2)
    torch.testing.assert_close(plain.model.state_dict(), split.model.state_dict())


def test_layer_decay_by_depth(make_loop):
    """Each layer nearer to the input has a smaller rate; what is before and behind them, too."""

    class Deep(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Linear(4, 4)
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))
            self.head = torch.nn.Linear(4, 2)

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    loop = make_loop(ParamGroups({"head.bias": {"lr_scale": 3.0}}, layer_decay=0.5), step=Adam())
    loop.model = Deep()
    loop.train(1)
    scales = {name: own.get("lr_scale") for name, own in loop.components[-1].table.items()}
    by_layer = {"stem": 0.125, "blocks.0": 0.25, "blocks.1": 0.5, "head": 1.0}
    expected = {f"{k}.{p}": v for k, v in by_layer.items() for p in ("weight", "bias")}
    assert {**expected, "head.bias": 3.0} == scales


def test_a_frozen_parameter_is_left_as_it_is(make_loop):
    """It is as with `freeze`; `requires_grad` is what it was afterwards."""
    one = make_loop(ParamGroups({"0.*": {"freeze": True}}, decay_norms_and_biases=True))
    other = make_loop(Freeze("0.*"))
    for loop in (one, other):
        loop.train(2)
    assert torch.equal(ComponentConformance.make_model()[0].weight, one.model[0].weight)
    torch.testing.assert_close(other.model.state_dict(), one.model.state_dict(), rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in one.model.parameters())


def test_an_optimizer_made_by_hand_is_split_once(make_loop):
    """A second train() with the same optimizer does not scale its rates again."""

    class Own(Step):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            self.optimizer = getattr(self, "optimizer", loop.optimizer)
            loop.optimizer, loop.scheduler = self.optimizer, None

    loop = make_loop(ParamGroups({"2.*": {"lr_scale": 0.5}}), step=Own())
    loop.train(1)
    loop.train(1)
    assert [0.1, 0.1, 0.05, 0.05] == [group["lr"] for group in loop.optimizer.param_groups]


def test_resumes_to_the_same_bits(make_loop, through_file):
    """The state of the optimizer, momentum included, fits the groups again."""
    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            states.append(loop.state_dict())

    whole = make_loop(ParamGroups(PATTERNS), Save(), step=Adam())
    whole.train(2)
    resumed = make_loop(ParamGroups(PATTERNS), step=Adam())
    resumed.load_state_dict(through_file(states[3]))
    resumed.train(2)
    torch.testing.assert_close(whole.model.state_dict(), resumed.model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"patterns": {"head.*": {"lr": 1.0}}}, "'head.*', which matches no parameter.*nearest"),
        ({"patterns": {"0.*": {"momentun": 1}}}, "no such setting. Did you mean 'momentum'"),
        ({"layer_decay": 0.5, "layers": "blocks"}, "found no list of layers 'blocks'"),
    ],
)
def test_what_does_not_fit_the_model_is_an_error_before_the_first_step(make_loop, config, message):
    """It says what there is."""
    with pytest.raises(ArgumentError, match=message):
        make_loop(ParamGroups(**config)).train(1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"patterns": ["0.*"]}, "patterns is .*mapping from patterns to settings"),
        ({"patterns": {"0.*": 0.1}}, "patterns holds '0.*': 0.1"),
        ({"patterns": {"0.*": {"params": []}}}, "has 'params'"),
        ({"patterns": {"0.*": {"lr_scale": -1}}}, "is -1, but has to be a number at least 0"),
        ({"patterns": {"0.*": {"freeze": 1}}}, "is 1, but has to be True or False"),
        ({"layer_decay": 0}, "layer_decay is 0"),
        ({"layers": 3}, "layers is 3"),
        ({"decay_norms_and_biases": "no"}, "decay_norms_and_biases is 'no'"),
    ],
)
def test_refuses_unusable_arguments(config, message):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=message):
        ParamGroups(**config)
