"""A component that makes two passes, beside others that change batches, accumulate, and cast."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn.functional import cross_entropy

from ttl_core import LoopComponent, TrainTestLoop, hookimpl, optimizer_parameters, use

pytestmark = pytest.mark.usefixtures("one_thread")

RADIUS = 0.5


class Targets(NamedTuple):
    """The targets of a batch in which pairs of samples are mixed."""

    first: torch.Tensor
    second: torch.Tensor
    share: torch.Tensor


def mix(batch: Any, generator: torch.Generator) -> Any:
    """Return a batch in which each sample is mixed with another one."""
    inputs, targets = batch
    share = torch.rand((), generator=generator, dtype=inputs.dtype)
    order = torch.randperm(len(inputs), generator=generator)
    mixed = share * inputs + (1 - share) * inputs[order]
    return mixed, Targets(targets, targets[order], share)


def mixed_loss(scores: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the loss of mixed samples."""
    first, second = cross_entropy(scores, targets.first), cross_entropy(scores, targets.second)
    return targets.share * first + (1 - targets.share) * second


class Mixup(LoopComponent):
    """Mixed samples. What belongs to a batch is in the batch."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        loop.batch = mix(loop.batch, self.generator)


class ForgetfulMixup(Mixup):
    """Mixed samples, of which the component keeps what belongs to the current batch only."""

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        super().on_batch_begin(loop)
        self.targets = loop.batch[1]

    @hookimpl(trylast=True)
    def on_loss_compute(self, loop: TrainTestLoop) -> None:
        loop.loss = mixed_loss(loop.scores, self.targets)


class Sam(LoopComponent):
    """Sharpness-aware minimization: the gradient of a step is that of the worst point nearby."""

    before = "supervised"

    def __init__(self, radius: float = RADIUS) -> None:
        self.radius = radius

    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        self.batches: list[Any] = []

    def on_backward_pass(self, loop: TrainTestLoop) -> None:
        self.batches.append((loop.batch, loop.batch_size))

    def on_optim_step(self, loop: TrainTestLoop) -> None:
        parameters = list(optimizer_parameters(loop))
        weights = ascend(parameters, self.radius)
        n_samples = sum(size for _, size in self.batches)
        for batch, size in self.batches:
            (loop.recompute(batch) * (size / n_samples)).backward()
        restore(parameters, weights)


@torch.no_grad()
def ascend(parameters: list[Any], radius: float) -> list[torch.Tensor]:
    """Move parameters up their gradient, which is cleared; return where they were."""
    weights = [parameter.clone() for parameter in parameters]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
    for parameter in parameters:
        parameter += parameter.grad * (radius / norm)
        parameter.grad = None
    return weights


@torch.no_grad()
def restore(parameters: list[Any], weights: list[torch.Tensor]) -> None:
    """Move parameters back."""
    for parameter, weight in zip(parameters, weights, strict=True):
        parameter.copy_(weight)


def make_model(dtype: torch.dtype) -> torch.nn.Module:
    """Return a model that draws random numbers in its forward pass."""
    torch.manual_seed(0)
    layers = [
        torch.nn.Linear(4, 16),
        torch.nn.Dropout(0.2),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 3),
    ]
    return torch.nn.Sequential(*layers).to(dtype)


def make_data(dtype: torch.dtype, sizes: list[int]) -> list[Any]:
    """Return batches of some sizes."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(n, 4, generator=generator).to(dtype),
            torch.randint(0, 3, (n,), generator=generator),
        )
        for n in sizes
    ]


def by_hand(data: list[Any], *, every: int, n_epochs: int, is_cast: bool) -> torch.nn.Module:
    """Train as a loop without components does."""
    model = make_model(data[0][0].dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    generator = torch.Generator().manual_seed(3)

    def compute(batch: Any) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=is_cast):
            return mixed_loss(model(batch[0]), batch[1])

    torch.manual_seed(5)
    for _ in range(n_epochs):
        for group in [data[i : i + every] for i in range(0, len(data), every)]:
            optimizer.zero_grad()
            n_samples = sum(len(batch[0]) for batch in group)
            batches = []
            for batch in group:
                batches.append(mix(batch, generator))
                (compute(batches[-1]) * (len(batch[0]) / n_samples)).backward()
            weights = ascend(list(model.parameters()), RADIUS)
            for batch in batches:
                (compute(batch) * (len(batch[0]) / n_samples)).backward()
            restore(list(model.parameters()), weights)
            optimizer.step()
    return model


def by_components(
    data: list[Any], *, every: int, n_epochs: int, is_cast: bool, mixup: type[Mixup] = Mixup
) -> TrainTestLoop:
    """Train with a component for each technique."""
    loop = TrainTestLoop(
        make_model(data[0][0].dtype),
        [
            *(mixup(), Sam()),
            use(
                "supervised",
                loss_func=mixed_loss,
                optimizer=functools.partial(torch.optim.SGD, lr=0.5, momentum=0.9),
            ),
            use("grad-accumulation", every=every),
            *(["amp"] if is_cast else []),
            "metrics",
        ],
        data,
    )
    torch.manual_seed(5)
    loop.train(n_epochs)
    return loop


def difference(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """Return the largest difference between the parameters of two models."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize(
    ("dtype", "sizes", "every", "is_cast"),
    [
        (torch.float64, [8] * 6, 1, False),
        (torch.float64, [8, 8, 3, 8, 5], 3, False),
        (torch.float32, [8] * 6, 2, True),
    ],
    ids=["alone", "accumulated unevenly", "accumulated in bf16"],
)
def test_two_passes_of_mixed_batches_are_those_of_a_loop_by_hand(dtype, sizes, every, is_cast):
    """Mixed samples, two passes, accumulation and casts together train what a plain loop does."""
    data, options = make_data(dtype, sizes), {"every": every, "n_epochs": 3, "is_cast": is_cast}
    loop = by_components(data, **options)
    assert difference(by_hand(data, **options), loop.model) < 1e-6
    assert {"train/loss"} == loop.metrics.keys()


def test_a_component_that_keeps_its_batch_to_itself_trains_something_else():
    """The rule matters: what a batch needs later travels with it."""
    data, options = make_data(torch.float64, [8] * 6), {"every": 2, "n_epochs": 3, "is_cast": False}
    loop = by_components(data, **options, mixup=ForgetfulMixup)
    assert difference(by_hand(data, **options), loop.model) > 1e-3
