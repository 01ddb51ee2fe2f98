"""Logged values for ttl in MLflow."""

from ttl_mlflow.mlflow import Mlflow

__all__ = ["Mlflow"]
