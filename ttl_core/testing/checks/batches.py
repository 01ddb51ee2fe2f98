"""Checks of what a component does in each batch: what it writes, reads, keeps and costs."""

from __future__ import annotations

from ttl_core.loop import TrainTestLoop
from ttl_core.testing.cost import Stopwatch, Waits
from ttl_core.testing.observer import Observer
from ttl_core.testing.outcome import as_text, check_same, random_facts
from ttl_core.testing.surroundings import changes
from ttl_core.testing.under_test import ComponentUnderTest, once, seeded, under_test
from ttl_core.testing.watcher import Watcher

_MAX_SHOWN = 3
_OF_OTHERS = ("loss", "scores", "loss_func", "optimizer", "scheduler")
"""The loop variables that components share; those that the control run sets are of others."""

_SPECIAL = ("batch", "logged", "random numbers", "modes", "torch", "result")
_BATCH = (
    "it writes to the batch, which others read too. Where another batch is its job, set "
    "loop.batch to a new one, and declare writes = {'batch'}"
)


class _Names(Observer):
    """A component that collects the names of the loop variables that are set in batches."""

    def __init__(self) -> None:
        self.set: set[str] = set()

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Collect them."""
        self.set |= vars(loop).keys()


class BatchChecks(ComponentUnderTest):
    """Checks of what a component does in each batch."""

    @once
    def _watched(self) -> Watcher:
        """Watch every hook of the component in runs of all kinds."""
        control, names = self._control(), _Names()
        control.components.append(names)
        self._run_all(control)
        loop = self._loop()
        of_others = [name for name in _OF_OTHERS if name in names.set]
        watcher = Watcher(loop, under_test(loop), of_others, self.writes)
        loop.components.insert(0, watcher)
        loop.components.insert(0, watcher.growth)
        with seeded():
            self._run_all(loop)
        return watcher

    def _check_written(self, *kinds: str, rule: str) -> None:
        lines = [write.text for write in self._watched().writes if write.kind in kinds]
        if lines:
            more = [f"and {len(lines) - _MAX_SHOWN} more"] if len(lines) > _MAX_SHOWN else []
            raise AssertionError("\n  ".join([f"{rule}:", *lines[:_MAX_SHOWN], *more]))

    def test_writes_only_what_is_its_own(self) -> None:
        """It changes weights, gradients and variables of others only at points that are for it."""
        kinds = {write.kind for write in self._watched().writes} - {*_SPECIAL}
        self._check_written(
            *kinds,
            rule="it writes what belongs to others. Where that is its job, declare it in `writes`",
        )

    def test_leaves_the_batch_alone(self) -> None:
        """It does not write to the batch, or to the data."""
        self._check_written("batch", rule=_BATCH)
        loop = self._loop()
        before = {f"the data of batch {i}": as_text(b) for i, b in enumerate(loop.train_data or ())}
        loop.train(n_epochs=1)
        after = {f"the data of batch {i}": as_text(b) for i, b in enumerate(loop.train_data or ())}
        lines = changes(before, after)
        if lines:
            rule = "it writes to the data. Set loop.batch to a new batch, and leave the old one"
            raise AssertionError("\n  ".join([f"{rule}:", *lines[:_MAX_SHOWN]]))

    def test_leaves_logged_tensors_alone(self) -> None:
        """It does not write to a tensor that was logged, which consumers read later."""
        self._check_written("logged", rule="it writes to what was logged")

    def test_leaves_modes_alone(self) -> None:
        """Modes of modules, `requires_grad` and settings of torch are the same for others."""
        self._check_written(
            *("modes", "torch"),
            rule="it changes a mode for others. Restore it before the hook ends, after the yield",
        )

    def test_leaves_random_streams_alone(self) -> None:
        """It neither draws from the global random streams nor seeds them."""
        self._check_written(
            "random numbers",
            rule="it uses global random numbers. Draw from a generator of its own",
        )
        if "random numbers" in self.writes:
            return
        with seeded():
            before = random_facts()
            self._loop()
            lines = changes(before, random_facts())
        if lines:
            raise AssertionError(f"creating it uses global random numbers: {lines[0]}")

        with_it, without = (
            {name: facts[name] for name in random_facts()}
            for facts in (self._outcome(), self._control_outcome())
        )
        check_same(
            with_it,
            without,
            what="it moves the global random numbers. Draw from a generator of its own",
            first="with it",
            second="without it",
        )

    def test_keeps_no_graphs(self) -> None:
        """It keeps no tensor whose graph holds all that led to it."""
        watcher = self._watched()
        if watcher.n_graphs:
            raise AssertionError(
                f"at the end of an epoch the graphs of {watcher.n_graphs} earlier batches are "
                f"still in memory{watcher.holder}. Keep tensors by detach()"
            )

    def test_does_not_grow(self) -> None:
        """It does not keep more values with each batch, without end."""
        for name, numbers in self._watched().growth.growing():
            raise AssertionError(
                f"its attribute {name!r} keeps more values after each training batch, in all "
                f"epochs: {', '.join(map(str, numbers))}. Clear it once an epoch, or keep a sum, "
                "or a deque(maxlen=...)"
            )

    def test_passes_results_on(self) -> None:
        """Its wrappers return what the hooks that they surround have returned."""
        self._check_written(
            "result", rule="a wrapper drops the results of others. Write return (yield)"
        )

    def test_does_not_wait_for_the_device(self) -> None:
        """It does not read values of tensors in each batch, which on a GPU waits for all before."""
        loop, control = self._loop(), self._control()
        found = []
        for one in (loop, control):
            waits = Waits()
            one.train_data = self.make_data(4)
            one.components.insert(0, waits)
            waits.train(one, n_epochs=2)
            found.append(waits)
        own = {line: n for line, n in found[0].found.items() if line not in found[1].found}
        batches = set().union(*own.values())
        if len(batches) > found[0].n_batches / 2:
            raise AssertionError(
                f"it waits for the device in {len(batches)} of {found[0].n_batches} training "
                f"batches: {next(iter(own))}. Keep tensors, and read them once an epoch"
            )

    def test_costs_at_most_what_it_states(self) -> None:
        """Its hooks take at most `max_seconds_per_batch` for a batch of the tiny model."""
        took = float("inf")
        for _ in range(3):  # the machine may be busy
            loop = self._loop()
            loop.train_data = self.make_data(8)
            stopwatch = Stopwatch(loop, under_test(loop))
            loop.components.insert(0, stopwatch)
            loop.train(n_epochs=1)
            took = min(took, stopwatch.median)
            if took <= self.max_seconds_per_batch:
                return
        raise AssertionError(
            f"its hooks take {took * 1e3:.3g} ms for a batch, and max_seconds_per_batch allows "
            f"{self.max_seconds_per_batch * 1e3:.3g} ms"
        )
