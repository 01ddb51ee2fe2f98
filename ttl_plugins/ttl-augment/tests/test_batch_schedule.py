"""The behaviour of `batch-schedule`."""

import dataclasses

import pytest
import torch
from ttl_augment import BatchSchedule

from ttl_core import ArgumentError, RunError, TrainTestLoop, use
from ttl_core.testing import ComponentConformance


@pytest.mark.parametrize("every", [1, 2])
def test_is_the_loop_by_hand(make_loop, every):
    """Weights are those of the first samples of each batch, by optimization steps."""
    schedule = BatchSchedule(samples={0: 2, 3: 4})
    loop = make_loop(schedule, use("grad-accumulation", every=every))
    loop.train(2)
    model = ComponentConformance.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    n_steps = 0
    for i, (x, y) in enumerate(loop.train_data * 2):
        n = 2 if n_steps < 3 else 4
        (torch.nn.functional.cross_entropy(model(x[:n]), y[:n]) / every).backward()
        if (i + 1) % every == 0:
            optimizer.step()
            scheduler.step()
            model.zero_grad()
            n_steps += 1
    torch.testing.assert_close(model.state_dict(), loop.model.state_dict())


def test_the_weight_of_a_batch_follows(make_loop, recorder):
    """`loop.batch_size` is the number of samples that are used; validation sees whole batches."""
    sizes = recorder("on_batch_end", lambda loop: loop.batch_size)
    data = ComponentConformance.make_data(3)
    make_loop(BatchSchedule({0: 2, 2: 5}), sizes, data=data, valid_data=data[:1]).train(1)
    assert [2, 2, 5, 6] == sizes.seen


@dataclasses.dataclass
class Samples:
    """A batch that is neither a tensor, nor a mapping, list or tuple."""

    inputs: torch.Tensor


@pytest.mark.parametrize(
    ("config", "batch", "message"),
    [
        ({"samples": {0: 2}}, Samples(torch.ones(4, 8)), "no samples to cut in .* Samples"),
        ({"length": {0: 2}}, Samples(torch.ones(4, 8)), "no samples to cut in .* Samples"),
        ({"length": {0: 2}}, (torch.ones(4), torch.ones(4)), "no sequences, .* tuple"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_an_error(config, batch, message):
    """It would else be used as a whole, and nothing would show it."""
    loop = TrainTestLoop(torch.nn.Identity(), [BatchSchedule(**config)], [batch])
    with pytest.raises(RunError, match=f"'batch-schedule' found {message}"):
        loop.train(1)


IMAGE, SENTENCE = torch.ones(3, 4, 4), torch.ones(5)


@pytest.mark.parametrize(
    "batch",
    [
        [(IMAGE, 1)] * 4,
        [(IMAGE, torch.tensor(1))] * 4,
        [{"inputs": SENTENCE, "targets": SENTENCE}] * 4,
        [SENTENCE, SENTENCE[:2], SENTENCE, SENTENCE],
        ((IMAGE, SENTENCE), (IMAGE, SENTENCE), (IMAGE, SENTENCE)),
    ],
)
def test_a_list_of_samples_is_cut_itself(recorder, batch):
    """Each of the samples stays as it is."""
    batches = recorder("on_batch_begin", lambda loop: loop.batch)
    loop = TrainTestLoop(torch.nn.Identity(), [BatchSchedule({0: 2}), batches], [batch])
    loop.train(1)
    (cut,) = batches.seen
    assert 2 == len(cut)
    assert all(one is other for one, other in zip(cut, batch[:2], strict=True))


@pytest.mark.parametrize(
    "batch",
    [
        [torch.ones(4, 3), torch.ones(4)],
        [[torch.ones(4, 3), torch.ones(4)], [torch.ones(4, 3), torch.ones(4)]],
        (torch.ones(4, 3), torch.ones(4, 3), torch.ones(4, 3)),
        ([torch.ones(4)] * 3, [torch.ones(4)] * 3),
    ],
)
def test_a_list_of_tensors_of_all_samples_is_no_list_of_samples(recorder, batch):
    """Each of the tensors is cut."""
    sizes = recorder("on_batch_begin", lambda loop: loop.batch_size)
    loop = TrainTestLoop(torch.nn.Identity(), [BatchSchedule({0: 2}), sizes], [batch])
    loop.train(1)
    assert [2] == sizes.seen


def test_the_length_of_single_samples_is_an_error():
    """They have no second dimension that is surely a sequence."""
    loop = TrainTestLoop(torch.nn.Identity(), [BatchSchedule(length={0: 2})], [[(IMAGE, 1)] * 4])
    with pytest.raises(RunError, match=r"list of samples .* has length=\{0: 2\}"):
        loop.train(1)


def test_sequences_grow(make_loop, recorder):
    """Tensors as long as the longest are cut, in mappings too; others stay."""

    def batch():
        return {
            "inputs": torch.ones(4, 8),
            "targets": torch.ones(4, 8),
            "weights": torch.ones(4, 1),
        }

    shapes = recorder(
        "on_batch_begin", lambda loop: [value.shape[1] for value in loop.batch.values()]
    )
    loop = make_loop(shapes, data=[batch()] * 3)
    loop.components[0] = BatchSchedule(length={0: 2, 1: 4, 2: 8})
    loop.train(1)
    assert [[2, 2, 1], [4, 4, 1], [8, 8, 1]] == shapes.seen


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "neither samples nor length is given"),
        ({"samples": 3}, "samples is 3"),
        ({"samples": {}}, "samples is {}"),
        ({"samples": {1: 3}}, "without step 0"),
        ({"length": {0: 0}}, r"length\[0\] is 0"),
        ({"length": {0.5: 1}}, "a step of length is 0.5"),
    ],
)
def test_refuses_unusable_arguments(config, message):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=message):
        BatchSchedule(**config)
