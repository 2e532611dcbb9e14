"""Failures that are known from here or elsewhere, each with its cause and its remedy."""
