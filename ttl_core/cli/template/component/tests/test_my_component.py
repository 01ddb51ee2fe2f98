"""What `my-component` does."""

import pytest
import torch
from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, use


class BatchAsLoss(LoopComponent):
    def on_loss_compute(self, loop: TrainTestLoop) -> None:
        loop.loss = loop.batch.mean()


def test_it_logs_a_moving_average() -> None:
    """After losses of 4 and 2, the average with a half-life of one batch is 3."""
    losses = [torch.tensor([4.0]), torch.tensor([2.0])]
    loop = TrainTestLoop(
        torch.nn.Identity(),
        [BatchAsLoss(), use("my-component", half_life=1)],
        losses,
    )
    loop.train(n_epochs=1)
    assert loop.metrics == {"train/average-loss": 3.0}


def test_a_half_life_of_zero_is_refused() -> None:
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match="half_life is 0"):
        TrainTestLoop(torch.nn.Identity(), [use("my-component", half_life=0)])
