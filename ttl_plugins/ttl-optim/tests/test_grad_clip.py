"""What `grad-clip` does."""

import math

import pytest
import torch
from ttl_optim import GradClip

from ttl_core import LoopComponent
from ttl_core.testing import Step


def norms(loop):
    """Return the norm of all gradients."""
    return torch.nn.utils.get_total_norm([p.grad for p in loop.model.parameters()])


class Logged(LoopComponent):
    """Keep what was logged at batch level."""

    def __init__(self):
        self.seen = []

    def on_log(self, loop, metrics, level):
        self.seen += [float(v) for k, v in metrics.items() if k == "train/grad-norm"]


def test_limits_the_norm(make_loop, look):
    """After the step no gradient is longer than the limit."""
    after = look("on_batch_end", norms)
    make_loop(GradClip(0.01), after).train(1)
    assert [pytest.approx(0.01, rel=1e-3)] * 6 == [float(norm) for norm in after.seen]


def test_limits_each_value(make_loop, look):
    """With max_value no element is larger, and some are as large."""
    after = look(
        "on_batch_end", lambda loop: max(p.grad.abs().max().item() for p in loop.model.parameters())
    )
    make_loop(GradClip(max_value=0.001), after).train(1)
    assert [pytest.approx(0.001)] * 6 == after.seen


def test_logs_the_norm_that_the_gradients_had(make_loop, look):
    """The norm from before clipping is logged for each step."""
    before, logged = look("on_backward_pass", norms), Logged()
    make_loop(before, GradClip(0.01), logged).train(1)
    assert [float(norm) for norm in before.seen] == logged.seen


def test_an_infinite_limit_just_logs(make_loop):
    """`max_norm=math.inf` leaves the weights to be what they are without it."""
    plain, watched, logged = make_loop(), make_loop(GradClip(math.inf)), Logged()
    watched.components.append(logged)
    plain.train(1)
    watched.train(1)
    assert 6 == len(logged.seen)
    assert torch.equal(plain.model[0].weight, watched.model[0].weight)


@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_acts_before_the_step_wherever_it_stands(make_loop, place):
    """In the list before or after the component that steps, the result is the hand-written one."""
    loop = make_loop()
    loop.components.insert(place, GradClip(0.1))
    loop.train(1)
    by_hand = make_loop(data=[])
    by_hand.train(1)
    by_hand.model.train()
    for inputs, targets in loop.train_data:
        by_hand.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(by_hand.model(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(by_hand.model.parameters(), 0.1)
        by_hand.optimizer.step()
        by_hand.scheduler.step()
    assert torch.equal(by_hand.model[0].weight, loop.model[0].weight)


def test_reads_no_value_from_the_device(make_loop):
    """Gradients whose values cannot be read are clipped, so nothing waits for them."""

    class Meta(Step):
        def on_train_begin(self, loop):
            loop.model.to("meta")
            super().on_train_begin(loop)

        def on_batch_begin(self, loop):
            loop.batch = [part.to("meta") for part in loop.batch]

    loop = make_loop(GradClip(0.1), LoopComponent(), step=Meta())
    loop.train(1)
    assert 6 == loop.global_step


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_norm": 1.0, "max_value": 1.0}, "both given"),
        ({"max_norm": 0}, "max_norm is 0, but has to be above 0"),
        ({"max_value": -1.0}, "max_value is -1.0"),
        ({"max_norm": math.nan}, "max_norm is nan"),
    ],
)
def test_refuses_limits_that_are_none(config, message):
    """The error names the argument and its value."""
    with pytest.raises(ValueError, match=message):
        GradClip(**config)
