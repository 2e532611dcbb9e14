"""Stage records, samples and masked rows as a run leaves them, made up."""

from typing import Any

from lib.data.chat.preview import MaskedRow, TokenView

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


def interval(value: float) -> list[float]:
    return [max(value - 0.06, 0.0), min(value + 0.05, 1.0)]


def scored(f1: float) -> dict[str, Any]:
    shares = {
        "gen_leaf_f1": f1,
        "gen_parse_rate": min(f1 + 0.08, 1.0),
        "gen_leaf_f1/json": f1,
        "gen_leaf_f1/toml": f1 / 2,
    }
    return {
        "metrics": {"heldout_loss": 0.31, "gen_samples": 100.0, "gen_mean_new_tokens": 57.39, **shares},
        "intervals": {name: interval(value) for name, value in shares.items()},
    }


def retained(stage: int, now: float, *, passed: bool = True, minimum: float | None = 0.9) -> dict[str, Any]:
    return {
        "stage": stage,
        "task": "structured",
        "headline": "gen_leaf_f1",
        "earlier": 0.8,
        "now": now,
        "interval": interval(now),
        "minimum": minimum,
        "passed": passed,
        "metrics": {"gen_leaf_f1": now, "gen_parse_rate": now + 0.05},
    }


def evaluation(before: float, after: float, *retention: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": "structured",
        "headline": "gen_leaf_f1",
        "before": scored(before),
        "after": scored(after),
        "retention": list(retention),
    }


def history(steps: int) -> list[dict[str, Any]]:
    logged = [
        {"step": step, "loss": 1 / step, "learning_rate": 1e-3 * (1 - step / steps), "grad_norm": 0.1}
        for step in range(5, steps + 1, 5)
    ]
    evaluated = [
        {"step": step, "eval_loss": 1.2 / step, "gen_leaf_f1": 0.5 + step / 200, "gen_parse_rate": 0.7}
        for step in range(20, steps + 1, 20)
    ]
    return [*logged, *evaluated, {"step": steps, "train_runtime": 61.2, "train_loss": 0.2}]


def ledger() -> dict[str, Any]:
    def source(name: str, requested: float, drawn: int, upsampled: int) -> dict[str, Any]:
        return {
            "id": name,
            "weight": 1.0,
            "rows": 400,
            "validation": 20,
            "training": 380,
            "requested": requested,
            "drawn": drawn,
            "upsampled": upsampled,
            "max_repeats": 2,
            "unseen": 3,
            "encoded": {"rows": upsampled, "tokens": 9000, "supervised": 3000},
        }

    def label(field: str, value: str, drawn: int) -> dict[str, Any]:
        return {"field": field, "value": value, "rows": 300, "drawn": drawn, "share": 0.4, "encoded": None}

    return {
        "sources": [
            source("data/基本.jsonl", 333.3, 333, 333),
            source("hub/a-data-set-with-a-rather-long-name", 666.7, 667, 900),
        ],
        "labels": [
            label("format", "json", 800),
            label("format", "toml", 433),
            label("type", "json_to_toml", 433),
            label("type", "テキスト", 800),
            label("pack", "the only one", 1233),
        ],
        "labels_left_out": 0,
        "base_size": 1000.0,
        "drawn": 1000,
        "upsampled": 1233,
        "replayed": 0,
        "encoded": {"rows": 1230, "tokens": 18000, "supervised": 6000},
    }


def stage_record(stage: int = 2, scores: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    parents = [
        {"stage": n, "folder": f"output/books_stage{n}", "adapter_sha256": f"{n}" * 64}
        for n in range(1, stage)
    ]
    return {
        "stage": stage,
        "settings": {"SFT_OUT_LORA_DIR": "output/books", "SFT_LR": "1e-3", "SFT_SEED": "3407"},
        "origins": {"SFT_OUT_LORA_DIR": "stage2.env:5", "SFT_LR": "--set", "SFT_SEED": "default"},
        "base": {"path": "merged", "stage0": "org/base-model", "revision": "", "fingerprint": "f" * 64},
        "parents": parents,
        "adapter_sha256": "a" * 64,
        "data": {"sources": [], "ledger": ledger()},
        "adapter": {"attention": 1000, "experts": 4000, "frozen": 95_000, "trainable": 5000},
        "training": {
            "steps": 60,
            "epochs": 1.0,
            "tokens": 18_000,
            "seconds": 61.2,
            "tokens_per_second": 294.1,
            "peak_memory_bytes": 2_529_517_568,
            "best_step": 40,
            "history": history(60),
        },
        "evaluation": scores or evaluation(0.62, 0.8, *(retained(n, 0.76) for n in range(1, stage))),
        "notices": ["[WARNING] 3 of 1233 draws were dropped"],
        "mlflow_run_id": "bcb8f971872f4bc5b35055d1b15582b0",
        "finished": "2026-11-22T07:39:05+00:00",
        "versions": {"python": "3.11.7", "code": "cecfce41a72e"},
        **changes,
    }


def sample(number: int, *, wrong: bool, **changes: Any) -> dict[str, Any]:
    answer = 'title = "坊っちゃん"\nyear = 1907' if wrong else 'title = "坊っちゃん"\nyear = 1906'
    return {
        "row": f"heldout#{number}",
        "labels": {"format": "toml" if number % 2 else "json", "type": "json_to_toml"},
        "prompt": "Write this as TOML.",
        "reference": 'title = "坊っちゃん"\nyear = 1906',
        "answer": answer,
        "document": answer,
        "tokens": 12,
        "stopped": True,
        "tally": {"gen_leaf_f1": [1, 2]},
        "verdict": {
            "parses": True,
            "exact": not wrong,
            "wrong_values": [["year", 1906, 1907]] if wrong else [],
        },
        **changes,
    }


def samples(count: int = 10) -> list[dict[str, Any]]:
    """Every fourth is wrong; the formats take turns."""
    return [sample(number, wrong=number % 4 == 0) for number in range(count)]


def masked_row() -> MaskedRow:
    views = (
        TokenView("<|im_start|>", False, True, 1),
        TokenView("質問", False, False, 2),
        TokenView("↵\n", False, False, 1),
        TokenView("year", True, False, 1),
        TokenView("<|im_end|>", True, False, 1),
    )
    return MaskedRow("data#7", "data", 5, 2, "truncated", views)
