"""C2: tensors of every layout and type are saved and loaded, or refused when they are saved."""

from __future__ import annotations

import warnings

import pytest
import torch
from loops import act_at
from recording import StateRecorder
from states import Holder, make_data, make_model, make_step_loop, take_state, through_file

from ttl_core import StateError
from ttl_core.state.snapshot import snapshot

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*(beta|prototype|deprecated|quantiz).*"),
]

COMPLEX = torch.tensor([1 + 2j, 2j])


def make_kinds():
    """Return tensors of every kind that torch.load(weights_only=True) accepts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eye = torch.eye(4)
        repeated = torch.sparse_coo_tensor(torch.tensor([[0, 0]]), torch.ones(2), (3,))
        by_channel = torch.ones(3), torch.zeros(3)
        return {
            "COO": eye.to_sparse(),
            "COO that is not coalesced": repeated,
            "CSR": eye.to_sparse_csr(),
            "CSC": eye.to_sparse_csc(),
            "BSR": eye.to_sparse_bsr((2, 2)),
            "BSC": eye.to_sparse_bsc((2, 2)),
            "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            "quantized by channel": torch.quantize_per_channel(
                torch.ones(3, 2), *by_channel, 0, torch.qint8
            ),
            "complex": COMPLEX,
            "conjugate": COMPLEX.conj(),
            "negative": COMPLEX.conj().imag,
            "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "jagged": torch.nested.nested_tensor(
                [torch.ones(2), torch.ones(3)], layout=torch.jagged
            ),
            "zero-size": torch.zeros(0, 3),
            "expanded": torch.ones(1, 3).expand(4, 3),
            "windows": torch.arange(5.0).unfold(0, 3, 1),
            "every second": torch.arange(10.0)[::2],
            "bfloat16": torch.ones(2, dtype=torch.bfloat16),
            "float8": torch.ones(2).to(torch.float8_e4m3fn),
            "uint16": torch.ones(2, dtype=torch.uint16),
            "complex32": torch.ones(2, dtype=torch.complex32),
            "no dimensions": torch.tensor(1.5),
        }


KINDS = make_kinds()
NESTED = {"nested", "jagged"}
REFUSED = {
    "meta": (torch.ones(3, device="meta"), "one with values: this one is on the meta device, and "),
}


def dense(tensor):
    """Return what a tensor holds, as plain tensors."""
    if tensor.is_nested:
        return [part.clone() for part in tensor.unbind()]
    if tensor.is_quantized:
        return [tensor.dequantize(), tensor.int_repr()]
    if tensor.layout is not torch.strided:
        return [tensor.to_dense()]
    plain = tensor.resolve_conj().resolve_neg()
    return [plain.to(torch.complex64 if plain.is_complex() else torch.float64)]


def is_equal(one, other):
    """Tell whether two tensors of one kind hold the same."""
    kinds = [(t.layout, t.dtype, t.is_nested, t.is_quantized) for t in (one, other)]
    return kinds[0] == kinds[1] and all(map(torch.equal, dense(one), dense(other)))


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_of_every_kind_is_saved_and_loaded(kind, copy):
    """C2: as state of a component, through a file, with and without a copy."""
    recorder = StateRecorder(copy=copy)
    loop = make_step_loop(Holder(KINDS[kind]), recorder)
    loop.train(1)
    state = through_file(recorder.states[0])
    resumed = make_step_loop(holder := Holder())
    resumed.load_state_dict(state)
    resumed.train(1)
    assert is_equal(KINDS[kind], holder.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_into_an_earlier_one_of_every_kind_is_the_same(kind):
    """C2: whether the earlier copy was taken here or comes from a file."""
    value = {"a": KINDS[kind]}
    assert is_equal(value["a"], snapshot(value, snapshot(value))["a"])
    assert is_equal(value["a"], snapshot(value, through_file(value))["a"])


class WithBuffer(torch.nn.Sequential):
    """A model with a buffer."""

    def __init__(self, value):
        super().__init__(*make_model())
        self.register_buffer("kept", value)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - NESTED))
def test_a_buffer_of_every_kind_is_resumed(kind):
    """C2: as a buffer of the model, also where the new model has other values or other zeros."""
    value = KINDS[kind]
    state = through_file(take_state(model=WithBuffer(value), index=1))
    others = {
        torch.sparse_coo: torch.zeros(value.shape).to_sparse(),
        torch.sparse_csr: torch.ones(4, 4).to_sparse_csr(),
    }
    other = others.get(value.layout, value)
    loop = make_step_loop(model=WithBuffer(other))
    loop.load_state_dict(state)
    loop.train(1)
    assert is_equal(value, loop.model.kept)


@pytest.mark.parametrize("kind", sorted(NESTED))
def test_a_nested_buffer_is_refused_when_it_is_saved(kind):
    """C2: torch cannot load a model with one."""
    with pytest.raises(StateError, match=r"model\.kept is a nested tensor\. Keep it as a padded"):
        take_state(model=WithBuffer(KINDS[kind]))


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_not_be_resumed_is_refused_when_it_is_saved(kind, copy):
    """C2: before training and at a save, with and without a copy."""
    value, advice = REFUSED[kind]
    for point in ("on_train_begin", "on_safe_point"):
        action = act_at(point, lambda loop: loop.state_dict(copy=copy, allow_unsafe=True))
        with pytest.raises(StateError) as caught:
            make_step_loop(Holder(value), action).train(1)
        assert f"holder.best is torch.Tensor: return {advice}" in str(caught.value)


class BadItem:
    """An object whose item() is something else."""

    def item(self, index):
        return index


def test_an_item_that_fails_does_not_hide_the_error():
    """A10: the message is about the value, whatever its attributes do."""
    with pytest.raises(StateError) as caught:
        take_state(Holder(BadItem()))
    expected = "holder.best is tests.unit.test_state_tensors.BadItem: return plain Python values"
    assert expected.removeprefix("holder.best is tests.unit.") in str(caught.value)


# -- models that are stricter in torch than here --------------------------------------------


class Lazy(torch.nn.Sequential):
    """A model whose first layer finds out its size."""

    def __init__(self):
        super().__init__(torch.nn.LazyLinear(8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def test_a_lazy_layer_is_saved_once_it_is_initialized():
    """A10: before the first batch a check passes; afterwards runs resume, from a lazy model too."""
    check = act_at("on_train_begin", lambda loop: loop.state_dict(allow_unsafe=True))
    recorder = StateRecorder()
    torch.manual_seed(0)
    full = make_step_loop(check, recorder, model=Lazy())
    full.train(2)
    for state in recorder.states:
        resumed = make_step_loop(StateRecorder(), model=Lazy())
        resumed.load_state_dict(through_file(state))
        resumed.train(2)
        assert torch.equal(full.model[0].weight, resumed.model[0].weight)


def test_a_lazy_layer_that_was_never_used_is_refused_when_it_is_saved():
    """A10: the message says what it is, and when it can be saved."""
    model = make_model()
    model.unused = torch.nn.LazyLinear(2)
    model.forward = lambda inputs: model[2](model[1](model[0](inputs)))
    with pytest.raises(StateError) as caught:
        take_state(model=model)
    expected = (
        "model.unused.weight is torch.nn.parameter.UninitializedParameter: return it after the "
        "first batch, which initializes its layer"
    )
    assert expected in str(caught.value)


class Resizing(torch.nn.Module):
    """An observer whose buffer has the size of what it saw, as those of quantization have."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.empty(0))

    def forward(self, inputs):
        if self.training:
            self.seen = inputs.detach().amax(0)
        return inputs

    def _load_from_state_dict(self, state, prefix, *rest):
        self.seen = torch.empty_like(state[f"{prefix}seen"])
        super()._load_from_state_dict(state, prefix, *rest)


def test_a_module_that_resizes_while_loading_is_resumed():
    """A10: what a module can load is left to it."""

    def make():
        return torch.nn.Sequential(Resizing(), *make_model())

    state = take_state(model=make())
    loop = make_step_loop(model=make())
    loop.load_state_dict(state)
    loop.test(make_data(1))
    assert torch.equal(state["model"]["0.seen"], loop.model[0].seen)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_quantization_aware_training_is_resumed():
    """A10: the observers of torch.ao.quantization by channel, from every safe point."""
    quantization = pytest.importorskip("torch.ao.quantization")

    def make():
        model = make_model()
        observer = quantization.default_per_channel_weight_fake_quant
        return torch.nn.Sequential(model[0], observer(ch_axis=1), *model[1:])

    recorder = StateRecorder()
    full = make_step_loop(recorder, model=make())
    full.train(1)
    for state in recorder.states:
        resumed = make_step_loop(model=make())
        resumed.load_state_dict(state)
        resumed.train(1)
        for name, tensor in full.model.state_dict().items():
            assert torch.equal(tensor, resumed.model.state_dict()[name])


def test_what_a_resizing_module_cannot_load_is_an_error():
    """A10: torch's error has the names; other parts of the model are checked as before."""
    state = take_state(model=torch.nn.Sequential(Resizing(), *make_model()))
    wider = torch.nn.Sequential(Resizing(), *make_model()[:2], torch.nn.Linear(8, 3))
    loop = make_step_loop(model=wider)
    loop.load_state_dict(state)
    with pytest.raises(StateError, match=r"does not fit the state: 3\.bias has shape \(3,\)"):
        loop.train(1)
