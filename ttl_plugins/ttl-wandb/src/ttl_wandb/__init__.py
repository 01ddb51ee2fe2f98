"""Logged values for ttl in Weights & Biases."""

from ttl_wandb.wandb import Wandb

__all__ = ["Wandb"]
