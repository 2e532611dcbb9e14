"""The library behind train.py, infer.py and export.py."""
