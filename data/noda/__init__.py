"""Conversations with a system message, answered in sentences that end with のだ."""
