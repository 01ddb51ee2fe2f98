"""What the loop itself costs, with steps that do nothing."""

import contextlib

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop

pytestmark = pytest.mark.bench

BATCH_POINTS = (
    "on_grads_reset",
    "on_batch_begin",
    "on_forward_pass",
    "on_loss_compute",
    "on_backward_pass",
    "on_optim_step",
    "on_batch_end",
)
N_BATCHES = 10_000


class SeedComponent:
    """Have every callback as a no-op, which is called."""

    def _nothing(self, loop):
        pass

    on_train_begin = on_epoch_begin = on_epoch_end = on_train_end = _nothing
    on_grads_reset = on_batch_begin = on_forward_pass = on_loss_compute = _nothing
    on_backward_pass = on_optim_step = on_batch_end = _nothing


class SeedStyleLoop:
    """Dispatch in the seed's way: for every point, getattr on every component."""

    def __init__(self, model, components, train_data):
        self.model, self.components, self.train_data = model, list(components), train_data

    def call(self, *points):
        for callback in [getattr(c, point) for point in points for c in self.components]:
            callback(self)

    def train(self, n_epochs):
        self.optim_step_num = 0
        self.is_training = True
        self.call("on_train_begin")
        for _ in range(n_epochs):
            self.model.train()
            with contextlib.nullcontext():
                self.call("on_epoch_begin")
                for self.batch_num, self.batch in enumerate(self.train_data):  # noqa: B020
                    if self.is_training:
                        self.call("on_grads_reset")
                    self.call("on_batch_begin")
                    self.call("on_forward_pass")
                    self.call("on_loss_compute")
                    if self.is_training:
                        self.call("on_backward_pass")
                        self.call("on_optim_step")
                        self.optim_step_num += 1
                    self.call("on_batch_end")
                self.call("on_epoch_end")
        self.call("on_train_end")


def component(base, points):
    """Return a component with methods of its own, which do nothing, for these points."""
    namespace = {}
    for point in points:
        exec(f"def {point}(self, loop): pass", namespace)
    return type("Nothing", (base,), {point: namespace[point] for point in points})()


@pytest.mark.parametrize(
    ("n_components", "n_points", "limit"), [(1, 7, 0.35), (5, 7, 0.5), (10, 2, 0.22)]
)
def test_the_whole_loop_against_the_seeds_way(assert_ratio, n_components, n_points, limit):
    """An empty step in the whole loop costs a fraction of the seed's way of dispatching."""
    points = [
        [BATCH_POINTS[(i * n_points + j) % 7] for j in range(n_points)] for i in range(n_components)
    ]
    data, model = range(N_BATCHES), torch.nn.Identity()
    loop = TrainTestLoop(model, [component(LoopComponent, p) for p in points], data)
    seed = SeedStyleLoop(model, [component(SeedComponent, p) for p in points], data)
    assert_ratio(
        f"empty step, {n_components} component(s) of {n_points} points each",
        lambda: loop.train(1),
        "getattr on every component at every point",
        lambda: seed.train(1),
        limit=limit,
        per=N_BATCHES,
    )
