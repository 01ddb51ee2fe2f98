"""Trainings that have to come to the same in one process and in several."""

from unittest import mock

import torch
from group_loops import accuracy, facts, make_loop
from ttl_distributed.base import DataParallel

from ttl_core import LoopComponent, use, whole_tensor


class TokenWeights(LoopComponent):
    """Weights that differ from the number of samples, as numbers of tokens do."""

    def on_batch_begin(self, loop):
        loop.batch_size = int((loop.batch[0][:, 0].abs() * 10).ceil().sum())

    def on_loss_compute(self, loop):
        weights = (loop.batch[0][:, :1].abs() * 10).ceil()
        loop.loss = ((loop.scores - loop.batch[1]).square() * weights).sum() / weights.sum()


class SometimesWeights(LoopComponent):
    """Weights that are the numbers of samples in every other epoch, else fewer or more."""

    def __init__(self, weigh):
        self.weigh = weigh

    def _weights(self, loop):
        first = loop.batch[0][:, :1]
        return self.weigh(first).float() if loop.epoch_num % 2 else torch.ones_like(first)

    def on_batch_begin(self, loop):
        loop.batch_size = int(self._weights(loop).sum())

    def on_loss_compute(self, loop):
        weights = self._weights(loop)
        total = ((loop.scores - loop.batch[1]).square() * weights).sum()
        loop.loss = total / weights.sum().clamp(min=1)


class OneLayerUnused(torch.nn.Module):
    """A layer, and one that takes no part."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)

    def forward(self, inputs):
        return self.first(inputs)


class SkipByLoss(LoopComponent):
    """Batches after which there is no step, as all processes find when they have the loss."""

    def on_loss_compute(self, loop):
        loop.is_stepping = loop.batch_num != 1


class StepByLoss(LoopComponent):
    """Batches that make a step, as all processes find when they have the loss."""

    def on_batch_begin(self, loop):
        loop.is_stepping = not loop.is_training

    def on_loss_compute(self, loop):
        loop.is_stepping = loop.batch_num % 2 == 1


class Gradients(LoopComponent):
    """The gradients of each step, as the optimizer has used them."""

    def __init__(self):
        self.seen = []

    def on_batch_end(self, loop):
        if loop.is_training and loop.is_stepping:
            gradients = [p.grad for p in loop.model.parameters() if p.grad is not None]
            numbers = [whole_tensor(each).flatten().tolist() for each in gradients]
            self.seen.append([number for each in numbers for number in each])


CASES = {
    "alone": lambda: make_loop("metrics"),
    "uneven parts": lambda: make_loop("metrics", n=21),
    "a part of no sample": lambda: make_loop("metrics", n=19),
    "weights by tokens": lambda: make_loop(TokenWeights(), "metrics"),
    "accumulation": lambda: make_loop(use("grad-accumulation", every=3), "metrics"),
    "accumulation with weights": lambda: make_loop(
        TokenWeights(), use("grad-accumulation", every=3), "metrics", n=19
    ),
    "accumulation with fewer weights at times": lambda: make_loop(
        SometimesWeights(lambda inputs: inputs > 0.3),
        use("grad-accumulation", every=3),
        "metrics",
        n=21,
    ),
    "accumulation with more weights at times": lambda: make_loop(
        SometimesWeights(lambda inputs: (inputs.abs() * 10).ceil()),
        use("grad-accumulation", every=3),
        use("sam", rho=0.5),
        "metrics",
        n=21,
    ),
    "accumulation with no weights at times": lambda: make_loop(
        SometimesWeights(torch.zeros_like), use("grad-accumulation", every=2), "metrics"
    ),
    "no step after a batch": lambda: make_loop(SkipByLoss(), "metrics"),
    "a step as decided late": lambda: make_loop(StepByLoss(), "metrics"),
    "metrics": lambda: make_loop(accuracy()),
    "grad-clip": lambda: make_loop(use("grad-clip", max_norm=0.05), "metrics"),
    "ema": lambda: make_loop(use("ema", decay=0.3), "metrics"),
    "nan-guard": lambda: make_loop(use("nan-guard", action="skip"), "metrics"),
    "freeze": lambda: make_loop(use("freeze", patterns={"0.*": 2}), "metrics"),
    "amp": lambda: make_loop("amp", "metrics"),
    "lr-warmup": lambda: make_loop(use("lr-warmup", n_steps=4), "metrics"),
    "validate-every": lambda: make_loop("metrics", use("validate-every", steps=3)),
    "limit-batches": lambda: make_loop(use("limit-batches", train=2, valid=2), "metrics"),
    "early-stopping": lambda: make_loop(
        "metrics", use("early-stopping", monitor="valid/loss", patience=1), lr=3.0
    ),
    "sam": lambda: make_loop(use("sam", rho=0.5), "metrics", n=21),
    "sam with accumulation": lambda: make_loop(
        TokenWeights(), use("grad-accumulation", every=3), use("sam", rho=0.5), "metrics", n=19
    ),
    "swa": lambda: make_loop(use("swa", start_epoch=1), "metrics"),
    "lr-schedule": lambda: make_loop(use("lr-schedule", kind="cosine", warmup=2), "metrics"),
    "param-groups": lambda: make_loop(
        use("param-groups", patterns={"0.*": {"lr": 0.05}}), "metrics"
    ),
    "activation-checkpointing": lambda: make_loop("activation-checkpointing", "metrics"),
    "prefetch": lambda: make_loop("prefetch", "metrics"),
    "monitors": lambda: make_loop(
        use("grad-monitor", every=1), "lr-monitor", use("throughput", every=2), "metrics"
    ),
    "time-limit": lambda: make_loop("metrics", use("time-limit", hours=1)),
    "all": lambda: make_loop(
        accuracy(),
        use("grad-accumulation", every=2),
        use("grad-clip", max_norm=0.5),
        use("ema", decay=0.3),
        "nan-guard",
        use("early-stopping", patience=3),
        "history",
    ),
}


DDP_CASES = {
    "a static graph": lambda: make_loop(
        use("grad-accumulation", every=2), "metrics", ddp=use("ddp", static_graph=True)
    ),
    "unused parameters": lambda: make_loop(
        use("grad-accumulation", every=2),
        "metrics",
        ddp=use("ddp", find_unused_parameters=True),
        model=OneLayerUnused(),
    ),
}


class Tied(torch.nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.last = torch.nn.Linear(3, 1)

    def forward(self, inputs):
        return self.last(self.second(self.first(inputs).tanh()))


class KeepLogged(LoopComponent):
    """What was logged last, as metrics."""

    def on_log(self, loop, metrics, level):
        if level == "batch":  # the loss is that of the part of a process
            values = {name: float(value) for name, value in metrics.items() if "loss" not in name}
            loop.metrics.update(values)


MORE_CASES = {  # with what fails where parameters are shared out, unless it is prepared for that
    "grad-monitor": lambda: make_loop(
        KeepLogged(), use("grad-monitor", every=1, per_layer=True), n=24, valid=False
    ),
    "tied weights": lambda: make_loop(use("ema", decay=0.3), "metrics", model=Tied()),
}


def train(name, n_epochs=4):
    """Train a case, and return its facts."""
    loop = (CASES | DDP_CASES | MORE_CASES)[name]()
    gradients = Gradients()
    loop.components.append(gradients)
    loop.train(n_epochs)
    return {**facts(loop), "gradients": gradients.seen}


def train_unweighted(name):
    """Train a case as DDP does by itself: by the mean of the mean losses of processes."""
    with mock.patch.object(DataParallel, "_weighted", lambda self, loop, weight, total: loop.loss):
        return train(name)


def train_all(names):
    """Train cases, and return their facts by name."""
    return {name: train(name) for name in names}
