"""The loop compared with a model of §3 of the design that shares no code with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from data import Stream
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_core import LoopComponent, RunError, TrainTestLoop, hookimpl

POINTS = (
    *("around_run", "around_epoch", "on_train_begin", "on_test_begin", "on_epoch_begin"),
    *("on_grads_reset", "on_batch_begin", "on_forward_pass", "on_loss_compute"),
    *("on_backward_pass", "on_optim_step", "on_batch_end", "on_epoch_end", "on_safe_point"),
    *("on_train_end", "on_test_end", "on_exception"),
)
VARIABLES = (
    *("n_epochs", "n_batches", "n_optim_steps", "epoch_desc", "epoch_num", "batch", "batch_num"),
    *("is_training", "is_validating", "is_testing", "is_stepping"),
    *("optim_step_num", "global_step"),
)
EDITS: dict[str, Callable[[list[Any], Any], object]] = {
    "append": lambda components, new: components.append(new),
    "insert": lambda components, new: components.insert(1, new),
    "replace": lambda components, new: components.__setitem__(slice(0, 1), [new]),
    "delete": lambda components, new: components.__delitem__(slice(1, 2)),
    "reverse": lambda components, new: components.reverse(),
    "swap": lambda components, new: components.__setitem__(slice(0, 2), components[1::-1]),
    "empty": lambda components, new: components.clear(),
}


# -- a case ---------------------------------------------------------------------------------


class Sketch(NamedTuple):
    """The description of a component: its name, and the points that it implements."""

    name: str
    points: frozenset[str]


@dataclass
class Case:
    """The arguments of both loops, and what is done in them at the nth call of any component."""

    sketches: list[Sketch]
    train_data: Iterable[int]
    valid_data: Iterable[int] | None
    runs: list[tuple[str, Any]]
    edits: dict[int, str]
    newcomer: frozenset[str]
    not_stepping: set[int]
    validating: set[int]
    stopping: set[int]


@dataclass
class Calls:
    """The calls of components in one of the two loops."""

    case: Case
    make: Callable[[Sketch, Calls], Any]
    events: list[tuple[Any, ...]] = field(default_factory=list)

    def record(self, loop: Any, name: str, point: str, grad_mode: bool) -> None:
        """Record a call, and do what the case does in it."""
        case, n = self.case, len(self.events)
        self.events.append((point, name, grad_mode, loop.model.training, *variables(loop)))
        if n in case.edits:
            EDITS[case.edits[n]](
                loop.components, self.make(Sketch(f"new-{n}", case.newcomer), self)
            )
        if n in case.not_stepping:
            loop.is_stepping = False
        can_validate = not (case.valid_data is None or loop.is_validating or loop.is_testing)
        if n in case.validating and can_validate:
            loop.validate()
        if n in case.stopping:
            loop.stop()


def variables(loop: Any) -> tuple[Any, ...]:
    """Return the values of the loop variables; those that are unset are None."""
    return tuple(getattr(loop, name, None) for name in VARIABLES)


# -- the model ------------------------------------------------------------------------------


class StoppedError(Exception):
    """The exception of stop() in the model."""


class NoStepError(Exception):
    """The error of an epoch without a batch, or without a step, in the model."""


class Reference:
    """A loop that is written as §3 and §4 of the design say, sentence by sentence."""

    def __init__(self, case: Case) -> None:
        self.calls = Calls(case, make=lambda sketch, calls: sketch)
        self.components = list(case.sketches)
        self.train_data, self.valid_data = case.train_data, case.valid_data
        self.model = SimpleNamespace(training=True)
        self.grad_mode = True
        self.can_stop = self.is_running = False
        self.scopes: list[SimpleNamespace] = []  # the run and the epochs under way
        self.n_epochs = self.n_batches = self.n_optim_steps = None
        self.epoch_num = self.optim_step_num = self.global_step = 0
        self.epoch_desc, self.is_stepping = "", False
        self.leave_epoch()

    def fire(self, point: str) -> None:
        self.enter_late()
        for component in list(self.components):
            if point in component.points:
                self.calls.record(self, component.name, point, self.grad_mode)

    def surround(self, point: str, body: Callable[[], None]) -> None:
        self.enter_late(is_in_epoch=False)  # in the one around it, if this one is nested in it
        with ExitStack() as exits, ExitStack() as late_exits:
            scope = SimpleNamespace(point=point, entered=set(), exits=exits)
            for component in list(self.components):
                self.enter(scope, component)
            scope.exits = late_exits
            self.scopes.append(scope)
            try:
                body()
            finally:
                self.scopes.remove(scope)

    def enter_late(self, is_in_epoch: bool = True) -> None:
        """Enter the run and the epoch under way with components that joined since they began."""
        n_entered = -1
        while n_entered != (n_entered := sum(len(scope.entered) for scope in self.scopes)):
            components = list(self.components)
            for scope in [*self.scopes[:1], *(self.scopes[1:][-1:] if is_in_epoch else [])]:
                for component in components:
                    self.enter(scope, component)

    def enter(self, scope: SimpleNamespace, component: Sketch) -> None:
        if scope.point in component.points and component.name not in scope.entered:
            scope.entered.add(component.name)
            self.calls.record(self, component.name, f"{scope.point}, before", self.grad_mode)
            scope.exits.callback(self.after, component.name, scope.point)

    def after(self, name: str, point: str) -> None:
        self.calls.record(self, name, f"{point}, after", self.grad_mode)

    def leave_epoch(self) -> None:
        self.is_training = self.is_validating = self.is_testing = False

    def train(self, n_epochs: int | None = None, n_optim_steps: int | None = None) -> None:
        self.n_epochs, self.n_optim_steps, self.max_steps = n_epochs, n_optim_steps, n_optim_steps
        if n_epochs is not None and isinstance(self.train_data, range):
            self.n_optim_steps = n_epochs * len(self.train_data)
        self.optim_step_num = 0
        self.is_pending = False

        def body() -> None:
            self.fire("on_train_begin")
            for i in itertools.count():
                if i == n_epochs or self.optim_step_num == n_optim_steps:
                    return
                self.epoch("train", self.train_data)
                self.fire("on_safe_point")
                if self.valid_data is not None:
                    self.epoch("valid", self.valid_data)
                self.epoch_num += 1
                if self.valid_data is not None:
                    self.fire("on_safe_point")

        self.run(body, end="on_train_end")

    def test(self, test_data: Iterable[int]) -> None:
        self.n_epochs = 1

        def body() -> None:
            self.fire("on_test_begin")
            self.epoch("test", test_data)

        self.run(body, end="on_test_end")

    def validate(self) -> None:
        before = {name: getattr(self, name, None) for name in VARIABLES}
        modes = self.model.training, self.grad_mode
        try:
            self.n_epochs = 1
            if self.is_running:
                self.epoch("valid", self.valid_data)
            else:
                self.run(lambda: self.epoch("valid", self.valid_data), end=None)
        finally:
            vars(self).update(before)
            self.model.training, self.grad_mode = modes

    def run(self, body: Callable[[], None], end: str | None) -> None:
        def finish() -> None:
            if self.can_stop:
                self.can_stop = False
                self.leave_epoch()
                if end is not None:
                    self.fire(end)

        def whole() -> None:
            with suppress(StoppedError):
                body()
            finish()

        self.is_running = self.can_stop = True
        try:
            with suppress(StoppedError):
                self.surround("around_run", whole)
            finish()
        except NoStepError:
            self.can_stop = False
            self.fire("on_exception")
            raise
        finally:
            self.is_running = self.can_stop = False
            self.leave_epoch()

    def epoch(self, desc: str, data: Any) -> None:
        self.epoch_desc = desc
        self.is_training = self.model.training = desc == "train"
        self.is_validating, self.is_testing = desc == "valid", desc == "test"
        self.n_batches = len(data) if isinstance(data, range) else None
        for name in ("batch", "batch_num"):
            vars(self).pop(name, None)
        grad_mode, self.grad_mode = self.grad_mode, self.grad_mode and self.is_training
        try:
            self.surround("around_epoch", lambda: self.batches(data))
        finally:
            self.grad_mode = grad_mode
        self.leave_epoch()

    def batches(self, data: Any) -> None:
        steps_before, n_batches = self.optim_step_num, 0
        self.fire("on_epoch_begin")
        for self.batch_num, self.batch in enumerate(data):
            n_batches += 1
            if not self.is_training:
                for point in ("batch_begin", "forward_pass", "loss_compute", "batch_end"):
                    self.fire(f"on_{point}")
            elif self.training_batch():
                break
        must_step = self.is_training and self.max_steps is not None
        if must_step and self.optim_step_num == steps_before:
            raise NoStepError
        if self.is_training and n_batches == 0:
            raise NoStepError
        self.fire("on_epoch_end")

    def training_batch(self) -> bool:
        """Run a training batch, and tell whether it made the last step of the run."""
        if not self.is_pending:
            self.fire("on_grads_reset")
        self.is_stepping = True
        for point in ("batch_begin", "forward_pass", "loss_compute", "backward_pass"):
            self.fire(f"on_{point}")
        self.is_pending = not self.is_stepping
        if self.is_pending:
            self.fire("on_batch_end")
            return False
        self.fire("on_optim_step")
        self.optim_step_num += 1
        self.global_step += 1
        self.fire("on_batch_end")
        is_last_step = self.optim_step_num == self.max_steps
        if not is_last_step and self.batch_num + 1 != self.n_batches:
            self.fire("on_safe_point")
        return is_last_step

    def stop(self) -> None:
        if self.can_stop:
            raise StoppedError


# -- the real loop --------------------------------------------------------------------------

_SOURCE = """
def {point}(self, loop):
    self.calls.record(loop, self.name, "{point}", is_grad_enabled())
"""
_WRAPPER = """
@hookimpl(wrapper=True)
def {point}(self, loop):
    self.calls.record(loop, self.name, "{point}, before", is_grad_enabled())
    try:
        yield
    finally:
        self.calls.record(loop, self.name, "{point}, after", is_grad_enabled())
"""


def method(point: str) -> Any:
    """Return a method of a component, in the form in which authors write it."""
    names = {"is_grad_enabled": torch.is_grad_enabled, "hookimpl": hookimpl}
    source = _WRAPPER if point.startswith("around_") else _SOURCE
    exec(source.format(point=point), names)
    return names[point]


METHODS = {point: method(point) for point in POINTS}


def component(sketch: Sketch, calls: Calls) -> LoopComponent:
    """Return the component that a sketch describes."""
    methods = {point: METHODS[point] for point in sketch.points}
    attributes = {"name": sketch.name, "calls": calls, **methods}
    return type("Sketched", (LoopComponent,), attributes)()


def make_real(case: Case) -> tuple[TrainTestLoop, Calls]:
    """Return a real loop for a case, and the record of its calls."""
    calls = Calls(case, make=component)
    components = [component(sketch, calls) for sketch in case.sketches]
    loop = TrainTestLoop(torch.nn.Identity(), components, case.train_data, case.valid_data)
    return loop, calls


def run_all(loop: Any, runs: list[tuple[str, Any]]) -> list[bool]:
    """Run a loop several times, and return which runs failed."""
    failed = []
    for run, argument in runs:
        try:
            match run:
                case "validate" if loop.valid_data is not None:
                    loop.validate()
                case "test":
                    loop.test(argument)
                case "n_epochs" | "n_optim_steps":
                    loop.train(**{run: argument})
        except (RunError, NoStepError):
            failed.append(True)
        else:
            failed.append(False)
    return failed


# -- the comparison -------------------------------------------------------------------------


def up_to(n: int) -> st.SearchStrategy[int]:
    """Return a strategy of equally likely counts, as st.integers prefers small ones."""
    return st.sampled_from(range(n + 1))


subsets = st.frozensets(st.sampled_from(POINTS), min_size=4) | st.just(frozenset(POINTS))
batches = up_to(4).map(range) | up_to(4).map(range).map(Stream)
moments = up_to(50)
runs = st.one_of(
    st.tuples(st.just("n_epochs"), up_to(3)),
    st.tuples(st.just("n_optim_steps"), up_to(6)),
    st.tuples(st.just("test"), batches),
    st.tuples(st.just("validate"), st.none()),
)
cases = st.builds(
    Case,
    sketches=st.lists(subsets, min_size=1, max_size=4).map(
        lambda several: [Sketch(f"c-{i}", points) for i, points in enumerate(several)]
    ),
    train_data=batches,
    valid_data=batches | st.none(),
    runs=st.lists(runs, min_size=1, max_size=3),
    edits=st.dictionaries(moments, st.sampled_from(sorted(EDITS)), max_size=4),
    newcomer=subsets,
    not_stepping=st.sets(moments, max_size=20),
    validating=st.sets(moments, max_size=2),
    stopping=st.sets(moments, max_size=2),
)


@given(cases)
@settings(deadline=None, max_examples=300)
def test_the_loop_fires_the_events_that_the_design_says_with_the_variables_it_says(
    case: Case,
) -> None:
    """Each component is called when the model calls it, with the same loop variables."""
    reference = Reference(case)
    loop, calls = make_real(case)
    assert run_all(reference, case.runs) == run_all(loop, case.runs)
    assert reference.calls.events == calls.events
    assert variables(reference) == variables(loop)
