"""The behaviour of `alternating`, against a loop written by hand."""

import math
from functools import partial

import pytest
import torch
from ttl_alternating import Alternating

from ttl_core import ArgumentError, LoopComponent, RunError, TrainTestLoop, use

NOISE = torch.Generator()
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def make_model():
    """Return a generator and a critic."""
    torch.manual_seed(0)
    return torch.nn.ModuleDict(
        {"generator": torch.nn.Linear(2, 3), "critic": torch.nn.Linear(3, 1)}
    )


def make_data(n=12):
    """Return batches of samples."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, generator=generator) for _ in range(n)]


def critic_loss(model, batch):
    """Return the loss of the critic."""
    fake = model["generator"](torch.randn(len(batch), 2, generator=NOISE)).detach()
    return (model["critic"](fake) - model["critic"](batch)).mean()


def generator_loss(model, batch):
    """Return the loss of the generator."""
    return -model["critic"](model["generator"](torch.randn(len(batch), 2, generator=NOISE))).mean()


def make_steps(**config):
    """Return the component, with three steps of the critic in its turn."""
    losses = {
        "critic": lambda loop: critic_loss(loop.model, loop.batch),
        "generator": lambda loop: generator_loss(loop.model, loop.batch),
    }
    config = {"turns": {"critic": 3}, **config}
    return Alternating(losses, dict.fromkeys(losses, SGD), **config)


def by_hand(every=1, clip=None, cast=False, warmup=None, scale=1.0):
    """Train two epochs without a library; return the weights and mean losses of the last epoch."""
    NOISE.manual_seed(2)
    model = make_model()
    optimizers = {name: SGD(model[name].parameters()) for name in ("critic", "generator")}
    functions = {"critic": critic_loss, "generator": generator_loss}
    data, n_steps = make_data(), 0
    for _ in range(2):
        seen = {"critic": [], "generator": []}
        for begin in range(0, len(data), every):
            name = "generator" if n_steps % 4 == 3 else "critic"
            optimizer, own = optimizers[name], list(model[name].parameters())
            model.zero_grad()
            for batch in data[begin : begin + every]:
                with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                    loss = functions[name](model, batch)
                (loss / every * scale).backward(inputs=own)
                seen[name].append(loss.item())
            for p in own:
                p.grad /= scale
            if clip:
                torch.nn.utils.clip_grad_norm_(own, clip)
            factor = min(1, (n_steps + 1) / warmup) if warmup else 1
            optimizer.param_groups[0]["lr"] = 0.1 * factor
            optimizer.step()
            optimizer.param_groups[0]["lr"] = 0.1
            n_steps += 1
    return model.state_dict(), {name: sum(each) / len(each) for name, each in seen.items()}


def train(*components):
    """Train two epochs with the library."""
    NOISE.manual_seed(2)
    loop = TrainTestLoop(make_model(), [make_steps(), *components], make_data())
    loop.train(2)
    return loop


def check(expected, loop, tolerance=1e-6):
    """Check the weights, and the mean losses of the last epoch."""
    weights, means = expected
    torch.testing.assert_close(weights, loop.model.state_dict(), rtol=tolerance, atol=tolerance)
    actual = {name: loop.metrics[f"train/loss/{name}"] for name in means}
    assert means == pytest.approx(actual, rel=tolerance * 10, abs=tolerance * 10)


def test_is_the_loop_by_hand():
    """Three steps of the critic and one of the generator, each by its own loss alone."""
    check(by_hand(), train())


CASES = {
    "accumulation": ([use("grad-accumulation", every=2)], {"every": 2}),
    "clip": ([use("grad-clip", max_norm=0.05)], {"clip": 0.05}),
    "warm-up": ([use("lr-warmup", n_steps=10)], {"warmup": 10}),
    "bf16": ([use("amp")], {"cast": True}),
    "all": (
        [
            use("lr-warmup", n_steps=10),
            use("grad-clip", max_norm=0.05),
            use("grad-accumulation", every=2),
        ],
        {"every": 2, "clip": 0.05, "warmup": 10},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_components_act_on_each_network(name):
    """Accumulation, clipping, warm-up and casts are those by hand, whosever turn it is."""
    components, options = CASES[name]
    check(by_hand(**options), train(*components), tolerance=1e-2 if name == "bf16" else 1e-6)


def test_in_half_precision_each_gradient_is_unscaled():
    """With fp16 the loss of each turn is scaled, and steps are those of unscaled gradients."""
    loop = train(use("amp", dtype="fp16", init_scale=16.0))
    torch.testing.assert_close(by_hand()[0], loop.model.state_dict(), rtol=1e-2, atol=1e-2)


def test_averages_and_schedules_are_of_both():
    """`ema` averages the weights of both networks, and `lr-schedule` scales both rates."""
    loop = train(use("ema", decay=0.0), use("lr-schedule", kind="constant"))
    check(by_hand(), loop)
    averaged = loop.components["ema"].averaged.module
    torch.testing.assert_close(dict(averaged.state_dict()), dict(loop.model.state_dict()))


def test_resumes_inside_a_cycle(tmp_path):
    """From a state after any number of steps, turns, momentum and means are the same."""
    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            states.append((loop.state_dict(), NOISE.get_state()))

    whole = train(Save())
    for n in (1, 3, 12):
        state, noise = states[n]
        torch.save(state, tmp_path / "state.pt")
        resumed = TrainTestLoop(make_model(), [make_steps()], make_data())
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        NOISE.set_state(noise)
        resumed.train(2)
        torch.testing.assert_close(
            whole.model.state_dict(), resumed.model.state_dict(), rtol=0, atol=0
        )
        assert dict(whole.metrics) == dict(resumed.metrics)


def test_validation_has_the_losses_of_all():
    """Each is logged, and `loop.loss` is their sum."""
    loop = TrainTestLoop(make_model(), [make_steps(), "metrics"], make_data(4), make_data(2))
    loop.train(1)
    means = [loop.metrics[f"valid/loss/{name}"] for name in ("critic", "generator")]
    assert pytest.approx(sum(means)) == loop.metrics["valid/loss"]


@pytest.mark.parametrize("zero", [0, 0.0, torch.tensor(0)], ids=["int", "float", "tensor"])
def test_a_batch_of_weight_0_adds_nothing_to_the_means(zero):
    """The mean loss of nothing, as of an empty batch, is NaN, but that of its epoch is not."""

    class Weights(LoopComponent):
        def on_batch_begin(self, loop):
            loop.batch_size = [3, zero, 1][loop.batch_num]

    step = Alternating({"critic": lambda loop: loop.batch.mean()}, {"critic": SGD})
    batches = [torch.tensor([1.0]), torch.tensor([]), torch.tensor([5.0])]
    loop = TrainTestLoop(make_model(), [step, Weights()])
    loop.validate(batches)
    assert (3 * 1.0 + 1 * 5.0) / 4 == float(loop.metrics["valid/loss/critic"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_means_of_losses_in_half_precision_are_exact(dtype):
    """Sums are not rounded to it, which would leave out later losses, or be infinite."""
    losses = [float(i % 7) for i in range(3000)]
    step = Alternating({"critic": lambda loop: loop.batch.mean()}, {"critic": SGD})
    loop = TrainTestLoop(make_model(), [step])
    loop.validate([torch.full((64,), loss, dtype=dtype) for loss in losses])
    assert pytest.approx(sum(losses) / len(losses)) == loop.metrics["valid/loss/critic"]


def test_the_loss_of_training_is_that_of_validation():
    """It is the sum of both networks in both, of which training has the newest."""
    latest, expected, seen = {}, [], []

    class Watch(LoopComponent):
        def on_log(self, loop, metrics, level):
            if level == "batch":
                latest.update({name: float(loss) for name, loss in metrics.items()})

        def on_batch_end(self, loop):
            expected.append(sum(latest.values()))
            seen.append(float(loop.loss))

    loop = TrainTestLoop(make_model(), [make_steps(), Watch(), "metrics"], make_data(7))
    loop.train(1)
    assert {"train/loss/critic", "train/loss/generator"} == latest.keys()
    assert pytest.approx(expected) == seen
    assert pytest.approx(sum(expected) / 7) == float(loop.metrics["train/loss"])


def test_prediction_without_a_function_is_an_error():
    """It says what to give."""
    loop = TrainTestLoop(make_model(), [make_steps()])
    with pytest.raises(RunError, match="give it predict=, a function of the loop"):
        loop.predict([torch.randn(2, 2)])


def test_predicts_by_a_function():
    """`predict=` gives the scores of a batch."""
    steps = make_steps(predict=lambda loop: loop.model["generator"](loop.batch))
    loop = TrainTestLoop(make_model(), [steps])
    assert [(5, 3)] == [scores.shape for scores in loop.predict([torch.ones(5, 2)])]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda loop: 3.0, "the loss of 'critic' is 3.0, but has to be"),
        (lambda loop: loop.model["critic"](loop.batch), r"'critic' is a tensor of shape \(4, 1\)"),
        (
            lambda loop: loop.model["generator"](torch.ones(4, 2)).mean(),
            "'critic' does not depend on any parameter of 'critic'",
        ),
    ],
)
def test_a_loss_that_trains_nothing_is_an_error(loss, message):
    """It names the network."""
    losses = {"critic": loss, "generator": lambda loop: generator_loss(loop.model, loop.batch)}
    steps = Alternating(losses, dict.fromkeys(losses, SGD))
    with pytest.raises(ArgumentError, match=message):
        TrainTestLoop(make_model(), [steps], make_data()).train(1)


def test_a_network_may_be_frozen():
    """Its turns change nothing."""
    loop = TrainTestLoop(
        make_model(), [make_steps(), use("freeze", patterns="generator.*")], make_data()
    )
    before = loop.model["generator"].weight.clone()
    loop.train(1)
    assert torch.equal(before, loop.model["generator"].weight)
    assert 12 == loop.global_step


def test_an_empty_batch_adds_nothing_to_the_means():
    """Its mean loss is NaN, that of the epoch is not."""
    loop = TrainTestLoop(make_model(), [make_steps(turns={})], make_data(2))
    loop.test([make_data(1)[0], torch.ones(0, 3)])
    assert math.isfinite(loop.metrics["test/loss/generator"])


def test_a_name_that_the_model_does_not_have_is_an_error():
    """It is refused before the first batch, with the names that there are."""
    steps = Alternating({"critik": critic_loss}, {"critik": SGD})
    with pytest.raises(ArgumentError, match=r"no such module. Did you mean 'critic'"):
        TrainTestLoop(make_model(), [steps], make_data()).train(1)


@pytest.mark.parametrize(
    ("arguments", "config", "message"),
    [
        (({}, {}), {}, "losses is {}"),
        (({"a": 1}, {"a": SGD}), {}, "losses is {'a': 1}"),
        (({"a": print}, {"b": SGD}), {}, "losses are for 'a', but optimizers for 'b'"),
        (({"a": print}, {"a": SGD}), {"turns": {"b": 2}}, "turns has 'b', which has no loss"),
        (({"a": print}, {"a": SGD}), {"turns": {"a": 0}}, r"turns\['a'\] is 0"),
        (({"a": print}, {"a": SGD}), {"turns": 3}, "turns is 3"),
        (({"a": print}, {"a": SGD}), {"predict": 3}, "predict is 3"),
    ],
)
def test_refuses_unusable_arguments(arguments, config, message):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=message):
        Alternating(*arguments, **config)
