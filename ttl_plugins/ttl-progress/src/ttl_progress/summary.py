"""The component `summary`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import rich
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch.nn.parameter import is_lazy

from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.arguments import flag, whole_number
from ttl_progress.first_call import FirstCall, is_compiled

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class Summary(LoopComponent):
    """The model as a table: its layers, their output shapes, parameters and operations.

    It is printed once, when the model has been called for the first time in a run. Shapes,
    operations and the memory of outputs are those of that call; no other call is made.

    Args:
        depth: how many levels of modules to show.
        flops: whether to count floating-point operations, with torch.utils.flop_counter.
        console: where to print; by default rich's own, on standard output.

    Raises:
        ArgumentError: `depth` is no whole number from 1, or `console` is no rich console.

    Attributes:
        table: the table; None before it was printed.

    Example:
        >>> import torch
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import Step
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
        >>> data = [(torch.ones(16, 4), torch.zeros(16, dtype=torch.long))]
        >>> loop = TrainTestLoop(model, [Step(), Summary()], data)
        >>> loop.train(n_epochs=1)  # doctest: +NORMALIZE_WHITESPACE
         layer         output   parameters   trainable   FLOPs
        ───────────────────────────────────────────────────────
         Sequential    16 x 2           58         all   1.5 k
         ├─ 0 Linear   16 x 8           40         all   1.0 k
         └─ 1 Linear   16 x 2           18         all     512
        58 parameters, 58 of them trainable; 232 B with buffers
        This batch: 1.5 kFLOPs forward, 640 B of outputs of layers
    """

    only_once = True
    main_only = True

    def __init__(
        self, *, depth: int = 3, flops: bool = True, console: Console | None = None
    ) -> None:
        self.depth = whole_number("depth", depth, at_least=1)
        self.flops = flag("flops", flops)
        if not isinstance(console, Console | None):
            raise ArgumentError(
                f"console is {console!r}, but has to be a rich.console.Console, or None for that "
                "of standard output"
            )
        self._console = console
        self.table: Table | None = None

    def fork(self) -> None:
        """Leave it out of forks of the loop, which show nothing."""

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Record the first call of the model, and print the table when it has ended."""
        if self.table is not None:
            return (yield)
        model = loop.model
        call = FirstCall(model, count_flops=self.flops, on_end=lambda: self._print(model, call))
        try:
            result = yield
            if self.table is None:  # it was compiled, or only parts of it were called
                self._print(model, call)
            return result
        finally:
            call.remove()

    def _print(self, model: torch.nn.Module, call: FirstCall) -> None:
        console = self._console or rich.get_console()
        self.table = _table(model, call, self.depth, console.width)
        console.print(self.table)
        for line in _totals(model, call):
            console.print(Text(line))


class _Layer(NamedTuple):
    """A row of the table.

    Attributes:
        tree: the lines that lead to it.
        path: its path in the model, "" for the model.
        module: the module.
        is_repeated: whether the module has a row already.
    """

    tree: str
    path: str
    module: torch.nn.Module
    is_repeated: bool


def _layers(model: torch.nn.Module, depth: int) -> Iterator[_Layer]:
    seen: set[torch.nn.Module] = set()

    def walk(tree: str, path: str, module: torch.nn.Module, below: str, left: int) -> Any:
        yield _Layer(tree, path, module, module in seen)
        is_new = module not in seen
        seen.add(module)
        children = list(module.named_children()) if left and is_new else []
        for i, (name, child) in enumerate(children):
            is_last = i + 1 == len(children)
            branch, further = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
            inner = f"{path}.{name}".lstrip(".")
            yield from walk(below + branch, inner, child, below + further, left - 1)

    yield from walk("", "", model, "", depth)


def _table(model: torch.nn.Module, call: FirstCall, depth: int, width: int) -> Table:
    rows = [_row(layer, call) for layer in _layers(model, depth)]
    names = ("output", "parameters", "trainable", "FLOPs")
    widths = [
        max(map(len, column)) for column in zip(names, *(row[1:] for row in rows), strict=True)
    ]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    # the first column is the one that gives way; the others, and the edges, have a space around
    first = max(10, width - sum(widths) - 3 * len(widths) - 4)
    table.add_column("layer", no_wrap=True, overflow="ellipsis", max_width=first)
    for name in names:
        table.add_column(name, no_wrap=True, justify="left" if name == "output" else "right")
    for layer, *others in rows:
        table.add_row(Text(layer), *others)
    return table


def _row(layer: _Layer, call: FirstCall) -> tuple[str, str, str, str, str]:
    """Return the cells of a layer."""
    name = layer.path.rpartition(".")[2]
    shape = call.shapes.get(layer.module)
    flops = call.flops.get(layer.module, 0)
    total, trainable = _count(layer.module.parameters())
    count, share = (f"{total:,}", "all" if total == trainable else f"{trainable:,}")
    if layer.is_repeated:
        count, share = "as above", ""
    return (
        layer.tree + " ".join(filter(None, (name, type(layer.module).__name__))),
        " x ".join(map(str, shape or ())),
        count if total else "",
        share if total else "",
        _scaled(flops) if flops else "",
    )


def _totals(model: torch.nn.Module, call: FirstCall) -> list[str]:
    total, trainable = _count(model.parameters())
    n_bytes = sum(t.numel() * t.element_size() for t in _held(model))
    text = (
        f"{total:,} parameters, {trainable:,} of them trainable; {_scaled(n_bytes)}B with buffers"
    )
    if model in call.shapes:
        # 0 where torch counts none of its operations, as those of an LSTM
        n_flops = call.flops.get(model, 0)
        flops = f"{_scaled(n_flops)}FLOPs forward, " if n_flops else ""
        second = f"This batch: {flops}{_scaled(call.output_bytes)}B of outputs of layers"
    elif is_compiled(model):
        second = "The model is compiled, so shapes and FLOPs are not recorded"
    else:
        second = "The model itself was not called, so FLOPs are not counted"
    return [text, second]


def _count(parameters: Iterable[torch.nn.Parameter]) -> tuple[int, int]:
    """Return how many numbers parameters hold, and how many of these are trainable."""
    there = [p for p in parameters if not is_lazy(p)]
    return sum(p.numel() for p in there), sum(p.numel() for p in there if p.requires_grad)


def _held(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    for tensor in (*model.parameters(), *model.buffers()):
        if not is_lazy(tensor):
            yield tensor


def _scaled(n: float) -> str:
    """Return a number with the prefix of its unit.

    Example:
        >>> _scaled(512), _scaled(1536), _scaled(2_500_000)
        ('512 ', '1.5 k', '2.5 M')
    """
    for prefix in ("", "k", "M", "G", "T"):
        if n < 1000 or prefix == "T":
            break
        n /= 1000
    return f"{n:.1f} {prefix}" if prefix else f"{n} "
