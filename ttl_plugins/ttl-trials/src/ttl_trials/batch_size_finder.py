"""The component `batch-size-finder`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator
from typing import TYPE_CHECKING, Any

from ttl_core import ArgumentError, LoopComponent, RunError, hookimpl
from ttl_core.arguments import whole_number
from ttl_trials.forks import component_names, trial_fork
from ttl_trials.memory import if_memory_suffices, n_bytes, resident_growth
from ttl_trials.sized import RepeatedBatch, batch_size_of, set_batch_size, underlying_loader

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)

_N_STEPS = 3  # the second has gradients and the state of the optimizer in memory, and so the third
_ACCUMULATION = "grad-accumulation"
_LENGTHS = ("limit-batches", "lr-schedule", "lr-warmup")  # which may not fit three steps


class BatchSizeFinder(LoopComponent):
    """A search for the largest batch that fits into memory, before training, on forks of the loop.

    From the size that the loader has it doubles, then bisects, each time training three steps on
    a batch made of the training data; at last it gives the loader the largest size that fits. The
    run is then, to the bit, one that had this size from the start. A run that resumes has the size
    of its state.

    Args:
        memory_limit: how much memory training may take on the CPU besides what the process has
            when it begins: in bytes, or as "2GiB" or "500MB". It is measured in processes of its
            own. Without it, training is on a device, and a size fits if that has memory for it.
        effective_batch_size: how many samples a step is made of. The size is then a divisor of
            it, and `grad-accumulation`, which has to be in the list, makes up the difference.
        largest: the largest size to try; by default that of the data, if it is known.
        without: names of components to leave out of the forks, besides those that end a run.

    Attributes:
        batch_size: the size that was found; None before.

    Raises:
        ArgumentError: an argument has an unusable value; at the start of a run, the training data
            have no batch size, or another component is missing.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import Step, tiny_data, tiny_model
        >>> data = [(x, y) for batch in tiny_data(8) for x, y in zip(*batch)]
        >>> loop = TrainTestLoop(tiny_model(), [BatchSizeFinder(memory_limit="1GiB"), Step()],
        ...                      DataLoader(data, batch_size=2))
        >>> loop.train(n_epochs=1)
        >>> loop.components["batch-size-finder"].batch_size == len(data)
        True
    """

    before = "limit-batches"

    def __init__(
        self,
        *,
        memory_limit: int | str | None = None,
        effective_batch_size: int | None = None,
        largest: int | None = None,
        without: Collection[str] = (),
    ) -> None:
        self.memory_limit = None if memory_limit is None else n_bytes("memory_limit", memory_limit)
        self.effective_batch_size = effective_batch_size
        self.largest = largest
        for name in ("effective_batch_size", "largest"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), at_least=1)
        self.without = component_names("without", without)
        self.batch_size: int | None = None

    @hookimpl(wrapper=True, tryfirst=True)  # before what depends on the number of batches
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Find the size, unless it is known, and set it."""
        loader = underlying_loader(loop.train_data)
        self._check(loop)
        if loop.has_loaded_state:
            self.batch_size = (loop.loaded_state_of(self) or {}).get("batch_size")
        elif self.batch_size is None:
            self.batch_size = self._find(loop, loader)
            _log.info("batch-size-finder: the batch size is %d", self.batch_size)
        if self.batch_size is not None:
            set_batch_size(loader, self.batch_size)
            if self.effective_batch_size is not None:
                accumulation: Any = loop.components[_ACCUMULATION]
                accumulation.every = self.effective_batch_size // self.batch_size
            if loop.n_epochs is not None and loop.n_optim_steps is not None:
                loop.n_optim_steps = loop.n_epochs * len(loop.train_data)  # type: ignore[arg-type]
        return (yield)

    def _check(self, loop: TrainTestLoop) -> None:
        if loop.group.size > 1:
            raise ArgumentError(
                f"batch-size-finder tries sizes in one process, but {loop.group.size} train "
                "together, which wait for each other. Find the size in one, and give it to the "
                "DataLoader"
            )
        is_there = _ACCUMULATION in loop.components.names()
        is_there = is_there and loop.components.is_enabled(_ACCUMULATION)
        if self.effective_batch_size is not None and not is_there:
            raise ArgumentError(
                f"effective_batch_size is {self.effective_batch_size}, but {_ACCUMULATION!r}, "
                f"which keeps it where less fits, is not enabled. Put use({_ACCUMULATION!r}, "
                "every=1) into the list; every is set by batch-size-finder"
            )

    def _find(self, loop: TrainTestLoop, loader: Any) -> int:
        effective = self.effective_batch_size
        bounds = [b for b in (effective, self.largest, _n_samples(loader)) if b is not None]
        if not bounds:
            raise ArgumentError(
                "batch-size-finder does not know the largest size, as the training data are a "
                "stream. Give one: largest=1024"
            )
        largest = min(bounds)
        size = min(batch_size_of(loader), largest)
        found = _largest_that(lambda n: self._fits(loop, n), first=size, largest=largest)
        if not found:
            limit = f"{self.memory_limit} bytes" if self.memory_limit else "the device's memory"
            raise RunError(f"batch-size-finder: not even a batch of one sample fits into {limit}")
        if effective is not None:
            return next(n for n in range(found, 0, -1) if effective % n == 0)
        return found

    def _fits(self, loop: TrainTestLoop, size: int) -> bool:
        """Return whether training takes no more memory than there is with batches of a size."""
        if self.memory_limit is not None:
            growth = resident_growth(lambda: self._prepared(loop, size), _train)
            _log.info("batch-size-finder: %d samples take %s bytes", size, growth)
            return growth is not None and growth <= self.memory_limit
        devices = if_memory_suffices(lambda: _train(self._prepared(loop, size)))
        if devices is not None and devices <= {"cpu"}:
            raise ArgumentError(
                "batch-size-finder needs memory_limit on the CPU, as 'memory_limit=\"8GiB\"': "
                "a system that is short of memory ends processes"
            )
        return devices is not None

    def _prepared(self, loop: TrainTestLoop, size: int) -> TrainTestLoop:
        fork = trial_fork(loop, self, _ACCUMULATION, *_LENGTHS, without=self.without)
        fork.train_data = RepeatedBatch(underlying_loader(fork.train_data), size, _N_STEPS)
        return fork

    def fork(self) -> None:
        """Leave it out of forks of the loop, which have the size of its data."""

    def state_dict(self) -> dict[str, Any]:
        """Return the size, which a run that resumes has too."""
        return {"batch_size": self.batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the size.

        Args:
            state: what `state_dict` returned.
        """
        self.batch_size = state["batch_size"]


def _train(fork: TrainTestLoop) -> set[str]:
    """Train a few steps, and return the types of the devices on which the model then is."""
    fork.train(n_optim_steps=_N_STEPS)
    return {parameter.device.type for parameter in fork.model.parameters()}


def _largest_that(fits: Callable[[int], bool], *, first: int, largest: int) -> int:
    """Return the largest number that fits, by doubling and then bisecting; 0 if none does."""
    fitting, too_large, n = 0, largest + 1, first
    while fitting + 1 < too_large:
        if fits(n):
            fitting = n
        else:
            too_large = n
        is_bisecting = too_large <= largest
        n = (fitting + too_large) // 2 if is_bisecting else min(2 * fitting, largest)
    return fitting


def _n_samples(loader: Any) -> int | None:
    try:
        return len(loader.dataset)
    except (TypeError, NotImplementedError):
        return None
