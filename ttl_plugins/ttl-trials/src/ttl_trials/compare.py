"""Comparing what single components change, from one state and on the same data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ttl_core import LoopComponent, use
from ttl_core.arguments import absolute_path, whole_number
from ttl_trials.plots import check_can_plot, draw_comparison

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ttl_core import TrainTestLoop

AS_IT_IS = "as it is"
"""The variant in which nothing is toggled."""

_ENDING = ("early-stopping", "time-limit")
"""The components that end a run: of variants that make the same steps they would end some."""


@dataclass(frozen=True)
class Comparison:
    """What variants of a run came to.

    Attributes:
        losses: the training loss of each step, by the name of the variant.
        metrics: the newest metrics, by the name of the variant; those of a validation at its end
            too, where the loop has validation data.
        left_out: the names of the components of the loop that no variant has.
    """

    losses: Mapping[str, list[float]]
    metrics: Mapping[str, Mapping[str, Any]]
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        validated = [name for name in self.metrics[AS_IT_IS] if _is_validation_loss(name)]
        rows = [["variant", "last loss", "mean of last 10%", "difference", *validated]]
        means = {name: _mean_of_end(losses) for name, losses in self.losses.items()}
        for name, losses in self.losses.items():
            difference = f"{means[name] - means[AS_IT_IS]:+.4g}" if name != AS_IT_IS else ""
            values = [self.metrics[name].get(metric) for metric in validated]
            texts = ["" if value is None else f"{value:.6g}" for value in values]
            rows.append([name, f"{losses[-1]:.6g}", f"{means[name]:.6g}", difference, *texts])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        if self.left_out:
            lines.append(f"left out of all variants: {', '.join(self.left_out)}")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write a plot of the losses, and of what each variant changes in them.

        Args:
            path: the PNG file. It takes matplotlib (`ttl-trials[plot]`).

        Raises:
            ArgumentError: matplotlib is missing.
        """
        check_can_plot(path)
        draw_comparison(absolute_path("path", path), self.losses, AS_IT_IS)


def _is_validation_loss(name: str) -> bool:
    return name.startswith("valid/") and name.endswith("/loss")


def _mean_of_end(losses: list[float]) -> float:
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def compare(
    loop: TrainTestLoop, *names: str, steps: int = 200, without: Collection[str] = ()
) -> Comparison:
    """Train variants of a loop from its state, in each of which one component is toggled.

    A component that is enabled is disabled, one that is disabled is enabled, and another name is
    added. Each variant is a fork: the loop stays as it is, and all of them see the same
    data and random numbers. At its end each is validated, where the loop has validation data: that
    alone shows what components such as `ema` change, which act on other weights than training.
    Left out of all variants are components that no fork has, as they write files or to a terminal,
    and `early-stopping` and `time-limit`, unless they are named: variants make the same steps.

    Args:
        loop: the loop, at a safe point or outside of runs.
        *names: the names of components.
        steps: how many optimization steps each variant makes.
        without: names of components to leave out of all variants.

    Returns:
        The losses and the metrics of the variants; as text it is a table.

    Raises:
        UnknownNameError: a name is neither in the list nor installed.
        ArgumentError: `steps` is no whole number from 1.

    Example:
        >>> from ttl_core.testing import Step, tiny_loop
        >>> found = compare(tiny_loop(Step()), "sam", steps=4)
        >>> {name: len(losses) for name, losses in found.losses.items()}
        {'as it is': 4, 'sam': 4}
    """
    whole_number("steps", steps, at_least=1)
    losses, metrics = {}, {}
    left_out: tuple[str, ...] = ()
    without = {without} if isinstance(without, str) else {*without}  # as fork() takes it
    without |= {*_ending(loop, names)}
    for name in (AS_IT_IS, *names):
        fork = loop.fork(without=without)
        left_out = tuple(n for n in loop.components.names() if n not in fork.components.names())
        if name != AS_IT_IS:
            _toggle(loop, fork, name)
        record = _Record(steps)
        fork.components.append(record)
        if loop.run_desc is None:
            fork.train(n_optim_steps=steps)
        elif loop.n_epochs is not None:
            fork.train(n_epochs=loop.n_epochs)
        else:
            fork.train(n_optim_steps=loop.n_optim_steps)
        if fork.valid_data is not None:
            fork.validate()
        losses[name] = [float(loss) for loss in record.losses]
        metrics[name] = dict(fork.metrics)
    return Comparison(losses, metrics, left_out)


def _ending(loop: TrainTestLoop, toggled: Collection[str]) -> list[str]:
    """Return the names of the components that end runs, but those that are toggled."""
    return [
        entry["name"]
        for entry in loop.manifest()
        if entry["name"] not in toggled
        and (entry["plugin"] in _ENDING or entry["name"].partition("#")[0] in _ENDING)
    ]


def _toggle(loop: TrainTestLoop, fork: TrainTestLoop, name: str) -> None:
    if name in fork.components.names():
        is_enabled = fork.components.is_enabled(name)
        (fork.components.disable if is_enabled else fork.components.enable)(name)
        return
    fork.components.add(use(name))
    if loop.can_take_state:  # the state of the run holds none of it
        left_out = set(loop.components.names()) - set(fork.components.names())
        fork.load_state_dict(loop.state_dict(), ignore=[*left_out, name], settings="saved")


class _Record(LoopComponent):
    """A record of losses, which stops after some steps."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps
        self.losses: list[Any] = []

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        if loop.is_training and loop.is_stepping:
            self.losses.append(loop.loss.detach())
            if len(self.losses) == self.n_steps:
                loop.stop()
