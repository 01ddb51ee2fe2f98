"""Several named validation sets, and validate(data)."""

import pytest
import torch

from ttl_core import ArgumentError, LoopComponent, RunError, TrainTestLoop


class Watch(LoopComponent):
    """A component that logs the sum of an epoch and remembers what it saw."""

    def __init__(self):
        self.epochs = []

    def on_epoch_begin(self, loop):
        self.total = 0

    def on_batch_end(self, loop):
        self.total += loop.batch

    def on_epoch_end(self, loop):
        self.epochs.append((loop.epoch_desc, loop.data_name, self.total))
        loop.log({"sum": self.total}, level="epoch")


def make_loop(valid_data, *components, train_data=(1, 2)):
    """Return a loop over numbers with these validation data."""
    return TrainTestLoop(torch.nn.Identity(), components, train_data, valid_data)


def test_named_sets_are_validated_in_order_each_epoch():
    """Each set is an epoch of its own, with its name as data_name."""
    watch = Watch()
    make_loop({"easy": [10], "hard": [20, 30]}, watch).train(2)
    epoch = [("train", None, 3), ("valid", "easy", 10), ("valid", "hard", 50)]
    assert [*epoch, *epoch] == watch.epochs


def test_metrics_of_named_sets_have_their_names():
    """Values are logged as valid/<name>/..., a single set's as valid/..."""
    loop = make_loop({"easy": [10], "hard": [20, 30]}, Watch())
    loop.train(1)
    assert {"train/sum": 3, "valid/easy/sum": 10, "valid/hard/sum": 50} == loop.metrics


def test_an_epoch_counts_when_all_sets_were_validated():
    """The second safe point of an epoch comes once, after the last set."""
    seen = []

    class Safe(LoopComponent):
        def on_safe_point(self, loop):
            seen.append((loop.epoch_num, loop.epoch_desc, loop.data_name))

    make_loop({"a": [1], "b": [2]}, Safe(), train_data=[1]).train(1)
    assert [(0, "train", None), (1, "valid", None)] == seen


def test_data_name_is_restored_after_a_nested_validation():
    """Outside of named sets data_name is None."""
    seen = []

    class Nested(LoopComponent):
        def on_batch_end(self, loop):
            if loop.is_training:
                loop.validate({"other": [1]})
            seen.append((loop.epoch_desc, loop.data_name))

    make_loop(None, Nested(), train_data=[1]).train(1)
    assert [("valid", "other"), ("train", None)] == seen


@pytest.mark.parametrize("data", [[5, 6], {"x": [5, 6]}], ids=["one set", "named"])
def test_validate_takes_data_of_its_own(data):
    """validate(data) validates on those data; valid_data stay what they were."""
    watch = Watch()
    loop = make_loop([1], watch)
    loop.validate(data)
    assert [11] == [total for _, _, total in watch.epochs]
    assert [1] == loop.valid_data


@pytest.mark.parametrize(
    ("valid_data", "message"),
    [
        ({}, "valid_data is an empty mapping"),
        ({1: [1]}, "valid_data has a set named 1, but names are text"),
        ({"a/b": [1]}, "valid_data has a set named 'a/b'"),
        ({"": [1]}, "valid_data has a set named ''"),
        ({"a": None}, r"valid_data\['a'\] is None"),
        ({"a": 5}, r"valid_data\['a'\] is 5, which cannot be iterated over"),
    ],
)
def test_a_mapping_that_is_no_named_sets_is_refused(valid_data, message):
    """What cannot be names of sets, or is no data, is refused when the loop is created."""
    with pytest.raises(ArgumentError, match=message):
        make_loop(valid_data)


def test_a_validation_over_the_iterator_of_the_training_epoch_is_refused():
    """It would take batches away from training without a word."""

    class Validate(LoopComponent):
        def on_batch_end(self, loop):
            if loop.is_training:
                loop.validate(loop.data)

    loop = make_loop(None, Validate(), train_data=iter([1, 2, 3]))
    with pytest.raises(RunError, match="was given the list_iterator that the training epoch is"):
        loop.train(1)


def test_a_validation_over_the_list_of_the_training_epoch_is_fine():
    """A list can be iterated over twice at once."""
    watch = Watch()

    class Validate(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_training:
                loop.validate(loop.data)

    make_loop(None, Validate(), watch, train_data=[1, 2]).train(1)
    assert [("valid", None, 3), ("train", None, 3)] == [
        (phase, name, 3) for phase, name, _ in watch.epochs
    ]


def test_a_run_with_named_sets_resumes_to_the_same_bits():
    """The random generators of each set's loader are part of the state."""

    def loader():
        generator = torch.Generator().manual_seed(3)
        return torch.utils.data.DataLoader(
            range(6), batch_size=None, shuffle=True, generator=generator
        )

    class Order(LoopComponent):
        def __init__(self):
            self.seen, self.states = [], []

        def on_batch_end(self, loop):
            if loop.is_validating:
                self.seen.append((loop.epoch_num, loop.data_name, int(loop.batch)))

        def on_safe_point(self, loop):
            self.states.append((len(self.seen), loop.state_dict()))

    def make():
        order = Order()
        sets = {"one": loader(), "two": loader()}
        return order, make_loop(sets, order, train_data=[1])

    whole, loop = make()
    loop.train(3)
    for n_seen, state in whole.states:
        rest, other = make()
        other.load_state_dict(state)
        other.train(3)
        assert whole.seen[n_seen:] == rest.seen
