"""load_state_dict() on a loop that has run, with components of many packages."""

from __future__ import annotations

import functools

import pytest
import torch
from recording import StateRecorder
from states import is_same, train_to_end

from ttl_core import TrainTestLoop, use
from ttl_core.testing import ComponentConformance

pytestmark = pytest.mark.usefixtures("one_thread")


def make_loop() -> TrainTestLoop:
    """Return a loop of components that keep something from batch to batch."""
    components = [
        use(
            "supervised",
            loss_func=torch.nn.CrossEntropyLoss(),
            optimizer=functools.partial(torch.optim.AdamW, lr=0.01),
            scheduler=functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=20),
            scheduler_interval="step",
        ),
        *("metrics", use("ema", decay=0.5), use("ema", decay=0.2, start_step=2)),
        *(use("grad-accumulation", every=2), use("grad-clip", max_norm=1.0), "amp"),
        *(use("lr-warmup", n_steps=3), use("freeze", patterns={"0.*": 1})),
        *(use("early-stopping", monitor="valid/loss", patience=10), use("validate-every", steps=2)),
        *("history", StateRecorder()),
    ]
    data = ComponentConformance.make_data(5)
    return TrainTestLoop(ComponentConformance.make_model(), components, data, data[:2])


def test_a_loop_of_many_components_that_has_run_resumes_exactly():
    """From every second safe point, the same loop ends in the same bits once more."""
    loop = make_loop()
    expected = train_to_end(loop)
    for state in loop.components["state-recorder"].states[::2]:
        loop.load_state_dict(state)
        assert is_same(expected, train_to_end(loop))
