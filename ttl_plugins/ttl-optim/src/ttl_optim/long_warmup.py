"""The warning of a warm-up that is longer than the run."""

from __future__ import annotations

import warnings

from ttl_core.arguments import user_stacklevel


def warn_of_long_warmup(component: str, warmup: int, n_steps: int | None) -> None:
    """Warn if a run is over before its warm-up.

    Args:
        component: the name of the component.
        warmup: how many optimization steps the warm-up takes.
        n_steps: how many the run has; None if that is unknown.
    """
    if n_steps is not None and warmup > n_steps:
        warnings.warn(
            f"{component!r} warms up for {warmup} optimization steps, but this train() has "
            f"{n_steps}, so the learning rate never reaches its full value. Give it a shorter "
            "warm-up, or train for longer",
            UserWarning,
            stacklevel=user_stacklevel(),
        )
