"""Runs and evaluations that one process of a group stops, or fails in."""

from unittest import mock

from group_loops import dataset, facts, make_loop
from torch.utils.data import DataLoader

from ttl_core import LoopComponent


class Stop(LoopComponent):
    """A stop in one process, at one point."""

    def __init__(self, rank, point, batch_num=None, epoch_num=1):
        self.rank, self.batch_num, self.epoch_num = rank, batch_num, epoch_num
        setattr(self, point, self._stop)

    def _stop(self, loop):
        is_due = loop.epoch_num == self.epoch_num and self.batch_num in (
            None,
            vars(loop).get("batch_num"),
        )
        if loop.group.rank == self.rank and (loop.is_training or self.batch_num is None) and is_due:
            loop.stop("due")


class Fail(Stop):
    """An exception in one process, at one point."""

    def _stop(self, loop):
        if loop.group.rank == self.rank and loop.epoch_num == self.epoch_num:
            raise ValueError("it was to be expected")


def failed(rank, point):
    """Return the error with which a run ends that fails in one process."""
    loop = make_loop("metrics", Fail(rank, point))
    try:
        loop.train(4)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def stopped(rank, point, batch_num):
    """Return where a run ends that is stopped in one process."""
    loop = make_loop("metrics", Stop(rank, point, batch_num))
    loop.train(4)
    return loop.is_stopped, loop.epoch_num, loop.global_step, facts(loop)["weights"]


class StopEvaluation(LoopComponent):
    """A stop in one process, in one batch or at one point of an evaluation."""

    def __init__(self, rank, point, batch_num):
        self.rank, self.batch_num = rank, batch_num
        self.batches = []
        self.ended = []
        setattr(self, point, self._stop)

    def _stop(self, loop):
        is_due = self.batch_num is None or self.batch_num == loop.batch_num
        if loop.group.rank == self.rank and is_due:
            loop.stop("due")

    def on_forward_pass(self, loop):
        self.batches.append(loop.batch_num)

    def on_epoch_end(self, loop):
        self.ended.append("epoch")

    def on_test_end(self, loop):
        self.ended.append("test")


def evaluation_stopped(phase, rank, point, batch_num, n=40, seconds=0.0):
    """Return the batches of an evaluation that one process ends, and what has ended it."""
    with mock.patch("ttl_distributed.evaluation.SECONDS", seconds):
        return _evaluation_stopped(phase, rank, point, batch_num, n)


def _evaluation_stopped(phase, rank, point, batch_num, n):
    stop = StopEvaluation(rank, point, batch_num)
    loop = make_loop("metrics", stop)
    data = DataLoader(dataset(n), 4)
    if phase == "list":
        loop.test([dataset(4)[:]] * n)
    else:
        {"test": loop.test, "valid": loop.validate, "predict": loop.predict}[phase](data)
    cause = loop.stopped_by
    return len(stop.batches), stop.ended, loop.is_stopped, cause and cause.reason
