"""Make progress.svg: what a terminal of 80 columns shows while the digits of docs/examples train.

.venv/bin/python docs/pictures/progress.py
"""

import functools
import io
import re
import runpy
from pathlib import Path

import torch
from rich.console import Console
from torchmetrics.classification import MulticlassAccuracy

from ttl_core import LoopComponent, TrainTestLoop, use

HERE = Path(__file__).parent


class TakePicture(LoopComponent):
    """A picture of the lines so far and of the bar, in the fourth epoch."""

    def __init__(self, screen):
        self.screen = screen

    def on_batch_end(self, loop):
        """Take the picture, and stop."""
        if loop.is_training and (loop.epoch_num, loop.batch_num) == (3, 25):
            text = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", self.screen.getvalue())
            picture = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
            for line in text.splitlines():
                if " batches " in line:
                    picture.print(line.rstrip(), highlight=False)
            bar = loop.components["progress"]._display._live.get_renderable()
            picture.print(bar)
            picture.save_svg(
                HERE / "progress.svg", title="python digits.py", font_aspect_ratio=0.61
            )
            loop.stop()


def main():
    """Write the picture beside this file."""
    torch.manual_seed(0)
    example = runpy.run_path(str(HERE.parent / "examples" / "digits.py"))
    train_data, valid_data, _ = example["make_data"](batch_size=32)
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True, force_interactive=True)
    components = [
        use(
            "supervised",
            loss_func=torch.nn.CrossEntropyLoss(),
            optimizer=functools.partial(torch.optim.AdamW, lr=3e-3),
        ),
        use("metrics", accuracy=MulticlassAccuracy(10, average="micro")),
        use("progress", console=console, table=False),
        TakePicture(screen),
    ]
    TrainTestLoop(example["make_model"](), components, train_data, valid_data).train(10)


if __name__ == "__main__":
    main()
