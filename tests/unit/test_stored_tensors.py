"""Tensors of a state whose parts are in the files of several processes."""

import copy

import pytest
import torch

from ttl_core import (
    LoopComponent,
    StateError,
    TrainTestLoop,
    attach_parts,
    distributed_like,
    map_nested,
    whole_tensor,
)
from ttl_core.shards import Slice, StoredTensor
from ttl_core.testing import Step, tiny_data, tiny_model

WHOLE = torch.arange(35.0).view(7, 5)
PARTS = [
    (Slice((0, 0), (3, 5)), WHOLE[:3]),
    (Slice((3, 0), (4, 2)), WHOLE[3:, :2]),
    (Slice((3, 2), (4, 3)), WHOLE[3:, 2:]),
]


@pytest.fixture
def stored():
    """A tensor in three parts."""
    return StoredTensor((7, 5), torch.float32, PARTS)


@pytest.mark.parametrize(
    "rows_and_columns", [((0, 7), (0, 5)), ((2, 5), (1, 4)), ((7, 7), (0, 5)), ((6, 7), (4, 5))]
)
def test_reads_any_slice(stored, rows_and_columns):
    """Also of several parts, and none."""
    (top, bottom), (left, right) = rows_and_columns
    found = stored.read(Slice((top, left), (bottom - top, right - left)))
    assert torch.equal(WHOLE[top:bottom, left:right], found)


def test_operations_see_all_of_it_and_return_plain_tensors(stored):
    """So that code that does not know of it works."""
    target = torch.zeros(7, 5)
    target.copy_(stored)
    for found in (target, stored + 0, stored.clone(), stored.detach(), whole_tensor(stored)):
        assert type(found) is torch.Tensor
        assert torch.equal(WHOLE, found)
    assert torch.equal(WHOLE, distributed_like(stored, target))
    assert torch.equal(torch.cat([WHOLE, WHOLE]), torch.cat([stored, stored]))


def test_it_cannot_be_changed(stored):
    """Which would not reach the file; a copy is the same one."""
    with pytest.raises(RuntimeError, match="take whole_tensor"):
        stored.add_(1)
    assert stored is copy.deepcopy(stored)


# -- states ---------------------------------------------------------------------------------


def in_two_files(state):
    """Return a state with descriptions in place of tensors, and the files of two processes."""
    files = {0: bytearray(), 1: bytearray()}

    def add(tensor):
        if not isinstance(tensor, torch.Tensor) or tensor.ndim == 0:
            return tensor
        n = (len(tensor) + 1) // 2
        parts = []
        for rank, (start, part) in enumerate([(0, tensor[:n]), (n, tensor[n:])]):
            if part.numel():
                first = [start] + [0] * (tensor.ndim - 1)
                parts.append([rank, len(files[rank]), first, [*part.shape]])
                files[rank] += part.contiguous().numpy().tobytes()
                files[rank] += bytes(-len(files[rank]) % 64)
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {"distributed tensor": {"shape": [*tensor.shape], "dtype": dtype, "parts": parts}}

    kinds = ("model", "variables", "components")
    return {**state, **{kind: map_nested(add, state[kind]) for kind in kinds}}, files


class Keep(LoopComponent):
    """A state that is kept as it was loaded, and the one at a safe point."""

    def __init__(self):
        self.kept = torch.arange(3.0)

    def on_optim_step(self, loop):
        self.kept += 1

    def on_safe_point(self, loop):
        self.state = loop.state_dict()

    def state_dict(self):
        return {"kept": self.kept}

    def load_state_dict(self, state):
        self.kept = state["kept"]


def test_a_run_in_one_process_resumes_from_parts():
    """Model, optimizer and a component that keeps what it is given, to the same bits."""

    def make_loop():
        return TrainTestLoop(tiny_model(), [Step(), Keep()], tiny_data())

    whole, first, second = make_loop(), make_loop(), make_loop()
    whole.train(3)
    first.train(2)
    second.load_state_dict(attach_parts(*in_two_files(first.components["keep"].state)))
    second.train(3)
    expected, found = (loop.components["keep"].state for loop in (whole, second))
    for kind in ("model", "variables", "components"):
        assert map_nested(_numbers, expected[kind]) == map_nested(_numbers, found[kind])


def _numbers(value):
    return value.tolist() if isinstance(value, torch.Tensor) else value


FORGED = {
    "type": {"dtype": "nothing"},
    "attribute that is no type": {"dtype": "nn"},
    "rank": {"parts": [[7, 0, [0], [3]]]},
    "end of the file": {"parts": [[0, 64, [0], [3]]]},
    "start": {"parts": [[0, 0, [-1], [3]]]},
    "size": {"parts": [[0, 0, [1], [3]]]},
    "missing part": {"parts": [[0, 0, [0], [2]]]},
    "other dimensions": {"parts": [[0, 0, [0, 0], [3, 1]]]},
    "no list": {"parts": 3},
}


@pytest.mark.parametrize("name", FORGED)
def test_descriptions_that_do_not_fit_are_refused(name):
    """With what is wrong, before anything is loaded."""
    good = {"shape": [3], "dtype": "uint8", "parts": [[0, 0, [0], [3]]]}
    files = {0: bytearray(b"abc")}
    assert [97, 98, 99] == attach_parts({"a": {"distributed tensor": good}}, files)["a"].tolist()
    with pytest.raises(StateError, match="cannot be put together from its parts"):
        attach_parts({"a": {"distributed tensor": {**good, **FORGED[name]}}}, files)
