"""What resuming keeps of optimizers: types of their state (C5), classes and groups (C9)."""

from __future__ import annotations

import pytest
import torch
from loops import act_at
from recording import StateRecorder
from states import is_same, make_model, make_step_loop, resume, take_state, train_to_end

from ttl_core import StateError
from ttl_core.testing import Step

pytestmark = pytest.mark.usefixtures("one_thread")


class MasterWeights(torch.optim.Optimizer):
    """Plain steps of float32 copies of parameters in bfloat16, as state in nested values."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.01})

    @torch.no_grad()
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state:
                state["master"] = [parameter.float()]
                state["bits"] = torch.tensor([2**24 + 1])
            state["master"][0] -= 0.01 * parameter.grad.float()
            parameter.copy_(state["master"][0])


class MasterStep(Step):
    """Steps of such an optimizer."""

    name = "step"

    def on_train_begin(self, loop):
        loop.optimizer = MasterWeights(loop.model.parameters())

    def on_optim_step(self, loop):
        loop.optimizer.step()

    def on_forward_pass(self, loop):
        loop.scores = loop.model(loop.batch[0].bfloat16()).float()


def test_optimizer_state_of_higher_precision_is_restored_in_it():
    """C5: float32 master weights of bfloat16 parameters resume to the bits of a full run."""

    def make():
        torch.manual_seed(0)
        return make_step_loop(StateRecorder(), model=make_model().bfloat16(), step=MasterStep)

    full = make()
    end = train_to_end(full)
    resumed = make()
    resumed.load_state_dict(full.components["state-recorder"].states[0])
    assert is_same(end["model"], train_to_end(resumed)["model"])
    state = resumed.optimizer.state[resumed.model[0].weight]
    assert (torch.float32, torch.int64) == (state["master"][0].dtype, state["bits"].dtype)


def test_optimizer_state_has_the_type_of_parameters_that_have_another_one_now():
    """C5: a model that resumes in float64 has optimizer state in float64, as torch has it."""
    state = take_state()
    loop = make_step_loop(
        act_at(
            "on_batch_begin", lambda loop: setattr(loop, "batch", [_double(b) for b in loop.batch])
        ),
        model=make_model().double(),
    )
    loop.load_state_dict(state)
    loop.train(2)
    assert torch.float64 == loop.optimizer.state[loop.model[0].weight]["momentum_buffer"].dtype


def _double(value):
    return value.double() if value.is_floating_point() else value


class AdamStep(Step):
    """Steps of Adam."""

    name = "step"

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.optimizer = torch.optim.Adam(loop.model.parameters(), lr=0.1)
        loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=2)


class ExponentialStep(Step):
    """Steps with another scheduler."""

    name = "step"

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.scheduler = torch.optim.lr_scheduler.ExponentialLR(loop.optimizer, 0.5)


@pytest.mark.parametrize(
    ("step", "name", "now", "saved"),
    [
        (AdamStep, "optimizer", "Adam", "SGD"),
        (ExponentialStep, "scheduler", "ExponentialLR", "StepLR"),
    ],
)
def test_another_class_is_an_error(step, name, now, saved):
    """C9: an optimizer or a scheduler of another class does not take the state of the old one."""
    with pytest.raises(StateError) as caught:
        resume(take_state(), step=step)
    expected = (
        f"the loop variable {name!r} is a {now}, but the state was taken of a {saved}. Create "
        f"that one in on_train_begin, or start this one from scratch: ignore=[{name!r}]"
    )
    assert expected == str(caught.value)


def test_another_class_can_be_started_from_scratch():
    """C9: with ignore=, the new optimizer has no state, and the run resumes."""
    loop = resume(take_state(), step=AdamStep, ignore=["optimizer"])
    assert (6, 5) == (loop.global_step, int(loop.optimizer.state[loop.model[0].weight]["step"]))


def test_a_state_of_an_earlier_version_has_no_classes():
    """C9: it is loaded as before."""
    state = take_state()
    del state["structure"], state["settings"]
    assert 6 == resume(state).global_step


def at_step(number, action):
    """Return a component that does something after a step."""
    return act_at("on_batch_end", lambda loop: loop.global_step == number and action(loop))


def exchange(loop):
    """Exchange the optimizer for one of another class."""
    loop.optimizer = torch.optim.Adam(loop.model.parameters())


def test_an_optimizer_that_is_exchanged_in_mid_run_is_refused_when_it_is_saved():
    """C9: on_train_begin would create the one before, so no run could resume."""
    with pytest.raises(StateError) as caught:
        take_state(at_step(2, exchange))
    expected = (
        "no run could resume from this state: the loop variable 'optimizer' was a SGD, and is a "
        "Adam now, but a run resumes with what on_train_begin creates. Exchange it between two "
        "train() calls, or only add parameter groups with add_param_group()"
    )
    assert expected == str(caught.value)


def test_an_optimizer_may_be_exchanged_between_two_calls():
    """C9: what is compared is what the same train() began with; unsafe states are not compared."""
    loop = make_step_loop()
    loop.train(1)
    exchange(loop)
    assert "optimizer" in loop.state_dict(allow_unsafe=True)["variables"]
    loop.components["step"] = AdamStep()
    loop.components.append(recorder := StateRecorder())
    loop.train(1)
    assert "Adam" == recorder.states[0]["structure"]["optimizer"]["class"]


def grow(loop):
    """Add a parameter to a group."""
    loop.optimizer.param_groups[0]["params"].append(torch.nn.Parameter(torch.ones(1)))


def test_a_group_that_grows_in_mid_run_is_refused_when_it_is_saved():
    """C9: only whole groups can be added."""
    with pytest.raises(StateError, match=r"was with groups of \[6\] parameters, and has \[7\] now"):
        take_state(at_step(2, grow))


def test_a_group_of_other_parameters_is_refused_when_it_is_saved():
    """C9: a parameter that is not in the model has no name by which a run could find it."""

    def add(loop):
        loop.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})

    with pytest.raises(StateError, match=r"holds a parameter that is not in loop\.model"):
        take_state(at_step(2, add))


class Unfreezing(Step):
    """Steps of the head, and from the second epoch on of the first layer too.

    Args:
        point: where the layer is added.
    """

    name = "step"
    point = "on_epoch_end"

    def on_train_begin(self, loop):
        loop.model[0].requires_grad_(False)
        loop.optimizer = torch.optim.Adam(loop.model[2].parameters(), lr=0.1)

    def on_optim_step(self, loop):
        loop.optimizer.step()

    def on_epoch_end(self, loop):
        if self.point == "on_epoch_end" and loop.is_training and loop.epoch_num == 0:
            self.unfreeze(loop)

    def on_epoch_begin(self, loop):
        super().on_epoch_begin(loop)
        if self.point == "on_epoch_begin" and loop.is_training and loop.epoch_num == 1:
            self.unfreeze(loop)

    def unfreeze(self, loop):
        loop.model[0].requires_grad_(True)
        loop.optimizer.add_param_group({"params": loop.model[0].parameters(), "lr": 0.01})


@pytest.mark.parametrize("where", ["on_epoch_end", "on_epoch_begin"])
def test_groups_that_are_added_in_mid_run_are_there_after_resuming(where, monkeypatch):
    """C9: a run with gradual unfreezing resumes from every safe point to the same bits."""
    monkeypatch.setattr(Unfreezing, "point", where)
    recorder = StateRecorder()
    full = make_step_loop(recorder, step=Unfreezing)
    end = train_to_end(full, 3)
    for state in recorder.states:
        loop = make_step_loop(StateRecorder(), step=Unfreezing)
        loop.load_state_dict(state)
        assert is_same(end, train_to_end(loop, 3))
        assert [2, 2] == [len(group["params"]) for group in loop.optimizer.param_groups]


class Counting(torch.optim.SGD):
    """An optimizer that counts its steps under a key of its own, as MADGRAD does."""

    def step(self, closure=None):
        steps = self.state.setdefault("n_steps", torch.tensor([0]))
        steps += 1
        return super().step(closure)


def test_state_that_belongs_to_no_parameter_is_restored():
    """As torch does."""

    class CountingStep(Step):
        name = "step"

        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.optimizer = Counting(loop.model.parameters(), lr=0.01, momentum=0.9)
            loop.scheduler = None

    state = take_state(step=CountingStep)
    resumed = resume(state, step=CountingStep)
    assert resumed.optimizer.state["n_steps"] == 6
