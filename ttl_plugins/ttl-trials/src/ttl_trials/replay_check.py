"""The component `replay-check`."""

from __future__ import annotations

import copy
import functools
import logging
import random
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import LoopComponent, RunError, hookimpl
from ttl_core.arguments import one_of, whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class ReplayCheck(LoopComponent):
    """A check that a step comes to the same bits when it is made twice from one state.

    Before each `every`-th step it keeps a state, and after that step rewinds to it; when the step
    has been made again, it compares model and optimizer, to the bit, and says which parts
    differ, and which components drew global random numbers meanwhile. The run continues with the
    second of both. It is for looking for the reason why runs differ: a step that is checked costs
    as much as two, and two states.

    Args:
        every: the number of steps from one check to the next.
        action: "warn", or "raise" for an error.

    Attributes:
        n_checked: how many steps were made twice.
        differing: the names of the parts that differed, without duplicates.
        drawing: the names of components that drew global random numbers in such steps.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> from ttl_core.testing import Step, tiny_loop
        >>> loop = tiny_loop(Step(), ReplayCheck(every=2), n_batches=10)
        >>> loop.train(n_epochs=1)
        >>> check = loop.components["replay-check"]
        >>> check.n_checked, check.differing
        (4, [])
    """

    def __init__(self, every: int = 100, *, action: str = "warn") -> None:
        self.every = whole_number("every", every, at_least=1)
        self.action = one_of("action", action, ("warn", "raise"))
        self.n_checked = 0
        self.differing: list[str] = []
        self.drawing: list[str] = []
        self._before: dict[str, Any] | None = None  # the state from which the step is made
        self._after: dict[str, Any] | None = None  # what it came to the first time
        self._is_watching = False

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Forget the state of another train()."""
        self._before = self._after = None
        self._is_watching = False

    @hookimpl(tryfirst=True)
    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Keep a state, go back to it, or compare."""
        if not loop.is_training:  # between epochs, from where a step may not be the next thing
            self._before = self._after = None
        elif self._after is not None:
            self._compare(loop)
        elif self._before is not None:
            self._after = _facts(loop)
            before, self._before = self._before, None
            loop.rewind(before)
        elif loop.global_step % self.every == 0:
            self._before = loop.state_dict()
        self._is_watching = self._before is not None

    def _compare(self, loop: TrainTestLoop) -> None:
        first, self._after = self._after or {}, None
        self.n_checked += 1
        now = _facts(loop)
        names = [name for name in now if not _is_same(first.get(name), now[name])]
        self.differing += [name for name in names if name not in self.differing]
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
            drew = ", ".join(self.drawing) or "none"
            what = (
                f"replay-check: step {loop.global_step} made twice from one state differs in "
                f"{shown}. Components that drew global random numbers: {drew}"
            )
            if self.action == "raise":
                raise RunError(
                    f"{what}. Where none did, operations of torch are not deterministic: see "
                    "torch.use_deterministic_algorithms()"
                )
            _log.warning("%s", what)

    def wrap_hookimpl(
        self, function: Callable[..., Any], *, component: str, point: str, is_wrapper: bool
    ) -> Callable[..., Any]:
        """Return what watches whether a hook method of another component draws."""
        if is_wrapper:  # what it surrounds would be taken for its own
            return function

        @functools.wraps(function)
        def watched(*arguments: Any) -> Any:
            if not self._is_watching:
                return function(*arguments)
            before = _streams()
            result = function(*arguments)
            if _streams() != before and component not in self.drawing:
                self.drawing.append(component)
            return result

        return watched

    def fork(self) -> None:
        """Leave it out of forks of the loop."""

    def state_dict(self) -> dict[str, Any]:
        """Return what was found."""
        found = {"differing": [*self.differing], "drawing": [*self.drawing]}
        return {"n_checked": self.n_checked, **found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what was found, but not what a check under way has found since.

        Args:
            state: what `state_dict` returned.
        """
        if self._after is None:
            self.n_checked = state["n_checked"]
            self.differing, self.drawing = [*state["differing"]], [*state["drawing"]]


def _facts(loop: TrainTestLoop) -> dict[str, Any]:
    """Return copies of what a step changes, by name."""
    found: dict[str, Any] = {f"the weight {k}": v for k, v in loop.model.state_dict().items()}
    for i, optimizer in enumerate(loop.optimizers):
        for key, state in optimizer.state_dict()["state"].items():
            found |= {f"{name} of parameter {key} in optimizer {i}": v for name, v in state.items()}
    found["the loss"] = loop.loss.detach()
    copies = {  # LBFGS has lists of tensors
        name: value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for name, value in found.items()
    }
    return {**copies, "the random numbers": _streams()}


def _streams() -> Any:
    numpy = sys.modules.get("numpy")
    states = [tuple(torch.get_rng_state().tolist()), random.getstate()]
    return [*states, str(numpy.random.get_state()) if numpy else None]


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and bool(
            ((one == other) | (one.isnan() & other.isnan())).all()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other)
