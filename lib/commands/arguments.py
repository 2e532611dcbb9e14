"""Options of `python train.py`, `python export.py` and `python infer.py`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def parse(arguments: Sequence[str] | None, description: str) -> argparse.Namespace:
    """The options, with argparse's own exit code 2 for what is wrong with them."""
    parser = _parser(description)
    _add_running(parser.add_argument)
    _add_looking(parser.add_argument)
    _add_writing(parser.add_argument)
    options = parser.parse_args(arguments)
    if options.to and not (options.import_config or options.suggest):
        parser.error("--to belongs to --import-config or --suggest")
    if options.suggest:
        _check_suggestion(parser, options)
    elif options.import_config:
        _check_import(parser, options)
        options.to = options.to or Path("stages-imported")
    else:
        _check_running(parser, options)
    return options


def _add_running(add: Callable[..., object]) -> None:
    """Which stages run, and how."""
    add("--stage", metavar="N", help="a stage number, a range (1-3) or all")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the stage file (repeatable)",
    )
    add(
        "--nproc",
        type=_whole(0),  # 0 is refused with what this machine allows
        metavar="N",
        help="processes on this machine (default: one per visible GPU, else 1)",
    )
    # DeepSpeed's launcher gives it; the environment says the same.
    add("--local_rank", type=int, help=argparse.SUPPRESS)
    add("--force", action="store_true", help="run stages again that are complete and up to date")
    add(
        "--restart",
        action="store_true",
        help="begin interrupted stages anew instead of going on where they stood",
    )
    add(
        "--evaluate-only",
        action="store_true",
        help="score finished stages again, without training; stage 0 is the untouched base",
    )


def _add_looking(add: Callable[..., object]) -> None:
    """What is shown instead of running."""
    add("--plan", action="store_true", help="print what would run, and stop; loads no torch")
    add(
        "--show-mask",
        type=_whole(0),
        default=0,
        metavar="N",
        help="with --plan: N training rows with the learned tokens marked",
    )
    add(
        "--audit",
        action="store_true",
        help="with --plan: rows that should not be trained on, with examples (SFT_AUDIT_CHECKS)",
    )
    add(
        "--hardware",
        metavar="NxGPU",
        help="with --plan: for GPUs that are not here (4xH100, 1xH200, 2x48GB), one process each",
    )
    add("--check", action="store_true", help="find what would go wrong, without training; loads the model")
    add("--fast", action="store_true", help="with --check: only what needs no model loaded")
    add("--status", action="store_true", help="print where every stage stands, one line each")
    add("--json", action="store_true", help="with --plan, --check or --status: for machines")


def _add_writing(add: Callable[..., object]) -> None:
    """Stage files that are written."""
    add(
        "--import-config",
        type=Path,
        metavar="FILE",
        help="write a stage file from a YAML of Axolotl or LLaMA-Factory, and stop",
    )
    add(
        "--suggest",
        type=_whole(1),
        metavar="N",
        help="write a proposal for stage N from the scores of stage N-1, and stop",
    )
    add(
        "--to",
        type=Path,
        metavar="PATH",
        help="with --import-config: folder (default: stages-imported); "
        "with --suggest: file (default: stageN.suggested.env beside the stage files)",
    )


def _check_suggestion(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.import_config or options.stage or options.status or options.plan or options.json:
        parser.error("--suggest goes with --to, --stages-dir and --set alone")


def _check_import(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.stage or options.status or options.plan or options.evaluate_only or options.set:
        parser.error("--import-config goes with --to alone")


def _check_running(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not (options.status or options.stage):
        parser.error("say which stage: --stage N, --stage 1-3 or --stage all (or ask for --status)")
    if options.evaluate_only and (options.plan or options.force or options.restart):
        parser.error("--evaluate-only goes with none of --plan, --force and --restart")
    if options.fast and not options.check:
        parser.error("--fast belongs to --check")
    if options.check and (options.plan or options.force or options.evaluate_only or options.status):
        parser.error("--check goes with none of --plan, --force, --evaluate-only and --status")
    if options.show_mask and not options.plan:
        parser.error("--show-mask belongs to --plan")
    if options.audit and not options.plan:
        parser.error("--audit belongs to --plan")
    if options.hardware and not options.plan:
        parser.error("--hardware belongs to --plan")
    if options.json and not (options.plan or options.status or options.check):
        parser.error("--json belongs to --plan, --check or --status")


def parse_export(arguments: Sequence[str] | None, description: str) -> argparse.Namespace:
    """Options of `python export.py`."""
    parser = _parser(description)
    add = parser.add_argument
    add("--stage", required=True, type=_whole(1), metavar="N", help="the last stage that goes into the model")
    add("--to", required=True, type=Path, metavar="DIR", help="folder to write; new or empty")
    add(
        "--adapter-only",
        action="store_true",
        help="one adapter with the updates of all stages, instead of a whole model",
    )
    add("--force", action="store_true", help="replace a model or adapter that DIR holds")
    return parser.parse_args(arguments)


def parse_infer(arguments: Sequence[str] | None, description: str) -> argparse.Namespace:
    """Options of `python infer.py`."""
    parser = _parser(description)
    _add_source(parser.add_argument_group("the model that answers"))
    _add_questions(parser.add_argument_group("what it is asked (neither --prompt nor --input: a chat)"))
    _add_decoding(parser.add_argument_group("how it answers"))
    options = parser.parse_args(arguments)
    if (options.stage is None) == (options.model is None):
        parser.error("say which model answers: --stage N (0: the untouched base) or --model DIR")
    if options.model is not None and options.set:
        parser.error("--set belongs to --stage")
    if options.base and options.model is None:
        parser.error("--base belongs to --model")
    if bool(options.input) != bool(options.output):
        parser.error("--input and --output belong together")
    if options.input and options.prompt is not None:
        parser.error("--prompt and --input are two ways to ask: give one")
    if not options.input and (options.force or options.batch_size):
        parser.error("--force and --batch-size belong to --input")
    if options.input and options.input.resolve() == options.output.resolve():
        parser.error("--output must be another file than --input")
    if not options.temperature and (options.top_p is not None or options.top_k is not None):
        parser.error("--top-p and --top-k choose among samples: give a --temperature above 0 as well")
    return options


def _add_source(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--stage", type=_whole(0), metavar="N", help="a trained stage; 0 is the untouched base")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the stage files (repeatable)",
    )
    add("--model", type=Path, metavar="DIR", help="a folder with a model or an adapter")
    add("--base", default="", metavar="MODEL", help="the base of the adapter in --model DIR")
    add("--chat-template", default="", metavar="NAME", help="a bundled template's name or a jinja file")
    add("--dtype", choices=("auto", "bf16", "fp32"), help="precision to compute in")
    add(
        "--quantization",
        choices=("none", "nf4", "nf4-double"),
        help="how the base is loaded (default: as its stage was trained)",
    )
    how = group.add_mutually_exclusive_group()
    how.add_argument(
        "--merged",
        action="store_true",
        default=True,
        help="add the adapter to the weights in memory: fast (default)",
    )
    how.add_argument(
        "--adapter", dest="merged", action="store_false", help="compute the adapter beside the weights"
    )


def _add_questions(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--prompt", type=_text, metavar="TEXT", help="one question; the answer goes to stdout")
    add("--input", type=Path, metavar="FILE", help="rows with questions: .jsonl, .json, .parquet or .csv")
    add("--output", type=Path, metavar="FILE.jsonl", help="the rows with their answers")
    add("--force", action="store_true", help="answer all rows anew, whatever --output holds")
    add("--batch-size", type=_whole(1), metavar="N", help="rows answered at a time")
    add("--system", type=_text, metavar="TEXT", help="system prompt")


def _add_decoding(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--max-new-tokens", type=_whole(1), metavar="N", help="longest answer")
    add("--temperature", type=_number(0), default=0.0, metavar="T", help="0: greedy (default)")
    add("--top-p", type=_number(0, 1), metavar="P", help="sample from the likeliest tokens of this mass")
    add("--top-k", type=_whole(0), metavar="K", help="sample from so many likeliest tokens; 0: from all")
    add("--repetition-penalty", type=_number(0.01), metavar="R", help="above 1: against repetition")
    add("--seed", type=_whole(0), default=0, metavar="N", help="the same seed draws the same samples")


def _whole(minimum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least {minimum}")
        return int(text)

    return number


def _number(minimum: float, maximum: float = math.inf) -> Callable[[str], float]:
    expected = f"a number from {minimum:g}" + (f" to {maximum:g}" if maximum < math.inf else " up")

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and minimum <= value <= maximum):
            raise argparse.ArgumentTypeError(f"{text}: expected {expected}")
        return value

    return number


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("expected valid text in the terminal's encoding") from error
    if not text.strip():
        raise argparse.ArgumentTypeError("expected text that is not empty")
    return text


def _parser(description: str) -> argparse.ArgumentParser:
    """With what all commands take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stages-dir",
        type=Path,
        default=Path("stages"),
        metavar="DIR",
        help="folder of the curriculum's stage files",
    )
    return parser


def worker_command(options: argparse.Namespace, stage: int) -> list[str]:
    """The command of one worker process: this stage alone, whatever its state."""
    script = str(Path(sys.argv[0]).resolve())
    overrides = [text for override in options.set for text in ("--set", override)]
    how = ["--evaluate-only"] if options.evaluate_only else ["--force", *["--restart"] * options.restart]
    return [script, "--stage", str(stage), "--stages-dir", str(options.stages_dir), *overrides, *how]
