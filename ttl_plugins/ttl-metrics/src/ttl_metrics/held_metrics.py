"""What metrics hold besides their own state: other metrics, and plain attributes.

A wrapper holds the metrics that it wraps, as modules or in lists and dicts. Some metrics change
plain attributes too, such as the lowest value so far of a MinMaxMetric, over several epochs.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torchmetrics import Metric, MetricCollection

from ttl_core import StateError
from ttl_metrics.epoch_values import check_metrics


class HeldMetric(NamedTuple):
    """A metric in a collection, or inside another metric.

    Attributes:
        metric: the metric.
        is_module: whether the collection's state_dict() reaches it.
    """

    metric: Metric
    is_module: bool


class _Initial(NamedTuple):
    """A plain attribute as it was in the beginning; its value only where a state can hold it."""

    fingerprint: object
    value: Any

    @classmethod
    def of(cls, value: Any) -> _Initial:
        return cls(_fingerprint(value), copy.deepcopy(value) if _is_accepted(value) else cls)


class HeldMetrics:
    """All metrics in a collection, however deep, with what its state_dict() leaves out.

    Args:
        collection: the collection. All states of the metrics are made persistent.
    """

    def __init__(self, collection: MetricCollection) -> None:
        self._collection = collection
        self._initial = {
            path: {name: _Initial.of(value) for name, value in _plain_attributes(held.metric)}
            for path, held in self._held().items()
        }
        for held in self._held().values():
            held.metric.persistent(True)
        self._to_move: list[tuple[Metric, str]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return counts, and those states that the collection's own state leaves out.

        Raises:
            StateError: a metric has created other metrics.
        """
        held_metrics = self._held()
        if created := held_metrics.keys() - self._initial.keys():
            raise StateError(
                f"the metric {min(created)!r} was created while metrics were updated, so a new "
                "run would not have it to load its state into. Create it in __init__"
            )
        return {
            path: {
                "count": held.metric.update_count,
                "states": {} if held.is_module else Metric.state_dict(held.metric),
            }
            for path, held in held_metrics.items()
        }

    def attributes(self) -> dict[str, dict[str, Any]]:
        """Return the plain attributes that have changed since the beginning, by metric and name.

        With each value comes whether it is on another device than the CPU.

        Raises:
            StateError: one is of a type that a state cannot hold.
        """
        changed: dict[str, dict[str, Any]] = {}
        for path, held in self._held().items():
            for name, value in self._changed(path, held.metric):
                if _is_data(value, _join(path, name)):
                    on_device = any(tensor.device.type != "cpu" for tensor in _tensors(value))
                    changed.setdefault(path, {})[name] = (copy.deepcopy(value), on_device)
        return changed

    def _changed(self, path: str, metric: Metric) -> Iterator[tuple[str, Any]]:
        """Yield the plain attributes of a metric that are not as they were in the beginning."""
        initial = self._initial.get(path, {})
        for name, value in _plain_attributes(metric):
            if name not in initial or initial[name].fingerprint != _fingerprint(value):
                yield name, value

    def load(self, state: Mapping[str, Any], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """Load what `state_dict` and `attributes` returned; of earlier versions they are empty.

        Raises:
            StateError: the state is of other metrics.
        """
        held_metrics = self._held()
        check_metrics(state, held_metrics)
        for path, its_state in state.items():
            metric = held_metrics[path].metric
            metric._computed = None
            if its_state["states"]:
                metric.load_state_dict(its_state["states"])
            metric._update_count = its_state["count"]  # compute() warns without it
        self._to_move = []
        for path, held in held_metrics.items():
            for name, _ in list(self._changed(path, held.metric)):
                initial = self._initial.get(path, {}).get(name)
                if initial is not None and _is_accepted(initial.value):
                    setattr(held.metric, name, copy.deepcopy(initial.value))
            for name, (value, on_device) in attributes.get(path, {}).items():
                setattr(held.metric, name, copy.deepcopy(value))
                if on_device:  # it is where it was saved, or on the CPU
                    self._to_move.append((held.metric, name))

    def move(self, device: torch.device) -> None:
        """Move metrics and loaded attributes to a device."""
        self._collection.to(device)
        for held in self._held().values():
            if not held.is_module:
                held.metric.to(device)
        for metric, name in self._to_move:
            setattr(metric, name, _moved(getattr(metric, name), device))
        self._to_move = []

    def _held(self) -> dict[str, HeldMetric]:
        return dict(_walk(self._collection, "", is_module=True, seen=set()))


def _walk(
    value: Any, path: str, *, is_module: bool, seen: set[int]
) -> Iterator[tuple[str, HeldMetric]]:
    """Yield the metrics in a value with their paths, each once."""
    if isinstance(value, torch.nn.Module):
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, Metric):
            yield path, HeldMetric(value, is_module)
        for name, child in value.named_children():
            yield from _walk(child, _join(path, name), is_module=is_module, seen=seen)
        if isinstance(value, Metric):
            for name, attribute in _own_attributes(value):
                yield from _walk(attribute, _join(path, name), is_module=False, seen=seen)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, _join(path, str(key)), is_module=False, seen=seen)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _walk(item, _join(path, str(i)), is_module=False, seen=seen)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class _Bare(Metric):
    """A metric without anything of its own."""

    def update(self) -> None:
        """Do nothing."""

    def compute(self) -> None:
        """Return nothing."""


_OF_EVERY_METRIC = frozenset(vars(_Bare()))


def _own_attributes(metric: Metric) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a metric that are neither its states nor those of every metric."""
    for name, value in list(vars(metric).items()):
        if name not in _OF_EVERY_METRIC and name not in metric._defaults:
            yield name, value


def _plain_attributes(metric: Metric) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a metric that hold no modules."""
    for name, value in _own_attributes(metric):
        if not any(isinstance(leaf, torch.nn.Module) for leaf in _leaves(value)):
            yield name, value


def _leaves(value: Any) -> Iterator[Any]:
    """Yield what is in nested mappings, lists and tuples."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in _leaves(value) if isinstance(leaf, torch.Tensor))


def _moved(value: Any, device: torch.device) -> Any:
    """Return a nested value with its tensors on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, device) for item in value)
    return value


def _fingerprint(value: Any) -> object:
    """Return something that changes with a value; its identity, where it cannot be pickled."""
    try:
        return hashlib.blake2b(pickle.dumps(value)).digest()
    except Exception:
        return id(value)


_PLAIN = (type(None), bool, int, float, complex, str, torch.Tensor)


def _is_data(value: Any, path: str) -> bool:
    """Return whether a changed attribute is data, which a state can hold.

    Other objects, such as tokenizers, are not part of what an epoch has gathered.

    Raises:
        StateError: it is data of a type that a state cannot hold.
    """
    if _is_accepted(value):
        return True
    if type(value).__module__.partition(".")[0] not in ("builtins", "collections", "numpy"):
        return False
    raise StateError(
        f"the metric attribute {path!r} has changed since the metric was created, and is a "
        f"{type(value).__name__}, which a state cannot hold. Keep it in a tensor, a number, or a "
        "list or dict of them; a tensor best by add_state()"
    )


def _is_accepted(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_accepted, value))
    if type(value) is dict:
        return all(type(key) in _PLAIN and _is_accepted(item) for key, item in value.items())
    return type(value) in _PLAIN
