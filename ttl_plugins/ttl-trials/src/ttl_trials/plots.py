"""Plots of losses, drawn by matplotlib, which is imported only then."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ttl_core import ArgumentError

_SMOOTHING = 0.9


def check_can_plot(plot: object) -> None:
    """Check that there is what draws a plot.

    Args:
        plot: the argument that asks for one, for the error.

    Raises:
        ArgumentError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ArgumentError(
            f"plot is {plot!r}, but matplotlib is not installed, which draws it. Install it: "
            "pip install 'ttl-trials[plot]'"
        )


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the exponential moving average, without the bias of its beginning.

    Args:
        losses: the loss of each step.
    """
    average, found = 0.0, []
    for n, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        found.append(average / (1 - _SMOOTHING**n))
    return found


def draw_sweep(
    path: Path,
    rates: Sequence[float],
    losses: Sequence[float],
    curve: Sequence[float],
    suggestion: float | None,
) -> None:
    """Write the plot of a sweep over learning rates.

    Args:
        path: the PNG file.
        rates: the learning rates.
        losses: the loss of each.
        curve: the same, smoothed.
        suggestion: the suggested rate.
    """
    figure = _figure()
    axes = figure.subplots()
    axes.plot(rates, losses, color="0.7", label="loss")
    axes.plot(rates, curve, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color="tab:red", label=f"suggested: {suggestion:.3g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.legend()
    _save(figure, path)


def draw_comparison(path: Path, losses: Mapping[str, Sequence[float]], reference: str) -> None:
    """Write the plot of the losses of variants, and of their differences from one of them.

    Args:
        path: the PNG file.
        losses: the loss of each step, by the name of the variant.
        reference: the name of that one.
    """
    figure = _figure()
    above, below = figure.subplots(2, sharex=True)
    curves = {name: smoothed(values) for name, values in losses.items()}
    for name, curve in curves.items():
        above.plot(curve, label=name)
        # where one has stopped, there is nothing to compare with
        pairs = zip(curve, curves[reference], strict=False)
        below.plot([one - other for one, other in pairs])
    above.set(ylabel="loss, smoothed")
    below.set(xlabel="step", ylabel=f"difference from {reference!r}")
    above.legend()
    _save(figure, path)


def _figure() -> Any:
    return importlib.import_module("matplotlib.figure").Figure(figsize=(6, 4), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
