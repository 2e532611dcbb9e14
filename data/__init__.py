"""The embedded data sets and the generator that made them."""
