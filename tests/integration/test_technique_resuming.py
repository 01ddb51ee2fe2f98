"""Techniques in pairs resume to the bits of the run that was not interrupted."""

import itertools

import pytest
import torch
from states import assert_same_runs

from ttl_core import LoopComponent, TrainTestLoop, use
from ttl_core.testing import Step

pytestmark = pytest.mark.usefixtures("one_thread")

N_EPOCHS, N_BATCHES = 3, 4
SPECS = {
    "sam": use("sam", rho=0.5),
    "swa": use("swa", start_epoch=1),
    "ema": use("ema", decay=0.5),
    "mixup": use("mixup", alpha=0.4, n_classes=2),
    "cutmix": use("cutmix", alpha=0.4, n_classes=2),
    "label-smoothing": use("label-smoothing", smoothing=0.2),
    "lr-schedule": use("lr-schedule", kind="cosine", warmup=2),
    "param-groups": use("param-groups", patterns={"1.*": {"lr_scale": 0.5}}),
    "batch-schedule": use("batch-schedule", samples={0: 4, 3: 5}),
    "grad-accumulation": use("grad-accumulation", every=2),
    "grad-clip": use("grad-clip", max_norm=0.1),
    "amp": use("amp"),
}
PAIRS = list(itertools.combinations(SPECS, 2))


class PlainStep(Step):
    """Steps at a learning rate that stays."""

    name = "step"

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.scheduler = None


class Keep(LoopComponent):
    """A record of the states at all safe points."""

    def __init__(self):
        self.states = []

    def on_safe_point(self, loop):
        self.states.append(loop.state_dict())


def make_loop(names, *others):
    """Return a loop over images, with dropout, statistics and validation."""
    generator = torch.Generator().manual_seed(1)
    data = [
        (
            torch.randn(6, 1, 4, 4, generator=generator),
            torch.randint(0, 2, (6,), generator=generator),
        )
        for _ in range(N_BATCHES)
    ]
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3),
        torch.nn.BatchNorm2d(2),
        torch.nn.Dropout(0.2),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 2),
    )
    items = [PlainStep(), "metrics", *(SPECS[name] for name in names), *others]
    return TrainTestLoop(model, items, data, data[:1])


@pytest.mark.parametrize("names", PAIRS, ids=" ".join)
def test_each_pair_resumes_to_the_same_bits(names):
    """From the first state inside the second epoch, and from the one between the last two."""
    keep = Keep()
    whole = make_loop(names, keep)
    whole.train(N_EPOCHS)
    inside = next(s for s in keep.states if s["position"]["epoch"] and s["position"]["epoch_num"])
    between = [s for s in keep.states if s["position"]["epoch"] is None][-2]
    for state in (inside, between):
        resumed = make_loop(names)
        resumed.load_state_dict(state)
        resumed.train(N_EPOCHS)
        assert_same_runs(whole, resumed)
