"""From data set ids to token ids: reading → chat (tokens and masks) → order → mixing → prepare.

`stored` keeps the rows of large data sets on disk. Nothing here imports torch, transformers or datasets at
import time: a plan uses the same code as a run.
"""
