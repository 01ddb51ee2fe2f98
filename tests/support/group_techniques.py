"""Trainings by techniques that have to come to the same in one process and in several."""

import functools
import math
import warnings

import torch
from group_cases import Gradients
from group_loops import facts, make_loop, whole
from group_stops import Stop
from ttl_augment import Cutmix, Mixup

from ttl_core import LoopComponent, use

# -- mixed samples ----------------------------------------------------------------------------


class Classes(LoopComponent):
    """Images of one row, and targets that are classes by number."""

    def on_batch_begin(self, loop):
        inputs, targets = loop.batch
        loop.batch = inputs.view(-1, 1, 1, 3), targets[:, 0].long()


class InParts:
    """Mixtures within the parts that two processes have of a batch, also in one process.

    Attributes:
        orders: the orders of all batches of this process.
        shares: the shares of them.
    """

    def order(self, n, seed, rank):
        if torch.distributed.is_initialized():
            order = super().order(n, seed, rank)
        else:
            order = torch.arange(n)
            for rank in range(2):
                own = order[rank::2]
                order[rank::2] = own[super().order(len(own), seed, rank)]
        vars(self).setdefault("orders", []).append(order.tolist())
        return order

    def mix(self, inputs, order, share):
        vars(self).setdefault("shares", []).append(share)
        return super().mix(inputs, order, share)


class MixupInParts(InParts, Mixup):
    """Mixup of that kind."""

    name = "mixup"


class CutmixInParts(InParts, Cutmix):
    """Cutmix of that kind."""

    name = "cutmix"


def classifying(*components, **options):
    """Return a loop that trains a classifier."""
    torch.manual_seed(1)
    layers = torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
    model = torch.nn.Sequential(torch.nn.Flatten(), *layers)
    loss = torch.nn.CrossEntropyLoss()
    return make_loop(Classes(), *components, "metrics", model=model, loss=loss, **options)


def mixtures():
    """Return the shares and the orders that a process has mixed by."""
    mixup = MixupInParts(n_classes=2, alpha=1.0)
    classifying(mixup, n=24, valid=False).train(2)
    return mixup.shares, mixup.orders


# -- optimizers and networks ------------------------------------------------------------------


def stepping(cls, lr=0.01, **options):
    """Return a loop with an optimizer of a class."""
    model = options.pop("model", None)
    return make_loop("metrics", optimizer=functools.partial(cls, **options), lr=lr, model=model)


def matrices():
    """Return a model without vectors, as Muon takes no others."""
    torch.manual_seed(1)
    layers = [torch.nn.Linear(*shape, bias=False) for shape in ((3, 8), (8, 8), (8, 1))]
    return torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], layers[2])


class Doubles(LoopComponent):
    """A batch in float64, as curvatures amplify how sums are rounded."""

    def on_batch_begin(self, loop):
        loop.batch = tuple(part.double() for part in loop.batch)


def by_lbfgs(*components, **options):
    """Return a loop that steps by several passes, and decides by their losses."""
    loop = stepping(torch.optim.LBFGS, max_iter=3, **options)
    loop.model.double()
    loop.components = [loop.components[0], Doubles(), *loop.components[1:], *components]
    return loop


class Pair(torch.nn.ModuleDict):
    """Two networks, the second of which judges what the first one makes."""

    def forward(self, inputs):
        return self["judge"](self["maker"](inputs).tanh())


def alternating(*components, model_class=Pair, **options):
    """Return a loop in which two networks have a loss each, and train in turns."""
    torch.manual_seed(1)
    networks = {"maker": torch.nn.Linear(3, 4), "judge": torch.nn.Linear(4, 1)}

    def loss(loop, power):
        loop.scores = loop.model["judge"](loop.model["maker"](loop.batch[0]).tanh())
        return (loop.scores - loop.batch[1]).abs().pow(power).mean()

    loop = make_loop("metrics", *components, model=model_class(networks), **options)
    loop.components["supervised"] = use(
        "alternating",
        losses={name: functools.partial(loss, power=i + 1) for i, name in enumerate(networks)},
        optimizers={name: functools.partial(torch.optim.SGD, lr=0.1) for name in networks},
        device="cpu",
    )
    return loop


# -- forks ------------------------------------------------------------------------------------


class Forks(LoopComponent):
    """A fork that trains for an epoch, when the run begins and after its first step."""

    def on_train_begin(self, loop):
        self._train(loop, "begun")

    def on_safe_point(self, loop):
        if loop.global_step == 1:
            self._train(loop, "stepped")

    def _train(self, loop, name):
        fork = loop.fork()
        fork.train(n_epochs=1)
        self.found = {**getattr(self, "found", {}), f"forked/{name}": fork.metrics["valid/loss"]}

    def on_train_end(self, loop):
        loop.metrics.update(self.found)

    def fork(self):
        """Leave it out."""


class GradientsOfRun(Gradients):
    """The gradients of a run, but not of its forks."""

    def fork(self):
        """Leave it out."""


class StopOfRun(Stop):
    """A stop of a run, but not of its forks."""

    def fork(self):
        """Leave it out."""


def stopped_before_a_fork():
    """Return where a run ends that one process has asked to stop just before a fork."""
    loop = make_loop("metrics", StopOfRun(1, "on_batch_end", 0, epoch_num=0), Forks())
    loop.train(4)
    return loop.is_stopped, loop.epoch_num, loop.global_step


# -- all --------------------------------------------------------------------------------------

EQUAL = {
    "label-smoothing": lambda: classifying("label-smoothing", n=19),
    "mixup": lambda: classifying(MixupInParts(n_classes=2)),
    "cutmix": lambda: classifying(CutmixInParts(n_classes=2), n=19),
    "mixup with sam": lambda: classifying(MixupInParts(n_classes=2), use("sam", rho=0.5)),
    "batch-schedule": lambda: make_loop(
        use("batch-schedule", samples={0: 2, 2: 3, 6: 6}), "metrics", n=19
    ),
    "batch-schedule with accumulation": lambda: make_loop(
        use("batch-schedule", samples={0: 3, 2: 6, 3: 5}),
        use("grad-accumulation", every=2),
        "metrics",
    ),
    "the largest gradient": lambda: make_loop(
        use("grad-clip", max_norm=0.01, norm_type=math.inf), "metrics"
    ),
    "gradients by value": lambda: make_loop(use("grad-clip", max_value=0.01), "metrics"),
    "NAdam": lambda: stepping(torch.optim.NAdam),
}
WHOLE = {  # with ddp
    "alternating": alternating,
    "alternating with sam": lambda: alternating(use("sam", rho=0.5)),
    "alternating with accumulation": lambda: alternating(use("grad-accumulation", every=3)),
    "Adafactor": lambda: stepping(torch.optim.Adafactor),
    "Rprop": lambda: stepping(torch.optim.Rprop),
    "LBFGS": by_lbfgs,
    "LBFGS along a line": lambda: by_lbfgs(line_search_fn="strong_wolfe"),
    "lr-finder": lambda: make_loop(use("lr-finder", n_steps=30, apply=True), "metrics", n=21),
    "forks": lambda: make_loop("metrics", Forks()),
}
REFUSED = {
    "a container": lambda: alternating(model_class=torch.nn.ModuleDict),
    "alternating": alternating,
    "Adafactor": WHOLE["Adafactor"],
    "Rprop": WHOLE["Rprop"],
    "LBFGS": by_lbfgs,
    "lr-finder": WHOLE["lr-finder"],
    "forks": WHOLE["forks"],
    "batch-size-finder": lambda: make_loop(use("batch-size-finder", memory_limit="1GB")),
    "batch-schedule": lambda: make_loop(use("batch-schedule", samples={0: 1, 4: 6})),
}
if hasattr(torch.optim, "Muon"):  # from torch 2.9 on
    WHOLE["Muon"] = lambda: stepping(torch.optim.Muon, model=matrices())
    REFUSED["Muon"] = WHOLE["Muon"]


def train(name, n_epochs=2):
    """Train a case, and return its facts."""
    loop = {**EQUAL, **WHOLE}[name]()
    gradients = GradientsOfRun()
    loop.components.append(gradients)
    loop.train(n_epochs)
    return {**facts(loop), "gradients": gradients.seen}


def refused(name):
    """Return the error with which a case ends, and how many batches it has trained on."""
    loop = REFUSED[name]()
    try:
        loop.train(1)
    except Exception as error:
        loop.group.has_failed = False
        return f"{type(error).__name__}: {error}", loop.global_step
    return "", loop.global_step


def layers_of_matrices():
    """Return how many parameters of a model without biases are here, with layers apart."""
    loop = make_loop(model=matrices(), valid=False)
    loop.train(1)
    return [type(module).__name__ for module in loop.model.modules()]


class Network(torch.nn.Module):
    """A model with code of its own, which is what torch compiles."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = torch.nn.Linear(3, 8), torch.nn.Linear(8, 1)

    def forward(self, inputs):
        return self.last(self.first(inputs).tanh())


def compiled(*components):
    """Return what a training comes to with a compiled model, and how often that was compiled."""
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    components = use("compile", backend=count, loss=False), *components
    loop = make_loop(*components, "metrics", n=24, model=Network(), valid=False)
    gradients = Gradients()
    loop.components.append(gradients)
    with warnings.catch_warnings():  # torch causes some, where they are errors
        warnings.simplefilter("ignore")
        loop.train(3)
    return len(graphs), {**facts(loop), "gradients": gradients.seen}


def uncompiled():
    """Return what a training comes to with the same model."""
    loop = make_loop("metrics", n=24, model=Network(), valid=False)
    gradients = Gradients()
    loop.components.append(gradients)
    loop.train(3)
    return {**facts(loop), "gradients": gradients.seen}


def averaged_statistics():
    """Return the statistics of a batch norm in the mean of the weights."""
    torch.manual_seed(1)
    layers = torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)
    loop = make_loop(use("swa", start_epoch=1), model=torch.nn.Sequential(*layers), n=24)
    loop.train(2)
    averaged = loop.components["swa"].averaged.module
    return whole(dict(averaged.named_buffers()))
