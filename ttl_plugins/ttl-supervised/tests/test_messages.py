"""What `supervised` says of arguments that would not train what was meant (A18)."""

from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)
from ttl_supervised import Supervised

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop

pytestmark = pytest.mark.usefixtures("one_thread")

SGD = partial(torch.optim.SGD, lr=0.1)
MSE = torch.nn.MSELoss()
DATA = [(torch.ones(4, 2), torch.ones(4, 1))] * 5
META = torch.device("meta")


def make_loop(*others, loss_func=MSE, optimizer=SGD, model=None, data=DATA, **config):
    """Return a loop with `supervised`, of five batches."""
    steps = Supervised(loss_func, optimizer, **config)
    return TrainTestLoop(model or torch.nn.Linear(2, 1), [steps, *others], data)


# -- scheduler factories ------------------------------------------------------------------------


class Own(LRScheduler):
    """A scheduler of one's own that takes the number of steps."""

    def __init__(self, optimizer, n_steps):
        self.n_steps = n_steps
        super().__init__(optimizer)

    def get_lr(self):
        return [self.n_steps for _ in self.optimizer.param_groups]


@pytest.mark.parametrize(
    ("factory", "by_hand"),
    [
        (partial(StepLR, step_size=1), lambda optimizer: StepLR(optimizer, 1)),
        (partial(partial(StepLR, step_size=2), gamma=0.5), lambda o: StepLR(o, 2, 0.5)),
        (CosineAnnealingLR, lambda optimizer: CosineAnnealingLR(optimizer, 10)),
        (partial(CosineAnnealingLR, eta_min=0.01), lambda o: CosineAnnealingLR(o, 10, 0.01)),
        (partial(CosineAnnealingLR, T_max=7), lambda optimizer: CosineAnnealingLR(optimizer, 7)),
        (PolynomialLR, lambda optimizer: PolynomialLR(optimizer, 10)),
        (LinearLR, LinearLR),
        (partial(OneCycleLR, max_lr=1), lambda o: OneCycleLR(o, 1, total_steps=10)),
        (
            partial(OneCycleLR, max_lr=1, epochs=3, steps_per_epoch=5),
            lambda o: OneCycleLR(o, 1, epochs=3, steps_per_epoch=5),
        ),
        (
            partial(LambdaLR, lr_lambda=lambda n: 1 / (n + 1)),
            lambda o: LambdaLR(o, lambda n: 1 / (n + 1)),
        ),
        (Own, lambda optimizer: Own(optimizer, 10)),
        (partial(Own, n_steps=3), lambda optimizer: Own(optimizer, 3)),
        (lambda optimizer, n: StepLR(optimizer, n), lambda optimizer: StepLR(optimizer, 10)),
    ],
    ids=[
        *("step", "step twice", "cosine", "cosine to", "cosine of", "polynomial", "linear"),
        *("one cycle", "one cycle of epochs", "lambda", "own", "own of", "function"),
    ],
)
def test_a18_a_class_or_a_partial_of_one_is_a_factory(factory, by_hand):
    """A18: it is called with what it needs, and gives the learning rates of a loop by hand."""
    rates = []

    class Record(LoopComponent):
        def on_batch_end(self, loop):
            rates.append(loop.optimizer.param_groups[0]["lr"])

    make_loop(Record(), scheduler=factory, scheduler_interval="step").train(n_epochs=2)
    optimizer = SGD(torch.nn.Linear(2, 1).parameters())
    scheduler = by_hand(optimizer)
    expected = []
    for _ in range(10):
        optimizer.step()
        scheduler.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert expected == rates


def test_a18_a_class_that_is_stepped_by_epochs_spans_the_epochs():
    """A18: T_max of a class is how often it will step: once an epoch here."""
    loop = make_loop(scheduler=CosineAnnealingLR, scheduler_interval="epoch")
    loop.train(n_epochs=3)
    assert (3, [0.0]) == (loop.scheduler.T_max, loop.scheduler.get_last_lr())


def test_a18_a_plateau_may_be_given_as_a_class():
    """A18: with a monitor, the class of a ReduceLROnPlateau is a factory too."""

    class Log(LoopComponent):
        def on_epoch_end(self, loop):
            loop.log({"loss": 1.0}, level="epoch")

    factory = partial(ReduceLROnPlateau, patience=0)
    loop = make_loop(Log(), scheduler=factory, monitor="train/loss")
    loop.train(n_epochs=2)
    assert [0.01] == pytest.approx(loop.scheduler.get_last_lr())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (StepLR, r"a factory of StepLR, .* 'step_size'\. .* partial\(StepLR, \.\.\.\)"),
        (partial(StepLR, gamma=0.5), "'step_size'"),
        (partial(StepLR, step=1), "'step'"),
        (partial(MultiStepLR, gamma=0.5), "'milestones'"),
        (lambda optimizer: StepLR(optimizer, 1), r"takes \(optimizer\), .* lambda optimizer, n_s"),
    ],
    ids=["class", "partial", "misspelled", "milestones", "function"],
)
def test_a18_a_factory_that_cannot_be_called_is_refused_when_it_is_given(factory, message):
    """A18: the error names what is missing, and how to give it, before anything is trained."""
    with pytest.raises(ArgumentError, match=message):
        make_loop(scheduler=factory)


def test_a18_a_class_that_needs_an_unknown_number_of_steps_is_refused():
    """A18: data without a length give no T_max."""
    loop = make_loop(data=iter(DATA), scheduler=CosineAnnealingLR)
    with pytest.raises(ArgumentError, match=r"needs T_max, .* partial\(CosineAnnealingLR, T_max="):
        loop.train(n_epochs=1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scheduler": lambda optimizer, n: None}, "scheduler returned None, no scheduler"),
        ({"optimizer": lambda parameters: None}, "optimizer returned None, no optimizer"),
    ],
)
def test_a18_a_factory_that_returns_nothing_is_refused(config, message):
    """A18: a forgotten return does not train without a schedule."""
    with pytest.raises(ArgumentError, match=message):
        make_loop(**config).train(n_epochs=1)


# -- schedules in epochs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "factory",
    [
        partial(StepLR, step_size=1),
        partial(ExponentialLR, gamma=0.5),
        partial(MultiStepLR, milestones=[4, 8]),
        partial(CosineAnnealingLR, T_max=10),
    ],
    ids=["step", "exponential", "milestones", "cosine"],
)
def test_a18_a_schedule_in_epochs_that_is_stepped_per_batch_is_reported(factory):
    """A18: what looks like epochs is said before the first batch, and not if it is chosen."""
    n_done = []

    class Stop(LoopComponent):
        def on_epoch_begin(self, loop):
            n_done.append(loop.global_step)
            loop.stop()

    loop = make_loop(Stop(), scheduler=factory)
    expected = r"stepped after each of 50 .* in 10 epochs\. .* scheduler_interval='epoch'"
    with pytest.warns(UserWarning, match=expected) as caught:
        loop.train(n_epochs=10)
    assert ([0], [__file__]) == (n_done, [warning.filename for warning in caught])
    for interval in ("step", "epoch"):
        make_loop(Stop(), scheduler=factory, scheduler_interval=interval).train(n_epochs=10)


@pytest.mark.parametrize(
    "factory",
    [
        partial(StepLR, step_size=25),
        partial(ExponentialLR, gamma=0.9),
        partial(MultiStepLR, milestones=[20, 40]),
        CosineAnnealingLR,
        partial(OneCycleLR, max_lr=0.1),
    ],
    ids=["step", "exponential", "milestones", "cosine", "one-cycle"],
)
def test_a18_a_schedule_in_steps_is_not_reported(factory):
    """A18: schedules that fit the number of steps give no warning."""
    make_loop(scheduler=factory).train(n_epochs=10)


# -- losses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss_func", "message"),
    [
        (lambda *pair: torch.sub(*pair), r"of shape \(4, 1\), .* reduction='mean'"),
        (lambda *pair: MSE(*pair).item(), r"returned a float, .* \.item\(\)"),
        (lambda *pair: None, "returned a NoneType, None, but has to return the mean"),
    ],
    ids=["vector", "float", "nothing"],
)
def test_a18_a_loss_that_is_no_single_number_is_refused(loss_func, message):
    """A18: the error says what loss_func returned and what it has to return."""
    with pytest.raises(ArgumentError, match=message):
        make_loop(loss_func=loss_func).train(n_epochs=1)


def test_a_loss_for_each_sample_is_refused_in_validation_too():
    """What would fail in the component that averages losses is refused where it comes from."""
    with pytest.raises(ArgumentError, match=r"a tensor of shape \(4, 1\)"):
        make_loop(loss_func=lambda *pair: torch.sub(*pair)).validate(DATA)


@pytest.mark.parametrize(
    "make",
    [torch.nn.MSELoss, partial(partial, torch.nn.functional.mse_loss)],
    ids=["module", "partial"],
)
def test_a_reduction_that_gives_no_mean_is_reported_when_it_is_given(make):
    """Losses of single samples are refused; a sum, whose mean is wrong, warned of."""
    with pytest.raises(ArgumentError, match="reduction='none', but has to return the mean"):
        make_loop(loss_func=make(reduction="none"))
    with pytest.warns(UserWarning, match="reduction='sum', but loop.loss is by convention"):
        make_loop(loss_func=make(reduction="sum"))


def test_a_loss_function_of_ones_own_may_reduce_by_itself():
    """What it has told torch not to reduce."""

    class Clipped(torch.nn.MSELoss):
        def forward(self, scores, targets):
            return super().forward(scores, targets).clamp(max=1).mean()

    make_loop(loss_func=Clipped(reduction="none")).train(n_epochs=1)


def test_a_loss_function_that_fails_is_explained_by_what_it_was_given():
    """The error of torch gets a note with types and shapes, which it mostly lacks."""
    data = [(torch.ones(4, 2), torch.ones(4, 1, dtype=torch.long))]
    with pytest.raises(RuntimeError) as caught:
        make_loop(data=data, loss_func=torch.nn.BCEWithLogitsLoss()).train(n_epochs=1)
    assert any("float32[4, 1] and targets int64[4, 1]" in note for note in caught.value.__notes__)


def test_a18_a_loss_of_one_element_trains():
    """A18: a mean loss of shape (1,) is a single number."""
    loop = make_loop(loss_func=lambda *pair: MSE(*pair)[None])
    loop.train(n_epochs=1)
    assert 5 == loop.global_step


def test_a18_a_loss_without_a_graph_is_explained():
    """A18: torch's error of it gets a note with what the cause may be."""
    loop = make_loop(loss_func=lambda scores, targets: MSE(scores.detach(), targets))
    with pytest.raises(RuntimeError) as caught:
        loop.train(n_epochs=1)
    assert any("parameters are frozen, or loss_func" in note for note in caught.value.__notes__)


# -- devices ------------------------------------------------------------------------------------


def test_a18_a_model_on_another_device_than_the_batch_is_explained():
    """A18: torch's error gets a note that says what is where, and the fix."""
    loop = make_loop(model=torch.nn.Linear(2, 1, device="meta"), device=None)
    with pytest.raises(RuntimeError) as caught:
        loop.train(n_epochs=1)
    (note,) = [note for note in caught.value.__notes__ if "not all is on one device" in note]
    assert "(model: meta; inputs: cpu). use('supervised', ..., device='auto')" in note


def test_a18_targets_on_another_device_than_the_scores_are_explained():
    """A18: the same where the loss function fails."""
    data = [(torch.ones(4, 2), torch.ones(4, 1, device="meta"))]
    with pytest.raises(Exception) as caught:  # noqa: PT011  (what torch raises on meta varies)
        make_loop(data=data, device=None, loss_func=torch.nn.functional.binary_cross_entropy).train(
            1
        )
    assert any("(scores: cpu; targets: meta)" in note for note in caught.value.__notes__)


# -- optimizers of another model ----------------------------------------------------------------


@pytest.mark.parametrize("is_factory", [True, False])
def test_a18_an_optimizer_of_another_model_is_refused(is_factory):
    """A18: it would count steps and train nothing, which is said before the first batch."""
    other = SGD(torch.nn.Linear(2, 1).parameters())
    loop = make_loop(optimizer=(lambda parameters: other) if is_factory else other)
    with pytest.raises(ArgumentError, match=r"updates none of the Linear .* partial\(SGD, lr="):
        loop.train(n_epochs=1)
    assert 0 == loop.global_step


def test_a18_an_optimizer_of_some_parameters_or_of_those_of_the_loss_is_taken():
    """A18: one parameter of the model is enough, or one of the loss function."""

    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, scores, targets):
            return MSE(scores * self.scale, targets)

    model, loss_func = torch.nn.Linear(2, 1), Scaled()
    for parameters in ([model.bias], [loss_func.scale]):
        loop = make_loop(model=model, loss_func=loss_func, optimizer=SGD(parameters))
        loop.train(n_epochs=1)
        assert 5 == loop.global_step


def test_a18_a_scheduler_of_another_optimizer_is_refused():
    """A18: it would change no learning rate that is used."""
    model = torch.nn.Linear(2, 1)
    scheduler = StepLR(SGD(torch.nn.Linear(2, 1).parameters()), 1)
    loop = make_loop(model=model, optimizer=SGD(model.parameters()), scheduler=scheduler)
    with pytest.raises(ArgumentError, match="another optimizer than the one that steps"):
        loop.train(n_epochs=1)
