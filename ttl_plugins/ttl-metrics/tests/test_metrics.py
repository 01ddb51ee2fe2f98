"""What `metrics` gathers, when it drops it, and what it logs."""

import subprocess
import sys
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn, tensor
from torchmetrics import CatMetric, MetricCollection, SumMetric
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score
from ttl_metrics import Metrics
from ttl_metrics.mean_loss import _DeviceSum

from ttl_core import ArgumentError, LoopComponent, RunError, TrainTestLoop, TTLError, use

pytestmark = pytest.mark.usefixtures("one_thread")


class Step(LoopComponent):
    """A component that takes scores and loss from (scores, targets, loss) batches."""

    def on_forward_pass(self, loop):
        loop.scores = loop.batch[0]

    def on_loss_compute(self, loop):
        loop.loss = loop.batch[2]


class Logged(LoopComponent):
    """A component that keeps what was logged."""

    def __init__(self):
        self.calls = []

    def on_log(self, loop, metrics, level):
        self.calls.append((level, {name: as_number(value) for name, value in metrics.items()}))


class LoggedDevices(LoopComponent):
    """A component that keeps the devices of what was logged."""

    def __init__(self):
        self.calls = []

    def on_log(self, metrics):
        self.calls.append({str(value.device) for value in metrics.values()})


def as_number(value):
    """Return a tensor as a number of Python, and other values as they are."""
    return value.tolist() if isinstance(value, torch.Tensor) else value


def batch(loss, scores=(0.0, 1.0), targets=(0, 1)):
    """Return a batch whose mean loss is `loss`; None for no loss."""
    return tensor(scores), tensor(targets), None if loss is None else tensor(loss)


RIGHT, WRONG = (0.0, 1.0), (1.0, 0.0)


def scores_and_targets(loop):
    """Return what the metrics take."""
    return loop.scores, loop.batch[1]


def accuracy():
    """Return a component that measures accuracy."""
    return Metrics(accuracy=BinaryAccuracy(validate_args=False), update_with=scores_and_targets)


def make_loop(component, train_data=None, valid_data=None, step=None):
    """Return a loop with steps and the component."""
    return TrainTestLoop(nn.Identity(), [step or Step(), component], train_data, valid_data)


def numbers(loop):
    """Return the newest epoch-level values as numbers."""
    return {name: as_number(value) for name, value in loop.metrics.items()}


# -- the mean loss ------------------------------------------------------------------------------


def test_loss_is_the_mean_weighted_by_batch_size():
    """The epoch's loss is the mean over samples, not over batches."""
    loop = make_loop(Metrics())
    loop.test([batch(1.0, (0.0,) * 3, (0,) * 3), batch(5.0, (0.0,), (0,))])
    assert {"test/loss": 2.0} == numbers(loop)


def test_it_is_found_by_name():
    """`use("metrics", accuracy=...)` creates the component."""
    loop = make_loop(use("metrics", accuracy=BinaryAccuracy(), update_with=scores_and_targets))
    loop.test([batch(1.0)])
    assert {"test/loss": 1.0, "test/accuracy": 1.0} == numbers(loop)


@pytest.mark.parametrize(("weights", "expected"), [((3, 1), 2.0), ((tensor(1), tensor(3.0)), 4.0)])
def test_batch_size_may_be_a_number_or_a_tensor(weights, expected):
    """The batch_size that a component sets is the weight."""

    class Weigh(Step):
        def on_batch_begin(self, loop):
            loop.batch_size = weights[loop.batch_num]

    loop = make_loop(Metrics(), step=Weigh())
    loop.test([batch(1.0), batch(5.0)])
    assert {"test/loss": expected} == numbers(loop)


def test_loss_may_be_a_plain_number():
    """A loss that is no tensor is averaged like one that is."""
    loop = make_loop(Metrics())
    loop.test([(tensor([0.0]), None, 1.0), (tensor([0.0]), None, 2.0)])
    assert {"test/loss": 1.5} == numbers(loop)


def test_low_precision_losses_are_summed_in_single_precision():
    """A weighted half-precision loss does not overflow."""
    loop = make_loop(Metrics())
    data = [(torch.zeros(1000), None, tensor(1000.0, dtype=torch.float16))]
    loop.test(data)
    assert {"test/loss": 1000.0} == numbers(loop)


class Losses(LoopComponent):
    """A component whose loss is the batch, all of one weight or of the given ones."""

    def __init__(self, weights=None):
        self.weights = weights

    def on_loss_compute(self, loop):
        loop.batch_size = self.weights[loop.batch_num] if self.weights else 1
        loop.loss = loop.batch


def mean_loss(losses, weights=None):
    """Return the mean loss that is logged for batches of some losses."""
    loop = make_loop(Metrics(), step=Losses(weights))
    loop.test(losses)
    return loop.metrics["test/loss"]


def test_a13_numbers_of_python_keep_their_digits_and_their_range():
    """A13: a mean of 67128463 is not 67128464, and 1e40 is not infinite."""
    assert [67128463.0, 1e40] == [mean_loss([67128463.0] * 2), mean_loss([1e40])]


@pytest.mark.parametrize("weight", [3, 3.0, tensor(3), tensor(3.0)])
def test_a13_losses_of_double_precision_are_averaged_in_it(weight):
    """A13: float64 losses stay float64, by hand, whatever their weight is."""
    losses = [1 / 3, 1e-9, 2 / 7]
    by_hand = sum(loss * 3 for loss in losses) / 9
    result = mean_loss([tensor(loss, dtype=torch.float64) for loss in losses], [weight] * 3)
    assert by_hand == pytest.approx(result, rel=1e-15)


def test_a13_a_weighted_loss_near_the_largest_number_does_not_overflow():
    """A13: a float32 loss of 3e38 times its weight is beyond float32, its mean is not."""
    loss = tensor(3e38)
    assert loss.item() == mean_loss([loss] * 2, [64, 64])


@pytest.mark.parametrize("empty", [0, tensor(0)], ids=["number", "tensor"])
def test_a_batch_of_weight_0_adds_nothing(empty):
    """The mean loss of nothing, as of an empty batch, is NaN, but that of its epoch is not."""
    nan = tensor(float("nan"))
    assert 2.0 == mean_loss([tensor(1.0), nan, tensor(4.0)], [2, empty, 1])
    on_device = _DeviceSum()
    on_device.add(nan, tensor(0))
    assert 0.0 == on_device.rounded().item()


@pytest.mark.parametrize(
    "zero", [0, 0.0, tensor(0), tensor(0.0), np.float32(0)], ids=lambda zero: type(zero).__name__
)
@pytest.mark.parametrize("has_loss", [True, False], ids=["loss", "no loss"])
def test_a_batch_of_weight_0_counts_in_no_metric(zero, has_loss):
    """Of three batches the second one counts nowhere, whatever it holds and where the weight is."""
    weights = [2, zero, 1]

    class Weights(Step):
        def on_batch_begin(self, loop):
            loop.batch_size = weights[loop.batch_num]

    data = [batch(1.0, RIGHT), batch(float("nan"), WRONG), batch(4.0, (0.0, 0.0))]
    loop = make_loop(accuracy(), step=Weights())
    loop.components[1].loss = has_loss
    loop.test(data)
    loss = {"test/loss": (2 * 1.0 + 1 * 4.0) / 3} if has_loss else {}
    assert {**loss, "test/accuracy": (1.0 + 1.0 + 1.0 + 0.0) / 4} == numbers(loop)


def test_a_weight_on_an_accelerator_is_not_read():
    """The mean of losses leaves the batch out there, by weight; the metrics count it."""

    class Weights(Step):
        def on_batch_begin(self, loop):
            loop.batch_size = torch.zeros((), device="meta")

    devices = LoggedDevices()
    loop = make_loop(accuracy(), step=Weights())
    loop.components.append(devices)
    loop.test([batch(1.0)])
    assert [{"meta", "cpu"}] == devices.calls


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "compensated"])
@pytest.mark.parametrize("one", [1, tensor(1)], ids=["number", "tensor"])
def test_a13_long_sums_keep_their_digits(dtype, one):
    """A13: the sum of 17 million losses is right, also where a device has no float64."""
    total, loss = _DeviceSum(torch.zeros((), dtype=dtype)), tensor(0.1)
    total.add(loss, 2**24)  # as after many batches, where float32 would lose the next ones
    for _ in range(300):
        total.add(loss, one)
    mean = total.rounded().item() / (2**24 + 300)
    assert loss.item() == pytest.approx(mean, rel=1e-7)
    single = loss * 2**24
    for _ in range(300):
        single = single + loss
    assert single.item() / (2**24 + 300) != pytest.approx(loss.item(), rel=1e-6)


def test_the_mean_loss_is_that_of_all_processes(monkeypatch):
    """Where torch.distributed is in use, totals and weights of all processes are added."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        monkeypatch.setattr(
            torch.distributed, "all_reduce", lambda sums: sums.add_(tensor([10.0, 3.0]))
        )
        assert 3.0 == mean_loss([1.0, 4.0])  # (5 + 10) / (2 + 3)
    finally:
        torch.distributed.destroy_process_group()


def test_a13_states_of_single_precision_are_loaded():
    """A13: a state of a version that summed in float32 counts on, in float64."""
    component = Metrics()
    old = {"total": tensor(4.0), "weight": tensor(2.0)}
    values = {"num": 0, "has_loss": True, "has_metrics": False, "metrics": {}, "counts": [2]}

    class Load(LoopComponent):
        def on_epoch_begin(self, loop):
            component.load_state_dict({"train": {**values, "loss": old}})

    loop = make_loop(component, [1e40], step=Losses())
    loop.components.append(Load())
    loop.train(n_epochs=1)
    assert {"train/loss": pytest.approx(1e40 / 3)} == numbers(loop)


def test_each_phase_logs_at_epoch_level_under_its_own_name():
    """Training and validation epochs each log once, as they end."""
    logged = Logged()
    loop = make_loop(Metrics(), [batch(1.0)], [batch(2.0)])
    loop.components.append(logged)
    loop.train(n_epochs=2)
    epoch = [("epoch", {"train/loss": 1.0}), ("epoch", {"valid/loss": 2.0})]
    assert epoch * 2 == logged.calls


def test_batches_without_a_loss_do_not_count():
    """A loss of None takes its batch out of the mean."""
    loop = make_loop(Metrics())
    loop.test([batch(1.0), batch(None), batch(2.0)])
    assert {"test/loss": 1.5} == numbers(loop)


def test_an_epoch_without_a_loss_logs_nothing():
    """Where nothing was gathered, on_log is not called."""
    logged = Logged()
    loop = make_loop(Metrics())
    loop.components.append(logged)
    loop.test([batch(None)])
    assert [] == logged.calls


def test_a_loss_that_training_left_behind_does_not_count_in_a_test():
    """Where no component sets a loss in a test, that of the last training batch is not used."""

    class OnlyInTraining(Step):
        def on_loss_compute(self, loop):
            if loop.is_training:
                loop.loss = tensor(1.0)

    loop = make_loop(Metrics(), [batch(1.0)], step=OnlyInTraining())
    loop.train(n_epochs=1)
    loop.test([batch(2.0)] * 2)
    assert {"train/loss": 1.0} == numbers(loop)


def test_a_loss_may_be_the_same_object_in_every_epoch():
    """Losses are distinguished by when they were set, not by identity: a buffer may be reused."""
    data = [batch(1.0)]
    loop = make_loop(Metrics(), data, data)
    loop.train(n_epochs=1)
    loop.test(data)
    assert {"train/loss": 1.0, "valid/loss": 1.0, "test/loss": 1.0} == numbers(loop)


def test_a_second_instance_that_logs_the_loss_is_refused():
    """It would count twice where it is monitored: the error says how to leave it to one."""
    loop = TrainTestLoop(nn.Identity(), [Step(), Metrics(), Metrics()], [batch(1.0)])
    with pytest.raises(TTLError, match=r"'metrics' and 'metrics#2' both log .*loss=False"):
        loop.train(1)
    loop.components.disable("metrics")
    loop.train(1)
    assert {"train/loss"} == loop.metrics.keys()


def test_loss_can_be_left_to_another_instance():
    """`loss=False` logs metrics alone, so that two instances can be in one list."""
    loop = make_loop(Metrics())
    loop.components.append(
        use(
            "metrics",
            name="more",
            loss=False,
            accuracy=BinaryAccuracy(),
            update_with=scores_and_targets,
        )
    )
    loop.components.append(Logged())
    loop.test([batch(1.0)])
    assert [("epoch", {"test/loss": 1.0}), ("epoch", {"test/accuracy": 1.0})] == (
        loop.components["logged"].calls
    )


@pytest.mark.parametrize("place", [0, 2])
def test_a14_a_component_placed_before_it_reads_the_values_of_this_epoch(place):
    """A14: in on_epoch_end loop.metrics holds this epoch's values, wherever metrics is placed."""
    read = []

    class Read(LoopComponent):
        def on_epoch_end(self, loop):
            read.append(loop.metrics[f"{loop.epoch_desc}/loss"])

    class Rise(Step):
        def on_loss_compute(self, loop):
            loop.loss = loop.batch[2] + loop.epoch_num

    loop = make_loop(Metrics(), [batch(1.0)], [batch(5.0)], step=Rise())
    loop.components.insert(place, Read())
    loop.train(n_epochs=2)
    assert [1.0, 5.0, 2.0, 6.0] == read


def test_torchmetrics_is_not_imported_for_the_loss_alone():
    """The mean loss is there without the seconds that importing torchmetrics takes."""
    program = (
        "import sys, torch; from ttl_core import TrainTestLoop, use; "
        "others = ['metrics', use('metrics', train={}, loss=False)]; "
        "TrainTestLoop(torch.nn.Identity(), others).test([[1.0]]); "
        "sys.exit('torchmetrics' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# -- metrics ------------------------------------------------------------------------------------


def test_a_metric_by_name_is_logged_in_every_phase():
    """A metric given once is computed in training, validation and testing separately."""
    loop = make_loop(accuracy(), [batch(1.0, RIGHT)], [batch(1.0, WRONG)])
    loop.train(n_epochs=1)
    loop.test([batch(1.0, RIGHT), batch(1.0, WRONG)])
    accuracies = {k: v for k, v in numbers(loop).items() if k.endswith("accuracy")}
    assert {"train/accuracy": 1.0, "valid/accuracy": 0.0, "test/accuracy": 0.5} == accuracies


def test_a_phase_may_have_its_own_metrics():
    """The metrics of a phase replace those of all phases."""
    component = Metrics(
        {"accuracy": BinaryAccuracy()},
        train={},
        valid={"f1": BinaryF1Score()},
        update_with=scores_and_targets,
    )
    loop = make_loop(component, [batch(1.0)], [batch(2.0)])
    loop.train(n_epochs=1)
    loop.test([batch(3.0)])
    assert {
        "train/loss": 1.0,
        "valid/loss": 2.0,
        "valid/f1": 1.0,
        "test/loss": 3.0,
        "test/accuracy": 1.0,
    } == numbers(loop)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (BinaryAccuracy(), {"BinaryAccuracy"}),
        ([BinaryAccuracy(), BinaryF1Score()], {"BinaryAccuracy", "BinaryF1Score"}),
        (MetricCollection({"acc": BinaryAccuracy()}, prefix="my_"), {"my_acc"}),
        ({"scores": MetricCollection([BinaryF1Score()])}, {"scores_BinaryF1Score"}),
    ],
)
def test_metrics_may_be_one_or_many_or_a_collection(given, expected):
    """Everything that makes a MetricCollection is accepted, and logged under the names in it."""
    loop = make_loop(Metrics(given, loss=False, update_with=scores_and_targets))
    loop.test([batch(1.0)])
    assert {f"test/{name}" for name in expected} == set(loop.metrics)


def test_what_was_given_is_copied():
    """The metric that was given is not updated itself."""
    metric = BinaryAccuracy()
    loop = make_loop(Metrics(accuracy=metric, update_with=scores_and_targets))
    loop.test([batch(1.0)])
    assert 0 == metric.update_count


def test_metrics_of_a_test_need_no_loss():
    """Where there are targets, metrics are updated though no component computed a loss."""
    loop = make_loop(accuracy())
    loop.test([batch(None)])
    assert {"test/accuracy": 1.0} == numbers(loop)


def test_update_with_may_skip_batches():
    """None in place of arguments excludes a batch from the metrics, not from the loss."""
    component = Metrics(
        total=SumMetric(), update_with=lambda loop: (loop.scores,) if loop.batch_num else None
    )
    loop = make_loop(component)
    loop.test([batch(1.0, (1.0, 2.0)), batch(3.0, (3.0, 4.0))])
    assert {"test/loss": 2.0, "test/total": 7.0} == numbers(loop)


Pair = namedtuple("Pair", ["inputs", "labels", "weights"])


@pytest.mark.parametrize(
    "data",
    [
        (tensor(RIGHT), tensor([0, 1])),
        [tensor(RIGHT), tensor([0, 1])],
        {"inputs": tensor(RIGHT), "targets": tensor([0, 1])},
        {"inputs": tensor(RIGHT), "labels": tensor([0, 1]), "weights": None},
        Pair(tensor(RIGHT), tensor([0, 1]), None),
        SimpleNamespace(inputs=tensor(RIGHT), targets=tensor([0, 1])),
    ],
    ids=["tuple", "list", "targets", "labels", "named tuple", "object"],
)
def test_targets_are_found_in_usual_batches(data):
    """Targets are found in a pair, a dict and an object."""

    class Score(LoopComponent):
        def on_forward_pass(self, loop):
            loop.scores = tensor(RIGHT)

    loop = make_loop(Metrics(accuracy=BinaryAccuracy()), step=Score())
    loop.test([data])
    assert {"test/accuracy": 1.0} == numbers(loop)


@pytest.mark.parametrize("data", [tensor(RIGHT), [tensor(RIGHT)], {"inputs": 1}, ("x", None)])
def test_a_batch_with_neither_targets_nor_loss_is_skipped(data):
    """A test on data without labels needs no other list of components."""
    loop = make_loop(Metrics(accuracy=BinaryAccuracy()), step=LoopComponent())
    loop.test([data])
    assert {} == numbers(loop)


def test_a_batch_with_a_loss_whose_targets_are_not_found_is_an_error():
    """Metrics are not silently left out: the error shows how to say where targets are."""
    loop = make_loop(Metrics(accuracy=BinaryAccuracy()))
    with pytest.raises(RunError, match=r"a tuple: .*update_with=lambda"):
        loop.test([batch(1.0)])


def test_kept_scores_hold_no_graph():
    """Metrics that keep their arguments do not keep the graphs of a whole epoch."""

    class Graph(Step):
        def on_forward_pass(self, loop):
            loop.scores = loop.batch[0].clone().requires_grad_() * 2

    component = Metrics(kept=CatMetric(), update_with=lambda loop: (loop.scores,))
    loop = make_loop(component, [batch(1.0)], step=Graph())
    kept = []

    class Record(LoopComponent):
        def on_safe_point(self, loop):
            kept.append(loop.metrics["train/kept"].requires_grad)

    loop.components.append(Record())
    loop.train(n_epochs=1)
    assert [False] == kept


def test_no_value_is_read_from_the_device():
    """Batches may be on a device whose values cannot be read, so nothing waits for it."""
    devices = LoggedDevices()
    loop = make_loop(accuracy())
    loop.components.append(devices)
    meta = torch.device("meta")
    scores, targets = torch.empty(2, device=meta), torch.empty(2, dtype=torch.long, device=meta)
    loop.test([(scores, targets, torch.empty((), device=meta))] * 2)
    assert [{"meta"}] == devices.calls


def test_a_device_may_change_between_epochs():
    """Metrics move to the device of the scores."""
    devices = LoggedDevices()
    loop = make_loop(accuracy())
    loop.components.append(devices)
    for device in ("cpu", "meta"):
        loop.test([tuple(value.to(device) for value in batch(1.0))])
    assert [{"cpu"}, {"meta"}] == devices.calls


# -- predictions and named validation sets ------------------------------------------------------


def test_a_prediction_gathers_and_logs_nothing():
    """The metrics of before are unchanged after a prediction, and nothing new is logged."""
    logged = Logged()
    loop = make_loop(accuracy(), [batch(1.0, RIGHT)])
    loop.components.append(logged)
    loop.train(n_epochs=1)
    loop.predict([batch(2.0, WRONG)])
    expected = {"train/loss": 1.0, "train/accuracy": 1.0}
    assert (expected, [("epoch", expected)]) == (numbers(loop), logged.calls)


def test_each_named_validation_set_has_its_own_values():
    """Values are logged under the name of their set, and no set counts in another one."""
    loop = make_loop(accuracy(), [batch(1.0)])
    loop.valid_data = {"near": [batch(1.0, RIGHT)], "far": [batch(3.0, RIGHT), batch(4.0, WRONG)]}
    loop.validate()
    assert {
        "valid/near/loss": 1.0,
        "valid/near/accuracy": 1.0,
        "valid/far/loss": 3.5,
        "valid/far/accuracy": 0.5,
    } == numbers(loop)


def test_one_that_is_enabled_in_another_named_set_drops_the_first():
    """What an unfinished set gathered does not count in the set in which it is enabled again."""

    class Toggle(LoopComponent):
        def on_batch_begin(self, loop):
            if (loop.data_name, loop.batch_num) == ("far", 1):
                loop.components.enable("metrics")

        def on_batch_end(self, loop):
            if loop.data_name == "near":
                loop.components.disable("metrics")

    loop = make_loop(Metrics())
    loop.components.append(Toggle())
    loop.valid_data = {"near": [batch(1.0)], "far": [batch(2.0), batch(4.0)]}
    loop.validate()
    assert {"valid/far/loss": 4.0} == numbers(loop)


# -- when it drops what it gathered -------------------------------------------------------------


def test_an_epoch_starts_empty_after_one_that_was_stopped():
    """What a stopped epoch gathered does not count in the next one."""

    class StopOnce(LoopComponent):
        def on_batch_end(self, loop):
            loop.components.disable(self)
            loop.stop()

    loop = make_loop(Metrics(), [batch(1.0), batch(3.0)])
    loop.components.append(StopOnce())
    loop.train(n_epochs=1)
    assert {} == numbers(loop)
    loop.train(n_epochs=1)
    assert {"train/loss": 2.0} == numbers(loop)


def test_an_epoch_starts_empty_after_one_that_failed():
    """What a failed epoch gathered does not count in the next one."""

    def failing():
        yield batch(1.0)
        raise OSError("disk")

    loop = make_loop(accuracy())
    with pytest.raises(OSError, match="disk"):
        loop.test(failing())
    loop.test([batch(3.0, WRONG)])
    assert {"test/loss": 3.0, "test/accuracy": 0.0} == numbers(loop)


def test_a_validation_in_mid_epoch_does_not_change_the_training_epoch():
    """Both epochs log what they would log without the other."""

    class ValidateOften(LoopComponent):
        def on_batch_end(self, loop):
            if loop.is_training:
                loop.validate()

    train, valid = [batch(1.0, RIGHT), batch(2.0, WRONG)], [batch(7.0, WRONG)]
    expected = {"train/loss": 1.5, "train/accuracy": 0.5, "valid/loss": 7.0, "valid/accuracy": 0.0}
    for place in (1, 2):
        loop = make_loop(accuracy(), train, valid)
        loop.components.insert(place, ValidateOften())
        loop.train(n_epochs=1)
        assert expected == numbers(loop)


def test_one_that_is_enabled_in_mid_epoch_gathers_the_rest():
    """Without on_epoch_begin it starts with the first batch after it was enabled."""
    loop = make_loop(Metrics(), [batch(1.0), batch(2.0), batch(4.0)])
    loop.components.disable("metrics")

    class Toggle(LoopComponent):
        """A component that enables metrics in batch 1 of epoch 0 and batch 2 of epoch 1 only."""

        def on_batch_begin(self, loop):
            if (loop.epoch_num, loop.batch_num) in [(0, 1), (1, 2)]:
                loop.components.enable("metrics")
            else:
                loop.components.disable("metrics")

    loop.components.append(Toggle())
    loop.train(n_epochs=2)
    assert {"train/loss": 4.0} == numbers(loop)


def test_resumes_from_its_state_in_mid_epoch():
    """What was gathered before a save counts in the epoch that is resumed from it."""
    saved = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            saved.append(loop.components["metrics"].state_dict())

    class Load(LoopComponent):
        def on_epoch_begin(self, loop):
            loop.components["metrics"].load_state_dict(saved[0])

    data = [batch(1.0, RIGHT), batch(2.0, WRONG)]
    loop = make_loop(accuracy(), data)
    loop.components.append(Save())
    loop.train(n_epochs=1)
    resumed = make_loop(accuracy(), data[1:])
    resumed.components.append(Load())
    resumed.train(n_epochs=1)
    assert numbers(loop) == numbers(resumed)


def test_state_is_data_and_empty_between_epochs(tmp_path):
    """A state holds nothing that torch.load refuses, and no epoch that has ended."""
    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            torch.save(loop.components["metrics"].state_dict(), tmp_path / "state.pt")
            states.append(torch.load(tmp_path / "state.pt", weights_only=True))

    loop = make_loop(accuracy(), [batch(1.0), batch(2.0)])
    loop.components.append(Save())
    loop.train(n_epochs=1)
    assert [["train"], []] == [list(state) for state in states]


# -- what it refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"accuracy": 3}, r"metrics is \{'accuracy': 3\}, but a torchmetrics.Metric"),
        ({"accuracy": BinaryAccuracy}, "metrics is .*BinaryAccuracy.*was expected"),
        ({"metrics": 3}, "metrics is 3, but"),
        ({"valid": 3}, "valid is 3, but"),
        ({"update": BinaryAccuracy()}, "attribute 'update' already exists"),
        ({"update_with": 3}, "update_with is 3, but has to take the loop"),
    ],
)
def test_what_is_no_metric_is_refused(given, message):
    """The error names what was given and what was expected."""
    with pytest.raises(ArgumentError, match=message):
        Metrics(**given)


def test_metrics_given_twice_are_refused():
    """Metrics are given as `metrics` or by name, not in both ways."""
    with pytest.raises(ArgumentError, match="given twice"):
        Metrics(BinaryAccuracy(), accuracy=BinaryAccuracy())


def test_a_metric_with_the_name_of_the_loss_is_refused():
    """Two values of one name cannot be logged."""
    with pytest.raises(ArgumentError, match="named 'loss'"):
        Metrics(valid={"loss": SumMetric()})


def test_a_metric_that_returns_a_value_with_the_name_of_the_loss_is_refused():
    """It would take the place of the mean loss."""

    class Several(SumMetric):
        def compute(self):
            return {"loss": self.sum_value}

    loop = make_loop(Metrics(several=Several(), update_with=lambda loop: (1.0,)))
    with pytest.raises(RunError, match="named 'loss', as the mean loss is"):
        loop.test([batch(5.0)])


def test_a_metric_that_fails_is_explained_by_what_it_was_given():
    """The error of torchmetrics gets a note with types and shapes, and the fix."""
    metrics = Metrics(accuracy=BinaryAccuracy(), update_with=lambda loop: (loop.scores,) * 2)
    with pytest.raises(RuntimeError, match="Detected the following values") as caught:
        make_loop(metrics).test([batch(1.0, scores=(0.2, 0.7))])
    assert any("(float32[2], float32[2])" in note for note in caught.value.__notes__)


def test_a_metric_may_be_named_loss_where_the_loss_is_not_logged():
    """With `loss=False` the name is free."""
    loop = make_loop(Metrics(loss=False, total=SumMetric(), update_with=lambda loop: (1.0,)))
    loop.test([batch(5.0)])
    assert {"test/total": 1.0} == numbers(loop)


def test_update_with_has_to_return_a_tuple():
    """A tensor, which would be unpacked along its first dimension, is refused."""
    loop = make_loop(Metrics(total=SumMetric(), update_with=lambda loop: loop.scores))
    with pytest.raises(ArgumentError, match="returned a Tensor, but has to return a tuple"):
        loop.test([batch(1.0)])


def test_an_unknown_batch_size_is_explained():
    """A batch without tensors needs a component that sets batch_size."""

    class Loss(LoopComponent):
        def on_loss_compute(self, loop):
            loop.loss = tensor(1.0)

    loop = make_loop(Metrics(), step=Loss())
    with pytest.raises(TTLError, match="batch_size"):
        loop.test(["text"])
