"""What processes of a group refuse together: what they cannot train as one."""

import torch
from group_loops import make_loop

from ttl_core import LoopComponent, use


class NotWhole(LoopComponent):
    """A forward pass by the modules in the model."""

    def on_forward_pass(self, loop):
        loop.scores = loop.batch[0]
        for module in loop.model.children():
            loop.scores = module(loop.scores)

    def on_loss_compute(self, loop):
        loop.loss = loop.scores.mean()


class OneSteps(LoopComponent):
    """Batches in which one process makes no step."""

    def __init__(self, batch_nums):
        self.batch_nums = batch_nums

    def on_batch_begin(self, loop):
        if loop.batch_num in self.batch_nums:
            loop.is_stepping = loop.group.rank == 0


class OneSkips(LoopComponent):
    """A batch whose loss one process does not like."""

    def on_loss_compute(self, loop):
        loop.is_stepping = loop.batch_num != 1 or loop.group.rank == 0


def error_of(name):
    """Return the error that all processes come to."""
    loop = make_loop(valid=False)
    if name == "not whole":
        loop.components = [loop.components[0], NotWhole()]
    if name.startswith("one "):
        component = {
            "one steps": OneSteps(range(4)),
            "one steps in between": OneSteps([1]),
            "one steps at the end": OneSteps([3]),
            "one skips": OneSkips(),
        }[name]
        loop.components.append(component)
    try:
        loop.train(1)
    except RuntimeError as error:
        return str(error)
    return ""


def refusal(loop):
    """Return the error of a run that is refused, after which the group may be used again."""
    try:
        loop.train(1)
    except ValueError as error:
        loop.group.has_failed = False
        return str(error)
    return ""


def refused_optimizer():
    """Return the error of an optimizer that exists before the model is sharded."""
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = make_loop(model=model, valid=False)
    loop.components["supervised"] = use(
        "supervised", loss_func=torch.nn.MSELoss(), optimizer=optimizer
    )
    return refusal(loop)


def refused_argument():
    """Return the error of a run whose model cannot be sharded so."""
    loop = make_loop(valid=False)
    return refusal(loop)
