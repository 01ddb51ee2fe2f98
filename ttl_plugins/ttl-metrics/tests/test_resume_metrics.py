"""What `metrics` keeps of metrics over a resume: wrapped ones, and what they hold in attributes."""

import collections
import io

import pytest
import torch
from torch import nn
from torchmetrics import MeanMetric, MeanSquaredError, Metric, MetricCollection, SumMetric
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryPrecision,
    BinaryRecall,
    MulticlassAccuracy,
)
from torchmetrics.wrappers import (
    BootStrapper,
    ClasswiseWrapper,
    MinMaxMetric,
    MultioutputWrapper,
    Running,
)
from ttl_metrics import Metrics

from ttl_core import Group, LoopComponent, StateError, TrainTestLoop

pytestmark = pytest.mark.usefixtures("one_thread")


class Longest(Metric):
    """A metric that keeps its sum in a plain attribute, and its maximum over all epochs."""

    def __init__(self):
        super().__init__()
        self.sum = 0.0
        self.seen = {"max": torch.tensor(0.0), "all": []}

    def update(self, scores, _):
        self.sum += scores.sum().item()
        self.seen["all"].append(len(scores))

    def compute(self):
        self.seen["max"] = torch.maximum(self.seen["max"], torch.tensor(self.sum))
        return self.seen["max"] + len(self.seen["all"]) / 1024

    def reset(self):
        super().reset()
        self.sum = 0.0


class Parts(Metric):
    """A metric that holds others in a list and a dict, which are no modules."""

    def __init__(self):
        super().__init__()
        self.parts = [SumMetric(), MinMaxMetric(MeanMetric())]
        self.named = {"squares": SumMetric()}

    def update(self, scores, _):
        for part in self.parts:
            part.update(scores)
        self.named["squares"].update(scores**2)

    def compute(self):
        both = self.parts[1].compute()
        return self.parts[0].compute() + both["max"] + self.named["squares"].compute()

    def reset(self):
        super().reset()
        for part in [*self.parts, *self.named.values()]:
            part.reset()


class Scores(LoopComponent):
    """A component whose scores are the first of a batch."""

    def on_forward_pass(self, loop):
        loop.scores = loop.batch[0]


class SaveInMidEpoch(LoopComponent):
    """A component that keeps the state of a loop, as a file would, in epoch 1 after batch 1."""

    def on_safe_point(self, loop):
        if (loop.epoch_num, loop.is_training, loop.batch_num) == (1, True, 1):
            self.file = io.BytesIO()
            torch.save(loop.state_dict(), self.file)


class Logged(LoopComponent):
    """A component that keeps what was logged at epoch level from epoch 1 on."""

    def on_train_begin(self):
        self.values = []

    def on_log(self, loop, metrics):
        if loop.epoch_num > 0:
            self.values.append({name: value.tolist() for name, value in metrics.items()})


def make_data(seed):
    """Return four batches of scores from 0 to 5 and targets."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.rand(4, 2, generator=generator) * (5 - i),
            torch.rand(4, 2, generator=generator).round().int(),
        )
        for i in range(4)
    ]


def flat(loop):
    """Return the arguments for metrics of flat scores between 0 and 1."""
    return loop.scores.flatten() / 5, loop.batch[1].flatten()


def scores_alone(loop):
    """Return the arguments for metrics of values."""
    return (loop.scores,)


def scores_and_targets(loop):
    """Return the arguments for other metrics."""
    return loop.scores, loop.batch[1]


CASES = {
    "min-max": (lambda: MinMaxMetric(BinaryAccuracy()), flat),
    "outputs": (lambda: MultioutputWrapper(MeanSquaredError(), 2), scores_and_targets),
    "bootstrap": (lambda: BootStrapper(MeanSquaredError(), num_bootstraps=3), scores_and_targets),
    "running": (lambda: Running(SumMetric(), window=3), scores_alone),
    "class-wise": (
        lambda: ClasswiseWrapper(MulticlassAccuracy(2, average=None)),
        lambda loop: (loop.scores, loop.batch[1][:, 0]),
    ),
    "nested": (lambda: MinMaxMetric(Running(MeanMetric(), window=3)), scores_alone),
    "deep": (
        lambda: MultioutputWrapper(Running(MeanSquaredError(), window=3), 2),
        scores_and_targets,
    ),
    "sum of two": (lambda: SumMetric() + Running(SumMetric(), window=3), scores_alone),
    "collection": (
        lambda: MetricCollection({"a": MinMaxMetric(MeanMetric()), "b": Running(SumMetric(), 3)}),
        scores_alone,
    ),
    "group": (lambda: MetricCollection([BinaryPrecision(), BinaryRecall()]), flat),
    "attributes": (Longest, scores_and_targets),
    "in a list": (Parts, scores_and_targets),
}


def make_loop(case, *others):
    """Return a loop that measures the metric of a case, and keeps what it logs."""
    make_metric, update_with = CASES[case]
    metric = make_metric()
    given = metric if isinstance(metric, MetricCollection) else {"metric": metric}
    components = [Scores(), Metrics(given, update_with=update_with), Logged(), *others]
    return TrainTestLoop(nn.Identity(), components, make_data(0), make_data(1))


@pytest.mark.parametrize("case", CASES)
def test_a11_a_resumed_run_logs_what_the_uninterrupted_one_logs(case):
    """A11: wrapped metrics, and what metrics hold in attributes, count over a resume."""
    torch.manual_seed(0)
    loop = make_loop(case, save := SaveInMidEpoch())
    loop.train(n_epochs=3)
    resumed = make_loop(case)
    save.file.seek(0)
    resumed.load_state_dict(torch.load(save.file, weights_only=True))
    resumed.train(n_epochs=3)
    assert 4 == len(loop.components["logged"].values)
    assert loop.components["logged"].values == resumed.components["logged"].values


def test_a11_an_earlier_state_in_the_same_process_has_earlier_attributes():
    """A11: attributes that had not changed yet when the state was taken are as they were then."""
    component = Metrics(lowest=MinMaxMetric(MeanMetric()), update_with=scores_alone)
    before = component.state_dict()
    loop = TrainTestLoop(nn.Identity(), [Scores(), component])
    loop.test([(torch.zeros(2), None)])
    after = component.state_dict()
    component.load_state_dict(before)
    loop.test([(torch.ones(2), None)])
    assert ({}, ["test"]) == (before, list(after))
    assert 1.0 == loop.metrics["test/min"]


def test_a11_settings_of_metrics_are_no_state():
    """A11: what an epoch has not changed is not saved, so a new setting of a script holds."""
    loop = make_loop("min-max", save := SaveInMidEpoch())
    loop.train(n_epochs=3)
    save.file.seek(0)
    state = torch.load(save.file, weights_only=True)["components"]["metrics"]
    saved = {phase: its_state["attributes"] for phase, its_state in state.items()}
    assert {
        "train": {"metric": {"min_val", "max_val"}},
        "valid": {"metric": {"min_val", "max_val"}},
    } == {
        phase: {path: set(names) for path, names in attributes.items()}
        for phase, attributes in saved.items()
    }


def test_a11_states_of_earlier_versions_are_loaded():
    """A11: a state that does not hold what metrics hold is loaded as before."""
    component = Metrics(total=SumMetric())
    values = component._phase("train")
    values.begin((0, None))
    values.update_metrics(torch.tensor(3.0))
    state = component.state_dict()
    old = {
        name: value for name, value in state["train"].items() if name not in ("held", "attributes")
    } | {"counts": [0, 1]}
    other = Metrics(total=SumMetric())
    other.load_state_dict({"train": old})
    assert {"total": 3.0} == other._phases["train"].finish(Group())


class Counting(Metric):
    """A metric that counts in a Counter."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def update(self, scores, _):
        self.counts.update(scores.flatten().int().tolist())

    def compute(self):
        return torch.tensor(self.counts[0])


class Growing(Metric):
    """A metric that creates metrics while it is updated."""

    def __init__(self):
        super().__init__()
        self.parts = {}

    def update(self, scores, _):
        self.parts.setdefault(len(scores), SumMetric()).update(scores)

    def compute(self):
        return self.parts[4].compute()


@pytest.mark.parametrize(
    ("metric", "message"),
    [(Counting(), "'metric.counts' has changed .* Counter"), (Growing(), "'metric.parts.4' was")],
    ids=["counter", "growing"],
)
def test_a11_what_could_not_be_resumed_is_refused_when_it_is_saved(metric, message):
    """A11: data of a type that no state holds, and metrics that a new run would not have."""
    components = [Scores(), Metrics(metric=metric), SaveInMidEpoch()]
    loop = TrainTestLoop(nn.Identity(), components, make_data(0))
    with pytest.raises(StateError, match=message):
        loop.train(n_epochs=2)


def test_a11_a_state_of_other_metrics_is_refused():
    """A11: the error names the metric of the state, and those of the script."""
    loop = make_loop("min-max", save := SaveInMidEpoch())
    loop.train(n_epochs=2)
    other = make_loop("attributes")
    save.file.seek(0)
    other.load_state_dict(torch.load(save.file, weights_only=True))
    with pytest.raises(StateError, match=r"'metric\._base_metric', but .*: metric\. Give"):
        other.train(n_epochs=2)
