"""The checkpoints of a stage: whole or not there, verified before use."""
