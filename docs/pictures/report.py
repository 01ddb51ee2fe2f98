"""Make report.png: train on the digits of docs/examples with a report, and take its picture.

make browser
.venv/bin/python docs/pictures/report.py
"""

import functools
import runpy
import sys
import tempfile
from pathlib import Path

import torch
from torchmetrics.classification import MulticlassAccuracy

from ttl_core import LoopComponent, TrainTestLoop, use

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "tests" / "support"))


class LogBatches(LoopComponent):
    """The loss and the learning rate of each training batch."""

    def on_batch_end(self, loop):
        """Log them."""
        if loop.is_training:
            lr = loop.optimizer.param_groups[0]["lr"]
            loop.log({"loss": loop.loss, "learning-rate": lr})


def train(directory):
    """Train, and return the file of the report."""
    torch.manual_seed(0)
    example = runpy.run_path(str(HERE.parent / "examples" / "digits.py"))
    train_data, valid_data, test_data = example["make_data"](batch_size=32)
    loop = TrainTestLoop(
        example["make_model"](),
        [
            use(
                "supervised",
                loss_func=torch.nn.CrossEntropyLoss(),
                optimizer=functools.partial(torch.optim.AdamW, lr=3e-3),
                scheduler=lambda optimizer, n_optim_steps: torch.optim.lr_scheduler.OneCycleLR(
                    optimizer, max_lr=3e-3, total_steps=n_optim_steps
                ),
            ),
            use("metrics", accuracy=MulticlassAccuracy(10, average="micro")),
            use("grad-clip", max_norm=5.0),
            LogBatches(),
            use("report", directory=directory),
        ],
        train_data,
        valid_data,
    )
    loop.train(n_epochs=10)
    loop.test(test_data)
    return loop.components["report"].path


def main():
    """Write the picture beside this file."""
    from browser import Page, open_browser

    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        page = Page(browser, train(Path(folder) / "digits"), width=1000).page
        clip = {"x": 0, "y": 0, "width": 1000, "height": 700}
        page.screenshot(path=HERE / "report.png", full_page=True, clip=clip)


if __name__ == "__main__":
    main()
