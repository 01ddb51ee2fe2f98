"""What runs come to, to the bit, and in words what two of them differ in."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch

from ttl_core.loop import TrainTestLoop
from ttl_core.testing.observer import Observer

Facts = dict[str, str]
"""What something is like: values as text in which every bit shows, by what has them."""

_MAX_RUNS = 2  # to tell what differs anyway
_MAX_SHOWN = 3  # differences in a message
_MAX_LENGTH = 90  # characters of a value in it
_MAX_DEPTH = 5


def position(loop: TrainTestLoop) -> str:
    """Return in words where a run is."""
    if not (loop.is_training or loop.is_validating or loop.is_testing or loop.is_predicting):
        return "outside of epochs"
    name = f" of {loop.data_name!r}" if loop.data_name else ""
    batch_num = vars(loop).get("batch_num")
    batch = "" if batch_num is None else f", batch {batch_num}"
    return f"in {loop.epoch_desc} epoch {loop.epoch_num}{name}{batch}"


def as_text(value: Any) -> str:
    """Return a value as text in which every bit shows, also of NaN; objects by their class."""
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes():
            return repr(value)
        case torch.Tensor():
            if value.is_meta or value.is_quantized:
                return f"tensor of shape {tuple(value.shape)}"
            dense = value.detach().to_dense() if value.layout is not torch.strided else value
            return repr(dense.detach().tolist())
        case list() | tuple() | set() | frozenset():
            return f"{type(value).__name__}({', '.join(map(as_text, value))})"
        case Mapping():
            return f"{{{', '.join(f'{k!r}: {as_text(v)}' for k, v in value.items())}}}"
        case _ if hasattr(value, "tolist"):
            return repr(value.tolist())
        case _:
            return f"<{type(value).__qualname__}>"


def plain_facts(value: Any, path: str) -> Facts:
    """Return the plain values in nested lists and mappings, by their path."""
    if isinstance(value, Mapping):
        parts: Any = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return {path: as_text(value)}
    found = {f"the length of {path}": str(len(value))}
    for key, part in parts:
        found |= plain_facts(part, f"{path}[{key!r}]")
    return found


def weight_facts(model: torch.nn.Module) -> Facts:
    """Return the parameters and buffers of a model."""
    return {f"the weight {name}": as_text(value) for name, value in model.state_dict().items()}


def parameter_facts(model: torch.nn.Module) -> Facts:
    """Return the parameters of a model, which only steps change."""
    return {f"the parameter {name}": as_text(value) for name, value in model.named_parameters()}


def random_facts() -> Facts:
    """Return where the global random streams are, as a number for each that tells two apart."""
    streams: dict[str, Any] = {
        "Python": random.getstate(),
        "torch": tuple(torch.get_rng_state().tolist()),
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        _, keys, *rest = numpy.random.get_state()
        streams["NumPy"] = (keys.tobytes(), *rest)
    return {f"the global random stream of {k}": f"{hash(v):x}" for k, v in streams.items()}


class LogBook(Observer):
    """A record of what is logged; in a run that resumes, from there on.

    Attributes:
        entries: in order, where, at which level and under which name, and the value as text.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Record the values."""
        for name, value in metrics.items():
            self.entries.append((f"{name!r} as logged {position(loop)}", as_text(value)))

    def state_dict(self) -> dict[str, Any]:
        """Return how much was logged."""
        return {"n_entries": len(self.entries)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin anew: what was logged until here, the other run has logged too."""
        self.entries.clear()

    def facts(self, entries: Collection[tuple[str, str]] | None = None) -> Facts:
        """Return what was logged, numbered where one thing was logged several times there."""
        found: Facts = {}
        for where, value in self.entries if entries is None else entries:
            count = 1
            while (key := where if count == 1 else f"{where}, time {count},") in found:
                count += 1
            found[key] = value
        return found


def outcome(loop: TrainTestLoop, log: LogBook | None = None) -> Facts:
    """Return what a run came to: weights, counters, metrics, and what was logged."""
    metrics = {f"loop.metrics[{name!r}]": as_text(v) for name, v in loop.metrics.items()}
    counters = {f"loop.{name}": str(getattr(loop, name)) for name in ("epoch_num", "global_step")}
    return {**counters, **(log.facts() if log else {}), **metrics, **weight_facts(loop.model)}


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the names of what differs, in order."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def subject(name: str) -> str:
    """Return what a fact is about: for a value that was logged, its name."""
    return name.partition(" as logged ")[0].removeprefix("loop.metrics[").removesuffix("]")


def check_same(
    one: Mapping[str, str],
    other: Mapping[str, str],
    *,
    what: str,
    first: str,
    second: str,
    unstable: Callable[[], Collection[str]] = tuple,
) -> None:
    """Check that two runs came to the same.

    Args:
        one: what one came to.
        other: what the other came to.
        what: what the difference means.
        first: which run `one` is of, as "with it".
        second: which run `other` is of.
        unstable: returns the subjects of what differs from run to run anyway, by running once
            more; more may do so in further runs.

    Raises:
        AssertionError: they did not.
    """
    names = differing(one, other)
    for _ in range(_MAX_RUNS):
        if names:
            known = unstable()
            names = [name for name in names if subject(name) not in known]
    if names:
        lines = list(describe_differences(one, other, names, first, second))
        more = f"\n  and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
        raise AssertionError("\n  ".join([f"{what}:", *lines]) + more)


def describe_differences(
    one: Mapping[str, str], other: Mapping[str, str], names: list[str], first: str, second: str
) -> Iterator[str]:
    """Yield in words the first of some differences."""
    for name in names[:_MAX_SHOWN]:
        a, b = shortened(one.get(name), other.get(name))
        yield f"{name} is {a} {first}, and {b} {second}"


def shortened(one: str | None, other: str | None) -> tuple[str, str]:
    """Return two values from shortly before their first difference on."""
    if one is None or other is None:
        return tuple("missing" if v is None else v[:_MAX_LENGTH] for v in (one, other))  # type: ignore[return-value]
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    start = max(0, same - 20) if max(len(one), len(other)) > _MAX_LENGTH else 0
    dots = "..." if start else ""
    return tuple(dots + value[start : start + _MAX_LENGTH] for value in (one, other))  # type: ignore[return-value]
