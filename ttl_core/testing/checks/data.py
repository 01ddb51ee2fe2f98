"""Checks of data of all forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from ttl_core.loop import TrainTestLoop
from ttl_core.testing.probes import Probe
from ttl_core.testing.tiny import Stream
from ttl_core.testing.under_test import ComponentUnderTest, check_epochs, seeded


class DataChecks(ComponentUnderTest):
    """Checks of data of all forms."""

    def test_trains_without_validation(self) -> None:
        """A run without validation data goes through all its epochs."""
        loop = self._loop()
        loop.valid_data = None
        loop.train(n_epochs=2)
        check_epochs(loop, 2)

    def test_validates_on_several_sets(self) -> None:
        """A run with several named validation sets goes through all its epochs."""
        loop = self._loop()
        loop.valid_data = {"one": self.make_data(1), "two": self.make_data(2)}
        loop.train(n_epochs=2)
        check_epochs(loop, 2)

    def test_takes_streams(self) -> None:
        """Data without a length work in every kind of run."""
        loop = self._loop()
        loop.train_data, loop.valid_data = Stream(self.make_data()), Stream(self.make_data(2))
        self._run_all(loop)
        check_epochs(loop, 2)
        loop.train(n_optim_steps=2)

    def test_takes_batches_of_any_form(self) -> None:
        """Batches may be lists and mappings, not tuples alone."""
        batches = self.make_data()
        if not all(isinstance(batch, tuple) and len(batch) == 2 for batch in batches):
            pytest.skip("make_data() returns batches of a form of its own")
        for form in (list, _as_mapping):
            loop = self._loop()
            loop.train_data = [form(batch) for batch in batches]
            loop.valid_data = loop.train_data[:2]
            loop.train(n_epochs=2)
            check_epochs(loop, 2)

    def test_takes_a_last_batch_that_is_smaller(self) -> None:
        """The last batch of an epoch may have fewer samples than the others."""
        loop = self._loop()
        loop.train_data, loop.valid_data = _uneven(self.make_data()), _uneven(self.make_data(2))
        loop.train(n_epochs=2)
        check_epochs(loop, 2)

    def test_weighs_batches_by_their_samples(self) -> None:
        """What it logs of a test does not depend on how the samples are split into batches."""
        whole = self.make_data(2)
        splits = ([*whole], [*whole], [whole[0], *_halves(whole[1])])
        even, again, uneven = (self._logged_in_test(data) for data in splits)
        for name, value in even.items():
            other = uneven.get(name)
            if value == again.get(name) and other is not None:
                close = torch.isclose(torch.tensor(value), torch.tensor(other), rtol=1e-4)
                if not close:
                    raise AssertionError(
                        f"{name!r} is {value} for batches of equal size, and {other} where the "
                        "last two are halves of one: batches have to count by loop.batch_size"
                    )

    def test_trains_without_a_scheduler(self) -> None:
        """There may be no learning-rate scheduler."""

        def drop(loop: TrainTestLoop, _: str) -> None:
            loop.scheduler = None

        loop = self._loop()
        loop.components.append(Probe(drop, "on_epoch_begin"))
        loop.train(n_epochs=2)
        check_epochs(loop, 2)

    def test_trains_with_frozen_parameters(self) -> None:
        """A model may have parameters without gradients."""
        loop = self._loop()
        next(loop.model.parameters()).requires_grad_(False)
        loop.train(n_epochs=2)
        check_epochs(loop, 2)

    def _logged_in_test(self, data: list[Any]) -> dict[str, float]:
        """Return the numbers that are logged for the epoch of a test()."""
        loop = self._loop()
        control = self._control()
        for one in (loop, control):
            with seeded():
                one.test(data)
        own = {name: v for name, v in loop.metrics.items() if name not in control.metrics}
        return {n: float(v) for n, v in own.items() if isinstance(v, int | float)}


def _as_mapping(batch: Any) -> dict[str, Any]:
    return dict(zip(("inputs", "targets"), batch, strict=True))


def _uneven(batches: list[Any]) -> list[Any]:
    """Return batches of which the last one has half of its samples."""
    return [*batches[:-1], _halves(batches[-1])[0]]


def _halves(batch: Any) -> list[Any]:
    """Return the two halves of the samples of a batch; twice the batch if that is not possible."""
    if isinstance(batch, torch.Tensor) and batch.dim():
        return [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    if isinstance(batch, tuple | list):
        return [type(batch)(parts) for parts in zip(*map(_halves, batch), strict=True)]
    if isinstance(batch, Mapping):
        halves = {key: _halves(part) for key, part in batch.items()}
        return [{key: parts[i] for key, parts in halves.items()} for i in (0, 1)]
    return [batch, batch]
