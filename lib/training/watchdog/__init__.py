"""Looks whether a run still moves, and says what keeps it when it does not."""
