"""What `amp` does."""

import copy

import pytest
import torch
from ttl_precision import Amp

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, hookimpl
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
HUGE = 2.0**120  # a scale with which every gradient overflows


class Record(LoopComponent):
    """A component that keeps what a function returns at one point."""

    def __init__(self, point, function):
        self.values = []

        def record(loop):
            self.values.append(function(loop))

        setattr(self, point, record)


class FusedStep(Step):
    """Steps with a fused optimizer."""

    def on_train_begin(self, loop):
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1, momentum=0.9, fused=True)
        loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=2)


class TwoOptimizers(Step):
    """Steps with two optimizers, which update one half of the parameters each."""

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        weights = list(loop.model.parameters())
        loop.optimizers = [
            torch.optim.SGD(half, lr=0.1, momentum=0.9) for half in (weights[:3], weights[3:])
        ]
        self.schedulers = [
            torch.optim.lr_scheduler.StepLR(optimizer, step_size=2) for optimizer in loop.optimizers
        ]

    def on_optim_step(self, loop):
        for one in (*loop.optimizers, *self.schedulers):
            one.step()


def make_loop(*components, step=None, valid_data=None):
    """Return a loop of steps and components."""
    return TrainTestLoop(
        ComponentConformance.make_model(),
        [step or Step(), *components],
        ComponentConformance.make_data(6),
        valid_data,
    )


def same(one, other):
    """Return whether two models have the same bits."""
    one, other = one.state_dict(), other.state_dict()
    return all(torch.equal(one[key], other[key]) for key in one)


def trained_by_hand(loop, dtype, scaler=None, max_norm=None):
    """Train the model of a loop for one epoch in a loop written by hand, and return it."""
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=dtype == "fp16")
    model = loop.model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    for inputs, targets in loop.train_data:
        optimizer.zero_grad()
        with torch.autocast("cpu", DTYPES[dtype]):
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        scaler.scale(loss).backward()
        if max_norm:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    return model


@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_trains_to_the_same_bits_as_a_loop_written_by_hand(dtype, place):
    """Wherever it is in the list, weights are those of autocast and GradScaler by hand."""
    loop = make_loop()
    loop.components.insert(place, Amp(dtype))
    loop.train(1)
    assert same(trained_by_hand(make_loop(), dtype), loop.model)


def test_components_before_the_step_see_true_gradients():
    """Clipping in on_optim_step is that of unscaled gradients."""

    class Clip(LoopComponent):
        @hookimpl(tryfirst=True)
        def on_optim_step(self, loop):
            torch.nn.utils.clip_grad_norm_(loop.model.parameters(), 0.1)

    loop = make_loop(Clip(), Amp("fp16"))
    loop.train(1)
    assert same(trained_by_hand(make_loop(), "fp16", max_norm=0.1), loop.model)


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_loss_are_in_mixed_precision_in_every_phase(dtype):
    """Scores have the chosen type in training, validation and testing."""
    data = ComponentConformance.make_data(1)
    dtypes = Record("on_batch_end", lambda loop: loop.scores.dtype)
    loop = make_loop(Amp(dtype), dtypes, valid_data=data)
    loop.train(1)
    loop.test(data)
    assert [DTYPES[dtype]] * 8 == dtypes.values


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_forward_pass_of_a_prediction_is_in_mixed_precision(dtype):
    """Scores have the chosen type in prediction, too."""
    scores = make_loop(Amp(dtype)).predict(ComponentConformance.make_data(1))
    assert [DTYPES[dtype]] == [each.dtype for each in scores]


@pytest.mark.parametrize("point", ["on_batch_begin", "on_backward_pass", "on_batch_end"])
def test_nothing_else_is_in_mixed_precision(point):
    """Outside the two points autocast is disabled."""
    enabled = Record(point, lambda loop: torch.is_autocast_enabled("cpu"))
    make_loop(Amp(), enabled).train(1)
    assert [False] * 6 == enabled.values


def test_the_loss_is_scaled_for_the_backward_pass_only():
    """loop.loss is the plain loss except while gradients are computed."""
    plain = Record("on_loss_compute", lambda loop: loop.loss.item())
    scaled = Record("on_backward_pass", lambda loop: loop.loss.item())
    after = Record("on_batch_end", lambda loop: loop.loss.item())
    make_loop(plain, scaled, after, Amp("fp16", init_scale=4.0)).train(1)
    assert ([4 * loss for loss in plain.values], plain.values) == (scaled.values, after.values)


def test_the_loss_is_the_plain_one_after_a_backward_pass_that_failed():
    """An exception does not leave the scaled loss behind."""

    class Fail(LoopComponent):
        def on_backward_pass(self, loop):
            raise OSError("disk")

    plain = Record("on_loss_compute", lambda loop: loop.loss.item())
    loop = make_loop(plain, Amp("fp16"), Fail())
    with pytest.raises(OSError, match="disk"):
        loop.train(1)
    assert plain.values == [loop.loss.item()]


def test_a_validation_inside_a_forward_pass_does_not_change_its_gradients():
    """Casts of weights that validation made without a graph are not reused in training."""

    class Validate(LoopComponent):
        def on_forward_pass(self, loop):
            if loop.is_training:
                loop.validate()

    data = ComponentConformance.make_data(1)
    plain, busy = make_loop(Amp(), valid_data=data), make_loop(Amp(), valid_data=data)
    busy.components.insert(0, Validate())
    plain.train(1)
    busy.train(1)
    assert same(plain.model, busy.model)


# -- overflow -----------------------------------------------------------------------------------


def test_there_is_no_step_where_gradients_overflow():
    """Weights, scheduler and the count of steps stay, and gradients are dropped."""
    loop = make_loop(Amp("fp16", init_scale=HUGE))
    before = [parameter.clone() for parameter in loop.model.parameters()]
    gradients = Record("on_batch_end", lambda loop: {p.grad for p in loop.model.parameters()})
    loop.components.append(gradients)
    loop.train(1)
    assert all(map(torch.equal, before, loop.model.parameters()))
    assert ([{None}] * 6, 0, [0.1]) == (
        gradients.values,
        loop.global_step,
        loop.scheduler.get_last_lr(),
    )


@pytest.mark.parametrize("step", [Step, FusedStep])
def test_skipped_steps_are_logged_once_an_epoch(step):
    """Their number in each training epoch is a metric, for any optimizer."""
    loop = make_loop(Amp("fp16", init_scale=HUGE), step=step())
    loop.train(2)
    assert {"train/skipped-steps": 6} == {k: int(v) for k, v in loop.metrics.items()}


def test_bf16_skips_nothing_and_logs_nothing():
    """Without scaling there is no metric of skipped steps."""
    loop = make_loop(Amp())
    loop.train(1)
    assert {} == loop.metrics


def test_a_fused_optimizer_skips_by_itself():
    """Its weights stay though it is called, and its attributes are those of before."""
    loop = make_loop(Amp("fp16", init_scale=HUGE), step=FusedStep())
    before = [parameter.clone() for parameter in loop.model.parameters()]
    loop.train(1)
    assert all(map(torch.equal, before, loop.model.parameters()))
    assert (6, False) == (loop.global_step, hasattr(loop.optimizer, "found_inf"))


def test_a_fused_optimizer_steps_where_nothing_overflows():
    """Its weights are those of an optimizer that is not fused, to float tolerance."""
    fused, plain = make_loop(Amp("fp16"), step=FusedStep()), make_loop(Amp("fp16"))
    fused.train(1)
    plain.train(1)
    torch.testing.assert_close(plain.model.state_dict(), fused.model.state_dict())


@pytest.fixture
def filled_memory():
    """Fill memory that torch allocates with NaN, as what is left in it may be any number."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("filled_memory")
@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_a_fused_optimizer_may_skip_its_first_step(dampening):
    """The momentum begins with the first step that is made, as in an optimizer not fused."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(8, 3), torch.randint(0, 2, (8,))

    class Steps(FusedStep):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            for group in loop.optimizer.param_groups:
                group["dampening"] = dampening

        def on_optim_step(self, loop):
            loop.optimizer.step()

    scale = 2.0**20
    loop = TrainTestLoop(
        torch.nn.Linear(3, 2), [Steps(), Amp("fp16", init_scale=scale)], [(inputs, targets)] * 8
    )
    model = copy.deepcopy(loop.model)
    loop.train(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=dampening)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert {"train/skipped-steps": 3} == loop.metrics
    torch.testing.assert_close(model.state_dict(), loop.model.state_dict())


def test_a_fused_optimizer_may_have_other_hooks():
    """Those that another component registers after the first backward pass are called too."""

    class Hooked(FusedStep):
        n_called = 0

        def on_optim_step(self, loop):
            if not loop.global_step:
                loop.optimizer.register_step_post_hook(self.count)
            super().on_optim_step(loop)

        def count(self, *_):
            self.n_called += 1

    loop = make_loop(Amp("fp16"), step=Hooked())
    loop.train(1)
    assert 6 == loop.components["hooked"].n_called


def test_the_scale_shrinks_until_gradients_fit():
    """After enough overflows there are steps again."""
    loop = make_loop(Amp("fp16", init_scale=2.0**24))
    for _ in range(5):
        loop.train(1)
    assert 0 == loop.metrics["train/skipped-steps"]


def test_gradients_of_a_batch_that_does_not_step_stay_scaled():
    """Accumulated gradients are unscaled once, before their step."""

    class Two(LoopComponent):
        def on_batch_begin(self, loop):
            loop.is_stepping = loop.batch_num % 2 == 1

    def accumulated(*components):
        loop = make_loop(Two(), *components)
        gradient = Record("on_optim_step", lambda loop: loop.model[2].weight.grad.clone())
        loop.components.append(gradient)
        loop.train(1)
        return gradient.values

    scaled, plain = accumulated(Amp("fp16", init_scale=1024.0)), accumulated()
    assert 3 == len(scaled)
    torch.testing.assert_close(plain[0], scaled[0], rtol=0.01, atol=0.01)


def test_all_optimizers_have_true_gradients():
    """Two optimizers of the parameters train to the same bits as one of all."""
    one, two = make_loop(Amp("fp16")), make_loop(Amp("fp16"), step=TwoOptimizers())
    one.train(1)
    two.train(1)
    assert same(one.model, two.model)


def test_no_optimizer_steps_where_gradients_overflow():
    """An overflow drops the gradients of every optimizer."""
    loop = make_loop(Amp("fp16", init_scale=HUGE), step=TwoOptimizers())
    gradients = Record("on_batch_end", lambda loop: {p.grad for p in loop.model.parameters()})
    loop.components.append(gradients)
    loop.train(1)
    assert ([{None}] * 6, 0) == (gradients.values, loop.global_step)


def test_a_step_that_another_component_drops_later_does_no_harm():
    """After a dropped batch the next one is unscaled again."""

    class Drop(LoopComponent):
        @hookimpl(wrapper=True)
        def on_backward_pass(self, loop):
            result = yield
            if loop.batch_num == 2:
                loop.is_stepping = False
                loop.optimizer.zero_grad()
            return result

    loop = make_loop()
    loop.components[:] = [Drop(), *loop.components, Amp("fp16")]
    loop.train(1)
    assert 5 == loop.global_step


# -- state, enabled and disabled ----------------------------------------------------------------


def test_resumes_from_its_state(tmp_path):
    """The scale and the number of skipped steps are saved to a file and loaded from it."""
    amp, other = Amp("fp16", init_scale=HUGE), Amp("fp16")
    make_loop(amp).train(1)
    torch.save(amp.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert amp.state_dict() == other.state_dict()
    assert (6, HUGE / 2**6) == (
        other.state_dict()["n_skipped"],
        amp.state_dict()["scaler"]["scale"],
    )
    scale = Record("on_backward_pass", lambda loop: loop.loss.item())
    plain = Record("on_loss_compute", lambda loop: loop.loss.item())
    make_loop(plain, other, scale).train(1)
    assert HUGE / 2**6 == pytest.approx(scale.values[0] / plain.values[0])


def test_bf16_has_no_state():
    """There is nothing to save if nothing is scaled."""
    loop = make_loop(Amp())
    loop.train(1)
    assert {} == loop.components["amp"].state_dict()


@pytest.mark.parametrize("dtype", DTYPES)
def test_disabled_at_a_safe_point_training_continues_in_single_precision(dtype):
    """The batches after it are those of a loop without it."""

    class Disable(LoopComponent):
        def on_safe_point(self, loop):
            loop.components.disable("amp")

    dtypes = Record("on_batch_end", lambda loop: loop.scores.dtype)
    norm = Record("on_optim_step", lambda loop: float(loop.model[2].weight.grad.norm()))
    make_loop(Amp(dtype), Disable(), dtypes, norm).train(1)
    assert [DTYPES[dtype], *[torch.float32] * 5] == dtypes.values
    assert max(norm.values) < 10


def test_the_type_of_device_can_be_given():
    """`device_type` is used in place of that of the model."""
    loop = make_loop(Amp(device_type="xpu" if torch.xpu.is_available() else "cpu"))
    loop.train(1)
    assert torch.bfloat16 == loop.scores.dtype


def test_a_model_without_parameters_is_taken_to_be_on_the_cpu():
    """A model without parameters runs."""
    loop = TrainTestLoop(torch.nn.Identity(), ["amp"])
    loop.test([1])
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("dtype", ["fp32", "float16", torch.float16, None])
def test_refuses_other_types(dtype):
    """The error names the argument and what it may be."""
    with pytest.raises(ArgumentError, match=r"dtype is .*, but has to be 'bf16' or 'fp16'"):
        Amp(dtype)


def test_a_device_that_torch_does_not_know_is_refused_before_training():
    """Not by the first batch."""
    with pytest.raises(ArgumentError, match="device_type is 'gpu', but has to be a device"):
        Amp(device_type="gpu")


@pytest.mark.parametrize(
    ("name", "value"), [("init_scale", 0), ("init_scale", "big"), ("growth_interval", 0.5)]
)
def test_refuses_unusable_numbers(name, value):
    """The error names the argument and what was given."""
    with pytest.raises(ArgumentError, match=f"{name} is {value!r}, but has to be"):
        Amp("fp16", **{name: value})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
def test_waits_for_no_device_with_a_fused_optimizer(dtype):
    """On CUDA no batch synchronises."""

    class Watch(LoopComponent):
        def on_batch_begin(self, loop):
            if loop.batch_num:
                torch.cuda.set_sync_debug_mode("error")

        def on_batch_end(self, loop):
            torch.cuda.set_sync_debug_mode("default")

    loop = make_loop(Amp(dtype), Watch(), step=FusedStep())
    loop.model.cuda()
    loop.train_data = [[part.cuda() for part in batch] for batch in loop.train_data]
    loop.train(1)
    assert 6 == loop.global_step


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_warns_once_that_an_optimizer_is_not_fused():
    """On CUDA fp16 with an optimizer that is not fused warns, naming it and the fix."""
    loop = make_loop(Amp("fp16"))
    loop.model.cuda()
    loop.train_data = [[part.cuda() for part in batch] for batch in loop.train_data]
    with pytest.warns(UserWarning, match="SGD is not fused.*fused=True") as caught:
        loop.train(1)
    assert 1 == len(caught)


# -- A3: the model's parameters are not the optimizer's -------------------------------------------


class SteppedInPart(Step):
    """Steps with an optimizer of the last layer only, whose loss misses that layer in some batches.

    Args:
        batches: the numbers of the batches whose loss has no gradient for the optimizer.
        fused: whether the optimizer is fused.
    """

    def __init__(self, *batches, fused=False):
        self.batches = batches
        self.fused = fused

    def on_train_begin(self, loop):
        loop.optimizer = torch.optim.SGD(
            loop.model[2].parameters(), lr=0.1, momentum=0.9, fused=self.fused
        )
        loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=2)

    def on_loss_compute(self, loop):
        super().on_loss_compute(loop)
        if loop.batch_num in self.batches:
            loop.loss = loop.model[0](loop.batch[0]).square().mean()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("batches", [(0,), (2, 3), range(6)], ids=["first", "some", "all"])
def test_a_step_without_any_gradient_is_a_step_like_all_others(batches, fused):
    """A3: where no parameter of the optimizer has a gradient, the step is made, as without amp."""
    amp = Amp("fp16", init_scale=4.0)
    loop = make_loop(amp, step=SteppedInPart(*batches, fused=fused))
    loop.train(1)
    model, scaler = make_loop().model, torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9, fused=fused)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    for i, (inputs, targets) in enumerate(loop.train_data):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        if i not in batches:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        scheduler.step()
    assert all(map(torch.equal, model[2].parameters(), loop.model[2].parameters()))
    assert (6, 0) == (loop.global_step, int(loop.metrics["train/skipped-steps"]))
    if set(batches) != set(range(6)):
        assert scaler.state_dict() == amp.state_dict()["scaler"]


def test_an_overflow_drops_gradients_that_are_no_optimizers_too():
    """A3: infinite gradients of parameters that no optimizer steps do not stay behind."""

    class KeepingStep(SteppedInPart):
        def on_grads_reset(self, loop):
            loop.optimizer.zero_grad()

    loop = make_loop(Amp("fp16", init_scale=HUGE), step=KeepingStep())
    gradients = Record("on_batch_end", lambda loop: {p.grad for p in loop.model.parameters()})
    loop.components.append(gradients)
    loop.train(1)
    assert [{None}] * 6 == gradients.values
