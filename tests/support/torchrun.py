"""The program of tests/support/group_program.py, as the command torchrun runs it."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import group_cases
import group_program
import pytest
from process_groups import in_group, run_by_torchrun

PROGRAM = Path(group_program.__file__)
VARIABLES = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def run(directory, what, *options):
    """Return the exit status and the output of a program in two processes, and when it ended."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *options]
    command = [*torchrun, str(PROGRAM), str(directory), what]
    done = subprocess.run(
        command, env=VARIABLES, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr, time.time()


def run_forked(directory, what):
    """Return the same of two processes that are forked, which does not take seconds."""
    output = directory / "output.txt"
    output.unlink(missing_ok=True)
    status = run_by_torchrun(2, str(output), group_program.main, str(directory), what)
    return status, output.read_text(), time.time()


@contextlib.contextmanager
def hosts(n):
    """Make network namespaces, as hosts that reach one another, until the context ends.

    Yields:
        For each its name, its address and the name of its interface.
    """
    require(shutil.which("ip"), "the command ip, of iproute2")
    require(os.geteuid() == 0, "the rights of root")
    tag = f"ttl{os.getpid()}"
    found = [(f"{tag}-{i}", f"10.213.7.{i + 1}", f"{tag}v{i}") for i in range(n)]
    with contextlib.ExitStack() as stack:
        why = ip("link", "add", tag, "type", "bridge")
        require(not why, f"network namespaces: {why}")
        stack.callback(ip, "link", "del", tag)
        ip("link", "set", tag, "up")
        for name, address, interface in found:
            why = ip("netns", "add", name)
            require(not why, f"network namespaces: {why}")
            stack.callback(ip, "netns", "del", name)
            outer = f"{interface}o"
            peer = "peer", "name", interface, "netns", name
            for command in (
                ("link", "add", outer, "type", "veth", *peer),
                ("link", "set", outer, "master", tag, "up"),
                ("-n", name, "address", "add", f"{address}/24", "dev", interface),
                ("-n", name, "link", "set", interface, "up"),
                ("-n", name, "link", "set", "lo", "up"),
            ):
                why = ip(*command)
                require(not why, f"network namespaces: {why}")
        yield found


def ip(*arguments):
    """Run the command ip, and return what it says where it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def require(condition, what):
    """Skip a test for which something is missing."""
    if not condition:
        pytest.skip(f"two hosts take {what}")


def run_on_hosts(found, directory, what, *options, seconds=300):
    """Return the exit statuses and the outputs of a program, of which each host has a process."""
    _, first, _ = found[0]
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        running = []
        for i, (name, address, interface) in enumerate(found):
            torchrun = [
                *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes", str(len(found)), "--nproc-per-node", "1", "--rdzv-backend", "c10d"),
                *("--rdzv-endpoint", f"{first}:29500", "--rdzv-conf", f"is_host={int(i == 0)}"),
                *("--rdzv-id", "test", "--local-addr", address, *options),
            ]
            # the name of this machine has no address that all of these hosts know
            variables = {**VARIABLES, "GLOO_SOCKET_IFNAME": interface}
            output = stack.enter_context(tempfile.TemporaryFile("w+"))
            program = [*torchrun, str(PROGRAM), str(directory), what]
            process = subprocess.Popen(program, env=variables, stdout=output, stderr=output)
            running.append((process, output))
        outcomes = []
        for process, output in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 1))
            status = process.poll()
            if status is None:
                process.terminate()  # which ends its processes
                process.wait()
            output.seek(0)
            outcomes.append((status, output.read()))
        return outcomes


def expected():
    """Return what a run without an interruption comes to, in two processes."""
    return in_group(2, group_cases.train, "alone")[0]["weights"]["2.bias"]
