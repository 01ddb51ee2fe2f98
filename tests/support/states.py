"""States of a loop: taken in a run of plain steps, saved, compared, and resumed from."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import torch
from recording import StateRecorder

from ttl_core import LoopComponent, TrainTestLoop
from ttl_core.testing import ComponentConformance, Step

make_model, make_data = ComponentConformance.make_model, ComponentConformance.make_data


class Holder(LoopComponent):
    """A component with a state of one value.

    Args:
        value: the value.
        name: its name in the list.
    """

    def __init__(self, value: Any = 0, name: str = "holder") -> None:
        self.value = value
        self.name = name

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["best"]


def make_step_loop(
    *components: Any,
    data: Any = None,
    valid_data: Any = None,
    model: torch.nn.Module | None = None,
    step: type[LoopComponent] = Step,
) -> TrainTestLoop:
    """Return a loop of plain steps and other components."""
    return TrainTestLoop(
        model or make_model(), [step(), *components], data or make_data(), valid_data
    )


def take_state(*components: Any, n_epochs: int = 1, index: int = 0, **options: Any) -> Any:
    """Return the state at one of the safe points of a run.

    Args:
        *components: what is in the loop besides plain steps.
        n_epochs: the length of the run.
        index: the number of the safe point.
        **options: further arguments of `make_step_loop`.
    """
    recorder = StateRecorder()
    make_step_loop(*components, recorder, **options).train(n_epochs)
    return recorder.states[index]


def resume(
    state: Any, *components: Any, ignore: Iterable[str] = (), n_epochs: int = 2, **options: Any
) -> TrainTestLoop:
    """Resume from a state in a new loop, and return the loop."""
    loop = make_step_loop(*components, **options)
    loop.load_state_dict(state, ignore=ignore)
    loop.train(n_epochs)
    return loop


def train_to_end(loop: TrainTestLoop, n_epochs: int = 2) -> dict[str, Any]:
    """Train, and return what the run ended with."""
    loop.train(n_epochs)
    state = loop.state_dict(allow_unsafe=True)
    return {name: state[name] for name in ("model", "variables", "components")}


def assert_same_runs(one: TrainTestLoop, other: TrainTestLoop) -> None:
    """Check that the runs of two loops came to the same bits."""
    assert one.metrics == other.metrics
    assert (one.epoch_num, one.global_step) == (other.epoch_num, other.global_step)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def through_file(state: Any) -> Any:
    """Save a value to a file, and return what is loaded from it with weights_only=True."""
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two nested values are equal in types and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if isinstance(one, dict):
        return list(one) == list(other) and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    return repr(one) == repr(other)  # 0.0 is not -0.0, and nan is nan
