"""What techniques of training cost, against the same calls written into a loop by hand."""

import gc
import math
import random

import pytest
import torch
from small_network import make_model
from torch.utils.checkpoint import checkpoint

from ttl_core import TrainTestLoop, use
from ttl_core.testing import Step

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]

N_BATCHES = 60
cross_entropy = torch.nn.functional.cross_entropy


class PlainStep(Step):
    """Steps at a learning rate that stays."""

    name = "step"

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1, momentum=0.9)
        loop.scheduler = None


class ByHand:
    """A loop without any library, with one technique written into it."""

    def __init__(self, what):
        self.what, self.model = what, make_model()

    def train(self, data):
        model, what = self.model, self.what
        parameters = list(model.parameters())
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        smoothing = 0.1 if what == "label-smoothing" else 0.0
        numbers = random.Random()
        model.train()

        def backward(x, y):
            if what == "activation-checkpointing":
                scores = checkpoint(model[0], x, use_reentrant=False)
                scores = checkpoint(model[1], scores, use_reentrant=False)
                scores = checkpoint(model[2], scores, use_reentrant=False)
            else:
                scores = model(x)
            cross_entropy(scores, y, label_smoothing=smoothing).backward()

        for i, (x, y) in enumerate(data):
            model.zero_grad()
            if what == "mixup":
                numbers.seed(f"0/{i}")
                share = numbers.betavariate(0.2, 0.2)
                generator = torch.Generator().manual_seed(numbers.getrandbits(63))
                order = torch.randperm(len(x), generator=generator)
                soft = torch.zeros(len(y), 10).scatter_(-1, y.unsqueeze(-1), 1.0)
                x, y = torch.lerp(x[order], x, share), torch.lerp(soft[order], soft, share)
            if what == "batch-schedule":
                x, y = x[:64], y[:64]
            backward(x, y)
            if what == "sam":
                with torch.no_grad():
                    before = [p.clone() for p in parameters]
                    steps = [p.grad for p in parameters]
                    norm = torch.nn.utils.get_total_norm(steps)
                    torch._foreach_add_(
                        parameters, torch._foreach_mul(steps, 0.05 / (norm + 1e-12))
                    )
                model.zero_grad()
                backward(x, y)
                with torch.no_grad():
                    torch._foreach_copy_(parameters, before)
            if what == "lr-schedule":
                optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * i / len(data)))
            optimizer.step()
            if what == "gc-control" and i % 1000 == 999:
                gc.collect(1)


CASES = {
    "lr-schedule": use("lr-schedule", kind="cosine"),
    "param-groups": use("param-groups", decay_norms_and_biases=True),
    "sam": use("sam", rho=0.05),
    "mixup": use("mixup", n_classes=10),
    "label-smoothing": use("label-smoothing", smoothing=0.1),
    "batch-schedule": use("batch-schedule", samples={0: 64}),
    "activation-checkpointing": "activation-checkpointing",
    "channels-last": "channels-last",
    "gc-control": use("gc-control", every=1000),
}

LIMITS = {"sam": 1.2, "mixup": 1.2}
"""The others are at most 1.15; 1.01 to 1.15 was measured, from one hour to another."""


@pytest.mark.parametrize("case", CASES)
def test_a_technique_against_the_same_calls_by_hand(case, assert_ratio):
    """A technique by name costs little more than its calls written into a loop."""
    data = [(torch.randn(96, 64), torch.randint(0, 10, (96,))) for _ in range(N_BATCHES)]
    loop = TrainTestLoop(make_model(), [PlainStep(), CASES[case]], data)
    by_hand = ByHand(case)
    assert_ratio(
        case,
        lambda: loop.train(1),
        "the same by hand",
        lambda: by_hand.train(data),
        limit=LIMITS.get(case, 1.15),
        repeats=9,
        per=N_BATCHES,
    )
