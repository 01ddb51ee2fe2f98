"""Components that control the flow, beside those that change gradients and weights."""

import functools
import itertools
import random

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, arrange, use
from ttl_core.testing import ComponentConformance, Step

CHANGING = {
    "grad-accumulation": use("grad-accumulation", every=2),
    "grad-clip": use("grad-clip", max_norm=0.1),
    "ema": use("ema", decay=0.5),
    "amp": use("amp", dtype="bf16"),
    "freeze": use("freeze", patterns={"0.*": 1}),
    "lr-warmup": use("lr-warmup", n_steps=6),
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
    """Log the loss of the last validation batch, for whom it concerns."""

    def on_epoch_end(self, loop):
        if loop.is_validating:
            loop.log({"loss": loop.loss}, level="epoch")


class SwitchOff(LoopComponent):
    """Switch components off after the first epoch."""

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


@pytest.mark.parametrize("switched_off", [False, True], ids=["on", "switched off"])
@pytest.mark.parametrize("watching", WATCHING)
@pytest.mark.parametrize("changing", CHANGING)
def test_who_only_watches_changes_nothing(changing, watching, switched_off):
    """The bits are those of a run without it, in either order, also when it goes off in mid-run."""
    pair = [CHANGING[changing], WATCHING[watching]]
    off = [SwitchOff(watching)] if switched_off else []
    expected = weights([CHANGING[changing]])
    assert torch.equal(expected, weights([*pair, *off]))
    assert torch.equal(expected, weights([*reversed(pair), *off]))


@pytest.mark.parametrize("flow", FLOW)
@pytest.mark.parametrize("other", [*CHANGING, *WATCHING])
def test_who_chooses_the_batches_does_what_other_data_would(other, flow):
    """Fewer batches, or one again and again, are to everybody as if the data were like that."""
    chooser, data = FLOW[flow]
    beside = {**CHANGING, **WATCHING}[other]
    expected = weights([beside], data)
    assert torch.equal(expected, weights([chooser, beside]))
    assert torch.equal(expected, weights([beside, chooser]))


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(CHANGING, 2)])
def test_a_pair_that_is_switched_off_leaves_plain_training(one, other):
    """After both go off in mid-run, training goes on, and the next run is a plain one."""
    loop = TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), CHANGING[one], CHANGING[other], SwitchOff(one, other)],
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


@pytest.mark.parametrize("seed", range(5))
def test_the_hints_put_any_shuffled_list_right(seed):
    """Whatever the order in which all are named, arrange gives a list that trains the same."""
    steps = use(
        "supervised",
        loss_func=torch.nn.CrossEntropyLoss(),
        optimizer=functools.partial(torch.optim.SGD, lr=0.1),
        device="cpu",
    )
    everybody = [steps, "metrics", *CHANGING.values(), *WATCHING.values(), FLOW["limit-batches"][0]]

    def trained(items):
        loop = TrainTestLoop(
            ComponentConformance.make_model(),
            arrange(items),
            DATA,
            ComponentConformance.make_data(2),
        )
        loop.train(n_epochs=3)
        return torch.cat([p.detach().flatten() for p in loop.model.parameters()])

    shuffled = random.Random(seed).sample(everybody, len(everybody))
    torch.testing.assert_close(trained(everybody), trained(shuffled), rtol=1e-5, atol=1e-6)
