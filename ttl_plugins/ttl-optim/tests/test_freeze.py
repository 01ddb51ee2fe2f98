"""What `freeze` does."""

import pytest
import torch
from ttl_optim import Freeze

from ttl_core import LoopComponent, TTLError


def moved(loop, component, n_epochs):
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
# of the biases one is undone by the batch norm that follows: its gradient is about 0
SURE = ALL - {"0.bias"}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("0.*", [{"1.weight", "1.bias", "2.weight", "2.bias"}] * 2),
        (["0.*", "1.weight"], [{"1.bias", "2.weight", "2.bias"}] * 2),
        ({"0.*": None, "2.*": 1}, [{"1.weight", "1.bias"}, SURE - {"0.weight"}]),
        ({"*.weight": 1, "1.*": None}, [{"2.bias"}, SURE - {"1.weight", "1.bias"}]),
        ({"*": 0}, [SURE, SURE]),
    ],
)
def test_what_matches_stays_until_its_epoch(make_loop, patterns, expected):
    """Frozen parameters do not change; others, and those whose epoch has come, do."""
    changes = moved(make_loop(), Freeze(patterns), 2)
    assert expected == [names - {"0.bias"} for names in changes]


def test_momentum_and_kept_zeros_do_not_move_it(make_loop):
    """Frozen in mid-run, a parameter stays, though the optimizer has momentum for it."""
    loop = make_loop()
    loop.train(1)
    for parameter in loop.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    (changes,) = moved(loop, Freeze("0.*"), 1)
    assert not {"0.weight", "0.bias"} & changes


def test_frozen_parameters_get_no_gradient(make_loop, look):
    """Their grad is None after the backward pass."""
    gradients = look("on_batch_end", lambda loop: loop.model[0].weight.grad)
    make_loop(Freeze("0.weight"), gradients).train(1)
    assert [None] * 6 == gradients.seen


@pytest.mark.parametrize("end", ["finish", "stop", "fail", "interrupt", "disable"])
def test_requires_grad_comes_back_however_the_run_ends(make_loop, end):
    """Afterwards it is what it was, also where somebody else had frozen a parameter."""

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
    """The epoch is that of loop.epoch_num, not of this train()."""
    loop = make_loop()
    loop.train(1)
    (changes,) = moved(loop, Freeze({"0.*": 1}), 1)
    assert "0.weight" in changes


def test_a_pattern_that_matches_nothing_is_an_error_before_the_first_batch(make_loop, look):
    """The error names the pattern and the nearest parameters."""
    batches = look("on_batch_begin", lambda loop: loop.batch_num)
    loop = make_loop(Freeze({"0.weigth": 1}), batches)
    with pytest.raises(TTLError, match=r"'0\.weigth'.*nearest names are: 0\.weight"):
        loop.train(1)
    assert [] == batches.seen


@pytest.mark.parametrize(
    ("patterns", "error", "message"),
    [
        ({"a.*": -1}, ValueError, r"patterns\['a\.\*'\] is -1"),
        ({"a.*": 1.5}, ValueError, "is 1.5"),
        ({"a.*": True}, ValueError, "is True"),
        ([3], TypeError, "patterns holds 3"),
    ],
)
def test_refuses_what_is_no_pattern(patterns, error, message):
    """What cannot work is refused when the component is made."""
    with pytest.raises(error, match=message):
        Freeze(patterns)
