"""What the loop adds to a real step."""

import pytest
import torch
from small_network import make_model

from ttl_core import TrainTestLoop
from ttl_core.testing import Step

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]

N_BATCHES = 100


def train_by_hand(model, data):
    """Train for an epoch without any library."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    model.train()
    for inputs, targets in data:
        model.zero_grad()
        scores = model(inputs)
        loss = torch.nn.functional.cross_entropy(scores, targets)
        loss.backward()
        optimizer.step()
        scheduler.step()


def test_a_real_step_against_a_hand_written_loop(assert_ratio):
    """A step of about 200 µs costs in the loop what it costs by hand."""
    data = [(torch.randn(64, 64), torch.randint(0, 10, (64,))) for _ in range(N_BATCHES)]
    by_hand = make_model()
    loop = TrainTestLoop(make_model(), [Step()], data)
    assert_ratio(
        "a real step, 1 component",
        lambda: loop.train(1),
        "a loop written by hand",
        lambda: train_by_hand(by_hand, data),
        limit=1.07,  # 1.03 to 1.05 was measured, from one hour to another
        repeats=41,
        per=N_BATCHES,
    )
