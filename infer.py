"""Ask a trained model.

A stage, an exported model or any model or adapter folder answers one prompt, a file of rows, or a person in a
terminal. It is asked with the chat template that it was trained with, and its answers end where they ended in
training; they are greedy unless a temperature is given.

    python infer.py --stage 3                                               a chat
    python infer.py --stage 3 --prompt "Turn the list below into TOML. …"   one answer, on stdout
    python infer.py --stage 3 --input rows.jsonl --output answers.jsonl     a file; resumable
    python infer.py --model my-model --system "Be brief." --temperature 0.7 --seed 1
"""

import argparse
import signal
import sys

from lib.commands.arguments import parse_infer
from lib.commands.asking import answering_explained, answering_watched
from lib.files import write_json
from lib.inference.answer_file import AnswerFile
from lib.inference.folder_source import folder_source
from lib.inference.input_rows import InputRows, check_rows, read_input
from lib.inference.scoring import score_answers
from lib.inference.source import ModelSource, stage_source
from lib.inference.wishes import Wishes
from lib.lineage.completion import metrics_table
from lib.settings import InputError
from lib.training.processes.launch import prepare_environment
from lib.training.sizing.world import plan_world


def main() -> int:
    options = parse_infer(sys.argv[1:], description=__doc__ or "")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception: what is answered is kept
    try:
        prepare_environment(plan_world(1))
        with answering_explained(options):
            if options.input:
                answer_file(options)
            else:
                answer_person(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def find_source(options: argparse.Namespace) -> ModelSource:
    """The model that the command line names."""
    if options.model is None:
        source = stage_source(options.stages_dir, options.stage, options.set)
    else:
        source = folder_source(options.model, options.base)
    return source.asked_with(options.chat_template, options.dtype, options.quantization)


def answer_person(options: argparse.Namespace) -> None:
    """One prompt, or a chat."""
    source, wishes = find_source(options), Wishes.of(options)
    # torch, and all that needs it, is imported here and not above, so that a refusal takes no time.
    from lib.inference.assistant import check_system_prompt, load_chat, loaded
    from lib.inference.terminal import answer_prompt, converse
    from lib.training.quiet import quiet_libraries

    quiet_libraries()
    tokenizer, chat = load_chat(source)
    check_system_prompt(chat, wishes.system)
    with answering_watched(options, source), loaded(source, tokenizer, chat, wishes) as assistant:
        if options.prompt is not None:
            answer_prompt(assistant, options.prompt, wishes)
        else:
            converse(assistant, wishes)


def answer_file(options: argparse.Namespace) -> None:
    """The rows of a file that the output does not hold yet; scores, where the rows have references."""
    wishes = Wishes.of(options)
    rows = read_input(options.input, wishes.system)
    source = find_source(options)
    made_from = {"input": rows.sha256, **source.identity(), **wishes.decisive(source.habits)}
    answers = AnswerFile(options.output, rows.rows, made_from, anew=options.force)
    if answers.complete:
        print(f"{answers.path} holds the answers to all {len(rows)} rows: nothing to do")
    else:
        with answering_watched(options, source):
            answer_what_is_left(source, rows, answers, wishes)
        print(f"{len(rows)} answers in {answers.path}")
    if rows.referenced and not answers.metrics.is_file():
        scores = score_answers(rows, answers.replies, source.habits)
        write_json(answers.metrics, scores)
        print(*metrics_table({scores["task"]: scores}, "rows"), f"  metrics in {answers.metrics}", sep="\n")


def answer_what_is_left(source: ModelSource, rows: InputRows, answers: AnswerFile, wishes: Wishes) -> None:
    """Whatever stops this, the batches that are done are kept."""
    from lib.inference.answering import answer_rows
    from lib.inference.assistant import load_chat, loaded
    from lib.training.quiet import quiet_libraries

    quiet_libraries()
    tokenizer, chat = load_chat(source)
    check_rows(rows, chat)
    try:
        with loaded(source, tokenizer, chat, wishes) as assistant:
            answer_rows(assistant, rows, answers, wishes.batch_size or source.habits.batch_size, wishes.seed)
    finally:
        if not answers.complete:
            done = f"{len(answers.replies)} of {len(rows)} rows are answered"
            print(f"{done}; the same command goes on from there", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
