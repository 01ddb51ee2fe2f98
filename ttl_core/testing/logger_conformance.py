"""The conformance suite of loggers: what every logger has to do, as tests to inherit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from ttl_core.log_record import LogRecord
from ttl_core.logger import Logger
from ttl_core.loop import TrainTestLoop
from ttl_core.testing.conformance import ComponentConformance
from ttl_core.testing.probes import Probe
from ttl_core.testing.under_test import seeded, under_test

_MAX_SHOWN = 3
_ODD = {
    "nan": math.nan,
    "infinite": -math.inf,
    "large": 2**70,
    "text": "a, b\n",
    "nothing": None,
    "flag": True,
    "matrix": torch.ones(2, 2),
    "tensor": torch.tensor(0.5),
}

Triple = tuple[int, str, float]


class LoggerConformance(ComponentConformance):
    """The conformance suite of components that derive from `Logger`.

    Besides `make_components`, a subclass has to say what the store of a logger holds.

    Example:
        >>> from ttl_core.testing import Step
        >>> class InMemory(Logger):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.rows = []
        ...     def write(self, records):
        ...         self.rows += [(r.step, *item) for r in records for item in r.values.items()]
        ...     def position(self):
        ...         return len(self.rows)
        ...     def seek(self, position):
        ...         del self.rows[position:]
        >>> class TestInMemory(LoggerConformance):
        ...     def make_components(self):
        ...         return [Step(), InMemory()]
        ...     def read_values(self, logger):
        ...         return logger.rows
    """

    def read_values(self, logger: Any) -> Iterable[Triple]:
        """Return what a store holds after a run, in any order.

        Args:
            logger: the logger that has written it.

        Returns:
            For each value the step, its full name, and the value.
        """
        raise NotImplementedError("return what the store of the logger holds")

    def test_records_every_value_once(self) -> None:
        """The store holds each value that was logged, at its step, and no other."""
        loop, memory = self._beside_memory()
        self._run_all(loop)
        self._check_store(loop, memory, "after runs of all kinds")

    def test_goes_back_with_the_run(self) -> None:
        """What was written after a state was taken is gone where a run continues from the state."""
        states: list[dict[str, Any]] = []

        def rewind(loop: TrainTestLoop, _: str) -> None:
            if self._is_resumable(loop):
                states.append(loop.state_dict())
                if len(states) == 4:
                    loop.rewind(states[0])

        loop, memory = self._beside_memory()
        loop.components.append(Probe(rewind, "on_safe_point"))
        loop.train(n_epochs=2)
        self._check_store(loop, memory, "after a run that went back to its first safe point")
        if not states:
            return
        logger = loop.components[-2]
        loop.components.remove(logger)
        again, memory = self._beside_memory(self.make_components()[:-1])
        again.components.append(logger)
        with seeded():
            again.load_state_dict(states[0])
            again.train(n_epochs=2)
        self._check_store(again, memory, "after another run that resumed from its first safe point")

    def test_writes_again_what_a_failure_has_cut_off(self) -> None:
        """Where write() fails behind some records, it gets them once more, and writes them once."""
        loop, memory = self._beside_memory()
        it: Any = under_test(loop)
        it.write = _failing_once(it.write)
        for _ in range(2):  # what the store has not taken at the end is written in the next run
            loop.train(n_epochs=1)
        del it.write
        loop.train(n_epochs=1)
        self._check_store(loop, memory, "where write() has failed once, behind its last record")

    def test_takes_values_of_any_kind(self) -> None:
        """NaN, infinity, texts, None and tensors cost no value that is a finite number."""

        def log(loop: TrainTestLoop, moment: str) -> None:
            loop.log(_ODD, level="batch" if moment == "on_batch_end" else "epoch")

        loop, memory = self._beside_memory()
        loop.components.insert(0, Probe(log, "on_batch_end", "on_epoch_end"))
        loop.train(n_epochs=2)
        self._check_store(loop, memory, "where values of many kinds are logged", only_finite=True)

    # -- how they do it ---------------------------------------------------------------------

    def _beside_memory(self, items: list[Any] | None = None) -> tuple[TrainTestLoop, _Memory]:
        """Return a loop, and in front of it a logger that keeps what the other one is to write."""
        loop = self._loop()
        it = under_test(loop)
        if not isinstance(it, Logger):
            raise AssertionError(f"{it!r} does not derive from Logger: use ComponentConformance")
        loop = loop if items is None else self._loop_of(items)
        memory = _Memory(level=it.level, every=it.every)
        loop.components.insert(0, memory)
        return loop, memory

    def _check_store(
        self, loop: TrainTestLoop, memory: _Memory, when: str, *, only_finite: bool = False
    ) -> None:
        logger = next(c for c in reversed(loop.components) if isinstance(c, Logger))
        found, expected = (
            Counter((step, name, _text(v)) for step, name, v in values if _counts(v, only_finite))
            for values in (self.read_values(logger), memory.rows)
        )
        lines = [f"it lacks {_shown(t, n)}" for t, n in (expected - found).items()]
        lines += [f"it has too many of {_shown(t, n)}" for t, n in (found - expected).items()]
        if lines:
            more = [f"and {len(lines) - _MAX_SHOWN} more"] if len(lines) > _MAX_SHOWN else []
            raise AssertionError(
                "\n  ".join([f"{when}, the store is wrong:", *lines[:_MAX_SHOWN], *more])
            )


class _Memory(Logger):
    """A logger that keeps values in memory, and as its position."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rows: list[Triple] = []

    def write(self, records: Sequence[LogRecord]) -> None:
        """Keep the values."""
        self.rows += [(r.step, name, value) for r in records for name, value in r.values.items()]

    def position(self) -> list[Triple]:
        """Return all that it has."""
        return [*self.rows]

    def seek(self, position: list[Triple]) -> None:
        """Go back to what it had."""
        self.rows = [*position]


class _Unreadable(LogRecord):
    """A record that cannot be read, as if the store failed at that moment."""

    def __init__(self, like: LogRecord) -> None:
        self.level, self.step, self.epoch, self.time = like.level, like.step, like.epoch, like.time

    def __getattribute__(self, name: str) -> Any:
        if name in ("values", "others"):
            raise OSError("planned by LoggerConformance, to see what happens")
        return super().__getattribute__(name)


def _failing_once(write: Callable[[Sequence[LogRecord]], None]) -> Callable[..., None]:
    """Return what calls a function; the first time with one record more, which is unreadable."""
    calls: list[int] = []

    def failing(records: Sequence[LogRecord]) -> None:
        calls.append(len(records))
        write(records if len(calls) > 1 else [*records, _Unreadable(records[-1])])

    return failing


def _counts(value: Any, only_finite: bool) -> bool:
    """Return whether a value has to be there: a store may have something else for NaN."""
    return not only_finite or (isinstance(value, int | float) and math.isfinite(value))


def _text(value: float) -> str:
    """Return a number with the precision that all stores have."""
    return repr(torch.tensor(float(value), dtype=torch.float32).item())


def _shown(triple: tuple[int, str, str], number: int) -> str:
    step, name, value = triple
    times = f", {number} times" if number > 1 else ""
    return f"{name!r} = {value} at step {step}{times}"
