"""From data set ids to token ids: sources → rows → mixture → chat (tokens and masks) → prepare.

Nothing here imports torch, transformers or datasets at import time: a plan uses the same code as a run.
"""
