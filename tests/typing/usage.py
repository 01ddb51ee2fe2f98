"""A user's program as type checkers see it. mypy --strict reads it; nothing runs it."""

from collections.abc import Generator
from typing import Any, assert_type

import torch

from ttl_core import LoopComponent, TrainTestLoop, bundle, from_config, hookimpl, use


class Typed(LoopComponent):
    """A component whose hooks have annotations."""

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Read and set variables."""
        assert_type(loop.batch_num, int)
        assert_type(loop.n_batches, int | None)
        loop.scores = loop.model(loop.batch)
        loop.anything = loop.loss.item() * 2

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Surround an epoch."""
        return (yield from super().around_epoch(loop))


loop = TrainTestLoop(torch.nn.Identity(), ["metrics", use("progress"), Typed()], [1, 2], None)
TrainTestLoop(torch.nn.Identity(), [*bundle("baseline", lr=0.1), *from_config(["ema"])])
TrainTestLoop(torch.nn.Identity(), from_config([{"ema": {"decay": 0.9}}, "metrics"]))
use("acme-board", {"name": "run-7"}, name="board", project="x")
loop.train(3)
loop.train(n_optim_steps=10)
loop.test([1])
assert_type(loop.components[0], LoopComponent)
assert_type(loop.components[1:], list[LoopComponent])
loop.components["metrics"].anything_of_its_own()
assert_type(loop.components.get(Typed), Typed | None)
loop.components.get("metrics").anything_of_its_own()
assert_type(loop.run_desc, str | None)
loop.components.append("ema")
loop.components[0] = use("ema")
loop.components[1:] = ["ema", Typed()]
del loop.components["ema"]
loop.components += ["ema"]
loop.components = [Typed()]
assert_type(loop.manifest(), list[dict[str, Any]])
