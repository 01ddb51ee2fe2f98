"""What is kept of logged values: in bounded memory, without losing spikes."""

import io
import math
import random

import pytest
import torch
from ttl_report.buckets import thinned
from ttl_report.series import Curves, Series


def make_series(values):
    """Return a series of values at the steps from 0."""
    series = Series("train/loss", "batch")
    series.extend([(value, step, step // 100) for step, value in enumerate(values)])
    return series


def test_a_few_values_are_kept_as_they_are():
    """A chart of them shows each one."""
    expected = {"steps": [0, 1, 2], "values": [0.5, -1.0, 2.0]}
    assert expected == make_series([0.5, -1.0, 2.0]).columns()


def test_of_many_values_the_mean_and_the_extremes_of_neighbours_are_kept():
    """Each bucket is what a computation from all values gives."""
    rng = random.Random(0)
    values = [rng.gauss(0, 1) for _ in range(10_001)]
    series = make_series(values)
    assert 8 == series.width
    groups = [values[start : start + 8] for start in range(0, len(values), 8)]
    columns = series.columns()
    assert [*range(7, 10_000, 8), 10_000] == columns["steps"]
    means = [math.fsum(group) / len(group) for group in groups]
    assert pytest.approx(means, rel=1e-5) == columns["values"]
    assert pytest.approx([min(group) for group in groups], rel=1e-5) == columns["low"]
    assert pytest.approx([max(group) for group in groups], rel=1e-5) == columns["high"]


def test_the_lowest_and_the_highest_value_are_exact():
    """They are kept with their step and epoch, however many values follow."""
    values = [0.0] * 5000
    values[1234], values[4321] = 0.1234567890123, -3.0
    series = make_series(values)
    assert (0.1234567890123, 1234, 12) == series.highest
    assert (-3.0, 4321, 43) == series.lowest


def test_values_that_are_not_finite_are_gaps_and_are_listed():
    """Means and extremes are of the others."""
    series = make_series([1.0, math.nan, math.inf, 2.0])
    assert [1.0, None, None, 2.0] == series.columns()["values"]
    assert (2, [(1, "nan"), (2, "inf")]) == (
        series.n_non_finite,
        [(step, str(value)) for step, value in series.non_finite],
    )
    assert (1.0, 2.0) == (series.lowest[0], series.highest[0])


def test_values_that_are_not_finite_do_not_spoil_their_neighbours():
    """Of a bucket with both, the finite ones are shown; without any, it is a gap."""
    values = [1.0, math.nan] * 1000 + [math.nan] * 2000
    series = make_series(values)
    assert 2 == series.width
    columns = series.columns()
    assert [1.0] * 1000 + [None] * 1000 == columns["values"] == columns["low"] == columns["high"]
    assert (3000, 20) == (series.n_non_finite, len(series.non_finite))


def test_huge_numbers_are_no_error():
    """An integer that no float holds counts as infinite; a mean may overflow."""
    curves = Curves()
    values = [10**400, -(10**400), 1.7e308, -1.7e308]
    curves.extend("a", "batch", [(value, 0, 0) for value in values])
    (series,) = curves
    columns = series.columns()
    assert (2, [None, None]) == (series.n_non_finite, columns["values"][:2])
    columns = thinned(columns, 2)
    assert [-1.7e308] == columns["low"][1:]


@pytest.mark.parametrize("n", [0, 1, 2047, 2048, 2049, 7000])
def test_a_series_continues_from_its_state(n, tmp_path):
    """With the same values after it, it is the same to the last bit."""
    logged = [(math.sin(step), step, 0) for step in range(n + 3000)]
    curves, again = Curves(), Curves()
    curves.extend("a", "batch", logged[:n])
    torch.save(curves.state_dict(), tmp_path / "state.pt")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    curves.extend("a", "batch", logged[n:])
    again.extend("a", "batch", logged[n:])
    (one,), (other,) = curves, again
    assert one.columns() == other.columns()
    assert (one.lowest, one.highest, one.count) == (other.lowest, other.highest, other.count)


def test_a_long_series_is_as_small_as_a_short_one():
    """What it holds, and its state, do not grow any more."""

    def size(n):
        buffer = io.BytesIO()
        torch.save(make_series(range(n)).state_dict(), buffer)
        return buffer.tell()

    assert size(200_000) < 1.1 * size(2000) < 110_000


def test_a_page_may_have_room_for_fewer_buckets():
    """Neighbours are joined; a band from the lowest to the highest value is what was between."""
    series = make_series([1.0, 3.0, 2.0, math.nan, 5.0])
    expected = {
        "steps": [3, 4],
        "values": [2.0, 5.0],
        "low": [1.0, 5.0],
        "high": [3.0, 5.0],
    }
    assert expected == series.columns(2) == thinned(series.columns(), 2)


@pytest.mark.parametrize("size", [1, 7, 100, 3000])
def test_values_may_come_in_parts_of_any_size(size):
    """The buckets are the same."""
    values = [math.sin(i) for i in range(7001)]
    expected, series = make_series(values), Series("train/loss", "batch")
    for start in range(0, len(values), size):
        part = values[start : start + size]
        series.extend([(value, start + i, (start + i) // 100) for i, value in enumerate(part)])
    assert expected.columns() == series.columns()
    assert (expected.lowest, expected.highest) == (series.lowest, series.highest)
    assert (expected.count, expected.last) == (series.count, series.last)
