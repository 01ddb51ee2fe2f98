"""Components that control the flow, together with those that change gradients and weights."""

import itertools

import pytest
import torch

from ttl_core import ConflictError, LoopComponent, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step

CHANGING = {
    "grad-accumulation": use("grad-accumulation", every=2),
    "grad-clip": use("grad-clip", max_norm=0.1),
    "ema": use("ema", decay=0.5),
    "amp": use("amp", dtype="bf16"),
    "freeze": use("freeze", patterns={"0.*": 1}),
    "lr-warmup": use("lr-warmup", n_steps=6),
    "fast-optimizer": use("fast-optimizer"),
}
WATCHING = {
    "early-stopping": use("early-stopping", monitor="valid/loss", patience=100),
    "time-limit": use("time-limit", hours=1),
    "nan-guard": use("nan-guard", action="skip"),
    "validate-every": use("validate-every", steps=3),
}
DATA = ComponentConformance.make_data(5)
FLOW = {
    "limit-batches": (use("limit-batches", train=2), DATA[:2]),
    "overfit-batch": (use("overfit-batch"), [DATA[0]] * 5),
}


class ValidLoss(LoopComponent):
    """A component that logs the loss of the last validation batch."""

    def on_epoch_end(self, loop):
        if loop.is_validating:
            loop.log({"loss": loop.loss}, level="epoch")


class Disable(LoopComponent):
    """A component that disables others after the first epoch."""

    def __init__(self, *names):
        self.names = names

    def on_safe_point(self, loop):
        if loop.epoch_num == 1 and loop.components.is_enabled(self.names[0]):
            loop.components.disable(*self.names)


def weights(components, train_data=DATA):
    """Return the weights after three epochs with these components."""
    loop = TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), ValidLoss(), *components],
        train_data,
        ComponentConformance.make_data(2),
    )
    loop.train(n_epochs=3)
    return torch.cat([p.detach().flatten() for p in loop.model.parameters()])


@pytest.mark.parametrize("is_disabled", [False, True], ids=["enabled", "disabled in mid-run"])
@pytest.mark.parametrize("watching", WATCHING)
@pytest.mark.parametrize("changing", CHANGING)
def test_a_component_that_only_watches_changes_nothing(changing, watching, is_disabled):
    """The bits are those of a run without it, in either order, also when disabled in mid-run."""
    pair = [CHANGING[changing], WATCHING[watching]]
    disable = [Disable(watching)] if is_disabled else []
    expected = weights([CHANGING[changing]])
    assert torch.equal(expected, weights([*pair, *disable]))
    assert torch.equal(expected, weights([*reversed(pair), *disable]))


@pytest.mark.parametrize("flow", FLOW)
@pytest.mark.parametrize("other", [*CHANGING, *WATCHING])
def test_choosing_batches_is_the_same_as_other_data(other, flow):
    """Fewer batches, or one repeated, give the bits of data that are like that."""
    chooser, data = FLOW[flow]
    beside = {**CHANGING, **WATCHING}[other]
    expected = weights([beside], data)
    assert torch.equal(expected, weights([chooser, beside]))
    assert torch.equal(expected, weights([beside, chooser]))


def test_limiting_and_repeating_batches_give_the_same_in_either_order():
    """Fewer batches, all of them the same one, have the same weights in either order."""
    limit, repeat = (chooser for chooser, _ in FLOW.values())
    expected = weights([], [DATA[0]] * 2)
    assert torch.equal(expected, weights([limit, repeat]))
    assert torch.equal(expected, weights([repeat, limit]))


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(CHANGING, 2)])
def test_a_pair_that_is_disabled_leaves_plain_training(one, other):
    """After both are disabled in mid-run, the next run is a plain one."""
    loop = TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), CHANGING[one], CHANGING[other], Disable(one, other)],
        DATA,
        DATA[:1],
    )
    loop.train(n_epochs=2)
    plain = TrainTestLoop(ComponentConformance.make_model(), [Step()], DATA, DATA[:1])
    plain.model.load_state_dict(loop.model.state_dict())
    for each in (loop, plain):
        each.train(n_epochs=1)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, loop.model.state_dict()[name])


@pytest.mark.parametrize(
    "spec",
    [
        use("grad-accumulation", every=2),
        use("lr-schedule", kind="linear"),
        use("lr-warmup", n_steps=6),
        use("run-folder", directory="runs/a"),
    ],
    ids=lambda spec: spec.plugin,
)
def test_what_would_act_twice_is_refused_a_second_time(spec):
    """A gradient that is weighted twice, or a rate that is lowered twice, would train wrongly."""
    loop = TrainTestLoop(torch.nn.Identity(), [spec], [0])
    with pytest.raises(ConflictError, match="only_once"):
        loop.components.append(spec)
