"""Tracking: MLflow, or nothing."""
