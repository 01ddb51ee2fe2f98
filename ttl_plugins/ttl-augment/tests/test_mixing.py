"""The behaviour of `mixup` and `cutmix`, against loops written by hand."""

import dataclasses
import random
from collections import namedtuple

import pytest
import torch
from ttl_augment import Cutmix, Mixup
from ttl_augment.batches import parts, with_parts
from ttl_augment.conformance import CutmixConformance

from ttl_core import ArgumentError, LoopComponent, RunError, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step


def draw(seed, n, alpha, size):
    """Return the share and the order of a batch by its number, and what later numbers are of."""
    numbers = random.Random(f"{seed}/{n}")
    numbers.random()
    share = numbers.betavariate(alpha, alpha)
    generator = torch.Generator().manual_seed(numbers.getrandbits(63))
    return share, torch.randperm(size, generator=generator), numbers


def mix_by_hand(x, y, n, alpha=0.4, seed=3):
    """Return the n-th mixed batch, and the targets for metrics."""
    share, order, _ = draw(seed, n, alpha, len(x))
    soft = torch.nn.functional.one_hot(y, 2).float()
    mixed = share * x + (1 - share) * x[order]
    return mixed, share * soft + (1 - share) * soft[order], y if share >= 0.5 else y[order]


def by_hand(data, n_epochs=2, every=1, clip=None, two_passes=False):
    """Train with mixed batches; return the weights and the accuracies of the epochs."""
    model = ComponentConformance.make_model()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    n, accuracies = 0, []
    for _ in range(n_epochs):
        right = total = 0
        for begin in range(0, len(data), every):
            group = [(*mix_by_hand(x, y, n + i),) for i, (x, y) in enumerate(data[begin:][:every])]
            n += len(group)

            def passed(group=group):
                model.zero_grad()
                found = []
                for x, soft, _ in group:
                    found.append(model(x))
                    loss = torch.nn.functional.cross_entropy(found[-1], soft)
                    (loss / len(group)).backward()
                return found

            for scores, (_, _, hard) in zip(passed(), group, strict=True):
                right += int((scores.argmax(1) == hard).sum())
                total += len(hard)
            if two_passes:
                before = [p.detach().clone() for p in parameters]
                norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
                with torch.no_grad():
                    for p in parameters:
                        p += p.grad * (0.5 / norm)
                model[1].track_running_stats = False
                passed()
                model[1].track_running_stats = True
                with torch.no_grad():
                    for p, weight in zip(parameters, before, strict=True):
                        p.copy_(weight)
            if clip:
                torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            scheduler.step()
        accuracies.append(right / total)
    return dict(model.state_dict()), accuracies


class Accuracy(LoopComponent):
    """The accuracy of each epoch, as a metric computes it in on_batch_end."""

    def __init__(self):
        self.seen = []

    def on_epoch_begin(self, loop):
        self.right = self.total = 0

    def on_batch_end(self, loop):
        self.right += int((loop.scores.argmax(1) == loop.batch[1]).sum())
        self.total += len(loop.batch[1])

    def on_epoch_end(self, loop):
        self.seen.append(self.right / self.total)


@pytest.mark.parametrize("place", [0, 1], ids=["before the step", "after it"])
def test_is_the_loop_by_hand(make_loop, place):
    """Weights are those of soft targets, and metrics see hard ones."""
    accuracy = Accuracy()
    loop = make_loop(accuracy)
    loop.components.insert(place, Mixup(0.4, n_classes=2, seed=3))
    loop.train(2)
    weights, accuracies = by_hand(loop.train_data)
    torch.testing.assert_close(weights, dict(loop.model.state_dict()))
    assert accuracies == accuracy.seen


def test_with_accumulation_clipping_and_two_passes(make_loop):
    """What belongs to a batch is in it, so that `sam` passes the same mixed batches again."""
    others = [
        use("sam", rho=0.5),
        use("grad-accumulation", every=2),
        use("grad-clip", max_norm=0.1),
    ]
    loop = make_loop(*others, Mixup(0.4, n_classes=2, seed=3))
    loop.train(2)
    weights, _ = by_hand(loop.train_data, every=2, clip=0.1, two_passes=True)
    torch.testing.assert_close(weights, dict(loop.model.state_dict()))


def test_supervised_and_metrics_need_no_change():
    """With `supervised`, `metrics`, bf16 and averages, a run with mixed batches trains."""
    components = [
        use("mixup", n_classes=2),
        use(
            "supervised",
            loss_func=torch.nn.CrossEntropyLoss(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        ),
        *("metrics", "amp", use("ema", decay=0.5)),
    ]
    data = ComponentConformance.make_data(4)
    loop = TrainTestLoop(ComponentConformance.make_model(), components, data, data)
    loop.train(2)
    assert {"train/loss", "valid/loss"} == loop.metrics.keys()


def test_metrics_of_a_batch_that_is_cut_behind_it():
    """They see the targets of the samples that are left."""
    seen = []

    class See(LoopComponent):
        def on_batch_end(self, loop):
            seen.append((len(loop.scores), len(loop.batch[1])))

    components = [Mixup(n_classes=2), use("batch-schedule", samples={0: 4}), Step(), See()]
    data = ComponentConformance.make_data(2)
    TrainTestLoop(ComponentConformance.make_model(), components, data).train(1)
    assert [(4, 4), (4, 4)] == seen


def test_cutmix_replaces_a_rectangle_and_weighs_by_its_area():
    """Pixels are of two images, and shares of classes are their numbers of pixels."""
    seen = []

    class See(LoopComponent):
        def on_forward_pass(self, loop):
            seen.append(loop.batch)

    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 6)
    loop = TrainTestLoop(torch.nn.Identity(), [Cutmix(n_classes=4, seed=1), See()], None)
    loop.train_data = [(images, torch.arange(4))] * 5
    loop.train(1)
    for n, (mixed, soft) in enumerate(seen):
        _, order, _ = draw(1, n, 1.0, 4)
        own = torch.stack([(mixed[i] == i).float().mean() for i in range(4)])
        shares = torch.zeros(4, 4)
        for i in range(4):
            shares[i, i] += own[i]
            shares[i, order[i]] += 1 - own[i]
        fixed = order == torch.arange(4)  # mixed with itself
        torch.testing.assert_close(shares[~fixed], soft[~fixed])


def test_two_of_them_share_the_batches():
    """A batch that one has mixed stays as it is for the other one."""
    kinds = []

    class See(LoopComponent):
        def on_forward_pass(self, loop):
            images, soft = loop.batch
            kinds.append((bool((images % 1 != 0).any()), len(soft.unique()) > 2))

    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    components = [Mixup(1.0, n_classes=4, probability=0.5), Cutmix(n_classes=4), See()]
    loop = TrainTestLoop(torch.nn.Identity(), components, [(images, torch.arange(4))] * 20)
    loop.train(1)
    n_means = sum(is_mean for is_mean, _ in kinds)
    assert 4 < n_means < 16


def test_a_batch_at_which_a_run_stopped_is_none_of_the_next_run():
    """What one has mixed there does not keep the other from mixing the first batch."""
    are_shares = []

    class Stop(LoopComponent):
        def on_forward_pass(self, loop):
            are_shares.append(loop.batch[1].is_floating_point())
            loop.stop()

    batch = torch.rand(4, 1, 2, 2), torch.arange(4)
    components = [Mixup(n_classes=4), Cutmix(n_classes=4), Stop()]
    loop = TrainTestLoop(torch.nn.Identity(), components, [batch])
    with loop.components.disabled("mixup"):
        loop.train(1)
    loop.components["cutmix"].probability = 0.0
    loop.train(1)
    assert are_shares == [True, True]


def test_targets_that_are_numbers_are_mixed_as_they_are(make_loop):
    """Without classes, floating-point targets have the same weights as inputs."""
    seen = []

    class See(LoopComponent):
        def on_batch_begin(self, loop):
            seen.append(loop.batch)

        def on_train_begin(self, loop):
            loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1)

    x = torch.randn(6, 1)
    loop = TrainTestLoop(torch.nn.Linear(1, 1), [Mixup(0.4), See()], [(x, 2 * x)])
    loop.train(1)
    torch.testing.assert_close(2 * seen[0][0], seen[0][1])


def test_mappings_keep_their_other_items():
    """A batch that is a mapping has mixed inputs and targets, and is not written to."""
    batch = {"inputs": torch.randn(4, 2), "targets": torch.arange(4), "ids": [1, 2, 3, 4]}
    before = batch["inputs"].clone()
    loop = TrainTestLoop(torch.nn.Identity(), [Mixup(n_classes=4)], [batch])
    loop.train(1)
    assert (loop.batch["ids"], (4, 4)) == (batch["ids"], tuple(loop.batch["targets"].shape))
    assert torch.equal(before, batch["inputs"])


def test_validation_sees_the_data_as_they_are(make_loop, recorder):
    """Only training batches are mixed, also where a validation is in mid-epoch."""
    seen = recorder("on_batch_end", lambda loop: loop.is_training or loop.batch[1].dtype)
    data = ComponentConformance.make_data(1)
    make_loop(Mixup(n_classes=2), seen, data=data, valid_data=data).train(1)
    assert [True, torch.int64] == seen.seen


@pytest.mark.parametrize(
    ("component", "data", "message"),
    [
        (Mixup(), (torch.ones(2, 1), torch.ones(2).long()), r"use\('mixup', n_classes=...\)"),
        (Mixup(), (torch.ones(2, 1).long(), torch.ones(2)), "tensor of floating-point numbers"),
        (Mixup(), torch.ones(2, 1), "found no inputs and targets"),
        (Mixup(), (torch.ones(2, 1), [1, 2]), "cannot mix targets"),
        (Cutmix(), (torch.ones(2, 1), torch.ones(2)), r"shape \(2, 1\): they have to be images"),
    ],
)
def test_batches_that_cannot_be_mixed_are_an_error(component, data, message):
    """It says what is wrong with which part of the batch."""
    with pytest.raises(RunError, match=message):
        TrainTestLoop(torch.nn.Identity(), [component], [data]).train(1)


@pytest.mark.parametrize("beyond", [-100, 2])
def test_a_class_beyond_their_number_is_explained(beyond):
    """The error says which it is, and the argument that does not fit."""
    data = [(torch.ones(2, 1), torch.tensor([0, beyond]))]
    message = f"'mixup' found the class {beyond} in .* n_classes=2, .* from 0 to 1"
    with pytest.raises(RunError, match=message):
        TrainTestLoop(torch.nn.Identity(), [Mixup(n_classes=2)], data).train(1)


@pytest.mark.parametrize("cls", [Mixup, Cutmix])
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"alpha": 0}, "alpha is 0"),
        ({"n_classes": 0}, "n_classes is 0"),
        ({"probability": 2}, "probability is 2"),
        ({"seed": 0.5}, "seed is 0.5"),
    ],
)
def test_refuses_unusable_arguments(cls, config, message):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=message):
        cls(**config)


def test_images_of_cutmix_go_through_a_step():
    """The tiny images of the conformance suite train to finite weights."""
    suite = CutmixConformance
    loop = TrainTestLoop(suite.make_model(), [Step(), Cutmix(n_classes=2)], suite.make_data())
    loop.train(2)
    assert all(bool(p.isfinite().all()) for p in loop.model.parameters())


@pytest.mark.parametrize("n_classes", [None, 4])
def test_targets_that_are_shares_already_are_mixed_once(n_classes):
    """Floating-point targets, as of several labels, do not mean that a batch is mixed."""
    seen = []

    class See(LoopComponent):
        def on_forward_pass(self, loop):
            seen.append(loop.batch)

    first = Mixup(n_classes=n_classes, seed=3)
    for components in ([first], [Mixup(n_classes=n_classes, seed=3), Mixup()]):
        data = [(torch.eye(4), torch.eye(4))]
        TrainTestLoop(torch.nn.Identity(), [*components, See()], data).train(1)
    (inputs, targets), (again, _) = seen
    assert not torch.equal(targets, torch.eye(4))
    torch.testing.assert_close((inputs, inputs), (targets, again))


def test_the_fields_of_a_named_tuple_may_be_in_any_order():
    """Inputs and targets are found by their names, and the mixed batch has the same fields."""
    kind = namedtuple("kind", "targets inputs weights")
    batch = kind(torch.tensor([1, 0]), torch.ones(2, 3), None)
    assert (id(batch.inputs), id(batch.targets)) == (*map(id, parts(batch, "mixup")),)
    assert kind("soft", "mixed", None) == with_parts(batch, "mixed", "soft")


class Plain:
    """A batch with attributes."""

    def __init__(self, inputs, targets, weights):
        self.inputs, self.targets, self.weights = inputs, targets, weights


@pytest.mark.parametrize(
    "kind",
    [
        dataclasses.make_dataclass("Frozen", ["weights", "inputs", "targets"], frozen=True),
        dataclasses.make_dataclass("Slotted", ["weights", "inputs", "targets"], slots=True),
        namedtuple("named", "weights inputs targets"),
        Plain,
    ],
    ids=lambda kind: kind.__name__,
)
@pytest.mark.parametrize("cls", [Mixup, Cutmix])
def test_batches_that_supervised_takes_are_mixed(cls, kind):
    """Objects with inputs and targets are, as pairs are, and keep their type and the rest."""
    images, classes = torch.rand(6, 1, 4, 4), torch.arange(6) % 2
    seen = []

    class See(LoopComponent):
        def on_forward_pass(self, loop):
            seen.append(loop.batch)

    for batch in ((images, classes), kind(inputs=images, targets=classes, weights="weights")):
        TrainTestLoop(torch.nn.Identity(), [cls(n_classes=2), See()], [batch]).train(1)
    (inputs, targets), mixed = seen
    assert not torch.equal(inputs, images)
    assert (kind, "weights") == (type(mixed), mixed.weights)
    assert torch.equal(inputs, mixed.inputs)
    assert torch.equal(targets, mixed.targets)
    assert batch.inputs is images  # the data are as they were
