"""Trials leave the run as it is, and say what they found."""

import logging
import re
from functools import partial

import pytest
import torch
from ttl_trials import compare

from ttl_core import ArgumentError, LoopComponent, RunError, TrainTestLoop, use
from ttl_core.testing import Step, tiny_data, tiny_loop, tiny_model


class Noise(LoopComponent):
    """Adds random numbers to the batch, as augmentation does."""

    def on_batch_begin(self, loop):
        inputs, targets = loop.batch
        loop.batch = inputs + torch.rand_like(inputs), targets


class Unrepeatable(LoopComponent):
    """Adds numbers to the loss that no state holds."""

    def __init__(self):
        self.generator = [iter(range(10**6))]

    def on_loss_compute(self, loop):
        loop.loss = loop.loss * (1 + next(self.generator[0]))


def trained(*components):
    """Return a loop that was trained for two epochs."""
    torch.manual_seed(1)
    items = [Step(), Noise(), "metrics", *components]
    loop = TrainTestLoop(tiny_model(), items, tiny_data(8), tiny_data(2))
    loop.train(n_epochs=2)
    return loop


@pytest.mark.parametrize("trial", [use("lr-finder", n_steps=30), use("replay-check", every=3)])
def test_the_run_stays_as_it_is(trial):
    """It ends in the bits of one without the trial, with random numbers in it."""
    one, other = trained(trial), trained()
    assert one.metrics == other.metrics
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])


def quadratic(**config):
    """Return a loop whose loss falls most steeply at a known rate: it diverges above 1."""

    class Quadratic(Step):
        def on_train_begin(self, loop):
            loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1)
            loop.scheduler = None

        def on_forward_pass(self, loop):
            loop.scores = loop.model.weight

        def on_loss_compute(self, loop):
            loop.loss = loop.scores.square().sum()

    model = torch.nn.Linear(3, 1, bias=False)
    model.weight.data.fill_(1.0)
    finder = use("lr-finder", **config)
    return TrainTestLoop(model, [Quadratic(), finder], tiny_data(4))


def test_the_suggestion_is_below_where_it_diverges():
    """The loss of w² falls by steps of rates below 1, and rises above."""
    loop = quadratic(n_steps=60)
    loop.train(n_epochs=1)
    finder = loop.components["lr-finder"]
    assert 1e-3 < finder.suggestion < 1
    assert len(finder.losses) == len(finder.rates) <= 60


@pytest.mark.parametrize(
    ("apply", "says"),
    [
        (False, r"the suggested learning rate is ([\d.e-]+); the run has 0\.1$"),
        (True, r"the learning rate is ([\d.e-]+), as suggested, in place of 0\.1$"),
    ],
)
def test_what_was_found_is_logged_where_it_is_seen(caplog, apply, says):
    """As a warning: of what is suggested, or of what has changed."""
    finder = use("lr-finder", n_steps=30, apply=apply)
    loop = tiny_loop(Step(), finder, n_batches=10)
    loop.train(n_epochs=1)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    logged = float(re.search(says, record.getMessage())[1])
    assert logged == pytest.approx(loop.components["lr-finder"].suggestion, rel=1e-2)


def test_the_suggestion_can_be_applied():
    """To all groups of the optimizers of the run."""
    loop = quadratic(n_steps=60, apply=True)
    loop.train(n_epochs=1)
    assert loop.optimizer.param_groups[0]["lr"] == loop.components["lr-finder"].suggestion


@pytest.mark.parametrize("scale", [0.1, 10])
def test_groups_keep_the_ratios_of_their_rates(caplog, scale):
    """The suggestion is that of the rate which the optimizer was given."""
    groups = use("param-groups", patterns={"*.bias": {"lr_scale": scale}})
    finder = use("lr-finder", n_steps=30, apply=True)
    loop = tiny_loop(use("supervised", **SUPERVISED), groups, finder, n_batches=8)
    loop.train(n_epochs=1)
    suggestion = loop.components["lr-finder"].suggestion
    rates = {len(group["params"]): group["lr"] for group in loop.optimizer.param_groups}
    assert pytest.approx([suggestion, suggestion * scale]) == [rates[2], rates[3]]
    assert f"{suggestion:.3g}, {suggestion * scale:.3g}, as suggested" in caplog.text


def test_a_resumed_run_has_the_applied_suggestion(caplog):
    """It is that of the state, so the settings of the script are those of the run; once logged."""
    states = []

    class Keep(LoopComponent):
        def on_safe_point(self, loop):
            states.append(loop.state_dict())

        def fork(self):
            return None

    loop = quadratic(n_steps=60, apply=True)
    loop.components.append(Keep())
    loop.train(n_epochs=2)
    resumed = quadratic(n_steps=60, apply=True)
    resumed.components.append(Keep())
    resumed.load_state_dict(states[1])
    resumed.train(n_epochs=2)
    assert 1 == len(caplog.records)
    assert loop.optimizer.param_groups[0]["lr"] == resumed.optimizer.param_groups[0]["lr"]
    assert torch.equal(loop.model.weight, resumed.model.weight)


@pytest.mark.parametrize("is_first", [True, False])
def test_the_suggestion_is_the_full_rate_of_a_schedule(is_first):
    """Of lr-schedule, wherever it is in the list, which computes rates from that one."""
    loop = quadratic(n_steps=60, apply=True)
    schedule = use("lr-schedule", kind="constant", warmup=2)
    loop.components.insert(1 if is_first else 2, schedule)
    loop.train(n_epochs=1)
    (group,) = loop.optimizer.param_groups
    assert [loop.components["lr-finder"].suggestion] * 2 == [group["full_lr"], group["lr"]]


SCHEDULERS = torch.optim.lr_scheduler
SUPERVISED = {
    "loss_func": torch.nn.functional.cross_entropy,
    "optimizer": partial(torch.optim.SGD, lr=0.01),
}


class Rates(LoopComponent):
    """The rates of the steps of a run, without those of its trials."""

    def __init__(self):
        self.used = []

    def on_optim_step(self, loop):
        self.used.append(loop.optimizer.param_groups[0]["lr"])

    def fork(self):
        return None


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda optimizer, _: SCHEDULERS.LinearLR(optimizer, 0.1, total_iters=4),
        lambda optimizer, _: SCHEDULERS.LambdaLR(optimizer, lambda i: min(1.0, (i + 1) / 4)),
        lambda optimizer, _: SCHEDULERS.OneCycleLR(optimizer, 0.01, total_steps=60),
        lambda optimizer, _: SCHEDULERS.SequentialLR(
            optimizer,
            [SCHEDULERS.LinearLR(optimizer, 0.1, total_iters=3), SCHEDULERS.StepLR(optimizer, 2)],
            milestones=[3],
        ),
    ],
)
def test_the_suggestion_is_the_full_rate_of_a_scheduler(scheduler):
    """The rates are those of the same scheduler by hand, made with the suggestion."""
    rates = Rates()
    steps = use("supervised", **SUPERVISED, scheduler=scheduler)
    finder = use("lr-finder", n_steps=30, apply=True)
    loop = TrainTestLoop(tiny_model(), [rates, steps, finder], tiny_data(8))
    loop.train(n_epochs=1)
    suggestion = loop.components["lr-finder"].suggestion
    model = tiny_model()
    by_hand = scheduler(torch.optim.SGD(model.parameters(), lr=0.01), None)
    expected = []
    for _ in range(8):
        expected.append(by_hand.optimizer.param_groups[0]["lr"] * suggestion / 0.01)
        by_hand.optimizer.step()
        by_hand.step()
    assert pytest.approx(expected) == rates.used


@pytest.mark.parametrize(
    "trial",
    [use("lr-finder", n_steps=30), use("batch-size-finder", memory_limit="1GiB", largest=8)],
)
def test_the_scheduler_of_a_run_may_monitor_a_metric_of_validation(trial):
    """A trial has no validation, and needs none."""
    steps = use(
        "supervised", **SUPERVISED, scheduler=SCHEDULERS.ReduceLROnPlateau, monitor="valid/loss"
    )
    x, y = (torch.cat(parts) for parts in zip(*tiny_data(4), strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    loop = TrainTestLoop(tiny_model(), [trial, steps, "metrics"], loader, tiny_data(2))
    loop.train(n_epochs=2)
    assert "valid/loss" in loop.metrics


def test_a_plot_is_drawn(tmp_path):
    """A PNG file."""
    loop = quadratic(n_steps=30, plot=tmp_path / "plots" / "lr.png")
    loop.train(n_epochs=1)
    assert (tmp_path / "plots" / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_is_part_of_the_report(tmp_path):
    """Where it is drawn into the folder of the run."""
    loop = quadratic(n_steps=30, plot=True)
    with pytest.raises(ArgumentError, match="no folder of the run"):
        loop.train(n_epochs=1)
    loop.components[0:0] = [use("run-folder", directory=tmp_path / "run"), "report"]
    loop.train(n_epochs=1)
    assert (tmp_path / "run" / "lr-finder.png").read_bytes().startswith(b"\x89PNG")
    assert 'alt="lr-finder"' in (tmp_path / "run" / "report.html").read_text()


def test_rates_have_to_rise():
    """Else there is nothing to sweep."""
    with pytest.raises(ArgumentError, match="have to rise"):
        quadratic(lowest=1.0, highest=0.1)


def test_what_cannot_be_repeated_is_found(caplog):
    """With the parts that differ, and the components that draw."""
    with caplog.at_level(logging.WARNING):
        loop = trained(Unrepeatable(), use("replay-check", every=5))
    check = loop.components["replay-check"]
    assert "the weight 0.weight" in check.differing
    assert check.drawing == ["noise"]
    assert "made twice from one state differs in" in caplog.text


def test_the_lists_of_an_optimizer_are_compared():
    """LBFGS keeps several directions, which are the same in both steps."""
    steps = use("supervised", loss_func=SUPERVISED["loss_func"], optimizer=torch.optim.LBFGS)
    loop = TrainTestLoop(tiny_model(), [steps, use("replay-check", every=2)], tiny_data(6))
    loop.train(n_epochs=1)
    check = loop.components["replay-check"]
    assert (2, []) == (check.n_checked, check.differing)


def test_it_can_be_an_error():
    """As in a test of determinism."""
    with pytest.raises(RunError, match="use_deterministic_algorithms"):
        trained(Unrepeatable(), use("replay-check", every=5, action="raise"))


def test_variants_start_from_one_state():
    """What is toggled alone makes the difference: none for ema, one for the noise."""
    loop = trained(use("ema", decay=0.5))
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    found = compare(loop, "ema", "noise", steps=6)
    assert found.losses["as it is"] == found.losses["ema"] != found.losses["noise"]
    assert [len(losses) for losses in found.losses.values()] == [6, 6, 6]
    assert str(found).splitlines()[0].split()[0] == "variant"
    assert all(torch.equal(value, before[name]) for name, value in loop.model.state_dict().items())


def test_variants_are_validated_at_their_ends():
    """What acts in validation alone, as averages do, shows in a column of its own."""
    ema = use("ema", decay=0.5)
    loop = tiny_loop(Step(), "metrics", ema, n_batches=8)
    loop.components.disable("ema")
    found = compare(loop, "ema", steps=6)
    assert found.losses["as it is"] == found.losses["ema"]
    head, plain, averaged = [line.split("  ") for line in str(found).splitlines()]
    assert "valid/loss" == head[-1]
    assert float(plain[-1]) != float(averaged[-1])
    assert float(averaged[-1]) == pytest.approx(found.metrics["ema"]["valid/loss"], rel=1e-5)
    assert not loop.metrics


def test_one_name_may_be_left_out():
    """As by fork()."""
    found = compare(tiny_loop(Step(), "ema"), "sam", steps=1, without="ema")
    assert found.left_out == ("ema",)


def test_a_component_is_added_in_mid_run():
    """Also one with state, which the state of the run does not have."""
    found = []

    class Compare(LoopComponent):
        def on_safe_point(self, loop):
            if loop.global_step == 3 and not found:
                found.append(compare(loop, "ema", steps=4))

        def fork(self):
            return None

    loop = tiny_loop(Step(), Compare(), n_batches=8)
    loop.train(n_epochs=2)
    assert found[0].losses["as it is"] == found[0].losses["ema"]
    assert loop.global_step == 16
