"""Trainings that have to come to the same in one process and in several."""

import functools
import time
from unittest import mock

import torch
from torch.utils.data import BatchSampler, DataLoader, TensorDataset
from torchmetrics.classification import BinaryAccuracy
from ttl_distributed.base import DataParallel

from ttl_core import (
    LoopComponent,
    SeededSampler,
    TrainTestLoop,
    local_part,
    map_nested,
    use,
    whole_tensor,
)


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
            _parallel if isinstance(_parallel, str) else use("fsdp", **_parallel),
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
    loop = (CASES | MORE_CASES)[name]()
    gradients = Gradients()
    loop.components.append(gradients)
    loop.train(n_epochs)
    return {**facts(loop), "gradients": gradients.seen}


def train_unweighted(name):
    """Train a case as DDP does by itself: by the mean of the mean losses of processes."""
    with mock.patch.object(DataParallel, "_weighted", lambda self, loop, weight, total: loop.loss):
        return train(name)


class Stop(LoopComponent):
    """A stop in one process, at one point."""

    def __init__(self, rank, point, batch_num=None, epoch_num=1):
        self.rank, self.batch_num, self.epoch_num = rank, batch_num, epoch_num
        setattr(self, point, self._stop)

    def _stop(self, loop):
        is_due = loop.epoch_num == self.epoch_num and self.batch_num in (
            None,
            vars(loop).get("batch_num"),
        )
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


def _halved_in_the_end(optimizer, n_steps):
    return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, n_steps)


def saved(directory, *, fail=None, stop=None, own=False, n_epochs=3, noise=True, **options):
    """Train with checkpoints, and return what came of it, and the error that ended it."""
    components = [Draws()] if noise else []
    components += [OwnState()] if own else []
    components += [Pause(options.pop("pause"))] if "pause" in options else []
    components += [accuracy()] if options.pop("metrics", True) else []
    is_rich = options.pop("rich", False)
    components += [use("checkpoint", directory=directory, **options)]
    components += [Fail(*fail)] if fail else []
    components += [Stop(*stop)] if stop else []
    if is_rich:  # all that has state which is shared out
        components.insert(0, use("ema", decay=0.3))
        rich = {"optimizer": torch.optim.Adam, "scheduler": _halved_in_the_end}
    else:
        rich = {}
    loop = make_loop(*components, n=19, **rich)
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
    optimizer = getattr(loop, "optimizer", None)  # None where the run could not begin
    return {
        **facts(loop),
        "error": error,
        "own": numbers,
        "optimizer": whole(optimizer.state_dict()["state"]) if optimizer else None,
        "averages": whole(dict(loop.components["ema"].state_dict())) if is_rich else None,
        "rate": optimizer.param_groups[0]["lr"] if optimizer else None,
        "draw": float(torch.rand(())),
        "warnings": [str(each.message) for each in caught],
    }


def saved_with(directory, options):
    """Call `saved` with options."""
    return saved(directory, **options)


class KeepPending(LoopComponent):
    """What is pending at the end of each epoch, in the state of the group."""

    def __init__(self):
        self.pending = []

    def on_safe_point(self, loop):
        if not loop.is_training:
            state = loop.state_dict(of_group=True)
            self.pending.append(state["components"]["grad-accumulation"].get("gradients", []))


def pending_of_a_stream():
    """Return the gradients that are pending between epochs of data without a length."""
    keep = KeepPending()
    loop = make_loop(use("grad-accumulation", every=3), keep, valid=False)
    lines = Lines()
    lines.set_rank(0, 1)
    loop.train_data = DataLoader(lines, 6 // loop.group.size)
    loop.train(4)
    pending = whole(keep.pending) if loop.group.is_main else None  # others have parts
    return {"pending": pending, **facts(loop)}


class ShardInOne(LoopComponent):
    """A state with a distributed tensor in one process only."""

    def __init__(self):
        self.parameter = None

    def on_train_begin(self, loop):
        self.parameter = next(loop.model.parameters()).detach()
        self.is_main = loop.group.is_main

    def state_dict(self):
        return {"tensor": self.parameter if self.is_main else None}

    def load_state_dict(self, state):
        """Keep nothing."""


def other_shards(directory):
    """Return the error of a checkpoint of it."""
    loop = make_loop(ShardInOne(), use("checkpoint", directory=directory), valid=False)
    try:
        loop.train(1)
    except Exception as error:
        loop.group.has_failed = False
        return f"{type(error).__name__}: {error}"
    return ""


def keys_and_parameters():
    """Return whether the names in a model stay, and how many of its parameters are here."""
    loop = make_loop(valid=False)
    names = list(loop.model.state_dict())
    loop.train(1)
    n_here = sum(local_part(parameter).numel() for parameter in loop.model.parameters())
    return names == list(loop.model.state_dict()), n_here


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


class CountPasses(LoopComponent):
    """The number of forward passes and of batches in evaluation."""

    def on_train_begin(self, loop):
        self.n_passes = self.n_batches = 0

    on_test_begin = on_train_begin

    def on_epoch_begin(self, loop):
        if not loop.is_training:
            self.handle = loop.model.register_forward_hook(self._count)

    def _count(self, *_):
        self.n_passes += 1

    def on_batch_end(self, loop):
        self.n_batches += not loop.is_training

    def on_epoch_end(self, loop):
        if not loop.is_training:
            self.handle.remove()


class UnevenLines(torch.utils.data.IterableDataset):
    """A stream of which the main process has no sample, and the last one all."""

    def set_rank(self, rank, size):
        self.is_last = rank + 1 == size

    def __iter__(self):
        return iter([*dataset(12)] if getattr(self, "is_last", True) else [])


def passes(name):
    """Return the metrics of a test, and how many batches and forward passes there were."""
    data = dataset(13)
    tested = {
        "uneven": lambda: DataLoader(data, 4),
        "list": lambda: [data[:4], data[4:8], data[8:]],
        "less than one each": lambda: DataLoader(dataset(1), 4),
        "a stream": lambda: DataLoader(UnevenLines(), 4),
    }[name]()
    count = CountPasses()
    loop = make_loop(accuracy(), count)
    loop.test(tested)
    metrics = {name: float(value) for name, value in loop.metrics.items()}
    counts = count.n_batches, count.n_passes
    loop.train(1)  # the parameters are the shared out ones again
    return {**facts(loop), "metrics": metrics, "counts": counts}


def predicted():
    """Return how many scores each process has predicted."""
    loop = make_loop()
    return sum(len(scores) for scores in loop.predict(DataLoader(dataset(13), 4)))


def refused_optimizer():
    """Return the error of an optimizer that exists before the model is sharded."""
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = make_loop(model=model, valid=False)
    loop.components["supervised"] = use(
        "supervised", loss_func=torch.nn.MSELoss(), optimizer=optimizer
    )
    try:
        loop.train(1)
    except ValueError as error:
        loop.group.has_failed = False
        return str(error)
    return ""


def refused_argument():
    """Return the error of a run whose model cannot be sharded so."""
    loop = make_loop(valid=False)
    try:
        loop.train(1)
    except ValueError as error:
        loop.group.has_failed = False
        return str(error)
    return ""
