"""The batch size that is found fits, the next one does not, and the run is one of that size."""

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, TensorDataset
from ttl_trials import BatchSizeFinder

from ttl_core import ArgumentError, LoopComponent, RunError, SeededSampler, TrainTestLoop, use
from ttl_core.testing import Step, tiny_data

N = 48  # samples
MEGABYTE = 10**6


class Room(LoopComponent):
    """Memory of a device for some number of samples, simulated: more are an error of torch."""

    def __init__(self, n):
        self.n = n

    def on_forward_pass(self, loop):
        if len(loop.batch[0]) > self.n:
            raise torch.OutOfMemoryError(f"no memory for {len(loop.batch[0])} samples")


class Noise(LoopComponent):
    """Adds random numbers to the batch, as augmentation does."""

    def on_batch_begin(self, loop):
        inputs, targets = loop.batch
        loop.batch = inputs + torch.rand_like(inputs), targets


class Sizes(LoopComponent):
    """A record of the sizes of training batches."""

    def __init__(self):
        self.sizes = []

    def on_batch_begin(self, loop):
        self.sizes.append(len(loop.batch[0]))

    def fork(self):
        return None


class KeepState(LoopComponent):
    """A record of the state after some number of steps."""

    def __init__(self, step):
        self.step, self.state = step, None

    def on_safe_point(self, loop):
        if loop.global_step == self.step:
            self.state = loop.state_dict()

    def fork(self):
        return None


def samples():
    """Return the samples of the tiny data."""
    return TensorDataset(*map(torch.cat, zip(*tiny_data(N // 6), strict=True)))


def loader(batch_size=2, **options):
    """Return data that are shuffled, by global random numbers unless there is a sampler."""
    data = samples()
    options = options or {"shuffle": True}
    if options.get("sampler") == "seeded":
        options = {"sampler": SeededSampler(data, seed=3)}
    return DataLoader(data, batch_size=batch_size, **options)


def make_loop(*components, data=None):
    """Return a loop whose steps draw random numbers, and its record of the sizes of batches."""
    torch.manual_seed(1)
    sizes = Sizes()
    items = [Step(), Noise(), *components, sizes]
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 2))
    loop = TrainTestLoop(model, items, loader() if data is None else data)
    return loop, sizes.sizes


def finder(**config):
    """Return a spec of it with a limit that errors of the step are below."""
    return use("batch-size-finder", memory_limit="1TB", **config)


@pytest.mark.parametrize("room", [1, 7, 31, 1000])
def test_the_largest_size_with_room_is_found(room):
    """By doubling, then bisecting, from a size that fits or not; no size is above the data's."""
    loop, sizes = make_loop(Room(room), finder())
    loop.train(n_epochs=1)
    assert min(room, N) == loop.components["batch-size-finder"].batch_size == sizes[0]


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": "seeded"}], ids=str)
def test_the_run_is_one_of_that_size(options):
    """It ends in the bits of a run whose loader had it from the start, random numbers included."""
    loop, sizes = make_loop(Room(10), finder(), data=loader(**options))
    loop.train(n_epochs=2)
    next_number = torch.rand(())
    plain, expected_sizes = make_loop(Room(10), data=loader(10, **options))
    plain.train(n_epochs=2)
    assert (expected_sizes, torch.rand(())) == (sizes, next_number)
    assert (plain.global_step, plain.n_optim_steps) == (loop.global_step, loop.n_optim_steps)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, loop.model.state_dict()[name]), name


def test_a_warmup_fits_the_run_not_the_trials():
    """One of more steps than a trial has is no warning, which tests take for an error."""
    loop, _ = make_loop(Room(4), finder(), use("lr-warmup", n_steps=5))
    loop.train(n_epochs=1)
    assert (4, 12) == (loop.components["batch-size-finder"].batch_size, loop.global_step)


def test_memory_is_measured():
    """By how much the memory of a process grows: 160 MB more are 20 samples of 8 MB each.

    They are in one tensor, which is too large for memory that this process has kept from before.
    What the libraries take, some 16 MB, is little beside them.
    """

    class EightMegabytesASample(LoopComponent):
        def on_forward_pass(self, loop):
            torch.ones(len(loop.batch[0]), 2 * MEGABYTE)  # of 4 bytes each

    make_loop(EightMegabytesASample())[0].train(n_epochs=1)  # what first uses take is there
    found = []
    for limit in ("160MB", "320MB"):
        loop, _ = make_loop(EightMegabytesASample(), use("batch-size-finder", memory_limit=limit))
        loop.train(n_epochs=1)
        found.append(loop.components["batch-size-finder"].batch_size)
    assert found[1] - found[0] == pytest.approx(20, abs=4)
    assert found[1] <= 40


def test_a_device_is_tried_in_the_process():
    """Where no limit is given, errors of the device decide; here of the device "meta"."""
    collated = DataLoader(
        samples(),
        batch_size=2,
        collate_fn=lambda rows: [torch.stack(c).to("meta") for c in zip(*rows, strict=True)],
    )
    loop, _ = make_loop(Room(3), use("batch-size-finder"), data=collated)
    loop.model.to("meta")
    loop.components.remove("noise")
    loop.train(n_epochs=1)
    assert loop.components["batch-size-finder"].batch_size == 3


def test_accumulation_keeps_the_effective_size():
    """The size is a divisor of it, and each step is made of that many samples."""
    loop, sizes = make_loop(
        Room(10), finder(effective_batch_size=24), use("grad-accumulation", every=1)
    )
    loop.train(n_epochs=1)
    assert loop.components["grad-accumulation"].every == 3
    assert (loop.global_step, loop.n_optim_steps, sizes) == (2, 2, [8] * 6)


@pytest.mark.parametrize("step", [2, 4], ids=["inside an epoch", "between epochs"])
def test_a_resumed_run_has_the_size_of_its_state(step):
    """Without a search; it ends in the bits of the run that was not interrupted."""
    seeded = {"sampler": "seeded"}
    accumulation = use("grad-accumulation", every=1)
    keep = KeepState(step)
    specs = [finder(effective_batch_size=24), accumulation]
    loop, _ = make_loop(Room(6), *specs, keep, data=loader(**seeded))
    loop.train(n_epochs=3)
    resumed, sizes = make_loop(Room(5), *specs, KeepState(0), data=loader(**seeded))
    resumed.components.disable("room")  # a search would find another size
    resumed.load_state_dict(keep.state, ignore=["room"])
    resumed.train(n_epochs=3)
    assert {6} == set(sizes)
    assert loop.global_step == resumed.global_step == 6
    for name, value in loop.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_it_searches_once():
    """A second train() has the size of the first."""
    loop, sizes = make_loop(Room(7), finder())
    loop.train(n_epochs=1)
    loop.components.disable("room")
    loop.train(n_epochs=1)
    assert {7, N % 7} == set(sizes)


class Numbers(IterableDataset):
    def __iter__(self):
        return iter(samples())


def test_a_stream_has_a_size_too():
    """It takes the largest one to try."""
    data = DataLoader(Numbers(), batch_size=2)
    loop, sizes = make_loop(Room(4), finder(largest=8), data=data)
    loop.train(n_epochs=1)
    assert sizes == [4] * 12


def test_a_batch_sampler_of_ones_own_has_a_size():
    """Where it has a `batch_size`, as torch's."""
    data = samples()
    batches = BatchSampler(SeededSampler(data), batch_size=2, drop_last=True)
    loop, sizes = make_loop(Room(4), finder(), data=DataLoader(data, batch_sampler=batches))
    loop.train(n_epochs=1)
    assert sizes == [4] * 12


@pytest.mark.parametrize(
    ("data", "config", "says"),
    [
        (tiny_data(3), {}, "are a list, of which no batch size can be set"),
        (DataLoader(samples(), batch_size=None), {}, "has no batch sampler, without"),
        (DataLoader(samples(), batch_sampler=[[0, 1]]), {}, "has a list, without a batch_size"),
        (DataLoader(Numbers(), batch_size=2), {}, "are a stream. Give one: largest=1024"),
        (None, {"effective_batch_size": 8}, "'grad-accumulation', which keeps it"),
        (None, {"memory_limit": None}, "as 'memory_limit=\"8GiB\"'"),
    ],
)
def test_what_has_no_size_is_refused(data, config, says):
    """Before training, with what to give instead."""
    config = {"memory_limit": "1TB"} | config
    loop, sizes = make_loop(use("batch-size-finder", **config), data=data)
    with pytest.raises(ArgumentError, match=says):
        loop.train(n_epochs=1)
    assert sizes == []


@pytest.mark.parametrize(
    "config",
    [
        {"memory_limit": "much"},
        {"memory_limit": 0},
        {"memory_limit": "2 gigs"},
        {"effective_batch_size": 0},
        {"largest": 1.5},
        {"without": "ema"},
    ],
    ids=str,
)
def test_unusable_arguments_are_refused(config):
    """When it is created."""
    with pytest.raises(ArgumentError):
        BatchSizeFinder(**config)


def test_no_room_at_all_is_an_error():
    """It says what there is not even room for."""
    loop, _ = make_loop(Room(0), finder())
    with pytest.raises(RunError, match="not even a batch of one sample"):
        loop.train(n_epochs=1)


def test_another_error_of_a_trial_is_shown():
    """It is not taken for too little memory."""

    class Fail(LoopComponent):
        def on_forward_pass(self, loop):
            raise ZeroDivisionError("the step is wrong")

    loop, _ = make_loop(Fail(), finder())
    with pytest.raises(RunError, match="has failed: ZeroDivisionError: the step is wrong"):
        loop.train(n_epochs=1)
