"""What each component adds to a real step, against the same library objects called by hand."""

import contextlib
import functools
import gc
import io
import itertools
import math
import time

import pytest
import torch
from rich.console import Console
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from ttl_core import LoopComponent, TrainTestLoop, arrange, use
from ttl_core.testing import Step

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]

N_BATCHES = 100
MANY = 10**9  # steps, batches or seconds that never pass
cross_entropy = torch.nn.functional.cross_entropy


def make_model():
    """Return a small network whose step takes about 200 µs on a CPU."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))


def make_accuracy():
    """Return a metric that does not check its arguments."""
    return MulticlassAccuracy(10, average="micro", validate_args=False)


def make_console():
    """Return a console that is no terminal, so that there is a line per epoch."""
    return Console(file=io.StringIO())


class LogLoss(LoopComponent):
    """A component that logs once an epoch what `early-stopping` monitors."""

    def on_epoch_end(self, loop):
        loop.log({"loss": loop.loss.detach()}, level="epoch")


class ByHand:
    """A loop without any library, with the code of some components written into it."""

    def __init__(self, *what, valid_data=()):
        unknown = set(what) - {name for names in CASES.values() for name in names}
        assert not unknown
        self.what = what
        self.valid_data = valid_data
        self.model = make_model()
        self.step_num = 0
        self.best = math.inf
        self.n_bad = 0
        self.loss_metric = MeanMetric(nan_strategy="disable")
        self.accuracy = make_accuracy()
        self.console = make_console()
        self.averaged = AveragedModel(
            self.model, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True
        )

    def train(self, data):
        model, what = self.model, self.what
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
        parameters = list(model.parameters())
        every = 4 if "grad-accumulation" in what else 1
        clips, warms_up, averages, guards, measures, times, moves, validates = (
            name in what
            for name in (
                *("grad-clip", "lr-warmup", "ema", "nan-guard", "metrics", "time-limit"),
                *("supervised", "validate-every"),
            )
        )
        autocast = contextlib.nullcontext
        if "amp" in what:
            autocast = functools.partial(torch.autocast, "cpu", torch.bfloat16)
        if "limit-batches" in what:
            data = itertools.islice(data, N_BATCHES)
        if "overfit-batch" in what:
            data = itertools.repeat(data[0], len(data))
        if "freeze" in what:
            model[0].requires_grad_(False)
        device = torch.device("cpu")
        deadline = time.monotonic() + MANY
        model.train()
        model.zero_grad()
        for batch_num, (inputs, targets) in enumerate(data):
            if moves:
                inputs = inputs.to(device, non_blocking=True)
                targets = targets.to(device, non_blocking=True)
            with autocast():
                scores = model(inputs)
                loss = cross_entropy(scores, targets)
            (loss / every if every > 1 else loss).backward()
            if guards:
                tensors = [*(p.grad for p in parameters), loss.detach()]
                sizes = torch.stack(torch._foreach_norm(tensors, math.inf)).tolist()
                assert all(map(math.isfinite, sizes))
            if (batch_num + 1) % every == 0:
                if clips:
                    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                if warms_up:
                    group = optimizer.param_groups[0]
                    full, group["lr"] = group["lr"], group["lr"] * (self.step_num + 1) / MANY
                    optimizer.step()
                    group["lr"] = full
                else:
                    optimizer.step()
                scheduler.step()
                if averages:
                    self.averaged.update_parameters(model)
                model.zero_grad()
                self.step_num += 1
                if validates and self.step_num % MANY == 0:
                    self.validate()
            if measures:
                self.loss_metric.update(loss.detach(), len(inputs))
                self.accuracy.update(scores.detach(), targets)
            if times and time.monotonic() >= deadline:
                break
        model.requires_grad_(True)
        if measures:
            for metric in (self.loss_metric, self.accuracy):
                metric.compute()
                metric.reset()
        if "early-stopping" in what:
            value = float(loss.detach())
            self.best, self.n_bad = (value, 0) if value < self.best else (self.best, self.n_bad + 1)
        if "progress" in what:
            self.console.print(f"train  {batch_num + 1} batches  loss {float(loss.detach()):.4g}")
        if validates:
            self.validate()

    @torch.no_grad()
    def validate(self):
        self.model.eval()
        for inputs, targets in self.valid_data:
            cross_entropy(self.model(inputs), targets)
        self.model.train()


def make_supervised():
    """Return a spec that trains as `Step` does."""
    return use(
        "supervised",
        loss_func=cross_entropy,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        scheduler=lambda optimizer, _: torch.optim.lr_scheduler.StepLR(optimizer, step_size=2),
        scheduler_interval="step",
        device="cpu",
    )


MAKE = {
    "supervised": make_supervised,
    "metrics": lambda: use("metrics", accuracy=make_accuracy()),
    "amp": lambda: use("amp", dtype="bf16"),
    "grad-accumulation": lambda: use("grad-accumulation", every=4),
    "grad-clip": lambda: use("grad-clip", max_norm=1.0),
    "ema": lambda: use("ema", decay=0.999),
    "lr-warmup": lambda: use("lr-warmup", n_steps=MANY),
    "early-stopping": lambda: use("early-stopping", monitor="train/loss", patience=MANY),
    "time-limit": lambda: use("time-limit", seconds=MANY),
    "nan-guard": lambda: use("nan-guard", action="raise"),
    "validate-every": lambda: use("validate-every", steps=MANY),
    "limit-batches": lambda: use("limit-batches", n=N_BATCHES),
    "overfit-batch": lambda: use("overfit-batch"),
    "freeze": lambda: use("freeze", patterns="0.*"),
    "progress": lambda: use("progress", console=make_console()),
}
TOGETHER = ("grad-accumulation", "grad-clip", "amp", "metrics")
CASES = {name: (name,) for name in MAKE} | {" + ".join(TOGETHER): TOGETHER}


@pytest.fixture(scope="module", autouse=True)
def few_objects():
    """Freeze existing objects, as the garbage collector runs before each measurement."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("case", CASES)
def test_a_component_against_its_library_by_hand(case, assert_ratio):
    """A component in the loop costs little more than the same library called by hand."""
    names = CASES[case]
    n_batches = N_BATCHES * (2 if "limit-batches" in names else 1)
    n_rows = 96 if case == "grad-accumulation" else 64  # three batches of four take no step
    data = [(torch.randn(n_rows, 64), torch.randint(0, 10, (n_rows,))) for _ in range(n_batches)]
    valid_data = data[:1] if "validate-every" in names else None
    components = [*([] if "supervised" in names else [Step()]), *(MAKE[name]() for name in names)]
    components += [LogLoss()] if "early-stopping" in names else []
    loop = TrainTestLoop(make_model(), arrange(components), data, valid_data)
    by_hand = ByHand(*names, valid_data=valid_data or ())
    assert_ratio(
        "accumulation + clip + amp + metrics" if names == TOGETHER else case,
        lambda: loop.train(1),
        "the same by hand",
        lambda: by_hand.train(data),
        limit=1.15 if names == TOGETHER else 1.1,
        repeats=25,
        per=N_BATCHES,
    )
