"""What a stage would do, what it would cost and what keeps it from running, before anything is loaded."""
