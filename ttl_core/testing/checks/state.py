"""Checks of state: saved, loaded, and belonging to one component alone."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ttl_core.errors import StateError
from ttl_core.loop import TrainTestLoop
from ttl_core.state.protocol import has_state
from ttl_core.testing.inside import public_facts, shared_facts, state_facts
from ttl_core.testing.outcome import (
    Facts,
    LogBook,
    check_same,
    differing,
    outcome,
    plain_facts,
    subject,
)
from ttl_core.testing.probes import MOMENTS, Probe
from ttl_core.testing.surroundings import changes
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
    """

    taken: list[_Taken]
    end: Facts
    log: LogBook
    own: Facts

    def end_after(self, n_logged: int) -> Facts:
        """Return what it came to, with what was logged after the first so many values."""
        return self.end | self.log.facts(self.log.entries[n_logged:])


class StateChecks(ComponentUnderTest):
    """Checks of state."""

    # -- runs that several checks read ------------------------------------------------------

    def _run_reference(self, make: Callable[[], TrainTestLoop]) -> _Reference:
        taken: list[_Taken] = []

        def take(loop: TrainTestLoop, _: str) -> None:
            if self._is_resumable(loop):
                where = f"epoch {loop.epoch_num}, step {loop.global_step}"
                taken.append(_Taken(loop.state_dict(), len(log.entries), where))

        loop, log = make(), LogBook()
        it = under_test(loop)
        loop.components.insert(0, log)
        loop.components.append(Probe(take, "on_safe_point"))
        loop.train(n_epochs=2)
        if not taken:
            raise AssertionError("the run came to no safe point at which a state can be taken")
        return _Reference(taken, outcome(loop), log, _own(it))

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

    def _resume(
        self, loop: TrainTestLoop, taken: _Taken, reference: _Reference | None = None
    ) -> Facts:
        """Resume a run in a loop, and return what it came to, as far as the reference goes."""
        log = LogBook()
        loop.components.insert(0, log)
        with seeded():
            loop.load_state_dict(taken.state)
            loop.train(n_epochs=2)
        n_expected = len((reference or self._reference()).log.entries) - taken.n_logged
        tail = log.entries[-n_expected:] if n_expected else []
        loop.components.remove(log)
        return outcome(loop) | log.facts(tail)

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
            check_same(
                self._resume(self._loop(), taken),
                reference.end_after(taken.n_logged),
                what=f"a run that resumes from the safe point at {taken.where} differs",
                unstable=self._varying,
                **_SAME,
            )

    def test_resumes_its_own_state(self) -> None:
        """A resumed run ends with the same state, and public attributes, of the component."""
        reference = self._reference()
        taken = reference.taken[len(reference.taken) // 2]
        loop = self._loop()
        it = under_test(loop)
        self._resume(loop, taken)
        self._check_own(it, reference, f"after a run that resumed at {taken.where} it differs")

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
        check_same(
            self._resume(again, taken),
            reference.end_after(taken.n_logged),
            what=what,
            unstable=self._varying,
            **_SAME,
        )
        self._check_own(used, reference, what)

    def test_two_instances_resume_exactly(self) -> None:
        """Two instances in one list run and resume, each with a state of its own."""

        def pair() -> TrainTestLoop:
            loop = self._loop()
            loop.components.append(self.make_components()[-1])
            return loop

        self._run_all(pair())
        reference = self._run_reference(pair)
        taken = reference.taken[len(reference.taken) // 2]
        loop = pair()
        second = under_test(loop)
        what = "with a second instance in the list, a run that resumes differs"
        check_same(
            self._resume(loop, taken, reference),
            reference.end_after(taken.n_logged),
            what=what,
            unstable=self._varying,
            **_SAME,
        )
        self._check_own(second, reference, what)

    # -- the state itself -------------------------------------------------------------------

    def test_state_can_be_saved(self) -> None:
        """It has both methods or none, and torch.load(weights_only=True) returns what was saved."""
        loop = self._loop()
        loop.train(n_epochs=1)
        it = under_test(loop)
        methods = [callable(getattr(it, m, None)) for m in ("state_dict", "load_state_dict")]
        if methods[0] != methods[1]:
            has, lacks = sorted(["state_dict", "load_state_dict"], key=lambda m: not hasattr(it, m))
            raise AssertionError(f"it has {has}() but no {lacks}(), so that it has no state")
        if has_state(it):
            state = it.state_dict()  # type: ignore[attr-defined]
            stream = io.BytesIO()
            torch.save(state, stream)
            stream.seek(0)
            try:
                loaded = torch.load(stream, weights_only=True)
            except Exception as error:
                raise AssertionError(
                    f"torch.load(weights_only=True) refuses its state: {error}"
                ) from error
            check_same(
                plain_facts(loaded, "its state"),
                plain_facts(state, "its state"),
                what="its state is not the same after torch.save and torch.load",
                first="as it was loaded",
                second="as it was saved",
            )

    def test_state_dict_changes_nothing(self) -> None:
        """state_dict() may be called at any time, also before load_state_dict(), without effect."""

        def trained(calls: bool) -> Facts:
            def call(*_: object) -> None:
                check_same(
                    state_facts(it),
                    state_facts(it),
                    what="called twice, state_dict() returns two states",
                    first="the first time",
                    second="the second time",
                    unstable=lambda: varying,
                )

            loop, log = self._loop(), LogBook()
            it = under_test(loop)
            loop.components.insert(0, log)
            if calls:
                call()
                loop.components.append(Probe(call, *MOMENTS))
            with seeded():
                loop.train(n_epochs=2)
            return outcome(loop, log) | (state_facts(it) if self._has_own_outcome else {})

        if has_state(under_test(self._loop())):
            varying = self._varying()
            check_same(
                trained(calls=True),
                trained(calls=False),
                what="state_dict() has an effect",
                first="where it is called at every point",
                second="where it is not",
                unstable=self._varying,
            )

    def test_state_stays_as_it_was(self) -> None:
        """Neither a state that was taken nor one that was loaded changes as training continues.

        Tensors that it returns may be those that training changes, as in PyTorch; the loop copies.
        """
        states: list[Any] = []
        loop = self._loop()
        it: Any = under_test(loop)
        if not has_state(it):
            return
        loop.components.append(Probe(lambda *_: states.append(it.state_dict()), "on_batch_end"))
        loop.train(n_epochs=1)
        before = _without_tensors(states[0])
        loop.train(n_epochs=1)
        _check_stays(before, _without_tensors(states[0]), "that state_dict() returned")
        taken = self._reference().taken[0]
        stream = io.BytesIO()
        torch.save(taken.state, stream)
        stream.seek(0)
        state = torch.load(stream, weights_only=True)
        other = self._loop()
        before = plain_facts(state["components"], "its state")
        other.load_state_dict(state, copy=False)
        other.train(n_epochs=2)
        _check_stays(before, plain_facts(state["components"], "its state"), "that was loaded")

    def test_instances_share_nothing(self) -> None:
        """A run changes nothing in another instance, its class, or its module."""
        self._warm_up()
        idle = under_test(self._loop())
        before = shared_facts(idle)
        self._run_all(self._loop())
        lines = changes(before, shared_facts(idle))
        if lines:
            raise AssertionError(
                "\n  ".join(["a run has changed what other instances share:", *lines[:3]])
            )


def _own(component: Any) -> Facts:
    return state_facts(component) | public_facts(component)


def _without_tensors(state: Any) -> Facts:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [plain(part) for part in value]
        return "a tensor" if isinstance(value, torch.Tensor) else value

    return plain_facts(plain(state), "its state")


def _check_stays(before: Facts, after: Facts, which: str) -> None:
    lines = changes(before, after)
    if lines:
        raise AssertionError(
            "\n  ".join([f"the state {which} changes as training continues:", *lines[:3]])
        )
