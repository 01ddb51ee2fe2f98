"""B4: what several threads may do at the same time."""

import subprocess
import sys
import threading

import torch
from loops import make_loop, named

from ttl_core import LoopComponent, TrainTestLoop
from ttl_core.discovery import scanning


def run_together(*functions, n=1):
    """Run functions in threads of their own, which start together; raise what one raised."""
    barrier, errors = threading.Barrier(len(functions) * n), []

    def run(function):
        barrier.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[f]) for f in functions * n]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_that_scan_at_the_same_time_see_the_whole_scan(monkeypatch):
    """The first scan is complete before any thread sees it."""
    expected = {name: len(found) for name, found in scanning.scan().components.items()}
    assert expected
    seen = []
    for _ in range(5):
        monkeypatch.setattr(scanning, "_newest_scan", None)
        run_together(lambda: seen.append(scanning.scan()), n=4)
    assert [expected] * 20 == [
        {name: len(found) for name, found in scan.components.items()} for scan in seen
    ]


def test_names_can_be_used_from_several_threads_at_once():
    """Loops of installed components are created in a fresh process by several threads."""
    program = """
import sys, threading, torch
from ttl_core import TrainTestLoop, use
errors = []
def make():
    try:
        TrainTestLoop(torch.nn.Identity(), [use("time-limit", seconds=1)])
    except Exception as error:
        errors.append(error)
threads = [threading.Thread(target=make) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(str(errors) if errors else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (0, "") == (done.returncode, done.stderr)


def test_logging_from_a_thread_while_the_list_is_edited_breaks_nothing():
    """loop.log() calls every component that is in the list all the time."""
    seen = []

    class Watch(LoopComponent):
        def on_log(self, loop, metrics, level):
            seen.extend(metrics.values())  # of "x", or of "train/x" inside an epoch

    class Edit(LoopComponent):
        def on_batch_end(self, loop):
            loop.components.append(named("more"))
            loop.components.disable("more")
            del loop.components["more"]

    loop = TrainTestLoop(torch.nn.Identity(), [Watch(), Edit()], range(300))

    def log():
        for _ in range(2000):
            loop.log({"x": 1})

    run_together(lambda: loop.train(1), log)
    assert (2000, 300) == (len(seen), loop.global_step)


def test_lists_of_several_loops_are_edited_by_several_threads():
    """Loops share nothing that an edit changes."""

    def edit():
        loop = make_loop(*map(named, "abc"))
        for _ in range(100):
            loop.components.reverse()
            loop.hook.on_batch_end(loop=loop)

    run_together(edit, n=4)
