"""What a stage needs and what is there, in bytes, and how its batch is cut to fit."""
