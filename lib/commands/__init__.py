"""The command line of train.py: its options, and what it prints without training."""
