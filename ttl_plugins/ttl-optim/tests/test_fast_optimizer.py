"""The behaviour of `fast-optimizer`."""

import logging

import pytest
import torch
from ttl_optim import FastOptimizer, Freeze

from ttl_core import LoopComponent, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step

OPTIM = torch.optim
# The gradient of a bias before a batch norm is nothing but rounding, which must not be scaled up.
EPS = 1e-3
UNUSED = {"fused": None, "foreach": None}


class StepWith(Step):
    """Steps with an optimizer that a factory makes."""

    def __init__(self, make):
        self.make = make

    def on_train_begin(self, loop):
        loop.optimizer = self.make(loop.model.parameters())
        loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=2, gamma=0.5)


class Embedded(torch.nn.Module):
    """A model with an embedding, dense or sparse, or one that only its code shows to be sparse."""

    def __init__(self, sparse=True, hidden=False):
        super().__init__()
        self.embedding = torch.nn.Embedding(6, 3, sparse=sparse and not hidden)
        self.linear = torch.nn.Linear(3, 2)
        self.is_sparse = sparse

    def forward(self, inputs):
        weight = self.embedding.weight
        return self.linear(torch.nn.functional.embedding(inputs, weight, sparse=self.is_sparse))


def flags_of(optimizer):
    """Return the flags of each group of an optimizer."""
    return [{name: group.get(name) for name in UNUSED} for group in optimizer.param_groups]


def at_step(seen):
    """Return a component that records the flags with which the optimizers step."""

    class Watch(LoopComponent):
        def on_optim_step(self, loop):
            seen.append([flags_of(optimizer) for optimizer in loop.optimizers])

    return Watch()


def by_hand(model, make, data, n_epochs=1):
    """Train without any library; return the optimizer."""
    optimizer = make(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    for inputs, targets in data * n_epochs:
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        scheduler.step()
    return optimizer


def same(model, other):
    """Return whether two models have the same bits."""
    return all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


# -- what is chosen -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "choice"),
    [
        (lambda p: OPTIM.SGD(p, lr=0.1, momentum=0.9), "SGD: fused"),
        (lambda p: OPTIM.Adam(p, amsgrad=True), "Adam: fused"),
        (lambda p: OPTIM.AdamW(p, foreach=True), "AdamW: fused"),
        (lambda p: OPTIM.AdamW(p, fused=True), "AdamW: fused"),
        (lambda p: OPTIM.AdamW(p, lr=torch.tensor(0.01)), "AdamW: fused"),
        (lambda p: OPTIM.Adagrad(p), "Adagrad: fused"),
        (lambda p: OPTIM.RMSprop(p), "RMSprop: foreach"),
        (lambda p: OPTIM.NAdam(p), "NAdam: foreach"),
        (lambda p: OPTIM.ASGD(p), "ASGD: unchanged"),
    ],
)
def test_chooses_what_torch_has_and_what_is_fast(make_loop, make, choice):
    """On a CPU it is fused, or foreach for small tensors, or what the optimizer has."""
    loop = make_loop(FastOptimizer(), step=StepWith(make))
    loop.train(1)
    assert [choice] == loop.components["fast-optimizer"].choices


@pytest.mark.parametrize(
    "make",
    [
        lambda p: OPTIM.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: OPTIM.AdamW(p, lr=0.01, amsgrad=True, eps=EPS),
        lambda p: OPTIM.Adagrad(p, lr=0.01, eps=EPS),
        lambda p: OPTIM.RMSprop(p, lr=0.01, centered=True, eps=EPS),
    ],
)
def test_trains_as_a_loop_by_hand(make_loop, make):
    """Weights are those of the optimizer's own steps, to float tolerance."""
    loop = make_loop(FastOptimizer(), step=StepWith(make))
    model = ComponentConformance.make_model()
    by_hand(model, make, loop.train_data, n_epochs=2)
    loop.train(2)
    torch.testing.assert_close(dict(model.state_dict()), dict(loop.model.state_dict()))


def test_trains_to_the_bits_of_a_fused_optimizer(make_loop):
    """Weights are those of a hand-written loop with fused=True, to the same bits."""
    loop = make_loop(FastOptimizer(), step=StepWith(lambda p: OPTIM.AdamW(p, lr=0.01)))
    model = ComponentConformance.make_model()
    by_hand(model, lambda p: OPTIM.AdamW(p, lr=0.01, fused=True), loop.train_data)
    loop.train(1)
    assert same(model, loop.model)


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_a_parameter_may_have_its_first_gradient_late(make_loop, dampening):
    """One that is frozen at first begins with the momentum that it has without this component."""

    def make(parameters):
        return OPTIM.SGD(parameters, lr=0.1, momentum=0.9, dampening=dampening)

    loop = make_loop(FastOptimizer(), Freeze({"0.*": 1}), step=StepWith(make))
    model = ComponentConformance.make_model()
    optimizer = make(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    for epoch in range(3):
        model[0].requires_grad_(epoch > 0)
        for x, y in loop.train_data:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            scheduler.step()
    loop.train(3)
    torch.testing.assert_close(dict(model.state_dict()), dict(loop.model.state_dict()))


def test_foreach_is_for_small_tensors_on_a_cpu():
    """On a CPU a loop over large tensors is faster than foreach, and is left as it is."""
    model = torch.nn.Linear(256, 256)
    data = [(torch.ones(2, 256), torch.zeros(2, dtype=torch.int64))]
    loop = TrainTestLoop(model, [StepWith(OPTIM.RMSprop), FastOptimizer()], data)
    loop.train(1)
    assert ["RMSprop: unchanged"] == loop.components["fast-optimizer"].choices


def test_complex_parameters_have_no_fused_step():
    """Where torch has no fused step for the type, it is foreach."""

    class Complex(LoopComponent):
        def on_train_begin(self, loop):
            loop.optimizer = torch.optim.Adam(loop.model.parameters())

        def on_backward_pass(self, loop):
            loop.model(loop.batch).abs().sum().backward()

        def on_optim_step(self, loop):
            loop.optimizer.step()

    model = torch.nn.Linear(2, 1, dtype=torch.complex64)
    loop = TrainTestLoop(model, [Complex(), FastOptimizer()], [torch.ones(1, 2).cfloat()])
    loop.train(1)
    assert ["Adam: foreach"] == loop.components["fast-optimizer"].choices


def test_differentiable_steps_stay_as_they_are():
    """A step through which gradients flow is made by the implementation that supports it."""

    class Differentiable(LoopComponent):
        def on_train_begin(self, loop):
            weight = loop.model.weight * 1
            weight.grad = torch.ones_like(weight)
            loop.optimizer = torch.optim.Adam([weight], differentiable=True)

        def on_optim_step(self, loop):
            loop.optimizer.step()

    model = torch.nn.Linear(2, 1)
    loop = TrainTestLoop(model, [Differentiable(), FastOptimizer()], [0])
    loop.train(1)
    assert ["Adam: unchanged"] == loop.components["fast-optimizer"].choices


@pytest.mark.parametrize("hidden", [False, True], ids=["of a layer", "of a function"])
def test_groups_with_sparse_gradients_stay_as_they_are(hidden):
    """A sparse group is left alone, and its step is that of a hand-written loop."""

    def make(model):
        groups = [{"params": [model.embedding.weight]}, {"params": model.linear.parameters()}]
        return torch.optim.SGD(groups, lr=0.1)

    class Sparse(Step):
        def on_train_begin(self, loop):
            loop.optimizer = make(loop.model)
            loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=2)

    torch.manual_seed(0)
    model, other = Embedded(hidden=hidden), Embedded(hidden=hidden)
    other.load_state_dict(model.state_dict())
    data = [(torch.tensor([0, 2, 2]), torch.tensor([0, 1, 0]))] * 2
    loop = TrainTestLoop(model, [Sparse(), FastOptimizer()], data)
    loop.train(1)
    optimizer = make(other)
    for inputs, targets in data:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(other(inputs), targets).backward()
        optimizer.step()
    choices = loop.components["fast-optimizer"].choices
    assert ["SGD: unchanged (group 0), fused (group 1)"] == choices
    torch.testing.assert_close(dict(other.state_dict()), dict(model.state_dict()))


def test_optimizers_of_other_packages_stay_as_they_are(make_loop):
    """A step that is not torch's own is left alone, whatever its flags mean."""

    class Other(torch.optim.SGD):
        def step(self, closure=None):
            assert self.param_groups[0]["fused"] is None

    loop = make_loop(FastOptimizer(), step=StepWith(lambda p: Other(p, lr=0.1)))
    loop.train(1)
    assert ["Other: unchanged"] == loop.components["fast-optimizer"].choices


def test_optimizers_with_a_closure_stay_as_they_are():
    """LBFGS, which has no other implementation, steps as by hand."""

    class Closure(LoopComponent):
        def on_train_begin(self, loop):
            loop.optimizer = torch.optim.LBFGS(loop.model.parameters())

        def on_optim_step(self, loop):
            def closure():
                loop.optimizer.zero_grad()
                loss = loop.model(loop.batch).square().sum()
                loss.backward()
                return loss

            loop.optimizer.step(closure)

    model = torch.nn.Linear(2, 1)
    loop = TrainTestLoop(model, [Closure(), FastOptimizer()], [torch.ones(1, 2)])
    loop.train(1)
    assert float(model(torch.ones(1, 2)).detach().abs()) < 1e-3
    assert ["LBFGS: unchanged"] == loop.components["fast-optimizer"].choices


def test_all_optimizers_step_as_chosen(make_loop):
    """Each of `loop.optimizers` has a choice of its own."""

    class Two(Step):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.optimizers = [loop.optimizer, torch.optim.RMSprop(loop.model[2].parameters())]

        def on_optim_step(self, loop):
            super().on_optim_step(loop)
            loop.optimizers[1].step()

    loop = make_loop(FastOptimizer(), step=Two())
    loop.train(1)
    assert ["SGD: fused", "RMSprop: foreach"] == loop.components["fast-optimizer"].choices


@pytest.mark.parametrize("is_factory", [True, False], ids=["factory", "optimizer"])
def test_works_with_optimizers_of_supervised(is_factory):
    """An optimizer that a factory makes, or that existed before, is switched."""
    model, seen = ComponentConformance.make_model(), []
    make = torch.optim.AdamW
    supervised = use(
        "supervised",
        loss_func=torch.nn.CrossEntropyLoss(),
        optimizer=make if is_factory else make(model.parameters()),
        device="cpu",
    )
    components = [supervised, "fast-optimizer", at_step(seen)]
    loop = TrainTestLoop(model, components, ComponentConformance.make_data(2))
    loop.train(1)
    assert [[[{"fused": True, "foreach": False}]]] * 2 == seen


# -- what is said -------------------------------------------------------------------------------


def test_says_once_what_it_chose(make_loop, caplog):
    """One line is logged, also for several epochs and runs."""
    loop = make_loop(FastOptimizer())
    with caplog.at_level(logging.WARNING, "ttl_optim"):
        loop.train(2)
        loop.train(1)
    assert ["fast-optimizer: SGD: fused"] == caplog.messages


# -- optimizers that change ---------------------------------------------------------------------


def test_a_group_that_is_added_in_mid_run_is_switched_too(make_loop):
    """A new parameter group steps with the fused implementation from its first step on."""
    added, seen = torch.nn.Linear(2, 2), []

    class Add(LoopComponent):
        def on_batch_begin(self, loop):
            if loop.batch_num == 3:
                loop.optimizer.add_param_group({"params": added.parameters()})

    make_loop(FastOptimizer(), Add(), at_step(seen)).train(1)
    fused = {"fused": True, "foreach": False}
    assert [[[fused]]] * 3 + [[[fused, fused]]] * 3 == seen


def test_follows_a_model_that_changes_its_type(make_loop):
    """A model that is cast in mid-run is stepped by what torch has for the new type."""

    class Cast(LoopComponent):
        def on_epoch_begin(self, loop):
            loop.model.double()

        def on_batch_begin(self, loop):
            loop.batch[0] = loop.batch[0].double()

    data = [list(batch) for batch in ComponentConformance.make_data()]
    loop = make_loop(FastOptimizer(), Cast(), data=data)
    loop.train(1)
    assert (["SGD: fused"], 3) == (loop.components["fast-optimizer"].choices, loop.global_step)


# -- undone -------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["on_batch_begin", "on_batch_end", "on_safe_point"])
def test_elsewhere_an_optimizer_is_as_it_was_created(make_loop, recorder, point):
    """Outside of backward passes and steps the flags of groups are those of the script."""
    seen = recorder(point, lambda loop: flags_of(loop.optimizer))
    loop = make_loop(FastOptimizer(), seen)
    loop.train(1)
    assert all([UNUSED] == flags for flags in [*seen.seen, flags_of(loop.optimizer)])


def test_disabled_in_mid_run_steps_are_the_optimizers_own(make_loop):
    """The steps after it are those of a hand-written loop that switches back, to the same bits."""

    class Disable(LoopComponent):
        def on_safe_point(self, loop):
            if loop.global_step == 3:
                loop.components.disable("fast-optimizer")

    make = torch.optim.AdamW
    loop = make_loop(FastOptimizer(), Disable(), step=StepWith(make))
    model = ComponentConformance.make_model()
    optimizer = make(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    for i, (inputs, targets) in enumerate(loop.train_data):
        optimizer.param_groups[0]["fused"] = i < 3
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        scheduler.step()
    loop.train(1)
    assert same(model, loop.model)


def test_a_step_that_fails_leaves_the_optimizer_as_it_was_created(make_loop):
    """An exception out of a step restores the flags."""

    class Fail(LoopComponent):
        def on_optim_step(self, loop):
            raise OSError("disk")

    loop = make_loop(FastOptimizer(), Fail())
    with pytest.raises(OSError, match="disk"):
        loop.train(1)
    assert [UNUSED] == flags_of(loop.optimizer)
    assert {} == loop.optimizer._optimizer_step_pre_hooks


# -- state --------------------------------------------------------------------------------------


class Save(LoopComponent):
    """A component that keeps the state after three steps."""

    def on_safe_point(self, loop):
        if loop.global_step == 3:
            self.state = loop.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("after", [True, False], ids=["resumed with it", "resumed without it"])
@pytest.mark.parametrize("before", [True, False], ids=["saved with it", "saved without it"])
def test_a_state_fits_a_loop_with_it_and_one_without(make_loop, through_file, before, after, dtype):
    """Where it was added or removed, a run resumes with the state of its optimizer."""

    def make(is_fast):
        step = StepWith(lambda p: OPTIM.AdamW(p, lr=0.01, eps=EPS))
        return make_loop(*[FastOptimizer()] * is_fast, Save(), step=step)

    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        data = [(x.to(dtype), y) for x, y in ComponentConformance.make_data(6)]
        loop, other = make(before), make(after)
        loop.train_data = other.train_data = data
        loop.train(1)
        state = through_file(loop.components["save"].state)
        assert [UNUSED] == [
            {name: group[name] for name in UNUSED}
            for group in state["variables"]["optimizer"]["param_groups"]
        ]
        other.load_state_dict(state)
        other.train(1)
    finally:
        torch.set_default_dtype(default)
    expected, actual = dict(loop.model.state_dict()), dict(other.model.state_dict())
    torch.testing.assert_close(expected, actual)
    assert (before == after) <= same(loop.model, other.model)


# -- with other components ----------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_amp_leaves_an_overflow_to_a_fused_step(make_loop, place):
    """With fp16, an optimizer that it switches skips the step by itself, as fused ones do."""
    components = [use("amp", dtype="fp16", init_scale=2.0**40)]
    components.insert(place, FastOptimizer())
    loop = make_loop(*components)
    before = [parameter.clone() for parameter in loop.model.parameters()]
    loop.train(1)
    # without it there would be no step
    assert (6, 6) == (loop.global_step, int(loop.metrics["train/skipped-steps"]))
    assert all(map(torch.equal, before, loop.model.parameters()))


def test_disabled_between_an_overflow_and_its_step_that_step_is_still_skipped(make_loop):
    """A step that was left to the fused optimizer is made by it."""

    class Disable(LoopComponent):
        def on_backward_pass(self, loop):
            loop.components.disable("fast-optimizer")

    loop = make_loop(FastOptimizer(), use("amp", dtype="fp16", init_scale=2.0**40), Disable())
    before = [parameter.clone() for parameter in loop.model.parameters()]
    loop.train(1)
    assert all(map(torch.equal, before, loop.model.parameters()))
    assert [UNUSED] == flags_of(loop.optimizer)


def test_a_grad_scaler_of_the_script_works(make_loop):
    """A script with its own GradScaler trains as by hand with an optimizer that is not fused."""

    class Scaled(Step):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

        def on_backward_pass(self, loop):
            self.scaler.scale(loop.loss).backward()

        def on_optim_step(self, loop):
            self.scaler.step(loop.optimizer)
            self.scaler.update()
            loop.scheduler.step()

    plain, scaled = make_loop(), make_loop(FastOptimizer(), step=Scaled())
    plain.train(1)
    scaled.train(1)
    torch.testing.assert_close(dict(plain.model.state_dict()), dict(scaled.model.state_dict()))


# -- on an accelerator --------------------------------------------------------------------------


def step_devices(optimizer):
    """Return the types of the devices that hold the numbers of steps."""
    return {state["step"].device.type for state in optimizer.state.values()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_numbers_of_steps_are_where_each_implementation_expects_them(make_loop, recorder):
    """On CUDA they are moved to the device for fused steps, and back when it is disabled."""

    class Toggle(LoopComponent):
        def on_safe_point(self, loop):
            if loop.global_step == 2:
                loop.components.enable("fast-optimizer")
            if loop.global_step == 4:
                loop.components.disable("fast-optimizer")

    devices = recorder("on_batch_end", lambda loop: step_devices(loop.optimizer))
    loop = make_loop(FastOptimizer(), Toggle(), devices, step=StepWith(torch.optim.AdamW))
    loop.components.disable("fast-optimizer")
    loop.model.cuda()
    loop.train_data = [[part.cuda() for part in batch] for batch in loop.train_data]
    loop.train(1)
    assert [{"cpu"}] * 2 + [{"cuda"}] * 2 + [{"cpu"}] * 2 == devices.seen
