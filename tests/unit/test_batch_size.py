"""loop.batch_size: by default the length of the first tensor of the batch."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from loops import make_component, make_loop
from recording import Recorder

from ttl_core import UnsetVariableError

Pair = namedtuple("Pair", ["data", "labels"])
THREE = torch.zeros(3, 5)


@dataclass(slots=True)
class Slotted:
    """A batch without a __dict__."""

    data: torch.Tensor


def make_cycle():
    """Return a batch that refers to itself before its tensor."""
    batch = SimpleNamespace()
    batch.itself, batch.data = batch, THREE
    return batch


@pytest.mark.parametrize(
    "batch",
    [
        THREE,
        (THREE, torch.zeros(7)),
        [["text", [THREE]]],
        {"text": "a", "data": {"ids": THREE}},
        Pair(data=THREE, labels=torch.zeros(7)),
        SimpleNamespace(id=1, data=(THREE,)),
        (torch.tensor(1.0), THREE),
        Slotted(THREE),
        make_cycle(),
    ],
    ids=["tensor", "tuple", "list", "dict", "namedtuple", "object", "scalar", "slots", "cycle"],
)
def test_the_batch_size_is_the_length_of_the_first_tensor(batch):
    """The first tensor is found at any depth of the batch."""
    recorder = Recorder("on_batch_begin", "batch_size")
    make_loop(recorder, train_data=[batch], valid_data=None).train(n_epochs=1)
    assert [3] == recorder.seen


def test_a_component_sets_the_size_of_one_batch():
    """A batch_size that a component sets holds for one batch."""
    setting = make_component(
        on_batch_begin=lambda loop: loop.batch_num or setattr(loop, "batch_size", 99),
    )
    recorder = Recorder("on_batch_end", "batch_size")
    make_loop(setting, recorder, train_data=[THREE, THREE], valid_data=[THREE]).train(n_epochs=1)
    assert [99, 3, 99] == recorder.seen


def test_a_size_that_is_set_between_batches_has_no_effect():
    """A batch_size that is set in on_epoch_begin is not that of a later batch."""
    setting = make_component(
        on_epoch_begin=lambda loop: loop.epoch_num and setattr(loop, "batch_size", 99)
    )
    recorder = Recorder("on_batch_end", "batch_size")
    make_loop(setting, recorder, train_data=[THREE, THREE], valid_data=None).train(n_epochs=2)
    assert [3, 3, 3, 3] == recorder.seen


def test_a_batch_without_a_tensor_has_no_size():
    """The error says that a component has to set batch_size, and where."""
    recorder = Recorder("on_batch_end", "batch_size")
    with pytest.raises(UnsetVariableError, match=r"'batch_size' .* set by a component, in on_b"):
        make_loop(recorder, train_data=["text"]).train(n_epochs=1)
