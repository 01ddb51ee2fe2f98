"""The behaviour of `freeze`."""

import numpy
import pytest
import torch
from ttl_optim import Freeze

from ttl_core import ArgumentError, LoopComponent


def changed(loop, component, n_epochs):
    """Return the names of the parameters that change in each of some epochs."""
    changes = []

    class Watch(LoopComponent):
        def on_epoch_begin(self, loop):
            self.before = {k: v.clone() for k, v in loop.model.named_parameters()}

        def on_epoch_end(self, loop):
            now = dict(loop.model.named_parameters())
            changes.append({k for k, v in self.before.items() if not torch.equal(v, now[k])})

    loop.components.append(component)
    loop.components.append(Watch())
    loop.train(n_epochs)
    return changes


ALL = {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
# without the bias that the following batch norm cancels: its gradient is about 0
MOVING = ALL - {"0.bias"}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("0.*", [{"1.weight", "1.bias", "2.weight", "2.bias"}] * 2),
        (["0.*", "1.weight"], [{"1.bias", "2.weight", "2.bias"}] * 2),
        ({"0.*": None, "2.*": 1}, [{"1.weight", "1.bias"}, MOVING - {"0.weight"}]),
        ({"*.weight": 1, "1.*": None}, [{"2.bias"}, MOVING - {"1.weight", "1.bias"}]),
        ({"*": 0}, [MOVING, MOVING]),
    ],
)
def test_parameters_that_match_stay_until_their_epoch(make_loop, patterns, expected):
    """Frozen parameters do not change; others, and those whose epoch has begun, do."""
    changes = changed(make_loop(), Freeze(patterns), 2)
    assert expected == [names - {"0.bias"} for names in changes]


def test_momentum_and_old_gradients_do_not_move_a_parameter(make_loop):
    """Frozen in mid-run, a parameter stays, although the optimizer has momentum for it."""
    loop = make_loop()
    loop.train(1)
    for parameter in loop.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    (changes,) = changed(loop, Freeze("0.*"), 1)
    assert not {"0.weight", "0.bias"} & changes


def test_frozen_parameters_get_no_gradient(make_loop, recorder):
    """Their grad is None after the backward pass."""
    gradients = recorder("on_batch_end", lambda loop: loop.model[0].weight.grad)
    make_loop(Freeze("0.weight"), gradients).train(1)
    assert [None] * 6 == gradients.seen


@pytest.mark.parametrize("end", ["finish", "stop", "fail", "interrupt", "disable"])
def test_requires_grad_is_restored_however_the_run_ends(make_loop, end):
    """Afterwards it is what it was, also for a parameter that was frozen before."""

    class End(LoopComponent):
        def on_batch_end(self, loop):
            match end:
                case "stop":
                    loop.stop()
                case "fail":
                    raise OSError("disk")
                case "interrupt":
                    raise KeyboardInterrupt
                case "disable":
                    loop.components.disable("freeze")

    loop = make_loop(Freeze(["0.*", "1.*"]), End())
    loop.model[1].weight.requires_grad = False
    try:
        loop.train(1)
    except (OSError, KeyboardInterrupt):
        assert end in ("fail", "interrupt")
    frozen = {name for name, p in loop.model.named_parameters() if not p.requires_grad}
    assert {"1.weight"} == frozen


def test_epochs_count_on_in_a_second_train(make_loop):
    """The epoch is loop.epoch_num, not the epoch of this train()."""
    loop = make_loop()
    loop.train(1)
    (changes,) = changed(loop, Freeze({"0.*": 1}), 1)
    assert "0.weight" in changes


def test_a_pattern_that_matches_nothing_is_an_error_before_the_first_batch(make_loop, recorder):
    """The error names the pattern and the nearest parameters."""
    batches = recorder("on_batch_begin", lambda loop: loop.batch_num)
    loop = make_loop(Freeze({"0.weigth": 1}), batches)
    with pytest.raises(ArgumentError, match=r"'0\.weigth'.*nearest names are: 0\.weight"):
        loop.train(1)
    assert [] == batches.seen


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            {"a.*": -1},
            r"patterns\['a\.\*'\], the epoch that ends it or None for never, is -1, but has to be "
            "a whole number from 0",
        ),
        ({"a.*": 1.5}, "is 1.5"),
        ({"a.*": True}, "is True"),
        ([3], "patterns holds 3"),
        (3, "patterns is 3, but has to be a pattern"),
    ],
)
def test_refuses_unusable_patterns(patterns, message):
    """Patterns that cannot work are refused when the component is made."""
    with pytest.raises(ArgumentError, match=message):
        Freeze(patterns)


def test_takes_epochs_of_numpy():
    """A NumPy integer is a whole number."""
    assert {"a.*": 3} == Freeze({"a.*": numpy.int64(3)}).patterns


class Tied(torch.nn.Module):
    """A model whose head has the weight of its body, and whose last layer is its first one."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 4)
        self.head.weight = self.body.weight
        self.last = self.body

    def forward(self, inputs):
        return self.last(self.head(self.body(inputs)).relu())


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("head.*", {"body.bias"}),
        ("head.weight", {"body.bias", "head.bias"}),
        ("body.*", {"head.bias"}),
        ("last.*", {"head.bias"}),
        ({"head.weight": None, "body.weight": 0}, {"body.bias", "head.bias"}),
        ({"head.*": 0}, {"body.weight", "body.bias", "head.bias"}),
    ],
)
def test_a_parameter_is_frozen_by_each_of_its_names(make_loop, patterns, expected):
    """A4: a tied weight is frozen by its second name too, and so is a layer that is used twice."""
    torch.manual_seed(0)
    loop = make_loop()
    loop.model = Tied()
    (changes,) = changed(loop, Freeze(patterns), 1)
    assert expected == changes
    assert all(parameter.requires_grad for parameter in loop.model.parameters())


def test_freezes_a_lazy_layer(make_loop):
    """A4: a parameter that has no shape yet is frozen by its name like others."""
    loop = make_loop()
    loop.model = torch.nn.Sequential(torch.nn.LazyLinear(3), torch.nn.Linear(3, 2))
    seen = []

    class Watch(LoopComponent):
        def on_batch_end(self, loop):
            seen.append([parameter.grad is None for parameter in loop.model.parameters()])

    loop.components.append(Freeze("0.*"))
    loop.components.append(Watch())
    loop.train(1)
    assert [[True, True, False, False]] * 6 == seen
