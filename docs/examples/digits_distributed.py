"""Train the digits on two processes, kill one of them, and resume: `make demo-distributed`.

It compares what comes out with a run that was not interrupted, and ends with an error if they
differ.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import digits

from ttl_core import LoopComponent


class Kill(LoopComponent):
    """An end without warning of the second process, in the middle of an epoch."""

    def on_batch_end(self, loop):
        if loop.group.rank == 1 and loop.epoch_num == 4 and loop.batch_num == 7:
            os.kill(os.getpid(), signal.SIGKILL)


def torchrun(folder, what):
    """Run this program in two processes, and return its status and what it printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    with subprocess.Popen(
        [*command, __file__, str(folder), what],
        env={"OMP_NUM_THREADS": "1", **os.environ},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        lines = []
        for line in running.stdout:
            lines.append(line)
            if line.startswith("valid epoch"):
                print(f"  {line}", end="", flush=True)
    return running.returncode, "".join(lines)


def accuracy(printed):
    """Return the accuracy that a run has printed."""
    return float(re.search(r"test accuracy ([\d.]+)", printed)[1])


def main():
    """Train three times, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        print("Two processes, without an interruption:")
        _, whole = torchrun(Path(folder) / "whole", "train")
        print("Two processes, of which one is killed in its fifth epoch:")
        status, _ = torchrun(Path(folder) / "killed", "kill")
        print(f"  both have ended, with status {status}\nThe same program again:")
        _, resumed = torchrun(Path(folder) / "killed", "train")
    print(f"test accuracy {accuracy(whole):.4f} without the kill, {accuracy(resumed):.4f} with it")
    if status == 0 or accuracy(whole) != accuracy(resumed):
        sys.exit("these should be the same")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        digits.main(sys.argv[1], [Kill()] if sys.argv[2] == "kill" else [])
