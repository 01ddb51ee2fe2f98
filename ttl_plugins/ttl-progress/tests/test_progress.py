"""What `progress` prints, what it shows in a terminal, and when it reads values."""

import io
import logging
import os
import pty
import re
import sys

import nbclient
import nbformat
import pytest
import rich
import torch
from rich.console import Console
from torch import nn
from ttl_progress import Progress

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, hookimpl, use

pytestmark = pytest.mark.usefixtures("one_thread")

# -- around the component -----------------------------------------------------------------------


class Step(LoopComponent):
    """A component that sets a loss."""

    def on_loss_compute(self, loop):
        loop.loss = torch.tensor(0.25, requires_grad=True)


class Do(LoopComponent):
    """A component that performs an action at one point."""

    def __init__(self, point, action):
        setattr(self, point, lambda loop: action(loop))


class Stream:
    """Data of unknown length."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


class Value:
    """A number that counts how often it is read."""

    reads = 0

    def __float__(self):
        Value.reads += 1
        return 0.5


class Clock:
    """A clock that a test sets, in place of the module `time`."""

    def __init__(self):
        self.seconds = 0.0

    def monotonic(self):
        return self.seconds


class Screen(io.StringIO):
    """The part of a terminal that rich uses: lines, and a cursor that moves up and down."""

    def __init__(self):
        super().__init__()
        self.lines, self.row, self.frames, self.has_cursor = [""], 0, [], True

    def write(self, text):
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
            match part:
                case "\n":
                    self.row += 1
                    self.lines += [""] * (self.row == len(self.lines))
                case "\r":
                    pass  # what rich writes next is a whole line, or clears one
                case "\x1b[2K":
                    self.lines[self.row] = ""
                case "\x1b[1A":
                    self.row -= 1
                case "\x1b[?25l" | "\x1b[?25h":
                    self.has_cursor = part[-1] == "h"
                case _ if part.startswith("\x1b"):
                    assert part.endswith("m"), f"unknown control code {part!r}"
                case _:
                    self.lines[self.row] += part
        return len(text)

    def flush(self):
        self.frames.append(self.shown())

    def shown(self):
        """Return the lines that are not empty."""
        return [line.rstrip() for line in self.lines if line.strip()]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Provide the clock that the component reads, set to 0 seconds."""
    clock = Clock()
    monkeypatch.setattr("ttl_progress.progress.time", clock)
    return clock


@pytest.fixture
def screen():
    """Provide a terminal of 80 columns."""
    return Screen()


@pytest.fixture
def bar(screen):
    """Provide a component that shows its bar on the screen."""
    return Progress(refresh_per_second=10, console=terminal(screen))


@pytest.fixture
def rest(clock):
    """Provide a component that makes each batch last long enough for a refresh."""

    def advance(loop):
        clock.seconds += 0.11

    return Do("on_batch_end", advance)


def terminal(screen, width=80):
    """Return a console on a screen."""
    return Console(
        file=screen, width=width, force_terminal=True, force_interactive=True, color_system=None
    )


def make_loop(*components, n_train=3, n_valid=None):
    """Return a loop over batches of two samples."""
    batches = [torch.ones(2)] * 1000
    valid_data = None if n_valid is None else batches[:n_valid]
    return TrainTestLoop(nn.Identity(), [Step(), *components], batches[:n_train], valid_data)


def lines(capsys):
    """Return the printed lines."""
    return capsys.readouterr().out.splitlines()


def labels(capsys):
    """Return the printed labels of epochs."""
    return [line.partition("  ")[0] for line in lines(capsys)]


def ever_shown(screen):
    """Return every line that was on the screen at some time."""
    return {line for frame in screen.frames for line in frame}


# -- a line an epoch ----------------------------------------------------------------------------


def test_each_epoch_is_one_plain_line(capsys):
    """Where the output is no terminal, it holds a line an epoch and no control codes."""
    make_loop("progress", n_valid=1).train(n_epochs=2)
    expected = "".join(
        f"train epoch {epoch}/2  3 batches  0.0 s  last loss 0.25\n"
        f"valid epoch {epoch}/2  1 batch  0.0 s  last loss 0.25\n"
        for epoch in (1, 2)
    )
    assert expected == capsys.readouterr().out


def test_forced_colors_make_no_terminal(capsys, monkeypatch):
    """FORCE_COLOR, which build servers set, adds no control codes to a file."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    make_loop("progress", n_train=1).train(n_epochs=1)
    assert ["train epoch 1/1  1 batch  0.0 s  last loss 0.25"] == lines(capsys)


@pytest.mark.parametrize("place", [1, 2], ids=["before", "after"])
def test_values_of_the_epoch_are_shown_wherever_their_component_is_placed(capsys, place):
    """What is logged in on_epoch_end is on the line, in the order in which it was logged."""
    loop = make_loop("progress", n_train=1)
    values = {"loss": torch.tensor(0.3125), "accuracy": 0.912345, "n": 3, "best": "yes"}
    loop.components.insert(place, Do("on_epoch_end", lambda loop: loop.log(values, "epoch")))
    loop.train(n_epochs=1)
    expected = "train epoch 1/1  1 batch  0.0 s  loss 0.3125  accuracy 0.9123  n 3  best yes"
    assert [expected] == lines(capsys)


def test_values_that_a_wrapper_logs_are_shown(capsys):
    """A component that logs when its around_epoch ends is not too late."""

    class Late(LoopComponent):
        @hookimpl(wrapper=True)
        def around_epoch(self, loop):
            result = yield
            loop.log({"loss": 7}, level="epoch")
            return result

    make_loop(Late(), "progress", n_train=1).train(n_epochs=1)
    assert ["train epoch 1/1  1 batch  0.0 s  loss 7"] == lines(capsys)


def test_values_of_a_batch_are_not_those_of_the_epoch(capsys):
    """What is logged at batch level stays off the line."""
    noise = Do("on_batch_end", lambda loop: loop.log({"grad_norm": 9.0}))
    make_loop(noise, "progress", n_train=1).train(n_epochs=1)
    assert ["train epoch 1/1  1 batch  0.0 s  last loss 0.25"] == lines(capsys)


def test_values_that_are_no_number_are_left_out(capsys):
    """A confusion matrix does not fit on a line."""
    values = {"loss": 1, "matrix": torch.eye(2), "nothing": None}
    log = Do("on_epoch_end", lambda loop: loop.log(values, "epoch"))
    make_loop(log, "progress", n_train=1).train(n_epochs=1)
    assert ["train epoch 1/1  1 batch  0.0 s  loss 1"] == lines(capsys)


def test_an_integer_beyond_the_range_of_float_does_not_end_training(capsys):
    """It is shown as infinity, and is in no table."""
    log = Do("on_epoch_end", lambda loop: loop.log({"loss": 1, "big": -(10**400)}, "epoch"))
    make_loop(log, "progress", n_train=1).train(n_epochs=2)
    assert "train epoch 1/2  1 batch  0.0 s  loss 1  big -inf" == lines(capsys)[0]


def test_markup_in_a_name_is_text(capsys):
    """Brackets are printed as they are."""
    log = Do("on_epoch_end", lambda loop: loop.log({"loss": 1, "top[bold]:smile:": 2}, "epoch"))
    make_loop(log, "progress", n_train=1).train(n_epochs=1)
    assert ["train epoch 1/1  1 batch  0.0 s  loss 1  top[bold]:smile: 2"] == lines(capsys)


def test_epochs_count_on_in_a_second_run(capsys):
    """The number is that of the epoch since the loop was made, as `epoch_num` is."""
    loop = make_loop("progress", n_train=1)
    loop.train(n_epochs=1)
    loop.train(n_epochs=2)
    assert ["train epoch 1/1", "train epoch 2/3", "train epoch 3/3"] == labels(capsys)


def test_only_training_numbers_its_epochs(capsys):
    """A test and a validation on its own have no number, and a run by steps has no total."""
    loop = make_loop("progress", n_valid=1)
    loop.train(n_optim_steps=1)
    loop.validate()
    loop.test([torch.ones(2)])
    assert ["train epoch 1", "valid epoch 1", "valid", "test"] == labels(capsys)


def test_an_empty_epoch_has_no_loss(capsys):
    """A loss that an earlier epoch left behind is not shown."""
    loop = make_loop("progress", n_train=1)
    loop.train(n_epochs=1)
    loop.test([])
    assert ["train epoch 1/1  1 batch  0.0 s  last loss 0.25", "test  0 batches  0.0 s"] == lines(
        capsys
    )


def test_a_validation_in_mid_epoch_has_its_own_line_and_time(capsys, clock):
    """Its time does not count as time of the training epoch."""

    def validate(loop):
        clock.seconds += 90 if loop.is_validating else 0.3
        if loop.is_training and loop.batch_num == 1:
            loop.validate()

    make_loop(Do("on_batch_end", validate), "progress", n_valid=1).train(n_epochs=1)
    assert [
        "valid epoch 1/1 step 2  1 batch  0:01:30  last loss 0.25",
        "train epoch 1/1  3 batches  0.9 s  last loss 0.25",
        "valid epoch 1/1  1 batch  0:01:30  last loss 0.25",
    ] == lines(capsys)


@pytest.mark.parametrize(("reason", "rest"), [(None, ""), ("it is [enough]", ": it is [enough]")])
def test_a_stopped_run_tells_how_far_it_went_and_why(capsys, reason, rest):
    """Once: not again after a test."""
    loop = make_loop("progress", Do("on_safe_point", lambda loop: loop.stop(reason)))
    loop.train(n_epochs=5)
    loop.test([torch.ones(2)])
    assert [
        "train epoch 1/5  1/3 batches  0.0 s  last loss 0.25",
        f"stopped by do{rest}",
        "test  1 batch  0.0 s  last loss 0.25",
    ] == lines(capsys)


def test_a_failed_epoch_tells_how_far_it_went(capsys):
    """The line comes before the exception, which passes unchanged."""

    def fail(loop):
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        make_loop("progress", Do("on_safe_point", fail)).train(n_epochs=5)
    assert ["train epoch 1/5  1/3 batches  0.0 s  last loss 0.25"] == lines(capsys)


def test_values_are_read_once_an_epoch(capsys):
    """Without a terminal nothing waits for the device but the line."""
    Value.reads = 0
    log = Do("on_batch_end", lambda loop: loop.log({"loss": Value(), "norm": Value()}))
    end = Do("on_epoch_end", lambda loop: loop.log({"loss": Value()}, "epoch"))
    make_loop(log, "progress", end, n_train=1000).train(n_epochs=2)
    assert 2 == Value.reads


# -- predictions and named validation sets ------------------------------------------------------


def test_a_prediction_has_a_line_without_a_loss(capsys):
    """The loss that training left behind is not shown in the line of a prediction."""
    loop = make_loop("progress", n_train=1)
    loop.train(n_epochs=1)
    loop.predict([torch.ones(2)] * 3, collect=False)
    expected = ["train epoch 1/1  1 batch  0.0 s  last loss 0.25", "predict  3 batches  0.0 s"]
    assert expected == lines(capsys)


def test_a_prediction_has_a_bar(screen, bar, rest):
    """The bar of a prediction holds the batches, the rate and the time left."""
    make_loop(rest, bar).predict([torch.ones(2)] * 3, collect=False)
    expected = r"predict [━╸╺ ]+ 2/3 9\.1/s 0:00:00 left"
    assert any(re.fullmatch(expected, line) for line in ever_shown(screen))


def test_a_named_validation_set_has_its_name_in_the_label(capsys):
    """Each named set has a line of its own, with the values logged for it."""
    loop = make_loop("progress", n_train=1)
    loop.valid_data = {"near": [torch.ones(2)], "far": [torch.ones(2)] * 2}
    log = Do("on_epoch_end", lambda loop: loop.log({"loss": loop.batch_num}, level="epoch"))
    loop.components.append(log)
    loop.train(n_epochs=1)
    assert [
        "train epoch 1/1  1 batch  0.0 s  loss 0",
        "valid near epoch 1/1  1 batch  0.0 s  loss 0",
        "valid far epoch 1/1  2 batches  0.0 s  loss 1",
    ] == lines(capsys)


# -- enabled and disabled -----------------------------------------------------------------------


def test_one_that_is_enabled_in_mid_epoch_shows_the_rest(capsys):
    """It joins the epoch, shows no total in it, and shows the next epochs completely."""
    loop = make_loop("progress")
    loop.components.disable("progress")
    log = Do("on_epoch_end", lambda loop: loop.log({"loss": 1}, "epoch"))
    loop.components += [
        Do("on_batch_begin", lambda loop: loop.components.enable("progress")),
        log,
    ]
    loop.train(n_epochs=2)
    assert [
        "train epoch 1  3 batches  0.0 s  loss 1",
        "train epoch 2  3 batches  0.0 s  loss 1",
    ] == lines(capsys)[:2]


@pytest.mark.parametrize("action", ["stop", "fail"])
def test_one_that_is_enabled_in_mid_epoch_is_closed_with_the_run(screen, bar, action):
    """A stop or an exception closes it, though no wrapper of it surrounds the run."""

    def act(loop):
        loop.components.enable("progress")
        if loop.batch_num:
            loop.stop() if action == "stop" else loop.undefined

    loop = make_loop(bar, Do("on_batch_begin", act))
    loop.components.disable("progress")
    try:
        loop.train(n_epochs=2)
    except AttributeError:
        assert "fail" == action
    lines_of_stop = ["stopped by do"] if action == "stop" else []
    epoch = "train epoch 1  1/3 batches  0.0 s  last loss 0.25"
    assert [epoch, *lines_of_stop] == screen.shown()
    assert screen.has_cursor


def test_one_that_is_disabled_in_mid_epoch_leaves_no_bar(screen, bar):
    """What it shows is removed when the epoch ends, and it prints nothing more."""
    disable = Do("on_batch_end", lambda loop: loop.components.disable("progress"))
    make_loop(bar, disable).train(n_epochs=2)
    assert ["train epoch 1/2  1 batch  0.0 s  last loss 0.25"] == screen.shown()
    assert screen.has_cursor


# -- the bar ------------------------------------------------------------------------------------


def test_bar_shows_the_epoch(screen, bar, rest):
    """It holds the phase, the epoch, the batches, the rate, the time left and newest values."""
    log = Do("on_batch_begin", lambda loop: loop.log({"lr": 0.001}))
    make_loop(log, rest, bar).train(n_epochs=2)
    expected = r"train epoch 2/2 [━╸╺ ]+ 2/3 9\.1/s 0:00:00 left loss 0\.25  lr 0\.001"
    assert any(re.fullmatch(expected, line) for line in ever_shown(screen))


def test_bar_of_data_without_a_length_has_no_time_left(screen, bar, rest):
    """Data without a length have a question mark for their number and no time left."""
    loop = make_loop(rest, bar)
    loop.test(Stream([torch.ones(2)] * 2))
    expected = r"test ━+ 2/\? 9\.1/s +loss 0\.25"
    assert any(re.fullmatch(expected, line) for line in ever_shown(screen))


def test_a14_time_left_is_not_negative(screen, bar, rest):
    """A14: data that hold more batches than their length says have no time left."""

    class Short(list):
        def __len__(self):
            return 1

    loop = make_loop(rest, bar)
    loop.train_data = Short(loop.train_data)
    loop.train(n_epochs=1)
    shown = list(ever_shown(screen))
    assert any(" 2/1 9.1/s " in line for line in shown)
    assert [] == [line for line in shown if "-" in line]
    assert [] == [line for line in shown if "2/1" in line and "left" in line]


def test_bar_of_a_run_by_steps_counts_steps(screen, bar, rest):
    """The total and the time left are those of the run, also with data without a length."""
    loop = make_loop(rest, bar, Do("on_batch_begin", clear_every_second), n_train=4)
    loop.train_data = Stream(loop.train_data)
    loop.train(n_optim_steps=4)
    shown = [re.search(r"step (\d)/4 .* (\S+) left", line) for line in ever_shown(screen)]
    assert [("1", "0:00:01"), ("2", "0:00:00"), ("3", "0:00:00"), ("4", "0:00:00")] == sorted(
        {match.groups() for match in shown if match}
    )


def clear_every_second(loop):
    """Let every second batch step."""
    loop.is_stepping = loop.batch_num % 2 == 1


def test_bar_of_a_stream_expects_the_length_of_the_epoch_before(screen, bar, rest):
    """It is an estimate, and looks like one; a longer epoch has no total again."""
    loop = make_loop(rest, bar)
    lengths = iter([3, 4])
    loop.train_data = Stream(None)
    loop.train_data.__class__ = type(
        "Growing", (Stream,), {"__iter__": lambda self: iter([torch.ones(2)] * next(lengths))}
    )
    loop.train(2)
    counts = re.findall(r"train epoch 2/2 .* (\d/\S+) ", "\n".join(ever_shown(screen)))
    assert {"1/~3", "2/~3", "3/~3", "4/?"} == set(counts)


def test_rate_is_of_the_batches_that_it_has_seen(screen, bar, rest):
    """In an epoch that was resumed in the middle, the batches before do not count."""

    def skip(loop):
        loop.batch_num += 100

    make_loop(Do("on_batch_begin", skip), rest, bar).train(n_epochs=1)
    assert any(" 102/3 9.1/s " in line for line in ever_shown(screen))


def test_bar_fits_on_one_line_of_80_columns(screen, bar, rest):
    """Large numbers and many values are cut, and no row is wrapped."""

    class Long(LoopComponent):
        def on_epoch_begin(self, loop):
            loop.n_batches = 123456

        def on_batch_end(self, loop):
            loop.log({f"a_long_name_{i}": i / 3 for i in range(9)})

    loop = make_loop(Long(), rest, bar, n_train=2)
    loop.epoch_num = 998
    loop.train(n_epochs=1)
    bars = [frame for frame in screen.frames if "2/123456" in "".join(frame)]
    assert [1] * len(bars) == [len(frame) for frame in bars]
    assert re.fullmatch(
        r"train epoch 999/999 [━╸╺ ]{6,} 2/123456 \d\.\d/s \d+:\d\d:\d\d left loss 0\.25 .*…",
        bars[0][0],
    )
    assert max(len(frame[0]) for frame in bars) <= 80


def test_bars_of_epochs_in_epochs_are_below_each_other(screen, bar, rest):
    """A validation in mid-epoch adds a row, and removes it again."""

    def validate(loop):
        if loop.is_training and loop.batch_num == 1:
            loop.validate()

    make_loop(rest, bar, Do("on_batch_end", validate), n_valid=2).train(1)
    rows = [
        re.findall(r"(train|valid) epoch 1/1(?: step \d)? +[━╸╺]", "\n".join(f))
        for f in screen.frames
    ]
    changes = [row for i, row in enumerate(rows) if i == 0 or row != rows[i - 1]]
    assert [["train"], ["train", "valid"], ["train"], [], ["valid"], []] == changes[-6:]


def test_bar_is_removed_at_the_end(screen, bar):
    """Only the lines stay, and the cursor and standard output are restored."""
    before = sys.stdout
    make_loop(bar, n_valid=1).train(n_epochs=1)
    assert ["train", "valid"] == [line.split()[0] for line in screen.shown()]
    assert not any("━" in line for line in screen.shown())
    assert screen.has_cursor
    assert before is sys.stdout


def test_bar_is_removed_after_ctrl_c(screen, bar):
    """KeyboardInterrupt passes, and leaves the terminal as it was."""

    def interrupt(loop):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_loop(bar, Do("on_batch_end", interrupt)).train(n_epochs=1)
    assert ["train epoch 1/1  1/3 batches  0.0 s  last loss 0.25"] == screen.shown()
    assert screen.has_cursor


def test_what_is_printed_is_above_the_bar(screen, bar):
    """print() in the middle of an epoch garbles neither its own line nor the bar."""
    make_loop(bar, Do("on_batch_end", lambda loop: print("batch", loop.batch_num))).train(1)
    below = [frame[-1] for frame in screen.frames if "batch 1" in frame]
    assert ["batch 0", "batch 1", "batch 2"] == screen.shown()[:3]
    assert re.match("train epoch 1/1  +0/3", below[0])


def test_what_is_logged_is_above_the_bar(screen, bar, monkeypatch, request):
    """Also by a handler that was made before, with the stream of that time."""
    monkeypatch.setattr(sys, "stderr", screen)
    handler, logger = logging.StreamHandler(), logging.getLogger("of.a.test")
    logger.addHandler(handler)
    request.addfinalizer(lambda: logger.removeHandler(handler))

    def log(loop):
        logger.warning("batch %d", loop.batch_num)

    make_loop(bar, Do("on_batch_end", log)).train(n_epochs=1)
    assert ["batch 0", "batch 1", "batch 2"] == screen.shown()[:3]
    below = [frame[-1] for frame in screen.frames if "batch 1" in frame]
    assert re.match("train epoch 1/1  +0/3", below[0])
    assert handler.stream is screen


def test_a_killed_process_leaves_the_terminal_with_a_cursor(screen, bar):
    """The cursor is not hidden while the bar is shown."""
    seen = []
    make_loop(bar, Do("on_batch_end", lambda loop: seen.append(screen.has_cursor))).train(1)
    assert [True] * 3 == seen


@pytest.mark.parametrize(("options", "n_refreshes"), [({"refresh_per_second": 10}, 4), ({}, 2)])
def test_bar_is_refreshed_so_many_times_a_second(screen, clock, options, n_refreshes):
    """In 0.49 seconds of fast batches, values are read for each refresh and the line."""
    Value.reads = 0
    bar = Progress(console=terminal(screen), **options)

    def wait(loop):
        loop.loss = Value()
        clock.seconds += 1 / 1024

    make_loop(Do("on_batch_end", wait), bar, n_train=500).train(n_epochs=1)
    assert n_refreshes + 1 == Value.reads  # the refresh before the first batch has nothing to read


def test_short_epochs_share_the_refreshes(bar, clock):
    """In 0.49 seconds of short epochs, values are read for four refreshes and the lines."""
    Value.reads = 0

    def value(loop):
        loop.loss = Value()
        clock.seconds += 1 / 1024

    make_loop(Do("on_loss_compute", value), bar, n_train=10).train(n_epochs=50)
    assert 4 + 50 == Value.reads


def test_refreshes_may_be_fewer(screen, clock):
    """`refresh_per_second` is the limit."""
    Value.reads = 0
    component = Progress(refresh_per_second=0.01, console=terminal(screen))

    def value(loop):
        loop.loss = Value()
        clock.seconds += 9

    make_loop(Do("on_loss_compute", value), component, n_train=10).train(n_epochs=1)
    assert 1 == Value.reads  # the line's; the one refresh was before the first batch


def test_a_terminal_is_recognized(monkeypatch):
    """The bar is shown on a standard output that is a terminal, without configuration."""
    ours, theirs = pty.openpty()
    with monkeypatch.context() as patch, os.fdopen(theirs, "w") as stdout:
        patch.setattr(sys, "stdout", stdout)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "80")
        rich.reconfigure()  # rich checks once what its own console writes to
        make_loop("progress", n_train=2).train(n_epochs=1)
    rich.reconfigure()
    screen, output = Screen(), b""
    try:
        while data := os.read(ours, 1000):
            output += data
    except OSError:  # Linux raises it where the other end is closed
        os.close(ours)
    screen.write(output.decode())
    assert "0/2" in output.decode()
    assert ["train epoch 1/1  2 batches  0.0 s  last loss 0.25"] == screen.shown()


# -- what it refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "limit"), [(0, "a number above 0"), (-1, "a number above 0"), (10.5, "at most 10")]
)
def test_a_rate_out_of_range_is_refused(rate, limit):
    """The error names the limit."""
    with pytest.raises(ArgumentError, match=f"refresh_per_second is {rate}, but has to be {limit}"):
        Progress(refresh_per_second=rate)


def test_a_line_every_no_steps_is_refused():
    """None is what leaves them out."""
    with pytest.raises(ArgumentError, match="every is 0, but has to be a whole number from 1"):
        Progress(every=0)


def test_a_console_that_is_none_is_refused():
    """A file is no console."""
    with pytest.raises(ArgumentError, match=r"has to be a rich\.console\.Console"):
        Progress(console=sys.stdout)


# -- more lines -----------------------------------------------------------------------------


def test_a_line_each_so_many_steps_where_the_output_is_no_terminal(capsys):
    """It shows what was logged for batches."""
    log = Do("on_loss_compute", lambda loop: loop.log({"lr": loop.batch_num / 10}))
    make_loop(log, use("progress", every=2), n_train=5).train(1)
    assert [
        "train epoch 1/1  2/5 batches  0.0 s  lr 0.1  last loss 0.25",
        "train epoch 1/1  4/5 batches  0.0 s  lr 0.3  last loss 0.25",
        "train epoch 1/1  5 batches  0.0 s  last loss 0.25",
    ] == lines(capsys)


def test_a_terminal_has_no_line_each_so_many_steps(screen):
    """The bar is there for that."""
    make_loop(Progress(every=1, console=terminal(screen))).train(1)
    assert ["train epoch 1/1  3 batches  0.0 s  last loss 0.25"] == screen.shown()


TEN = dict.fromkeys(("loss", *(f"metric{i}" for i in range(9))), 0.123456)


def test_a_line_with_ten_metrics_is_broken_between_them(screen, bar):
    """In a terminal of 80 columns no value is torn apart."""
    make_loop(bar, Do("on_epoch_end", lambda loop: loop.log(TEN, level="epoch"))).train(1)
    assert [
        "train epoch 1/1  3 batches  0.0 s  loss 0.1235  metric0 0.1235  metric1 0.1235",
        "    metric2 0.1235  metric3 0.1235  metric4 0.1235  metric5 0.1235",
        "    metric6 0.1235  metric7 0.1235  metric8 0.1235",
    ] == screen.shown()


def test_a_line_in_a_file_is_never_broken(capsys):
    """So that lines can be searched."""
    make_loop("progress", Do("on_epoch_end", lambda loop: loop.log(TEN, "epoch"))).train(1)
    assert 1 == len(lines(capsys))


# -- the table of epochs --------------------------------------------------------------------


def log_epochs(**values):
    """Return a component that logs values by the number of the epoch."""
    return Do(
        "on_epoch_end",
        lambda loop: loop.log({n: v[loop.epoch_num] for n, v in values.items()}, "epoch"),
    )


def test_epochs_are_a_table_at_the_end_with_the_best_marked(capsys):
    """Losses first; a metric whose name does not tell what is better has no mark."""
    log = log_epochs(loss=[3, 1.5, 2], accuracy=[0.5, 0.5, 0.7], lr=[1, 2, 3])
    make_loop(log, "progress", n_valid=1).train(3)
    rows = [line.split() for line in lines(capsys)[6:]]
    del rows[2]  # the rule
    assert [
        ["valid", "train", *["valid"] * 2, *["train"] * 2],
        ["epoch", *["loss"] * 2, *["accuracy", "lr"] * 2],
        ["1", *["3"] * 2, *["0.5", "1"] * 2],
        ["2", *["1.5*"] * 2, *["0.5", "2"] * 2],
        ["3", *["2"] * 2, *["0.7*", "3"] * 2],
        ["*", "the", "best"],
    ] == rows


@pytest.mark.parametrize(
    ("options", "n_epochs"), [({"table": False}, 2), ({}, 1)], ids=["off", "one epoch"]
)
def test_a_table_can_be_left_out(capsys, options, n_epochs):
    """One epoch needs none."""
    make_loop(log_epochs(loss=[1, 2]), use("progress", **options)).train(n_epochs)
    assert n_epochs == len(lines(capsys))


def test_ten_metrics_fit_into_80_columns(capsys):
    """What does not fit is named."""
    log = log_epochs(**{f"metric_{i}": [0.1234567, 0.2] for i in range(10)})
    make_loop(log, "progress").train(2)
    table = lines(capsys)[2:]
    assert all(len(line) <= 80 for line in table)
    shown = re.findall(r"metric_\d", table[1])
    left_out = re.findall(r"train/(metric_\d)", "\n".join(table[2:]))
    assert sorted(f"metric_{i}" for i in range(10)) == sorted(shown + left_out)


@pytest.mark.parametrize(
    ("n_valid", "saved_at", "table", "caption"),
    [
        (None, -1, [["3", "4"], ["4", "3*"]], "of epochs 3 to 4"),
        (1, 2, [["1", "1*"], ["2", *"55"], ["3", *"44"], ["4", "3", "3*"]], "of epochs 1 to 4"),
    ],
    ids=["after epoch 2", "in the validation of epoch 1"],
)
def test_the_table_of_a_resumed_run_marks_the_best_of_the_epochs_it_says(
    capsys, n_valid, saved_at, table, caption
):
    """The best may have been before, of every metric or of some."""
    states = []
    save = Do("on_safe_point", lambda loop: states.append(loop.state_dict()))
    log = log_epochs(loss=[1, 5, 4, 3])
    make_loop(log, save, "progress", n_valid=n_valid).train(2)
    loop = make_loop(log, Do("on_safe_point", lambda loop: None), "progress", n_valid=n_valid)
    loop.load_state_dict(states[saved_at])
    capsys.readouterr()
    loop.train(4)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    start = next(i for i, row in enumerate(rows) if set("".join(row)) == {"─"}) + 1
    assert table == rows[start : start + len(table)]
    rest = " ".join(word for row in rows[start + len(table) :] for word in row)
    assert f"* the best {caption}; earlier values are not known" == rest


def test_the_loss_is_shown_where_not_all_fits(capsys):
    """Also that of training, before other metrics of validation."""
    log = log_epochs(**{f"metric_{i}": [0.1, 0.2] for i in range(10)}, loss=[1, 2])
    make_loop(log, "progress", n_valid=1).train(2)
    table = lines(capsys)[4:]
    assert ["valid", "train"] == table[0].split()[:2]
    assert ["epoch", "loss", "loss"] == table[1].split()[:3]


def test_a_table_of_many_epochs_shows_the_best_and_the_last(capsys):
    """Not a hundred rows."""
    losses = [abs(i - 50) / 100 for i in range(100)]
    make_loop(log_epochs(loss=losses), "progress").train(100)
    rows = [line.split() for line in lines(capsys)[103:-1]]
    assert [["1", "0.5"], ["..."], ["51", "0*"], ["..."], ["91", "0.4"]] == rows[:5]
    assert ["100", "0.49"] == rows[-1]


def test_a_table_has_no_values_that_are_no_numbers(capsys):
    """Nor one that is not finite as the best."""
    make_loop(log_epochs(loss=[float("nan"), 1, 2], text=["a", "b", "c"]), "progress").train(3)
    assert [["1", "nan"], ["2", "1*"], ["3", "2"]] == [r.split() for r in lines(capsys)[6:9]]


# -- in a notebook --------------------------------------------------------------------------

NOTEBOOK = """
import torch, time
from ttl_core import TrainTestLoop, LoopComponent

class Step(LoopComponent):
    def on_loss_compute(self, loop):
        loop.loss = torch.tensor(0.25)
        time.sleep(0.03)

TrainTestLoop(torch.nn.Identity(), [Step(), "progress"], [torch.ones(2)] * 10).train(2)
"""


def test_a_notebook_shows_the_bar_in_a_widget(tmp_path):
    """It is empty at the end; the lines of the epochs and the table are there, and nothing else."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    texts = [output.get("data", {}).get("text/plain", "") for output in notebook.cells[0].outputs]
    shown = [text[:15] for text in texts if text.strip() not in ("", "Output()")]
    assert ["train epoch 1/2", "train epoch 2/2"] == shown[:2]
    assert len(shown) <= 3, shown
    widgets = [w for w in client.widget_state.values() if w["_model_name"] == "OutputModel"]
    assert [()] * 2 == [tuple(widget["outputs"]) for widget in widgets]
