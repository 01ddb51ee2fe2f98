"""The behaviour of `swa`, against the loop of torch's documentation."""

import pytest
import torch
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn
from ttl_optim import GradAccumulation, GradClip, LrSchedule, ParamGroups, Swa

from ttl_core import ArgumentError, LoopComponent, SeededSampler, use
from ttl_core.testing import ComponentConformance, Step, Stream

START, RATE, N_EPOCHS = 2, 0.02, 6


def by_hand(data, every=1, clip=None):
    """Train with torch.optim.swa_utils; return the model, the mean and the rates used."""
    model = ComponentConformance.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    averaged, used, swa = AveragedModel(model), [], None
    for epoch in range(N_EPOCHS):
        if epoch == START:
            swa = SWALR(optimizer, swa_lr=RATE, anneal_epochs=3)
        for i, (x, y) in enumerate(data):
            (torch.nn.functional.cross_entropy(model(x), y) / every).backward()
            if (i + 1) % every:
                continue
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            model.zero_grad()
            if swa is None:
                scheduler.step()
        if swa is not None:
            averaged.update_parameters(model)
            swa.step()
    update_bn([(x,) for x, _ in data], averaged)
    return model, averaged.module, used


class Rates(LoopComponent):
    """A component that records the rates that were used."""

    def __init__(self):
        self.used = []

    def on_train_begin(self, loop):
        loop.optimizer.register_step_post_hook(
            lambda optimizer, *_: self.used.append(optimizer.param_groups[0]["lr"])
        )


def test_scales_of_groups_multiply_the_rate(make_loop):
    """As they multiply that of the optimizer."""
    groups = ParamGroups({"2.*": {"lr_scale": 10}}, decay_norms_and_biases=True)
    loop = make_loop(groups, Swa(0, lr=0.02, anneal_epochs=1))
    loop.train(n_epochs=2)
    first, second = [group["lr"] for group in loop.optimizer.param_groups]
    assert pytest.approx(10 * first) == second


class Spike(LoopComponent):
    """A component whose loss is not a number, once."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, loop):
        if loop.is_training and loop.epoch_num == self.epoch:
            self.epoch = None  # which no state holds
            loop.loss = loop.loss * float("nan")


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_rollback_lowers_the_rates(make_loop, epoch):
    """Before the averaging begins, in its first epoch, and later: it goes to a share of `lr`."""

    def last_rate(*components):
        swa = Swa(2, lr=0.02, anneal_epochs=1)
        loop = make_loop(*components, swa, data=ComponentConformance.make_data(4))
        loop.train(n_epochs=5)
        return loop.optimizer.param_groups[0]["lr"]

    rollback = use("rollback", every=2, n_quiet=1, lr_factor=0.5)
    assert last_rate() * 0.5 == pytest.approx(last_rate(Spike(epoch), rollback))


@pytest.mark.parametrize("is_seeded", [True, False])
def test_the_order_of_the_data_is_that_of_a_run_without_it(make_loop, is_seeded):
    """A pass for statistics is no epoch of the sampler, and draws nothing from its generator."""

    def trained(*components):
        data = torch.utils.data.TensorDataset(
            *(torch.cat(parts) for parts in zip(*ComponentConformance.make_data(4), strict=True))
        )
        generator = torch.Generator().manual_seed(1)
        order = {"shuffle": True, "generator": generator}
        if is_seeded:
            order = {"sampler": SeededSampler(data)}
        loader = torch.utils.data.DataLoader(data, batch_size=6, **order)
        loop = make_loop(*components, data=loader)
        loop.train(3)
        return loop.model

    check(trained(), trained(Swa(0)))


class PlainStep(Step):
    """Steps without a scheduler of their own."""

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.scheduler = None


@pytest.mark.parametrize("is_first", [True, False])
def test_its_rate_is_used_in_place_of_that_of_a_schedule(make_loop, is_first):
    """It is so in any order of the two in the list."""
    rates = Rates()
    others = [LrSchedule("constant"), Swa(1, lr=RATE, anneal_epochs=0)]
    loop = make_loop(*(others[::-1] if is_first else others), rates, step=PlainStep())
    loop.train(2)
    n_batches = len(loop.train_data)
    assert [0.1] * n_batches + [RATE] * n_batches == rates.used


def check(expected, actual):
    """Check that two models have the same parameters and buffers."""
    torch.testing.assert_close(dict(expected.state_dict()), dict(actual.state_dict()))


@pytest.mark.parametrize("config", [{}, {"every": 2, "clip": 0.1}], ids=["alone", "with others"])
def test_is_the_loop_of_the_documentation(make_loop, config):
    """Weights, mean, statistics of batch norms and rates are those of swa_utils by hand."""
    rates = Rates()
    others = [GradAccumulation(2), GradClip(0.1)] if config else []
    loop = make_loop(Swa(START, lr=RATE, anneal_epochs=3), *others, rates)
    loop.train(N_EPOCHS)
    model, averaged, used = by_hand(loop.train_data, **config)
    check(model, loop.model)
    check(averaged, loop.components["swa"].averaged.module)
    assert pytest.approx(used) == rates.used


def test_validates_and_tests_the_mean(make_loop):
    """The validation loss is that of the mean with its statistics; the weights are restored."""
    valid_data = ComponentConformance.make_data(2)
    losses = []

    class Losses(LoopComponent):
        def on_batch_end(self, loop):
            if not loop.is_training:
                losses.append(loop.loss.item())

    loop = make_loop(Swa(0), Losses(), valid_data=valid_data)
    loop.train(2)
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    losses.clear()
    loop.test(valid_data)
    averaged = loop.components["swa"].averaged.module.eval()
    with torch.no_grad():
        expected = [torch.nn.functional.cross_entropy(averaged(x), y).item() for x, y in valid_data]
    assert expected == losses
    torch.testing.assert_close(before, dict(loop.model.state_dict()), rtol=0, atol=0)


def test_random_numbers_are_those_of_a_run_without_it(make_loop):
    """A pass for statistics over a model with dropout leaves training as it is."""
    weights = []
    for components in ([], [Swa(0)]):
        loop = make_loop(*components)
        loop.model.append(torch.nn.Dropout(0.5))
        torch.manual_seed(0)
        loop.train(2)
        weights.append(dict(loop.model.state_dict()))
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_a_pass_for_statistics_that_fails_leaves_the_model_as_it_was(make_loop):
    """Batch norms of a run that resumes in the same process have the momentum that they had."""

    class Interrupt(LoopComponent):
        n_passes = 0

        def on_forward_pass(self, loop):
            self.n_passes += 1
            if self.n_passes == len(loop.train_data) + 2:
                raise KeyboardInterrupt

    loop = make_loop(Swa(0), Interrupt())
    with pytest.raises(KeyboardInterrupt):
        loop.train(1)
    assert 0.1 == loop.model[1].momentum


def test_statistics_may_be_of_some_batches(make_loop):
    """With bn_batches= the pass ends after so many."""
    loop = make_loop(Swa(0, bn_batches=2))
    loop.train(1)
    assert 2 == loop.components["swa"].averaged.module[1].num_batches_tracked


@pytest.mark.parametrize(("start", "n_said"), [(1, 0), (2, 1)])
def test_a_run_that_ends_before_averaging_begins_says_so(make_loop, caplog, start, n_said):
    """It would else pass for one that was averaged."""
    make_loop(Swa(start)).train(2)
    assert n_said == len([m for m in caplog.messages if m.startswith("swa: nothing is averaged")])


def test_resumes_behind_the_last_batch_of_an_epoch(make_loop):
    """Data without a length have a safe point there, and the resumed epoch has no batch left."""

    class Shards(Stream):
        n = 0

        def __iter__(self):
            while self.n < len(self.batches):
                self.n += 1
                yield self.batches[self.n - 1]
            self.n = 0

        def state_dict(self):
            return {"n": self.n}

        def load_state_dict(self, state):
            self.n = state["n"]

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            if (loop.epoch_num, loop.global_step) == (1, 6):
                states.append(loop.state_dict())

    states = []
    data = ComponentConformance.make_data()
    whole = make_loop(Swa(start_epoch=1), Save(), data=Shards(data))
    whole.train(2)
    resumed = make_loop(Swa(start_epoch=1), data=Shards(data))
    resumed.load_state_dict(states[0])
    resumed.train(2)
    check(whole.components["swa"].averaged, resumed.components["swa"].averaged)


def test_disabled_after_an_epoch_the_mean_stays(make_loop):
    """It is of the epochs in which it was enabled."""

    class Disable(LoopComponent):
        def on_epoch_begin(self, loop):
            if loop.epoch_num == 2:
                loop.components.disable("swa")

    loop = make_loop(Swa(0), Disable())
    loop.train(4)
    assert 2 == loop.components["swa"].averaged.n_averaged


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"start_epoch": -1}, "start_epoch is -1"),
        ({"start_epoch": 0, "lr": 0}, "lr is 0"),
        ({"start_epoch": 0, "anneal": "cosine"}, "anneal is 'cosine'.*Did you mean 'cos'"),
        ({"start_epoch": 0, "anneal_epochs": 1.5}, "anneal_epochs is 1.5"),
        ({"start_epoch": 0, "bn_batches": 0}, "bn_batches is 0"),
    ],
)
def test_refuses_unusable_arguments(config, message):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=message):
        Swa(**config)
