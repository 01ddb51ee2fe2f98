"""What the report of a run says, and when it is written."""

import base64
import hashlib
import logging
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
import ttl_report
from loops import act_at
from recording import StateRecorder

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, use


def raising(point, exception, when=lambda loop: True):
    """Return a component that raises an exception at a point."""

    def fail(loop):
        if when(loop):
            raise exception

    return act_at(point, fail)


def log(values, level="epoch", point="on_epoch_end"):
    """Return a component that logs values at a point."""
    return act_at(point, lambda loop: loop.log(dict(values), level=level))


def status(document):
    """Return how each run of a document ended."""
    return [(run["phase"], run["status"]) for run in document["runs"]]


# -- what is recorded ---------------------------------------------------------------------------


def test_the_page_holds_what_was_logged(make_loop, curves):
    """Values of training batches and of epochs of all phases, by optimization step."""
    loop = make_loop()
    loop.train(n_epochs=2)
    loop.test([0])
    expected = {
        ("train/loss", "batch"): {step: float(step) for step in range(1, 7)},
        ("train/loss", "epoch"): {3: 13.0, 6: 16.0},
        ("valid/loss", "epoch"): {3: 13.0, 6: 16.0},
        ("test/loss", "epoch"): {6: 16.0},
    }
    assert expected == curves()


def test_epochs_are_numbered_as_people_count_them(make_loop, document):
    """The first one is epoch 1; a test after training belongs to the last one."""
    loop = make_loop()
    loop.train(n_epochs=2)
    loop.test([0])
    found = {one["name"]: one["highest"] for one in document()["series"] if one["level"] == "epoch"}
    assert {
        "train/loss": [16.0, 6, 2],
        "valid/loss": [16.0, 6, 2],
        "test/loss": [16.0, 6, 2],
    } == found


def test_values_that_are_no_numbers_are_left_out(make_loop, curves, caplog):
    """A warning names them once."""
    make_loop(log=log({"text": "a", "matrix": torch.ones(2, 2), "n": 1})).train(n_epochs=2)
    assert {("train/n", "epoch"), ("valid/n", "epoch")} == curves().keys()
    assert 4 == len(caplog.messages)
    reason = "a report shows single numbers only"
    assert f"report: 'train/text' is not written: {reason}" == caplog.messages[0]


def test_pictures_in_the_folder_are_shown(make_loop, page, tmp_path):
    """The first four by name, as part of the page; no file that is incomplete or too large."""
    tiny = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
        "gg=="
    )
    (tmp_path / "run").mkdir()
    contents = {"a": tiny[:-1], "b": tiny, "c": b"text", "d": tiny[:-8] + b"\0" * 2**20 + tiny[-8:]}
    for name, content in (contents | dict.fromkeys("efgh", tiny)).items():
        (tmp_path / "run" / f"{name}.png").write_bytes(content)
    make_loop().train(n_epochs=1)
    assert ["b", "e", "f", "g"] == re.findall(r'<img src="data:[^"]*" alt="(\w)">', page())
    source = f"data:image/png;base64,{base64.b64encode(tiny).decode()}"
    assert 4 == page().count(source)


def test_values_that_are_not_finite_are_listed(make_loop, page, document):
    """They are gaps in their curves, and the page says at which steps."""

    class Log(LoopComponent):
        def on_batch_end(self, loop):
            value = {2: "nan", 3: "inf"}.get(loop.global_step, "1")
            loop.log({"loss": torch.tensor(float(value))})

    make_loop(log=Log(), valid_data=None).train(n_epochs=2)
    (series,) = document()["series"]
    assert [1.0, None, None, 1.0, 1.0, 1.0] == series["values"]
    assert [[2, "nan"], [3, "inf"]] == series["non_finite"]
    assert "2 (nan), 3 (inf)" in page()


def test_times_are_of_each_phase(make_loop, document):
    """A validation in mid-epoch, or of a named set, is a phase of its own."""
    inner = act_at(
        "on_batch_begin", lambda loop: loop.batch_num or loop.is_validating or loop.validate()
    )
    make_loop(inner, valid_data={"easy": [0], "hard": [0, 0]}).train(n_epochs=2)
    counts = {name: (row["epochs"], row["batches"]) for name, row in document()["phases"].items()}
    assert {"train": (2, 6), "valid/easy": (4, 4), "valid/hard": (4, 8)} == counts
    assert all(row["seconds"] > 0 for row in document()["phases"].values())


def test_time_inside_other_epochs_counts_once(make_loop, document, monkeypatch):
    """The time of a training epoch is without that of validations inside it."""
    seconds = [0.0]
    monkeypatch.setattr("ttl_report.phase_times.time.monotonic", lambda: seconds[0])

    def work(loop):
        seconds[0] += 1.0 if loop.is_training else 100.0
        if loop.is_training and loop.batch_num == 1:
            loop.validate()

    make_loop(act_at("on_batch_end", work)).train(n_epochs=1)
    assert {"train": 3.0, "valid": 200.0} == {
        name: row["seconds"] for name, row in document()["phases"].items()
    }


def test_what_ran_is_listed_with_links(make_loop, page):
    """Components in call order: distribution, version, configuration, documentation."""
    stopping = use("early-stopping", monitor="valid/loss", patience=7)
    make_loop(stopping).train(n_epochs=1)
    found = page()
    assert '<a href="https://pypi.org/project/ttl-control/">ttl-control</a>' in found
    assert "<dt>patience</dt><dd>7</dd>" in found
    assert f"<td>{torch.__version__}</td>" in found


# -- how it ended -------------------------------------------------------------------------------


def test_a_run_that_is_complete(make_loop, document):
    """Each train() and test() is a run."""
    loop = make_loop()
    loop.train(n_epochs=1)
    loop.train(n_optim_steps=2)
    loop.validate()
    loop.test([0])
    loop.predict([0], collect=False)
    phases = ["train", "train", "valid", "test", "predict"]
    assert [(phase, "complete") for phase in phases] == status(document())


@pytest.mark.parametrize("options", [{"n_epochs": 5}, {"n_optim_steps": 15}], ids=str)
def test_a_run_that_was_stopped(make_loop, document, page, options):
    """Components that say why they have stopped it are quoted."""
    stopping = use("early-stopping", monitor="valid/loss", patience=1)
    loop = make_loop(stopping)
    loop.train(**options)
    loop.test([0])
    assert [("train", "stopped"), ("test", "complete")] == status(document())
    reason = f"early-stopping: {loop.components['early-stopping'].reason}"
    assert reason == document()["runs"][0]["reason"]
    assert reason in page()


def test_a_run_that_failed(make_loop, document, page):
    """The exception is shown as a traceback shows it, with the notes on where it was raised."""
    loop = make_loop(
        raising("on_batch_end", ValueError("a < b"), lambda loop: loop.global_step == 5)
    )
    with pytest.raises(ValueError, match="a < b"):
        loop.train(n_epochs=5)
    (run,) = document()["runs"]
    assert "failed" == run["status"]
    first, note = run["reason"].splitlines()
    assert "ValueError: a < b" == first
    assert note.startswith("ttl: raised by component 'part'")
    assert note.endswith("in on_batch_end, train epoch, epoch_num=1, batch_num=1")
    assert "ValueError: a &lt; b" in page()


@pytest.mark.parametrize(
    ("exception", "status", "reason"),
    [
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (SystemExit(1), "interrupted", "SystemExit: 1"),
        (SystemExit(128 + signal.SIGTERM), "preempted", "SIGTERM: SystemExit: 143"),
    ],
    ids=["ctrl-C", "exit", "SIGTERM"],
)
def test_a_run_that_was_interrupted(make_loop, document, exception, status, reason):
    """What was logged until then is on the page."""
    loop = make_loop(raising("on_batch_end", exception, lambda loop: loop.global_step == 5))
    with pytest.raises(type(exception)):
        loop.train(n_epochs=5)
    (run,) = document()["runs"]
    assert (status, reason) == (run["status"], run["reason"].splitlines()[0])
    assert [1, 2, 3, 4, 5] == document()["series"][0]["steps"]


def test_a_run_that_fails_before_its_first_batch(make_loop, document):
    """The page says so, though there are no curves."""
    loop = make_loop()
    loop.components.append(raising("on_train_begin", ValueError("no")))
    with pytest.raises(ValueError, match="no"):
        loop.train(n_epochs=1)
    assert [("train", "failed")] == status(document())


# -- when it is written -------------------------------------------------------------------------


def test_the_page_is_written_after_each_epoch_and_its_validation(make_loop, document, monkeypatch):
    """While a run is under way the page says so."""
    monkeypatch.setattr("ttl_report.component._MAX_SHARE", float("inf"))
    found = []

    def look(loop):
        series = {(one["name"], one["level"]): one["count"] for one in document()["series"]}
        found.append((series["train/loss", "epoch"], series["valid/loss", "epoch"]))
        assert [("train", "running")] == status(document())

    is_next = lambda loop: loop.is_training and loop.epoch_num  # noqa: E731
    look_later = act_at("on_epoch_begin", lambda loop: look(loop) if is_next(loop) else None)
    make_loop(look_later).train(n_epochs=3)
    assert [(1, 1), (2, 2)] == found


def test_short_epochs_do_not_wait_for_the_page(make_loop, monkeypatch):
    """It is written less often where it would take more than a twentieth of the time."""
    written = []
    monkeypatch.setattr("ttl_report.component.write", lambda path, html: written.append(path))
    make_loop().train(n_epochs=100)
    assert 2 <= len(written) <= 10  # after the first epoch, and at the end


def test_a_page_that_cannot_be_written_does_not_end_training(make_loop, page, tmp_path, caplog):
    """It is a warning, once; later it is tried again."""
    folder = tmp_path / "run"

    def break_and_repair(loop):
        if loop.epoch_num == 0:
            shutil.rmtree(folder)
            folder.write_text("a file where the folder should be")
        if loop.epoch_num == 2:
            folder.unlink()

    loop = make_loop(act_at("on_epoch_end", break_and_repair), valid_data=None)
    loop.train(n_epochs=3)
    assert loop.epoch_num == 3
    (message,) = caplog.messages
    assert message.startswith("report: the page cannot be written: ")
    assert message.endswith("Training continues, and it is tried again")
    assert "<h1>run</h1>" in page()


def test_no_half_page_is_ever_there(make_loop, page, tmp_path, monkeypatch, caplog):
    """Where writing fails, the previous page stays, and nothing else is left behind."""
    loop = make_loop()
    loop.train(n_epochs=1)
    before = page()

    def fail(descriptor):
        os.ftruncate(descriptor, 100)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    loop.train(n_epochs=1)
    assert before == page()
    assert ["report.html"] == os.listdir(tmp_path / "run")
    assert "No space left on device" in caplog.messages[0]


def test_a_folder_is_needed(tmp_path):
    """Without one it is an error before the first batch; by default it is that of the run."""
    loop = TrainTestLoop(torch.nn.Identity(), ["report"], [0])
    with pytest.raises(ArgumentError, match="report has no directory"):
        loop.train(n_epochs=1)
    loop.run_folder = tmp_path
    loop.train(n_epochs=1)
    assert tmp_path / "report.html" == loop.components["report"].path


@pytest.mark.parametrize("options", [{"directory": 3}, {"directory": ""}, {"every": 0}], ids=str)
def test_unusable_arguments_are_refused(options):
    """The error names the argument."""
    with pytest.raises(ArgumentError, match=next(iter(options))):
        TrainTestLoop(torch.nn.Identity(), [use("report", **options)])


# -- state --------------------------------------------------------------------------------------


def test_a_resumed_run_has_the_curves_of_the_whole_run(make_loop, curves, document):
    """From any safe point, in a new process with an empty folder; it lists the runs."""
    recorder = StateRecorder()
    make_loop(recorder).train(n_epochs=2)
    expected, phases = curves(), document()["phases"]
    for i, state in enumerate(recorder.states):
        folder = f"again-{i}"
        loop = make_loop(StateRecorder(), folder=folder)
        loop.load_state_dict(state)
        loop.train(n_epochs=2)
        assert expected == curves(folder)
        assert [("train", "interrupted"), ("train", "complete")] == status(document(folder))
        counts = {name: row["epochs"] for name, row in document(folder)["phases"].items()}
        assert {name: row["epochs"] for name, row in phases.items()} == counts


def script(make_loop, state=None, components=()):
    """Train and test as a script does, from the state of an earlier start; return the last one."""
    recorder = StateRecorder()
    loop = make_loop(*components, recorder)
    if state is not None:
        loop.load_state_dict(state)
    loop.train(n_epochs=2)
    loop.test([0])
    return recorder.states and recorder.states[-1]


def test_a_complete_run_stays_complete_when_its_script_is_started_again(make_loop, document):
    """The page in the folder says how the runs ended after the state was taken, and lists tests."""
    done = [("train", "complete"), ("test", "complete")]
    state = script(make_loop)
    assert done == status(document())
    script(make_loop, state)
    assert [*done, *done] == status(document())


def test_a_resumed_run_says_how_the_one_before_ended(make_loop, document):
    """It failed, which its state could not know."""
    recorder = StateRecorder()
    failing = raising("on_epoch_end", ValueError("five"), lambda loop: loop.global_step == 5)
    with pytest.raises(ValueError, match="five"):
        make_loop(recorder, failing, n_batches=5).train(n_epochs=2)
    loop = make_loop(StateRecorder(), LoopComponent(), n_batches=5)
    loop.components[-2].name = "act-at"
    loop.load_state_dict(recorder.states[1])
    loop.train(n_epochs=1)
    assert [("train", "failed"), ("train", "complete")] == status(document())


def test_the_page_of_another_run_says_nothing(make_loop, document):
    """It is that of a run which the state does not know."""
    state = script(make_loop)
    make_loop(folder="other").train(n_epochs=1)
    loop = make_loop(StateRecorder(), folder="other")
    loop.load_state_dict(state)
    loop.train(n_epochs=2)
    assert [("train", "interrupted"), ("train", "complete")] == status(document("other"))


def test_the_headline_says_which_of_several_runs_it_is_of(make_loop, page):
    """A prediction that failed is no training that has."""
    loop = make_loop()
    loop.train(n_epochs=1)
    assert '<span class="status complete">Complete</span></div>' in page()
    failing = raising("on_batch_end", ValueError("no"), lambda loop: loop.is_predicting)
    loop.components.append(failing)
    with pytest.raises(ValueError, match="no"):
        loop.predict([0])
    assert "<title>run \N{EN DASH} predict failed</title>" in page()
    assert '<span class="status failed">Predict failed</span></div>' in page()


# -- hostile names ------------------------------------------------------------------------------

HOSTILE = "</script><img src=x onerror=alert(1)>"


def test_what_was_logged_is_no_markup(make_loop, page, document):
    """Names, values, texts of exceptions and configurations are text, in HTML and in JSON."""
    loop = make_loop(
        use("early-stopping", monitor=f"valid/{HOSTILE}", patience=3),
        log=log({HOSTILE: 1.0}),
        folder=f"run {HOSTILE.replace('/', '')}",
    )
    loop.components.append(raising("on_train_end", ValueError(HOSTILE)))
    with pytest.raises(ValueError, match="img"):
        loop.train(n_epochs=1)
    html = loop.components["report"].path.read_text()
    assert "<img" not in html
    assert 3 == html.count("</script>")
    assert 8 <= html.count("&lt;img")


def test_half_a_character_in_a_name_is_no_error(make_loop, document):
    """No encoding takes it; it is escaped."""
    make_loop(log=log({"a\ud800": 1.0})).train(n_epochs=1)
    assert "train/a\ud800" == document()["series"][0]["name"]


def test_the_page_allows_no_scripts_but_its_own(make_loop, page):
    """Its policy names them by their digests, and nothing may be loaded from elsewhere."""
    make_loop().train(n_epochs=1)
    html = page()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=\"(?!data:|https://pypi\.org/project/)", html)


def test_the_vendored_files_are_those_of_the_release():
    """Their digests are those that were taken of the package on npm."""
    folder = Path(ttl_report.__file__).parent / "static" / "uplot"
    digests = dict(
        re.findall(
            r"^\| `(.+)` \| `(\w{64})` \|$", (folder / "README.md").read_text(), re.MULTILINE
        )
    )
    assert {"uPlot.iife.min.js", "uPlot.min.css", "LICENSE"} == digests.keys()
    for name, digest in digests.items():
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_logging_is_quiet(make_loop, caplog):
    """A run without trouble says nothing."""
    with caplog.at_level(logging.INFO):
        make_loop().train(n_epochs=1)
    assert [] == caplog.messages
