"""Models with several inputs or a loss of their own, several losses, and closures."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss
from ttl_supervised import Supervised

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, use
from ttl_core.testing import ComponentConformance

SGD = partial(torch.optim.SGD, lr=0.1)


class Two(torch.nn.Module):
    """A model of two inputs, which returns its loss if it gets labels."""

    def __init__(self, output=None):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(2, generator=generator))
        self.output = output

    def forward(self, left, right, labels=None):
        scores = left * self.weight[0] + right * self.weight[1]
        if self.output is None:
            return scores
        return self.output(None if labels is None else mse_loss(scores, labels), scores)


def triples(n=4):
    """Return left and right inputs, and labels."""
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randn(3, 6, generator=generator).unbind()) for _ in range(n)]


def by_hand(n_epochs=2):
    """Train the model of two inputs without a library."""
    model = Two()
    optimizer = SGD(model.parameters())
    for left, right, labels in triples() * n_epochs:
        optimizer.zero_grad()
        mse_loss(model(left, right), labels).backward()
        optimizer.step()
    return model.weight


CALLS = {
    "args": ("args", [((left, right), labels) for left, right, labels in triples()]),
    "kwargs": (
        "kwargs",
        [{"inputs": {"left": a, "right": b}, "targets": y} for a, b, y in triples()],
    ),
    "function": (
        lambda model, inputs: model(inputs[0], right=inputs[1]),
        [((left, right), labels) for left, right, labels in triples()],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_several_inputs_by_call(name):
    """Inputs are given by position, by name, or by a function, as in the loop by hand."""
    call, data = CALLS[name]
    loop = TrainTestLoop(Two(), [Supervised(mse_loss, SGD, call=call)], data, data)
    loop.train(2)
    assert torch.equal(by_hand(), loop.model.weight)


OUTPUTS = {
    "a mapping": lambda loss, scores: {"loss": loss, "logits": scores},
    "an object": lambda loss, scores: SimpleNamespace(loss=loss, logits=scores),
    "a tuple": lambda loss, scores: scores if loss is None else (loss, scores),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_model_that_is_called_with_the_batch_and_returns_its_loss(name):
    """`model(**batch)` with loss_func=None trains by the loss it returns; scores are its logits."""
    data = [{"left": a, "right": b, "labels": y} for a, b, y in triples()]
    loop = TrainTestLoop(Two(OUTPUTS[name]), [Supervised(None, SGD, call="kwargs")], data, data)
    loop.train(2)
    assert torch.equal(by_hand(), loop.model.weight)
    assert (6,) == loop.scores.shape
    unlabelled = [{"left": a, "right": b} for a, b, _ in triples()]
    loop.test(unlabelled)
    assert loop.loss is None
    assert [(6,)] * 4 == [scores.shape for scores in loop.predict(unlabelled)]


def test_a_model_without_a_loss_is_an_error():
    """The message says what it returned, and how models get their targets."""
    data = [{"left": a, "right": b} for a, b, _ in triples()]
    loop = TrainTestLoop(Two(OUTPUTS["a mapping"]), [Supervised(None, SGD, call="kwargs")], data)
    with pytest.raises(
        ArgumentError, match=r"the model has to return its loss.*model\(\*\*batch\)"
    ):
        loop.train(1)


def several(scores, targets):
    """Return two losses, one of them with a weight of its own in the mean of the epoch."""
    squared = scores.square().mean()
    return {"class": cross_entropy(scores, targets), "size": (squared, targets.sum() + 1)}


class Logged(LoopComponent):
    """A component that keeps what is logged at epoch level."""

    def __init__(self):
        self.seen = []

    def on_log(self, loop, metrics, level):
        if level == "epoch":
            self.seen.append({name: float(value) for name, value in metrics.items()})


@pytest.mark.parametrize(
    "others", [[], [use("grad-accumulation", every=2), "amp", use("ema", decay=0.05)]]
)
def test_several_losses_are_summed_and_logged_each_by_its_own_weight(others):
    """The step is by the weighted sum; the mean over the epoch of each is by its own weights."""
    *whole, (x, y) = ComponentConformance.make_data(4)
    data = [*whole, (x[:2], y[:2])]
    logged = Logged()
    steps = Supervised(several, SGD, loss_weights={"size": 0.5})
    loop = TrainTestLoop(ComponentConformance.make_model(), [steps, logged, *others], data, data)
    loop.train(1)
    if others:
        assert {"train/loss/class", "train/loss/size"} <= loop.metrics.keys()
        return
    model = ComponentConformance.make_model()
    optimizer, sums = SGD(model.parameters()), torch.zeros(4)
    for inputs, targets in data:
        scores = model(inputs)
        losses = several(scores, targets)
        squared, n = losses["size"]
        optimizer.zero_grad()
        (losses["class"] + 0.5 * squared).backward()
        optimizer.step()
        loss = losses["class"].detach()
        sums += torch.tensor([loss * len(targets), len(targets), squared.detach() * n, n])
    torch.testing.assert_close(model.state_dict(), loop.model.state_dict())
    expected = {"train/loss/class": sums[0] / sums[1], "train/loss/size": sums[2] / sums[3]}
    assert {name: pytest.approx(float(value)) for name, value in expected.items()} == logged.seen[0]


def test_an_empty_batch_adds_nothing_to_the_means_of_losses():
    """Its mean losses are NaN, those of the epoch are not."""
    x, y = ComponentConformance.make_data(1)[0]
    loop = TrainTestLoop(
        ComponentConformance.make_model(),
        [Supervised(lambda *pair: {"class": cross_entropy(*pair)}, SGD)],
        [(x, y), (x[:0], y[:0])],
    )
    loop.train(1)
    assert math.isfinite(loop.metrics["train/loss/class"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_means_of_losses_in_half_precision_are_exact(dtype):
    """Sums are not rounded to it, which would leave out later losses, or be infinite."""
    losses = [float(i % 7) for i in range(3000)]
    component = Supervised(
        lambda scores, targets: {"one": scores.sum(), "two": (scores.sum(), targets.sum())}, SGD
    )
    batches = [
        (torch.full((1,), loss, dtype=dtype), torch.full((64,), 1.0, dtype=dtype))
        for loss in losses
    ]
    loop = TrainTestLoop(torch.nn.Identity(), [component])
    loop.validate(batches)
    mean = sum(losses) / len(losses)
    assert [pytest.approx(mean)] * 2 == [loop.metrics[f"valid/loss/{n}"] for n in ("one", "two")]


@pytest.mark.parametrize("n", [0, torch.tensor(0)], ids=["number", "tensor"])
def test_a_loss_of_weight_0_in_a_whole_epoch_does_not_end_the_run(n):
    """As that of boxes, in data without any."""

    def losses(scores, targets):
        return {"class": cross_entropy(scores, targets), "boxes": (scores.sum() * 0, n)}

    loop = TrainTestLoop(
        ComponentConformance.make_model(),
        [Supervised(losses, SGD)],
        ComponentConformance.make_data(),
    )
    loop.train(1)
    assert not math.isfinite(loop.metrics.get("train/loss/boxes", math.nan))
    assert math.isfinite(loop.metrics["train/loss/class"])


def test_means_of_losses_resume_in_mid_epoch():
    """A run that resumes inside an epoch logs the same means."""
    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            states.append(loop.state_dict())

    def make(*others):
        data = ComponentConformance.make_data(4)
        steps = Supervised(several, SGD)
        return TrainTestLoop(ComponentConformance.make_model(), [steps, *others], data, data[:1])

    whole, resumed = make(Save()), make()
    whole.train(1)
    resumed.load_state_dict(states[1])
    resumed.train(1)
    assert dict(whole.metrics) == dict(resumed.metrics)


def test_a_weight_for_no_loss_is_an_error():
    """It names the losses that there are."""
    steps = Supervised(several, SGD, loss_weights={"sise": 2.0})
    loop = TrainTestLoop(
        ComponentConformance.make_model(), [steps], ComponentConformance.make_data()
    )
    with pytest.raises(ArgumentError, match=r"'sise', but the losses are 'class', 'size'. Did you"):
        loop.train(1)


def test_weights_without_several_losses_are_an_error():
    """They would have no effect."""
    steps = Supervised(cross_entropy, SGD, loss_weights={"size": 2.0})
    loop = TrainTestLoop(
        ComponentConformance.make_model(), [steps], ComponentConformance.make_data()
    )
    with pytest.raises(ArgumentError, match=r"loss_weights has 'size', but .* a single loss"):
        loop.train(1)


def lbfgs(parameters):
    """Return an optimizer that computes the loss several times in a step."""
    return torch.optim.LBFGS(parameters, lr=0.5, max_iter=4, line_search_fn="strong_wolfe")


@pytest.mark.parametrize("every", [1, 2])
def test_an_optimizer_with_a_closure(every):
    """LBFGS computes the loss of all batches of a step again, as a closure by hand does."""
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(6, 3, generator=generator), torch.randn(6, 1, generator=generator))] * 2
    data += [(x.flip(0) + 1, y) for x, y in data]

    def make_model():
        torch.manual_seed(0)
        return torch.nn.Linear(3, 1)

    steps = Supervised(mse_loss, lbfgs)
    loop = TrainTestLoop(make_model(), [steps, use("grad-accumulation", every=every)], data)
    loop.train(2)
    model = make_model()
    optimizer = lbfgs(model.parameters())
    for _ in range(2):
        for group in [data[i : i + every] for i in range(0, len(data), every)]:

            def closure(group=group):
                optimizer.zero_grad()
                loss = sum(mse_loss(model(x), y) for x, y in group) / len(group)
                loss.backward()
                return loss

            optimizer.step(closure)
    torch.testing.assert_close(model.state_dict(), loop.model.state_dict())
    assert 8 / every == loop.global_step


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"call": "keywords"}, "call is 'keywords'.*'kwargs' for"),
        ({"call": 3}, "call is 3"),
        ({"loss_weights": [1]}, r"loss_weights is \[1\]"),
        ({"loss_weights": {"a": "1"}}, r"loss_weights\['a'\] is '1'"),
    ],
)
def test_refuses_unusable_arguments(config, message):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=message):
        Supervised(mse_loss, SGD, **config)
