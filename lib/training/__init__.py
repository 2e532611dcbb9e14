"""Training: processes, DeepSpeed settings, the assembled SFTTrainer, and what a person sees of it."""
