"""Every optimizer and scheduler of torch resumes to the same bits."""

import copy
import importlib
import inspect
import io
import pkgutil
from functools import partial

import pytest
import torch
from naive_savers import NaiveStateSaver
from torch import optim
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR, AveragedModel
from ttl_checkpoint import Checkpoint

from ttl_core import LoopComponent, TrainTestLoop

N_EPOCHS, N_BATCHES = 4, 3
N_STEPS = N_EPOCHS * N_BATCHES
RATES = 0.02, 0.05


def public_classes(base):
    """Return the public subclasses of a class in torch.optim and its modules, by name."""
    modules = [
        importlib.import_module(f"torch.optim.{found.name}")
        for found in pkgutil.iter_modules(optim.__path__)
    ]
    found = {
        name: cls
        for module in [optim, *modules]
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, base) and not name.startswith("_")
    }
    del found[base.__name__]
    return found


# -- models and loops -----------------------------------------------------------------------


class Dense(torch.nn.Module):
    """A model whose parameters are all matrices."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 5, bias=False)
        self.second = torch.nn.Linear(5, 2, bias=False)

    def forward(self, indices):
        inputs = torch.nn.functional.one_hot(indices, 4).float().sum(1)
        return self.second(torch.tanh(self.first(inputs)))


class Sparse(torch.nn.Module):
    """A model with a table whose gradients are sparse."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.EmbeddingBag(4, 2, sparse=True)

    def forward(self, indices):
        return self.table(indices)


def make_data():
    """Return a few batches of indices and targets."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randint(0, 4, (6, 2), generator=generator),
            torch.randint(0, 2, (6,), generator=generator),
        )
        for _ in range(N_BATCHES)
    ]


class Fit(LoopComponent):
    """A user's own training component, without support for checkpoints.

    Args:
        make_optimizer: takes parameters.
        make_scheduler: takes the optimizer; None for none.
        is_grouped: whether there are two groups of parameters, with different learning rates.
    """

    def __init__(self, make_optimizer, make_scheduler=None, is_grouped=False):
        self.make_optimizer = make_optimizer
        self.make_scheduler = make_scheduler
        self.is_grouped = is_grouped
        self.rates = []

    def on_train_begin(self, loop):
        parameters = list(loop.model.parameters())
        if self.is_grouped:
            groups = [[parameter] for parameter in parameters]
            parameters = [
                {"params": group, "lr": rate} for group, rate in zip(groups, RATES, strict=True)
            ]
        loop.optimizer = self.make_optimizer(parameters)
        loop.scheduler = self.make_scheduler and self.make_scheduler(loop.optimizer)

    def on_optim_step(self, loop):
        self.rates.append([float(group["lr"]) for group in loop.optimizer.param_groups])

        def closure():
            loop.optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(loop.model(loop.batch[0]), loop.batch[1])
            loss.backward()
            loop.loss = loss.detach()
            return loss

        loop.optimizer.step(closure)
        if isinstance(loop.scheduler, EACH_BATCH):
            loop.scheduler.step()

    def on_epoch_end(self, loop):
        if isinstance(loop.scheduler, schedulers.ReduceLROnPlateau):
            loop.scheduler.step(float(loop.loss))
        elif loop.scheduler is not None and not isinstance(loop.scheduler, EACH_BATCH):
            loop.scheduler.step()


# The others step after each epoch, as in torch's documentation.
EACH_BATCH = (
    schedulers.CyclicLR,
    schedulers.OneCycleLR,
    schedulers.CosineAnnealingWarmRestarts,
)


class KeepStates(LoopComponent):
    """A list of the states at all safe points, each as the content of a file."""

    def __init__(self):
        self.files = []

    def on_safe_point(self, loop):
        stream = io.BytesIO()
        torch.save(loop.state_dict(copy=False), stream)
        self.files.append(stream.getvalue())


def make_loop(fit, *others):
    """Return a loop with the same small model each time."""
    is_sparse = "SparseAdam" in repr(fit.make_optimizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Sparse() if is_sparse else Dense()
    return TrainTestLoop(model, [fit, *others], make_data())


def bits(value):
    """Return a nested value in a form that is equal only if all bits are: tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, bytes(value.reshape(-1).view(torch.uint8).tolist())
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(bits, value))
    return type(value), repr(value)


def train(loop):
    """Train to the end, and return the bits of the model and the loop variables."""
    loop.train(N_EPOCHS)
    found = loop.state_dict(allow_unsafe=True)
    return bits({name: found[name] for name in ("model", "variables")})


# Safe points in the first epoch, in the middle of another one, and between two.
SAFE_POINTS = 0, N_STEPS // 2, N_STEPS // 2 + 2


def check_resumes(make_fit):
    """Check that a run resumes to the same bits and learning rates from several safe points."""
    fit, keep = make_fit(), KeepStates()
    full = train(make_loop(fit, keep))
    assert N_STEPS == len(keep.files)
    for safe_point in SAFE_POINTS:
        resumed = make_fit()
        loop = make_loop(resumed)
        loop.load_state_dict(torch.load(io.BytesIO(keep.files[safe_point]), weights_only=True))
        assert full == train(loop)
        assert fit.rates[safe_point + 1 :] == resumed.rates


# -- optimizers -----------------------------------------------------------------------------

# Arguments with which an optimizer keeps as much state as it can.
OPTIONS = {
    "LBFGS": {"max_iter": 3, "line_search_fn": "strong_wolfe"},
    "RMSprop": {"momentum": 0.9, "weight_decay": 0.1},
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "SparseAdam": {"lr": 0.1},
}
# Flags that change what is computed. `differentiable` is not for training.
FLAGS = (
    *("amsgrad", "centered", "decoupled_weight_decay", "maximize", "nesterov"),
    *("capturable", "foreach", "fused"),
)
# Variants that a CPU is known to support; of the others, those that do not work are skipped.
ON_A_CPU = {
    *("Adagrad fused", "Adam fused", "AdamW fused", "SGD fused"),
    *("Adam foreach", "SGD foreach", "Adam tensor lr", "AdamW tensor lr", "SGD tensor lr"),
    *("Adam amsgrad", "RMSprop centered", "SGD nesterov", "Adam amsgrad fused"),
}


def variants(name, cls):
    """Yield the name and the arguments of each variant of an optimizer."""
    options, names = OPTIONS.get(name, {}), inspect.signature(cls).parameters
    yield name, options
    for flag in FLAGS:
        if flag in names:
            yield f"{name} {flag}", {**options, flag: True}
    if {"amsgrad", "fused"} <= names.keys():
        yield f"{name} amsgrad fused", {**options, "amsgrad": True, "fused": True}
    yield f"{name} tensor lr", {**options, "lr": torch.tensor(0.01)}


def makers():
    """Return functions that make each variant of each optimizer, by name."""
    return {
        variant: partial(made, cls, options)
        for name, cls in sorted(public_classes(optim.Optimizer).items())
        for variant, options in variants(name, cls)
    }


def made(cls, options, parameters):
    """Make an optimizer; a learning rate that is a tensor is copied for it."""
    return cls(parameters, **copy.deepcopy(options))


def can_step(make_optimizer):
    """Return whether an optimizer works here: some variants need a GPU."""
    try:
        make_loop(Fit(make_optimizer)).train(n_optim_steps=1)
    except (RuntimeError, ValueError, TypeError, AssertionError):
        return False
    return True


@pytest.mark.parametrize("name", sorted(public_classes(optim.Optimizer)))
def test_every_optimizer_resumes_to_the_same_bits(name):
    """A run with it that is interrupted ends in the bits of one that was not."""
    cls = public_classes(optim.Optimizer)[name]
    check_resumes(partial(Fit, partial(made, cls, OPTIONS.get(name, {}))))


VARIANTS = {name: make for name, make in makers().items() if " " in name}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_an_optimizer_resumes_to_the_same_bits(variant):
    """So it does with each flag that a CPU supports, and with a learning rate that is a tensor."""
    if variant not in ON_A_CPU and not can_step(VARIANTS[variant]):
        pytest.skip("this variant does not work on a CPU")
    check_resumes(partial(Fit, VARIANTS[variant]))


@pytest.mark.parametrize("variant", ["Adam tensor lr", "SGD tensor lr", "Adam fused"])
def test_a_scheduler_of_a_variant_resumes_to_the_same_bits(variant):
    """A scheduler changes a learning rate that is a tensor in place."""
    check_resumes(partial(Fit, VARIANTS[variant], SCHEDULERS["LinearLR"]))


def test_the_variants_that_a_cpu_supports_are_tested():
    """They are among the variants above, and are never skipped."""
    assert ON_A_CPU <= VARIANTS.keys()


# -- schedulers -----------------------------------------------------------------------------


class Decay:
    """A function with state."""

    def __init__(self):
        self.factor = 0.9
        self.n_calls = 0

    def __call__(self, n):
        self.n_calls += 1
        return self.factor ** (n if n > 1 else self.n_calls % 3)


# How each is made; the first word of its name is the name of the class.
SCHEDULERS = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda n: 0.9**n),
    "LambdaLR of an object": lambda o: schedulers.LambdaLR(o, Decay()),
    "LambdaLR of two": lambda o: schedulers.LambdaLR(o, [Decay(), lambda n: 0.8**n]),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda n: 1 - 0.1 * n),
    "MultiplicativeLR of an object": lambda o: schedulers.MultiplicativeLR(o, Decay()),
    "StepLR": lambda o: schedulers.StepLR(o, 2),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: schedulers.LinearLR(o, 0.5, total_iters=3),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 5),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 3),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3, 2),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, 3),
    "CyclicLR exp_range": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, 3, mode="exp_range"),
    "CyclicLR of a function": lambda o: schedulers.CyclicLR(
        o, 0.01, 0.1, 3, scale_fn=lambda n: 0.9**n
    ),
    "CyclicLR of an object": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, 3, scale_fn=Decay()),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.1, N_STEPS),
    "OneCycleLR of three": lambda o: schedulers.OneCycleLR(o, 0.1, N_STEPS, three_phase=True),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(
        o, patience=0, threshold=0.5, cooldown=1
    ),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.ConstantLR(o, 0.1, 2), schedulers.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, 0.1, 2), schedulers.ExponentialLR(o, 0.9)]
    ),
    "SWALR": lambda o: SWALR(o, 0.5, anneal_epochs=3),
    "SWALR linear": lambda o: SWALR(o, 0.5, anneal_epochs=3, anneal_strategy="linear"),
}


def test_every_scheduler_of_torch_is_tested():
    """A scheduler that a later version of torch provides has to be added above."""
    named = {name.split()[0] for name in SCHEDULERS}
    assert public_classes(schedulers.LRScheduler).keys() == named


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_resumes_to_the_same_bits(name, optimizer):
    """A run with it resumes with the same learning rates, and ends in the same bits."""
    make_optimizer = partial(made, getattr(optim, optimizer), OPTIONS.get(optimizer, {}))
    check_resumes(partial(Fit, make_optimizer, SCHEDULERS[name], is_grouped=True))


@pytest.mark.parametrize("name", ["ReduceLROnPlateau", "MultiplicativeLR", "OneCycleLR"])
def test_the_schedulers_change_learning_rates_here(name):
    """The learning rates of the runs above change, else those tests would prove nothing."""
    fit = Fit(partial(optim.SGD, momentum=0.9), SCHEDULERS[name], is_grouped=True)
    make_loop(fit).train(N_EPOCHS)
    assert len({tuple(rates) for rates in fit.rates}) > 1


class Average(Fit):
    """A component that averages weights in the second half of training, as torch documents."""

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.swa_model = AveragedModel(loop.model)
        loop.swa_scheduler = SWALR(loop.optimizer, 0.5, anneal_epochs=2)

    def on_epoch_end(self, loop):
        if loop.epoch_num >= N_EPOCHS // 2:
            loop.swa_model.update_parameters(loop.model)
            loop.swa_scheduler.step()
        else:
            super().on_epoch_end(loop)


def test_averaged_weights_resume_to_the_same_bits():
    """An averaged model is a loop variable with state, and two schedulers may share one."""
    check_resumes(
        partial(Average, partial(optim.SGD, momentum=0.9), SCHEDULERS["ExponentialLR"], True)
    )


# -- with the component ---------------------------------------------------------------------


class Interrupt(LoopComponent):
    """A component that interrupts training after a number of steps."""

    def __init__(self, n):
        self.n = n

    def on_batch_begin(self, loop):
        if loop.global_step == self.n:
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", ["Adam", "LBFGS", "SparseAdam", "Muon"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_run_resumes_from_disk_to_the_same_bits(tmp_path, optimizer, asynchronous):
    """A script that is interrupted and started again ends in the same bits."""
    make_optimizer = partial(made, getattr(optim, optimizer), OPTIONS.get(optimizer, {}))
    make_fit = partial(Fit, make_optimizer, SCHEDULERS["LambdaLR of an object"])
    full = train(make_loop(make_fit(), saving(tmp_path / "full", asynchronous)))
    with pytest.raises(KeyboardInterrupt):
        train(make_loop(make_fit(), Interrupt(7), saving(tmp_path / "part", asynchronous)))
    resumed = make_fit()
    assert full == train(make_loop(resumed, saving(tmp_path / "part", asynchronous)))
    assert N_STEPS - 6 == len(resumed.rates)


def saving(directory, asynchronous):
    """Return a component that saves every second step."""
    return Checkpoint(directory, every=2, asynchronous=asynchronous, signals=False)


# -- the same with naive savers -------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_what_most_scripts_save_ends_in_other_bits(optimizer):
    """From the middle of an epoch, model, optimizer, scheduler and epoch are not enough."""
    make_fit = partial(
        Fit, partial(made, getattr(optim, optimizer), {"lr": 0.1}), SCHEDULERS["LinearLR"]
    )
    naive = NaiveStateSaver()
    keep = KeepStates()
    full = train(make_loop(make_fit(), naive, keep))
    state = torch.load(io.BytesIO(keep.files[N_STEPS // 2]), weights_only=True)
    # what the naive saver had by then, as it does not copy
    saved = {"model": state["model"], **state["variables"], "epoch_num": 2, "global_step": 7}
    assert {"model", "optimizer", "scheduler", "epoch_num", "global_step"} == saved.keys()
    resumed = make_loop(make_fit(), NaiveStateSaver(resume_from=saved))
    resumed.train(N_EPOCHS - 2)
    assert full["model"] != bits(resumed.model.state_dict())


def rates_after(optimizer, scheduler, n=4):
    """Return the learning rates of the next few steps, each followed by a scheduler's step."""
    rates = []
    for _ in range(n):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step(*[1.0] * isinstance(scheduler, schedulers.ReduceLROnPlateau))
    return rates


def rates_when_made(name, *, in_order):
    """Return the last learning rates of a full run, and those after loading into new objects.

    Args:
        name: the name of the scheduler.
        in_order: whether to make the scheduler before the optimizer is loaded.
    """

    def make_optimizer():
        parameters = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
        groups = [{"params": p, "lr": lr} for p, lr in zip(parameters, RATES, strict=True)]
        return optim.SGD(groups, momentum=0.9)

    optimizer = make_optimizer()
    scheduler = SCHEDULERS[name](optimizer)
    rates_after(optimizer, scheduler)
    saved, its_saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    full = rates_after(optimizer, scheduler)
    optimizer = make_optimizer()
    if in_order:
        scheduler = SCHEDULERS[name](optimizer)
    optimizer.load_state_dict(saved)
    if not in_order:
        scheduler = SCHEDULERS[name](optimizer)
    scheduler.load_state_dict(its_saved)
    return full, rates_after(optimizer, scheduler)


BROKEN_BY_ORDER = (
    *("ChainedScheduler", "ConstantLR", "LambdaLR of an object", "LinearLR", "OneCycleLR"),
    "SequentialLR",
)


@pytest.mark.parametrize("name", BROKEN_BY_ORDER)
def test_a_scheduler_made_after_its_optimizer_was_loaded_is_wrong(name):
    """In the usual order these have other learning rates: they change the optimizer when made."""
    full, resumed = rates_when_made(name, in_order=False)
    assert full != resumed


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_made_before_its_optimizer_is_loaded_is_right(name):
    """The order in which the loop loads is right for all of them."""
    full, resumed = rates_when_made(name, in_order=True)
    assert full == resumed
