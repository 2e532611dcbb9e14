"""LoRA on stacked experts, computed beside the frozen weights instead of added into them."""
