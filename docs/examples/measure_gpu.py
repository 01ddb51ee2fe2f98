"""Measure steps on a GPU against loops written by hand. Nothing inside a batch may wait for it.

python measure_gpu.py
"""

import functools
import statistics
import time

import torch
from digits import make_model
from text import LENGTH, CharTransformer
from torchmetrics.classification import MulticlassAccuracy

from ttl_core import LoopComponent, TrainTestLoop, arrange, hookimpl, use

N_BATCHES, EVERY, REPEATS = 100, 2, 15
adamw = functools.partial(torch.optim.AdamW, lr=1e-3, fused=True)


class ForbidWaiting(LoopComponent):
    """A component that makes every wait for the GPU inside a batch an error."""

    @hookimpl(tryfirst=True)
    def on_batch_begin(self, loop):
        torch.cuda.set_sync_debug_mode("error")

    @hookimpl(trylast=True)
    def on_batch_end(self, loop):
        torch.cuda.set_sync_debug_mode("default")


def mean_loss(scores, targets):
    return torch.nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())


def targets_of(loop):
    return loop.scores.detach().flatten(0, -2), loop.batch[1].flatten()


def make_accuracy(n_classes):
    return MulticlassAccuracy(n_classes, average="micro", validate_args=False)


def make_loop(model, data, n_classes, dtype, forbid):
    accuracy = make_accuracy(n_classes)
    components = [
        use("supervised", loss_func=mean_loss, optimizer=adamw),
        use("amp", dtype=dtype),
        use("grad-accumulation", every=EVERY),
        use("grad-clip", max_norm=1.0),
        use("ema", decay=0.99),
        use("metrics", accuracy=accuracy, update_with=targets_of),
        use("early-stopping", monitor="train/loss", patience=10**6),
    ]
    return TrainTestLoop(model, arrange(components + [ForbidWaiting()] * forbid), data)


def make_by_hand(model, data, n_classes, dtype):
    """Return a function that does the same for an epoch, without the loop."""
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average)
    averages, parameters = list(averaged.module.parameters()), list(model.parameters())
    accuracy = make_accuracy(n_classes).cuda()
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == "fp16")
    autocast_dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]

    def train():
        optimizer = adamw(parameters)
        total = torch.zeros((), device="cuda")
        model.train()
        for batch_num, (inputs, targets) in enumerate(data):
            with torch.autocast("cuda", autocast_dtype):
                scores = model(inputs)
                loss = mean_loss(scores, targets)
            scaler.scale(loss / EVERY).backward()
            if (batch_num + 1) % EVERY == 0:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                scaler.step(optimizer)
                scaler.update()
                average(averages, parameters, None)
                optimizer.zero_grad()
            total += loss.detach() * len(inputs)
            accuracy.update(scores.detach().flatten(0, -2), targets.flatten())
        float(total), float(accuracy.compute())
        accuracy.reset()

    return train


def seconds(run):
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / N_BATCHES


def main():
    if not torch.cuda.is_available():
        print("Not run: there is no GPU.")
        return
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    images = torch.rand(512, 1, 8, 8, device="cuda"), torch.randint(10, (512,), device="cuda")
    codes = torch.randint(100, (2, 64, LENGTH), device="cuda").unbind()
    transformer = functools.partial(CharTransformer, 100)
    cases = {"digits": (make_model, images, 10), "transformer": (transformer, codes, 100)}
    for name, (make, batch, n_classes) in cases.items():
        for dtype in ("bf16", "fp16"):
            data = [batch] * N_BATCHES
            make_loop(make().cuda(), data, n_classes, dtype, forbid=True).train(1)
            loop = make_loop(make().cuda(), data, n_classes, dtype, forbid=False)
            by_hand = make_by_hand(make().cuda(), data, n_classes, dtype)
            loop.train(1), by_hand()  # warm up
            pairs = [(seconds(lambda: loop.train(1)), seconds(by_hand)) for _ in range(REPEATS)]  # noqa: B023
            ours, theirs = (statistics.median(column) * 1e6 for column in zip(*pairs, strict=True))
            ratio = statistics.median(one / other for one, other in pairs)
            print(f"{name} {dtype}: {ours:.1f} µs, by hand {theirs:.1f} µs, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
