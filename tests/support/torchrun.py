"""The program of tests/support/group_program.py, as the command torchrun runs it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import group_cases
import group_program
from process_groups import in_group

PROGRAM = Path(group_program.__file__)


def run(directory, what, *options):
    """Return the exit status and the output of a program in two processes, and when it ended."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *options]
    command = [*torchrun, str(PROGRAM), str(directory), what]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr, time.time()


def expected():
    """Return what a run without an interruption comes to, in two processes."""
    return in_group(2, group_cases.train, "alone")[0]["weights"]["2.bias"]
