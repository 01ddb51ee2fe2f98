"""What `my-component` does."""

import pytest
import torch
from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, hookimpl, use


class Record(LoopComponent):
    def __init__(self) -> None:
        self.steps: list[int] = []

    @hookimpl
    def my_component_due(self, step: int) -> None:
        self.steps.append(step)


def test_it_calls_other_components_every_so_many_steps() -> None:
    """The steps are counted over all epochs, and batches of a validation are none."""
    record = Record()
    loop = TrainTestLoop(
        torch.nn.Identity(),
        [use("my-component", steps=2), record],
        train_data=[0, 1, 2],
        valid_data=[0],
    )
    loop.train(n_epochs=2)
    assert record.steps == [2, 4, 6]


def test_an_interval_of_no_steps_is_refused() -> None:
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match="steps is 0"):
        TrainTestLoop(torch.nn.Identity(), [use("my-component", steps=0)])
