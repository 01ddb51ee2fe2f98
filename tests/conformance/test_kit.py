"""The kit for authors: correct components pass, the report shows reasons, no check is untried."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from specimens import checks, kit_for, names_in_specimens

from ttl_core import LoopComponent, TrainTestLoop, hookimpl
from ttl_core.testing import ComponentConformance, Step
from ttl_core.testing.probes import MOMENTS, Probe


class Quiet(LoopComponent):
    """A component without faults."""

    def on_batch_end(self, loop):
        self.seen = loop.batch_num


class TestQuiet(ComponentConformance):
    def make_components(self):
        return [Step(), Quiet()]


class Busy(LoopComponent):
    """A component that does all that is allowed, and undoes it.

    Args:
        every: in which batches it logs.
    """

    def __init__(self, every: int = 1):
        if not isinstance(every, int):
            raise TypeError(f"every is {every!r}, but has to be a whole number")
        self.every = every
        self.n_seen = 0
        self._total = torch.zeros(())

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        handle = loop.model[0].register_forward_hook(lambda *_: None)
        default = torch.get_default_dtype()
        try:
            return (yield)
        finally:
            handle.remove()
            torch.set_default_dtype(default)

    @hookimpl(wrapper=True)
    def on_forward_pass(self, loop):
        with torch.autocast("cpu", torch.bfloat16):
            return (yield)

    @hookimpl(wrapper=True)
    def on_backward_pass(self, loop):
        loss, loop.loss = loop.loss, loop.loss * 2
        try:
            return (yield)
        finally:
            loop.loss = loss

    def on_optim_step(self, loop):
        for parameter in loop.model.parameters():
            parameter.data.mul_(0.999)

    def on_batch_end(self, loop):
        if loop.is_training:
            self.n_seen += 1
            self._total = self._total + loop.loss.detach()
            if self.n_seen % self.every == 0:
                loop.log({"total": self._total})

    def state_dict(self):
        return {"n_seen": self.n_seen, "total": self._total}

    def load_state_dict(self, state):
        self.n_seen, self._total = state["n_seen"], state["total"]


class TestBusy(ComponentConformance):
    def make_components(self):
        return [Step(), Busy(every=2)]


def test_every_check_has_a_specimen_that_fails_it():
    """No check is untried: for each, a component with a bug is in the tests."""
    untried = set(checks()) - names_in_specimens()
    assert {"test_trains", "test_validates_alone"} == untried  # which others find earlier


def test_the_page_lists_every_check():
    """docs/how-to/testing.md has a row for each check, with the first line of its docstring."""
    lines = {n: inspect.getdoc(getattr(ComponentConformance, n)).splitlines()[0] for n in checks()}
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "testing.md").read_text()
    assert lines == dict(re.findall(r"^\| `(test_\w+)` \| (.*) \|$", page, re.MULTILINE))


def test_a_run_of_the_kit_reaches_every_point():
    """A full run of the kit with a step reaches every moment at which it can act."""
    seen = set()
    kit = kit_for(Quiet)
    loop = kit._loop()
    loop.components.append(Probe(lambda loop, moment: seen.add(moment), *MOMENTS))
    kit._run_all(loop)
    assert set(MOMENTS) == seen


def test_what_is_declared_is_allowed():
    """A component may write what the author has declared that it writes."""

    class Decays(LoopComponent):
        def on_epoch_begin(self, loop):
            loop.model[0].weight.data.mul_(0.99)

    with pytest.raises(AssertionError, match=r"parameter 0\.weight was"):
        kit_for(Decays).test_writes_only_what_is_its_own()
    kit_for(Decays, writes={"weights"}).test_writes_only_what_is_its_own()


PACKAGE = """
    from ttl_core import LoopComponent
    from ttl_core.testing import ComponentConformance, Step

    class Draws(LoopComponent):
        def on_epoch_begin(self, loop):
            import torch
            torch.rand(1)

    class TestDraws(ComponentConformance):
        opted_out = {opted_out}

        def make_components(self):
            return [Step(), Draws()]
"""


OPTED_OUT = {
    "plain": "{}",
    "with_reason": "{'test_leaves_random_streams_alone': 'it draws'}",
    "misspelled": "{'test_random': 'it draws'}",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return what pytest reports of a package with a component in three classes of tests."""
    folder = tmp_path_factory.mktemp("package")
    for name, opted_out in OPTED_OUT.items():
        text = dedent(PACKAGE).replace("{opted_out}", opted_out)
        (folder / f"test_{name}.py").write_text(text)
    chosen = "test_leaves_random_streams_alone or (test_misspelled and test_trains_twice)"
    options = ["-q", "-rs", "-p", "no:cacheprovider", "-k", chosen]
    command = [sys.executable, "-m", "pytest", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


def test_the_report_shows_why_a_check_is_opted_out_of(report):
    """A check that is opted out of is skipped, with the reason."""
    assert "1 skipped" in report
    assert "opted out: it draws" in report


def test_a_misspelled_name_cannot_be_opted_out(report):
    """A name that is none of a check is an error, as the check would run."""
    assert "opted_out has 'test_random': 'it draws'" in report


def test_messages_need_no_rewriting_of_assertions(report):
    """In a package of its own, a failure says in words what differs and where."""
    assert "on_epoch_begin, in train epoch 0: the global random stream of torch was" in report


def test_the_model_is_the_same_each_time():
    """The models of two loops have the same weights, in memory of their own."""
    one, other = ComponentConformance.make_model(), ComponentConformance.make_model()
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert one[0].weight is not other[0].weight
    assert isinstance(TrainTestLoop(one).model, torch.nn.Module)
