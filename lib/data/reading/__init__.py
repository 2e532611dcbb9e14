"""Data set ids into rows, and rows of any known format into conversations with labels."""
