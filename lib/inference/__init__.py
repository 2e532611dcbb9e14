"""Answers for people: one prompt, a file of rows, or a conversation."""
