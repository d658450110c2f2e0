"""Makes docs/hparams.md: python -m s2s_search.hparams.reference > docs/hparams.md."""

import json
import sys
from collections.abc import Iterable, Mapping

from s2s_search.hparams.arguments import REQUIRED, Argument
from s2s_search.hparams.rules import RULES
from s2s_search.hparams.table import BRIDGES, CELLS, HPARAMS, MODELS, REFUSED, TABLE, Hparam

COMMAND = "python -m s2s_search.hparams.reference"


def _code(value: object) -> str:
    """Returns a default as a cell of a Markdown table."""
    if value is REQUIRED:
        return "must be given"
    if value == "":
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _table_row(row: Hparam) -> str:
    values = {model: _code(row.default_for(model)) for model in row.models}
    if len(set(values.values())) == 1:
        default = next(iter(values.values()))
    else:
        default = "; ".join(f"{model}: {value}" for model, value in values.items())
    return f"| `{row.name}` | {default} | {row.law} | {row.description} |"


def _section(title: str, rows: Iterable[Hparam]) -> list[str]:
    head = ["| Name | Default | Values | Description |", "| --- | --- | --- | --- |"]
    return [f"\n## {title}\n", *head, *map(_table_row, rows)]


def _classes(title: str, classes: Mapping[str, tuple[Argument, ...]]) -> list[str]:
    lines = [
        f"\n## {title}\n",
        "| Class | Argument | Default | Values |",
        "| --- | --- | --- | --- |",
    ]
    for name, arguments in classes.items():
        for argument in arguments:
            default = _code(argument.default)
            lines.append(f"| `{name}` | `{argument.name}` | {default} | {argument.law} |")
        if not arguments:
            lines.append(f"| `{name}` | none | | |")
    return lines


def reference() -> str:
    """Returns docs/hparams.md, made from the table."""
    common = HPARAMS[: HPARAMS.index(TABLE["bridge_spec"])]
    models = [row for row in HPARAMS if not row.ours and row not in common]
    models_in_code = ", ".join(f"`{model}`" for model in MODELS)
    lines = [
        f"<!-- Written by `{COMMAND} > docs/hparams.md`; do not edit. -->",
        "# Hyperparameters\n",
        f"Models: {models_in_code}. The spelling `AttentionSeq2seq` is understood, too.",
        "One more dot names an entry of a spec: `encoder.rnn_cell.cell_spec.num_units=256`.",
        "A spec that is given as a whole replaces the whole default. Where an entry sets another",
        "class, the entries of the default that this class does not have are dropped, and the",
        "default's `num_units` becomes the `cell_size` of `GRUBlockCell`.",
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
