"""Conversations in which the assistant ends its sentences with "にゃ"."""
