"""The embedded tiny base model and the scripts that made it."""
