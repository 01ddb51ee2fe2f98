"""Runs that torchrun restarts whenever one of their processes has been killed."""

import contextlib
import os
import random
import signal
import sys
import time
from typing import NamedTuple

import group_checkpoints
import torch
import ttl_distributed.group
from process_groups import CONTEXT, launch, start_server


class Kills(NamedTuple):
    """When processes are killed, and how they begin again.

    Attributes:
        n: how many of the first starts end with a kill.
        seed: what decides which process is killed, and when.
        longest: how many seconds after its start at most.
        skew: how many seconds one process comes later than the others, in restarts.
    """

    n: int
    seed: int = 0
    longest: float = 0.5
    skew: float = 0.0

    def plan(self):
        """In a process that torchrun has started, wait as long as it should, and plan its end."""
        n_restarts, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])
        chance = random.Random(f"{self.seed} {n_restarts}")
        victim = chance.randrange(int(os.environ["WORLD_SIZE"]))
        seconds = chance.uniform(0.01, self.longest)
        if n_restarts and rank == victim:
            time.sleep(self.skew)
        if n_restarts < self.n and rank == victim:
            signal.setitimer(signal.ITIMER_REAL, seconds)  # ends it without a line of Python


def elastic_run(size, directory, kills, *, n_epochs=20, naive=False, seconds=120):
    """Train with checkpoints while processes are killed, and return what came of each process.

    It is the agent of the command torchrun, in a process that is forked from a warm one, as its
    processes are, so that they begin at once.

    Args:
        size: the number of processes.
        directory: where the checkpoints are.
        kills: when processes are killed.
        n_epochs: how long to train.
        naive: whether to find one another by the store of torchrun as it is.
        seconds: how long to wait.

    Returns:
        How often the group was started again, and the facts of each process in the order of ranks;
        None if it hung, or has failed.
    """
    start_server()
    ours, theirs = CONTEXT.Pipe()
    arguments = theirs, size, str(directory), kills, n_epochs, naive
    agent = CONTEXT.Process(target=_launch, args=arguments)
    agent.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(seconds) else None
    except EOFError:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(agent.pid, signal.SIGKILL)
        agent.join()


def _launch(pipe, size, directory, kills, n_epochs, naive):
    """Start processes, and start them again, as torchrun does with --max-restarts."""
    os.setsid()  # so that all of them can be ended together
    found = launch(size, _work, directory, kills, n_epochs, naive, max_restarts=kills.n + 1)
    pipe.send((found[0][0], [found[rank][1] for rank in range(size)]))


def _store_of_torchrun(place, timeout):
    """Return the store in which those of earlier starts have left their addresses."""
    store, _, _ = next(torch.distributed.rendezvous("env://"))
    return store


def _work(directory, kills, n_epochs, naive):
    """Train, in a process that the agent has started."""
    kills.plan()
    if naive:
        ttl_distributed.group.store_of_start = _store_of_torchrun
    # so that the training is not over before the last kill
    facts = group_checkpoints.saved(directory, n_epochs=n_epochs, pause=0.03)
    sys.stdout.flush()
    if facts["error"]:
        raise RuntimeError(facts["error"])
    return int(os.environ["TORCHELASTIC_RESTART_COUNT"]), facts_of(facts)


def facts_of(saved):
    """Return what has to be the same, of what `group_checkpoints.saved` returns."""
    return {name: saved[name] for name in ("steps", "weights", "metrics", "draw")}
