"""A run with many components resumes to what was left of it, hook by hook, to the same bits."""

import contextlib
from functools import partial

import pytest
import torch
from resume_comparison import (
    LoopState,
    NaiveState,
    RunLog,
    bits,
    compare_resumed,
    from_bytes,
    outcome,
    rest_of,
    resume,
    run,
)
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC
from ttl_checkpoint.reading import read_state
from ttl_checkpoint.store import Store

from ttl_core import LoopComponent, SeededSampler, StateError, TrainTestLoop, use

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


class Transformer(nn.Module):
    """A classifier of sequences, by the mean output of a small encoder."""

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


def make_loop(*others, model="mlp", workers=0, valid_workers=0, persistent=False, saver=LoopState):
    """Return a loop with many components; an epoch is 7 batches and 4 steps."""
    make_model, shape = MODELS[model]
    inputs = torch.randn(26, *shape, generator=torch.Generator().manual_seed(1))
    dataset = TensorDataset(inputs, torch.arange(26) % 3)
    load = partial(DataLoader, dataset, persistent_workers=persistent)
    components = [
        RunLog(saver),
        use(
            "supervised",
            loss_func=nn.CrossEntropyLoss(),
            optimizer=partial(torch.optim.AdamW, lr=0.01),
            # of twice the length, as a naive saver repeats steps
            scheduler=lambda optimizer, n: OneCycleLR(optimizer, 0.05, total_steps=2 * n),
        ),
        use("grad-accumulation", every=2),
        use("grad-clip", max_norm=0.5),
        use("lr-warmup", n_steps=5),
        use("amp", dtype="bf16"),
        use("ema", decay=0.2),
        use(
            "metrics",
            accuracy=MulticlassAccuracy(3, validate_args=False),
            auroc=MulticlassAUROC(3, thresholds=None, validate_args=False),  # its state is lists
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
        ({"model": "cnn"}, 4),
        ({"model": "encoder"}, 4),
        ({"model": "mlp", "workers": 2}, 4),
        pytest.param({"model": "cnn"}, 1, marks=pytest.mark.soak),
        pytest.param({"model": "encoder"}, 1, marks=pytest.mark.soak),
        pytest.param({"model": "mlp", "workers": 2}, 1, marks=pytest.mark.soak),
        ({"model": "cnn", "workers": 2, "valid_workers": 1}, 4),
        ({"model": "encoder", "workers": 2}, 4),
        ({"model": "mlp", "workers": 2, "valid_workers": 2, "persistent": True}, 4),
    ],
    ids=str,
)
def test_resumes_from_every_safe_point(config, every):
    """From each safe point, a new loop does what was left to do, hook by hook, bit by bit."""
    for expected, actual in compare_resumed(partial(make_loop, **config), every=every):
        assert expected == actual


def test_a_resumed_run_saves_what_the_full_run_does():
    """All states after resuming are those of the full run, so a run may resume repeatedly."""
    full = run(make_loop)
    resumed = resume(make_loop, full.saved[1].file, is_saving=True)
    expected = [bits(from_bytes(file)) for _, file in full.saved[2:]]
    assert expected == [bits(from_bytes(file)) for _, file in resumed.saved]


@pytest.mark.parametrize("model", MODELS)
def test_resuming_by_model_optimizer_scheduler_and_epoch_alone_is_another_run(model):
    """What most scripts save leads to other weights, unless it was saved at the end."""
    make = partial(make_loop, model=model, saver=NaiveState)
    for expected, actual in compare_resumed(make, saver=NaiveState, every=3):
        assert expected.model != actual.model


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.soak)])
def test_resumes_from_checkpoints_on_disk(tmp_path, every):
    """From any checkpoint that the component has saved, a new loop resumes to the same bits."""

    def make(**config):
        return make_loop(use("checkpoint", every=1, keep=None, **config), saver=None)

    full = run(partial(make, directory=tmp_path / "full"))
    assert [13, 13] == [
        len(full.saved),
        len(list((tmp_path / "full").glob("0*"))),
    ]
    for n, path in full.saved[::every]:
        resumed = run(partial(make, directory=tmp_path / "resumed", resume=path), seed=99)
        assert rest_of(full, n) == outcome(resumed)


def test_resumes_from_checkpoints_that_a_thread_has_written(tmp_path):
    """What is written while training continues is the state at its safe point nevertheless."""

    def make(**config):
        checkpoint = use("checkpoint", every=1, keep=None, asynchronous=True, **config)
        return make_loop(checkpoint, saver=None)

    full = run(partial(make, directory=tmp_path / "full"))
    paths = sorted((tmp_path / "full").glob("0*"))
    assert 13 == len(paths)
    for path in paths[::3]:
        resumed = run(partial(make, directory=tmp_path / "resumed", resume=path), seed=99)
        assert full.ends == resumed.ends


# -- killed between safe points -------------------------------------------------------------


class Killed(BaseException):
    """An exception that no component expects, in place of a kill."""


class Kill(LoopComponent):
    """A component that raises Killed at one point, where a function of the loop is true."""

    def __init__(self, point="on_batch_end", when=lambda loop: False):
        def kill(loop):
            if when(loop):
                raise Killed

        setattr(self, point, kill)


def in_mid_accumulation(loop):
    """Return whether the second epoch has gradients of one batch of two."""
    return loop.is_training and (loop.epoch_num, loop.batch_num) == (1, 2)


def in_mid_validation(loop):
    """Return whether the second epoch is half validated."""
    is_at_end = loop.global_step == 8
    return loop.is_validating and is_at_end and (loop.epoch_num, loop.batch_num) == (1, 1)


def in_nested_validation(loop):
    """Return whether a validation in the middle of the second epoch is half done."""
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
    """Return the RunLog of a run that was killed, and its entries up to its last safe point."""
    made = []

    def make():
        made.append(make_loop(Kill(*kill)))
        return made[0]

    with contextlib.suppress(Killed):
        run(make)
    run_log = made[0].components["run-log"]
    assert ("on_exception", Killed) in run_log.log
    n = max(i for i, entry in enumerate(run_log.log, 1) if entry[0] == "on_safe_point")
    return run_log, run_log.log[:n]


@KILLS
def test_a_killed_run_resumes_from_the_safe_point_before(kill, safe_point, tmp_path):
    """The same script, started again, resumes from the last safe point to the same bits."""

    def make(other, folder):
        checkpoint = use("checkpoint", directory=tmp_path / folder, every=1)
        return make_loop(use("validate-every", steps=2), other, checkpoint, saver=None)

    full = run(lambda: make(Kill(), "full"))
    _, log = killed(partial(make, folder="killed"), kill)
    assert (safe_point, full.log[: len(log)]) == (log[-1], log)
    resumed = run(lambda: make(Kill(), "killed"), seed=99)
    assert rest_of(full, len(log)) == outcome(resumed)


@KILLS
def test_a_killed_run_resumes_to_other_bits_by_what_most_scripts_save(kill, safe_point):
    """Resuming from the same safe points by model, optimizer and epoch leads to other weights."""

    def make(other):
        return make_loop(use("validate-every", steps=2), other, saver=NaiveState)

    full = run(lambda: make(Kill()))
    run_log, log = killed(make, kill)
    n, file = run_log.saved[-1]
    assert (safe_point, len(log)) == (log[-1], n)
    resumed = resume(lambda: make(Kill()), file, saver=NaiveState)
    assert outcome(full).model != outcome(resumed).model


class LazySteps(LoopComponent):
    """The steps of a run whose model gets its shapes from the first batch."""

    def on_train_begin(self, loop):
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1, momentum=0.9)

    def on_backward_pass(self, loop):
        loop.optimizer.zero_grad()
        loop.model(loop.batch).square().sum().backward()

    def on_optim_step(self, loop):
        loop.optimizer.step()


def lazy_run(directory, n_epochs, *others):
    """Train a model with a lazy layer, and return the loop."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    saving = use("checkpoint", directory=directory, every=1, signals=False)
    loop = TrainTestLoop(model, [LazySteps(), *others, saving], [torch.ones(2, 4)] * 3)
    loop.train(n_epochs)
    return loop


def test_lazy_layers_are_saved_from_the_first_step_on(tmp_path):
    """C11: a model with LazyLinear needs no batch before train()."""
    loop = lazy_run(tmp_path, 1)
    state = read_state(Store(tmp_path).checkpoints()[0])
    assert [v.tolist() for v in loop.model.state_dict().values()] == [
        v.tolist() for v in state["model"].values()
    ]
    assert 3 == len(Store(tmp_path).checkpoints())


def test_a_layer_that_stays_lazy_is_refused_when_it_is_saved(tmp_path):
    """C11: the error names its parameters, and what to do."""

    class Partial(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 1), nn.LazyLinear(3)

        def forward(self, x):
            return self.used(x)

    class OnlyUsed(LazySteps):
        def on_train_begin(self, loop):
            loop.optimizer = torch.optim.SGD(loop.model.used.parameters(), lr=0.1)

    saving = use("checkpoint", directory=tmp_path, signals=False)
    loop = TrainTestLoop(Partial(), [OnlyUsed(), saving], [torch.ones(2, 4)] * 3)
    with pytest.raises(StateError, match=r"cannot be saved: unused\.weight, unused\.bias of a"):
        loop.train(1)


def test_a_lazy_model_that_fails_at_once_raises_its_own_error(tmp_path):
    """C11: nothing is saved of it, and no other error is added."""

    class Fail(LoopComponent):
        def on_batch_begin(self, loop):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        lazy_run(tmp_path, 1, Fail())
    assert "checkpoint then failed" not in "".join(caught.value.__notes__)
    assert 0 == lazy_run(tmp_path, 0).global_step
