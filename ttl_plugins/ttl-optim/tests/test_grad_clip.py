"""The behaviour of `grad-clip`."""

import math

import pytest
import torch
from ttl_optim import GradClip

from ttl_core import ArgumentError, LoopComponent
from ttl_core.testing import Step


def norms(loop):
    """Return the norm of all gradients."""
    return torch.nn.utils.get_total_norm([p.grad for p in loop.model.parameters()])


class Logged(LoopComponent):
    """A component that records the norms logged at batch level."""

    def __init__(self):
        self.seen = []

    def on_log(self, loop, metrics, level):
        self.seen += [float(v) for k, v in metrics.items() if k == "train/grad-norm"]


def test_limits_the_norm(make_loop, recorder):
    """After the step no gradient is longer than the limit."""
    after = recorder("on_batch_end", norms)
    make_loop(GradClip(0.01), after).train(1)
    assert [pytest.approx(0.01, rel=1e-3)] * 6 == [float(norm) for norm in after.seen]


def test_limits_each_value(make_loop, recorder):
    """With max_value no element is larger, and some are as large."""
    after = recorder(
        "on_batch_end", lambda loop: max(p.grad.abs().max().item() for p in loop.model.parameters())
    )
    make_loop(GradClip(max_value=0.001), after).train(1)
    assert [pytest.approx(0.001)] * 6 == after.seen


def test_logs_the_norm_that_the_gradients_had(make_loop, recorder):
    """The norm from before clipping is logged for each step."""
    before, logged = recorder("on_backward_pass", norms), Logged()
    make_loop(before, GradClip(0.01), logged).train(1)
    assert [float(norm) for norm in before.seen] == logged.seen


def test_an_infinite_limit_only_logs(make_loop):
    """With `max_norm=math.inf` the weights are the same as without it."""
    plain, watched, logged = make_loop(), make_loop(GradClip(math.inf)), Logged()
    watched.components.append(logged)
    plain.train(1)
    watched.train(1)
    assert 6 == len(logged.seen)
    assert torch.equal(plain.model[0].weight, watched.model[0].weight)


@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_acts_before_the_step_at_any_place_in_the_list(make_loop, place):
    """Before or after the component that steps, the result is that of a hand-written loop."""
    loop = make_loop()
    loop.components.insert(place, GradClip(0.1))
    loop.train(1)
    by_hand = make_loop(data=[])
    by_hand.train(0)
    by_hand.model.train()
    for inputs, targets in loop.train_data:
        by_hand.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(by_hand.model(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(by_hand.model.parameters(), 0.1)
        by_hand.optimizer.step()
        by_hand.scheduler.step()
    assert torch.equal(by_hand.model[0].weight, loop.model[0].weight)


@pytest.mark.parametrize("config", [{"max_norm": 0.01}, {"max_value": 0.001}])
def test_clips_the_gradients_of_all_optimizers(make_loop, config):
    """Where several optimizers step, their gradients are clipped together."""
    seen = []

    class TwoOptimizers(Step):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            weight, *others = loop.model.parameters()
            loop.optimizers = [torch.optim.SGD([weight], lr=0.1), torch.optim.SGD(others, lr=0.1)]

        def on_optim_step(self, loop):
            seen.append([parameter.grad.clone() for parameter in loop.model.parameters()])

    loop = make_loop(GradClip(**config), step=TwoOptimizers())
    loop.train(1)
    if "max_norm" in config:
        sizes = [float(torch.nn.utils.get_total_norm(gradients)) for gradients in seen]
    else:
        sizes = [max(float(g.abs().max()) for g in gradients) for gradients in seen]
    assert [pytest.approx(*config.values(), rel=1e-3)] * 6 == sizes


def test_reads_no_value_from_the_device(make_loop):
    """Gradients whose values cannot be read are clipped, so nothing waits for the device."""

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
        ({"max_norm": 0}, "max_norm is 0, but has to be a number above 0"),
        ({"max_value": -1.0}, "max_value is -1.0"),
        ({"max_norm": math.nan}, "max_norm is nan"),
        ({"max_norm": True}, "max_norm is True"),
        ({"max_value": "1"}, "max_value is '1'"),
        ({"norm_type": 0}, "norm_type is 0, but has to be a number above 0"),
    ],
)
def test_refuses_unusable_limits(config, message):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=message):
        GradClip(**config)


# A14: sparse gradients


class Words(torch.nn.Module):
    """A model of an embedding, which has sparse gradients or not, and a linear layer."""

    def __init__(self, sparse):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.nn.Embedding(5, 3, sparse=sparse)
        self.head = torch.nn.Linear(3, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, batch):
        return self.head(self.rows(batch).mean(dim=1))


class SparseStep(Step):
    """Steps of plain SGD, which takes sparse gradients."""

    def on_train_begin(self, loop):
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1)
        loop.scheduler = torch.optim.lr_scheduler.ConstantLR(loop.optimizer, 1.0)


@pytest.mark.parametrize(
    "config",
    [
        {"max_norm": 0.1},
        {"max_norm": 0.1, "norm_type": math.inf},
        {"max_norm": 0.1, "norm_type": 1},
        {"max_norm": 1e6},
        {"max_value": 0.01},
    ],
)
def test_clips_sparse_gradients_as_dense_ones(make_loop, config):
    """A14: weights and norms are those of a dense embedding, also with rows used twice or never."""
    # row 0 twice in a sample, row 3 in two samples, row 4 never
    data = [(torch.tensor([[0, 0, 3], [1, 3, 2]]), torch.tensor([0, 1]))]
    loops = []
    for sparse in (False, True):
        logged = Logged()
        loop = make_loop(GradClip(**config), logged, step=SparseStep(), data=data * 3)
        loop.model = Words(sparse)
        loop.train(1)
        loop.logged = logged.seen
        loops.append(loop)
    dense, sparse = loops
    assert sparse.model.rows.weight.grad.is_sparse
    torch.testing.assert_close(dense.model.state_dict(), sparse.model.state_dict())
    assert [pytest.approx(norm) for norm in dense.logged] == sparse.logged


@pytest.mark.parametrize("norm_type", [2, math.inf])
def test_clips_a_sparse_gradient_without_rows(make_loop, norm_type):
    """A14: where no row was used, the norm is that of all others."""

    class NoRows(SparseStep):
        def on_loss_compute(self, loop):
            no_rows = loop.model.rows(torch.empty(0, dtype=torch.int64)).sum()
            loop.loss = no_rows + loop.model.head.weight.sum()

        def on_forward_pass(self, loop):
            pass

    logged = Logged()
    loop = make_loop(GradClip(norm_type=norm_type), logged, step=NoRows(), data=[(torch.ones(1),)])
    loop.model = Words(sparse=True)
    loop.train(1)
    assert [pytest.approx(6**0.5 if norm_type == 2 else 1.0)] == logged.seen
