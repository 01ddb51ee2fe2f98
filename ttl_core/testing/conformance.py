"""The conformance suite: what every component has to do, as tests to inherit."""

from __future__ import annotations

import random
import sys
from functools import partial
from typing import Any

import pytest
import torch

from ttl_core.components.component import Item
from ttl_core.errors import StateError, TTLError
from ttl_core.loop import TrainTestLoop
from ttl_core.testing.probes import MOMENTS, PlannedError, Probe

at_every_moment = pytest.mark.parametrize("moment", MOMENTS)
on_either_side = pytest.mark.parametrize("first", [True, False], ids=["before", "after"])


class ComponentConformance:
    """The conformance suite. Subclass it in the tests of a package.

    The component under test is the last one that `make_components` returns; the others are what
    it needs around it. It is tested within that list, and against a control run of the list
    without it.

    Example:
        >>> class TestStep(ComponentConformance):
        ...     def make_components(self):
        ...         return [Step()]
    """

    def make_components(self) -> list[Item]:
        """Return a new list of components for a loop, the one under test last.

        Returns:
            Components, names of installed ones, or specs.
        """
        raise NotImplementedError("return the components, the one under test last")

    @staticmethod
    def make_model() -> torch.nn.Module:
        """Return a new small model: 4 features in, 2 scores out, no random numbers in forward."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return torch.nn.Sequential(
                torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)
            )

    @staticmethod
    def make_data(n_batches: int = 3) -> list[Any]:
        """Return batches for the model: inputs of shape (6, 4), targets of shape (6,)."""
        generator = torch.Generator().manual_seed(1)
        return [
            (
                torch.randn(6, 4, generator=generator),
                torch.randint(0, 2, (6,), generator=generator),
            )
            for _ in range(n_batches)
        ]

    def _loop(self) -> TrainTestLoop:
        loop = TrainTestLoop(
            self.make_model(), self.make_components(), self.make_data(), self.make_data(2)
        )
        assert loop.components, "make_components() returned no component to test"
        return loop

    def _run_all(
        self, loop: TrainTestLoop, tolerating: type[Exception] | tuple[()] = ()
    ) -> list[BaseException]:
        """Train, validate, test and predict; return what was raised and tolerated."""
        caught: list[BaseException] = []
        for run, arguments in (
            (loop.train, [2]),
            (loop.validate, []),
            (loop.test, [self.make_data(1)]),
            # without scores to collect in a control run without a component that sets them
            (partial(loop.predict, collect=False), [self.make_data(1)]),
        ):
            try:
                run(*arguments)
            except tolerating as error:
                caught.append(error)
        return caught

    # -- the checks -------------------------------------------------------------------------

    def test_trains(self) -> None:
        """A run with the component goes through all its epochs."""
        loop = self._loop()
        loop.train(n_epochs=2)
        assert loop.epoch_num == 2

    def test_trains_twice(self) -> None:
        """A second train() works, and counts on."""
        loop = self._loop()
        loop.train(n_epochs=1)
        loop.train(n_optim_steps=2)
        assert loop.epoch_num == 2

    def test_tests_alone(self) -> None:
        """test() works on a loop that has never trained."""
        self._loop().test(self.make_data(2))

    def test_validates_alone(self) -> None:
        """validate() works on a loop that has never trained."""
        self._loop().validate()

    def test_predicts_alone(self) -> None:
        """predict() works on a loop that has never trained, and returns scores of each batch."""
        assert len(self._loop().predict(self.make_data(2)) or ()) == 2

    def test_validates_on_several_sets(self) -> None:
        """A run with several named validation sets goes through all its epochs."""
        loop = self._loop()
        loop.valid_data = {"one": self.make_data(1), "two": self.make_data(2)}
        loop.train(n_epochs=2)
        assert loop.epoch_num == 2

    def test_is_created_for_each_loop(self) -> None:
        """Two loops get components of their own."""
        one, other = self._loop(), self._loop()
        assert not {id(component) for component in one.components} & {
            id(component) for component in other.components
        }

    @at_every_moment
    @on_either_side
    def test_survives_stop(self, moment: str, first: bool) -> None:
        """stop() at any point ends the run cleanly, and the loop can train again."""
        loop = self._loop()
        probe = Probe(lambda loop, _: loop.stop(), moment)
        loop.components.insert(0 if first else len(loop.components), probe)
        self._run_all(loop)
        loop.components.remove(probe)
        epochs = loop.epoch_num
        loop.train(n_epochs=1)
        assert loop.epoch_num == epochs + 1

    @at_every_moment
    @on_either_side
    def test_survives_an_exception(self, moment: str, first: bool) -> None:
        """An exception at any point passes unchanged, and the loop can train again."""
        raised: list[BaseException] = []

        def fail(*_: object) -> None:
            raised.append(PlannedError())
            raise raised[-1]

        loop = self._loop()
        probe = Probe(fail, moment)
        loop.components.insert(0 if first else len(loop.components), probe)
        caught = self._run_all(loop, tolerating=PlannedError)
        assert raised == caught, "an exception was swallowed"
        loop.components.remove(probe)
        epochs = loop.epoch_num
        loop.train(n_epochs=1)
        assert loop.epoch_num == epochs + 1

    @at_every_moment
    @pytest.mark.parametrize("on", [True, False], ids=["enabled", "disabled"])
    def test_can_be_toggled(self, moment: str, on: bool) -> None:
        """Enabled and disabled at any point, it raises nothing but errors that ttl explains."""

        def toggle(*_: object) -> None:
            if loop.components.is_enabled(it):
                loop.components.disable(it)
            else:
                loop.components.enable(it)

        loop = self._loop()
        it = loop.components[-1]
        loop.components.append(Probe(toggle, moment))
        if not on:
            loop.components.disable(it)
        self._run_all(loop, tolerating=TTLError)
        loop.components.pop()
        loop.components.enable(it)
        loop.train(n_epochs=1)

    def test_resumes_exactly(self) -> None:
        """From any safe point a new loop resumes to the result of an uninterrupted run."""
        states: list[dict[str, Any]] = []

        def take(loop: TrainTestLoop, _: str) -> None:
            if self._is_resumable(loop):
                states.append(loop.state_dict())

        loop = self._loop()
        loop.components.append(Probe(take, "on_safe_point"))
        loop.train(n_epochs=2)
        assert states, "the run came to no safe point"
        for state in states:
            other = self._loop()
            other.load_state_dict(state)
            other.train(n_epochs=2)
            assert _outcome(loop) == _outcome(other)

    def _is_resumable(self, loop: TrainTestLoop) -> bool:
        try:
            loop.check_resumable()
        except StateError:  # the component gives data that hold no position
            return False
        return True

    def test_leaves_modes_alone(self) -> None:
        """Grad mode, module modes and parameters are at every point those of a run without it."""
        assert self._modes_seen(self._loop()) <= self._modes_seen(self._control())

    def test_leaves_random_streams_alone(self) -> None:
        """After a run the global random streams are where a run without it leaves them."""
        assert self._random_states(self._control()) == self._random_states(self._loop())

    def _control(self) -> TrainTestLoop:
        loop = self._loop()
        loop.components.pop()
        return loop

    def _modes_seen(self, loop: TrainTestLoop) -> set[tuple[object, ...]]:
        seen: set[tuple[object, ...]] = set()
        parameters = [id(parameter) for parameter in loop.model.parameters()]

        def look(loop: TrainTestLoop, moment: str) -> None:
            modes = tuple(module.training for module in loop.model.modules())
            same = parameters == [id(parameter) for parameter in loop.model.parameters()]
            seen.add((moment, loop.epoch_desc, torch.is_grad_enabled(), modes, same))

        # a step under test logs, and a run without it does not
        loop.components.append(Probe(look, *(point for point in MOMENTS if point != "on_log")))
        self._run_all(loop)
        look(loop, "afterwards")
        return seen

    def _random_states(self, loop: TrainTestLoop) -> list[str]:
        random.seed(0)
        torch.manual_seed(0)
        numpy = sys.modules.get("numpy")
        if numpy:
            numpy.random.seed(0)
        self._run_all(loop)
        states = [str(random.getstate()), str(torch.get_rng_state().tolist())]
        return [*states, str(numpy.random.get_state())] if numpy else states


def _outcome(loop: TrainTestLoop) -> str:
    """Return what a run came to, written out so that every bit shows, also of NaN."""
    values = {**loop.model.state_dict(), **loop.metrics}
    exact = {n: v.tolist() if isinstance(v, torch.Tensor) else v for n, v in values.items()}
    return repr((loop.epoch_num, loop.global_step, exact))
