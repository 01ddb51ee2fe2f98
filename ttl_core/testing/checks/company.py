"""Checks of what is around the component: a model, optimizers, and other components."""

from __future__ import annotations

import math
import re
from itertools import chain

from ttl_core.loop import TrainTestLoop
from ttl_core.testing.outcome import Facts, check_same, differing, outcome
from ttl_core.testing.probes import MeanLoss, with_name
from ttl_core.testing.step import Step
from ttl_core.testing.under_test import ComponentUnderTest, once, seeded


class CompanyChecks(ComponentUnderTest):
    """Checks of what is around the component: each compares runs that differ in it."""

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
        one, other = self._behind_another(), self._before_another_among_renamed()
        if differing(one, other):  # else the names do not matter either
            other = self._run_beside_another(self._loop(), is_first=False)
        check_same(
            one,
            other,
            what="its place among unrelated components matters",
            first="after one that logs a value at the end of each epoch",
            second="before it",
            unstable=self._unstable,
        )

    def test_finds_others_by_what_they_are(self) -> None:
        """Where the components beside it have other names in the list, it does the same."""
        one, other = self._behind_another(), self._before_another_among_renamed()
        if differing(one, other):
            one = self._run_beside_another(self._loop(), is_first=False)
        check_same(
            other,
            one,
            what="it depends on the names of others in the list, which the user chooses. Read loop "
            "variables or call callback points, or find them by their class",
            first="where they have other names",
            second="where they have their own",
            unstable=self._unstable,
        )

    @once
    def _behind_another(self) -> Facts:
        return self._run_beside_another(self._loop(), is_first=True)

    @once
    def _before_another_among_renamed(self) -> Facts:
        *others, it = self.make_components()
        needed = [member.hints.requires for member in self._loop()._resumption.members()]
        others = [
            with_name(item, f"renamed-{i}", except_for=[*chain(*needed)])
            for i, item in enumerate(others)
        ]
        try:
            return self._run_beside_another(self._loop_of([*others, it]), is_first=False)
        except Exception as error:
            return {"the run": f"{type(error).__name__}: {error}"}

    def _run_beside_another(self, loop: TrainTestLoop, *, is_first: bool) -> Facts:
        """Return what runs of all kinds come to beside an unrelated component.

        Args:
            loop: the loop.
            is_first: whether that one is before the component.
        """
        log = self._logged(loop)
        loop.components.insert(len(loop.components) - is_first, MeanLoss())
        with seeded():
            self._run_all(loop)
        return {name: v for name, v in outcome(loop, log).items() if "mean-loss" not in name}

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


def _is_close(one: str, other: str) -> bool:
    """Return whether the numbers in two texts are the same but for rounding."""
    pairs = zip(*(re.findall(r"[^][, ]+", text) for text in (one, other)), strict=True)
    return all(
        a == b or math.isclose(float(a), float(b), rel_tol=1e-3, abs_tol=1e-5) for a, b in pairs
    )
