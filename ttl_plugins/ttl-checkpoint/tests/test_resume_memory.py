"""How much memory resuming takes."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch

from ttl_core import TrainTestLoop, use

SIZE = 64 * 2**20  # bytes of the model


class Large(torch.nn.Module):
    """A model of 64 MB."""

    def __init__(self):
        super().__init__()
        self.register_buffer("values", torch.ones(SIZE // 4))


def memory(kind):
    """Return the memory of this process in bytes, less its libraries: "VmRSS", or "VmHWM" (peak).

    How much of a library is mapped depends on the kernel, and on what else has read it.
    """
    status = Path("/proc/self/status").read_text()
    kib = {key: int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) for key in (kind, "RssFile")}
    return (kib[kind] - kib["RssFile"]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_resuming_holds_the_state_once(tmp_path):
    """C12: besides the model there is one copy of the state, the one that was read."""

    def make_loop():
        checkpoint = use("checkpoint", directory=tmp_path)
        return TrainTestLoop(Large(), [checkpoint], [0, 0])

    make_loop().train(1)
    loop = make_loop()
    loop.model.values.zero_()
    pid = os.fork()
    if pid == 0:  # where nothing else takes memory
        status = 1
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is used now
            before = memory("VmRSS")
            loop.train(1)
            taken = (memory("VmHWM") - before) / SIZE
            print(f"besides the model: {taken:.2f} of its size")
            is_restored = bool((loop.model.values == 1).all())
            status = 0 if is_restored and taken < 1.5 else 2
        finally:
            os._exit(status)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
