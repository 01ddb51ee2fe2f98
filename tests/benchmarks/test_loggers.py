"""What loggers and monitors add to a real step."""

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, use
from ttl_core.testing import Step

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]

N_BATCHES = 200
TOGETHER = ("csv", "jsonl", "history", "lr-monitor")
IN_DIRECTORY = {"csv", "jsonl"}


class LogTen(LoopComponent):
    """Ten tensors that are logged for each batch."""

    names = tuple(f"value-{i}" for i in range(10))

    def on_batch_end(self, loop):
        loop.log(dict.fromkeys(self.names, loop.loss.detach()))


def make_loop(*components):
    """Return a loop whose step takes about a millisecond on a CPU."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 256),
        torch.nn.Linear(256, 10),
    )
    data = [(torch.randn(128, 64), torch.randint(0, 10, (128,)))] * N_BATCHES
    return TrainTestLoop(model, [Step(), LogTen(), *components], data)


def test_all_loggers_together_against_none(tmp_path, assert_ratio):
    """Ten values for each batch of a millisecond cost at most a twentieth of it."""
    loggers = [
        use(name, directory=tmp_path) if name in IN_DIRECTORY else use(name) for name in TOGETHER
    ]
    logged, plain = make_loop(*loggers), make_loop()
    assert_ratio(
        f"a real step, ten values, {len(TOGETHER)} loggers",
        lambda: logged.train(1),
        "the same without loggers",
        lambda: plain.train(1),
        limit=1.3,
        repeats=9,
        per=N_BATCHES,
    )
