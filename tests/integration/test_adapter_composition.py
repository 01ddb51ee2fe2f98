"""Callbacks of other libraries beside first-party components."""

import functools
from collections import Counter

import pytest
import torch

from ttl_core import TrainTestLoop, use

pytestmark = pytest.mark.usefixtures("one_thread")


class CountCalls:
    """A callback of any library that counts the calls of its hooks."""

    def __init__(self):
        self.called = Counter()

    def __getattr__(self, name):
        if not name.startswith("on_") or name.endswith("_checkpoint"):
            raise AttributeError(name)
        return lambda *_, **__: self.called.update([name])


def train(directory, *adapters):
    """Train a loop of many components with adapters, and return it."""
    torch.manual_seed(0)
    data = [(torch.randn(8, 4), torch.randint(0, 2, (8,))) for _ in range(8)]
    loop = TrainTestLoop(
        torch.nn.Linear(4, 2),
        [
            use(
                "supervised",
                loss_func=torch.nn.functional.cross_entropy,
                optimizer=functools.partial(torch.optim.SGD, lr=0.1),
            ),
            use("amp", dtype="bf16"),
            use("grad-accumulation", every=3),
            use("grad-clip", max_norm=1.0),
            use("ema", decay=0.5),
            use("validate-every", steps=2),
            "metrics",
            use("checkpoint", directory=directory),
            *adapters,
        ],
        data,
        data[:2],
    )
    loop.train(n_epochs=2)
    return loop


def test_adapters_follow_accumulation_and_validation_in_mid_epoch(tmp_path):
    """Hooks are called as often as their names say, and the run is the same to the bit."""
    names = ("lightning-callback", "hf-callback", "keras-callback")
    callbacks = {name: CountCalls() for name in names}
    adapters = [use(name, callback=callback) for name, callback in callbacks.items()]
    one, other = train(tmp_path / "one"), train(tmp_path / "other", *adapters)
    assert 6 == one.global_step == other.global_step
    assert all(
        torch.equal(*pair)
        for pair in zip(one.model.parameters(), other.model.parameters(), strict=True)
    )
    lightning, hf, keras = (callbacks[name].called for name in names)
    assert [16, 6, 4, 2] == [
        lightning["on_train_batch_end"],
        lightning["on_before_optimizer_step"],
        lightning["on_validation_end"],
        lightning["on_train_epoch_end"],
    ]
    events = ("substep_end", "step_begin", "step_end", "evaluate", "epoch_end")
    assert [10, 6, 6, 4, 2] == [hf[f"on_{event}"] for event in events]
    hooks = ("train_batch_end", "test_end", "epoch_end")
    assert [16, 4, 2] == [keras[f"on_{hook}"] for hook in hooks]
