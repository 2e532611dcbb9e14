"""Make `assets/tiny-moe`: train its tokenizer, pretrain a small Qwen3-MoE, save both in bf16.

From the repository root, about 65 minutes on two cores:

    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m assets.make_tiny_moe --work-dir /tmp/tiny_moe

Interrupted runs go on from the work folder. `--export` only writes the newest checkpoint.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from transformers import GenerationConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM

from assets.pretraining import Recipe, pretrain, tiny_config
from assets.tiny_tokenizer import END, PAD, save_tokenizer, token_id, train_tokenizer

HERE = Path(__file__).parent


def parse_arguments() -> argparse.Namespace:
    recipe = Recipe()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=HERE / "tiny-moe")
    parser.add_argument("--work-dir", type=Path, default=Path(tempfile.gettempdir()) / "tiny_moe")
    parser.add_argument("--seed", type=int, default=recipe.seed)
    parser.add_argument("--steps", type=int, default=recipe.steps)
    parser.add_argument("--experts", default=recipe.experts, help="implementation of the expert products")
    parser.add_argument("--export", action="store_true", help="write the newest checkpoint and stop")
    return parser.parse_args()


def tokenizer_of(work_dir: Path, seed: int) -> Tokenizer:
    path = work_dir / "tokenizer.json"
    if not path.exists():
        train_tokenizer(seed).save(str(path))
    return Tokenizer.from_file(str(path))


def save_model(model: Qwen3MoeForCausalLM, tokenizer: Tokenizer, output: Path) -> None:
    """Written beside the output and then swapped in: readers never meet half a model."""
    partial = Path(tempfile.mkdtemp(prefix=".tiny-moe-", dir=output.parent))
    model.generation_config = GenerationConfig(
        eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id
    )
    model.bfloat16().save_pretrained(partial)
    save_tokenizer(
        tokenizer, partial, model.config.max_position_embeddings, (HERE / "chatml.jinja").read_text()
    )
    partial.chmod(0o755)
    for path in partial.iterdir():
        path.chmod(0o644)
    previous = output.with_name(".tiny-moe-previous")
    if output.exists():
        output.rename(previous)
    partial.rename(output)
    shutil.rmtree(previous, ignore_errors=True)


def config_for(tokenizer: Tokenizer) -> Qwen3MoeConfig:
    return tiny_config(tokenizer.get_vocab_size(), token_id(tokenizer, PAD), token_id(tokenizer, END))


def export(work_dir: Path, output: Path) -> None:
    """Write the newest checkpoint as an ordinary model folder."""
    tokenizer = Tokenizer.from_file(str(work_dir / "tokenizer.json"))
    model = Qwen3MoeForCausalLM(config_for(tokenizer))
    model.load_state_dict(torch.load(work_dir / "checkpoint.pt", weights_only=True)["model"])
    save_model(model, tokenizer, output)


def run_pretraining(arguments: argparse.Namespace) -> None:
    """What each process of torchrun does; the first one trains the tokenizer and writes the output."""
    dist.init_process_group("gloo")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    first = dist.get_rank() == 0
    if first:
        tokenizer_of(arguments.work_dir, arguments.seed)
    dist.barrier()
    tokenizer = tokenizer_of(arguments.work_dir, arguments.seed)
    recipe = Recipe(seed=arguments.seed, steps=arguments.steps, experts=arguments.experts)
    pretrain(recipe, config_for(tokenizer), tokenizer, arguments.work_dir)
    if first:
        export(arguments.work_dir, arguments.output)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    arguments = parse_arguments()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    if arguments.export:
        export(arguments.work_dir, arguments.output)
    else:
        run_pretraining(arguments)


if __name__ == "__main__":
    main()
