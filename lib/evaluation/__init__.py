"""Evaluation by generation: answers of a model on held-out rows, and pure checks of them."""
