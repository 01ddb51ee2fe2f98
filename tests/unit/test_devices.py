"""Devices that arguments name."""

import pytest
import torch

from ttl_core import ArgumentError, find_device


@pytest.mark.parametrize("value", ["cpu", torch.device("cpu")], ids=repr)
def test_a_device_is_found_by_its_name_or_as_it_is(value):
    """As torch takes it."""
    assert torch.device("cpu") == find_device("device", value)


@pytest.mark.parametrize("is_there", [True, False], ids=["accelerator", "none"])
def test_auto_is_an_accelerator_if_there_is_one(monkeypatch, is_there):
    """Else the CPU."""
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: is_there)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: cuda)
    assert (cuda if is_there else torch.device("cpu")) == find_device("device", "auto")


@pytest.mark.parametrize("value", ["gpu", "CUDA", "cuda:first", "", None, True, 0.5], ids=repr)
def test_what_is_no_device_is_refused_with_what_is_one(value):
    """With what to write for an accelerator."""
    with pytest.raises(ArgumentError) as caught:
        find_device("device", value)
    assert (
        f"device is {value!r}, but has to be a device of torch, as 'cuda', 'cuda:0', 'mps' or "
        "'cpu'. Write device='auto' for an accelerator if there is one, else the CPU"
    ) == str(caught.value)
