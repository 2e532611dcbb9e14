"""Rows of large data sets, in memory-mapped Arrow files under a cache folder: normalised, tokenised, masked.

Nothing here is needed for small data sets, and nothing outside imports it before it meets a large one.
"""
