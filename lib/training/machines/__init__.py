"""Several processes on one or more machines: they meet, agree, end together, and keep the same files."""
