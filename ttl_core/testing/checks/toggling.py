"""Checks of enabling and disabling."""

from __future__ import annotations

import contextlib
import copy
import itertools
from typing import Any

from ttl_core.errors import TTLError
from ttl_core.loop import TrainTestLoop
from ttl_core.state.protocol import has_state
from ttl_core.testing.outcome import Facts, check_same, outcome, random_facts
from ttl_core.testing.probes import Probe
from ttl_core.testing.under_test import ComponentUnderTest, seeded, under_test

_STATEFUL = ("model", "optimizer", "scheduler")
"""The loop variables that a companion may keep from one run to the next."""


class ToggleChecks(ComponentUnderTest):
    """Checks of enabling and disabling."""

    def test_can_be_toggled(self) -> None:
        """Toggled at any point, it raises only what ttl explains, and is undone at the end."""
        self._warm_up()
        for moment, is_enabled in itertools.product(self._moments(), (True, False)):
            self._toggle_at(moment, is_enabled)

    def _toggle_at(self, moment: str, is_enabled: bool) -> None:
        def toggle(*_: object) -> None:
            if loop.components.is_enabled(it):
                loop.components.disable(it)
            else:
                loop.components.enable(it)

        loop = self._loop()
        it = under_test(loop)
        runs = self._runs_of(loop, moment)
        with self._nothing_left_behind(loop, f"it was toggled in {moment}"):
            loop.components.append(Probe(toggle, moment))
            if not is_enabled:
                loop.components.disable(it)
                runs = runs[:1]  # further ones would begin as the first one has left it
            for run in runs:
                with contextlib.suppress(TTLError):
                    run()
            loop.components.pop()
            loop.components.enable(it)
        if not is_enabled:  # else the runs above have followed one another
            loop.train(n_epochs=1)

    def test_disabled_is_as_absent(self) -> None:
        """Disabled from the start, a run is to the bit what it is without the component."""

        def disabled() -> TrainTestLoop:
            loop = self._loop()
            loop.components.disable(under_test(loop))
            return loop

        check_same(
            self._outcome_of_all(disabled),
            self._control_outcome(),
            what="disabled is not the same as absent",
            first="with the component disabled",
            second="without it",
        )

    def test_disabled_again_is_as_absent(self) -> None:
        """Disabled after an epoch, a run is to the bit what it is without the component."""
        used, absent = self._loop(), self._control()
        used.train(n_epochs=1)
        used.components.disable(under_test(used))
        absent.train(n_epochs=1)
        _continue_from(used, absent)

        def second_run(loop: TrainTestLoop) -> Facts:
            log = self._logged(loop)
            loop.metrics.clear()
            with seeded():
                self._run_all(loop)
                return {**outcome(loop, log), **random_facts()}

        check_same(
            second_run(used),
            second_run(absent),
            what="disabled after it was enabled is not the same as absent",
            first="with the component disabled",
            second="without it",
        )


def _continue_from(used: TrainTestLoop, absent: TrainTestLoop) -> None:
    """Give a loop what another one has come to, also the states of components that both have.

    Args:
        used: the loop that has run, with one component more at the end of its list.
        absent: the loop without that one, which has run as long.
    """
    absent.epoch_num, absent.global_step = used.epoch_num, used.global_step
    pairs: list[Any] = [*zip(absent.components, used.components, strict=False)]
    pairs += [(vars(absent).get(name), vars(used).get(name)) for name in _STATEFUL]
    for mine, theirs in pairs:
        if has_state(mine) and type(mine) is type(theirs):
            with contextlib.suppress(ValueError):  # the component has changed parameter groups
                mine.load_state_dict(copy.deepcopy(theirs.state_dict()))
