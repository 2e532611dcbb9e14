"""What bounds the time and memory that one answer can take."""

LONGEST_DOCUMENT = 100_000
"""Characters; about 25,000 tokens."""
DEEPEST = 100
"""Levels of nesting, whatever the format; also keeps recursion away from Python's own limit."""
