"""Makes docs/hparams.md from the table: python -m s2s_search.hparams.reference > docs/hparams.md."""

import json
import sys
from collections.abc import Iterable, Mapping

from s2s_search.hparams.arguments import REQUIRED, Argument
from s2s_search.hparams.rules import RULES
from s2s_search.hparams.table import BRIDGES, CELLS, HPARAMS, MODELS, REFUSED, TABLE, Hparam


def _code(value: object) -> str:
    if value is REQUIRED or value == "":
        return "" if value == "" else "must be given"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _row(row: Hparam) -> str:
    values = {model: _code(row.default_for(model)) for model in row.models}
    each = "; ".join(f"{model}: {value}" for model, value in values.items())
    default = each if len(set(values.values())) > 1 else next(iter(values.values()))
    return f"| `{row.name}` | {default} | {row.law} | {row.description} |"


def _section(title: str, rows: Iterable[Hparam]) -> list[str]:
    head = ["| Name | Default | Values | Description |", "| --- | --- | --- | --- |"]
    return [f"\n## {title}\n", *head, *map(_row, rows)]


def _classes(title: str, classes: Mapping[str, tuple[Argument, ...]]) -> list[str]:
    lines = [
        f"\n## {title}\n",
        "| Class | Argument | Default | Values |",
        "| --- | --- | --- | --- |",
    ]
    for name, arguments in classes.items():
        lines += [f"| `{name}` | `{a.name}` | {_code(a.default)} | {a.law} |" for a in arguments]
        lines += [] if arguments else [f"| `{name}` | none | | |"]
    return lines


def reference() -> str:
    """Returns docs/hparams.md, made from the table."""
    common = HPARAMS[: HPARAMS.index(TABLE["bridge_spec"])]
    models = [row for row in HPARAMS if not row.ours and row not in common]
    lines = [
        "<!-- Written by `python -m s2s_search.hparams.reference > docs/hparams.md`; do not edit. -->",
        "# Hyperparameters\n",
        "Models: "
        + ", ".join(f"`{model}`" for model in MODELS)
        + " (`AttentionSeq2seq` is understood).",
        "One entry of a spec is set by one more dot: `encoder.rnn_cell.cell_spec.num_units=256`. A spec given",
        "whole replaces the default whole. Where an entry sets another class, entries of the default that it does",
        "not know are dropped, and `num_units` becomes the `cell_size` of `GRUBlockCell`.",
        *_section("Common", common),
        *_section("Both models", (row for row in models if row.models == MODELS)),
        *_section("AttentionSeq2Seq only", (row for row in models if row.models != MODELS)),
        *_section(
            "Ours: training, evaluation and beam search", (row for row in HPARAMS if row.ours)
        ),
        *_classes("Cells", CELLS),
        *_classes("Bridges", BRIDGES),
        "\n## Rules\n",
        *(f"- {rule.__doc__}" for rule in RULES),
        "\nNames that the original knows and that are refused:\n",
        *(f"- `{name}`: {reason}." for name, reason in REFUSED.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
