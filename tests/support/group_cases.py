"""Trainings that have to come to the same in one process and in several."""

import functools
import time
from unittest import mock

import torch
from torch.utils.data import BatchSampler, DataLoader, TensorDataset
from torchmetrics.classification import BinaryAccuracy
from ttl_distributed import Ddp

from ttl_core import LoopComponent, SeededSampler, TrainTestLoop, use


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


class Seen(LoopComponent):
    """The numbers of the samples of each training batch."""

    def __init__(self):
        self.batches = []

    def on_batch_begin(self, loop):
        if loop.is_training and loop._batch_size != 0:
            self.batches.append([int(number) for number in loop.batch[0][:, -1]])
        elif loop.is_training:
            self.batches.append([])


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


def make_loop(*components, n=22, batch_size=6, model=None, loss=None, valid=True, lr=0.1):
    """Return a loop whose first component is ddp."""
    torch.manual_seed(1)
    if model is None:
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1, bias=True)
        )
    data = dataset(n)
    return TrainTestLoop(
        model,
        [
            "ddp",
            use(
                "supervised",
                loss_func=loss or torch.nn.BCEWithLogitsLoss(),
                optimizer=functools.partial(torch.optim.SGD, lr=lr, momentum=0.9),
                device="cpu",
            ),
            *components,
        ],
        DataLoader(data, batch_size, sampler=SeededSampler(data, seed=3)),
        DataLoader(dataset(13), 4) if valid else None,
    )


def facts(loop):
    """Return what has to be the same: steps, metrics, and the model."""
    metrics = {name: float(value) for name, value in loop.metrics.items()}
    weights = {name: value.tolist() for name, value in loop.model.state_dict().items()}
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


class Gradients(LoopComponent):
    """The gradients of each step, as the optimizer has used them."""

    def __init__(self):
        self.seen = []

    def on_batch_end(self, loop):
        if loop.is_training and loop.is_stepping:
            gradients = [p.grad for p in loop.model.parameters() if p.grad is not None]
            self.seen.append([number for each in gradients for number in each.flatten().tolist()])


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
    "metrics": lambda: make_loop(accuracy()),
    "grad-clip": lambda: make_loop(use("grad-clip", max_norm=0.05), "metrics"),
    "ema": lambda: make_loop(use("ema", decay=0.7), "metrics"),
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
        use("ema", decay=0.9),
        "nan-guard",
        use("early-stopping", patience=3),
        "history",
    ),
}


def train(name, n_epochs=4):
    """Train a case, and return its facts."""
    loop = CASES[name]()
    gradients = Gradients()
    loop.components.append(gradients)
    loop.train(n_epochs)
    return {**facts(loop), "gradients": gradients.seen}


def train_unweighted(name):
    """Train a case as DDP does by itself: by the mean of the mean losses of processes."""
    with mock.patch.object(Ddp, "_weighted", lambda self, loss, weight, total: loss):
        return train(name)


class Stop(LoopComponent):
    """A stop in one process, at one point."""

    def __init__(self, rank, point, batch_num=None, epoch_num=1):
        self.rank, self.batch_num, self.epoch_num = rank, batch_num, epoch_num
        setattr(self, point, self._stop)

    def _stop(self, loop):
        is_due = loop.epoch_num == self.epoch_num and self.batch_num in (None, loop.batch_num)
        if loop.group.rank == self.rank and (loop.is_training or self.batch_num is None) and is_due:
            loop.stop("due")


class Fail(Stop):
    """An exception in one process, at one point."""

    def _stop(self, loop):
        if loop.group.rank == self.rank and loop.epoch_num == self.epoch_num:
            raise ValueError("it was to be expected")


def failed(rank, point):
    """Return the error with which a run ends that fails in one process."""
    loop = make_loop("metrics", Fail(rank, point))
    try:
        loop.train(4)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def stopped(rank, point, batch_num):
    """Return where a run ends that is stopped in one process."""
    loop = make_loop("metrics", Stop(rank, point, batch_num))
    loop.train(4)
    return loop.is_stopped, loop.epoch_num, loop.global_step, facts(loop)["weights"]


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


def refused(name):
    """Return the error of data that processes cannot share."""
    loop = make_loop(valid=False)
    data = dataset(12)
    loop.train_data = {
        "shuffled": lambda: DataLoader(data, 6, shuffle=True),
        "small": lambda: DataLoader(data, 1),
        "list": lambda: [data[:6]],
        "distributed": lambda: DataLoader(
            data, 6, sampler=torch.utils.data.distributed.DistributedSampler(data)
        ),
        "unbatched": lambda: DataLoader(data, batch_size=None),
    }[name]()
    try:
        loop.train(1)
    except ValueError as error:
        return str(error)
    return ""


class Lines(torch.utils.data.IterableDataset):
    """A stream that shares itself out."""

    def set_rank(self, rank, size):
        self.rank, self.size = rank, size

    def __iter__(self):
        return iter([*dataset(12)][self.rank :: self.size])


def streamed():
    """Return what a training on a stream comes to."""
    loop = make_loop("metrics", valid=False)
    size = loop.group.size
    loop.train_data = DataLoader(Lines(), 6 // size) if size > 1 else DataLoader(dataset(12), 6)
    loop.train(3)
    return facts(loop)


class Rates(LoopComponent):
    """The samples and the tokens in a batch, by the rates that `throughput` logs."""

    def __init__(self):
        self.seen = []

    def on_log(self, loop, metrics, level):
        if "train/batches-per-second" in metrics:
            per_batch = 1 / metrics["train/batches-per-second"]
            names = "train/samples-per-second", "train/tokens-per-second"
            self.seen.append([round(metrics[name] * per_batch, 6) for name in names])


def rates(n):
    """Return how many samples and tokens `throughput` has counted in a batch."""
    seen = Rates()
    tokens = use("throughput", every=2, tokens=lambda batch: batch[0].numel())
    make_loop(tokens, seen, n=n).train(2)
    return seen.seen


class StopEvaluation(LoopComponent):
    """A stop in one process, in one batch or at one point of an evaluation."""

    def __init__(self, rank, point, batch_num):
        self.rank, self.batch_num = rank, batch_num
        self.batches = []
        self.ended = []
        setattr(self, point, self._stop)

    def _stop(self, loop):
        is_due = self.batch_num is None or self.batch_num == loop.batch_num
        if loop.group.rank == self.rank and is_due:
            loop.stop("due")

    def on_forward_pass(self, loop):
        self.batches.append(loop.batch_num)

    def on_epoch_end(self, loop):
        self.ended.append("epoch")

    def on_test_end(self, loop):
        self.ended.append("test")


def evaluation_stopped(phase, rank, point, batch_num, n=40, seconds=0.0):
    """Return the batches of an evaluation that one process ends, and what has ended it."""
    with mock.patch("ttl_distributed.evaluation.SECONDS", seconds):
        return _evaluation_stopped(phase, rank, point, batch_num, n)


def _evaluation_stopped(phase, rank, point, batch_num, n):
    stop = StopEvaluation(rank, point, batch_num)
    loop = make_loop("metrics", stop)
    data = DataLoader(dataset(n), 4)
    if phase == "list":
        loop.test([dataset(4)[:]] * n)
    else:
        {"test": loop.test, "valid": loop.validate, "predict": loop.predict}[phase](data)
    cause = loop.stopped_by
    return len(stop.batches), stop.ended, loop.is_stopped, cause and cause.reason


def evaluated():
    """Return the metrics of tests on a loader, on a list, and on less than a sample each."""
    loop = make_loop(accuracy())
    found = []
    data = dataset(13)
    for tested in (DataLoader(data, 4), [data[:4], data[4:8], data[8:]], DataLoader(data, 13)):
        loop.test(tested)
        found.append({name: float(value) for name, value in loop.metrics.items()})
    loop.test(DataLoader(dataset(1), 4))
    return [*found, {name: float(value) for name, value in loop.metrics.items()}]


class NotWhole(LoopComponent):
    """A forward pass by the modules in the model."""

    def on_forward_pass(self, loop):
        loop.scores = loop.batch[0]
        for module in loop.model.children():
            loop.scores = module(loop.scores)

    def on_loss_compute(self, loop):
        loop.loss = loop.scores.mean()


def error_of(name):
    """Return the error that all processes come to."""
    loop = make_loop(valid=False)
    if name == "not whole":
        loop.components = [loop.components["ddp"], NotWhole()]
    if name == "one steps":
        loop.components.append(OneSteps())
    try:
        loop.train(1)
    except RuntimeError as error:
        return str(error)
    return ""


class OneSteps(LoopComponent):
    """A batch in which one process makes no step."""

    def on_batch_begin(self, loop):
        loop.is_stepping = loop.group.rank == 0


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


def train_all(names):
    """Train cases, and return their facts by name."""
    return {name: train(name) for name in names}


def batches_seen(n, batch_size, n_epochs=2):
    """Return the samples of each batch that this process has trained on."""
    seen = Seen()
    loop = make_loop(seen, valid=False)
    data = numbered(n)
    sampler = SeededSampler(data, seed=3)
    loop.train_data = DataLoader(data, batch_sampler=BatchSampler(sampler, batch_size, False))
    loop.train(n_epochs)
    return seen.batches


class Draws(LoopComponent):
    """Noise in the scores, from random numbers that each process has of its own."""

    def on_forward_pass(self, loop):
        if loop.is_training:
            loop.scores = loop.scores + 0.1 * torch.randn(loop.scores.shape)


class Pause(LoopComponent):
    """Batches that take some time."""

    def __init__(self, seconds):
        self.seconds = seconds

    def on_batch_begin(self, loop):
        if loop.is_training:
            time.sleep(self.seconds)


class OwnState(LoopComponent):
    """State that differs between processes."""

    def __init__(self):
        self.numbers = []

    def on_batch_end(self, loop):
        self.numbers.append(loop.group.rank)

    def state_dict(self):
        return {"numbers": self.numbers}

    def load_state_dict(self, state):
        self.numbers = list(state["numbers"])


def saved(directory, *, fail=None, stop=None, own=False, n_epochs=3, noise=True, **options):
    """Train with checkpoints, and return what came of it, and the error that ended it."""
    components = [Draws()] if noise else []
    components += [OwnState()] if own else []
    components += [Pause(options.pop("pause"))] if "pause" in options else []
    components += [accuracy()] if options.pop("metrics", True) else []
    components += [use("checkpoint", directory=directory, **options)]
    components += [Fail(*fail)] if fail else []
    components += [Stop(*stop)] if stop else []
    loop = make_loop(*components, n=19)
    error = None
    import warnings

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.train(n_epochs)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
        if torch.distributed.is_initialized():
            loop.group.reset()
            loop.group.has_failed = False
    numbers = loop.components["own-state"].numbers if own else None
    return {
        **facts(loop),
        "error": error,
        "own": numbers,
        "draw": float(torch.rand(())),
        "warnings": [str(each.message) for each in caught],
    }


def saved_with(directory, options):
    """Call `saved` with options."""
    return saved(directory, **options)
