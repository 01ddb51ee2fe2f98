"""What `supervised` does."""

from collections import namedtuple
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from ttl_core import (
    ArgumentError,
    ConflictError,
    LoopComponent,
    RunError,
    StateError,
    TrainTestLoop,
    TTLError,
    use,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
MSE = torch.nn.MSELoss()
Pair = namedtuple("Pair", "inputs targets")
Reversed = namedtuple("Reversed", "targets inputs")


def make_data(n_batches=4):
    """Return batches for a model of two features and one score."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 2, generator=generator), torch.randn(8, 1, generator=generator))
        for _ in range(n_batches)
    ]


def make_model():
    """Return the same small model each time."""
    torch.manual_seed(0)
    return torch.nn.Linear(2, 1)


def make_loop(*others, data=None, valid_data=None, **config):
    """Return a loop with `supervised` and other components."""
    config = {"loss_func": MSE, "optimizer": SGD, **config}
    return TrainTestLoop(
        make_model(), [use("supervised", **config), *others], data or make_data(), valid_data
    )


def trained_by_hand(n_epochs, scheduler=None):
    """Return the weights after a loop written by hand."""
    model, data = make_model(), make_data()
    optimizer = SGD(model.parameters())
    scheduler = scheduler and scheduler(optimizer, n_epochs * len(data))
    for _ in range(n_epochs):
        for inputs, targets in data:
            optimizer.zero_grad()
            MSE(model(inputs), targets).backward()
            optimizer.step()
            if scheduler:
                scheduler.step()
    return model.state_dict()


def assert_same(one, other):
    """Check that two state dicts hold the same bits."""
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_trains_to_the_same_bits_as_a_loop_written_by_hand():
    """The weights are exactly those of a loop written by hand."""
    loop = make_loop()
    loop.train(3)
    assert_same(trained_by_hand(3), loop.model.state_dict())


def test_gives_a_scheduler_factory_the_number_of_steps():
    """A scheduler made by a factory spans exactly the steps of the run."""
    decay = lambda optimizer, n: torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, n)  # noqa: E731
    loop = make_loop(scheduler=decay)
    loop.train(3)
    assert_same(trained_by_hand(3, decay), loop.model.state_dict())
    assert loop.scheduler.get_last_lr() == [0.0]


def test_steps_a_scheduler_once_an_epoch_if_configured():
    """With scheduler_interval="epoch" the learning rate changes between epochs only."""
    loop = make_loop(
        scheduler=lambda optimizer, _: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
        scheduler_interval="epoch",
        valid_data=make_data(1),
    )
    loop.train(2)
    assert loop.scheduler.get_last_lr() == [0.025]


def test_takes_an_optimizer_instance():
    """An optimizer instance is used as it is, in every train()."""
    model = make_model()
    optimizer = SGD(model.parameters())
    loop = TrainTestLoop(
        model, [use("supervised", loss_func=MSE, optimizer=optimizer)], make_data()
    )
    loop.train(1)
    loop.train(1)
    assert loop.optimizer is optimizer


def test_makes_a_new_optimizer_in_each_train():
    """A factory starts each train() with new optimizer state, as the seed's example does."""
    loop = make_loop()
    loop.train(1)
    first = loop.optimizer
    loop.train(1)
    assert loop.optimizer is not first


@pytest.mark.parametrize(
    "make_batch",
    [
        lambda inputs, targets: (inputs, targets),
        lambda inputs, targets: [inputs, targets],
        lambda inputs, targets: {"inputs": inputs, "targets": targets},
        Pair,
        lambda inputs, targets: Reversed(targets, inputs),
        lambda inputs, targets: SimpleNamespace(inputs=inputs, targets=targets),
    ],
    ids=["tuple", "list", "dict", "named tuple", "reversed", "object"],
)
def test_finds_inputs_and_targets(make_batch):
    """Pairs, and what names its inputs and targets, need no configuration."""
    loop = make_loop(data=[make_batch(*batch) for batch in make_data()])
    loop.train(3)
    assert_same(trained_by_hand(3), loop.model.state_dict())


def test_splits_any_batch_with_a_function():
    """A split function takes every type of batch."""
    data = [{"x": {"deep": inputs}, "y": targets} for inputs, targets in make_data()]
    loop = make_loop(data=data, split=lambda batch: (batch["x"]["deep"], batch["y"]))
    loop.train(3)
    assert_same(trained_by_hand(3), loop.model.state_dict())


def test_moves_nested_batches_to_the_device():
    """Every tensor of a nested batch moves to the device, and its containers keep their types."""

    class Record(LoopComponent):
        def on_batch_end(self, loop):
            self.batch = loop.batch

    record = Record()
    batch = Pair({"a": [torch.ones(2, 2)], "b": "text"}, torch.ones(2, 1))
    loop = make_loop(
        record,
        data=[batch],
        device="meta",
        split=lambda batch: (batch.inputs["a"][0], batch.targets),
    )
    loop.train(1)
    assert type(record.batch) is Pair
    assert [torch.device("meta")] * 2 == [
        record.batch.inputs["a"][0].device,
        record.batch.targets.device,
    ]
    assert record.batch.inputs["b"] == "text"


def test_tests_batches_without_targets():
    """In testing, targets may be missing: the scores are set, and the loss is None."""
    loop = make_loop()
    loop.train(1)
    loop.test([inputs for inputs, _ in make_data()])
    assert loop.loss is None
    assert loop.scores.shape == (8, 1)


def test_refuses_training_batches_without_targets():
    """In training, missing targets are an error that shows how to say where they are."""
    with pytest.raises(ArgumentError, match="split=function"):
        make_loop(data=[inputs for inputs, _ in make_data()]).train(1)


def test_logs_the_loss_of_each_batch():
    """Each batch logs its loss, detached, under the name of its phase."""

    class Record(LoopComponent):
        def __init__(self):
            self.logged = []

        def on_log(self, metrics, level):
            self.logged.append(
                (level, {name: value.requires_grad for name, value in metrics.items()})
            )

    record = Record()
    make_loop(record, data=make_data(2), valid_data=make_data(1)).train(1)
    train, valid = {"train/loss": False}, {"valid/loss": False}
    assert [("batch", train), ("batch", train), ("batch", valid)] == record.logged


def test_explains_that_it_was_enabled_in_mid_batch():
    """Enabled between the forward and the backward pass it raises an error of ttl's."""

    class Late(LoopComponent):
        def on_forward_pass(self, loop):
            loop.components.enable("supervised")

    loop = make_loop(Late())
    loop.components.disable("supervised")
    with pytest.raises(TTLError, match="in the middle of a batch"):
        loop.train(1)


def test_scores_of_the_same_batch_in_an_earlier_epoch_are_not_taken_for_those_of_this_one():
    """Disabled within a batch, and enabled again within that of the next epoch, it says so."""

    class Toggle(LoopComponent):
        def on_forward_pass(self, loop):
            if loop.epoch_num == 0:
                loop.components.disable("supervised")
            else:
                loop.components.enable("supervised")

    loop = make_loop(Toggle(), data=make_data(1))
    with pytest.raises(TTLError, match="in the middle of a batch"):
        loop.train(2)


def test_scores_are_remembered_over_a_validation_in_mid_batch():
    """A validation between forward pass and loss does not change what the batch is made of."""

    class Validate(LoopComponent):
        def on_forward_pass(self, loop):
            if loop.is_training:
                loop.validate()

    data = make_data(2)
    loop, plain = make_loop(Validate(), data=data, valid_data=data), make_loop(data=data)
    for one in (loop, plain):
        one.train(1)
    assert_same(plain.model.state_dict(), loop.model.state_dict())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"loss_func": torch.nn.MSELoss}, "loss_func"),
        ({"loss_func": "mse"}, "loss_func"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"scheduler": "cosine"}, "scheduler"),
        ({"scheduler_interval": "batch"}, "scheduler_interval is 'batch', .* 'step' or 'epoch'"),
        ({"device": "quantum"}, "quantum"),
        ({"split": "labels"}, "split is 'labels', but has to take a batch"),
        ({"monitor": 3}, "monitor is 3, but has to be the name of a metric"),
        ({"optimizer": "adamw"}, r"'adamw', .*functools\.partial\(torch\.optim\.AdamW, lr=1e-3\)"),
        ({"optimizer": None}, r"None, .* Write: optimizer=functools\.partial\(torch\.optim\.Adam"),
        ({"loss_func": torch.nn.MSELoss}, r"class .*MSELoss.* loss_func=torch\.nn\.MSELoss\(\)"),
        ({"loss_func": "MSEloss"}, "Did you mean 'MSELoss'"),
    ],
)
def test_refuses_wrong_configuration_before_work_starts(config, message):
    """What cannot work is refused when the component is created, naming the argument."""
    with pytest.raises((ArgumentError, RuntimeError), match=message):
        make_loop(**config)


def test_refuses_a_scheduler_instance_with_an_optimizer_factory():
    """A scheduler instance belongs to an optimizer, so a factory of another one is refused."""
    scheduler = torch.optim.lr_scheduler.StepLR(SGD(make_model().parameters()), 1)
    with pytest.raises(ArgumentError, match="factory"):
        make_loop(scheduler=scheduler)


# -- prediction ---------------------------------------------------------------------------------


def test_predicts_without_a_loss():
    """In prediction it sets scores from the inputs of each batch, and no loss."""
    loop = make_loop()
    scores = loop.predict(make_data(2))
    assert torch.equal(
        torch.cat(scores), torch.cat([loop.model(inputs) for inputs, _ in make_data(2)])
    )
    assert not hasattr(loop, "loss")


def test_predicts_batches_without_targets():
    """A prediction needs no targets, with a split function neither."""
    loop = make_loop(split=lambda batch: (batch["x"], batch.get("y")))
    (scores,) = loop.predict([{"x": torch.ones(8, 2)}])
    assert (8, 1) == scores.shape


def test_puts_the_model_on_the_device_for_a_prediction_alone():
    """A prediction without training moves the model to the device, as a test does."""
    loop = make_loop(device="meta")
    loop.predict(make_data(1), collect=False)
    assert torch.device("meta") == next(loop.model.parameters()).device


def test_compiles_for_a_prediction_alone():
    """A prediction without training runs through the compiled model too."""
    backend = Backend()
    loop = make_loop(compile={"backend": backend})
    loop.model = Own()
    loop.predict(make_data(1))
    assert 1 == backend.n_graphs


# -- a scheduler that monitors a metric ---------------------------------------------------------


def plateau(optimizer, _):
    """Return a scheduler that halves the learning rate at each value that is not better."""
    return ReduceLROnPlateau(optimizer, factor=0.5, patience=0)


class Log(LoopComponent):
    """A component that logs one value after the other as "loss" of epochs of a phase."""

    def __init__(self, values, phase="valid"):
        self.values = iter(values)
        self.phase = phase

    def on_epoch_end(self, loop):
        if loop.epoch_desc == self.phase:
            loop.log({"loss": next(self.values)}, level="epoch")


def make_monitoring_loop(log, *others, monitor="valid/loss", **data):
    """Return a loop whose scheduler monitors a metric."""
    return make_loop(log, *others, scheduler=plateau, monitor=monitor, **data)


@pytest.mark.parametrize("place", [0, 2])
def test_steps_a_scheduler_by_the_metric_of_each_epoch(place):
    """The learning rate shrinks after an epoch that is no better, wherever metrics are logged."""
    rates = []

    class Record(LoopComponent):
        def on_safe_point(self, loop):
            if loop.epoch_desc == "valid":
                rates.append(loop.scheduler.get_last_lr()[0])

    loop = make_monitoring_loop(Record(), valid_data=make_data(1))
    loop.components.insert(place, Log([5, torch.tensor(4.0), 4, 3, 4]))
    loop.train(5)
    assert [0.1, 0.1, 0.05, 0.05, 0.025] == rates


def test_a_monitored_metric_may_be_of_training():
    """Without validation data the scheduler steps after the training epoch."""
    loop = make_monitoring_loop(Log([5, 5, 5], "train"), monitor="train/loss")
    loop.train(3)
    assert [0.025] == loop.scheduler.get_last_lr()


def test_a_metric_of_training_counts_once_where_there_is_validation():
    """The scheduler steps once, after the epoch's validation."""
    loop = make_monitoring_loop(
        Log([5, 5, 4], "train"), monitor="train/loss", valid_data=make_data(1)
    )
    loop.train(3)
    assert [0.05] == loop.scheduler.get_last_lr()


@pytest.mark.parametrize(("name", "expected"), [("near", [0.05]), ("far", [0.025])])
def test_a_monitored_metric_may_be_of_one_of_several_validation_sets(name, expected):
    """The scheduler steps once an epoch, after the last set, by the metric of the named one."""
    losses = {"near": iter([3, 3, 2]), "far": iter([3, 4, 5])}

    class LogNamed(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_validating:
                n_seen.append(loop.scheduler.last_epoch)
                loop.log({"loss": next(losses[loop.data_name])}, level="epoch")

    n_seen = []
    loop = make_monitoring_loop(
        LogNamed(),
        monitor=f"valid/{name}/loss",
        valid_data={"near": make_data(1), "far": make_data(1)},
    )
    loop.train(3)
    assert expected == loop.scheduler.get_last_lr()
    assert [0, 0, 1, 1, 2, 2] == n_seen


def losses_of_epochs(*values):
    """Return a component that logs a value in each validation epoch, none for None."""

    class LogSome(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_validating and values[loop.epoch_num] is not None:
                loop.log({"loss": values[loop.epoch_num]}, level="epoch")

    return LogSome()


def test_a7_a_value_of_an_earlier_epoch_does_not_step_the_scheduler():
    """A7: each value steps it once, as by hand, and the first epoch without one is reported."""
    loop = make_monitoring_loop(losses_of_epochs(5, None, None, 5, None), valid_data=make_data(1))
    by_hand = plateau(SGD(make_model().parameters()), None)
    for value in (5, 5):
        by_hand.step(value)
    with pytest.warns(UserWarning, match="in epoch 1, as the metric 'valid/loss'") as caught:
        loop.train(5)
    assert by_hand.state_dict() == loop.scheduler.state_dict()
    assert [__file__] == [warning.filename for warning in caught]


def test_a7_a_value_that_was_logged_before_a_save_is_not_stale():
    """A7: a run resumed between an epoch and its validation knows what the epoch has logged."""
    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            states.append(loop.state_dict())

    def make(*others):
        log = Log([5, 5], "train")
        return make_monitoring_loop(log, *others, monitor="train/loss", valid_data=make_data(1))

    loop = make(Save())
    loop.train(2)
    before_validation = [s for s in states if s["components"]["supervised"]["is_due"]]
    resumed = make()
    resumed.load_state_dict(before_validation[1])
    resumed.train(2)
    assert [0.05] == loop.scheduler.get_last_lr() == resumed.scheduler.get_last_lr()


def test_a7_nothing_listens_to_what_is_logged_unless_a_metric_is_monitored():
    """A7: without a monitor no batch pays for it."""
    points = [make_loop().explain("on_log"), make_monitoring_loop(Log([])).explain("on_log")]
    assert [False, True] == ["supervised" in text for text in points]


def test_validations_in_mid_epoch_and_on_their_own_do_not_step_the_scheduler():
    """Only the validation that ends an epoch counts."""

    class Nested(LoopComponent):
        def on_batch_end(self, loop):
            if loop.is_training and loop.batch_num < 3:
                loop.validate()

    loop = make_monitoring_loop(Log([5, 9, 9, 4, 9]), Nested(), valid_data=make_data(1))
    loop.train(1)
    loop.validate()
    assert ([0.1], 4) == (loop.scheduler.get_last_lr(), loop.scheduler.best)


def test_a_validation_after_a_run_that_was_stopped_does_not_step_the_scheduler():
    """An epoch that was stopped before its validation leaves no step of the scheduler due."""

    class Stop(LoopComponent):
        def on_safe_point(self, loop):
            if loop.epoch_desc == "train" and not loop.is_training:
                loop.stop()

    loop = make_monitoring_loop(Log([5]), Stop(), valid_data=make_data(1))
    loop.train(1)
    loop.validate()
    assert float("inf") == loop.scheduler.best


def test_state_holds_whether_the_scheduler_has_yet_to_step():
    """A run that is resumed with the validation of an epoch steps the scheduler after it."""
    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            states.append(loop.components["supervised"].state_dict())

    class Load(LoopComponent):
        def on_epoch_begin(self, loop):
            loop.components["supervised"].load_state_dict(states[-2])

    loop = make_monitoring_loop(Log([5, 7]), Save(), valid_data=make_data(1))
    loop.train(1)
    setting = {"is_new": False, "monitor": "valid/loss"}
    assert [{**setting, "is_due": True}, {**setting, "is_due": False}] == states[-2:]
    loop.components.append(Load())
    loop.validate()
    assert [0.05] == loop.scheduler.get_last_lr()


@pytest.mark.parametrize("valid_data", [None, {"a": make_data(1)}], ids=["none", "named"])
def test_a_metric_that_the_validation_data_cannot_have_is_refused(valid_data):
    """Before the first batch."""
    loop = make_monitoring_loop(Log([5]), valid_data=valid_data)
    with pytest.raises(TTLError, match="'supervised' monitors 'valid/loss', but"):
        loop.train(1)
    assert 0 == loop.global_step


def test_a_second_one_is_refused():
    """It would compute, and step, twice: as of all components of which one does the work."""
    with pytest.raises(ConflictError, match="only_once"):
        make_loop(use("supervised", loss_func=MSE, optimizer=SGD))


def test_a_state_of_another_monitored_metric_is_refused():
    """The scheduler's best value is of that one: the error says to give it again."""
    state = make_monitoring_loop(Log([5])).components["supervised"].state_dict()
    other = make_monitoring_loop(Log([5]), monitor="valid/cost").components["supervised"]
    with pytest.raises(StateError, match="Give it monitor='valid/loss' to resume"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("valid/los", r"'valid/los', .* Did you mean 'valid/loss'\? Logged were: valid/loss"),
        ("auc", r"'supervised' needs the metric 'auc', .* epoch\. .*Logged were: valid/loss"),
    ],
)
def test_a_monitored_metric_that_never_appears_is_an_error(monitor, message):
    """After the first epoch the error names the metrics that did appear."""
    loop = make_monitoring_loop(Log([5]), monitor=monitor, valid_data=make_data(1))
    with pytest.raises(RunError, match=message):
        loop.train(2)


@pytest.mark.parametrize(
    "config",
    [
        {"scheduler": plateau},
        {"scheduler": lambda optimizer, _: StepLR(optimizer, 1), "monitor": "valid/loss"},
        {"monitor": "valid/loss"},
    ],
    ids=["no monitor", "no plateau", "no scheduler"],
)
def test_a_monitor_and_its_scheduler_go_together(config):
    """One without the other is refused before the first batch."""
    loop = make_loop(**config)
    with pytest.raises(ArgumentError, match="go together"):
        loop.train(1)
    assert 0 == loop.global_step


# -- compiling ----------------------------------------------------------------------------------


class Backend:
    """A backend that counts the graphs of torch.compile, and compiles nothing."""

    n_graphs = 0

    def __call__(self, graph, inputs):
        self.n_graphs += 1
        return graph


class Own(torch.nn.Module):
    """A model of one's own class, which torch compiles in place."""

    def __init__(self):
        super().__init__()
        self.linear = make_model()

    def forward(self, inputs):
        return self.linear(inputs)


def test_compiles_the_model_once_and_in_place():
    """It trains through the compiled model to the same bits, and the names of weights stay."""
    backend = Backend()
    loop = make_loop(compile={"backend": backend, "dynamic": False})
    loop.model = Own()
    loop.train(1)
    n_graphs = backend.n_graphs
    loop.train(1)
    assert (True, n_graphs) == (n_graphs > 0, backend.n_graphs)
    control = make_loop()
    control.model = Own()
    control.train(1)
    control.train(1)
    assert_same(control.model.state_dict(), loop.model.state_dict())


def test_compiles_for_a_test_alone():
    """A test without training runs through the compiled model too."""
    backend = Backend()
    loop = make_loop(compile={"backend": backend})
    loop.model = Own()
    loop.test(make_data(1))
    assert 1 == backend.n_graphs


def test_warns_of_a_model_that_torch_does_not_compile():
    """The warning about a bare module, which torch leaves as it is, is at the user's line."""
    loop = make_loop(compile={"backend": "eager"})
    expected = r"does not compile a bare torch\.nn\.Linear"
    with pytest.warns(UserWarning, match=expected) as caught:
        loop.train(1)
    assert [__file__] == [warning.filename for warning in caught]


@pytest.mark.parametrize(
    ("given", "expected"), [(True, [{}]), ({}, [{}]), (False, []), ({"mode": "x"}, [{"mode": "x"}])]
)
def test_compile_takes_the_options_of_torch(monkeypatch, given, expected):
    """True compiles with the default options, a mapping with its own, False not at all."""
    calls = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: calls.append(options))
    loop = make_loop(compile=given)
    loop.model = Own()
    loop.train(1)
    assert expected == calls


def test_refuses_other_options_of_compile():
    """The name of a backend alone is no mapping of options."""
    with pytest.raises(ArgumentError, match="compile is 'eager', but"):
        make_loop(compile="eager")


@pytest.mark.parametrize("is_stepped", [False, True])
def test_gradients_that_no_optimizer_uses_do_not_grow(is_stepped):
    """A3: they are cleared in each step; those of another component's optimizer are left to it."""

    class Second(LoopComponent):
        def on_train_begin(self, loop):
            if is_stepped:
                loop.optimizers = [loop.optimizer, SGD([loop.model.bias])]

    loop = make_loop(Second(), optimizer=lambda _: SGD([loop.model.weight]))
    loop.train(2)
    model = make_model()
    optimizer = SGD([model.weight])
    for _ in range(2):
        for inputs, targets in make_data():
            optimizer.zero_grad()
            if not is_stepped:
                model.bias.grad = None
            MSE(model(inputs), targets).backward()
            optimizer.step()
    assert torch.equal(model.weight, loop.model.weight)
    assert torch.equal(model.bias.grad, loop.model.bias.grad)
