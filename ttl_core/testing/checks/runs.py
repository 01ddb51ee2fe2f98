"""Checks of all kinds of runs."""

from __future__ import annotations

import itertools
import math
import re

from ttl_core.loop import TrainTestLoop
from ttl_core.testing.inside import counts_of_steps
from ttl_core.testing.outcome import (
    Facts,
    as_text,
    check_same,
    differing,
    outcome,
    parameter_facts,
    weight_facts,
)
from ttl_core.testing.probes import Accumulate, MeanLoss, Probe
from ttl_core.testing.step import Step
from ttl_core.testing.structure import optimizer_settings
from ttl_core.testing.surroundings import changes
from ttl_core.testing.under_test import (
    ComponentUnderTest,
    check_epochs,
    once,
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
        """A second train() works, and counts on."""
        loop = self._loop()
        loop.train(n_epochs=1)
        loop.train(n_optim_steps=2)
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

    def test_takes_another_model(self) -> None:
        """After `loop.model` was exchanged, nothing depends on the old model and its optimizer."""
        one, other = self._with_another_model(), self._with_another_model_in_groups()
        if differing(one, other):  # else the number of groups does not matter either
            other = self._train_another_model(0.5)
        check_same(
            one,
            other,
            what="it depends on a model that is no longer loop.model, or on its optimizer. Read "
            "them anew in each run",
            first="where the old weights and learning rates are 0.25",
            second="where they are 0.5",
            unstable=self._unstable,
        )

    def test_treats_all_parameter_groups_alike(self) -> None:
        """Where an optimizer has two groups with the same settings, weights are as with one."""
        one, other = self._with_another_model(), self._with_another_model_in_groups()
        if differing(one, other):
            one = self._train_another_model(0.5)
        for name in differing(one, other):
            if name.startswith("the weight ") and not _is_close(one[name], other[name]):
                raise AssertionError(
                    f"it treats groups of parameters differently: {name} is not the same where the "
                    "optimizer has two groups, with the same settings, in place of one. Write "
                    "for group in optimizer.param_groups"
                )

    def test_order_among_others_does_not_matter(self) -> None:
        """Before and after an unrelated component that logs, it does the same."""

        def trained(is_first: bool) -> dict[str, str]:
            loop = self._loop()
            log = self._logged(loop)
            loop.components.insert(len(loop.components) - is_first, MeanLoss())
            with seeded():
                self._run_all(loop)
            return {name: v for name, v in outcome(loop, log).items() if "mean-loss" not in name}

        check_same(
            trained(is_first=True),
            trained(is_first=False),
            what="its place among unrelated components matters",
            first="after one that logs a value at the end of each epoch",
            second="before it",
            unstable=self._unstable,
        )

    # -- how they do it ---------------------------------------------------------------------

    @once
    def _with_another_model(self) -> Facts:
        return self._train_another_model(0.25)

    @once
    def _with_another_model_in_groups(self) -> Facts:
        return self._train_another_model(0.5, n_in_first_group=1)

    def _train_another_model(self, old_value: float, n_in_first_group: int | None = None) -> Facts:
        """Return what training a second model comes to.

        Args:
            old_value: what is put in place of the weights and learning rates of the first one.
            n_in_first_group: how many parameters `Step` puts into a group of their own.
        """
        loop = self._loop()
        for component in loop.components:
            if isinstance(component, Step):
                component._n_in_first_group = n_in_first_group
        loop.train(n_epochs=1)
        for tensor in loop.model.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(old_value)
        for group in getattr(vars(loop).get("optimizer"), "param_groups", ()):
            group["lr"] = old_value
        loop.model = self.make_model()
        log = self._logged(loop)
        with seeded():
            loop.train(n_epochs=1)
        return outcome(loop, log)

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


def _is_close(one: str, other: str) -> bool:
    """Return whether the numbers in two texts are the same but for rounding."""
    pairs = zip(*(re.findall(r"[^][, ]+", text) for text in (one, other)), strict=True)
    return all(
        a == b or math.isclose(float(a), float(b), rel_tol=1e-3, abs_tol=1e-5) for a, b in pairs
    )
