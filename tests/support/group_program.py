"""A program for torchrun: it trains with checkpoints, and fails in one process as it is told.

torchrun --nproc-per-node 2 group_program.py DIRECTORY WHAT
"""

import os
import signal
import sys
import time

from group_data import Seen
from group_loops import facts, make_loop

from ttl_core import LoopComponent, use

N_RESTARTS = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


class Fail(LoopComponent):
    """A failure of rank 1 in the second epoch."""

    def __init__(self, what):
        self.what = what

    def on_batch_end(self, loop):
        is_due = self.what != "kill once" or N_RESTARTS == 0
        if loop.is_training and loop.epoch_num == 1 and loop.group.rank == 1 and is_due:
            print(f"failing at {time.time()}", flush=True)
            if self.what == "raise":
                raise ValueError("it was to be expected")
            if self.what in ("kill", "kill once"):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "signal":
                os.kill(os.getpid(), signal.SIGTERM)


def main(directory, what):
    """Train, and print what the main process has come to."""
    loop = make_loop(Seen(), "metrics", use("checkpoint", directory=directory), Fail(what))
    loop.train(4)
    if loop.group.is_main:
        print(f"steps={loop.global_step} weights={facts(loop)['weights']['2.bias']}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
