"""Predictions for ttl, written batch by batch to Parquet, .npz or safetensors files."""

from ttl_predict.prediction_writer import PredictionWriter

__all__ = ["PredictionWriter"]
