"""Checks of state: saved, loaded, and belonging to one component alone."""

from __future__ import annotations

import io
from typing import Any

import torch

from ttl_core.state.protocol import has_state
from ttl_core.testing.checks.resuming import ResumeChecks
from ttl_core.testing.inside import kept_defaults, shared_facts, state_facts
from ttl_core.testing.outcome import Facts, check_same, outcome, plain_facts
from ttl_core.testing.probes import MOMENTS, Probe
from ttl_core.testing.surroundings import changes
from ttl_core.testing.under_test import seeded, under_test


class StateChecks(ResumeChecks):
    """Checks of state: saved, loaded, and belonging to one component alone."""

    def test_state_can_be_saved(self) -> None:
        """torch.load(weights_only=True) returns what was saved."""
        loop = self._loop()
        loop.train(n_epochs=1)
        it = under_test(loop)
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
                it.state_dict()

            loop = self._loop()
            it: Any = under_test(loop)
            log = self._logged(loop)
            if calls:
                call()
                loop.components.append(Probe(call, *MOMENTS))
            with seeded():
                loop.train(n_epochs=2)
            return outcome(loop, log) | (state_facts(it) if self._has_own_outcome else {})

        if has_state(under_test(self._loop())):
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
        self._logged(other)  # as in the run from which the state is
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
        for kept in kept_defaults(idle):
            raise AssertionError(f"all instances share {kept}. Copy it in __init__")


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
