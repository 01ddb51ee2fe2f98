"""What other libraries call callback points, so that errors can say what ours are called."""

from __future__ import annotations

from collections.abc import Iterable

from ttl_core.arguments import did_you_mean


def suggest_point(wrong: str, points: Iterable[str]) -> str:
    """Return a question that suggests the callback point that is meant, or "" if none is near.

    Args:
        wrong: what was given; it may be what other libraries call a point.
        points: the points that there are.

    Example:
        >>> suggest_point("on_train_epoch_start", ["on_epoch_begin", "on_epoch_end"])
        "Did you mean 'on_epoch_begin'? "
    """
    for theirs, ours in _WORDS_OF_OTHERS.items():
        wrong = wrong.replace(theirs, ours)
    return did_you_mean(wrong, points)


_WORDS_OF_OTHERS = {
    "start": "begin",
    "train_batch": "batch",
    "train_epoch": "epoch",
    "validation_": "",
    "optimizer": "optim",
    "fit": "train",
    "before_": "",
    "after_": "",
}
"""Words in the names of callback points of other libraries, and those in ours."""

METHODS_OF_OTHERS = ("training_step", "validation_step", "test_step", "configure_optimizers")
"""The names of methods that other libraries call."""
