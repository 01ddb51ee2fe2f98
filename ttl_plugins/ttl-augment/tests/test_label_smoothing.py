"""The behaviour of `label-smoothing`."""

from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy
from ttl_augment import LabelSmoothing, Mixup

from ttl_core import ArgumentError, LoopComponent, RunError
from ttl_core.testing import ComponentConformance, Step

SMOOTHED = partial(cross_entropy, label_smoothing=0.2)
LOSSES = {
    "function": cross_entropy,
    "module": torch.nn.CrossEntropyLoss(),
    "partial": partial(cross_entropy, reduction="mean"),
    "own function": lambda scores, targets: torch.nn.functional.cross_entropy(scores, targets),
}


class Loss(Step):
    """Steps with any loss."""

    def __init__(self, loss):
        self.loss = loss

    def on_epoch_begin(self, loop):
        loop.loss_func = self.loss


@pytest.mark.parametrize("name", LOSSES)
def test_is_the_loss_with_smoothed_targets_in_training_alone(make_loop, recorder, name):
    """Training is that of label_smoothing=, and validation losses are plain."""
    data = ComponentConformance.make_data(2)
    seen = recorder("on_batch_end", lambda loop: loop.loss.item())
    loop = make_loop(LabelSmoothing(0.2), seen, step=Loss(LOSSES[name]), valid_data=data)
    other = recorder("on_batch_end", lambda loop: loop.loss.item())

    class Expected(Loss):
        def on_epoch_begin(self, loop):
            loop.loss_func = SMOOTHED if loop.is_training else cross_entropy

    by_hand = make_loop(other, step=Expected(None), valid_data=data)
    for each in (loop, by_hand):
        each.train(2)
    assert other.seen == seen.seen
    torch.testing.assert_close(by_hand.model.state_dict(), loop.model.state_dict(), rtol=0, atol=0)


def test_with_mixed_samples(make_loop):
    """Shares of classes are smoothed too."""
    loop = make_loop(Mixup(n_classes=2), LabelSmoothing(0.2))
    by_hand = make_loop(Mixup(n_classes=2), step=Loss(SMOOTHED))
    for each in (loop, by_hand):
        each.train(1)
    torch.testing.assert_close(by_hand.model.state_dict(), loop.model.state_dict())


def test_a_smoothing_of_ones_own_stays(make_loop):
    """A loss that has label_smoothing= already is left alone."""
    loop = make_loop(LabelSmoothing(0.5), step=Loss(SMOOTHED))
    by_hand = make_loop(step=Loss(SMOOTHED))
    for each in (loop, by_hand):
        each.train(1)
    torch.testing.assert_close(by_hand.model.state_dict(), loop.model.state_dict(), rtol=0, atol=0)


def test_disabled_in_mid_run_the_rest_is_plain(make_loop, recorder):
    """After it was disabled, losses are plain."""

    class Disable(LoopComponent):
        def on_safe_point(self, loop):
            loop.components.disable("label-smoothing")

    is_plain = recorder(
        "on_batch_end",
        lambda loop: bool(loop.loss == cross_entropy(loop.scores, loop.batch[1])),
    )
    make_loop(LabelSmoothing(0.2), Disable(), is_plain).train(1)
    assert [False, *[True] * 5] == is_plain.seen


def test_a_loss_without_cross_entropy_is_an_error(make_loop):
    """Nothing is smoothed silently in vain."""
    step = Loss(lambda scores, targets: scores.mean())
    with pytest.raises(RunError, match=r"no call of torch.nn.functional.cross_entropy"):
        make_loop(LabelSmoothing(), step=step).train(1)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, "0.1", None])
def test_refuses_an_unusable_share(smoothing):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match="smoothing is"):
        LabelSmoothing(smoothing)
