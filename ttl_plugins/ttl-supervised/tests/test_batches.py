"""Which batches `supervised` takes, what it makes of them, and what it says of others."""

import copy
from collections import Counter, OrderedDict, UserDict, defaultdict
from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader
from ttl_supervised import Supervised

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop

pytestmark = pytest.mark.usefixtures("one_thread")

SGD = partial(torch.optim.SGD, lr=0.1)
MSE = torch.nn.MSELoss()
META = torch.device("meta")


def make_loop(*others, model=None, data=None, loss_func=MSE, **config):
    """Return a loop with `supervised` and other components."""
    steps = Supervised(loss_func, SGD, **config)
    return TrainTestLoop(model or torch.nn.Linear(2, 1), [steps, *others], data)


# -- mappings -----------------------------------------------------------------------------------


class Own(Mapping):
    """A mapping of one's own, which cannot be changed."""

    def __init__(self, items):
        self._items = dict(items)

    def __getitem__(self, key):
        return self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)


class OwnDict(dict):
    """A dict with an attribute, whose __init__ takes other arguments."""

    def __init__(self, source):
        super().__init__()
        self.source = source


def own_dict():
    """Return a batch in an OwnDict."""
    batch = OwnDict("disk")
    batch["inputs"] = torch.ones(2, 2)
    return batch


@pytest.mark.parametrize(
    "batch",
    [
        OrderedDict(inputs=torch.ones(2, 2)),
        defaultdict(list, inputs=torch.ones(2, 2)),
        UserDict(inputs=torch.ones(2, 2)),
        Counter(inputs=torch.ones(2, 2)),
        Own({"inputs": torch.ones(2, 2)}),
        own_dict(),
    ],
    ids=lambda batch: type(batch).__name__,
)
@pytest.mark.parametrize("device", [META, torch.device("cpu")], ids=str)
def test_a12_a_mapping_keeps_its_type(batch, device):
    """A12: on the device it is a mapping of the same type, and the data are as they were."""
    batches = []

    class Record(LoopComponent):
        def on_batch_end(self, loop):
            batches.append(loop.batch)

    make_loop(Record(), device=device).predict([batch], collect=False)
    assert [type(batch)] == [type(moved) for moved in batches]
    assert [device, torch.device("cpu")] == [batches[0]["inputs"].device, batch["inputs"].device]
    assert getattr(batch, "source", None) == getattr(batches[0], "source", None)
    assert getattr(batch, "default_factory", None) is getattr(batches[0], "default_factory", None)


def test_a12_a_mapping_that_cannot_be_moved_is_refused():
    """A12: where no mapping of the type can be created, the error says what it needs."""

    class Two(Own):
        def __init__(self, inputs, targets):
            super().__init__({"inputs": inputs, "targets": targets})

    loop = make_loop(device=META)
    with pytest.raises(ArgumentError, match=r"a Two is a mapping .* Give it a method to\(device"):
        loop.predict([Two(torch.ones(2, 2), None)])


# -- the loss function --------------------------------------------------------------------------


WEIGHT = torch.tensor([1.0, 3.0])


@pytest.mark.parametrize(
    "loss_func",
    [
        torch.nn.CrossEntropyLoss(weight=WEIGHT.clone()),
        partial(torch.nn.functional.cross_entropy, weight=WEIGHT),
    ],
    ids=["module", "partial"],
)
@pytest.mark.parametrize("run", ["train", "test"])
def test_a12_weights_of_classes_move_to_the_device(loss_func, run):
    """A12: the loss is computed on the device with its weights, in training and in a test."""
    data = [(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))]
    loop = make_loop(model=torch.nn.Linear(2, 2), loss_func=loss_func, device=META)
    loop.train_data = data
    loop.train(n_epochs=1) if run == "train" else loop.test(data)
    assert META == loop.loss.device
    assert torch.device("cpu") == WEIGHT.device


def test_a12_other_loss_functions_stay_what_they_are():
    """A12: a function, and a partial that is on the device already, is used itself."""
    data = [(torch.ones(4, 2), torch.ones(4, 1))]
    for loss_func in (torch.nn.functional.mse_loss, partial(MSE), partial(MSE.forward)):
        loop = make_loop(loss_func=loss_func, device="cpu", data=data)
        loop.train(n_epochs=1)
        assert loss_func is loop.loss_func


# -- lists --------------------------------------------------------------------------------------


class Sizes(torch.nn.Module):
    """A model of samples of any size, which keeps how many it was given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.n_given = []

    def forward(self, samples):
        self.n_given.append(len(samples))
        return torch.stack([sample.sum() for sample in samples]) * self.weight


def pictures(n, size=8):
    """Return n pictures of three channels, of one size or several."""
    return [torch.ones(3, size, size + i % 2) for i in range(n)]


def test_a12_a_short_last_list_of_samples_is_no_pair():
    """A12: after lists of more samples, one of two, or of one, is a list of samples too."""
    loop = make_loop(model=Sizes())
    scores = loop.predict([pictures(4), pictures(2), pictures(1)])
    assert ([4, 2, 1], [4, 2, 1]) == (loop.model.n_given, [len(some) for some in scores])


@pytest.mark.parametrize("run", ["predict", "test", "train"])
@pytest.mark.parametrize(
    "sample",
    [torch.ones(3, 8, 8), "text", {"image": torch.ones(3)}],
    ids=["tensor", "text", "dict"],
)
def test_a12_two_unlabelled_samples_are_not_taken_for_a_pair(run, sample):
    """A12: a list of two things alike may be either, which is refused, with both fixes."""
    data = [[sample, copy.copy(sample)]]
    loop = make_loop(model=Sizes(), data=data)
    with pytest.raises(
        ArgumentError, match=r"a list of two .* split=lambda batch: \(batch, None\)"
    ):
        loop.train(n_epochs=1) if run == "train" else getattr(loop, run)(data)
    assert [] == loop.model.n_given


def test_a12_lists_of_different_meaning_are_refused():
    """A12: a list of samples after one that was taken for a pair is an error."""
    loop = make_loop(model=Sizes())
    with pytest.raises(ArgumentError, match="is a list of 4, but the first one of the epoch was a"):
        loop.predict([[torch.ones(3, 8, 8), torch.ones(3, 8, 9)], pictures(4)])


@pytest.mark.parametrize(
    "wrap", [lambda data: data, lambda data: Wrapped(data)], ids=["loader", "wrapped"]
)
def test_a12_a_pair_of_tensors_alike_is_one_where_a_loader_collated_it(wrap):
    """A12: what a DataLoader has made of pairs, and a tuple, is a pair, as for an autoencoder."""
    one = (torch.ones(2), torch.zeros(2))
    loop = make_loop(model=torch.nn.Linear(2, 2))
    loop.test(wrap(DataLoader([one] * 4, batch_size=2)))
    loop.test([(torch.ones(4, 2), torch.zeros(4, 2))])
    assert loop.loss is not None


class Wrapped:
    """Data that hold other data, as those of limit-batches."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


class Record(LoopComponent):
    """A component that keeps the weight of each batch."""

    def __init__(self):
        self.sizes = []

    def on_batch_end(self, loop):
        self.sizes.append(loop.batch_size)


def loss_of_lists(scores, targets):
    """Return a loss of nested targets."""
    return scores.mean() if isinstance(scores, torch.Tensor) else scores


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ((pictures(5), [{"boxes": torch.ones(2, 4)}] * 5), 5),
        ((tuple(pictures(5)), tuple(torch.ones(i, 4) for i in range(5))), 5),
        ((pictures(5), [1] * 5), 5),
        ((pictures(5), torch.ones(5)), 5),
        ({"inputs": pictures(5), "targets": torch.ones(5, 2)}, 5),
        (([torch.ones(8, 2), torch.ones(8, 3)], torch.ones(8)), 8),
        (([torch.ones(8, 2), torch.ones(8, 3)], [torch.ones(8), torch.ones(8)]), 8),
        ((torch.ones(8, 2), torch.ones(8)), 8),
    ],
    ids=["boxes", "tuples", "numbers", "tensor", "dict", "two inputs", "two heads", "stacked"],
)
def test_a12_a_list_of_samples_weighs_their_number(batch, expected):
    """A12: five pictures weigh 5, not their 3 channels; several inputs of a model their length."""
    loop = make_loop(record := Record(), model=Sizes(), loss_func=loss_of_lists)
    loop.test([batch])
    assert [expected] == record.sizes


def test_a12_a_weight_that_a_component_has_set_stays():
    """A12: the number of boxes that a component counts is the weight."""

    class Weigh(LoopComponent):
        def on_batch_begin(self, loop):
            loop.batch_size = 17

    loop = make_loop(Weigh(), record := Record(), model=Sizes(), loss_func=loss_of_lists)
    loop.test([(pictures(5), [1] * 5)])
    assert [17] == record.sizes


# -- batches of another kind --------------------------------------------------------------------


HF = {"input_ids": torch.ones(4, 2), "attention_mask": torch.ones(4, 2), "labels": torch.ones(4)}
TRIPLE = (torch.ones(4, 2), torch.ones(4, 1), torch.ones(4))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            HF,
            r"a dict with the keys 'input_ids', 'attention_mask', 'labels', .* "
            r"split=lambda batch: \(batch\['input_ids'\], batch\['labels'\]\)",
        ),
        (TRIPLE, r"a tuple of 3, .* split=lambda batch: \(batch\[0\], batch\[1\]\)"),
        (list(TRIPLE), "a list of 3, .* split=lambda"),
    ],
    ids=["dict", "tuple", "list"],
)
def test_a12_batches_that_are_no_pairs_are_refused_before_the_model(batch, message):
    """A12: in training the error shows the batch and the split that it needs."""
    loop = make_loop(data=[batch])
    calls = []
    loop.model.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(ArgumentError, match=message):
        loop.train(n_epochs=1)
    assert [] == calls


@pytest.mark.parametrize("batch", [HF, TRIPLE], ids=["dict", "triple"])
@pytest.mark.parametrize("run", ["predict", "test"])
def test_a12_a_model_that_fails_of_a_whole_batch_is_explained(batch, run):
    """A12: where a batch is inputs alone, a note says that the model was given all of it."""
    with pytest.raises(TypeError) as caught:
        getattr(make_loop(), run)([batch])
    (note,) = [note for note in caught.value.__notes__ if "the whole batch" in note]
    assert "split=lambda batch: (batch[" in note


def test_a12_a_suggested_split_works():
    """A12: with the split of the message the loop trains."""
    loop = make_loop(data=[TRIPLE], split=lambda batch: (batch[0], batch[1]))
    loop.train(n_epochs=1)
    assert 1 == loop.global_step
