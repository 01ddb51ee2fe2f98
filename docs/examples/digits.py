"""Train a small convolutional network on the handwritten digits that scikit-learn ships.

pip install ttl-core ttl-supervised ttl-metrics ttl-progress ttl-checkpoint ttl-run ttl-loggers \
    ttl-report ttl-distributed scikit-learn
python digits.py                              # or, on two devices or processes:
torchrun --nproc-per-node 2 digits.py

Press ctrl-C and start it again: it resumes, to the same result.
"""

import functools

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from ttl_core import LoopComponent, SeededSampler, TrainTestLoop, use


class CountMistakes(LoopComponent):
    """The mistakes in testing: pairs of a digit and a wrong guess. A component is just a class."""

    def on_test_begin(self, loop):
        self.mistakes = []

    def on_batch_end(self, loop):
        if loop.is_testing:
            guesses, digits = loop.scores.argmax(dim=1), loop.batch[1]
            self.mistakes += [(d, g) for d, g in zip(digits, guesses, strict=True) if d != g]

    def on_test_end(self, loop):
        parts = loop.group.gather(self.mistakes)  # of all processes
        self.mistakes = [mistake for part in parts for mistake in part]


def make_data(batch_size=64):
    """Return training, validation and test data: a third of the digits is for the test."""
    images, digits = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    digits = torch.tensor(digits)
    rest, test = train_test_split(range(len(digits)), test_size=1 / 3, random_state=0)
    train, valid = train_test_split(rest, test_size=0.1, random_state=0)

    def loader(indices, shuffle):
        data = TensorDataset(images[indices], digits[indices])
        # a run that is resumed in mid-epoch can repeat this order, unlike that of shuffle=True
        return DataLoader(data, batch_size, sampler=SeededSampler(data) if shuffle else None)

    return loader(train, True), loader(valid, False), loader(test, False)


def make_model():
    """Return a network with two convolutions."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, kernel_size=3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, kernel_size=3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.3),
        torch.nn.Linear(64 * 4 * 4, 10),
    )


def main(folder="runs/digits", more=()):
    """Train, test, and print which components ran and how accurate the model is."""
    torch.manual_seed(0)
    train_data, valid_data, test_data = make_data()
    loop = TrainTestLoop(
        make_model(),
        [
            "ddp",
            use("run-folder", directory=folder),
            use(
                "supervised",
                loss_func=torch.nn.CrossEntropyLoss(),
                optimizer=functools.partial(torch.optim.AdamW, lr=1e-2),
                scheduler=lambda optimizer, n_optim_steps: torch.optim.lr_scheduler.OneCycleLR(
                    optimizer, max_lr=1e-2, total_steps=n_optim_steps
                ),
            ),
            use("metrics", accuracy=MulticlassAccuracy(10, average="micro")),
            use("checkpoint", best="valid/loss"),  # in the folder of the run, as csv and report
            "csv",
            "report",
            "progress",
            CountMistakes(),
            *more,
        ],
        train_data,
        valid_data,
    )
    loop.train(n_epochs=10)
    loop.test(test_data)
    if not loop.group.is_main:
        return

    print("\nWhat ran:")
    for row in loop.manifest():
        origin = f"{row['distribution']} {row['version']}" if row["distribution"] else "this script"
        print(f"  {row['name']:16}{origin}")
    print(f"\nIn {folder}: {', '.join(sorted(p.name for p in loop.run_folder.glob('[!.]*')))}")
    mistakes = loop.components["count-mistakes"].mistakes
    print(f"\n{len(mistakes)} mistakes in {len(test_data.dataset)} digits: ", end="")
    print(f"test accuracy {loop.metrics['test/accuracy']:.4f}")


if __name__ == "__main__":
    main()
