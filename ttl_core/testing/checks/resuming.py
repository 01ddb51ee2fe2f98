"""Checks of resuming, against a run that was not interrupted."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from ttl_core.errors import StateError, TTLError
from ttl_core.loop import TrainTestLoop
from ttl_core.state.protocol import has_state
from ttl_core.testing.inside import (
    attribute_facts,
    numbers_given,
    public_facts,
    state_facts,
)
from ttl_core.testing.outcome import (
    Facts,
    LogBook,
    as_text,
    check_same,
    describe_differences,
    differing,
    outcome,
    subject,
)
from ttl_core.testing.probes import Probe, with_name
from ttl_core.testing.under_test import ComponentUnderTest, once, seeded, under_test

_SAME = {"first": "in the resumed run", "second": "in the one that was not interrupted"}


class _Taken(NamedTuple):
    """A state that was taken in a run.

    Attributes:
        state: the state.
        n_logged: how many values were logged before.
        where: where that was, in words.
    """

    state: dict[str, Any]
    n_logged: int
    where: str


class _Reference(NamedTuple):
    """A run that was not interrupted.

    Attributes:
        taken: the states that were taken in it.
        end: what it came to.
        log: what was logged in it.
        own: the state and the public attributes of the component at its end.
        inside: all its attributes at its end that are plain values.
    """

    taken: list[_Taken]
    end: Facts
    log: LogBook
    own: Facts
    inside: Facts

    def end_after(self, n_logged: int) -> Facts:
        """Return what it came to, with what was logged after the first so many values."""
        return self.end | self.log.facts(self.log.entries[n_logged:])


class ResumeChecks(ComponentUnderTest):
    """Checks of resuming, against a run that was not interrupted."""

    # -- runs that several checks read ------------------------------------------------------

    def _run_reference(self, make: Callable[[], TrainTestLoop]) -> _Reference:
        taken: list[_Taken] = []

        def take(loop: TrainTestLoop, _: str) -> None:
            if self._is_resumable(loop):
                where = f"epoch {loop.epoch_num}, step {loop.global_step}"
                taken.append(_Taken(loop.state_dict(), len(log.entries), where))

        loop = make()
        it = under_test(loop)
        log = self._logged(loop)
        loop.components.append(Probe(take, "on_safe_point"))
        loop.train(n_epochs=2)
        if not taken:
            raise AssertionError("the run came to no safe point at which a state can be taken")
        return _Reference(taken, outcome(loop), log, _own(it), attribute_facts(it))

    @once
    def _reference(self) -> _Reference:
        return self._run_reference(self._loop)

    @once
    def _known_varying(self) -> set[str]:
        return set()

    def _varying(self) -> set[str]:
        """Return the subjects of what differs between runs that are not interrupted.

        Each call runs once more, and adds what differs then.
        """
        one, other = self._reference(), self._run_reference(self._loop)
        ends = [{**r.end_after(0), **r.own} for r in (one, other)]
        self._known_varying().update(map(subject, differing(*ends)))
        return self._known_varying()

    def _is_resumable(self, loop: TrainTestLoop) -> bool:
        try:
            loop.check_resumable()
        except StateError:  # the component gives data that hold no position
            return False
        return True

    def _resume(self, loop: TrainTestLoop, taken: _Taken) -> Facts:
        """Resume a run in a loop, and return what it came to."""
        log = self._logged(loop)
        with seeded():
            loop.load_state_dict(taken.state)
            loop.train(n_epochs=2)
        return outcome(loop, log)

    def _check_resumes(
        self, loop: TrainTestLoop, taken: _Taken, reference: _Reference, what: str
    ) -> None:
        """Check that a run that resumes comes to what the one comes to in which a state was taken.

        Args:
            loop: the loop in which it resumes.
            taken: the state.
            reference: the run in which it was taken.
            what: what a difference means.
        """
        try:
            check_same(
                self._resume(loop, taken),
                reference.end_after(taken.n_logged),
                what=what,
                unstable=self._varying,
                **_SAME,
            )
        except AssertionError as error:
            inside = attribute_facts(under_test(loop))
            names = differing(inside, reference.inside)
            if not names:
                raise
            lines = describe_differences(inside, reference.inside, names, *_SAME.values())
            hint = "At the end its attributes differ. Is one missing from its state_dict()?"
            raise AssertionError("\n  ".join([f"{error}\n{hint}", *lines])) from None

    @property
    def _has_own_outcome(self) -> bool:
        """Whether runs that come to the same come to the same state of the component."""
        return "test_resumes_its_own_state" not in self.opted_out

    def _check_own(self, it: Any, reference: _Reference, what: str) -> None:
        """Check that a component has at last the state and attributes that it had in a run."""
        if self._has_own_outcome:
            check_same(_own(it), reference.own, what=what, unstable=self._varying, **_SAME)

    # -- resuming ---------------------------------------------------------------------------

    def test_resumes_exactly(self) -> None:
        """From any safe point a new loop comes to what an uninterrupted run comes to.

        That is the weights, the metrics, and everything that is logged from there on.
        """
        reference = self._reference()
        for taken in reference.taken:
            what = f"a run that resumes from the safe point at {taken.where} differs"
            self._check_resumes(self._loop(), taken, reference, what)

    def test_resumes_its_own_state(self) -> None:
        """A resumed run ends with the same state, and public attributes, of the component."""
        reference = self._reference()
        taken = reference.taken[len(reference.taken) // 2]
        loop = self._loop()
        it = under_test(loop)
        self._resume(loop, taken)
        self._check_own(it, reference, f"after a run that resumed at {taken.where} it differs")

    def test_keeps_a_new_configuration(self) -> None:
        """An argument that has changed since a state was taken is not silently set back."""
        reference = self._reference()
        loop = self._loop()
        it = under_test(loop)
        fixed = {  # not what changes in a run, which belongs to the state
            name: value
            for name, value in numbers_given(it).items()
            if reference.inside.get(f"its attribute {name}") == as_text(value)
        }
        if not (fixed and has_state(it)):
            return
        new = {n: not v if isinstance(v, bool) else v + 1 for n, v in fixed.items()}
        found: dict[str, Any] = {}

        def act(loop: TrainTestLoop, moment: str) -> None:
            if moment == "on_train_begin":
                vars(it).update(new)
            else:  # the first moment after the state was loaded
                found.update(vars(it))
                loop.stop()

        self._logged(loop)
        loop.components.append(Probe(act, "on_train_begin", "on_batch_begin"))
        loop.load_state_dict(reference.taken[len(reference.taken) // 2].state)
        with warnings.catch_warnings(), contextlib.suppress(TTLError, UserWarning):
            warnings.simplefilter("error", UserWarning)  # both explain what does not fit
            loop.train(n_epochs=2)
        for name in found.keys() & fixed.keys():
            if found[name] == fixed[name] != new[name]:  # infinity + 1 is infinity
                raise AssertionError(
                    f"load_state_dict() sets {name!r} back to {fixed[name]!r}, where the script "
                    f"says {new[name]!r} now. Leave arguments out of the state, or raise an error"
                )

    def test_resumes_from_an_earlier_state(self) -> None:
        """A component that has run resumes from an earlier state as a new one does."""
        reference = self._reference()
        loop = self._loop()
        loop.train(n_epochs=2)
        used = under_test(loop)
        loop.components.remove(used)
        again = self._control()
        again.components.append(used)
        taken = reference.taken[0]
        what = "a component that has run before does not go back to an earlier state"
        self._check_resumes(again, taken, reference, what)
        self._check_own(used, reference, what)

    def test_rewinds_exactly(self) -> None:
        """A run that goes back to an earlier safe point of its own ends as one that never did."""
        reference = self._reference()
        if len(reference.taken) < 2:
            return
        first, go_at = reference.taken[0], len(reference.taken) - 2
        states: list[dict[str, Any]] = []

        def rewind(loop: TrainTestLoop, _: str) -> None:
            if self._is_resumable(loop):
                states.append(loop.state_dict())
                if len(states) == go_at + 1:
                    loop.rewind(states[0])

        loop = self._loop()
        it = under_test(loop)
        log = self._logged(loop)
        loop.components.append(Probe(rewind, "on_safe_point"))
        with seeded():
            loop.train(n_epochs=2)
        what = f"a run that rewinds to the safe point at {first.where} differs"
        same = {**_SAME, "first": "in the run that was rewound"}
        check_same(
            outcome(loop, log),
            reference.end_after(first.n_logged),
            what=what,
            unstable=self._varying,
            **same,
        )
        if self._has_own_outcome:
            check_same(_own(it), reference.own, what=what, unstable=self._varying, **same)

    def test_two_instances_resume_exactly(self) -> None:
        """Two instances in one list run and resume, each with a state of its own."""
        if under_test(self._loop()).only_once:
            pytest.skip("only one may be in a list: only_once")

        def pair() -> TrainTestLoop:
            loop = self._loop()
            loop.components.append(with_name(self.make_components()[-1], "second"))
            return loop

        self._run_all(pair())
        reference = self._run_reference(pair)
        taken = reference.taken[len(reference.taken) // 2]
        loop = pair()
        second = under_test(loop)
        what = "with a second instance in the list, a run that resumes differs"
        self._check_resumes(loop, taken, reference, what)
        self._check_own(second, reference, what)


def _own(component: Any) -> Facts:
    return state_facts(component) | public_facts(component)
