"""The distributions of this project by the components that they offer, for errors.

A component that is not installed is in none of the metadata that discovery reads.
"""

from __future__ import annotations

_COMPONENTS = {
    "ttl-adapters": "hf-callback keras-callback lightning-callback",
    "ttl-alternating": "alternating",
    "ttl-augment": "batch-schedule cutmix label-smoothing mixup",
    "ttl-checkpoint": "checkpoint",
    "ttl-compile": "compile",
    "ttl-control": "early-stopping limit-batches nan-guard overfit-batch rollback time-limit "
    "validate-every",
    "ttl-distributed": "ddp fsdp",
    "ttl-loggers": "csv history jsonl",
    "ttl-memory": "activation-checkpointing activation-offload channels-last gc-control prefetch",
    "ttl-metrics": "metrics",
    "ttl-mlflow": "mlflow",
    "ttl-monitors": "grad-monitor lr-monitor memory throughput",
    "ttl-optim": "ema fast-optimizer freeze grad-accumulation grad-clip lr-schedule lr-warmup "
    "param-groups sam swa",
    "ttl-precision": "amp",
    "ttl-predict": "prediction-writer",
    "ttl-profile": "component-timer profiler",
    "ttl-progress": "progress summary",
    "ttl-report": "report",
    "ttl-run": "run-folder seed",
    "ttl-supervised": "supervised",
    "ttl-tensorboard": "tensorboard",
    "ttl-trackio": "trackio",
    "ttl-trials": "batch-size-finder lr-finder replay-check",
    "ttl-wandb": "wandb",
}

DISTRIBUTIONS = {
    component: distribution
    for distribution, components in _COMPONENTS.items()
    for component in components.split()
}
"""The distribution that offers a component, by its name."""
