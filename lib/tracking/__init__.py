"""Tracking: MLflow, TensorBoard besides, or nothing."""
