"""The processes that train together, as the core knows them."""

import subprocess
import sys

import pytest
import torch

from ttl_core import Group, LoopComponent, TrainTestLoop


class Second(Group):
    """The second of two processes, without the first."""

    rank, size = 1, 2

    def __init__(self):
        self.causes = []

    def request_stop(self, cause):
        self.causes.append(cause)


class Join(LoopComponent):
    def __init__(self, group):
        self.group = group

    def join_group(self):
        return self.group


class Count(LoopComponent):
    n = 0

    def on_batch_end(self, loop):
        self.n += 1

    def state_dict(self):
        return {"n": self.n}

    def load_state_dict(self, state):
        self.n = state["n"]


class CountInMain(Count):
    main_only = True


class KeepState(LoopComponent):
    state = None

    def on_safe_point(self, loop):
        self.state = loop.state_dict()


def loop_of(*components):
    """Return a loop over two batches without a model to train."""
    return TrainTestLoop(torch.nn.Identity(), [*components], [0, 1])


def test_one_process_is_a_group_too():
    """Without a component that joins others, the group is this process."""
    group = loop_of().group
    assert (0, 1, True) == (group.rank, group.size, group.is_main)


def test_the_group_is_that_of_the_first_enabled_component_that_joins_one():
    """It is joined when it is first read, and again when a run begins."""
    first, second = Join(None), Join(Second())
    loop = loop_of(first, second)
    assert second.group is loop.group
    loop.components.disable(second)
    loop.train(1)
    assert 1 == loop.group.size


def test_main_only_components_are_left_out_of_other_processes():
    """They stay enabled and in the manifest, without a call and without state."""
    main, every = CountInMain(), Count()
    alone = loop_of(CountInMain(), Count(), KeepState())
    alone.train(1)
    loop = loop_of(main, every, KeepState(), Join(Second()))
    loop.train(1)
    assert (0, 2) == (main.n, every.n)
    assert loop.components.is_enabled(main)
    assert [r["enabled"] for r in alone.manifest()] == [r["enabled"] for r in loop.manifest()[:3]]
    assert {"count": {"n": 2}} == loop.components["keep-state"].state["components"]
    assert {"count-in-main", "count"} == alone.components["keep-state"].state["components"].keys()


def test_main_only_components_do_not_load_state_in_other_processes():
    """As loading it may change a file that belongs to the main process."""
    alone = loop_of(CountInMain(), Count(), KeepState())
    alone.train(1)
    main, every = CountInMain(), Count()
    loop = loop_of(main, every, KeepState(), Join(Second()))
    loop.load_state_dict(alone.components["keep-state"].state, ignore=["join"])
    loop.train(2)
    assert (0, 4) == (main.n, every.n)


def test_stop_is_a_request_in_a_group():
    """It returns, and the group decides when the run ends."""

    class Stop(LoopComponent):
        def on_batch_begin(self, loop):
            loop.stop("enough")

    group, count = Second(), Count()
    loop = loop_of(Join(group), Stop(), count)
    loop.train(1)
    assert [("stop", "enough")] * 2 == group.causes
    assert (2, False) == (count.n, loop.is_stopped)


def test_a_run_that_was_stopped_resumes_to_its_end_in_a_group_too():
    """The loop ends it itself, which is no request to the others."""

    class KeepEnd(LoopComponent):
        def on_train_end(self, loop):
            self.state = loop.state_dict(allow_unsafe=True)

    class StopAtSafePoint(LoopComponent):
        def on_safe_point(self, loop):
            loop.stop()

    alone = loop_of(Count(), StopAtSafePoint(), KeepEnd())
    alone.train(1)
    group = Second()
    loop = loop_of(Count(), Join(group))
    loop.load_state_dict(alone.components["keep-end"].state)
    loop.train(1)
    assert (1, []) == (loop.components["count"].n, group.causes)


@pytest.mark.parametrize("module", ["torch.distributed.distributed_c10d", "torch"])
def test_the_module_of_groups_imports_no_torch(module):
    """A component may name `Group` without a cost."""
    code = f"import sys, ttl_core.group; sys.exit({module!r} in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
