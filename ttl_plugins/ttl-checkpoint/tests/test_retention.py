"""Which checkpoints are kept: the newest ones, and the one with the best metric."""

import math
import tempfile

import pytest
import torch
from checkpoint_runs import (
    CallAt,
    LogValues,
    make_loop,
    manifests,
    positions,
    reasons,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from ttl_checkpoint.finite import is_finite
from ttl_checkpoint.store import Store

from ttl_core import LoopComponent, RunError
from ttl_core.testing import ComponentConformance


@pytest.mark.parametrize(("keep", "n"), [(2, 2), (3, 3), (5, 5), (9, 6), (None, 6)])
def test_keeps_the_newest(tmp_path, keep, n):
    """Older ones are removed with all their files."""
    make_loop(tmp_path, every=1, keep=keep).train(2)
    expected = [(0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 6)]
    assert expected[-n:] == positions(tmp_path)


def test_a_manifest_that_was_damaged_since_it_was_written_does_not_count(tmp_path):
    """Manifests are remembered, but read again where their files have changed."""

    def damage(loop):
        if loop.global_step == 4:
            path = Store(tmp_path).checkpoints()[0] / "manifest.json"
            path.write_bytes(path.read_bytes().replace(b'"due"', b'"new"'))

    make_loop(tmp_path, CallAt("on_safe_point", damage), every=1, keep=2).train(2)
    assert ["000003", "000005", "000006"] == [
        path.name[:6] for path in Store(tmp_path).everything()
    ]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("min", [3, 1, 2, 4, 5], [2, 4, 5]),
        ("max", [1, 5, 2, 3, 4], [2, 4, 5]),
        ("min", [1, 2, 3, 4, 5], [1, 4, 5]),
        ("min", [5, 4, 3, 2, 1], [4, 5]),
        ("min", [2, 2, 2, 2, 2], [1, 4, 5]),
        ("max", [math.nan, 1, math.nan, 0, math.nan], [2, 4, 5]),
        ("min", [-math.inf, 1, 2, 3, math.inf], [2, 4, 5]),
    ],
)
def test_keeps_the_best_one_besides(tmp_path, mode, values, expected):
    """The best one is kept however old it is; neither NaN nor infinity is ever the best."""
    make_loop(tmp_path, LogValues(*values), keep=2, best="train/cost", mode=mode).train(5)
    assert expected == [epoch for epoch, _ in positions(tmp_path)]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(2, 4), st.booleans())
def test_keeps_the_newest_and_the_best_of_any_values(values, keep, is_max):
    """Whatever is logged, the newest ones are kept, and the first with the best value."""
    mode, pick = ("max", max) if is_max else ("min", min)
    with tempfile.TemporaryDirectory() as directory:
        loop = make_loop(
            directory,
            LogValues(*map(torch.tensor, values)),
            keep=keep,
            best="train/cost",
            mode=mode,
            data=ComponentConformance.make_data(1),
        )
        loop.train(len(values))
        epochs = range(1, len(values) + 1)
        expected = {*epochs[-keep:], 1 + values.index(pick(values))}
        assert expected == {epoch for epoch, _ in positions(directory)}


class Poison(LoopComponent):
    """A component that sets one weight to a value before a step."""

    def __init__(self, step, value=math.nan):
        self.step = step
        self.value = value

    def on_batch_begin(self, loop):
        if loop.global_step == self.step:
            with torch.no_grad():
                next(loop.model.parameters()).view(-1)[0] = self.value


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_last_finite_one_is_kept(tmp_path, asynchronous, value):
    """A16: however many with NaN or infinity follow, a run can resume before them."""
    config = {"every": 2, "keep": 2, "asynchronous": asynchronous}
    make_loop(tmp_path, Poison(4, value), **config).train(4)
    assert [4, 10, 12] == [step for _, step in positions(tmp_path)]
    assert [True, False, False] == [manifest["finite"] for manifest in manifests(tmp_path)]
    loop = make_loop(tmp_path / "b", resume=Store(tmp_path).checkpoints()[-1])
    loop.train(4)
    assert all(parameter.isfinite().all() for parameter in loop.model.parameters())


def test_only_the_last_finite_one_is_kept(tmp_path):
    """A16: those before it are removed as usual, and it too when a newer one is finite."""

    class Heal(LoopComponent):
        def on_train_begin(self, loop):
            self.good = {k: v.clone() for k, v in loop.model.state_dict().items()}

        def on_epoch_end(self, loop):
            if loop.epoch_num >= 3:
                loop.model.load_state_dict(self.good)

    make_loop(tmp_path, Poison(7), Heal(), keep=2).train(6)
    assert [5, 6] == [epoch for epoch, _ in positions(tmp_path)]


def test_a_mask_of_infinity_is_finite(tmp_path):
    """A16: infinity in a buffer is usual, NaN is not."""
    loop = make_loop(tmp_path)
    loop.model.register_buffer("mask", torch.full((2, 2), -math.inf))
    loop.train(1)
    loop.model.mask[0, 0] = math.nan
    loop.train(1)
    assert [True, False] == [manifest["finite"] for manifest in manifests(tmp_path)]


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.zeros(0), True),
        (torch.tensor([1, 2]), True),
        (torch.tensor([1.0, math.nan], dtype=torch.bfloat16), False),
        (torch.tensor([1.0, math.inf], dtype=torch.float16), False),
        (torch.tensor([complex(1, math.nan)]), False),
        (torch.tensor([complex(1, 2)]).conj(), True),
        (torch.tensor([1.0, math.nan]).to_sparse(), False),
        (torch.tensor([1.0, math.nan]).to(torch.float8_e4m3fn), False),
        (torch.tensor([1.0, 2.0]).to(torch.float8_e5m2), True),
        (torch.tensor([1e300], dtype=torch.float64), True),
        (torch.zeros(2, device="meta"), True),
    ],
    ids=lambda value: str(value).replace("\n", ""),
)
def test_finite_tensors_of_any_type(tensor, expected):
    """A16: every type is either checked or taken for finite."""
    assert expected is is_finite({"weight": tensor}, set())


def test_saves_whenever_the_metric_improves(tmp_path):
    """A better value is saved even if no checkpoint is due."""
    make_loop(tmp_path, LogValues(3, 4, 2, 5), every=100, best="train/cost").train(4)
    assert [(1, 3), (3, 9), (4, 12)] == positions(tmp_path)
    assert ["best", "best", "end"] == reasons(tmp_path)
    assert [3, 2, None] == [manifest["best"] for manifest in manifests(tmp_path)]


def test_saves_the_best_value_inside_an_epoch(tmp_path):
    """A value that is logged in the middle of an epoch is saved there, if it is better."""
    log = CallAt("on_batch_end", lambda loop: loop.log({"n": -loop.batch_num}, level="epoch"))
    make_loop(tmp_path / "a", log, every=100, best="train/n", keep=None).train(1)
    assert [(0, 1), (0, 2), (1, 3)] == positions(tmp_path / "a")
    make_loop(tmp_path / "b", log, every=100, best="train/n", keep=None, mid_epoch=False).train(1)
    assert [(1, 3)] == positions(tmp_path / "b")


def test_the_best_one_is_known_after_resuming(tmp_path):
    """A resumed run keeps the checkpoint that was the best one before."""
    config = {"keep": 2, "best": "train/cost"}
    make_loop(tmp_path, LogValues(3, 1, 2), **config).train(2)
    make_loop(tmp_path, LogValues(3, 1, 2, 5, 4, 6), **config).train(6)
    assert [2, 5, 6] == [epoch for epoch, _ in positions(tmp_path)]


def test_a_resumed_run_compares_with_the_best_value_before(tmp_path):
    """The first value after resuming is compared too."""
    config = {"keep": None, "best": "train/cost"}
    make_loop(tmp_path, LogValues(3, 1), **config).train(2)
    make_loop(tmp_path, LogValues(3, 1, 2, 0), **config).train(4)
    assert [3, 1, None, 0] == [manifest["best"] for manifest in manifests(tmp_path)]


def test_the_end_of_a_run_is_not_taken_for_the_best_one(tmp_path):
    """The checkpoint of a stop has no best value, though an earlier one in the epoch has."""

    class LogThenStop(LoopComponent):
        def on_safe_point(self, loop):
            if loop.global_step == 2:
                loop.log({"x": 1.0}, level="epoch")
            if loop.global_step == 5:
                loop.stop()

    data = ComponentConformance.make_data(9)
    make_loop(tmp_path, LogThenStop(), best="train/x", data=data).train(1)
    assert [(0, 2), (0, 5)] == positions(tmp_path)
    assert [1.0, None] == [manifest["best"] for manifest in manifests(tmp_path)]


def test_the_end_of_a_run_can_be_the_best_one(tmp_path):
    """A value that was logged just before a stop belongs to the checkpoint of the stop."""
    stop = CallAt("on_safe_point", lambda loop: loop.global_step == 6 and loop.stop())
    make_loop(tmp_path, LogValues(3, 1), stop, best="train/cost").train(9)
    assert [(1, 3), (2, 6)] == positions(tmp_path)
    assert [3, 1] == [manifest["best"] for manifest in manifests(tmp_path)]


def test_a_metric_that_is_not_logged_is_an_error(tmp_path):
    """After the first whole epoch without it the run fails, and lists what was logged."""
    loop = make_loop(tmp_path, LogValues(1, metric="loss"), best="train/los")
    with pytest.raises(RunError) as caught:
        loop.train(2)
    expected = (
        "'checkpoint' needs the metric 'train/los', which was not logged at epoch level in a "
        "whole epoch. Did you mean 'train/loss'? Logged were: train/loss"
    )
    assert expected == str(caught.value)
    assert 3 == loop.global_step


def test_a_metric_at_batch_level_does_not_count(tmp_path):
    """If nothing is logged at epoch level, the error names the component that logs the loss."""
    with pytest.raises(RunError) as caught:
        make_loop(tmp_path, best="train/loss").train(2)
    expected = (
        "'checkpoint' needs the metric 'train/loss', which was not logged at epoch level in a "
        "whole epoch. Logged were: none. The component metrics logs the mean loss"
    )
    assert expected == str(caught.value)


def test_a_metric_of_validation_is_missing_only_after_validation(tmp_path):
    """It need not be logged yet when the training of the epoch has ended."""

    class LogValid(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_validating:
                loop.log({"loss": 1.0}, level="epoch")

    valid_data = ComponentConformance.make_data(1)
    loop = make_loop(tmp_path, LogValid(), best="valid/loss", valid_data=valid_data)
    loop.train(1)
    assert ["best"] == reasons(tmp_path)


def test_a_metric_of_training_is_known_after_resuming_before_validation(tmp_path):
    """What was logged before the checkpoint need not be logged again after it."""

    class Interrupt(LoopComponent):
        def on_batch_begin(self, loop):
            if loop.is_validating:
                raise KeyboardInterrupt

    options = {"valid_data": ComponentConformance.make_data(1), "best": "train/cost"}
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path, LogValues(1), Interrupt(), **options).train(1)
    loop = make_loop(tmp_path, LogValues(1), **options)
    loop.train(1)
    assert (1, 3) == (loop.epoch_num, loop.global_step)
