"""What further components cost, each against the same calls written into a loop by hand."""

import ctypes
import io
import itertools
import json
import math
import queue
import random
import threading
from functools import partial
from types import SimpleNamespace

import numpy
import pytest
import torch
from small_network import make_model
from torch.autograd.graph import saved_tensors_hooks
from torch.optim.swa_utils import AveragedModel

from ttl_core import TrainTestLoop, use
from ttl_core.files import write_atomically
from ttl_core.testing import Step

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]

N_BATCHES, N_ROWS = 60, 96
cross_entropy = torch.nn.functional.cross_entropy
make_optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


class PlainStep(Step):
    """Steps at a learning rate that stays, of which nothing is logged."""

    name = "step"

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.optimizer = make_optimizer(loop.model.parameters())
        loop.scheduler = None

    def on_loss_compute(self, loop):
        loop.loss = cross_entropy(loop.scores, loop.batch[1])


def make_data(*shape):
    """Return batches for the model."""
    return [
        (torch.randn(N_ROWS, *(shape or (64,))), torch.randint(0, 10, (N_ROWS,)))
        for _ in range(N_BATCHES)
    ]


# -- loops by hand ------------------------------------------------------------------------------


def train(model, data, change=lambda i, x, y: (x, y), forward=None):
    """Train a model for one epoch; two functions are what a technique changes in it."""
    forward = forward or (lambda x, y: cross_entropy(model(x), y))
    optimizer = make_optimizer(model.parameters())
    model.train()
    for i, batch in enumerate(data):
        model.zero_grad()
        x, y = change(i, *batch)
        forward(x, y).backward()
        optimizer.step()


class CutmixByHand:
    """Rectangles of other images, and the shares of classes by area."""

    def __init__(self):
        self.numbers = random.Random()

    def __call__(self, i, x, y):
        self.numbers.seed(f"0/{i}")
        share = self.numbers.betavariate(1.0, 1.0)
        generator = torch.Generator().manual_seed(self.numbers.getrandbits(63))
        order = torch.randperm(len(x), generator=generator)
        height, width = x.shape[-2:]
        ratio = math.sqrt(1 - share) / 2
        bounds = []
        for size in (height, width):
            center = self.numbers.random() * size
            low, high = round(center - ratio * size), round(center + ratio * size)
            bounds.append((max(low, 0), min(high, size)))
        (top, bottom), (left, right) = bounds
        mixed = x.clone()
        mixed[..., top:bottom, left:right] = x[order][..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
        soft = torch.zeros(len(y), 10).scatter_(-1, y.unsqueeze(-1), 1.0)
        return mixed, torch.lerp(soft[order], soft, share)


class OffloadByHand:
    """Hooks of autograd that count what they would copy, which on the CPU is there already."""

    def __init__(self, model):
        self.model, self.size = model, 0

    def pack(self, tensor):
        if tensor.numel() >= 1024 and tensor.data_ptr() not in self.own:
            self.size += tensor.numel() * tensor.element_size()
        return tensor

    def __call__(self, x, y):
        self.own = {p.data_ptr() for p in self.model.parameters()}
        self.size = 0
        with saved_tensors_hooks(self.pack, lambda tensor: tensor):
            scores = self.model(x)
        with saved_tensors_hooks(self.pack, lambda tensor: tensor):
            return cross_entropy(scores, y)


def ahead(data, n=2):
    """Yield batches that a thread gets."""
    ready = queue.Queue(n)

    def fetch():
        for batch in data:
            ready.put(batch)
        ready.put(None)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    while (batch := ready.get()) is not None:
        yield batch
    thread.join()


class SwaByHand:
    """Epochs after each of which the weights are added to a mean."""

    def __init__(self):
        self.model = make_model()
        self.averaged = AveragedModel(self.model)

    def train(self, data):
        train(self.model, data)
        self.averaged.update_parameters(self.model)


def make_loop(spec, data, model=None):
    """Return a loop of plain steps with one component."""
    return TrainTestLoop(model or make_model(), [PlainStep(), spec], data)


# -- rows ---------------------------------------------------------------------------------------


def rows(case):
    """Return what runs an epoch with a component, and what runs the same by hand."""
    data = make_data(*((8, 8) if case == "cutmix" else ()))
    if case == "swa":
        loop, by_hand = make_loop(use("swa", start_epoch=0), data), SwaByHand()
        return partial(loop.train, 1), partial(by_hand.train, data)
    model, other = make_model(), make_model()
    if case == "cutmix":
        model = torch.nn.Sequential(torch.nn.Flatten(), model)
        other = torch.nn.Sequential(torch.nn.Flatten(), other)
        loop = make_loop(use("cutmix", n_classes=10), data, model)
        return partial(loop.train, 1), partial(train, other, data, CutmixByHand())
    loop = make_loop(case, data, model)
    if case == "activation-offload":
        return partial(loop.train, 1), partial(train, other, data, forward=OffloadByHand(other))
    return partial(loop.train, 1), lambda: train(other, ahead(data))


@pytest.mark.parametrize("case", ["swa", "cutmix", "activation-offload", "prefetch"])
def test_a_component_against_the_same_calls_by_hand(case, assert_ratio):
    """A component by name costs little more than its calls written into a loop."""
    it, other = rows(case)
    assert_ratio(case, it, "the same by hand", other, limit=1.15, repeats=9, per=N_BATCHES)


def test_alternating_against_the_same_calls_by_hand(assert_ratio):
    """Steps of two networks in turns cost little more than a loop that takes them."""

    def perceptron(n_in, n_out):
        layers = torch.nn.Linear(n_in, 64), torch.nn.ReLU(), torch.nn.Linear(64, n_out)
        return torch.nn.Sequential(*layers)

    def make_networks():
        networks = {"critic": perceptron(64, 1), "generator": perceptron(32, 64)}
        return torch.nn.ModuleDict(networks)

    def judge(model, batch):
        fake = model["generator"](torch.randn(N_ROWS, 32)).detach()
        return (model["critic"](fake) - model["critic"](batch)).mean()

    def generate(model, batch):
        return -model["critic"](model["generator"](torch.randn(N_ROWS, 32))).mean()

    losses = {"critic": judge, "generator": generate}
    functions = {
        "critic": lambda loop: judge(loop.model, loop.batch),
        "generator": lambda loop: generate(loop.model, loop.batch),
    }
    data = [torch.randn(N_ROWS, 64) for _ in range(N_BATCHES)]
    spec = use("alternating", losses=functions, optimizers=dict.fromkeys(losses, make_optimizer))
    loop = TrainTestLoop(make_networks(), [spec], data)
    model = make_networks()

    def by_hand():
        optimizers = {name: make_optimizer(model[name].parameters()) for name in losses}
        means = dict.fromkeys(losses, 0.0)
        model.train()
        for name, batch in zip(itertools.cycle(losses), data, strict=False):
            for parameter in model.parameters():
                parameter.grad = None
            loss = losses[name](model, batch)
            loss.backward(inputs=list(model[name].parameters()))
            optimizers[name].step()
            means[name] = means[name] + loss.detach() * len(batch)

    run = partial(loop.train, 1)
    what = "alternating"
    assert_ratio(what, run, "the same by hand", by_hand, limit=1.15, repeats=9, per=N_BATCHES)


class Calls:
    """Callbacks of Lightning, transformers and Keras, which count what they are told of."""

    def __init__(self):
        self.n = 0

    def _count(self, *arguments, **keywords):
        self.n += 1


class LightningCalls(Calls):
    """Hooks of Lightning around batches and steps."""

    on_train_batch_start = on_train_batch_end = on_before_optimizer_step = Calls._count

    def by_hand(self, loop, data):
        """Return what calls them in a loop by hand, at the beginning and the end of a batch."""
        trainer, module = object(), loop.model
        return (
            lambda i, batch: self.on_train_batch_start(trainer, module, batch, i),
            lambda: self.on_before_optimizer_step(trainer, module, loop.optimizer),
            lambda i, batch, loss: self.on_train_batch_end(
                trainer, module, {"loss": loss.detach()}, batch, i
            ),
        )


class HFCalls(Calls):
    """Events of transformers."""

    on_step_begin = on_pre_optimizer_step = on_step_end = Calls._count

    def by_hand(self, loop, data):
        """Return the same."""
        three = object(), SimpleNamespace(epoch=0.0), object()
        objects = {"model": loop.model, "optimizer": loop.optimizer, "lr_scheduler": None}
        objects |= dict.fromkeys(["train_dataloader", "eval_dataloader", "processing_class"])

        def end(i, batch, loss):
            three[1].epoch = (i + 1) / len(data)
            self.on_step_end(*three, **objects)

        return (
            lambda i, batch: self.on_step_begin(*three, **objects),
            lambda: self.on_pre_optimizer_step(*three, **objects),
            end,
        )


class KerasCalls(Calls):
    """Hooks of Keras."""

    on_train_batch_begin = on_train_batch_end = Calls._count

    def by_hand(self, loop, data):
        """Return the same."""
        return (
            lambda i, batch: self.on_train_batch_begin(i, logs={}),
            lambda: None,
            lambda i, batch, loss: self.on_train_batch_end(i, logs={"loss": loss.item()}),
        )


CALLBACKS = {
    "lightning-callback": LightningCalls,
    "hf-callback": HFCalls,
    "keras-callback": KerasCalls,
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_of_another_library_against_its_calls_by_hand(name, assert_ratio):
    """Calling its hooks by an adapter costs little more than calling them in a loop by hand."""
    data = make_data() * 4  # of which a run has more than of its beginning and its end
    callback, other = CALLBACKS[name](), CALLBACKS[name]()
    loop, model = make_loop(use(name, callback=callback), data), make_model()

    def by_hand():
        optimizer = make_optimizer(model.parameters())
        begin, step, end = other.by_hand(SimpleNamespace(model=model, optimizer=optimizer), data)
        model.train()
        for i, batch in enumerate(data):
            model.zero_grad()
            begin(i, batch)
            loss = cross_entropy(model(batch[0]), batch[1])
            loss.backward()
            step()
            optimizer.step()
            end(i, batch, loss)

    run = partial(loop.train, 1)
    assert_ratio(name, run, "the same by hand", by_hand, limit=1.15, repeats=9, per=len(data))
    assert callback.n == other.n


@pytest.fixture
def kept_memory():
    """Let glibc keep memory that is freed.

    Else half of what predictions take, by hand too, are page faults of the scores that they keep,
    and how many there are depends on what ran before: between 1.00 and 1.22 was measured.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 2**30)
    libc.mallopt(trim_threshold, 2**31 - 1)
    yield
    libc.mallopt(mmap_threshold, 128 * 1024)
    libc.mallopt(trim_threshold, 128 * 1024)


@pytest.mark.usefixtures("kept_memory")
def test_prediction_writer_against_the_same_calls_by_hand(assert_ratio, tmp_path):
    """Files of predictions cost little more than a loop that writes them.

    Batches are large, as those of predictions are: of each, a loop has some tens of microseconds.
    """
    data = [torch.randn(2048, 64) for _ in range(80)]
    (tmp_path / "by hand").mkdir()

    class Forward(PlainStep):
        def on_forward_pass(self, loop):
            loop.scores = loop.model(loop.batch)

    writer = use("prediction-writer", directory=tmp_path / "it", format="npz", every=64)
    loop = TrainTestLoop(make_model(), [Forward(), writer])
    model = make_model().eval()

    @torch.no_grad()
    def by_hand():
        names, pending = [], []

        def write():
            stream, name = io.BytesIO(), f"part-{len(names)}.npz"
            numpy.savez(stream, scores=torch.cat(pending).numpy())
            write_atomically(tmp_path / "by hand" / name, stream.getvalue())
            names.append(name)
            write_atomically(tmp_path / "by hand" / "list.json", json.dumps(names).encode())
            pending.clear()

        write_atomically(tmp_path / "by hand" / "list.json", b"[]")
        for batch in data:
            pending.append(model(batch))
            if len(pending) == 64:
                write()
        write()

    what, run = "prediction-writer", partial(loop.predict, data, collect=False)
    assert_ratio(what, run, "the same by hand", by_hand, limit=1.1, repeats=9, per=len(data))
