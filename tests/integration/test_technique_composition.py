"""Techniques in pairs, and disabled in mid-run, against a loop written by hand."""

import itertools
import math
import random

import pytest
import torch
from torch.nn.functional import cross_entropy

from ttl_core import LoopComponent, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY, MAX_NORM, RHO, SMOOTHING, ALPHA, RATE = 2, 0.1, 0.5, 0.2, 0.4, 0.1
N_BATCHES, N_EPOCHS = 6, 2
SIZES = {0: 4, 3: 5}  # by step; batches have six samples
SPECS = {
    "sam": use("sam", rho=RHO),
    "mixup": use("mixup", alpha=ALPHA, n_classes=2),
    "label-smoothing": use("label-smoothing", smoothing=SMOOTHING),
    "lr-schedule": use("lr-schedule", kind="cosine", warmup=2),
    "param-groups": use("param-groups", patterns={"2.*": {"lr_scale": 0.5}}),
    "batch-schedule": use("batch-schedule", samples=SIZES),
    "grad-accumulation": use("grad-accumulation", every=EVERY),
    "grad-clip": use("grad-clip", max_norm=MAX_NORM),
    "amp": "amp",
}
# mixing, then cutting, is not cutting, then mixing
PAIRS = [p for p in itertools.combinations(SPECS, 2) if {*p} != {"mixup", "batch-schedule"}]
TOGGLED = ("sam", "mixup", "label-smoothing", "batch-schedule")


class PlainStep(Step):
    """Steps at a learning rate that stays."""

    name = "step"

    def on_train_begin(self, loop):
        loop.optimizer = torch.optim.SGD(
            loop.model.parameters(), lr=RATE, momentum=0.9, weight_decay=0.1
        )
        loop.scheduler = None


class Disable(LoopComponent):
    """A component that disables others at the first safe point after some number of steps."""

    def __init__(self, names, at):
        self.names, self.at = names, at

    def on_safe_point(self, loop):
        if loop.global_step == self.at:
            loop.components.disable(*self.names)


def mixed(n, x, y):
    """Return the n-th batch, mixed."""
    numbers = random.Random(f"0/{n}")
    numbers.random()
    share = numbers.betavariate(ALPHA, ALPHA)
    generator = torch.Generator().manual_seed(numbers.getrandbits(63))
    order = torch.randperm(len(x), generator=generator)
    soft = torch.nn.functional.one_hot(y, 2).to(x.dtype)
    return share * x + (1 - share) * x[order], share * soft + (1 - share) * soft[order]


def by_hand(names, disabled=(), at=None):
    """Train without any library; return the weights and statistics."""
    enabled = set(names)
    model, data = ComponentConformance.make_model(), ComponentConformance.make_data(N_BATCHES)
    parameters = list(model.parameters())
    groups = [{"params": parameters}]
    if "param-groups" in enabled:
        no_decay = [p for p in parameters if p.dim() < 2]
        groups = [
            {"params": [model[0].weight]},
            {"params": no_decay[:-1], "weight_decay": 0.0},
            {"params": [model[2].weight], "lr": RATE / 2},
            {"params": [model[2].bias], "lr": RATE / 2, "weight_decay": 0.0},
        ]
    optimizer = torch.optim.SGD(groups, lr=RATE, momentum=0.9, weight_decay=0.1)
    full = [group["lr"] for group in optimizer.param_groups]
    every = EVERY if "grad-accumulation" in enabled else 1
    n_all = N_EPOCHS * N_BATCHES // every
    n_steps = n_seen = 0

    def gradients(batches):
        model.zero_grad()
        for x, y in batches:
            smoothing = SMOOTHING if "label-smoothing" in enabled else 0.0
            with torch.autocast("cpu", torch.bfloat16, enabled="amp" in enabled):
                loss = cross_entropy(model(x), y, label_smoothing=smoothing)
            (loss / len(batches)).backward()

    for _ in range(N_EPOCHS):
        for begin in range(0, N_BATCHES, every):
            group = data[begin : begin + every]
            if "batch-schedule" in enabled:
                size = SIZES[0] if n_steps < 3 else SIZES[3]
                group = [(x[:size], y[:size]) for x, y in group]
            if "mixup" in enabled:
                group = [mixed(n_seen + i, x, y) for i, (x, y) in enumerate(group)]
            n_seen += len(group)
            gradients(group)
            if "sam" in enabled:
                before = [p.detach().clone() for p in parameters]
                norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
                with torch.no_grad():
                    for p in parameters:
                        p += p.grad * (RHO / (norm + 1e-12))
                model[1].track_running_stats = False
                gradients(group)
                model[1].track_running_stats = True
                with torch.no_grad():
                    for p, weight in zip(parameters, before, strict=True):
                        p.copy_(weight)
            if "grad-clip" in enabled:
                torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            if "lr-schedule" in enabled:
                share = (n_steps - 2) / (n_all - 2)
                cosine = (1 + math.cos(math.pi * share)) / 2
                factor = (n_steps + 1) / 2 if n_steps < 2 else cosine
                for one, rate in zip(optimizer.param_groups, full, strict=True):
                    one["lr"] = rate * factor
            optimizer.step()
            n_steps += 1
            if n_steps == at:
                enabled -= set(disabled)
    return model.state_dict()


def by_name(names, *others):
    """Train with the library; return the weights and statistics."""
    components = [PlainStep(), *(SPECS[name] for name in names), *others]
    data = ComponentConformance.make_data(N_BATCHES)
    loop = TrainTestLoop(ComponentConformance.make_model(), components, data)
    loop.train(N_EPOCHS)
    return loop.model.state_dict()


def check(expected, actual, names):
    """Check that weights are the same: to rounding, or to the tolerance of bf16."""
    tolerance = 2e-2 if "amp" in names else 1e-5
    torch.testing.assert_close(expected, actual, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("names", PAIRS, ids=" ".join)
def test_each_pair_is_the_loop_by_hand(names):
    """Two together, in both orders, do what the loop by hand does with both."""
    expected = by_hand(names)
    for order in (names, names[::-1]):
        check(expected, by_name(order), names)


@pytest.mark.parametrize("names", [p for p in PAIRS if {*p} & {*TOGGLED}], ids=" ".join)
def test_techniques_disabled_in_mid_run_leave_the_loop_by_hand(names):
    """After they are disabled in mid-epoch, training is as without them."""
    disabled = [name for name in names if name in TOGGLED]
    check(by_hand(names, disabled, 2), by_name(names, Disable(disabled, 2)), names)


def test_all_together_are_the_loop_by_hand():
    """All but casts and a schedule of sizes, to the tolerance of rounding."""
    names = [name for name in SPECS if name not in ("amp", "batch-schedule")]
    check(by_hand(names), by_name(names), names)
