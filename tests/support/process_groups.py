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
import uuid
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


def run_by_torchrun(size, output, function, *arguments):
    """Return the exit status of torchrun for a function; its output goes to a file.

    It is what torchrun runs, with processes that are forked: new ones import torch for seconds.

    Args:
        size: the number of processes.
        output: the path of the file.
        function: a function of a module in tests/support.
        *arguments: its arguments, as pickle takes them.
    """
    start_server()
    process = CONTEXT.Process(target=_launch_with_output, args=(size, output, function, arguments))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode


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


def what_is_left_of_group(size, function, *arguments):
    """Return the same, but None for processes that are killed meanwhile."""
    workers = _Workers(size, is_ending=True)
    outcomes = workers.call(function, arguments)
    statuses = workers.kill()
    pairs = zip(outcomes, statuses, strict=True)
    failures = [text for (text, _), status in pairs if text and status != -signal.SIGKILL]
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


def launch(size, function, *arguments, max_restarts=0):
    """Call a function in processes that are started as torchrun does, but forked.

    Args:
        size: the number of processes.
        function: the function.
        *arguments: its arguments.
        max_restarts: how often they may be started again.

    Returns:
        What it returns in each, by rank.
    """
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=size,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        start_method="fork",
    )
    return elastic_launch(config, _call_as_program)(function, *arguments)


def _launch_with_output(size, output, function, arguments):
    """Launch processes whose output goes to a file, all of which can be ended together."""
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    launch(size, function, *arguments)


def _call_as_program(function, *arguments):
    """Call a function without the handlers of signals that torchrun has, which are forked too."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return function(*arguments)


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
        """End what is left, and return the exit statuses of those that had ended by themselves."""
        statuses = []
        for process in self.processes:
            process.join(0.1)
            statuses.append(process.exitcode)
            process.kill()
            process.join()
        return statuses


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
