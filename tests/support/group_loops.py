"""Loops that train in one process or in several, and what they come to."""

import functools

import torch
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import BinaryAccuracy

from ttl_core import SeededSampler, TrainTestLoop, map_nested, use, whole_tensor


def dataset(n):
    """Return samples whose last feature is 0 in all but their number's place."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(n, 3, generator=generator)
    targets = (inputs.sum(dim=1, keepdim=True) > 0).float()
    return TensorDataset(inputs, targets)


def numbered(n):
    """Return samples that hold their number."""
    inputs = torch.cat([torch.randn(n, 2), torch.arange(n)[:, None]], dim=1)
    return TensorDataset(inputs, torch.zeros(n, 1))


_parallel = "ddp"


_sgd = functools.partial(torch.optim.SGD, momentum=0.9)


def under(parallel, function, *arguments):
    """Return what a function returns with another first component in the loops that it makes."""
    global _parallel
    before, _parallel = _parallel, parallel
    try:
        return function(*arguments)
    finally:
        _parallel = before


def make_loop(
    *components,
    n=22,
    batch_size=6,
    model=None,
    loss=None,
    valid=True,
    lr=0.1,
    optimizer=_sgd,
    scheduler=None,
    ddp="ddp",
):
    """Return a loop whose first component is ddp, or what `under` was given."""
    torch.manual_seed(1)
    if model is None:
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1, bias=True)
        )
    data = dataset(n)
    return TrainTestLoop(
        model,
        [
            ddp if isinstance(_parallel, str) else use("fsdp", **_parallel),
            use(
                "supervised",
                loss_func=loss or torch.nn.BCEWithLogitsLoss(),
                optimizer=functools.partial(optimizer, lr=lr),
                scheduler=scheduler,
                device="cpu",
            ),
            *components,
        ],
        DataLoader(data, batch_size, sampler=SeededSampler(data, seed=3)),
        DataLoader(dataset(13), 4) if valid else None,
    )


def whole(value):
    """Return nested lists of numbers in place of tensors, of which each process has all."""

    def numbers(item):
        return whole_tensor(item).tolist() if isinstance(item, torch.Tensor) else item

    return map_nested(numbers, value)


def facts(loop):
    """Return what has to be the same: steps, metrics, and the model."""
    metrics = {name: float(value) for name, value in loop.metrics.items()}
    weights = whole(dict(loop.model.state_dict()))
    return {
        "steps": loop.global_step,
        "epochs": loop.epoch_num,
        "stopped": loop.is_stopped,
        "metrics": metrics,
        "weights": weights,
    }


def accuracy():
    """Return the component `metrics` with an accuracy."""
    # of probabilities: it takes scores for these where all of a batch are between 0 and 1
    return use(
        "metrics",
        accuracy=BinaryAccuracy(),
        update_with=lambda loop: (loop.scores.sigmoid(), loop.batch[1]),
    )
