"""Rewinding with the components of every day: the run is that which never left the state."""

import csv
import json
from functools import partial

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_core import LoopComponent, SeededSampler, TrainTestLoop, use
from ttl_core.testing import tiny_data, tiny_model

N_SAFE_POINTS = 12


class Rewind(LoopComponent):
    """Goes back from some safe points to earlier ones, each once; points by number."""

    def __init__(self, moves=(), data="replay"):
        self.moves, self.data = dict(moves), data
        self.n, self.states = 0, {}

    def on_safe_point(self, loop):
        n, self.n = self.n, self.n + 1
        self.states.setdefault(n, loop.state_dict())
        target = self.moves.pop(n, None)
        if target is not None:
            self.n = target + 1
            loop.rewind(self.states[target], self.data)


class Noise(LoopComponent):
    """Adds random numbers to the batch, as augmentation does."""

    def on_batch_begin(self, loop):
        inputs, targets = loop.batch
        loop.batch = inputs + 0.1 * torch.rand_like(inputs), targets


def trained(rewind, directory=None, accumulation=1, *, loader=True):
    """Return a loop that was trained for three epochs."""
    torch.manual_seed(3)
    train_data = tiny_data(4)
    if loader:
        samples = [(x, y) for batch in train_data for x, y in zip(*batch, strict=True)]
        sampler = SeededSampler(samples)
        train_data = torch.utils.data.DataLoader(samples, batch_size=6, sampler=sampler)
    components = [
        use(
            "supervised",
            loss_func=torch.nn.functional.cross_entropy,
            optimizer=partial(torch.optim.AdamW, lr=0.01),
            scheduler=lambda optimizer, n: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, n),
        ),
        Noise(),
        use("grad-accumulation", every=accumulation),
        use("grad-clip", max_norm=1.0),
        use("lr-warmup", n_steps=3),
        use("ema", decay=0.5),
        "metrics",
        use("early-stopping", monitor="valid/loss", patience=9),
        use("nan-guard"),
        "history",
        "lr-monitor",
        *([] if directory is None else [use("csv", directory=directory)]),
        *([] if directory is None else [use("jsonl", directory=directory)]),
        *([] if directory is None else [use("checkpoint", directory=directory, every=2)]),
        rewind,
    ]
    loop = TrainTestLoop(tiny_model(), components, train_data, tiny_data(2))
    loop.train(n_epochs=3)
    return loop


def facts(loop):
    """Return what a run came to."""
    state = loop.model.state_dict() | loop.components["ema"].state_dict()
    tensors = {k: v.tolist() for k, v in state.items() if isinstance(v, torch.Tensor)}
    shadow = json.dumps(loop.components["ema"].state_dict(), default=lambda t: t.tolist())
    rows = [
        {k: v for k, v in row.items() if k != "time"} for row in loop.components["history"].rows
    ]
    return tensors, shadow, loop.metrics, loop.global_step, rows


moves = st.lists(
    st.integers(1, N_SAFE_POINTS).flatmap(lambda go: st.tuples(st.just(go), st.integers(0, go))),
    min_size=1,
    max_size=3,
    unique_by=lambda move: move[0],
)
plain = {}


@settings(max_examples=12, deadline=None)
@given(moves, st.sampled_from([1, 2]), st.booleans())
def test_any_run_that_goes_back_ends_as_one_that_never_did(moves, accumulation, loader):
    """At random points, across epochs, several times, with accumulation: to the same bits."""
    key = accumulation, loader
    if key not in plain:
        plain[key] = facts(trained(Rewind(), accumulation=accumulation, loader=loader))
    rewound = trained(Rewind(moves), accumulation=accumulation, loader=loader)
    assert facts(rewound) == plain[key]


def test_files_hold_each_step_once(tmp_path):
    """Rows of steps that were undone are removed; checkpoints are those of the run at its end."""
    for name in ("plain", "rewound"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("of an earlier run\n")
    plain = trained(Rewind(), tmp_path / "plain")
    rewound = trained(Rewind({2: 0, 9: 4}), tmp_path / "rewound")
    assert facts(plain) == facts(rewound)
    rows = [_rows(tmp_path / name) for name in ("plain", "rewound")]
    assert rows[0] == rows[1]
    for name in ("plain", "rewound"):
        assert (tmp_path / name / "metrics.1.csv").read_text() == "of an earlier run\n"


def _rows(directory):
    with (directory / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time"} for row in [*rows, *lines]]
