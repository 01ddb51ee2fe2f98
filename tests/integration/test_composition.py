"""Components that touch gradients, weights and flow, together, against loops written by hand."""

import functools
import itertools
import random

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ttl_core import LoopComponent, TrainTestLoop, arrange, use
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY, MAX_NORM, DECAY, WARMUP, PATIENCE = 4, 0.05, 0.5, 5, 1
SPECS = {
    "grad-accumulation": use("grad-accumulation", every=EVERY),
    "amp": use("amp"),
    "grad-clip": use("grad-clip", max_norm=MAX_NORM),
    "ema": use("ema", decay=DECAY),
    "lr-warmup": use("lr-warmup", n_steps=WARMUP),
    "freeze": use("freeze", patterns={"0.*": 1}),
    "compile": use("compile", backend="eager"),  # graphs run as they are, to the same bits
}
N_EPOCHS = 3


class SumOfLosses(LoopComponent):
    """A component that logs the sum of the validation losses."""

    def on_epoch_begin(self, loop):
        self.total = 0.0

    def on_batch_end(self, loop):
        self.total += loop.loss.item()

    def on_epoch_end(self, loop):
        if loop.is_validating:
            loop.log({"loss": self.total}, level="epoch")


class Stop(LoopComponent):
    """A component that stops when the validation loss has not improved, as early stopping does."""

    def __init__(self):
        self.best, self.waited, self.losses = float("inf"), 0, []

    def on_log(self, metrics, level):
        if level == "epoch" and "valid/loss" in metrics:
            loss = metrics["valid/loss"]
            self.losses.append(loss)
            self.waited = 0 if loss < self.best else self.waited + 1
            self.best = min(self.best, loss)

    def on_safe_point(self, loop):
        if self.waited >= PATIENCE:
            loop.stop()


class Disable(LoopComponent):
    """A component that disables others at the first safe point after some number of steps."""

    def __init__(self, names, at):
        self.names, self.at = names, at

    def on_safe_point(self, loop):
        if loop.global_step >= self.at:
            loop.components.disable(*self.names)


def make_data():
    """Return data for training, with a shorter tail, and for validation."""
    data = ComponentConformance.make_data(13)
    return data[:10], data[10:]


@functools.cache
def by_hand(names, disabled=frozenset(), disabled_at=None):
    """Train without any library.

    Args:
        names: a frozenset of the techniques to use besides plain steps.
        disabled: a frozenset of those to leave out after some number of steps.
        disabled_at: that number.

    Returns:
        The weights, the averages and the validation losses.
    """
    enabled = set(names)
    model = ComponentConformance.make_model()
    train_data, valid_data = make_data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    average = get_ema_multi_avg_fn(DECAY)
    averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    losses, best, waited, n_steps, n_pending = [], float("inf"), 0, 0, 0
    for epoch in range(N_EPOCHS):
        model.train()
        model[0].requires_grad_(not ("freeze" in enabled and epoch < 1))
        for i, (inputs, targets) in enumerate(train_data):
            if not n_pending:
                model.zero_grad()
            every = EVERY if "grad-accumulation" in enabled else 1
            with torch.autocast("cpu", torch.bfloat16, enabled="amp" in enabled):
                loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            (loss / every).backward()
            n_pending += 1
            if n_pending < every and i + 1 < len(train_data):
                continue
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad *= every / n_pending
            n_pending = 0
            if "grad-clip" in enabled:
                torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            lr = optimizer.param_groups[0]["lr"]
            if "lr-warmup" in enabled:
                optimizer.param_groups[0]["lr"] = lr * min(1, (n_steps + 1) / WARMUP)
            optimizer.step()
            optimizer.param_groups[0]["lr"] = lr
            scheduler.step()
            n_steps += 1
            if "ema" in enabled:
                averaged.update_parameters(model)
                # a number of batches is no average
                averaged.module[1].num_batches_tracked.copy_(model[1].num_batches_tracked)
            is_last = i + 1 == len(train_data)
            if disabled_at is not None and n_steps >= disabled_at and not is_last:
                enabled -= disabled
        if disabled_at is not None and n_steps >= disabled_at:
            enabled -= disabled
        measured = averaged.module if "ema" in enabled else model
        measured.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled="amp" in enabled):
            losses.append(
                sum(float(torch.nn.functional.cross_entropy(measured(x), y)) for x, y in valid_data)
            )
        waited = 0 if losses[-1] < best else waited + 1
        best = min(best, losses[-1])
        if waited >= PATIENCE:
            break
    return model.state_dict(), averaged.module.state_dict() if "ema" in names else None, losses


def by_name(components):
    """Train with the library; return the weights, the averages and the validation losses."""
    stop = next(c for c in components if isinstance(c, Stop))
    loop = TrainTestLoop(ComponentConformance.make_model(), components, *make_data())
    loop.train(N_EPOCHS)
    ema = loop.components["ema"].averaged.module if "ema" in loop.components else None
    return loop.model.state_dict(), ema.state_dict() if ema else None, stop.losses


def assert_same(expected, actual, exact=True):
    """Check weights, averages and losses: to the same bits, or to the tolerance of bf16.

    For bf16 the tolerance is 1e-3 in weights of order 1, and 1e-2 in losses.
    """
    for one, other in zip(expected[:2], actual[:2], strict=True):
        assert (one is None) == (other is None)
        for key in one or ():
            if exact:
                assert torch.equal(one[key], other[key]), key
            else:
                torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-3)
    assert len(expected[2]) == len(actual[2])
    assert expected[2] == pytest.approx(actual[2], rel=0 if exact else 1e-2)


def everything(names):
    """Return components of these names, with the steps, the validation loss and stopping."""
    return [Step(), SumOfLosses(), Stop(), *(SPECS[name] for name in names)]


def orders(names, n):
    """Return some orders of names, the same ones in each run."""
    every = list(itertools.permutations(names))
    return random.Random(0).sample(every, min(n, len(every)))


CORE = ("grad-accumulation", "grad-clip", "ema")


@pytest.mark.parametrize("names", orders(CORE, 6), ids=" ".join)
def test_accumulation_clipping_averages_and_stopping_are_the_loop_by_hand(names):
    """In any order, on the CPU in single precision, they give the same bits."""
    assert_same(by_hand(frozenset(CORE)), by_name(everything(names)))


@pytest.mark.parametrize("names", orders((*CORE, "amp"), 8), ids=" ".join)
def test_the_same_in_mixed_precision(names):
    """With bf16 they give the same to the stated tolerance."""
    assert_same(by_hand(frozenset(names)), by_name(everything(names)), exact=False)


@pytest.mark.parametrize("seed", range(4))
def test_all_of_them_arranged_from_a_shuffled_list(seed):
    """arrange() of all, the step among them, shuffled, gives the loop by hand, and no warning."""
    names = [name for name in SPECS if name != "amp"]
    components = everything(names)
    random.Random(seed).shuffle(components)
    assert_same(by_hand(frozenset(names)), by_name(arrange(components)))


def test_early_stopping_is_of_the_averages():
    """The validation losses, which decide when to stop, differ with and without averages."""
    _, _, with_averages = by_name(everything(CORE))
    _, _, without = by_name(everything(CORE[:2]))
    assert with_averages != without


PAIRS = list(itertools.combinations(SPECS, 2))


@pytest.mark.parametrize("names", PAIRS, ids=" ".join)
def test_each_pair_is_the_loop_by_hand(names):
    """Two together, in both orders, do what the loop by hand does with both."""
    expected = by_hand(frozenset(names))
    for order in (names, names[::-1]):
        assert_same(expected, by_name(everything(order)), exact="amp" not in names)


@pytest.mark.parametrize("at", ["safe point", "between epochs"])
@pytest.mark.parametrize("names", PAIRS, ids=" ".join)
def test_each_pair_disabled_in_mid_run_leaves_the_loop_by_hand(names, at):
    """After both are disabled, in mid-epoch or between epochs, training is plain again.

    Freezing ends with its epoch, so it is not disabled in the middle of one.
    """
    per_epoch = 3 if "grad-accumulation" in names else 10
    steps = per_epoch if at == "between epochs" else 2
    disabled = [name for name in names if name != "freeze" or at == "between epochs"]
    components = [*everything(names), Disable(disabled, steps)]
    expected = by_hand(frozenset(names), frozenset(disabled), steps)
    assert_same(expected, by_name(components), exact="amp" not in names)
