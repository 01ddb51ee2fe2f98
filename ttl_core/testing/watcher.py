"""A component that compares what is there before and after each hook of another one."""

from __future__ import annotations

import functools
import gc
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import torch

from ttl_core.components.component import LoopComponent
from ttl_core.hookspecs import hookimpl
from ttl_core.loop import TrainTestLoop
from ttl_core.testing.growth import Growth
from ttl_core.testing.observer import Observer
from ttl_core.testing.outcome import as_text, plain_facts, position, random_facts, shortened
from ttl_core.testing.probes import WrapperParts, is_named
from ttl_core.testing.structure import modes, setting_text
from ttl_core.testing.torch_settings import torch_settings

_POINTS_OF = {
    "weights": {"on_optim_step"},
    "buffers": {"on_forward_pass"},
    "gradients": {"on_grads_reset", "on_backward_pass", "on_optim_step"},
    "optimizer": {"on_optim_step"},
}
"""The points whose meaning it is to write what belongs to others."""

_IS_READ = {
    "scores": {"on_backward_pass", "on_optim_step", "on_batch_end"},
    "loss": {"on_backward_pass", "on_optim_step", "on_batch_end"},
}
"""The points at which the rest of the batch reads a variable, and no component leaves it changed.

A component may exchange it within its hook, as by a wrapper that restores it after the yield.
"""

_READ_ONLY = {"on_log", "on_safe_point"}
"""The points in which nothing is written, whatever a component declares."""

_OF_THE_LOOP = (
    *("model", "train_data", "valid_data", "n_epochs", "epoch_num", "epoch_desc"),
    *("batch_num", "optim_step_num", "global_step"),
)
"""The loop variables that no component writes."""

_N_LOGGED = 8  # logged tensors that are watched, the newest

Key = tuple[str, str]
"""What is watched: its kind, as a component may declare that it writes it, and what it is."""


class Write(NamedTuple):
    """A change that a hook of a component has made.

    Attributes:
        kind: what has changed, as in `ComponentConformance.writes`.
        text: in words, what, where, and from what to what.
    """

    kind: str
    text: str


class _Sentinel:
    """What lives as long as the graph of a batch does."""


class Watcher(Observer):
    """A component that watches the hooks of another one.

    Args:
        loop: the loop.
        watched: the component.
        owned: the loop variables that other components set.
        declared: what the component declares that it writes.

    Attributes:
        writes: the changes that it was not to make.
        n_graphs: the largest number of earlier batches whose graphs were alive at the end of an
            epoch.
        holder: in words, what keeps them.
    """

    def __init__(
        self,
        loop: TrainTestLoop,
        watched: LoopComponent,
        owned: Collection[str],
        declared: Collection[str] = (),
    ) -> None:
        self.writes: list[Write] = []
        self.n_graphs = 0
        self.holder = ""
        self.growth = Growth(watched)
        self._loop = loop
        self.watched = watched
        self._owned = [*_OF_THE_LOOP, *owned]
        self._declared = declared
        self._n_logged = 0
        self._logged: deque[tuple[str, torch.Tensor]] = deque(maxlen=_N_LOGGED)
        self._graphs: list[weakref.ref[_Sentinel]] = []

    # -- what there is ----------------------------------------------------------------------

    def facts(self) -> dict[Key, str]:
        """Return all that is watched."""
        return dict(self._read())

    def _read(self) -> Iterator[tuple[Key, str]]:
        loop = self._loop
        variables = vars(loop)
        for name, parameter in loop.model.named_parameters():
            yield ("weights", f"parameter {name}"), as_text(parameter)
            yield ("gradients", f"the gradient of {name}"), as_text(parameter.grad)
        for name, buffer in loop.model.named_buffers():
            yield ("buffers", f"buffer {name}"), as_text(buffer)
        for name, text in modes(loop.model).items():
            yield ("modes", name), text
        for name, text in plain_facts(variables.get("batch"), "loop.batch").items():
            yield ("batch", name), text
        for name, tensor in self._logged:
            yield ("logged", f"what was logged as {name},"), as_text(tensor)
        for name in self._owned:
            value = variables.get(name)
            is_plain = value is None or isinstance(value, int | float | str | torch.Tensor)
            text = as_text(value) if is_plain else f"the {type(value).__qualname__} {id(value):#x}"
            yield (name, f"loop.{name}"), text
        if "optimizer" in self._owned and "optimizer" in variables:
            for i, group in enumerate(variables["optimizer"].param_groups):
                for key, value in group.items():
                    if key != "params":
                        yield ("optimizer", f"{key!r} of group {i}"), setting_text(value)
        for name in {**variables["_metrics"], **variables["_unread_metrics"]}:
            yield ("metrics", f"loop.metrics[{name!r}]"), "there"
        for name, text in torch_settings().items():
            yield ("torch", name), text
        for name, text in random_facts().items():
            yield ("random numbers", name), text

    # -- watching ---------------------------------------------------------------------------

    def wrap_hookimpl(
        self, function: Callable[..., Any], *, component: str, point: str, is_wrapper: bool
    ) -> Callable[..., Any]:
        """Return what compares before and after a hook of the watched component."""
        if not is_named(self._loop, component, self.watched):
            return function

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            if is_wrapper:
                return WrapperParts(function(*arguments), _Parts(self, point).call)
            before = self.facts()
            given = [(one, {**one}) for one in arguments if isinstance(one, dict)]
            try:
                return function(*arguments)
            finally:
                self.compare(point, before, self.facts())
                for one, was in given:
                    self._compare_given(point, was, one)

        return call

    def compare(
        self, point: str, before: dict[Key, str], after: dict[Key, str], between: Any = None
    ) -> None:
        """Note what a hook has changed that it was not to.

        Args:
            point: the callback point.
            before: what there was before it.
            after: what there was after it.
            between: for a wrapper, what there was before and after its yield.
        """
        entered, left = between or (after, after)
        for key in {**before, **after}:
            kind, name = key
            was, is_now = before.get(key), after.get(key)
            is_changed = was != is_now
            if entered.get(key) != left.get(key):  # also by what the wrapper surrounds
                is_changed = was != entered.get(key) or left.get(key) != is_now
            is_partial = None in (was, is_now) and kind == "logged"  # only the newest are watched
            is_new = was is None and kind in ("batch", "metrics")
            if is_changed and not (is_new or is_partial or self._is_allowed(kind, point)):
                old, new = shortened(was, is_now)
                text = f"{point}, {position(self._loop)}: {name} was {old} and is {new}"
                self.writes.append(Write(kind, text))

    def _compare_given(self, point: str, was: dict[str, Any], now: dict[str, Any]) -> None:
        """Note what a hook has changed in a dict that all hooks of a point are given."""
        for name in {**was, **now}:
            if (name in was) != (name in now) or was[name] is not now[name]:
                change = (
                    "removed" if name not in now else "added" if name not in was else "replaced"
                )
                text = f"{point}, {position(self._loop)}: {name!r} was {change} for all after it"
                self.writes.append(Write("logged", text))

    def note_dropped(self, point: str) -> None:
        """Note that a wrapper has returned None in place of the results of others."""
        text = f"{point}, {position(self._loop)}: it returned None"
        self.writes.append(Write("result", text))

    def _is_allowed(self, kind: str, point: str) -> bool:
        if point in _POINTS_OF.get(kind, ()):
            return True
        if point in _IS_READ.get(kind, ()):
            return False
        return kind in self._declared and point not in _READ_ONLY

    # -- what is logged, and graphs ---------------------------------------------------------

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Watch tensors that are logged."""
        for name, value in metrics.items():
            if isinstance(value, torch.Tensor):
                self._n_logged += 1
                what = f"{name!r} {position(loop)}, as number {self._n_logged}"
                self._logged.append((what, value))

    @hookimpl(tryfirst=True)
    def on_backward_pass(self, loop: TrainTestLoop) -> None:
        """Mark the graph of the batch."""
        for name in ("scores", "loss"):
            node: Any = getattr(vars(loop).get(name), "grad_fn", None)
            if node is not None:
                sentinel = _Sentinel()
                node.metadata["ttl_core.testing"] = sentinel
                self._graphs.append(weakref.ref(sentinel))

    @hookimpl(trylast=True)
    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Count the graphs of earlier batches that are alive."""
        if loop.is_training:
            if sum(graph() is not None for graph in self._graphs) > _PER_BATCH:
                gc.collect()
            n_alive = sum(graph() is not None for graph in self._graphs)
            if n_alive // _PER_BATCH - 1 > self.n_graphs:
                self.n_graphs = n_alive // _PER_BATCH - 1
                self.holder = _holder(self.watched)


_PER_BATCH = 2  # graphs: that of the scores, and that of the loss


class _Parts:
    """What there is before and after each part of one call of a wrapper.

    Args:
        watcher: what compares it.
        point: the callback point.
    """

    def __init__(self, watcher: Watcher, point: str) -> None:
        self._watcher = watcher
        self._point = point
        self._facts: list[dict[Key, str]] = []

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, and after the second one compare."""
        self._facts.append(self._watcher.facts())
        try:
            return function(*arguments)
        except StopIteration as end:
            if end.value is None and isinstance(arguments[0], list):  # what was sent to it
                self._watcher.note_dropped(self._point)
            raise
        finally:
            self._facts.append(self._watcher.facts())
            if len(self._facts) == 4:
                before, entered, left, now = self._facts
                self._watcher.compare(self._point, before, now, (entered, left))


def _holder(component: object) -> str:
    """Return in words which attribute of a component holds a tensor with a graph."""
    for name, value in vars(component).items():
        items = value.values() if isinstance(value, dict) else value
        items = items if isinstance(value, list | tuple | dict | set) else [value]
        if any(isinstance(item, torch.Tensor) and item.grad_fn is not None for item in items):
            return f": its attribute {name!r} holds a tensor with a graph"
    return ""
