"""The behaviour of `sam`, against a loop written by hand."""

import itertools

import pytest
import torch
from ttl_optim import Ema, GradAccumulation, GradClip, Sam

from ttl_core import ArgumentError, LoopComponent, use
from ttl_core.testing import ComponentConformance, Step, Stream

SIZES = [6, 6, 3, 6, 5]
RHO = 0.5


def uneven_data():
    """Return batches of several sizes."""
    data = ComponentConformance.make_data(len(SIZES))
    return [(x[:n], y[:n]) for (x, y), n in zip(data, SIZES, strict=True)]


def ascend(parameters, adaptive):
    """Move parameters to the worst point nearby, and return where they were."""
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        steps = [p.grad * (p.abs() if adaptive else 1) for p in parameters]
        norm = torch.nn.utils.get_total_norm(steps)
        for p, step in zip(parameters, steps, strict=True):
            p += step * (p.abs() if adaptive else 1) * (RHO / (norm + 1e-12))
    return before


def by_hand(every=1, clip=None, dtype=None, scale=1.0, adaptive=False, until=None):
    """Train two epochs without any library; return the weights and statistics."""
    model, data = ComponentConformance.make_model(), uneven_data()
    parameters, norm = list(model.parameters()), model[1]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)

    def gradients(group):
        optimizer.zero_grad()
        total = sum(len(y) for _, y in group)
        for x, y in group:
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                loss = torch.nn.functional.cross_entropy(model(x), y)
            (loss * (len(y) / total) * scale).backward()
        for p in parameters:
            p.grad /= scale

    n_steps = 0
    for _ in range(2):
        for group in [data[i : i + every] for i in range(0, len(data), every)]:
            gradients(group)
            if until is None or n_steps < until:
                before = ascend(parameters, adaptive)
                norm.track_running_stats = False
                gradients(group)
                norm.track_running_stats = True
                with torch.no_grad():
                    for p, weight in zip(parameters, before, strict=True):
                        p.copy_(weight)
            if clip:
                torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            scheduler.step()
            n_steps += 1
    return model.state_dict()


def check(expected, loop, tolerance=1e-6):
    """Check that a loop comes to the same weights and statistics."""
    torch.testing.assert_close(
        expected, dict(loop.model.state_dict()), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("adaptive", [False, True])
def test_alone_it_is_the_loop_by_hand(make_loop, adaptive):
    """Weights, and running statistics of the first passes, are those of two passes by hand."""
    loop = make_loop(Sam(RHO, adaptive=adaptive), data=uneven_data())
    loop.train(2)
    check(by_hand(adaptive=adaptive), loop)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_with_accumulation_and_clipping_in_any_order(make_loop, order):
    """Uneven batches that make a step together go through both passes together."""
    components = [Sam(RHO), GradAccumulation(2), GradClip(0.1)]
    loop = make_loop(*(components[i] for i in order), data=uneven_data())
    loop.train(2)
    check(by_hand(every=2, clip=0.1), loop)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.bfloat16, 1.0), (torch.float16, 2.0**16)], ids=str
)
def test_in_mixed_precision(make_loop, dtype, scale, order):
    """With bf16, and with fp16 and its scaling of the loss, both passes are cast and scaled."""
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    components = [Sam(RHO), use("amp", dtype=name), GradAccumulation(2)][::order]
    loop = make_loop(*components, data=uneven_data())
    loop.train(2)
    check(by_hand(every=2, dtype=dtype, scale=scale), loop, tolerance=1e-2)


def test_an_overflow_in_the_second_pass_skips_the_step(make_loop):
    """Where scaled gradients overflow at the worst point only, there is no step."""

    class Steep(Step):
        def on_loss_compute(self, loop):
            super().on_loss_compute(loop)
            if loop.components["sam"]._is_second:
                loop.loss = loop.loss * float("inf")

    loop = make_loop(Sam(RHO), use("amp", dtype="fp16"), step=Steep())
    before = ComponentConformance.make_model()[0].weight
    loop.train(1)
    assert (0, 6) == (loop.global_step, loop.metrics["train/skipped-steps"])
    assert torch.equal(before, loop.model[0].weight)


def test_a_step_of_the_users_own(make_loop):
    """Forward pass and loss in on_loss_compute, and gradients by autograd, are passed again."""

    class Own(Step):
        def on_forward_pass(self, loop):
            pass

        def on_loss_compute(self, loop):
            inputs, targets = loop.batch
            loop.loss = loop.loss_func(loop.model(inputs), targets)

        def on_backward_pass(self, loop):
            parameters = list(loop.model.parameters())
            for p, gradient in zip(
                parameters, torch.autograd.grad(loop.loss, parameters), strict=True
            ):
                p.grad = gradient

    loop = make_loop(Sam(RHO), step=Own(), data=uneven_data())
    loop.train(2)
    check(by_hand(), loop)


def test_with_averages_they_are_of_the_restored_weights(make_loop):
    """`ema` without memory has the weights after each step."""
    loop = make_loop(Sam(RHO), Ema(decay=0.0), data=uneven_data())
    loop.train(2)
    check(dict(loop.components["ema"].averaged.module.state_dict()), loop)


def test_disabled_in_mid_run_the_rest_is_plain(make_loop):
    """After it was disabled, steps have one pass."""

    class Disable(LoopComponent):
        def on_safe_point(self, loop):
            if loop.global_step == 3:
                loop.components.disable("sam")

    loop = make_loop(Sam(RHO), Disable(), data=uneven_data())
    loop.train(2)
    check(by_hand(until=3), loop)


def test_resumes_with_batches_that_are_pending(make_loop, through_file):
    """With data without a length, the batches pending between epochs are passed again, too."""

    def make(*others):
        data = Stream(uneven_data())
        return make_loop(Sam(RHO), GradAccumulation(2), *others, data=data, valid_data=None)

    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            states.append(loop.state_dict() if not loop.is_training else None)

    whole = make(Save())
    whole.train(2)
    state = next(state for state in states if state)
    resumed = make()
    resumed.load_state_dict(through_file(state))
    resumed.train(2)
    check(dict(whole.model.state_dict()), resumed, tolerance=0)


def test_leaves_loss_scores_and_batch_of_the_first_pass(make_loop, recorder):
    """What other components read after the step is of the first pass."""
    watched = recorder("on_batch_end", lambda loop: loop.loss.item())
    plain = recorder("on_batch_end", lambda loop: loop.loss.item())
    make_loop(Sam(RHO), watched).train(1)
    make_loop(plain).train(1)
    assert plain.seen[0] == watched.seen[0]
    assert plain.seen[1] != watched.seen[1]


@pytest.mark.parametrize(
    ("config", "message"),
    [({"rho": 0}, "rho is 0"), ({"rho": "1"}, "rho is '1'"), ({"adaptive": 1}, "adaptive is 1")],
)
def test_refuses_unusable_arguments(config, message):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=message):
        Sam(**config)
