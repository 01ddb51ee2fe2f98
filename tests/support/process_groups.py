"""Groups of processes for tests: forked once from a warm process, and used for many cases."""

import atexit
import contextlib
import multiprocessing
import multiprocessing.forkserver as forkserver
import os
import signal
import socket
import sys
import traceback
import warnings

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["warm_group"])
_groups = {}
SECONDS = 60


def in_group(size, function, *arguments):
    """Return what a function returns in each process of a group, in the order of ranks.

    Args:
        size: the number of processes.
        function: a function of a module in tests/support.
        *arguments: its arguments, as pickle takes them.

    Raises:
        AssertionError: it has failed in one of them, or did not return in time.
    """
    if size not in _groups:
        _groups[size] = _Workers(size)
    outcomes = _groups[size].call(function, arguments)
    failures = [f"rank {i}: {text}" for i, (text, _) in enumerate(outcomes) if text]
    if failures:
        _groups.pop(size).kill()  # what is left of it may hang
    assert not failures, "\n".join(failures)
    return [value for _, value in outcomes]


def ends_in_group(size, function, *arguments):
    """Return what a function returns in each process of a group of its own, which then ends.

    A process that has returned ends, as one does that fails, whatever the others wait for.

    Args:
        size: the number of processes.
        function: a function of a module in tests/support.
        *arguments: its arguments, as pickle takes them.

    Raises:
        AssertionError: it has failed in one of them, or did not return in time.
    """
    workers = _Workers(size, is_ending=True)
    outcomes = workers.call(function, arguments)
    workers.kill()
    failures = [f"rank {i}: {text}" for i, (text, _) in enumerate(outcomes) if text]
    assert not failures, "\n".join(failures)
    return [value for _, value in outcomes]


def free_port():
    """Return a port that no process listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start_server():
    """Start the process that the others are forked from, with the modules of this folder."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (os.path.dirname(os.path.abspath(__file__)), before))
    )
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


class _Workers:
    def __init__(self, size, is_ending=False):
        port = free_port()
        self.pipes, self.processes = [], []
        start_server()
        for rank in range(size):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(
                target=_work, args=(theirs, rank, size, port, is_ending), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def call(self, function, arguments):
        for pipe in self.pipes:
            pipe.send((function, arguments))
        outcomes = []
        for pipe in self.pipes:
            outcome = f"it did not end within {SECONDS} seconds", None
            with contextlib.suppress(EOFError, OSError):
                if pipe.poll(SECONDS if not any(text for text, _ in outcomes) else 5):
                    outcome = pipe.recv()
            outcomes.append(outcome)
        return outcomes

    def kill(self):
        for process in self.processes:
            process.kill()
            process.join()


@atexit.register
def _end():
    for workers in _groups.values():
        workers.kill()


def _work(pipe, rank, size, port, is_ending):
    """Answer calls, as a process that torchrun has started."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                outcome = "", function(*arguments)
        except BaseException:
            outcome = traceback.format_exc(), None
        sys.stdout.flush()
        pipe.send(outcome)
        if is_ending:
            os._exit(0)
