"""What `my-component` does."""

from pathlib import Path

import pytest
import torch
from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, use


class LogBatch(LoopComponent):
    def on_loss_compute(self, loop: TrainTestLoop) -> None:
        loop.log({"batch": loop.batch})


def make_loop(path: Path) -> TrainTestLoop:
    """Return a loop that writes its batches, the numbers 5 and 6, to a file."""
    return TrainTestLoop(
        torch.nn.Identity(),
        [LogBatch(), use("my-component", path=path)],
        train_data=[5, 6],
    )


def test_it_writes_a_line_for_each_value(tmp_path: Path) -> None:
    """A line has the step, the name and the value."""
    make_loop(tmp_path / "values.txt").train(n_epochs=1)
    assert (tmp_path / "values.txt").read_text() == "0 train/batch 5\n1 train/batch 6\n"


def test_a_resumed_run_writes_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    """What was written after the state was taken is removed, as it is logged again."""
    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop: TrainTestLoop) -> None:
            states.append(loop.state_dict())

    first = make_loop(tmp_path / "values.txt")
    first.components.append(Save())
    first.train(n_epochs=2)
    expected = (tmp_path / "values.txt").read_text()

    second = make_loop(tmp_path / "values.txt")
    second.components.append(Save())
    second.load_state_dict(states[0])
    second.train(n_epochs=2)
    assert (tmp_path / "values.txt").read_text() == expected


def test_a_path_that_is_none_is_refused() -> None:
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match="path is 3"):
        TrainTestLoop(torch.nn.Identity(), [use("my-component", path=3)])
