"""The processes of a run: starting them, their ranks, their signals and their last words."""
