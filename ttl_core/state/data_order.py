"""The position of a run in its data: how it is recorded, and how it is restored."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from ttl_core.errors import StateError
from ttl_core.state.protocol import DataWrapper, consumed_state, has_state, unwrapped
from ttl_core.state.rank_batches import RankBatches

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop

Order = dict[str, Any]
"""What the order of an epoch's batches follows from."""


def order_of(data: Any) -> Order | None:
    """Return what the order of the next epoch follows from, or None if it cannot be repeated.

    Args:
        data: the data that are about to be iterated over.
    """
    data = unwrapped(data)
    if has_state(data) or isinstance(data, Sequence | torch.Tensor):
        return {}  # the former have a state of their own, taken at the safe point
    if isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
        sampler = _sampler(data)
        if _is_seeded(sampler):
            return {"seed": sampler.seed, "epoch": sampler.epoch}
        if type(sampler) is SequentialSampler:
            return {}
    return None


def not_resumable_error(data: Any) -> StateError:
    """Return the error that says why no run can resume inside an epoch of these data."""
    data = unwrapped(data)  # what the script gave; wrappers are those of components
    what = f"a {type(data).__name__}"
    change = (
        "Give a list of batches, a DataLoader, or something of your own with state_dict() and "
        "load_state_dict()"
    )
    if isinstance(data, DataLoader) and isinstance(data.dataset, IterableDataset):
        what += f" over a stream, {type(data.dataset).__name__}"
        change = "Write torchdata's StatefulDataLoader(...) in place of DataLoader(...)"
    elif isinstance(data, DataLoader):
        what += f" whose order a {type(_sampler(data)).__name__} decides"
        change = (
            "Write DataLoader(dataset, ..., sampler=ttl_core.SeededSampler(dataset)) in "
            "place of shuffle=True, or torchdata's StatefulDataLoader"
        )
    return StateError(
        f"no run could resume in the middle of an epoch of its data, {what}: the order of "
        f"its batches cannot be repeated. {change}"
    )


# -- inside an epoch ------------------------------------------------------------------------


def state_in_epoch(data: Any, order: Order, n_batches: int) -> dict[str, Any]:
    """Return the position in an epoch by the batches consumed, without those fetched ahead.

    Args:
        data: the data of the epoch.
        order: what `order_of` returned before it began.
        n_batches: how many batches were consumed.
    """
    state = {"n_batches": n_batches, "order": order}
    return {**state, "loader": consumed_state(data)} if has_state(unwrapped(data)) else state


def iterate_from(data: Any, state: Mapping[str, Any]) -> Iterator[Any]:
    """Return an iterator over the rest of an epoch.

    Args:
        data: the data of the epoch.
        state: what `state_in_epoch` returned.

    Raises:
        StateError: these data are of another type than those of the state.
    """
    if isinstance(data, DataWrapper) and not has_state(data):
        rest = _Rest(data.wrapped_data, state)
        return data.iterate_rest(rest, state["n_batches"])
    n_batches, order = state["n_batches"], order_of(data)
    if order is None:
        raise not_resumable_error(data)
    if has_state(data) != ("loader" in state) or order.keys() != state["order"].keys():
        raise StateError(
            "the state was taken inside an epoch of data of another kind than these, a "
            f"{type(data).__name__}: its order is {state['order'] or 'not one by (seed, epoch)'}, "
            f"theirs {order or 'is not'}. Give the data that the state was taken of"
        )
    if has_state(data):
        data.load_state_dict(state["loader"])
        batches: Iterator[Any] = iter(data)
        return batches
    if not isinstance(data, DataLoader):
        return (data[i] for i in range(n_batches, len(data)))
    _set_order(data, state["order"])
    return _iterate_skipping(data, n_batches)


class _Rest:
    """What is left of wrapped data, from when it is iterated over."""

    def __init__(self, data: Any, state: Mapping[str, Any]) -> None:
        self.data = data
        self.state = state

    def __iter__(self) -> Iterator[Any]:
        return iterate_from(self.data, self.state)


class _SkippingOnce:
    """A sampler whose first iteration begins later, so that nothing skipped is loaded."""

    def __init__(self, sampler: Any, n: int) -> None:
        self.sampler = sampler
        # Begun here, not when it is first advanced: the sampler may be that of the validation data
        # too, whose next epoch is set before that.
        rest = itertools.islice(sampler, n, None)
        first = list(itertools.islice(rest, 1))
        self.rest: Iterator[Any] | None = itertools.chain(first, rest)

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that the rest is taken when it is first advanced: a DataLoader with
        # workers makes two iterators and uses one.
        rest, self.rest = self.rest, None
        yield from self.sampler if rest is None else rest

    def __len__(self) -> int:
        return len(self.sampler)


def _iterate_skipping(loader: DataLoader[Any], n_batches: int) -> Iterator[Any]:
    # A DataLoader has no way to begin later, and does not let its sampler be replaced; but its
    # iterator uses the one that is there when it is made.
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    own = vars(loader)[name]
    vars(loader)["_iterator"] = None  # persistent workers, in a rewound run, keep their sampler
    vars(loader)[name] = _SkippingOnce(own, n_batches)
    try:
        return iter(loader)
    finally:
        vars(loader)[name] = own


# -- between epochs -------------------------------------------------------------------------


def data_by_name(loop: TrainTestLoop) -> dict[str, Any]:
    """Return the training and the validation data of a loop, by their names in states."""
    return {"train": loop.train_data, "valid": loop.valid_data}


def states_between_epochs(loop: TrainTestLoop) -> dict[str, Any]:
    """Return what the next epochs of a loop's data depend on, besides global random numbers."""
    return {name: state_between_epochs(data) for name, data in data_by_name(loop).items()}


def state_between_epochs(data: Any) -> dict[str, Any]:
    """Return what the next epoch of data depends on, besides global random numbers.

    Args:
        data: the data, or a mapping of several by name.
    """
    data = unwrapped(data)
    if isinstance(data, DataLoader):
        return {
            "order": order_of(data) or {},
            "generators": [generator.get_state() for generator in own_generators(data)],
            # then its next epoch starts no workers, which would draw a random number
            "has_workers": data.persistent_workers and vars(data).get("_iterator") is not None,
        }
    if has_state(data):
        return {"loader": data.state_dict()}
    if isinstance(data, Mapping):
        return {"sets": {name: state_between_epochs(one) for name, one in data.items()}}
    return {}


def prepare_epochs(data: Any, state: Mapping[str, Any], under_way: Any = None) -> None:
    """Set the position of data so that their next epoch is the one that was due.

    Args:
        data: the data, or a mapping of several by name.
        state: what `state_between_epochs` returned.
        under_way: the data that are being iterated over, of which only the order is set.
    """
    data = unwrapped(data)
    if isinstance(data, DataLoader):
        has_workers = vars(data).get("_iterator") is not None  # in use already, if they are shared
        if state.get("has_workers") and data.persistent_workers and not has_workers:
            iter(data)
        elif (
            has_workers and not state.get("has_workers", True) and data is not unwrapped(under_way)
        ):
            vars(data)["_iterator"] = None  # in a rewound run: starting them draws a number again
        _set_order(data, state.get("order", {}))
    elif has_state(data):
        if "loader" in state and data is not unwrapped(under_way):
            data.load_state_dict(state["loader"])
    elif isinstance(data, Mapping):
        for name, one in data.items():
            prepare_epochs(one, state.get("sets", {}).get(name, {}), under_way)


def restore_generators(data: Any, state: Mapping[str, Any]) -> None:
    """Set the generators of data. Everything that draws from them has to exist already.

    Args:
        data: the data, or a mapping of several by name.
        state: what `state_between_epochs` returned.
    """
    data = unwrapped(data)
    if isinstance(data, DataLoader):
        for generator, its_state in zip(
            own_generators(data), state.get("generators", ()), strict=False
        ):
            generator.set_state(its_state)
    elif isinstance(data, Mapping) and not has_state(data):
        for name, one in data.items():
            restore_generators(one, state.get("sets", {}).get(name, {}))


# -- samplers -------------------------------------------------------------------------------


def _sampler(loader: DataLoader[Any]) -> Any:
    """Return the sampler that determines the order of a loader's samples."""
    batch_sampler = loader.batch_sampler
    if isinstance(batch_sampler, RankBatches):
        batch_sampler = batch_sampler.batches
    if type(batch_sampler) is BatchSampler:
        return batch_sampler.sampler
    return loader.sampler if batch_sampler is None else batch_sampler


def is_seeded(loader: DataLoader[Any]) -> bool:
    """Return whether the order of a loader is a function of (seed, epoch)."""
    return _is_seeded(_sampler(loader))


def _is_seeded(sampler: Any) -> bool:
    """Return whether an order is a function of (seed, epoch), as torch's DistributedSampler's."""
    return all(hasattr(sampler, name) for name in ("seed", "epoch", "set_epoch"))


def _set_order(loader: DataLoader[Any], order: Mapping[str, Any]) -> None:
    sampler = _sampler(loader)
    if order and _is_seeded(sampler):
        if sampler.seed != order["seed"]:
            raise StateError(
                f"the order of the data has seed {sampler.seed}, but the state was taken with seed "
                f"{order['seed']}. Give the sampler that one"
            )
        sampler.set_epoch(order["epoch"])


def own_generators(loader: DataLoader[Any]) -> list[torch.Generator]:
    """Return the generators that the order of a loader is drawn from."""
    owners = [loader, loader.sampler, loader.batch_sampler]
    owners.append(getattr(loader.batch_sampler, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
