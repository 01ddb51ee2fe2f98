"""The component `lr-finder`."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.arguments import absolute_path, flag, number, whole_number
from ttl_trials.forks import component_names, trial_fork
from ttl_trials.plots import check_can_plot, draw_sweep, smoothed

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)

_RATE_CHANGERS = ("lr-warmup", "lr-schedule", "swa")
_FULL_RATES = ("full_lr", "max_lr", "initial_lr", "lr")
"""Where groups of parameters hold the rate of which a schedule has shares, the first that is there.

lr-schedule computes rates from "full_lr", OneCycleLR from "max_lr".
"""

_RATES = {*_FULL_RATES, "min_lr"}
"""What groups of parameters hold of learning rates."""

_DIVERGED = 4.0  # times the lowest smoothed loss
_MIN_RATES = 10  # without which no slope can be told


class LrFinder(LoopComponent):
    """A sweep over learning rates before training, on a fork of the loop, that suggests one.

    Each step of the sweep has a higher rate than the one before, by the same factor, until
    `n_steps` are made or the loss is four times its lowest. The suggested rate is where the
    smoothed loss falls most steeply. It is logged as a warning, so that it is seen. The run itself
    is left as it is, to the bit, unless `apply` is set. A run that resumes makes no sweep.

    Where parameter groups have different rates, as those of `param-groups`, these rates are those
    of the groups that have the one given to the optimizer, or else of those with the highest one.
    The others keep their ratio to it.

    Args:
        lowest: the rate of the first step.
        highest: the rate of the last one.
        n_steps: the number of steps.
        without: names of components to leave out of the fork, besides those that change rates or
            end a run.
        apply: whether the run uses the suggested rate; where a schedule changes rates, as their
            full one.
        plot: where to write a plot, a PNG file; True for `lr-finder.png` in the folder of the run,
            where `report` shows it. It takes matplotlib (`ttl-trials[plot]`).

    Attributes:
        rates: the rates of the newest sweep.
        losses: the loss of each of them.
        suggestion: the suggested rate; None where the loss did not fall.

    Raises:
        ArgumentError: an argument has an unusable value, or matplotlib is missing.

    Example:
        >>> from ttl_core.testing import Step, tiny_loop
        >>> loop = tiny_loop(Step(), LrFinder(n_steps=30), n_batches=10)
        >>> loop.train(n_epochs=1)
        >>> 1e-6 < loop.components["lr-finder"].suggestion < 10
        True
    """

    def __init__(
        self,
        *,
        lowest: float = 1e-6,
        highest: float = 10.0,
        n_steps: int = 100,
        without: Collection[str] = (),
        apply: bool = False,
        plot: str | os.PathLike[str] | bool | None = None,
    ) -> None:
        if not 0 < number("lowest", lowest) < number("highest", highest):
            raise ArgumentError(
                f"lowest is {lowest!r} and highest is {highest!r}, but rates have to rise from one "
                "above 0 to a higher one"
            )
        if plot not in (None, False):
            check_can_plot(plot)
        self.lowest, self.highest = lowest, highest
        self.n_steps = whole_number("n_steps", n_steps, at_least=2 * _MIN_RATES)
        self.without = component_names("without", without)
        self.apply = flag("apply", apply)
        self.plot: Path | bool | None = None
        if plot is True or plot is False or plot is None:
            self.plot = plot or None
        else:
            self.plot = absolute_path("plot", plot)
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.suggestion: float | None = None

    @hookimpl(wrapper=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Make the sweep when the components of the run are set up."""
        result = yield
        if not loop.has_loaded_state:
            self._sweep(loop)
        else:
            self.suggestion = (loop.loaded_state_of(self) or {}).get("suggestion")
        if self.suggestion is not None:
            self._use_suggestion(loop, self.suggestion)
        return result

    def _use_suggestion(self, loop: TrainTestLoop, rate: float) -> None:
        """Say what is suggested, unless a run resumes, and set it, if that is asked for."""
        before = [_full_rate(group) for group in _groups(loop)]
        suggested = [rate * ratio for ratio in _ratios(loop, before)]
        if self.apply:
            _use_full_rates(loop, before, suggested)
        if not loop.has_loaded_state and loop.group.is_main:
            new, now = _listed(suggested), _listed(before)
            what = (
                f"the learning rate is {new}, as suggested, in place of {now}"
                if self.apply
                else f"the suggested learning rate is {new}; the run has {now}"
            )
            _log.warning("lr-finder: %s", what)

    def _sweep(self, loop: TrainTestLoop) -> None:
        plot = self.plot
        if plot is True:
            folder: Path | None = vars(loop).get("run_folder")
            if folder is None:
                raise ArgumentError(
                    "lr-finder has plot=True, but there is no folder of the run. Put 'run-folder' "
                    "before it in the list, or give a path: plot='lr.png'"
                )
            plot = folder / "lr-finder.png"
        fork = trial_fork(loop, self, *_RATE_CHANGERS, without=self.without)
        factor = (self.highest / self.lowest) ** (1 / (self.n_steps - 1))
        rates = [self.lowest * factor**i for i in range(self.n_steps)]
        sweep = _Sweep(rates, _ratios(loop, [_full_rate(group) for group in _groups(loop)]))
        fork.components.append(sweep)
        fork.train(n_optim_steps=fork.optim_step_num + self.n_steps)
        self.losses, self.rates = sweep.losses, rates[: len(sweep.losses)]
        curve = smoothed(self.losses)
        self.suggestion = _steepest(self.rates, curve)
        if self.suggestion is None and loop.group.is_main:
            _log.warning("lr-finder: the loss falls at no rate from %g on", self.lowest)
        if isinstance(plot, Path) and loop.group.is_main:
            draw_sweep(plot, self.rates, self.losses, curve, self.suggestion)

    def fork(self) -> None:
        """Leave it out of forks of the loop, which sweep nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return what was found, as a run that resumes makes no sweep."""
        return {"rates": self.rates, "losses": self.losses, "suggestion": self.suggestion}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what was found.

        Args:
            state: what `state_dict` returned.
        """
        self.rates, self.losses = [*state["rates"]], [*state["losses"]]
        self.suggestion = state["suggestion"]


class _Sweep(LoopComponent):
    """Steps with given learning rates, until the loss has diverged."""

    def __init__(self, rates: list[float], ratios: list[float]) -> None:
        self.rates = rates
        self.ratios = ratios  # of each parameter group
        self.losses: list[float] = []
        self._lowest = math.inf
        self._pending: list[float] = []  # losses of a step, several where they accumulate
        self._has_diverged = False

    @hookimpl(tryfirst=True)
    def on_optim_step(self, loop: TrainTestLoop) -> None:
        rate = self.rates[len(self.losses)]
        for group, ratio in zip(_groups(loop), self.ratios, strict=True):
            group["lr"] = rate * ratio

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        if self._has_diverged:  # in a group the stop waits for one of the next safe points
            return
        self._pending.append(_loss_of_group(loop))  # no step of the run waits for it
        if not loop.is_stepping:
            return
        self.losses.append(sum(self._pending) / len(self._pending))
        self._pending.clear()
        loss = smoothed(self.losses)[-1]
        self._lowest = min(self._lowest, loss)
        has_enough = len(self.losses) >= _MIN_RATES
        if not math.isfinite(loss) or (has_enough and loss > _DIVERGED * self._lowest):
            self._has_diverged = True
            loop.stop("the loss has diverged")


def _loss_of_group(loop: TrainTestLoop) -> float:
    """Return the loss of a batch of all processes, which is the same in each of them."""
    loss: float = loop.loss.item()
    if loop.group.size == 1:
        return loss
    weight = float(loop.batch_size)
    weighted = loss * weight if weight else 0.0  # a loss that counts nothing may be no number
    total, weights = loop.group.sum(torch.tensor([weighted, weight], dtype=torch.float64)).tolist()
    return total / weights if weights else 0.0


def _groups(loop: TrainTestLoop) -> list[dict[str, Any]]:
    return [group for optimizer in loop.optimizers for group in optimizer.param_groups]


def _full_rate(group: dict[str, Any]) -> float:
    return float(next(group[key] for key in _FULL_RATES if key in group))


def _ratios(loop: TrainTestLoop, rates: list[float]) -> list[float]:
    """Return the ratios of rates to the one that was given to an optimizer, or to the highest."""
    defaults = [getattr(optimizer, "defaults", {}) for optimizer in loop.optimizers]
    given = {float(one["lr"]) for one in defaults if "lr" in one}
    base = max(given & set(rates), default=max(rates, default=0.0))
    return [rate / base if base else 1.0 for rate in rates]


def _listed(rates: list[float]) -> str:
    return ", ".join(dict.fromkeys(f"{rate:.3g}" for rate in rates))


def _use_full_rates(loop: TrainTestLoop, before: list[float], after: list[float]) -> None:
    """Scale all rates that schedules compute from, so that these are the full ones of the groups.

    Args:
        loop: the loop.
        before: the full rate of each group as it is.
        after: the new ones.
    """
    new_rates: dict[int, tuple[float, float]] = {}  # the full rate and the new one, by id of group
    for group, full, rate in zip(_groups(loop), before, after, strict=True):
        new_rates[id(group)] = full, rate
        for key in group.keys() & _RATES:
            value = group[key]
            if isinstance(value, torch.Tensor):  # which a captured step reads
                value.fill_(_scaled(value.item(), full, rate))
            else:
                group[key] = _scaled(value, full, rate)
    _scale_scheduler(vars(loop).get("scheduler"), new_rates)


def _scaled(value: float, full: float, rate: float) -> float:
    return rate if value == full or not full else value * (rate / full)


def _scale_scheduler(scheduler: Any, new_rates: dict[int, tuple[float, float]]) -> None:
    """Scale the rates from which a scheduler, and those that it holds, compute others."""
    for name in ("base_lrs", "max_lrs"):
        if hasattr(scheduler, name):
            rates = zip(getattr(scheduler, name), scheduler.optimizer.param_groups, strict=True)
            scaled = [_scaled(value, *new_rates[id(group)]) for value, group in rates]
            setattr(scheduler, name, scaled)
    for inner in getattr(scheduler, "_schedulers", ()):  # of a SequentialLR or ChainedScheduler
        _scale_scheduler(inner, new_rates)


def _steepest(rates: list[float], losses: list[float]) -> float | None:
    finite = [i for i, loss in enumerate(losses) if math.isfinite(loss)]
    inner = [i for i in finite if i + 1 in finite and i >= _MIN_RATES // 2]
    slopes = {i: losses[i + 1] - losses[i] for i in inner}  # rates rise by the same factor
    best = min(slopes, key=slopes.__getitem__, default=None)
    return rates[best] if best is not None and slopes[best] < 0 else None
