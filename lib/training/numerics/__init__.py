"""Losses, gradients and norms that have gone wrong, and what is done about them."""
