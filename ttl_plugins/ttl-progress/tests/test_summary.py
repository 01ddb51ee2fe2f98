"""The behaviour of `summary`: a table that agrees with torchinfo, and nothing else changed."""

import io

import pytest
import torch
import torchinfo
from rich.console import Console
from torch import nn
from ttl_progress import Summary

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop
from ttl_core.testing import Step


class Block(nn.Module):
    """A block with a residual connection and a number that is no module."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x + self.scale * torch.relu(self.norm(self.conv(x)))


def make_model():
    """Return a model of two blocks, one of which is frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), Block(), Block(), nn.Flatten(), nn.Linear(4 * 64, 10)
    )
    model[1].requires_grad_(False)
    return model


DATA = [(torch.randn(16, 1, 8, 8), torch.zeros(16, dtype=torch.long))] * 2


def printed(model, data=DATA, width=100, step=Step, **options):
    """Return what is printed in a run."""
    stream = io.StringIO()
    summary = Summary(console=Console(file=stream, width=width), **options)
    TrainTestLoop(model, [step(), summary], data).train(1)
    return stream.getvalue()


def rows(text):
    """Return the cells of the table, those of each row by the first one."""
    lines = [line.lstrip("│├└─ ") for line in text.splitlines()]
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    return {row[0]: row[1:] for row in cells if row}


def test_numbers_are_those_of_torchinfo():
    """Output shapes, parameters, trainable ones and operations of each layer."""
    info = torchinfo.summary(make_model(), input_data=DATA[0][0], verbose=0)
    shown = rows(printed(make_model()))
    expected = {
        f"{layer.var_name} {layer.class_name}": " x ".join(map(str, layer.output_size))
        for layer in info.summary_list[1:]
    }
    assert expected == {name: shown[name][0] for name in expected}
    assert [f"{info.total_params:,}", f"{info.trainable_params:,}"] == shown["Sequential"][1:3]
    assert ["16 x 4 x 8 x 8", "40", "all"] == shown["0 Conv2d"][:3]
    assert ["16 x 4 x 8 x 8", "157", "0"] == shown["1 Block"][:3]


def test_operations_are_counted_by_hand():
    """Two a multiplication and addition: a linear layer of 256 x 10, for 16 samples."""
    shown = rows(printed(make_model()))
    assert "81.9 k" == shown["4 Linear"][-1]  # 2 * 16 * 256 * 10
    conv = 2 * 16 * 64 * 9 * 4
    total = conv * 1 + 2 * conv * 4 + 2 * 16 * 2560
    assert f"{total / 1e3:.1f} k" == shown["Sequential"][-1]


def test_operations_that_torch_does_not_count_are_not_said_to_be_none():
    """As those of an LSTM: the line has no number of operations in place of 0."""

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(2, 3)

        def forward(self, x):
            return self.lstm(x)[0]

    data = [(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))]
    assert "This batch: 72 B of outputs of layers" in printed(Recurrent(), data)


def test_a_module_that_is_used_twice_is_counted_once():
    """Its second row says so."""
    layer = nn.Linear(4, 4)
    text = printed(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), layer, layer))
    assert ["16 x 4", "20", "all", "1.0 k"] == rows(text)["2 Linear"]
    assert "280 parameters" in text


def test_levels_below_the_depth_are_left_out():
    """Their parameters are part of the row above."""
    shown = rows(printed(make_model(), depth=1))
    assert "157" == shown["2 Block"][1]
    assert "conv Conv2d" not in shown


def test_it_fits_into_a_narrow_terminal():
    """Names of layers give way, numbers do not."""

    class AnExtremelyLongNameOfAModelAsTheyAre(nn.Sequential):
        pass

    text = printed(AnExtremelyLongNameOfAModelAsTheyAre(*make_model()), width=64)
    assert all(len(line) <= 64 for line in text.splitlines())
    assert "AnExt" in text
    assert "…" in text
    assert ["16 x 10", "2,924"] == rows(text)[next(n for n in rows(text) if "AnEx" in n)][:2]


def test_it_is_printed_once_a_loop():
    """Neither in later epochs nor in later runs."""
    stream = io.StringIO()
    loop = TrainTestLoop(
        make_model(), [Step(), Summary(console=Console(file=stream))], DATA, DATA[:1]
    )
    loop.train(2)
    loop.test(DATA[:1])
    assert 1 == stream.getvalue().count("parameters,")


def test_training_is_the_same_and_no_hook_is_left():
    """Weights have the same bits as without it."""
    one, other = make_model(), make_model()
    TrainTestLoop(one, [Step()], DATA).train(1)
    printed(other)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules())


def test_a_call_that_fails_leaves_nothing_behind():
    """Neither hooks nor the mode that counts operations."""
    model = make_model()
    with pytest.raises(RuntimeError):
        printed(model, data=[(torch.ones(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_a_model_that_is_not_called_itself_has_no_shapes():
    """The table is printed at the end of the epoch, with the parts that were called."""

    class Call(LoopComponent):
        def on_forward_pass(self, loop):
            loop.model[0](loop.batch[0])

    text = printed(make_model(), step=Call)
    assert "The model itself was not called, so FLOPs are not counted" in text
    assert ["16 x 4 x 8 x 8", "40", "all"] == rows(text)["0 Conv2d"]
    assert ["2,570", "all"] == rows(text)["4 Linear"]


def test_a_compiled_model_has_no_shapes(monkeypatch):
    """Hooks would be compiled into it."""
    model = make_model()
    monkeypatch.setattr(torch, "compile", lambda function: function)  # it takes seconds
    model.compile()
    text = printed(model)
    assert "The model is compiled, so shapes and FLOPs are not recorded" in text


def test_lazy_layers_are_shown_with_what_they_became():
    """The first call gives them their shapes."""
    text = printed(nn.Sequential(nn.Flatten(), nn.LazyLinear(10)))
    assert ["16 x 10", "650", "all", "20.5 k"] == rows(text)["1 Linear"]


@pytest.mark.parametrize("depth", [0, "2", None])
def test_unusable_depths_are_refused(depth):
    """The error names the argument and its value."""
    with pytest.raises(ArgumentError, match="depth"):
        Summary(depth=depth)


def test_a_console_has_to_be_one():
    """As for `progress`."""
    with pytest.raises(ArgumentError, match="console"):
        Summary(console="stdout")
