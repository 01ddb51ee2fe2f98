"""Seeding, and deterministic computation."""

import os
import random

import numpy
import pytest
import torch
from torch.utils.data import DataLoader
from ttl_run import Seed, seed_all

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, use


class Draw(LoopComponent):
    """A component that draws from each source of random numbers."""

    def __init__(self):
        self.drawn = []

    def on_batch_end(self, loop):
        self.drawn.append((random.random(), numpy.random.rand(), torch.rand(1).item()))


def drawn(seed, n_trains=1, data=(0, 1)):
    """Return what a run draws."""
    draw = Draw()
    loop = TrainTestLoop(torch.nn.Identity(), [use("seed", seed=seed), draw], data)
    for _ in range(n_trains):
        loop.train(1)
    return draw.drawn


def test_each_source_is_seeded():
    """Two runs with a seed draw the same numbers, and with another one others."""
    assert drawn(1) == drawn(1)
    assert not set(sum(drawn(1), ())) & set(sum(drawn(2), ()))


def test_a_second_train_continues():
    """It does not draw the same numbers again."""
    assert 4 == len(set(drawn(1, n_trains=2)))


def test_seed_all_seeds_alike():
    """What is drawn after it is what the run of a loop draws."""
    seed_all(1)
    expected = [(random.random(), numpy.random.rand(), torch.rand(1).item())]
    assert expected == drawn(1, data=[0])


class Numbers(torch.utils.data.Dataset):
    """Data of random numbers."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return random.random(), numpy.random.rand(), torch.rand(1).item()


def test_workers_are_seeded():
    """All three sources, differently in each worker."""

    class Keep(LoopComponent):
        def on_batch_end(self, loop):
            seen.append(tuple(value.item() for value in loop.batch))

    runs = []
    for _ in range(2):
        seen = []
        loader = DataLoader(Numbers(), 1, num_workers=2, multiprocessing_context="fork")
        TrainTestLoop(torch.nn.Identity(), [Seed(1), Keep()], loader).train(1)
        runs.append(seen)
    assert runs[0] == runs[1]
    assert 12 == len(set(sum(runs[0], ())))


def switches():
    """Return the switches of torch for determinism."""
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )


@pytest.mark.parametrize(("deterministic", "warn_only"), [(True, True), ("strict", False)])
def test_torch_is_deterministic_while_a_run_is_under_way(monkeypatch, deterministic, warn_only):
    """The switches are restored, also after a failure; cuBLAS is told."""

    class Look(LoopComponent):
        def on_batch_end(self, loop):
            seen.append(switches())
            raise ValueError("bad")

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before, seen = switches(), []
    components = [Seed(1, deterministic=deterministic), Look()]
    with pytest.raises(ValueError, match="bad"):
        TrainTestLoop(torch.nn.Identity(), components, [0]).train(1)
    assert [(True, warn_only, True, False)] == seen
    assert before == switches()
    assert ":4096:8" == os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_it_says_where_cuda_is_initialized_too_early(monkeypatch, caplog):
    """What is set then may come too late."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    TrainTestLoop(torch.nn.Identity(), [Seed(1, deterministic=True)], [0]).train(1)
    assert "as CUDA was initialized before CUBLAS_WORKSPACE_CONFIG was set" in caplog.text


def test_it_says_what_data_may_change(caplog):
    """A worker_init_fn may seed anew; batches may come in any order."""
    loader = DataLoader([0], num_workers=2, worker_init_fn=print, in_order=False)
    loop = TrainTestLoop(torch.nn.Identity(), [Seed(1, deterministic=True)], loader)
    loop.components.append(Stop())
    loop.train(1)
    assert "seed: train_data may not be deterministic: its worker_init_fn runs" in caplog.text
    assert "in_order=False" in caplog.text


class Stop(LoopComponent):
    def on_train_begin(self, loop):
        loop.stop()


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "1", True])
def test_an_unusable_seed_is_refused(seed):
    """As NumPy refuses it, but before the run."""
    with pytest.raises(ArgumentError, match="seed is"):
        Seed(seed)
