"""The benchmark against other libraries, without those: what `make peers` relies on."""

import dataclasses
import gc
from pathlib import Path

import pytest

from benchmarks.agreement import DifferentWorkError, check_same_work
from benchmarks.contender import Contender
from benchmarks.contenders import BY_HAND, OURS
from benchmarks.measuring import Sample, measure_all
from benchmarks.page import BEGIN, END, Results, insert_section, section, verdict
from benchmarks.workloads import WORKLOADS

pytestmark = pytest.mark.usefixtures("one_thread")

COST = Path(__file__).parents[2] / "docs" / "explanation" / "cost.md"
TRAINING = [workload for workload in WORKLOADS.values() if workload.trains]


@pytest.fixture
def few_objects():
    """Freeze existing objects, as the garbage collector runs before each measurement."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("workload", TRAINING, ids=lambda workload: workload.name)
@pytest.mark.parametrize("contender", OURS, ids=lambda contender: contender.name)
def test_ttl_does_the_work_of_the_hand_written_loop(contender, workload):
    """Losses, weights, metrics and averages are the same."""
    assert check_same_work(contender, BY_HAND, workload) < 1e-6


def test_other_work_is_not_measured():
    """A contender that trains less than the hand-written loop is refused."""

    def run_one_epoch(task):
        BY_HAND.runs["step"](dataclasses.replace(task, n_epochs=1))

    lazy = Contender("lazy", runs={"step": run_one_epoch})
    with pytest.raises(DifferentWorkError, match="lazy in 'step'"):
        check_same_work(lazy, BY_HAND, WORKLOADS["step"])


@pytest.mark.usefixtures("few_objects")
@pytest.mark.filterwarnings("ignore:no enabled component:UserWarning")
def test_a_round_measures_every_workload():
    """What was measured makes a section of the page, with a row for each contender."""
    workloads = [dataclasses.replace(w, n_batches=4) for w in WORKLOADS.values()]
    samples = measure_all([BY_HAND, *OURS], workloads, max_rounds=2, max_seconds=0)
    assert {2} == {len(each) for each in samples.values()}
    text = section(Results(BY_HAND, OURS, [], samples, {}, {"Other": "it is not installed"}))
    assert ["hand-written loop", "ttl", "ttl, own step"] == [
        line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")
    ][1:]
    assert "- **Other** is not measured: it is not installed." in text


def results(ours, theirs):
    """Return results of three rounds in which a step by hand takes a second."""
    times = {BY_HAND.name: [1, 1, 1], "ttl": ours, "other": theirs}
    samples = {("step", name): [Sample(t, t) for t in each] for name, each in times.items()}
    return Results(BY_HAND, OURS[:1], [Contender("other", runs={})], samples, {}, {})


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([1.1, 1.1, 1.1], [1.2, 1.2, 1.2], "In this run ttl is ahead of every peer"),
        ([1.3, 1.3, 1.3], [1.2, 1.2, 1.2], "ttl with 1.30 is not ahead of other with 1.20."),
        (
            [1.1, 1.3, 1.4],
            [1.1, 1.2, 1.3],
            "is not ahead of other with 1.20 (their ranges overlap).",
        ),
    ],
)
def test_the_page_says_where_ttl_is_not_first(ours, theirs, expected):
    """There is a sentence for each figure that a peer has the better median of."""
    assert expected in verdict(results(ours, theirs))


def test_the_section_replaces_the_one_before():
    """Everything between the markers is written anew, and nothing else."""
    page = COST.read_text()
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    assert f"{head}{BEGIN}\nnew\n{END}{tail}" == insert_section(page, "new\n")
    with pytest.raises(ValueError, match="no section between"):
        insert_section("a page without markers", "new\n")
