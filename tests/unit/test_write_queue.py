"""What loggers write where several threads log, where they log themselves, and outside runs."""

from __future__ import annotations

import logging
import threading
import time

import pytest
import torch
from loops import act_at
from states import make_step_loop

from ttl_core import Logger, LoopComponent, write_queue
from ttl_core.log_record import LogRecord, convert


class Store(Logger):
    """A logger whose store is a list of records, and takes a millisecond."""

    def __init__(self):
        super().__init__()
        self.records = []
        self.threads = set()
        self.is_open = False

    def open(self, loop):
        self.is_open = True

    def write(self, records):
        assert self.is_open
        self.threads.add(threading.get_ident())
        time.sleep(0.001)
        self.records += records

    def close(self, status):
        self.is_open = False

    def values(self, name):
        """Return the values of a name, with any prefix, in the order in which they were written."""
        found = [{key.split("/")[-1]: v for key, v in r.values.items()} for r in self.records]
        return [values[name] for values in found if name in values]


class StoreInBackground(Store):
    """The same, in a thread."""

    in_background = True


@pytest.fixture(params=[Store, StoreInBackground])
def store(request, monkeypatch):
    """Return a store that is written to whenever a value is logged."""
    monkeypatch.setattr(write_queue, "_SECONDS", 0.0)
    return request.param()


def run_in_threads(*functions):
    """Call functions in threads of their own, and wait for them."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_values_that_several_threads_log_are_written_once_and_in_order(store):
    """No thread loses values of another, or writes them again."""

    def log(loop):
        def log_numbers(name):
            for i in range(200):
                loop.log({name: i}, level="epoch")

        run_in_threads(*(lambda name=name: log_numbers(name) for name in "abcd"))

    make_step_loop(store, act_at("on_train_begin", log), step=LoopComponent).train(1)
    assert {name: [*range(200)] for name in "abcd"} == {name: store.values(name) for name in "abcd"}
    assert 800 == len(store.records)


def test_values_that_are_logged_while_a_run_ends_are_not_written_to_a_closed_store(store):
    """They come into the next run, each once."""
    is_done = threading.Event()
    logged = []

    def log():
        while not is_done.is_set():
            loop.log({"a": len(logged)}, level="epoch")
            logged.append(len(logged))

    loop = make_step_loop(store, step=LoopComponent)
    thread = threading.Thread(target=log)
    thread.start()
    for _ in range(10):
        loop.test([0])
    is_done.set()
    thread.join(20)
    loop.test([0])
    assert logged == store.values("a")
    assert not store.is_open


def test_a_store_may_log_while_it_writes(store):
    """What it logs is written as all else, with or without a flush."""

    class Chatty(type(store)):
        def write(self, records):
            super().write(records)
            for record in records:
                if "train/a" in record.values:
                    loop.log({"echo": record.values["train/a"]}, level="epoch")
                    self.flush()
                    logging.getLogger("store").error("written")

    class LogToLoop(logging.Handler):
        def emit(self, record):
            loop.log({"message": 1}, level="epoch")

    store = Chatty()
    log = act_at("on_batch_end", lambda loop: loop.log({"a": loop.batch_num}))
    loop = make_step_loop(store, log, step=LoopComponent)
    handler = LogToLoop()
    logging.getLogger("store").addHandler(handler)
    try:
        run_in_threads(lambda: loop.train(1))
    finally:
        logging.getLogger("store").removeHandler(handler)
    loop.test([0])
    assert [0, 1, 2] == store.values("a") == store.values("echo")
    assert store.values("message")


def test_loggers_share_a_record_though_other_threads_log_meanwhile():
    """What is logged between two loggers of one call does not come between them."""
    one, other = Store(), Store()

    class LogBetween(LoopComponent):
        def on_log(self, loop, metrics, level):
            if "a" in metrics:
                run_in_threads(lambda: loop.log({"b": 1}, level="epoch"))

    log = act_at("on_train_begin", lambda loop: loop.log({"a": 1}, level="epoch"))
    make_step_loop(log, one, LogBetween(), other, step=LoopComponent).train(1)
    ids = [{next(iter(r.values)): id(r) for r in store.records} for store in (one, other)]
    assert ids[0] == ids[1]
    assert {"a", "b"} == ids[0].keys()


def test_a_record_that_another_thread_converts_is_never_half_converted():
    """Loggers in two threads may have the same one."""
    is_read, may_end = threading.Event(), threading.Event()

    class Slow:
        size = 1

        def item(self):
            if not is_read.is_set():
                is_read.set()
                assert may_end.wait(10)
            return 2

    record = LogRecord({"a": 1, "b": Slow(), "c": "text"}, "batch", 0, 0, 0.0)
    thread = threading.Thread(target=lambda: convert([record]))
    thread.start()
    assert is_read.wait(10)
    convert([record])
    seen = dict(record.values), dict(record.others)
    may_end.set()
    thread.join(10)
    assert ({"a": 1, "b": 2}, {"c": "text"}) == seen == (record.values, record.others)


def test_what_is_logged_outside_a_run_is_written_in_the_next_one(store, caplog):
    """Until then it is kept, and no thread is started."""
    loop, n_threads = make_step_loop(store, step=LoopComponent), threading.active_count()
    loop.log({"before": 1}, level="epoch")
    store.flush()
    assert ([], n_threads) == (store.records, threading.active_count())
    loop.train(1)
    loop.log({"after": torch.tensor(2)}, level="epoch")
    store.flush()
    assert [{"before": 1}] == [record.values for record in store.records]
    loop.test([0])
    assert [{"before": 1}, {"after": 2}] == [record.values for record in store.records]
    assert [] == caplog.messages


def test_what_is_logged_outside_a_run_is_bounded(store, monkeypatch, caplog):
    """The oldest records are dropped, and it is said."""
    monkeypatch.setattr(write_queue, "_MAX_KEPT", 5)
    loop = make_step_loop(store, step=LoopComponent)
    for i in range(8):
        loop.log({"a": i}, level="epoch")
    loop.test([0])
    assert [3, 4, 5, 6, 7] == store.values("a")
    assert "the oldest 1 records are dropped" in caplog.messages[0]
