"""Checks of all kinds of runs."""

from __future__ import annotations

import itertools

from ttl_core.loop import TrainTestLoop
from ttl_core.testing.inside import counts_of_steps
from ttl_core.testing.outcome import (
    Facts,
    as_text,
    check_same,
    parameter_facts,
    weight_facts,
)
from ttl_core.testing.probes import Accumulate, Probe
from ttl_core.testing.structure import optimizer_settings
from ttl_core.testing.surroundings import changes
from ttl_core.testing.under_test import (
    ComponentUnderTest,
    check_epochs,
    seeded,
    under_test,
)


class RunChecks(ComponentUnderTest):
    """Checks of all kinds of runs."""

    def test_trains(self) -> None:
        """A run with the component goes through all its epochs."""
        loop = self._loop()
        loop.train(n_epochs=2)
        check_epochs(loop, 2)

    def test_trains_twice(self) -> None:
        """A second train() works, and counts on, also where it is a single step."""
        loop = self._loop()
        loop.train(n_epochs=1)
        loop.train(n_optim_steps=1)
        check_epochs(loop, 2)

    def test_tests_alone(self) -> None:
        """test() works on a loop that has never trained."""
        self._loop().test(self.make_data(2))

    def test_validates_alone(self) -> None:
        """validate() works on a loop that has never trained."""
        self._loop().validate()

    def test_predicts_alone(self) -> None:
        """predict() works on a loop that has never trained, and returns scores of each batch."""
        scores = self._loop().predict(self.make_data(2)) or ()
        if len(scores) != 2:
            raise AssertionError(f"predict() returned the scores of {len(scores)} batches of 2")

    def test_is_created_for_each_loop(self) -> None:
        """Two loops get components of their own."""
        one, other = self._loop(), self._loop()
        shared = [c for c in one.components if any(c is another for another in other.components)]
        if shared:
            raise AssertionError(
                f"make_components() returned the same object twice: {shared[0]!r}. Each loop needs "
                "components of its own"
            )

    def test_is_validated_in_mid_epoch(self) -> None:
        """A validate() in the middle of a training epoch changes nothing in training."""

        def validate(loop: TrainTestLoop, _: str) -> None:
            if loop.is_training and loop.batch_num == 1:
                loop.validate(self.make_data(3))  # more batches than were trained

        def trained(validates: bool) -> dict[str, str]:
            loop = self._loop()
            log = self._logged(loop)
            if validates:
                loop.components.append(Probe(validate, "on_batch_end"))
            with seeded():
                loop.train(n_epochs=2)
            facts = log.facts([entry for entry in log.entries if entry[0].startswith("'train/")])
            return facts | weight_facts(loop.model)

        check_same(
            trained(validates=True),
            trained(validates=False),
            what="training is not the same with a validate() in mid-epoch",
            first="with it",
            second="without it",
            unstable=self._unstable,
        )

    def test_lets_gradients_accumulate(self) -> None:
        """Where two batches make a step, the gradients of the first one count."""
        one, other = (self._accumulated(first) for first in (0, 1))
        lost = [name for name, value in one.items() if other[name] == value]
        if one and len(lost) == len(one):
            raise AssertionError(
                f"the gradient of {lost[0]} after the second of two batches that make a step is "
                f"{one[lost[0]]}, whatever the first one was: its gradients were lost. Clear "
                "gradients in on_grads_reset only"
            )

    def test_leaves_rates_while_gradients_accumulate(self) -> None:
        """In a batch that makes no step, no weight, count of steps or setting changes."""
        lines = self._changed_without_a_step(self._loop(), counts=True)
        if lines and not self._changed_without_a_step(self._control(), counts=False):
            raise AssertionError(
                "\n  ".join(["in a batch that makes no step, as gradients accumulate:", *lines[:3]])
                + "\nCount in on_optim_step, or by loop.global_step"
            )

    # -- how they do it ---------------------------------------------------------------------

    def _changed_without_a_step(self, loop: TrainTestLoop, *, counts: bool) -> list[str]:
        """Return what changes in batches that make no step, in words.

        Args:
            loop: the loop.
            counts: whether its last component is under test, and so are its counts of steps.
        """
        before: Facts = {}
        lines: list[str] = []
        steps: list[dict[str, int]] = []

        def look(loop: TrainTestLoop, moment: str) -> None:
            if not loop.is_training:
                return
            now = optimizer_settings(loop) | parameter_facts(loop.model)
            if moment == "on_batch_begin":
                before.clear()
                before.update(now)
                return
            steps.append(counts_of_steps(it) if counts else {})
            if not loop.is_stepping:
                lines.extend(changes(before, now))

        it = under_test(loop)
        loop.train_data = self.make_data(4)
        loop.components.insert(0, Accumulate())
        loop.components.insert(0, Probe(look, "on_batch_begin"))
        loop.components.append(Probe(look, "on_batch_end"))
        with seeded():
            loop.train(n_epochs=1)
        for name in steps[-1] if steps else ():
            numbers = [found.get(name, 0) for found in steps]
            if all(a < b for a, b in itertools.pairwise(numbers)):
                lines.append(f"its attribute {name!r} grows with each batch: {numbers}")
        return lines

    def _accumulated(self, first: int) -> dict[str, str]:
        """Return gradients after the second of two batches that make a step.

        Args:
            first: which data the first batch is.
        """
        found: dict[str, str] = {}

        def look(loop: TrainTestLoop, _: str) -> None:
            if loop.batch_num == 1 and loop.is_stepping:
                gradients = ((n, p.grad) for n, p in loop.model.named_parameters())
                found.update((n, as_text(g)) for n, g in gradients if g is not None and g.any())
                loop.stop()

        loop = self._loop()
        several = self.make_data(4)
        loop.train_data = [several[2 * first], several[1]]
        loop.components.insert(0, Accumulate())
        loop.components.append(Probe(look, "on_backward_pass"))
        with seeded():
            loop.train(n_epochs=1)
        return found
