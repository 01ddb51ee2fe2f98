"""A user's program as type checkers see it. mypy --strict reads it; nothing runs it."""

from collections.abc import Generator
from typing import Any, assert_type

import torch

from ttl_core import (
    LoopComponent,
    Stateful,
    TrainTestLoop,
    bundle,
    from_config,
    hookimpl,
    use,
)


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


class Counting(LoopComponent):
    """A component with state."""

    state_version = 2

    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Compute the loss once more."""
        loop.recompute().backward()
        loop.recompute(loop.batch)

    def state_dict(self) -> dict[str, int]:
        """Return the state."""
        return {"count": 0}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore a state."""

    def upgrade_state(self, state: dict[str, int], from_version: int) -> dict[str, int]:
        """Return the state in this version."""
        return state


stateful: list[Stateful] = [Counting(), torch.nn.Linear(2, 1)]
for component in [Counting(), Typed()]:
    if isinstance(component, Stateful):
        assert_type(component.state_dict(), dict[str, Any])
        component.load_state_dict({})

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
loop.load_state_dict({}, ignore=["ema"])
loop.drop_loaded_state()
