"""Values of single processes of a group: of collectives, random numbers, losses, parameters."""

import torch
from group_loops import facts, make_loop
from ttl_distributed import parallel

from ttl_core import LoopComponent, local_part, use


def collectives():
    """Return what each method of a group returns."""
    loop = make_loop()
    group, tensor = loop.group, torch.ones(2)
    together = [
        group.sum(group.rank + 1),
        group.sum(0.5),
        group.sum(tensor).tolist(),
        tensor.tolist(),
        group.any(group.rank == 1),
        group.any(False),
        group.gather({"rank": group.rank}),
        group.broadcast(group.rank),
    ]
    group.barrier()
    return together


def first_random_numbers():
    """Return the numbers that processes draw in the first batch."""
    import random

    import numpy

    class Draw(LoopComponent):
        def on_epoch_begin(self, loop):
            self.numbers = [float(torch.rand(())), random.random(), float(numpy.random.rand())]

    draw = Draw()
    random.seed(4)
    numpy.random.seed(4)
    loop = make_loop(draw, valid=False)
    loop.train(1)
    return draw.numbers


def keys_and_parameters():
    """Return whether the names in a model stay, and how many of its parameters are here."""
    loop = make_loop(valid=False)
    names = list(loop.model.state_dict())
    loop.train(1)
    n_here = sum(local_part(parameter).numel() for parameter in loop.model.parameters())
    return names == list(loop.model.state_dict()), n_here


class NanInOne(LoopComponent):
    """A loss that is NaN in one batch of one process."""

    def on_loss_compute(self, loop):
        if loop.is_training and loop.group.rank == 1 and loop.batch_num == 1:
            loop.loss = loop.loss * float("nan")


def skipped_in_one(every):
    """Return what is left of a run in which one process has a loss that is not finite."""
    components = [use("grad-accumulation", every=every)] if every > 1 else []
    loop = make_loop(NanInOne(), *components, use("nan-guard", action="skip"), "metrics")
    loop.train(2)
    return loop.components["nan-guard"].n_skipped, facts(loop)["weights"], loop.global_step


def skipped(every, n_epochs=2):
    """Return what is left of a run whose loss is not finite in batches that do not step."""
    loop = make_loop(
        NanInOne(),
        use("grad-accumulation", every=every),
        use("nan-guard", action="skip"),
        use("grad-clip", max_norm=0.5),
        "metrics",
    )
    loop.train(n_epochs)
    return loop.components["nan-guard"].n_skipped, loop.global_step, facts(loop)["weights"]


class Overflow(LoopComponent):
    """A gradient that is infinite in the part of one process."""

    def on_backward_pass(self, loop):
        if loop.group.rank == 1 and loop.batch_num == 1:
            with torch.no_grad():
                local_part(next(loop.model.parameters()).grad).fill_(torch.inf)


def overflown():
    """Return the steps and the weights of a run in which a gradient overflows in one process."""
    loop = make_loop(Overflow(), use("amp", dtype="fp16", init_scale=8.0), valid=False)
    loop.train(2)
    return loop.global_step, loop.metrics["train/skipped-steps"], facts(loop)["weights"]


def averaged_gradients():
    """Return the gradients of a process, and what all come to that average them."""
    rank = make_loop().group.rank
    tables = [torch.nn.Embedding(4, 2, sparse=True) for _ in range(3)]
    dense = torch.nn.Parameter(torch.zeros(4, 2))
    indices = torch.tensor([[0, 1, 1], [1, 3, 3]][rank])
    (tables[0](indices) * (rank + 1.0)).sum().backward()
    if rank == 1:
        tables[1](indices).sum().backward()
    (tables[2](indices) if rank else tables[2].weight).sum().backward()
    dense.grad = torch.full((4, 2), rank + 1.0)
    parameters = [*(table.weight for table in tables), dense]
    own = [0.0 if p.grad is None else p.grad.to_dense().clone() for p in parameters]
    parallel.average_gradients(parameters, 2)
    return own, [p.grad.to_dense() for p in parameters], [p.grad.is_sparse for p in parameters]
