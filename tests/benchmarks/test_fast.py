"""What `fast-optimizer` and `compile` save, against torch's defaults."""

import functools
import io

import pytest
import torch
from rich.console import Console
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from ttl_core import LoopComponent, TrainTestLoop, use

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]

N_STEPS = 20
N_BATCHES = 100
EVERY = 2
cross_entropy = torch.nn.functional.cross_entropy


class StepAlone(LoopComponent):
    """A component that steps an optimizer with gradients that stay.

    Args:
        make: makes the optimizer.
        shapes: the shapes of the parameters.
    """

    def __init__(self, make, shapes):
        self.make = make
        self.parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        for parameter in self.parameters:
            parameter.grad = torch.randn_like(parameter)

    def on_train_begin(self, loop):
        loop.optimizer = self.make(self.parameters)

    def on_optim_step(self, loop):
        loop.optimizer.step()


SMALL, LARGE = [(64,)] * 60, [(512, 512)] * 20


@pytest.mark.parametrize(
    ("what", "make", "shapes", "limit"),
    [
        ("AdamW, 60 of 64", torch.optim.AdamW, SMALL, 0.4),
        ("AdamW, 20 of 512 x 512", torch.optim.AdamW, LARGE, 0.5),
        ("RMSprop, 60 of 64", torch.optim.RMSprop, SMALL, 0.8),
        ("RMSprop, 20 of 512 x 512", torch.optim.RMSprop, LARGE, 1.1),
    ],
)
def test_a_step(assert_ratio, what, make, shapes, limit):
    """The step that the component chooses takes a fraction of torch's default, or is that one."""
    default, fast = (
        TrainTestLoop(torch.nn.Identity(), [StepAlone(make, shapes), *more], range(N_STEPS))
        for more in ([], ["fast-optimizer"])
    )
    assert_ratio(
        f"fast-optimizer, {what}",
        lambda: fast.train(1),
        "torch's default",
        lambda: default.train(1),
        limit=limit,
        per=N_STEPS,
    )


def make_model():
    """Return a network of small blocks, whose step takes some ms on a CPU."""
    torch.manual_seed(0)
    blocks = [
        layer
        for _ in range(6)
        for layer in (torch.nn.Linear(64, 64), torch.nn.LayerNorm(64), torch.nn.GELU())
    ]
    return torch.nn.Sequential(*blocks, torch.nn.Linear(64, 10))


def make_accuracy():
    """Return a metric that does not check its arguments."""
    return MulticlassAccuracy(10, average="micro", validate_args=False)


class EverydayByHand:
    """A loop with torch's defaults and the everyday set written into it.

    Args:
        path: the file of its checkpoints.
    """

    def __init__(self, path):
        self.path = path
        self.model = make_model()
        self.console = Console(file=io.StringIO())
        self.mean, self.accuracy = MeanMetric(nan_strategy="disable"), make_accuracy()
        average = get_ema_multi_avg_fn(0.999)
        self.averaged = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)

    def train(self, data):
        model = self.model
        optimizer = torch.optim.AdamW(model.parameters())
        model.train()
        optimizer.zero_grad()
        for batch_num, (inputs, targets) in enumerate(data):
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(inputs)
                loss = cross_entropy(scores, targets)
            (loss / EVERY).backward()
            if (batch_num + 1) % EVERY == 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                self.averaged.update_parameters(model)
                optimizer.zero_grad()
            self.mean.update(loss.detach(), len(inputs))
            self.accuracy.update(scores.detach(), targets)
        mean, accuracy = float(self.mean.compute()), float(self.accuracy.compute())
        self.mean.reset()
        self.accuracy.reset()
        self.console.print(f"train  {len(data)} batches  loss {mean:.4g}  accuracy {accuracy:.4g}")
        states = [model.state_dict(), optimizer.state_dict(), self.averaged.state_dict()]
        torch.save(states, self.path)


def test_the_everyday_set(assert_ratio, tmp_path):
    """With both components the everyday set is faster than the loop by hand with defaults."""
    data = [(torch.randn(16, 64), torch.randint(0, 10, (16,))) for _ in range(N_BATCHES)]
    adamw = functools.partial(torch.optim.AdamW)
    everyday = [
        use("supervised", loss_func=cross_entropy, optimizer=adamw, device="cpu"),
        use("grad-accumulation", every=EVERY),
        use("grad-clip", max_norm=1.0),
        use("amp", dtype="bf16"),
        use("ema", decay=0.999),
        use("metrics", accuracy=make_accuracy()),
        use("progress", console=Console(file=io.StringIO())),
    ]
    by_hand = EverydayByHand(tmp_path / "by-hand.pt")
    for what, more, limit in (
        ("everyday set + fast-optimizer", ["fast-optimizer"], 1.0),
        ("everyday set + fast-optimizer + compile", ["fast-optimizer", "compile"], 1.0),
    ):
        directory = tmp_path / what.replace(" ", "-")
        saving = use("checkpoint", directory=directory, resume="never", signals=False, keep=2)
        loop = TrainTestLoop(make_model(), [*everyday, saving, *more], data)
        assert_ratio(
            what,
            lambda loop=loop: loop.train(1),
            "by hand, torch's defaults",
            lambda: by_hand.train(data),
            limit=limit,
            repeats=9,
            per=N_BATCHES,
        )
