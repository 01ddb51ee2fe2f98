"""Augmentation for ttl: mixed samples, smoothed labels, growing batches."""

from ttl_augment.batch_schedule import BatchSchedule
from ttl_augment.cutmix import Cutmix
from ttl_augment.label_smoothing import LabelSmoothing
from ttl_augment.mixup import Mixup

__all__ = ["BatchSchedule", "Cutmix", "LabelSmoothing", "Mixup"]
