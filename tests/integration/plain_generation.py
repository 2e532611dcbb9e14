"""What transformers generates by itself: the witness for the answers of infer.py."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel


def generated(model: PreTrainedModel, folder: Path, messages: list[dict[str, str]], **options: Any) -> str:
    """What transformers generates by itself, one prompt at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        output = model.generate(**prompt, do_sample=False, max_new_tokens=24, **options)
    return tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
