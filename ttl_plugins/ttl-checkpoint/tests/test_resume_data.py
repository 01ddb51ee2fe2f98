"""A run resumes to the same bits with data of every type, or says at once that it cannot."""

import contextlib
import itertools
import random
from functools import partial

import numpy as np
import pytest
import torch
from resume_comparison import (
    LoopState,
    NaiveState,
    ResumableStream,
    RunLog,
    compare_resumed,
    outcome,
    rest_of,
    resume,
    run,
    three_epochs,
)
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
)
from torchdata.stateful_dataloader import StatefulDataLoader

from ttl_core import (
    LoopComponent,
    SeededSampler,
    SeededSamples,
    StateError,
    TrainTestLoop,
    sample_generator,
    use,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # by torchdata
]


INPUTS = torch.randn(18, 3, generator=torch.Generator().manual_seed(1))
TARGETS = torch.arange(18) % 2
SAMPLES = TensorDataset(INPUTS, TARGETS)


class Noisy(Dataset):
    """Samples augmented by numbers from the three global random streams."""

    def __len__(self):
        return len(SAMPLES)

    def __getitem__(self, index):
        inputs, target = SAMPLES[index]
        noise = torch.randn(3) + np.random.normal() + random.gauss(0, 1)
        return inputs + noise.float(), target


class OwnNoise(Noisy):
    """Samples augmented by the generator of each sample."""

    def __getitem__(self, index):
        inputs, target = SAMPLES[index]
        return inputs + torch.randn(3, generator=sample_generator(index)), target


class Blocks(IterableDataset):
    """A stream of samples, of which each worker yields its share."""

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        return (SAMPLES[i] for i in range(first, len(SAMPLES), step))


class Sized:
    """A custom iterable of batches that does not keep its position."""

    def __iter__(self):
        return zip(INPUTS.split(4), TARGETS.split(4), strict=True)

    def __len__(self):
        return 5


class Unsized(ResumableStream):
    """A custom iterable without a length that keeps its own position."""

    def __init__(self):
        super().__init__(batches())


class SetEpoch(LoopComponent):
    """A component that sets the epoch of the sampler, as torch's documentation requires."""

    def on_epoch_begin(self, loop):
        if loop.is_training:
            loop.data.sampler.set_epoch(loop.epoch_num)


def make_loop(make_data, *others, saver=LoopState, inside=True):
    """Return a loop with a model that draws random numbers too."""
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 2))
    steps = use(
        "supervised",
        loss_func=nn.CrossEntropyLoss(),
        optimizer=partial(torch.optim.Adam, lr=0.02),
    )
    run_log = RunLog(saver, inside)
    return TrainTestLoop(model, [run_log, steps, *others, use("metrics")], make_data(), Sized())


def loader(dataset=SAMPLES, batch_size=4, *, cls=DataLoader, sampler=None, seed=None, **config):
    """Return a loader; `sampler` makes its sampler from the dataset, `seed` its generator."""
    if sampler is not None:
        config["sampler"] = sampler(dataset)
    if seed is not None:
        config["generator"] = torch.Generator().manual_seed(seed)
    return cls(dataset, batch_size, **config)


def batches():
    """Return a list of batches."""
    return list(Sized())


def loader_of_batches(num_workers=0):
    """Return a loader with a sampler of batches, whose last is dropped."""
    sampler = BatchSampler(SeededSampler(SAMPLES, seed=2), 4, drop_last=True)
    return DataLoader(SAMPLES, batch_sampler=sampler, num_workers=num_workers)


seeded = partial(loader, sampler=partial(SeededSampler, seed=2))
stateful = partial(loader, cls=StatefulDataLoader)
in_two = {"num_workers": 2}
kept = {"num_workers": 2, "persistent_workers": True}


def two_epochs(loop):
    """Train for two epochs, as starting workers takes time."""
    loop.train(2)


# Of each: how its data are made, the script, and from each how many safe points to resume; the
# soak resumes from all. Of 6 safe points in an epoch, each 5th is another one in each epoch.
RESUMABLE = {
    "list": (batches, three_epochs, 1),
    "in order": (loader, three_epochs, 5),
    "in order, 2 workers": (partial(loader, **in_two), two_epochs, 5),
    "in order, noisy": (partial(loader, Noisy()), three_epochs, 5),
    "seeded": (seeded, three_epochs, 1),
    "seeded, 2 workers": (partial(seeded, **in_two), two_epochs, 5),
    "seeded, 2 persistent workers": (partial(seeded, **kept), three_epochs, 5),
    "seeded, last dropped": (partial(seeded, drop_last=True), three_epochs, 5),
    "seeded, own generator": (partial(seeded, seed=5), three_epochs, 5),
    "seeded, noisy": (partial(seeded, SeededSamples(Noisy())), three_epochs, 5),
    "seeded, noisy, 2 workers": (partial(seeded, SeededSamples(Noisy()), **in_two), two_epochs, 5),
    "seeded, noisy, 2 persistent": (
        partial(seeded, SeededSamples(Noisy()), **kept),
        three_epochs,
        5,
    ),
    "seeded, own noise": (partial(seeded, OwnNoise()), three_epochs, 5),
    "seeded, own noise, 2 workers": (partial(seeded, OwnNoise(), **in_two), two_epochs, 5),
    "seeded, single samples": (partial(seeded, batch_size=None), three_epochs, 7),
    "seeded, single samples, 2 workers": (
        partial(seeded, batch_size=None, **in_two),
        two_epochs,
        17,
    ),
    "seeded batches": (loader_of_batches, three_epochs, 5),
    "seeded batches, 2 workers": (partial(loader_of_batches, **in_two), two_epochs, 4),
    "stateful": (partial(stateful, shuffle=True), three_epochs, 1),
    "stateful, 2 workers": (partial(stateful, shuffle=True, **in_two), two_epochs, 5),
    "stateful, 2 persistent workers": (partial(stateful, shuffle=True, **kept), three_epochs, 5),
    "stateful, own generator": (partial(stateful, shuffle=True, seed=5), three_epochs, 5),
    "stateful, own generator, 2 workers": (
        partial(stateful, shuffle=True, seed=5, **in_two),
        two_epochs,
        5,
    ),
    "stateful, stream": (partial(stateful, Blocks()), three_epochs, 5),
    "stateful, stream, 2 workers": (partial(stateful, Blocks(), **in_two), two_epochs, 5),
    "own state, no length": (Unsized, three_epochs, 5),
}
RESUMING = [
    *(pytest.param(*case, id=name) for name, case in RESUMABLE.items()),
    *(
        pytest.param(make_data, script, 1, id=f"{name}, from all", marks=pytest.mark.soak)
        for name, (make_data, script, every) in RESUMABLE.items()
        if every > 1
    ),
]


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric _MeanLoss was called before")
@pytest.mark.parametrize(("make_data", "script", "every"), RESUMING)
def test_resumes_inside_and_between_epochs(make_data, script, every):
    """Data whose order can be repeated resume from any safe point to the same bits."""
    for expected, actual in compare_resumed(partial(make_loop, make_data), script, every=every):
        assert expected == actual


@pytest.mark.parametrize(("num_workers", "every"), [(0, 4), (2, 5)])
def test_resumes_with_a_sampler_whose_epoch_is_set(num_workers, every):
    """Torch's DistributedSampler has an order by (seed, epoch), also if a component sets it."""
    sampler = partial(DistributedSampler, num_replicas=1, rank=0, shuffle=True, seed=4)
    make_data = partial(loader, sampler=sampler, num_workers=num_workers)
    for expected, actual in compare_resumed(lambda: make_loop(make_data, SetEpoch()), every=every):
        assert expected == actual


def test_resumes_without_a_warning_where_an_epoch_has_no_more_batches():
    """Data without a length have a safe point after their last batch, where metrics are known."""
    for expected, actual in compare_resumed(partial(make_loop, Unsized)):
        assert expected == actual


@pytest.mark.parametrize("make_data", [batches, seeded], ids=["list", "seeded"])
def test_resuming_by_model_optimizer_and_epoch_alone_is_another_run(make_data):
    """What most scripts save leads to other weights, unless it was saved at the end."""
    make = partial(make_loop, make_data, saver=NaiveState)
    for expected, actual in itertools.islice(compare_resumed(make, saver=NaiveState, every=4), 5):
        assert expected.model != actual.model


# -- what was consumed counts ---------------------------------------------------------------


class Seen(LoopComponent):
    """A record of the samples in each training batch."""

    def __init__(self):
        self.seen = []

    def on_batch_begin(self, loop):
        if loop.is_training:
            self.seen.append([INPUTS.tolist().index(inputs) for inputs in loop.batch[0].tolist()])


@pytest.mark.parametrize("make_data", [seeded, partial(stateful, shuffle=True)])
def test_prefetched_batches_do_not_count(make_data):
    """All of an epoch is prefetched, but a run resumes with what was not consumed."""
    make_data = partial(make_data, num_workers=2, prefetch_factor=4)
    made = []

    def make():
        made.append(Seen())
        return make_loop(make_data, made[-1])

    def one_epoch(loop):
        loop.train(1)

    full = run(make, one_epoch)
    resume(make, full.saved[1].file, one_epoch)
    assert list(range(18)) == sorted(itertools.chain(*made[0].seen))
    assert made[0].seen[2:] == made[1].seen


def test_what_was_consumed_is_not_loaded_again():
    """A dataset loads the samples that are left of the epoch, and no others."""
    loaded = []

    class Recorded(Dataset):
        def __len__(self):
            return len(SAMPLES)

        def __getitem__(self, index):
            loaded.append(int(index))
            return SAMPLES[index]

    def one_epoch(loop):
        loop.train(1)

    make = partial(make_loop, partial(seeded, Recorded()))
    full = run(make, one_epoch)
    order = loaded.copy()
    loaded.clear()
    resume(make, full.saved[2].file, one_epoch)
    assert order[12:] == loaded


# -- order that cannot be repeated -----------------------------------------------------------


def loader_with_sampler(num_workers=0):
    """Return a loader whose sampler has a generator of its own."""
    sampler = RandomSampler(SAMPLES, generator=torch.Generator().manual_seed(6))
    return DataLoader(SAMPLES, 4, sampler=sampler, num_workers=num_workers)


shuffled = partial(loader, shuffle=True)
ONLY_BETWEEN = {
    "shuffled": (shuffled, three_epochs),
    "shuffled, 2 workers": (partial(shuffled, **in_two), two_epochs),
    "shuffled, 2 persistent workers": (partial(shuffled, **kept), three_epochs),
    "shuffled, own generator": (partial(shuffled, seed=5), three_epochs),
    "shuffled, own generator, 2 workers": (partial(shuffled, seed=5, **in_two), two_epochs),
    "shuffled, own generator, 2 persistent": (partial(shuffled, seed=5, **kept), three_epochs),
    "shuffled, noisy, 2 workers": (partial(shuffled, Noisy(), **in_two), two_epochs),
    "random sampler": (loader_with_sampler, three_epochs),
    "random sampler, 2 workers": (partial(loader_with_sampler, 2), two_epochs),
    "stream": (partial(loader, Blocks()), three_epochs),
    "stream, 2 workers": (partial(loader, Blocks(), **in_two), two_epochs),
    "custom iterable": (Sized, three_epochs),
}


@pytest.mark.parametrize(("make_data", "script"), ONLY_BETWEEN.values(), ids=ONLY_BETWEEN)
def test_resumes_between_epochs(make_data, script):
    """Where nothing repeats the order inside an epoch, a run resumes exactly between epochs."""
    for expected, actual in compare_resumed(partial(make_loop, make_data, inside=False), script):
        assert expected == actual


class OwnBatches(BatchSampler):
    """A user's own sampler of batches."""


USE_SEEDED = "Write DataLoader(dataset, ..., sampler=ttl_core.SeededSampler(dataset))"
USE_STATEFUL = "Write torchdata's StatefulDataLoader(...) in place of DataLoader(...)"
USE_LIST = "Give a list of batches, a DataLoader, or something of your own with state_dict()"


@pytest.mark.parametrize(
    ("make_data", "what", "line"),
    [
        (shuffled, "a DataLoader whose order a RandomSampler decides", USE_SEEDED),
        (partial(shuffled, seed=5), "whose order a RandomSampler decides", USE_SEEDED),
        (
            lambda: DataLoader(SAMPLES, batch_sampler=OwnBatches(range(18), 4, drop_last=False)),
            "a DataLoader whose order a OwnBatches decides",
            USE_SEEDED,
        ),
        (partial(loader, Blocks()), "a DataLoader over a stream, Blocks", USE_STATEFUL),
        (Sized, "a Sized", USE_LIST),
    ],
)
def test_refuses_a_state_inside_an_epoch_that_nothing_repeats(make_data, what, line):
    """The error names the data and shows the line to write; no state is taken."""
    with pytest.raises(StateError) as caught:
        run(partial(make_loop, make_data))
    assert [True, True] == [what in str(caught.value), line in str(caught.value)]


def test_refuses_a_state_inside_an_epoch_of_an_iterator():
    """An iterator is data for one epoch, inside which no run can resume."""
    loop = make_loop(lambda: iter(batches()))
    with pytest.raises(StateError) as caught:
        loop.train(1)
    assert [True, True] == ["a list_iterator" in str(caught.value), USE_LIST in str(caught.value)]


def test_refuses_such_data_before_the_first_batch(tmp_path):
    """The component fails when the epoch begins, and shows how to save between epochs only."""
    loop = make_loop(shuffled, use("checkpoint", directory=tmp_path, every=1), saver=None)
    with pytest.raises(StateError, match="in the middle") as caught:
        loop.train(3)
    points = {entry[0] for entry in loop.components["run-log"].log}
    assert (True, False) == ("on_epoch_begin" in points, "on_batch_begin" in points)
    assert "mid_epoch=False" in caught.value.__notes__[0]


class Killed(BaseException):
    """An exception that no component expects, in place of a kill."""


class Kill(LoopComponent):
    """A component that raises Killed in the middle of the second epoch, if it is armed."""

    def __init__(self, is_armed):
        self.is_armed = is_armed

    def on_batch_end(self, loop):
        if self.is_armed and loop.is_training and (loop.epoch_num, loop.batch_num) == (1, 2):
            raise Killed


@pytest.mark.parametrize(
    ("config", "point"),
    [
        ({"every": "epoch"}, ("on_safe_point", "valid", 1, None, 5, 5)),
        ({"every": 1, "mid_epoch": False}, ("on_safe_point", "train", 0, None, 5, 5)),
    ],
)
@pytest.mark.parametrize("make_data", [shuffled, partial(loader, Blocks())])
def test_resumes_from_the_epoch_before(make_data, config, point, tmp_path):
    """Saved between epochs only, a run that was killed inside one repeats it to the same bits."""

    def make(folder, is_armed=False):
        checkpoint = use("checkpoint", directory=tmp_path / folder, **config)
        return make_loop(make_data, Kill(is_armed), checkpoint, saver=None)

    full = run(partial(make, "full"))
    with contextlib.suppress(Killed):
        run(partial(make, "killed", is_armed=True))
    resumed = run(partial(make, "killed"), seed=99)
    assert rest_of(full, 1 + full.log.index(point)) == outcome(resumed)
