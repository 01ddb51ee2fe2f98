"""The loop variables while a training batch is computed again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ttl_core.errors import RunError
from ttl_core.state.position import Stage

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop

_RESTORED = {"batch", "_batch_size", "is_stepping", "scores", "loss", "_log_prefix"}


@contextlib.contextmanager
def recomputing(loop: TrainTestLoop, batch: Any) -> Iterator[None]:
    """Set the variables of a batch inside a with block, in which nothing is logged.

    Args:
        loop: the loop.
        batch: the batch; None for the current one.

    Raises:
        RunError: no training epoch is under way, or it has no current batch and none is given; or
            this is called inside itself.
    """
    own = vars(loop)
    before = {name: own[name] for name in _RESTORED if name in own}
    if loop._log_prefix is None:
        raise RunError(
            "recompute() was called inside itself: it calls on_forward_pass and on_loss_compute. "
            "Call it in on_backward_pass, on_optim_step or on_batch_end"
        )
    has_batch = batch is not None or "batch" in before  # a resumed epoch may have no batch left
    if not loop.is_training or loop._stage is not Stage.RUNNING or not has_batch:
        raise RunError(
            "recompute() was called outside a training batch. Call it in on_backward_pass, "
            "on_optim_step or on_batch_end"
        )
    if batch is not None:
        loop.batch, loop._batch_size = batch, None
    loop._log_prefix = None
    for name in ("scores", "loss"):  # so that none of the first computation is taken for new
        own.pop(name, None)
    try:
        yield
    finally:
        for name in _RESTORED - before.keys():
            own.pop(name, None)
        own.update(before)
