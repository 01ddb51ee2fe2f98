"""The order hints of the first-party components.

For each hint a run shows that the wrong order gives a wrong result and that the right order does
not; shuffled lists come out of `arrange` in an order that satisfies all hints.
"""

import contextlib
import functools
import json
import math
import random
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ttl_core import ArgumentError, LoopComponent, OrderWarning, TrainTestLoop, arrange, use
from ttl_core.testing import ComponentConformance, Step

CLASSES = {
    entry_point.name: entry_point.load()
    for entry_point in entry_points(group="ttl.components")
    if entry_point.dist.name.startswith("ttl-")
}


def names_of(hint):
    """Return the names in the value of a hint, a name or several."""
    return [hint] if isinstance(hint, str) else hint


HINTS = {(other, name) for name, cls in CLASSES.items() for other in names_of(cls.after)}
HINTS |= {(name, other) for name, cls in CLASSES.items() for other in names_of(cls.before)}


class LogLoss(LoopComponent):
    """A component that logs a loss for each training epoch."""

    def on_epoch_end(self, loop):
        loop.log({"loss": 5.0}, level="epoch")


def best_when_time_is_over(order):
    """Return the best value that is known after a run whose time is over after its first epoch."""
    specs = {
        "early-stopping": use("early-stopping", monitor="train/loss"),
        "time-limit": use("time-limit", seconds=1e-6),
    }
    components = [LogLoss(), *(specs[name] for name in order)]
    loop = TrainTestLoop(torch.nn.Identity(), components, train_data=[0])
    loop.train(n_epochs=9)
    return loop.components["early-stopping"].best


class ReadSeed(LoopComponent):
    """A component that reads the seed in the record of the run when training begins."""

    def on_train_begin(self, loop):
        self.seed = json.loads((loop.run_folder / "run.json").read_text())["seeds"]["torch"]


def recorded_seed(order):
    """Return the seed that the record of a run has when it begins."""
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        specs = {"seed": use("seed", seed=7), "run-folder": use("run-folder", directory=folder)}
        reading = ReadSeed()
        components = [*(specs[name] for name in order), reading]
        TrainTestLoop(torch.nn.Identity(), components, train_data=[0]).train(n_epochs=1)
    return reading.seed


def checkpoints_in_folder(order):
    """Return how many checkpoints are in the folder of the run."""
    with tempfile.TemporaryDirectory() as folder:
        specs = {"run-folder": use("run-folder", directory=folder), "checkpoint": "checkpoint"}
        components = [specs[name] for name in order]
        loop = TrainTestLoop(torch.nn.Identity(), components, train_data=[0])
        with contextlib.suppress(ArgumentError):
            loop.train(n_epochs=1)
        return len(list(Path(folder).glob("checkpoints/0*")))


class ReadSteps(LoopComponent):
    """A component that reads how many steps are to come when training begins."""

    def on_train_begin(self, loop):
        self.n_steps = loop.n_optim_steps


def steps_to_come(order):
    """Return how many steps are expected of four batches of two samples."""
    specs = {
        "batch-size-finder": use("batch-size-finder", memory_limit="8GiB", largest=2),
        "limit-batches": use("limit-batches", train=3),
    }
    data = [
        (x, y) for batch in ComponentConformance.make_data(2) for x, y in zip(*batch, strict=True)
    ][:8]
    reading = ReadSteps()
    components = [Step(), *(specs[name] for name in order), reading]
    loop = TrainTestLoop(ComponentConformance.make_model(), components, DataLoader(data, 2))
    loop.train(n_epochs=1)
    return reading.n_steps


# A run for each hint, its right result and its wrong one. In the wrong order, early-stopping does
# not count the value of the epoch in which the time ends; the record lacks the seed, until the run
# ends; checkpoint finds no folder of the run; and the number of steps is that without a limit.
CASES = {
    ("early-stopping", "time-limit"): (best_when_time_is_over, 5.0, math.inf),
    ("seed", "run-folder"): (recorded_seed, 7, 1),
    ("run-folder", "checkpoint"): (checkpoints_in_folder, 1, 0),
    ("batch-size-finder", "limit-batches"): (steps_to_come, 3, 4),
}


def test_every_hint_has_a_case():
    """Each declared hint has a run here that shows why, and there are no others."""
    assert CASES.keys() == HINTS


@pytest.mark.parametrize("pair", CASES, ids=" before ".join)
def test_the_right_order_gives_the_right_result(pair):
    """A list that satisfies the hint gives the right result, without a warning."""
    run, right, _ = CASES[pair]
    assert right == run(pair)


@pytest.mark.parametrize("pair", CASES, ids=" before ".join)
def test_the_wrong_order_gives_a_wrong_result(pair):
    """A list that contradicts the hint is warned about, and gives the wrong result."""
    run, _, wrong = CASES[pair]
    with pytest.warns(OrderWarning):
        actual = run(pair[::-1])
    assert wrong == actual


@pytest.mark.parametrize("pair", CASES, ids=" before ".join)
def test_arrange_corrects_the_wrong_order(pair):
    """The wrong order comes out of `arrange` as the right one."""
    assert [*pair] == arrange(pair[::-1])


@given(st.permutations(sorted(CLASSES)))
@settings(deadline=None)
def test_arrange_satisfies_all_hints(names):
    """A shuffled list of all first-party names comes out in an order that satisfies every hint."""
    arranged = arrange(names)
    assert sorted(names) == sorted(arranged)
    assert all(arranged.index(first) < arranged.index(then) for first, then in HINTS)


@given(st.permutations(sorted(CLASSES)))
@settings(deadline=None)
def test_arrange_changes_exactly_the_lists_that_contradict_a_hint(names):
    """A list that contradicts a hint is changed, and no other one."""
    is_wrong = any(names.index(first) > names.index(then) for first, then in HINTS)
    assert is_wrong == (names != arrange(names))


# -- all components in one run --------------------------------------------------------------


class Clock(LoopComponent):
    """A clock by which each validation takes a second."""

    now = 0.0

    def on_epoch_end(self, loop):
        self.now += loop.is_validating


@pytest.fixture
def run_all(monkeypatch, tmp_path):
    """Return a function that trains with all first-party components until their time is over.

    It takes a function that orders the specs, and returns the weights and what was counted.
    """

    def run(order):
        clock = Clock()
        monkeypatch.setattr("ttl_control.time_limit.monotonic", lambda: clock.now)
        specs = [
            use(
                "supervised",
                loss_func=torch.nn.CrossEntropyLoss(),
                optimizer=functools.partial(torch.optim.SGD, lr=0.1),
                device="cpu",
            ),
            use("amp", dtype="bf16"),
            use("checkpoint", directory=tmp_path, resume="never", signals=False),
            use("compile", backend="eager"),
            use("csv", directory=tmp_path),
            use("early-stopping", monitor="valid/loss", patience=100),
            use("ema", decay=0.5),
            use("fast-optimizer"),
            use("freeze", patterns={"0.*": 1}),
            use("grad-accumulation", every=2),
            use("grad-clip", max_norm=0.1),
            use("grad-monitor", every=1),
            use("history"),
            use("jsonl", directory=tmp_path),
            use("limit-batches", train=4, valid=2),
            use("lr-monitor"),
            use("lr-warmup", n_steps=6),
            use("memory"),
            use("metrics"),
            use("nan-guard", action="skip"),
            use("progress"),
            use("throughput", every=2),
            use("time-limit", seconds=3),
            use("validate-every", steps=3),
        ]
        loop = TrainTestLoop(
            ComponentConformance.make_model(),
            [clock, *order(specs)],
            ComponentConformance.make_data(5),
            ComponentConformance.make_data(3),
        )
        loop.train(n_epochs=9)
        stopping = loop.components["early-stopping"]
        counted = [
            loop.global_step,
            stopping.best,
            stopping.n_bad,
            float(loop.metrics["valid/loss"]),
        ]
        weights = torch.cat([p.detach().flatten() for p in loop.model.parameters()])
        return weights, torch.tensor(counted)

    return run


@pytest.mark.parametrize("seed", range(5))
def test_a_shuffled_list_that_is_arranged_trains_and_counts_the_same(run_all, seed):
    """Whatever the order of all components, `arrange` gives a list with the same results."""

    def shuffled(specs):
        return arrange(random.Random(seed).sample(specs, len(specs)))

    torch.testing.assert_close(run_all(list), run_all(shuffled), rtol=1e-5, atol=1e-6)


def test_a_list_of_all_components_in_a_wrong_order_counts_something_else(run_all):
    """Reversed and not arranged, the list is warned about, and gives another result."""

    def without_checkpoint(specs):  # whose saving makes early-stopping count, at any place
        return [spec for spec in specs if spec.plugin != "checkpoint"]

    _, expected = run_all(without_checkpoint)
    with pytest.warns(OrderWarning):
        _, actual = run_all(lambda specs: without_checkpoint(specs)[::-1])
    assert not torch.equal(expected, actual)
