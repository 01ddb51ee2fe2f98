"""The behaviour of `grad-accumulation`."""

import numpy
import pytest
import torch
from ttl_optim import GradAccumulation

from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.testing import Step


class LinearStep(Step):
    """Steps without momentum, for a model whose batches do not depend on one another."""

    def on_train_begin(self, loop):
        loop.model = torch.nn.Linear(4, 2)
        torch.nn.init.constant_(loop.model.weight, 0.5)
        torch.nn.init.constant_(loop.model.bias, 0.0)
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1)
        loop.scheduler = torch.optim.lr_scheduler.ConstantLR(loop.optimizer, 1.0)


def make_batches(*sizes):
    """Return batches of these sizes."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 4, generator=generator),
            torch.randint(0, 2, (size,), generator=generator),
        )
        for size in sizes
    ]


def merged(batches):
    """Return several batches as one."""
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def stream(batches):
    """Return data without a length."""

    class Stream:
        def __iter__(self):
            return iter(batches)

    return Stream()


def assert_close(one, other):
    """Check that two loops have the same weights to float tolerance."""
    torch.testing.assert_close(one.model.state_dict(), other.model.state_dict())


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ((4, 4, 4, 4), (2, 2)),
        ((6, 6, 6), (3,)),
        ((4, 4, 4), (2, 1)),
        ((8, 8, 8, 8, 8), (3, 2)),
        ((2, 7, 5, 1, 3), (3, 2)),
        ((1, 9), (1, 1)),
    ],
    ids=["even", "thirds", "tail of one", "shorter tail", "uneven sizes", "every 1"],
)
def test_gives_the_gradient_of_one_big_batch(make_loop, sizes, groups):
    """Steps are those of the merged batches, for any sizes and any tail of the epoch."""
    batches = make_batches(*sizes)
    parts = iter(batches)
    big = [merged([next(parts) for _ in range(group)]) for group in groups]
    expected = make_loop(step=LinearStep(), data=big)
    actual = make_loop(GradAccumulation(groups[0]), step=LinearStep(), data=batches)
    expected.train(2)
    actual.train(2)
    assert_close(expected, actual)


def test_rescales_the_gradients_of_all_optimizers(make_loop):
    """Where several optimizers step, uneven batches give the gradient of one big batch to each."""

    class TwoOptimizers(LinearStep):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.optimizers = [
                torch.optim.SGD([parameter], lr=0.1) for parameter in loop.model.parameters()
            ]

        def on_optim_step(self, loop):
            for optimizer in loop.optimizers:
                optimizer.step()

    batches = make_batches(2, 7, 5)
    expected = make_loop(step=TwoOptimizers(), data=[merged(batches)])
    actual = make_loop(GradAccumulation(4), step=TwoOptimizers(), data=batches)
    expected.train(2)
    actual.train(2)
    assert_close(expected, actual)


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_weights_batches_by_what_a_component_set(make_loop, kind):
    """A batch_size set by a component, number or tensor, is the weight of the batch."""

    class Weigh(LoopComponent):
        def on_batch_begin(self, loop):
            loop.batch_size = kind([2.0, 6.0][loop.batch_num])

    first, other = make_batches(4, 4)
    expected = make_loop(step=LinearStep(), data=[merged([first, other, other, other])])
    actual = make_loop(Weigh(), GradAccumulation(2), step=LinearStep(), data=[first, other])
    expected.train(1)
    actual.train(1)
    assert_close(expected, actual)


def test_reads_no_value_of_a_batch_size_on_a_device(make_loop):
    """A batch_size whose value cannot be read works, so nothing waits for the device."""

    class Meta(LinearStep):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.model.to("meta")
            loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1, foreach=False)
            loop.scheduler = torch.optim.lr_scheduler.ConstantLR(loop.optimizer, 1.0)

        def on_batch_begin(self, loop):
            loop.batch = [part.to("meta") for part in loop.batch]
            loop.batch_size = torch.tensor(4.0, device="meta")

    loop = make_loop(GradAccumulation(2), step=Meta(), data=make_batches(4, 4))
    loop.train(1)
    assert 1 == loop.global_step


def test_is_exactly_the_usual_loop_for_even_batches(make_loop):
    """Even batches give the bits of dividing each loss by their number, a power of two."""
    batches = make_batches(6, 6, 6, 6)
    actual = make_loop(GradAccumulation(2), step=LinearStep(), data=batches)
    actual.train(1)
    by_hand = make_loop(step=LinearStep(), data=[])
    by_hand.train(0)
    for i, (inputs, targets) in enumerate(batches):
        if i % 2 == 0:
            by_hand.optimizer.zero_grad()
        scores = by_hand.model(inputs)
        (torch.nn.functional.cross_entropy(scores, targets) / 2).backward()
        if i % 2 == 1:
            by_hand.optimizer.step()
    assert torch.equal(by_hand.model.weight, actual.model.weight)


@pytest.mark.parametrize("place", [0, 9], ids=["before", "after"])
def test_a_scaled_loss_in_half_precision_has_the_same_gradient_at_any_place(make_loop, place):
    """A loss scaled by 65536 and divided by 2 has a gradient that half precision can hold."""
    gradients = []

    class HalfStep(LinearStep):
        def on_loss_compute(self, loop):
            super().on_loss_compute(loop)
            loop.loss = loop.loss.half()
            loop.loss.register_hook(lambda gradient: gradients.append(float(gradient)))

    class Scale(LoopComponent):
        @hookimpl(wrapper=True)
        def on_backward_pass(self, loop):
            loss, loop.loss = loop.loss, loop.loss * torch.tensor(65536.0)
            result = yield
            loop.loss = loss
            return result

    loop = make_loop(GradAccumulation(2), step=HalfStep(), data=make_batches(4, 4))
    loop.components.insert(place, Scale())
    loop.train(1)
    assert [32768.0, 32768.0] == gradients


def test_the_loss_stays_that_of_the_batch(make_loop, recorder):
    """After the backward pass loop.loss is the very tensor that was computed."""
    before = recorder("on_loss_compute", lambda loop: id(loop.loss))
    after = recorder("on_batch_end", lambda loop: id(loop.loss))
    make_loop(before, GradAccumulation(2), after).train(1)
    assert before.seen == after.seen


@pytest.mark.parametrize(("n_batches", "every", "expected"), [(6, 4, 4), (6, 3, 4), (7, 1, 14)])
def test_sets_the_number_of_steps(make_loop, recorder, n_batches, every, expected):
    """In on_train_begin n_optim_steps is the number of steps that are then made."""
    number = recorder("on_train_begin", lambda loop: loop.n_optim_steps)
    loop = make_loop(number, GradAccumulation(every), data=make_batches(*[4] * n_batches))
    loop.train(2)
    assert ([expected], expected) == (number.seen, loop.optim_step_num)


def test_leaves_a_given_number_of_steps_alone(make_loop):
    """train(n_optim_steps=3) makes three steps, not three by some factor."""
    loop = make_loop(GradAccumulation(2))
    loop.train(n_optim_steps=4)
    assert (4, 4) == (loop.n_optim_steps, loop.optim_step_num)


def test_steps_are_unknown_where_the_length_is(make_loop, recorder):
    """Data without a length have no number of steps, before and after."""
    number = recorder("on_train_begin", lambda loop: loop.n_optim_steps)
    make_loop(number, GradAccumulation(2), data=stream(make_batches(4))).train(1)
    assert [None] == number.seen


def test_what_is_pending_carries_over_without_a_length(make_loop):
    """Three batches an epoch, two a step: two epochs make three steps, the second across both."""
    first, second, third = batches = make_batches(4, 4, 4)
    pairs = [(first, second), (third, first), (second, third)]
    expected = make_loop(step=LinearStep(), data=[merged(pair) for pair in pairs])
    actual = make_loop(GradAccumulation(2), step=LinearStep(), data=stream(batches))
    expected.train(1)
    actual.train(2)
    assert 3 == actual.global_step
    assert_close(expected, actual)


def test_what_is_pending_is_dropped_when_train_ends(make_loop, recorder):
    """A second train() starts a new step."""
    gradients = recorder("on_batch_begin", lambda loop: loop.model.weight.grad)
    loop = make_loop(
        GradAccumulation(2), gradients, step=LinearStep(), data=stream(make_batches(4))
    )
    loop.train(1)
    loop.train(1)
    assert ([None, None], 0) == (gradients.seen, loop.global_step)


def test_starts_a_new_step_where_gradients_were_dropped(make_loop):
    """A component that drops gradients drops what was pending: the next batch is the first."""

    class Drop(LoopComponent):
        def on_backward_pass(self, loop):
            if loop.batch_num == 0:
                loop.is_stepping = False
                loop.optimizer.zero_grad()

    bad, *good = make_batches(5, 4, 4)
    expected = make_loop(GradAccumulation(2), step=LinearStep(), data=good)
    actual = make_loop(GradAccumulation(2), Drop(), step=LinearStep(), data=[bad, *good])
    expected.train(1)
    actual.train(1)
    assert torch.equal(expected.model.weight, actual.model.weight)


def test_a_step_that_was_postponed_has_the_gradients_of_all_its_batches(make_loop):
    """A step that a component postpones is made with the next batch."""

    class Postpone(LoopComponent):
        def on_batch_begin(self, loop):
            if loop.batch_num == 1:
                loop.is_stepping = False

    batches = make_batches(4, 4, 4)
    expected = make_loop(step=LinearStep(), data=[merged(batches)])
    actual = make_loop(GradAccumulation(2), Postpone(), step=LinearStep(), data=batches)
    expected.train(1)
    actual.train(1)
    assert_close(expected, actual)


def test_disabled_at_a_safe_point_each_batch_steps_alone(make_loop):
    """After a step it leaves nothing behind."""

    class Disable(LoopComponent):
        def on_safe_point(self, loop):
            loop.components.disable("grad-accumulation")

    batches = make_batches(4, 4, 4, 4)
    expected = make_loop(step=LinearStep(), data=[merged(batches[:2]), *batches[2:]])
    actual = make_loop(GradAccumulation(2), Disable(), step=LinearStep(), data=batches)
    expected.train(1)
    actual.train(1)
    assert_close(expected, actual)


def test_disabled_and_enabled_again_it_starts_a_new_step(make_loop):
    """Batches from before it was disabled do not count in later steps."""

    class Toggle(LoopComponent):
        """Disabled for batches 1 and 2 of 5, which step with what was pending."""

        def on_batch_end(self, loop):
            if loop.batch_num == 0:
                loop.components.disable("grad-accumulation")
            elif loop.batch_num == 2:
                loop.components.enable("grad-accumulation")
                self.before = {k: v.clone() for k, v in loop.model.state_dict().items()}

    class Resumed(LinearStep):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.model.load_state_dict(toggle.before)

    toggle = Toggle()
    batches = make_batches(4, 4, 4, 4, 4)
    actual = make_loop(GradAccumulation(2), toggle, step=LinearStep(), data=batches)
    actual.train(1)
    expected = make_loop(step=Resumed(), data=[merged(batches[3:])])
    expected.train(1)
    assert_close(expected, actual)


def test_resumes_with_what_is_pending(make_loop, through_file):
    """Saved between epochs without a length, a run resumes to the same bits."""
    batches = make_batches(4, 5, 3)

    class Save(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.epoch_num == 0:
                self.state = through_file(loop.components["grad-accumulation"].state_dict())
                self.weights = {k: v.clone() for k, v in loop.model.state_dict().items()}

    class Resumed(LinearStep):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.model.load_state_dict(save.weights)

    save = Save()
    uninterrupted = make_loop(GradAccumulation(2), save, step=LinearStep(), data=stream(batches))
    uninterrupted.train(2)
    resumed = make_loop(GradAccumulation(2), step=Resumed(), data=stream(batches))
    resumed.components["grad-accumulation"].load_state_dict(save.state)
    resumed.train(1)
    assert torch.equal(uninterrupted.model.weight, resumed.model.weight)


def test_state_is_empty_at_a_safe_point_after_a_step(make_loop, recorder):
    """There is nothing to save where nothing is pending."""
    accumulation = GradAccumulation(2)
    make_loop(accumulation).train(1)
    accumulation.on_grads_reset(None)
    assert {} == accumulation.state_dict()


@pytest.mark.parametrize("every", [0, -1, 2.0, "2", None, True])
def test_refuses_an_unusable_number_of_batches(every):
    """The error names the argument, its value, and what it has to be."""
    with pytest.raises(ArgumentError, match=r"every is .*, but has to be a whole number from 1"):
        GradAccumulation(every)


def test_takes_a_number_of_numpy():
    """A NumPy integer is a whole number."""
    assert 3 == GradAccumulation(numpy.int64(3)).every


# A3: no gradient that is the optimizer's


@pytest.mark.parametrize("sizes", [(4, 4, 4), (2, 7, 5)], ids=["even", "uneven"])
def test_steps_without_any_gradient(make_loop, sizes):
    """A3: where no parameter of the optimizer has a gradient, the last batch steps all the same."""
    other = torch.nn.Parameter(torch.ones(2))

    class OtherStep(LinearStep):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.optimizer = torch.optim.SGD([other], lr=0.1)
            loop.scheduler = torch.optim.lr_scheduler.ConstantLR(loop.optimizer, 1.0)

    loop = make_loop(GradAccumulation(2), step=OtherStep(), data=make_batches(*sizes))
    loop.train(1)
    assert (1, [1.0, 1.0]) == (loop.global_step, other.tolist())


# A5: weights of zero


class Weigh(LoopComponent):
    """A component that weighs batches by given sizes, as numbers or as tensors of a device.

    Where the size is 0 the loss is the mean of nothing, NaN with gradients that are NaN.
    """

    def __init__(self, sizes, kind=float):
        self.sizes = sizes
        self.kind = kind

    def on_batch_begin(self, loop):
        loop.batch_size = self.kind(self.sizes[loop.batch_num])

    def on_loss_compute(self, loop):
        if not self.sizes[loop.batch_num] and self.kind is not on_device:
            loop.loss = loop.loss * (torch.zeros(()) / 0)


class OnDevice(torch.Tensor):
    """A tensor on the CPU that says it is on another device, where its value is not read."""

    @property
    def is_cpu(self):
        return False

    def item(self):
        raise AssertionError("reading waits for the device")

    __bool__ = __float__ = item


def on_device(value):
    """Return a tensor whose value must not be read."""
    return torch.tensor(value).as_subclass(OnDevice)


def trained_by_hand(batches, sizes, every):
    """Return the model after an epoch of a hand-written loop that weighs batches by sizes."""
    model = torch.nn.Linear(4, 2)
    torch.nn.init.constant_(model.weight, 0.5)
    torch.nn.init.constant_(model.bias, 0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    n_steps = 0
    for i in range(0, len(batches), every):
        total = sum(sizes[i : i + every])
        optimizer.zero_grad()
        for (inputs, targets), size in list(zip(batches, sizes, strict=True))[i : i + every]:
            if size:
                loss = torch.nn.functional.cross_entropy(model(inputs), targets)
                (loss * (size / total)).backward()
        if total:
            optimizer.step()
            n_steps += 1
    return model, n_steps


ZEROS = {
    "first": (0.0, 3.0, 2.0, 2.0),
    "middle": (3.0, 0.0, 1.0, 1.0),
    "first window": (0.0, 0.0, 2.0, 5.0),
    "last window": (2.0, 5.0, 0.0, 0.0),
    "tail": (2.0, 5.0, 1.0, 1.0, 0.0),
    "all": (0.0, 0.0, 0.0, 0.0),
    "large": (0.0, 2048.0, 2048.0, 1024.0),
}


@pytest.mark.parametrize("kind", [float, torch.tensor, on_device])
@pytest.mark.parametrize("sizes", ZEROS.values(), ids=ZEROS.keys())
def test_batches_of_weight_zero_add_nothing(make_loop, sizes, kind):
    """A5: they count in the number of batches only, though their loss is NaN."""
    batches = make_batches(*[4] * len(sizes))
    loop = make_loop(Weigh(sizes, kind), GradAccumulation(2), step=LinearStep(), data=batches)
    loop.train(1)
    model, n_steps = trained_by_hand(batches, sizes, every=2)
    torch.testing.assert_close(model.state_dict(), loop.model.state_dict())
    if kind is not on_device:  # where it steps, with gradients of 0
        assert n_steps == loop.global_step


@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_step_of_weight_zero_is_not_made(make_loop, every):
    """A5: neither momentum nor the scheduler moves, and the next batch is the first of a step."""

    class MomentumStep(LinearStep):
        def on_train_begin(self, loop):
            super().on_train_begin(loop)
            loop.optimizer = torch.optim.SGD(
                loop.model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1
            )
            loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, 1)

    good = make_batches(*[4] * 8)
    bad = make_batches(*[4] * every)
    sizes = [4.0] * 4 + [0.0] * every + [4.0] * 4
    expected = make_loop(GradAccumulation(every), step=MomentumStep(), data=good)
    actual = make_loop(
        Weigh(sizes), GradAccumulation(every), step=MomentumStep(), data=good[:4] + bad + good[4:]
    )
    expected.train(1)
    actual.train(1)
    assert torch.equal(expected.model.weight, actual.model.weight)
    assert expected.global_step == actual.global_step


@pytest.mark.parametrize("kind", [float, torch.tensor, on_device])
def test_losses_stay_in_the_range_of_half_precision(make_loop, recorder, kind):
    """A5: a first batch of weight 0 does not make the next loss 2048 times as large."""
    plain = recorder("on_loss_compute", lambda loop: torch.Tensor.item(loop.loss))
    losses = recorder(
        "on_backward_pass", lambda loop: torch.Tensor.item(loop.loss) / plain.seen[-1]
    )
    sizes = [0.0, 2048.0, 1024.0, 2048.0]
    components = [Weigh(sizes, kind), GradAccumulation(4), plain, losses]
    make_loop(*components, step=LinearStep(), data=make_batches(4, 4, 4, 4)).train(1)
    assert [pytest.approx(each) for each in (0.25, 0.125, 0.25)] == losses.seen[1:]


def test_a_pending_batch_of_weight_zero_is_resumed(make_loop, through_file):
    """A5: saved between epochs without a length, its place in the step is kept."""
    accumulation = GradAccumulation(2)
    make_loop(Weigh([0.0]), accumulation, step=LinearStep(), data=stream(make_batches(4))).train(1)
    state = through_file(accumulation.state_dict())
    resumed = make_loop(GradAccumulation(2), step=LinearStep(), data=stream(make_batches(4)))
    resumed.components["grad-accumulation"].load_state_dict(state)
    resumed.train(1)
    assert (1, 1) == (state["n_pending"], resumed.global_step)


def test_pending_gradients_are_resumed_with_another_every(make_loop, through_file):
    """They count by their samples, as if the run had had it throughout."""
    first, second, third = make_batches(4, 4, 4)
    accumulation, step = GradAccumulation(2), LinearStep()
    interrupted = make_loop(accumulation, step=step, data=stream([first]))
    interrupted.train(1)
    state = through_file(accumulation.state_dict())
    resumed = make_loop(GradAccumulation(3), step=LinearStep(), data=stream([second, third]))
    resumed.components["grad-accumulation"].load_state_dict(state)
    resumed.train(1)
    whole = make_loop(GradAccumulation(3), step=LinearStep(), data=[first, second, third])
    whole.train(1)
    torch.testing.assert_close(whole.model.state_dict(), resumed.model.state_dict())


def test_an_empty_last_batch_adds_nothing(make_loop):
    """A5: by default the weight of a batch is its number of samples, which may be 0."""
    batches = make_batches(4, 0, 3, 0)
    loop = make_loop(GradAccumulation(2), step=LinearStep(), data=batches)
    loop.train(1)
    model, _ = trained_by_hand(batches, (4, 0, 3, 0), every=2)
    torch.testing.assert_close(model.state_dict(), loop.model.state_dict())


# A14: sparse gradients


def test_accumulates_sparse_gradients(make_loop):
    """A14: uneven batches of an embedding with sparse gradients are weighted as dense ones."""

    def train(sparse):
        class WordStep(LinearStep):
            def on_train_begin(self, loop):
                torch.manual_seed(0)
                loop.model = torch.nn.EmbeddingBag(5, 2, sparse=sparse)
                loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1)
                loop.scheduler = torch.optim.lr_scheduler.ConstantLR(loop.optimizer, 1.0)

        data = [
            (torch.tensor([[0, 1]]), torch.tensor([1])),
            (torch.tensor([[2, 1], [3, 3], [0, 0]]), torch.tensor([0, 1, 1])),
        ]
        loop = make_loop(GradAccumulation(2), step=WordStep(), data=data)
        loop.train(1)
        return loop

    assert_close(train(False), train(True))
