"""Train a small character transformer on the reference of Python, which is part of Python.

pip install ttl-core ttl-supervised ttl-metrics ttl-precision ttl-optim ttl-control ttl-progress
python text.py
"""

import functools
import math
import time
from pydoc_data import topics

import torch
from torch.utils.data import DataLoader, TensorDataset

from ttl_core import TrainTestLoop, arrange, use

LENGTH = 64  # of a piece of text, in characters


class CharTransformer(torch.nn.Module):
    """A transformer that predicts each next character from those before it."""

    def __init__(self, n_chars, width=96, n_layers=2, n_heads=4):
        super().__init__()
        self.chars = torch.nn.Embedding(n_chars, width)
        self.places = torch.nn.Embedding(LENGTH, width)
        layer = torch.nn.TransformerEncoderLayer(
            width, n_heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        norm = torch.nn.LayerNorm(width)
        self.layers = torch.nn.TransformerEncoder(layer, n_layers, norm, enable_nested_tensor=False)
        self.scores = torch.nn.Linear(width, n_chars)
        mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, codes):
        n = codes.shape[1]
        hidden = self.chars(codes) + self.places.weight[:n]
        return self.scores(self.layers(hidden, mask=self.mask[:n, :n], is_causal=True))


def make_text():
    """Return the reference, each paragraph once: some topics repeat paragraphs of others."""
    paragraphs = (p for topic in topics.topics.values() for p in topic.split("\n\n"))
    return "\n\n".join(dict.fromkeys(paragraphs))


def make_data(codes, batch_size, shuffle):
    """Return batches of pieces of text, and of the same one character later."""
    pieces = codes.unfold(0, LENGTH + 1, LENGTH)
    return DataLoader(TensorDataset(pieces[:, :-1], pieces[:, 1:]), batch_size, shuffle)


def mean_loss(scores, targets):
    """Return the mean cross-entropy of all characters."""
    return torch.nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def unigram_loss(train, valid, n_chars):
    """Return the loss of a model that predicts the frequency of each character, in nats."""
    counts = torch.bincount(train, minlength=n_chars) + 1.0
    return float(-(counts / counts.sum()).log()[valid].mean())


@torch.no_grad()
def write(model, chars, start, n, temperature=0.7):
    """Return a text continued by n characters."""
    codes = torch.tensor([[chars.index(char) for char in start]])
    model.eval()
    for _ in range(n):
        scores = model(codes[:, -LENGTH:])[0, -1] / temperature
        codes = torch.cat([codes, torch.multinomial(scores.softmax(0), 1)[None]], dim=1)
    return "".join(chars[code] for code in codes[0])


def main(n_epochs=5):
    """Train, and print which components ran, the loss, and what the network writes."""
    torch.manual_seed(0)
    text = make_text()
    chars = sorted(set(text))
    codes = torch.tensor([chars.index(char) for char in text])
    train, valid = codes.tensor_split([int(0.9 * len(codes))])

    def make_scheduler(optimizer, n_optim_steps):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_optim_steps)

    model = CharTransformer(len(chars))
    optimizer = functools.partial(torch.optim.AdamW, lr=4e-3, weight_decay=0.05)
    components = arrange(
        [
            use("supervised", loss_func=mean_loss, optimizer=optimizer, scheduler=make_scheduler),
            use("amp", dtype="bf16"),
            use("grad-accumulation", every=2),
            use("grad-clip", max_norm=1.0),
            use("lr-warmup", n_steps=50),
            use("ema", decay=0.98),
            use("early-stopping", monitor="valid/loss", patience=2, min_delta=0.002),
            "metrics",
            "progress",
        ]
    )
    loop = TrainTestLoop(model, components, make_data(train, 16, True), make_data(valid, 64, False))
    start = time.perf_counter()
    loop.train(n_epochs)
    seconds = time.perf_counter() - start

    print("\nWhat ran:")
    for row in loop.manifest():
        print(f"  {row['name']:20}{row['distribution']} {row['version']}")
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"\n{n_parameters} parameters, {len(train)} characters, {loop.global_step} steps, ", end=""
    )
    print(f"{seconds:.0f} s; stopped early: {loop.components['early-stopping'].reason or 'no'}")
    print("\nLoss on text that was held out:")
    baseline = unigram_loss(train, valid, len(chars))
    for what, loss in {"network": float(loop.metrics["valid/loss"]), "unigram": baseline}.items():
        print(f"  {what}  {loss:.3f} nats, {loss / math.log(2):.3f} bits per character")
    print("\nWhat it writes:\n")
    print(write(loop.components["ema"].averaged.module, chars, "The expression ", 300))


if __name__ == "__main__":
    main()
