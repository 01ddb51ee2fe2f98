"""A run that goes on is what was left of it, to the same bits, with many components at work."""

import contextlib
import itertools
from functools import partial

import pytest
import torch
from exact import (
    Exact,
    Naive,
    Watch,
    bits,
    going_on,
    gone_on,
    outcome,
    read,
    rest_of,
    watched,
)
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from ttl_core import LoopComponent, SeededSampler, TrainTestLoop, use

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


class Transformer(nn.Module):
    """Classify a sequence by the mean of what a small encoder makes of it."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


def make_mlp():
    """Return an MLP."""
    hidden = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)
    return nn.Sequential(*hidden, nn.Linear(8, 3))


def make_cnn():
    """Return a CNN."""
    hidden = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.5)
    return nn.Sequential(*hidden, nn.Flatten(), nn.Linear(64, 3))


MODELS = {"mlp": (make_mlp, (4,)), "cnn": (make_cnn, (1, 6, 6)), "encoder": (Transformer, (5, 8))}


def make_loop(*others, model="mlp", workers=0, valid_workers=0, persistent=False, saver=Exact):
    """Return a loop in which many components are at work; an epoch is 7 batches and 4 steps."""
    make_model, shape = MODELS[model]
    inputs = torch.randn(26, *shape, generator=torch.Generator().manual_seed(1))
    dataset = TensorDataset(inputs, torch.arange(26) % 3)
    load = partial(DataLoader, dataset, persistent_workers=persistent)
    components = [
        Watch(saver),
        use(
            "supervised",
            loss_func=nn.CrossEntropyLoss(),
            optimizer=partial(torch.optim.AdamW, lr=0.01),
            # of twice the length: a naive saver repeats steps
            scheduler=lambda optimizer, n: OneCycleLR(optimizer, 0.05, total_steps=2 * n),
        ),
        use("grad-accumulation", every=2),
        use("grad-clip", max_norm=0.5),
        use("lr-warmup", n_steps=5),
        use("amp", dtype="bf16"),
        use("ema", decay=0.8),
        use(
            "metrics",
            accuracy=MulticlassAccuracy(3, validate_args=False),
            auroc=MulticlassAUROC(3, thresholds=None, validate_args=False),  # which keeps lists
        ),
        use("early-stopping", patience=9),
        *others,
    ]
    train_data = load(batch_size=4, sampler=SeededSampler(dataset, seed=3), num_workers=workers)
    valid_data = load(batch_size=13, num_workers=valid_workers)
    return TrainTestLoop(make_model(), components, train_data, valid_data)


@pytest.mark.parametrize(
    ("config", "every"),
    [
        ({"model": "mlp"}, 1),
        ({"model": "cnn"}, 1),
        ({"model": "encoder"}, 1),
        ({"model": "mlp", "workers": 2}, 1),
        ({"model": "cnn", "workers": 2, "valid_workers": 1}, 4),
        ({"model": "encoder", "workers": 2}, 4),
        ({"model": "mlp", "workers": 2, "valid_workers": 2, "persistent": True}, 4),
    ],
    ids=str,
)
def test_goes_on_from_every_safe_point(config, every):
    """From each safe point on, a new loop does what was left to do, hook by hook, bit by bit."""
    for expected, actual in going_on(partial(make_loop, **config), every=every):
        assert expected == actual


def test_a_run_that_went_on_saves_what_the_uninterrupted_one_does():
    """All states after going on are those of the uninterrupted run, so a run may go on often."""
    whole = watched(make_loop)
    rest = gone_on(make_loop, whole.saved[1].file, is_saving=True)
    expected = [bits(read(file)) for _, file in whole.saved[2:]]
    assert expected == [bits(read(file)) for _, file in rest.saved]


@pytest.mark.parametrize("model", MODELS)
def test_going_on_by_model_optimizer_scheduler_and_epoch_alone_is_another_run(model):
    """What most scripts save leads to other weights, wherever it was saved but at the end."""
    make = partial(make_loop, model=model, saver=Naive)
    for expected, actual in itertools.islice(going_on(make, saver=Naive), 14):
        assert expected.model != actual.model


def test_goes_on_from_every_checkpoint_on_disk(tmp_path):
    """From each checkpoint that the component has saved, a new loop goes on to the same bits."""

    def make(**config):
        return make_loop(use("checkpoint", every=1, keep=None, **config), saver=None)

    whole = watched(partial(make, directory=tmp_path / "whole"))
    assert [13, 13] == [len(whole.saved), len(list((tmp_path / "whole").glob("0*")))]
    for n, path in whole.saved:
        rest = watched(partial(make, directory=tmp_path / "rest", resume=path), seed=99)
        assert rest_of(whole, n) == outcome(rest)


def test_goes_on_from_checkpoints_that_a_thread_has_written(tmp_path):
    """What is written while training goes on is the state of its safe point all the same."""

    def make(**config):
        checkpoint = use("checkpoint", every=1, keep=None, asynchronous=True, **config)
        return make_loop(checkpoint, saver=None)

    whole = watched(partial(make, directory=tmp_path / "whole"))
    paths = sorted((tmp_path / "whole").glob("0*"))
    assert 13 == len(paths)
    for path in paths[::3]:
        rest = watched(partial(make, directory=tmp_path / "rest", resume=path), seed=99)
        assert whole.ends == rest.ends


# -- killed between safe points -------------------------------------------------------------


class Killed(BaseException):
    """End a run as nobody expects it."""


class Kill(LoopComponent):
    """Raise at one point, where a function of the loop says so; never without one."""

    def __init__(self, point="on_batch_end", when=lambda loop: False):
        def kill(loop):
            if when(loop):
                raise Killed

        setattr(self, point, kill)


def in_mid_accumulation(loop):
    """Tell whether the second epoch has gradients of one batch of two."""
    return loop.is_training and (loop.epoch_num, loop.batch_num) == (1, 2)


def in_mid_validation(loop):
    """Tell whether the second epoch is half validated."""
    is_at_end = loop.global_step == 8
    return loop.is_validating and is_at_end and (loop.epoch_num, loop.batch_num) == (1, 1)


def in_nested_validation(loop):
    """Tell whether a validation in the middle of the second epoch is half done."""
    return loop.is_validating and (loop.global_step, loop.batch_num) == (6, 1)


KILLS = pytest.mark.parametrize(
    ("kill", "safe_point"),
    [
        (("on_batch_end", in_mid_accumulation), ("on_safe_point", "train", 1, 1, 5, 5)),
        (("on_forward_pass", in_mid_validation), ("on_safe_point", "train", 1, None, 8, 8)),
        (("on_forward_pass", in_nested_validation), ("on_safe_point", "train", 1, 1, 5, 5)),
    ],
    ids=["in mid-accumulation", "in mid-validation", "in nested validate()"],
)


def killed(make_loop, kill):
    """Return the watch of a run that was killed, and its log up to its last safe point."""
    made = []

    def make():
        made.append(make_loop(Kill(*kill)))
        return made[0]

    with contextlib.suppress(Killed):
        watched(make)
    watch = made[0].components["watch"]
    assert ("on_exception", Killed) in watch.log
    n = max(i for i, entry in enumerate(watch.log, 1) if entry[0] == "on_safe_point")
    return watch, watch.log[:n]


@KILLS
def test_a_killed_run_goes_on_from_the_safe_point_before(kill, safe_point, tmp_path):
    """The same script, started again, goes on from the last safe point to the same bits."""

    def make(other, folder):
        checkpoint = use("checkpoint", directory=tmp_path / folder, every=1)
        return make_loop(use("validate-every", steps=2), other, checkpoint, saver=None)

    whole = watched(lambda: make(Kill(), "whole"))
    _, log = killed(partial(make, folder="killed"), kill)
    assert (safe_point, whole.log[: len(log)]) == (log[-1], log)
    rest = watched(lambda: make(Kill(), "killed"), seed=99)
    assert rest_of(whole, len(log)) == outcome(rest)


@KILLS
def test_a_killed_run_goes_on_elsewhere_by_what_most_scripts_save(kill, safe_point):
    """Going on from the same safe points by model, optimizer and epoch leads to other weights."""

    def make(other):
        return make_loop(use("validate-every", steps=2), other, saver=Naive)

    whole = watched(lambda: make(Kill()))
    watch, log = killed(make, kill)
    n, file = watch.saved[-1]
    assert (safe_point, len(log)) == (log[-1], n)
    rest = gone_on(lambda: make(Kill()), file, saver=Naive)
    assert outcome(whole).model != outcome(rest).model
