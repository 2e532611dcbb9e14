"""Conversations into token ids and masks, as the model's tokenizer and chat template make them."""
