"""Checks of enabling and disabling."""

from __future__ import annotations

import contextlib
import itertools

from ttl_core.errors import TTLError
from ttl_core.loop import TrainTestLoop
from ttl_core.testing.outcome import Facts, check_same, outcome, random_facts
from ttl_core.testing.probes import Probe
from ttl_core.testing.under_test import ComponentUnderTest, seeded, under_test


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
        absent.model.load_state_dict(used.model.state_dict())
        absent.epoch_num, absent.global_step = used.epoch_num, used.global_step

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
