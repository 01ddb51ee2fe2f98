"""validate(): one validation epoch from anywhere, that leaves no trace but metrics."""

from __future__ import annotations

import pytest
import torch

from ttl_core import LoopComponent, RunError


def state(loop):
    """Return all that validate() has to put back, but the modes of submodules."""
    variables = {k: v for k, v in vars(loop).items() if k not in ("metrics", "hook")}
    return {**variables, "grad mode": torch.is_grad_enabled()}


class Disturbing(LoopComponent):
    """Set in validation what a component may set."""

    def on_batch_begin(self, loop):
        if loop.is_validating:
            loop.loss = loop.scores = loop.batch_size = 99
            loop.is_stepping = False

    def on_epoch_end(self, loop):
        loop.log({"accuracy": 0.5}, level="epoch")


class Validating(LoopComponent):
    """Validate at one point of a training batch, and keep the state before and after."""

    def on_batch_begin(self, loop):
        if loop.is_training:
            loop.loss, loop.scores, loop.batch_size = 1, 2, 3

    def on_loss_compute(self, loop):
        if loop.is_training:
            self.before = state(loop)
            loop.validate()
            self.after = state(loop)


def test_validating_in_mid_batch_puts_back_all_loop_variables(loop_of):
    """A nested validate() leaves no trace in the loop but metrics."""
    validating = Validating()
    loop = loop_of(validating, Disturbing())
    loop.train(n_epochs=1)
    assert validating.before == validating.after
    assert {"valid/accuracy": 0.5, "train/accuracy": 0.5} == loop.metrics


def test_validating_on_its_own_puts_back_all_loop_variables(loop_of):
    """validate() outside a run leaves no trace in the loop but metrics."""
    loop = loop_of(Disturbing())
    before = state(loop)
    loop.validate()
    assert before == state(loop)
    assert {"valid/accuracy": 0.5} == loop.metrics


def test_what_only_a_validation_set_is_unset_again(loop_of):
    """A variable that validate() found unset is unset afterwards."""
    loop = loop_of(Disturbing())
    loop.validate()
    assert not hasattr(loop, "loss")


def test_validating_that_fails_puts_back_all_loop_variables(at, loop_of):
    """What validate() changed is put back on exceptions too."""
    loop = loop_of(Disturbing(), at(on_batch_end=lambda loop: 1 // 0))
    before = state(loop)
    with pytest.raises(ZeroDivisionError):
        loop.validate()
    assert before == state(loop)


def test_validating_puts_back_the_mode_of_every_submodule(loop_of):
    """A frozen part of the model stays in the mode that it was in."""
    loop = loop_of()
    loop.model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    loop.model[0].eval()
    loop.validate()
    assert [True, False, True] == [module.training for module in loop.model.modules()]


def test_a_nested_validation_is_no_run_of_its_own(loop_of, recorder, points):
    """A nested validate() fires the points of a validation epoch and no others."""
    validating = Validating()
    loop_of(validating, recorder, train_data=[0], valid_data=[]).train(n_epochs=1)
    start = points.index("on_backward_pass") - 3
    expected = ["on_epoch_begin", "on_epoch_end", "on_loss_compute"]
    assert expected == points[start : start + 3]


@pytest.mark.parametrize(
    ("run", "phase"),
    [
        (lambda loop: loop.train(n_epochs=1), "valid"),
        (lambda loop: loop.validate(), "valid"),
        (lambda loop: loop.test([0]), "test"),
    ],
    ids=["train", "validate", "test"],
)
def test_validating_inside_validation_or_test_is_refused(at, loop_of, run, phase):
    """There is no validation of a validation, or of a test."""
    loop = loop_of(at(on_batch_end=lambda loop: loop.is_training or loop.validate()))
    with pytest.raises(RunError, match=f"inside a {phase} epoch"):
        run(loop)
