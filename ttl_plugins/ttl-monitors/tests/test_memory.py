"""The behaviour of `memory`."""

from types import SimpleNamespace

import pytest
import torch
from loops import act_at
from ttl_monitors import Memory
from ttl_monitors.sizes import memory_in_use


def run_out(run, point, fail, model=None, **options):
    """Return the notes of the exception with which a run fails at a point."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run(Memory(**options), act_at(point, fail), model=model)
    return caught.value.__notes__


def raising(exception):
    """Return a function that raises an exception."""

    def fail(loop):
        raise exception

    return fail


def test_the_memory_of_the_host_is_logged(run):
    """What this process has, and its peak, at each so many steps."""
    big = torch.ones(50, 2**20)  # 200 MiB
    logged = run(Memory(every=2))
    peaks, current = logged.values("memory/host-peak-mib"), logged.values("memory/host-mib")
    assert [0, 2] == list(current)
    assert all(200 < current[step] <= peaks[step] for step in current)
    del big


def test_the_peak_is_no_less_than_what_is_in_use(monkeypatch):
    """Linux updates its own peak later than the present value."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=1))
    found = dict(memory_in_use(torch.nn.Linear(1, 1)))
    assert found["host-peak"] >= found.get("host", 0)


def test_the_memory_of_devices_is_logged(monkeypatch):
    """What their module says, for each device of the model."""
    module = SimpleNamespace(memory_allocated=lambda _: 3, max_memory_allocated=lambda _: 5)
    monkeypatch.setattr(torch, "get_device_module", {"cuda": module}.get)
    model = SimpleNamespace(parameters=lambda: [SimpleNamespace(device="cuda:1")])
    in_use = dict(memory_in_use(model))
    assert (3, 5) == (in_use["cuda:1"], in_use["cuda:1-peak"])


@pytest.mark.parametrize(
    "fail",
    [
        lambda loop: torch.empty(10**15),  # which no machine has
        raising(MemoryError()),
        raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        raising(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9")),
    ],
    ids=["allocation", "MemoryError", "OutOfMemoryError", "RuntimeError"],
)
def test_a_note_says_what_was_largest(run, fail):
    """What the loop holds, with the largest tensor of each kind."""
    model = torch.nn.Linear(1000, 1)  # 4004 bytes
    note = run_out(run, "on_forward_pass", fail, model)[-1]
    assert note.startswith(
        "memory: what the loop holds, the largest first: parameters 3.9 KiB (weight 3.9 KiB); "
        "the batch 24 bytes\nmemory: in use: host "
    )


def test_gradients_and_optimizer_states_are_named(run):
    """With momentum both are as large as the weights."""

    def fail(loop):
        if loop.batch_num == 1:
            raise MemoryError

    def make(model):
        return [torch.optim.Adam(model.parameters())]

    with pytest.raises(MemoryError) as caught:
        run(Memory(), act_at("on_batch_end", fail), make=make)
    assert (
        "optimizer states 32 bytes (exp_avg_sq of weight 8 bytes); the batch 24 bytes; "
        "parameters 12 bytes (weight 8 bytes); gradients 12 bytes (weight 8 bytes)"
    ) in caught.value.__notes__[-1]


def test_other_errors_get_no_note(run):
    """They are about something else."""
    notes = run_out(run, "on_batch_end", raising(RuntimeError("a shape is wrong")))
    assert not any(note.startswith("memory") for note in notes)


class TestSnapshot:
    """The snapshot of CUDA memory, by functions in place of those of CUDA."""

    @pytest.fixture(autouse=True)
    def fake(self, monkeypatch):
        def dump(path):
            with open(path, "w") as file:
                file.write("blocks")

        monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", dump)
        monkeypatch.setattr(torch.nn.Parameter, "is_cuda", True)

    def notes(self, run, **options):
        return run_out(run, "on_batch_end", raising(MemoryError()), **options)[-1].splitlines()

    def test_it_is_in_the_directory(self, run, tmp_path):
        """Its name has the step."""
        path = tmp_path / "a" / "memory-step-1.pickle"
        expected = f"memory: a snapshot is in {path}: see https://pytorch.org/memory_viz"
        assert expected == self.notes(run, directory=tmp_path / "a")[-1]
        assert "blocks" == path.read_text()

    def test_without_a_directory_the_note_says_so(self, run):
        """The fix is in it."""
        assert (
            "memory: no snapshot is saved without a directory: use('memory', directory=...)"
        ) == self.notes(run)[-1]

    def test_a_failure_to_save_it_is_part_of_the_note(self, run, tmp_path):
        """The exception of the run stays the one that it was."""
        (tmp_path / "file").touch()
        note = self.notes(run, directory=tmp_path / "file" / "a")[-1]
        assert note.startswith("memory: no snapshot could be saved: NotADirectoryError: ")

    def test_the_history_is_recorded_within_a_run(self, run, monkeypatch):
        """Only if that is requested."""
        calls = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(
            torch.cuda.memory, "_record_memory_history", lambda **options: calls.append(options)
        )
        monkeypatch.setattr(torch.nn.Parameter, "is_cuda", False)
        run(Memory(every=100), act_at("on_batch_begin", lambda loop: calls.append("batch")))
        assert {"batch"} == {*calls}
        calls.clear()
        run(Memory(every=100, history=True), act_at("on_train_end", lambda _: calls.append("end")))
        assert [{}, "end", {"enabled": None}] == calls
