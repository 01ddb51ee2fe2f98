"""Data that processes of a group share: which samples each has, and what it does with them."""

from unittest import mock

import torch
from group_loops import accuracy, dataset, facts, make_loop, numbered
from torch.utils.data import BatchSampler, DataLoader

from ttl_core import LoopComponent, SeededSampler, use


class Seen(LoopComponent):
    """The numbers of the samples of each training batch."""

    def __init__(self):
        self.batches = []

    def on_batch_begin(self, loop):
        if loop.is_training and loop._batch_size != 0:
            self.batches.append([int(number) for number in loop.batch[0][:, -1]])
        elif loop.is_training:
            self.batches.append([])


def batches_seen(n, batch_size, n_epochs=2):
    """Return the samples of each batch that this process has trained on."""
    seen = Seen()
    loop = make_loop(seen, valid=False)
    data = numbered(n)
    sampler = SeededSampler(data, seed=3)
    loop.train_data = DataLoader(data, batch_sampler=BatchSampler(sampler, batch_size, False))
    loop.train(n_epochs)
    return seen.batches


class Lines(torch.utils.data.IterableDataset):
    """A stream that shares itself out."""

    rank, size = 0, 1

    def set_rank(self, rank, size):
        self.rank, self.size = rank, size

    def __iter__(self):
        return iter([*dataset(12)][self.rank :: self.size])


def streamed(every=1):
    """Return what a training on a stream comes to, with several batches for each step."""
    loop = make_loop("metrics", use("grad-accumulation", every=every), valid=False)
    loop.train_data = DataLoader(Lines(), 6 // loop.group.size)
    loop.train(3)
    return facts(loop)


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


def times_closed(phase):
    """Return how often fsdp closes the forward passes of an evaluation."""
    from ttl_distributed.even_passes import EvenPasses

    original = EvenPasses.close
    with mock.patch.object(EvenPasses, "close", autospec=True, side_effect=original) as close:
        loop = make_loop(valid=False)
        data = DataLoader(dataset(13), 4)
        loop.predict(data) if phase == "predict" else loop.test(data)
    return close.call_count


def left_evaluation(phase):
    """Return the weights behind an evaluation with averaged weights, of which a test is stopped."""

    class Stop(LoopComponent):
        def on_batch_end(self, loop):
            if loop.is_testing and "stopped" in phase:
                loop.stop()

        def on_epoch_end(self, loop):
            if "calls" in phase and loop.is_testing:
                loop.model(loop.batch[0])

    loop = make_loop(use("ema", decay=0.5), Stop(), valid=False)
    loop.train(1)
    before = facts(loop)["weights"]
    data = DataLoader(dataset(13), 4)
    loop.predict(data) if phase == "predict" else loop.test(data)
    return before, facts(loop)["weights"]
