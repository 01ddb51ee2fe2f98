"""What the kit tests: a component within a list, in loops that are made for it."""

from __future__ import annotations

import contextlib
import functools
import random
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import pytest
import torch

from ttl_core.components.component import Item, LoopComponent
from ttl_core.hooks.hook_methods import hook_methods
from ttl_core.loop import TrainTestLoop
from ttl_core.state.random_numbers import random_state, restore_random
from ttl_core.testing.isolation import isolated
from ttl_core.testing.outcome import (
    Facts,
    LogBook,
    differing,
    outcome,
    random_facts,
    subject,
)
from ttl_core.testing.probes import MOMENTS
from ttl_core.testing.structure import loop_structure, model_structure
from ttl_core.testing.surroundings import changes, left_behind, surroundings
from ttl_core.testing.tiny import tiny_data, tiny_model

_SEED = 77_003  # a number that a component is not likely to seed with

_CHECKS_OF = {
    "threads": "test_leaves_no_threads",
    "files": "test_leaves_no_open_files",
    "process": "test_leaves_the_process_as_it_was",
    "torch": "test_leaves_torch_as_it_was",
    "model": "test_leaves_the_model_as_it_was",
}
"""The check by which each kind of what a run may leave behind is opted out of."""

_TRAINING_POINTS = (
    *("on_train_begin", "on_grads_reset", "on_backward_pass", "on_optim_step"),
    *("on_safe_point", "on_train_end"),
)
_KINDS_WITH: dict[str | None, tuple[str, ...]] = {
    **dict.fromkeys(_TRAINING_POINTS, ("train",)),
    **dict.fromkeys(("on_test_begin", "on_test_end"), ("test",)),
    **dict.fromkeys(("on_predict_begin", "on_predict_end"), ("predict",)),
}
"""The kinds of runs that have a callback point, for points that not all have."""

_ALWAYS = {
    "on_train_begin",
    "on_epoch_begin",
    "on_forward_pass",
    "on_backward_pass",
    "on_epoch_end",
}
"""Moments for components that act outside of their hooks, such as in those of a module."""

Result = TypeVar("Result")


def once(method: Callable[[Any], Result]) -> Callable[[Any], Result]:
    """Let a method of a kit run once for all checks of a class, as several read its result."""

    @functools.wraps(method)
    def result(kit: ComponentUnderTest) -> Result:
        if method.__name__ not in kit._results:
            kit._results[method.__name__] = method(kit)
        found: Result = kit._results[method.__name__]
        return found

    return result


class ComponentUnderTest:
    """The component that the kit tests, and the loops in which it runs.

    Attributes:
        opted_out: checks that this component does not pass, by name, each with the reason, which
            the report shows.
        writes: what the component may write that belongs to others: "weights", "buffers",
            "gradients", "modes", "random numbers", "torch", or a loop variable by its name.
        max_seconds_per_batch: how long its hooks may take for one batch of the tiny model.
    """

    opted_out: ClassVar[Mapping[str, str]] = {}
    writes: ClassVar[Collection[str]] = ()
    max_seconds_per_batch: ClassVar[float] = 0.005
    _results: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._results = {}

    @pytest.fixture(autouse=True)
    def _skip_what_is_opted_out(self, request: pytest.FixtureRequest) -> None:
        for name, reason in self.opted_out.items():
            if not callable(getattr(self, name, None)) or not reason:
                raise AssertionError(
                    f"opted_out has {name!r}: {reason!r}, but has to have names of checks, such "
                    "as 'test_trains', each with a reason"
                )
        name = request.function.__name__
        if name in self.opted_out:
            pytest.skip(f"opted out: {self.opted_out[name]}")

    @pytest.fixture(autouse=True)
    def _restore_what_it_sets(self) -> Iterator[None]:
        """Let no check hide from the next one what a component sets in the process."""
        with isolated():
            yield

    # -- what a subclass gives --------------------------------------------------------------

    def make_components(self) -> list[Item]:
        """Return a new list of components for a loop, the one under test last.

        Returns:
            Components, names of installed ones, or specs.
        """
        raise NotImplementedError("return the components, the one under test last")

    @staticmethod
    def make_model() -> torch.nn.Module:
        """Return a new small model: 4 features in, 2 scores out, no random numbers in forward."""
        return tiny_model()

    @staticmethod
    def make_data(n_batches: int = 3) -> list[Any]:
        """Return batches for the model: inputs of shape (6, 4), targets of shape (6,)."""
        return tiny_data(n_batches)

    # -- loops ------------------------------------------------------------------------------

    def _loop(self) -> TrainTestLoop:
        """Return a new loop with the component."""
        items = self.make_components()
        if not items:
            raise AssertionError("make_components() returned no component to test")
        return self._loop_of(items)

    def _control(self) -> TrainTestLoop:
        """Return a new loop without the component."""
        return self._loop_of(self.make_components()[:-1])

    def _loop_of(self, items: list[Item]) -> TrainTestLoop:
        return TrainTestLoop(self.make_model(), items, self.make_data(), self.make_data(2))

    @staticmethod
    def _logged(loop: TrainTestLoop) -> LogBook:
        """Return a record of what a loop logs from now on."""
        log = LogBook()
        loop.components.insert(0, log)
        return log

    def _runs_of(
        self, loop: TrainTestLoop, moment: str | None = None, *, n_epochs: int = 1
    ) -> list[Callable[[], object]]:
        """Return what calls each kind of run: train, validate, test and predict.

        Args:
            loop: the loop.
            moment: a callback point, to leave out the kinds that do not have it.
            n_epochs: how many epochs to train.
        """
        runs: dict[str, Callable[[], object]] = {
            "train": lambda: loop.train(n_epochs),
            "validate": loop.validate,
            "test": lambda: loop.test(self.make_data(1)),
            # without scores to collect in a control run without a component that sets them
            "predict": lambda: loop.predict(self.make_data(1), collect=False),
        }
        return [runs[kind] for kind in _KINDS_WITH.get(moment, runs)]

    @once
    def _moments(self) -> list[str]:
        """Return the moments at which to end runs, or to toggle the component.

        Between two points that it implements, it cannot tell at which one that happens.
        """
        it = under_test(self._loop())
        points = {options["specname"] for _, options in hook_methods(it, it).values()}
        return [moment for moment in MOMENTS if moment in points | _ALWAYS]

    def _run_all(self, loop: TrainTestLoop) -> None:
        """Train for two epochs, validate, test and predict."""
        for run in self._runs_of(loop, n_epochs=2):
            run()

    def _runs_with(
        self, loop: TrainTestLoop, probe: LoopComponent, moment: str
    ) -> Iterator[Callable[[], object]]:
        """Yield what calls runs of a loop, with a probe behind its components and before them.

        One loop serves all of them, and the probe moves between runs: checks do this for each
        moment, and components may take long to be created and to run.

        Args:
            loop: the loop.
            probe: acts at the moment.
            moment: a callback point.
        """
        first, *others = self._runs_of(loop, moment)
        for number, run in enumerate([first, first, *others]):
            loop.components.insert(0 if number % 2 else len(loop.components), probe)
            yield run
            loop.components.remove(probe)

    def _outcome_of_all(self, make: Callable[[], TrainTestLoop]) -> Facts:
        """Return what all kinds of runs of a loop come to, with where they leave random streams."""
        with seeded():
            loop = make()
            log = self._logged(loop)
            self._run_all(loop)
            return {**outcome(loop, log), **random_facts()}

    @once
    def _control_outcome(self) -> Facts:
        return self._outcome_of_all(self._control)

    @once
    def _outcome(self) -> Facts:
        return self._outcome_of_all(self._loop)

    @once
    def _known_unstable(self) -> set[str]:
        return set()

    def _unstable(self) -> set[str]:
        """Return the subjects of what differs between runs that are the same, such as times.

        Each call runs once more, and adds what differs then.
        """
        found = differing(self._outcome(), self._outcome_of_all(self._loop))
        self._known_unstable().update(map(subject, found))
        return self._known_unstable()

    @once
    def _warm_up(self) -> bool:
        """Run once, as libraries set up something in the process when they are first used.

        Settings are restored, as else it would hide those that the component makes.
        """
        with isolated():
            self._run_all(self._loop())
        return True

    @contextlib.contextmanager
    def _nothing_left_behind(self, loop: TrainTestLoop, after: str) -> Iterator[None]:
        """Check that a with block leaves the process and the loop as they were.

        Args:
            loop: the loop.
            after: what happens in the block, in words.
        """
        before, found = surroundings(), _belongings(loop)
        yield
        left = {**left_behind(before), "model": changes(found, _belongings(loop))}
        lines = [line for kind in left for line in self._counting(kind, left[kind])]
        if lines:
            raise AssertionError("\n  ".join([f"after {after}", *lines]))

    def _counting(self, kind: str, lines: list[str]) -> list[str]:
        """Return what counts of what was left behind: none where the author opted out."""
        return [] if _CHECKS_OF[kind] in self.opted_out else lines


def under_test(loop: TrainTestLoop) -> LoopComponent:
    """Return the component under test of a new loop: its last one."""
    return loop.components[-1]


def check_epochs(loop: TrainTestLoop, expected: int) -> None:
    """Check that a loop has trained for a number of epochs."""
    if loop.epoch_num != expected:
        raise AssertionError(f"the run ended after {loop.epoch_num} epochs, not after {expected}")


def _belongings(loop: TrainTestLoop) -> Facts:
    return model_structure(loop.model) | loop_structure(loop)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Seed all global random streams inside a with block, and restore them."""
    before = random_state()
    random.seed(_SEED)
    torch.manual_seed(_SEED)
    numpy = sys.modules.get("numpy")
    if numpy:
        numpy.random.seed(_SEED)
    try:
        yield
    finally:
        restore_random(before)
