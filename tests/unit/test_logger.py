"""The base class of loggers: what it collects, when it writes, and that nothing is lost."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loops import act_at
from states import make_data, make_step_loop

from ttl_core import ArgumentError, Logger, LoopComponent
from ttl_core.log_record import LogRecord, convert


class Rows(Logger):
    """A logger whose store is a list, of (step, level, values)."""

    def __init__(self, **options):
        super().__init__(**options)
        self.rows = []
        self.events = []
        self.fails = False

    def open(self, loop):
        self.events.append("open")

    def write(self, records):
        if self.fails:
            raise OSError("disk full")
        self.rows += [(r.step, r.level, {**r.values, **r.others}) for r in records]

    def close(self, status):
        self.events.append(status)

    def position(self):
        return len(self.rows)

    def seek(self, position):
        del self.rows[position:]


class Log(LoopComponent):
    """Values that are logged at the end of each batch, and of each epoch."""

    def on_batch_end(self, loop):
        loop.log({"a": torch.tensor(float(loop.global_step))})

    def on_epoch_end(self, loop):
        loop.log({"b": loop.batch_num}, level="epoch")


def train(logger, *others, n_epochs=1, step=LoopComponent, **options):
    """Return the rows of a run."""
    make_step_loop(Log(), *others, logger, step=step, **options).train(n_epochs)
    return logger.rows


def test_values_of_training_batches_and_of_epochs_are_written():
    """Those of validation batches are not: only their mean is of interest."""
    expected = [(i, "batch", {"train/a": float(i)}) for i in (1, 2, 3)]
    expected += [(3, "epoch", {"train/b": 2}), (3, "epoch", {"valid/b": 0})]
    assert expected == train(Rows(), valid_data=make_data(1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"level": "epoch"}, [(3, "epoch")]),
        ({"level": "batch"}, [(1, "batch"), (2, "batch"), (3, "batch")]),
        ({"every": 2}, [(2, "batch"), (3, "epoch")]),
    ],
    ids=str,
)
def test_what_is_written_can_be_chosen(options, expected):
    """One level only, or the values of each so many steps."""
    assert expected == [row[:2] for row in train(Rows(**options))]


@pytest.mark.parametrize("options", [{"level": "step"}, {"every": 0}, {"every": "2"}], ids=str)
def test_unusable_arguments_are_refused(options):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Rows(**options)


def test_single_numbers_of_all_kinds_become_python_numbers():
    """Tensors, those of NumPy and bools; what is none is left as it was logged."""
    image, logged = torch.zeros(3, 2, 2), {"i": 1, "f": 0.5, "t": torch.tensor([2.5])}
    logged |= {"n": np.float32(1.5), "b": True, "l": torch.tensor(3), "tb": torch.tensor(True)}
    record = LogRecord({**logged, "text": "a", "image": image, "none": None}, "batch", 0, 0, 0.0)
    convert([record])
    numbers = {"i": 1, "f": 0.5, "t": 2.5, "n": 1.5, "b": 1, "l": 3, "tb": 1}
    assert list(numbers.items()) == list(record.values.items())
    assert all(type(value) in (int, float) for value in record.values.values())
    assert {"text": "a", "image": image, "none": None} == record.others


def test_values_are_converted_once_for_all_loggers(monkeypatch):
    """Two loggers are given the same records."""
    one, other = Rows(), Rows()
    read = []
    item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda value: read.append(value) or item(value))
    assert train(one, other) == one.rows == other.rows
    assert 3 == len(read)


class Remote(torch.Tensor):
    """A tensor that is on a device which has to be waited for."""

    is_cpu = False


def test_a_device_is_waited_for_once(monkeypatch):
    """The values of all records are read together, and their names keep their order."""
    records = [
        LogRecord({"a": torch.full((1,), i).as_subclass(Remote), "b": i}, "batch", i, 0, 0.0)
        for i in range(3)
    ]
    stacked, stack = [], torch.stack
    monkeypatch.setattr(torch, "stack", lambda each: stacked.append(len(each)) or stack(each))
    convert(records)
    assert [[("a", i), ("b", i)] for i in range(3)] == [[*r.values.items()] for r in records]
    assert [3] == stacked


def test_the_store_is_opened_when_there_is_something_to_write():
    """It is closed at the end of each run that has opened it, also where nothing is logged."""
    logger = Rows()
    loop = make_step_loop(Log(), logger, step=LoopComponent)
    loop.validate(make_data(1))
    loop.train(1)
    loop.predict(make_data(1), collect=False)
    assert ["open", "complete", "open", "complete"] == logger.events


@pytest.mark.parametrize(
    ("raised", "status"),
    [(ValueError, "failed"), (KeyboardInterrupt, "interrupted"), (SystemExit, "interrupted")],
)
def test_all_is_written_when_a_run_ends_by_an_exception(raised, status):
    """The store is told how it has ended."""

    def fail(loop):
        raise raised

    logger = Rows()
    with pytest.raises(raised):
        train(logger, act_at("on_epoch_end", fail))
    assert [1, 2, 3] == [step for step, level, _ in logger.rows if level == "batch"]
    assert ["open", status] == logger.events


def test_a_store_that_fails_does_not_end_training(caplog):
    """It is a warning, once; what could not be written is written when the store works again."""
    logger = Rows()
    logger.fails = True

    def repair(loop):
        logger.fails = loop.epoch_num < 2

    rows = train(logger, act_at("on_epoch_begin", repair), n_epochs=3)
    assert [*range(1, 10)] == [step for step, level, _ in rows if level == "batch"]
    (message,) = caplog.messages
    assert (
        "rows: values cannot be written: OSError: disk full. Training continues, and they are kept "
        "until they can be"
    ) == message


def test_the_message_of_a_store_that_fails_is_one_line(caplog):
    """Errors of databases have pages of what was to be written."""

    class Database(Rows):
        def write(self, records):
            raise OSError("database is full\n[SQL: INSERT" + ", (1, 2)" * 1000)

    train(Database())
    message = caplog.messages[0]
    assert message.startswith("database: values cannot be written: OSError: database is full [SQL:")
    assert ("\n" in message, len(message) < 500) == (False, True)


def test_what_is_lost_in_the_end_is_said(caplog):
    """Where the store never works again, the last message says how much is missing."""
    logger = Rows()
    logger.fails = True
    assert [] == train(logger)
    assert "rows: 4 records could not be written before the run ended" == caplog.messages[-1]


def test_a_resumed_run_leaves_the_rows_of_a_whole_one():
    """What was written after the state was taken is removed, and written again."""
    states = []
    keep = act_at("on_safe_point", lambda loop: states.append(loop.state_dict()))
    whole = train(Rows(), keep, n_epochs=2)
    for state in states:
        logger = Rows()
        logger.rows = list(whole)  # as in a store that has outlived its process
        loop = make_step_loop(Log(), keep, logger, step=LoopComponent)
        loop.load_state_dict(state, ignore=["keep"])
        loop.train(2)
        assert whole == logger.rows


def test_what_a_failing_store_has_not_taken_is_part_of_the_state():
    """A run that resumes writes it where the store works again."""
    states = []
    keep = act_at("on_safe_point", lambda loop: states.append(loop.state_dict()))
    logger = Rows()
    logger.fails = True
    train(logger, keep)
    again = Rows()
    loop = make_step_loop(Log(), keep, again, step=LoopComponent)
    loop.load_state_dict(states[-1])
    loop.train(1)
    assert [1, 2, 3, 3] == [step for step, *_ in again.rows]


def test_texts_and_tensors_that_wait_for_a_failing_store_are_part_of_the_state(tmp_path, caplog):
    """What no state can hold is named; a file with the state is loaded again."""
    image = torch.rand(3, 2, 2)
    values = {"text": "a", "image": image, "none": None, "array": np.zeros(2), "number": 1}
    log = act_at("on_batch_end", lambda loop: loop.log(values))
    logger = Rows()
    logger.fails = True
    make_step_loop(log, logger, act_at("on_train_end", save(tmp_path)), step=LoopComponent).train(1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    logger = Rows()
    logger.load_state_dict(state)
    make_step_loop(logger, step=LoopComponent).test([0])
    assert 3 == len(logger.rows)
    restored = logger.rows[0][2]
    assert torch.equal(image, restored.pop("train/image"))
    assert {"train/text": "a", "train/none": None, "train/number": 1} == restored
    said = [message for message in caplog.messages if "is not written" in message]
    assert [
        "rows: 'train/array' is not written: it waits for the store, and a state cannot hold a "
        "ndarray: a run that resumes from it lacks it"
    ] == said


def save(directory):
    """Return a function that saves the state of the logger of a loop."""

    def function(loop):
        logger = next(c for c in loop.components if isinstance(c, Rows))
        torch.save(logger.state_dict(), directory / "state.pt")

    return function


def test_a_state_of_a_version_that_saved_single_numbers_only_is_loaded():
    """It has no other values."""
    pending = {"level": "epoch", "step": 2, "epoch": 1, "time": 0.0, "values": {"a": 1.5}}
    logger = Rows()
    logger.load_state_dict({"position": 0, "pending": [pending]})
    make_step_loop(logger, step=LoopComponent).test([0])
    assert [(2, "epoch", {"a": 1.5})] == logger.rows


class Slow(Rows):
    """A logger whose store answers when it is told to, in a thread."""

    in_background = True

    def __init__(self):
        super().__init__()
        self.answers = threading.Event()
        self.threads = set()

    def open(self, loop):
        super().open(loop)
        self.threads.add(threading.current_thread())

    def write(self, records):
        assert self.answers.wait(10)
        super().write(records)
        self.threads.add(threading.current_thread())

    def close(self, status):
        super().close(status)
        self.threads.add(threading.current_thread())


def test_training_does_not_wait_for_a_store_in_the_background():
    """All of the first epoch is trained while the first value is written."""
    logger = Slow()
    rows = train(logger, act_at("on_epoch_end", lambda loop: logger.answers.set()), n_epochs=2)
    assert [*range(1, 7)] == [step for step, level, _ in rows if level == "batch"]
    assert ["open", "complete"] == logger.events


def test_a_store_in_the_background_is_used_by_one_thread_that_ends_with_the_run():
    """That of the main thread is not, so that a connection may belong to one thread."""
    logger = Slow()
    logger.answers.set()
    train(logger)
    (thread,) = logger.threads
    assert thread is not threading.main_thread()
    assert not thread.is_alive()


def test_a_state_has_what_a_store_in_the_background_has_taken():
    """It waits until what is under way is written."""
    states = []
    keep = act_at("on_safe_point", lambda loop: states.append(loop.state_dict()))
    logger = Slow()
    logger.answers.set()
    whole = list(train(logger, keep))
    positions = [state["components"]["slow"]["position"] for state in states]
    assert [1, 2, len(whole)] == positions


def test_a_store_that_fails_is_not_tried_again_for_each_state():
    """It may be a server that takes seconds not to answer."""
    n_attempts = []

    class Dead(Rows):
        def write(self, records):
            n_attempts.append(1)
            raise OSError("no answer")

    train(Dead(), act_at("on_safe_point", lambda loop: loop.state_dict()))
    assert 2 == len(n_attempts)  # at the first value, and at the end of the run


def test_what_is_being_written_when_training_is_interrupted_is_not_lost():
    """It is written when the run ends."""

    class Interrupted(Rows):
        def write(self, records):
            if not self.rows and not self.events.count("ctrl-C"):
                self.events.append("ctrl-C")
                raise KeyboardInterrupt
            super().write(records)

    logger = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        train(logger)
    assert [1] == [step for step, *_ in logger.rows]


def test_a_store_that_cannot_be_closed_does_not_fail_the_run(caplog):
    """It is an error message."""

    class Broken(Rows):
        def close(self, status):
            raise OSError("disk full")

    train(Broken())
    assert ["broken: the store cannot be closed: OSError: disk full"] == caplog.messages


def test_the_configuration_of_the_enabled_components_is_flat():
    """Values in mappings have the names of their keys; lists are JSON; disabled ones are absent.

    A reference has the name of its argument, for stores that accept no other characters.
    """
    keep = {"best": 1, "names": ["a", "b"], "by": {"$ref": "a:b", "x": 1}}
    manifest = [
        {"name": "step", "enabled": True, "config": {}},
        {"name": "saver", "enabled": True, "config": {"keep": keep, "rate": 0.5}},
        {"name": "saver#2", "enabled": False, "config": {"rate": 1}},
    ]
    expected = {
        "components": "step, saver",
        "saver.keep.best": 1,
        "saver.keep.by": "a:b",
        "saver.keep.by.x": 1,
        "saver.keep.names": '["a", "b"]',
        "saver.rate": 0.5,
    }
    assert expected == Logger.configuration(SimpleNamespace(manifest=lambda: manifest))


def test_a_subclass_can_write_records_of_its_own():
    """They are written with the next ones."""

    class Own(Rows):
        def on_epoch_begin(self, loop):
            self.collect(LogRecord({"own": 1}, "epoch", loop.global_step, loop.epoch_num, 0.0))

    assert (0, "epoch", {"own": 1}) == train(Own())[0]


def test_a_subclass_may_leave_the_constructor_of_logger_uncalled():
    """It has the defaults of its arguments."""

    class Own(Logger):
        def __init__(self):
            self.rows = []

        def write(self, records):
            self.rows += [name for record in records for name in record.values]

    assert {"train/a", "train/b"} <= set(train(Own()))
