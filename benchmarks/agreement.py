"""Whether contenders do the same work: their losses and weights against the hand-written loop's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from benchmarks.contender import Contender
from benchmarks.measuring import call, make_task
from benchmarks.task import N_ACCUMULATED, Outcome
from benchmarks.workloads import N_EPOCHS, Workload

N_BATCHES = 5 * N_ACCUMULATED
TOLERANCE = 1e-3


class DifferentWorkError(Exception):
    """A contender that arrives at other losses or weights than the hand-written loop."""


@dataclass(frozen=True)
class Trained:
    """What training arrives at.

    Attributes:
        losses: the loss of each batch.
        weights: the weights of the model, as one vector.
        outcome: the rest, for the everyday set.
    """

    losses: torch.Tensor
    weights: torch.Tensor
    outcome: Outcome | None


def train(contender: Contender, workload: Workload) -> Trained:
    """Run a contender on a few batches, and note the losses of all."""
    losses: list[torch.Tensor] = []

    def loss_func(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(scores, targets)
        losses.append(loss.detach().clone())
        return loss

    with make_task(N_BATCHES, loss_func) as task:
        outcome = call(contender, workload, task)
        if outcome is not None and not any(task.directory.rglob("*")):
            raise DifferentWorkError(f"{contender.name} has saved no checkpoint")
        weights = _vector(task.model.parameters())
    # Keras computes one before training, to find shapes
    return Trained(torch.stack(losses[-N_EPOCHS * N_BATCHES :]), weights, outcome)


def largest_difference(trained: Trained, expected: Trained) -> float:
    """Return the largest relative difference in losses, weights and metrics; 0 for the same bits.

    Args:
        trained: what a contender arrives at.
        expected: what the hand-written loop arrives at.
    """
    if trained.losses.shape != expected.losses.shape:
        return float("inf")
    pairs = [(trained.losses, expected.losses), (trained.weights, expected.weights)]
    if trained.outcome is not None and expected.outcome is not None:
        one, other = trained.outcome, expected.outcome
        pairs += [(torch.tensor(one.loss), torch.tensor(other.loss))]
        pairs += [(torch.tensor(one.accuracy), torch.tensor(other.accuracy))]
        if one.averages is not None and other.averages is not None:
            pairs += [(_vector(one.averages), _vector(other.averages))]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def _vector(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def check_same_work(contender: Contender, by_hand: Contender, workload: Workload) -> float:
    """Return the largest relative difference from the hand-written loop.

    Raises:
        DifferentWorkError: it is too large.
    """
    difference = largest_difference(train(contender, workload), train(by_hand, workload))
    if difference > TOLERANCE:
        raise DifferentWorkError(
            f"losses, weights or metrics of {contender.name} in {workload.name!r} differ from "
            f"those of the hand-written loop by {difference:.1e} of them"
        )
    return difference
