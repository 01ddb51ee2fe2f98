"""State outside of state_dict(): metrics of torchmetrics (C8), generators of one's own (C13)."""

from __future__ import annotations

import random
import warnings
from functools import partial

import numpy
import pytest
import torch
from recording import StateRecorder
from states import is_same, make_data, make_model, make_step_loop, through_file
from torch.utils.data import DataLoader, Dataset

from ttl_core import LoopComponent, SeededSampler, SeededSamples, StateError, TrainTestLoop

pytestmark = pytest.mark.usefixtures("one_thread")


# -- C8: objects whose state_dict() is empty ------------------------------------------------


class Measure(LoopComponent):
    """A component that sets an object as loop variable, and updates it in each batch.

    Args:
        make: returns the object.
        update: updates it with scores and targets.
    """

    def __init__(self, make, update=lambda metric, scores, targets: metric.update(scores, targets)):
        self.make, self.update = make, update

    def on_train_begin(self, loop):
        loop.metric = self.make()

    def on_batch_end(self, loop):
        self.update(loop.metric, loop.scores.detach(), loop.batch[1])


class Mean:
    """A mean whose state_dict() is empty though it has state."""

    def __init__(self):
        self.total = torch.tensor(0.0)

    def update(self, scores, targets):
        self.total = self.total + scores.mean()

    def compute(self):
        return self.total

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        assert state == {}


class Unsaved(torch.nn.Module):
    """A module with a buffer that is not persistent, and a list of tensors."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(()), persistent=False)
        self.values = []

    def update(self, scores, targets):
        self.total += scores.mean()
        self.values.append(scores.mean())

    def compute(self):
        return self.total + torch.stack(self.values).sum()


def of_torchmetrics(name, **options):
    """Return what makes a metric of two classes."""
    return lambda: getattr(pytest.importorskip("torchmetrics"), name)(**options)


def in_torchmetrics(make):
    """Return what makes a metric from the package."""
    return lambda: make(pytest.importorskip("torchmetrics"))


TWO = {"task": "multiclass", "num_classes": 2}
METRICS = {
    "own object": (Mean, False),
    "own module": (Unsaved, False),
    "mean of a batch": (of_torchmetrics("MeanMetric"), True),
    "accuracy": (of_torchmetrics("Accuracy", **TWO), False),
    "list of tensors": (of_torchmetrics("AUROC", **TWO), False),
    "wrapped": (
        in_torchmetrics(lambda t: t.wrappers.MinMaxMetric(t.Accuracy(**TWO))),
        False,
    ),
    "running": (in_torchmetrics(lambda t: t.wrappers.Running(t.MeanMetric(), window=4)), True),
    "collection": (
        in_torchmetrics(
            lambda t: t.MetricCollection([t.Precision(**TWO), t.Recall(**TWO), t.F1Score(**TWO)])
        ),
        False,
    ),
    "collection that shares state": (
        in_torchmetrics(
            lambda t: t.MetricCollection([t.PearsonCorrCoef(), t.ConcordanceCorrCoef()])
        ),
        False,
    ),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_whose_state_dict_is_empty_resumes(name):
    """C8: from every safe point, its value is that of the full run."""
    make, is_of_scores = METRICS[name]

    def make_run():
        if is_of_scores:
            measure = Measure(make, lambda metric, scores, targets: metric.update(scores.mean()))
        elif name == "collection that shares state":
            measure = Measure(
                make, lambda metric, scores, targets: metric.update(scores[:, 0], targets.float())
            )
        else:
            measure = Measure(make)
        return make_step_loop(StateRecorder(), measure)

    full = make_run()
    full.train(2)
    assert {} == full.metric.state_dict()
    for state in full.components["state-recorder"].states[:-1]:
        resumed = make_run()
        resumed.load_state_dict(through_file(state))
        resumed.train(2)
        assert is_same(full.metric.compute(), resumed.metric.compute())


def test_a_metric_that_is_missing_is_an_error():
    """C8: as with any other loop variable, the error says how to resume without it."""
    loop = make_step_loop(recorder := StateRecorder(), Measure(Mean))
    loop.train(1)
    for ignore in ((), ("metric",)):
        resumed = make_step_loop()
        resumed.load_state_dict(recorder.states[0], ignore=ignore)
        if ignore:
            resumed.train(1)
            continue
        with pytest.raises(StateError, match="the state holds the loop variable 'metric', which"):
            resumed.train(1)


# -- C13: generators ------------------------------------------------------------------------


class Noise(torch.nn.Module):
    """A layer that draws from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, inputs):
        return inputs + torch.randn(inputs.shape, generator=self.generator)


class Jitter:
    """A transform that draws."""

    def __init__(self):
        self.random = random.Random(4)


class Augmented(Dataset):
    """Samples that draw from generators of every kind, near and far."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(5)
        self.numpy = numpy.random.default_rng(6)
        self.old_numpy = numpy.random.RandomState(7)
        self.transforms = {"jitter": [Jitter()]}
        self.partial = partial(max, key=numpy.random.Generator(numpy.random.MT19937(8)))

    def __len__(self):
        return 9

    def __getitem__(self, index):
        draws = [
            torch.rand((), generator=self.generator),
            self.numpy.random(),
            self.old_numpy.random_sample(),
            self.transforms["jitter"][0].random.random(),
            self.partial.keywords["key"].random(),
        ]
        return torch.tensor([float(draw) for draw in draws])[:4], index % 2


class Perturb(LoopComponent):
    """A component that draws from a generator of its own, and sets a loop variable with one."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(9)

    def on_train_begin(self, loop):
        loop.source = torch.Generator().manual_seed(10)

    def on_batch_begin(self, loop):
        inputs, targets = loop.batch
        for generator in (self.generator, loop.source):
            inputs = inputs + torch.randn((), generator=generator)
        loop.batch = inputs, targets


def make_random_loop():
    """Return a loop in which everything draws from generators of its own."""
    data = Augmented()
    train = DataLoader(data, batch_size=3, sampler=SeededSampler(data))
    valid = {"one": DataLoader(Augmented(), batch_size=3)}
    model = torch.nn.Sequential(Noise(), *make_model())
    return make_step_loop(Perturb(), StateRecorder(), model=model, data=train, valid_data=valid)


def test_generators_of_model_data_and_components_are_in_the_state():
    """C13: from every safe point, a run resumes to the bits of the full one."""
    full = make_random_loop()
    full.train(2)
    for state in full.components["state-recorder"].states:
        resumed = make_random_loop()
        resumed.load_state_dict(through_file(state))
        resumed.train(2)
        assert is_same(full.model.state_dict(), resumed.model.state_dict())
        assert torch.equal(full.loss, vars(resumed).get("loss", full.loss))
    expected = {
        *("model.0.generator", "components.perturb.generator", "loop.source"),
        *("train_data.dataset.generator", "train_data.dataset.numpy"),
        *("train_data.dataset.old_numpy", "train_data.dataset.transforms.jitter.0.random"),
        "train_data.dataset.partial.key",
    }
    found = state["generators"].keys()
    assert expected == {path for path in found if not path.startswith("valid_data")}
    assert 5 == len(found - expected)


def test_a_state_of_an_earlier_version_has_no_generators():
    """C13: it is loaded as before, and so is one with generators that are gone."""
    full = make_random_loop()
    full.train(1)
    state = full.components["state-recorder"].states[0]
    for generators in (None, {"model.9": {"torch": torch.zeros(1)}}):
        old = {**state, "generators": generators}
        if generators is None:
            del old["generators"], old["hidden"]
        resumed = make_random_loop()
        resumed.load_state_dict(old)
        resumed.train(1)
        assert 3 == resumed.global_step


# -- C13: workers that draw -----------------------------------------------------------------


class Plain(Dataset):
    """Samples that may draw, for all one can see."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.zeros(4), 0


def warnings_of(train_data, valid_data):
    """Return the warnings that a saver gets in on_train_begin."""
    loop = TrainTestLoop(torch.nn.Identity(), [], train_data, valid_data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            loop.state_dict(allow_unsafe=True)
    return [str(warning.message) for warning in caught]


WORKERS = {"num_workers": 1, "persistent_workers": True}
BEGIN = "a run that resumes may see other data than one that was not interrupted: "


def test_persistent_workers_that_may_draw_are_named_at_the_start():
    """C13: once, with the line to write."""
    expected = (
        f"{BEGIN}the workers of valid_data['a'] are persistent: if its Plain draws random numbers, "
        "they continue from epoch to epoch. Write DataLoader(SeededSamples(dataset), ..., "
        "sampler=SeededSampler(dataset, shuffle=False)), or persistent_workers=False"
    )
    sets = {"a": DataLoader(Plain(), **WORKERS), "b": DataLoader(Plain(), num_workers=1)}
    assert [expected] == warnings_of(make_data(), sets)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(SeededSamples(Plain()), sampler=SeededSampler(Plain()), **WORKERS),
        DataLoader(torch.utils.data.TensorDataset(torch.zeros(2)), **WORKERS),
        DataLoader(torch.utils.data.Subset([1, 2], [0]), **WORKERS),
        DataLoader(Plain(), num_workers=1),
        DataLoader(Plain()),
    ],
)
def test_workers_that_draw_nothing_or_are_started_anew_are_not_named(loader):
    """C13: samples that are seeded, data that are known, and workers of one epoch."""
    assert [] == warnings_of(make_data(), loader)


def test_generators_in_workers_are_named_at_the_start():
    """C13: workers draw from copies, of which the state knows nothing."""
    data = Plain()
    data.generator = torch.Generator()
    loader = DataLoader(data, sampler=SeededSampler(data), num_workers=1)
    expected = (
        f"{BEGIN}the workers of train_data draw from copies of train_data.dataset.generator: draw "
        "from ttl_core.sample_generator(index) instead"
    )
    assert [expected] == warnings_of(loader, loader)
