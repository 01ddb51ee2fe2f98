"""The component `seed`."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal

from ttl_core import LoopComponent, hookimpl
from ttl_core.arguments import one_of
from ttl_run.determinism import Determinism, doubts_about
from ttl_run.seeding import checked_seed, seed_random_numbers

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class Seed(LoopComponent):
    """A seed for all random numbers of a run: of Python, NumPy, torch, all devices and workers.

    It seeds when the first run of the loop begins. A later train() continues the random numbers,
    and a resumed run those of its state. A model is created before: call `seed_all` first.

    Args:
        seed: the seed, from 0 to 2**32 - 1.
        deterministic: whether operations have to give the same bits each time, while a run is
            under way. Where torch has no deterministic implementation, it warns; with "strict"
            the run fails.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> import torch
        >>> from ttl_core import TrainTestLoop
        >>> class Draw(LoopComponent):
        ...     def on_batch_end(self, loop):
        ...         print(f"{torch.rand(()).item():.4f}")
        >>> for _ in range(2):
        ...     TrainTestLoop(torch.nn.Identity(), [Seed(1), Draw()], [0]).train(n_epochs=1)
        0.7576
        0.7576
    """

    def __init__(self, seed: int, deterministic: bool | Literal["strict"] = False) -> None:
        self.seed = checked_seed(seed)
        self.deterministic = one_of("deterministic", deterministic, (False, True, "strict"))
        self._is_seeded = False
        self._determinism = Determinism(warn_only=deterministic != "strict")

    @hookimpl(wrapper=True, tryfirst=True)  # before other components draw random numbers
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Seed, if this is the first run; compute deterministically until it ends."""
        if not self._is_seeded and loop.can_load_state:  # else it was enabled in the middle of one
            seed_random_numbers(self.seed)
        self._is_seeded = True
        if not self.deterministic:
            return (yield)
        self._determinism.enable()
        for name, data in (("train_data", loop.train_data), ("valid_data", loop.valid_data)):
            for doubt in doubts_about(data):
                _log.warning("seed: %s may not be deterministic: %s", name, doubt)
        try:
            return (yield)
        finally:
            self._determinism.restore()
