"""Export a trained curriculum as an ordinary model.

The base with the adapters of stages 1 to N merged into it becomes a folder that transformers, vLLM and
llama.cpp take as it is: weights, configuration, tokenizer, chat template, end tokens and a model card. With
--adapter-only the adapters become one PEFT adapter on the untouched base instead.

    python export.py --stage 3 --to my-model
    python export.py --stage 3 --to my-adapter --adapter-only
    python export.py --stage 2 --to my-model --stages-dir stages-30b --force
"""

import argparse
import signal
import sys

from lib.commands.arguments import parse_export
from lib.commands.exporting import exporting_explained, exporting_watched
from lib.data.chat.chat_format import ChatFormat
from lib.exporting.export import Exported, stages_to_export
from lib.exporting.export_card import adapter_card, merged_card
from lib.files import write_text
from lib.heartbeat import phase
from lib.settings import InputError


def main() -> int:
    options = parse_export(sys.argv[1:], description=__doc__ or "")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception: what was begun is taken away
    try:
        with exporting_explained(options):
            exported = stages_to_export(options.stages_dir, options.stage, options.to, replace=options.force)
            with exporting_watched(options, exported.settings):
                export(exported, options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def export(exported: Exported, options: argparse.Namespace) -> None:
    """Build the folder beside its place and move it there when it is whole."""
    # torch, and all that needs it, is imported here and not above, so that a refusal takes no time.
    from lib.model.exported_files import add_end_tokens, take_tokenizer
    from lib.model.merge import built_model, merge_adapters
    from lib.model.merge_proof import proof_line, proof_notices
    from lib.model.stacked_adapter import stack_adapters
    from lib.training.quiet import quiet_libraries

    quiet_libraries()
    settings, chain, name = exported.settings, exported.chain, options.to.resolve().name
    print(f"exporting {exported.headline}", flush=True)
    with phase("merge"), built_model(options.to, blamed="--to") as folder:
        if options.adapter_only:
            rank = stack_adapters(settings.model, chain.adapters, folder)
            card = adapter_card(exported, name, rank)
        else:
            proof = merge_adapters(settings.model, chain.adapters, folder)
            warnings = proof_notices(proof, settings.model.merge_min_kept)
            print(f"  {proof_line(proof)}", *warnings, sep="\n", flush=True)
            chat = ChatFormat.load(settings.stage_dir)
            add_end_tokens(folder, chat.stop_ids if chat else ())
            card = merged_card(exported, name)
        take_tokenizer(settings.stage_dir, folder)
        write_text(folder / "README.md", card)
    print(f"  {'adapter' if options.adapter_only else 'model'} in {options.to}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
