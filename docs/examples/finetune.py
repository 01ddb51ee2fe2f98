"""Fine-tune a network on handwritten digits, as a list of names: what one list can do.

pip install ttl-core ttl-supervised ttl-metrics ttl-progress ttl-checkpoint ttl-run ttl-loggers \
    ttl-report ttl-optim ttl-control ttl-augment ttl-predict scikit-learn
python finetune.py

First a network learns whether digits are even, then it gets a new head and learns which they are.
"""

import functools

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from ttl_core import SeededSampler, TrainTestLoop, use


def make_data(labels, batch_size=32):
    """Return training, validation and test data with the labels that a function makes of digits."""
    images, digits = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32) / 16
    data = TensorDataset(images, labels(torch.tensor(digits)))
    parts = torch.utils.data.random_split(data, [1000, 197, 600], torch.Generator().manual_seed(0))
    train, valid, test = parts
    return (
        DataLoader(train, batch_size, sampler=SeededSampler(train)),
        DataLoader(valid, batch_size),
        DataLoader(test, batch_size),
    )


def make_model(n_classes):
    """Return layers, and a head on top of them."""
    body = torch.nn.Sequential(
        *(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()) for _ in range(3))
    )
    parts = {"body": body, "head": torch.nn.Linear(64, n_classes)}
    model = torch.nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    return model


def main(folder="runs/finetune", n_epochs=15):
    """Pretrain, fine-tune, test the best weights, and write predictions; return the loop."""
    torch.manual_seed(0)
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.05)
    step = functools.partial(
        use, "supervised", loss_func=torch.nn.CrossEntropyLoss(), optimizer=optimizer
    )
    train_data, valid_data, _ = make_data(lambda digits: digits % 2)
    pretrained = make_model(2)
    pretraining = [step(), use("lr-schedule", kind="cosine"), "metrics"]
    TrainTestLoop(pretrained, pretraining, train_data, valid_data).train(n_epochs=3)

    model = make_model(10)
    model.body.load_state_dict(pretrained.body.state_dict())
    train_data, valid_data, test_data = make_data(lambda digits: digits)
    patterns = {"head.*": {"lr_scale": 2.0}, "body.0.*": {"freeze": True}}
    loop = TrainTestLoop(
        model,
        [
            use("run-folder", directory=folder),
            use("mixup", n_classes=10),
            step(),
            use("param-groups", patterns=patterns, layer_decay=0.8, layers="body"),
            use("lr-schedule", kind="wsd", warmup=0.1, decay=0.3),
            use("grad-clip", max_norm=1.0),
            use("ema", decay=0.9),
            use("rollback", lr_factor=0.5),
            use("metrics", accuracy=MulticlassAccuracy(10, average="micro")),
            use("checkpoint", best="valid/accuracy", mode="max"),
            "prediction-writer",
            *("csv", "report", "progress"),
        ],
        train_data,
        valid_data,
    )
    loop.train(n_epochs=n_epochs)
    loop.components["checkpoint"].load_best()
    loop.test(test_data)
    loop.predict(test_data, collect=False)
    print(f"\ntest accuracy {loop.metrics['test/accuracy']:.4f}")
    print(f"In {folder}: {', '.join(sorted(p.name for p in loop.run_folder.glob('[!.]*')))}")
    return loop


if __name__ == "__main__":
    main()
