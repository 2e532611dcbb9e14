"""The model side of a stage: the base, its merged ancestors, and the adapter to train."""
