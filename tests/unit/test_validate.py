"""validate(): one validation epoch from anywhere, which changes nothing but metrics."""

from __future__ import annotations

import pytest
import torch
from data import Wrapped
from loops import make_component, make_loop

from ttl_core import LoopComponent, RunError
from ttl_core.testing import Step, tiny_loop


def state(loop):
    """Return all that validate() has to restore, except the modes of submodules."""
    unrestored = ("metrics", "hook", "_group")  # a run joins its group anew
    variables = {k: v for k, v in vars(loop).items() if k not in unrestored}
    return {**variables, "grad mode": torch.is_grad_enabled()}


class SettingVariables(LoopComponent):
    """A component that sets in validation all that a component may set."""

    def on_batch_begin(self, loop):
        if loop.is_validating:
            loop.loss = loop.scores = loop.batch_size = 99
            loop.is_stepping = False

    def on_epoch_end(self, loop):
        loop.log({"accuracy": 0.5}, level="epoch")


class Validating(LoopComponent):
    """A component that validates in a training batch, and keeps the state before and after."""

    def on_batch_begin(self, loop):
        if loop.is_training:
            loop.loss, loop.scores, loop.batch_size = 1, 2, 3

    def on_loss_compute(self, loop):
        if loop.is_training:
            self.before = state(loop)
            loop.validate()
            self.after = state(loop)


def test_validating_in_mid_batch_restores_all_loop_variables():
    """A nested validate() changes nothing in the loop but metrics."""
    validating = Validating()
    loop = make_loop(validating, SettingVariables())
    loop.train(n_epochs=1)
    assert validating.before == validating.after
    assert {"valid/accuracy": 0.5, "train/accuracy": 0.5} == loop.metrics


def test_validating_outside_a_run_restores_all_loop_variables():
    """validate() outside a run changes nothing in the loop but metrics."""
    loop = make_loop(SettingVariables())
    before = state(loop)
    loop.validate()
    assert before == state(loop)
    assert {"valid/accuracy": 0.5} == loop.metrics


def test_a_variable_that_only_a_validation_sets_is_unset_again():
    """A variable that was unset before validate() is unset afterwards."""
    loop = make_loop(SettingVariables())
    loop.validate()
    assert not hasattr(loop, "loss")


def test_a_validation_that_fails_restores_all_loop_variables():
    """What validate() changed is restored on exceptions too."""
    loop = make_loop(SettingVariables(), make_component(on_batch_end=lambda loop: 1 // 0))
    before = state(loop)
    with pytest.raises(ZeroDivisionError):
        loop.validate()
    assert before == state(loop)


def test_validating_restores_the_mode_of_every_submodule():
    """A frozen part of the model stays in its mode."""
    loop = make_loop()
    loop.model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    loop.model[0].eval()
    loop.validate()
    assert [True, False, True] == [module.training for module in loop.model.modules()]


def test_a_nested_validation_is_no_run_of_its_own(recorder):
    """A nested validate() fires only the points of a validation epoch."""
    validating = Validating()
    make_loop(validating, recorder, train_data=[0], valid_data=[]).train(n_epochs=1)
    start = recorder.points.index("on_backward_pass") - 3
    expected = ["on_epoch_begin", "on_epoch_end", "on_loss_compute"]
    assert expected == recorder.points[start : start + 3]


@pytest.mark.parametrize(
    ("run", "phase"),
    [
        (lambda loop: loop.train(n_epochs=1), "valid"),
        (lambda loop: loop.validate(), "valid"),
        (lambda loop: loop.test([0]), "test"),
    ],
    ids=["train", "validate", "test"],
)
def test_validating_inside_validation_or_test_is_refused(run, phase):
    """validate() inside a validation or a test is an error."""
    loop = make_loop(make_component(on_batch_end=lambda loop: loop.is_training or loop.validate()))
    with pytest.raises(RunError, match=f"inside a {phase} epoch"):
        run(loop)


class Loaded(list):
    """Batches with state of their own, of which one iterator at a time can be used."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("wrap", [(True, False), (False, True), (True, True)])
def test_data_that_training_uses_are_found_in_wrappers(wrap):
    """A second iterator of them would take batches from training."""
    data = Loaded([1, 2, 3])
    train_data, valid_data = (Wrapped(data) if is_wrapped else data for is_wrapped in wrap)
    loop = make_loop(make_component(on_batch_begin=lambda loop: loop.validate(valid_data)))
    loop.train_data = train_data
    with pytest.raises(RunError, match="that the training epoch is using"):
        loop.train(n_epochs=1)


@pytest.mark.parametrize("point", ["on_train_begin", "on_epoch_begin"])
def test_validating_before_a_state_is_restored_uses_its_model(point):
    """Not the weights with which the script begins."""

    class Keep(LoopComponent):
        state = None

        def on_safe_point(self, loop):
            if loop.global_step == 2:
                self.state = loop.state_dict()

    torch.manual_seed(0)
    trained = tiny_loop(Step(), Keep())
    trained.train(n_epochs=1)
    state, used = trained.components["keep"].state, []

    class Validate(LoopComponent):
        def on_forward_pass(self, loop):
            if loop.is_validating:
                used.append(next(loop.model.parameters()).detach().clone())

    def validate(self, loop):
        if not loop.is_validating:
            loop.validate()

    setattr(Validate, point, validate)
    loop = tiny_loop(Step(), Validate())
    loop.load_state_dict(state, ignore=["keep"])
    loop.train(n_epochs=1)
    assert torch.equal(next(iter(state["model"].values())), used[0])
