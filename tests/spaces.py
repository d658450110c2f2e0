"""Search spaces whose trials take a moment, and what their answers are measured by."""

from collections.abc import Mapping, Sequence

import yaml

SMALL = {
    "embedding.dim": 8,
    "encoder.rnn_cell.cell_spec": {"class": "GRUCell", "num_units": 8},
    "decoder.rnn_cell.cell_spec": {"class": "GRUCell", "num_units": 8},
    "train.batch_size": 8,
    "train.eval_every_steps": 10,
    "inference.max_decode_length": 8,
}
DROPOUT = {"decoder.rnn_cell.dropout_input_keep_prob": 0.8}
RATES = {"optimizer.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True}}
COPY = {"name": "copy", "train": 100, "dev": 10, "vocabulary": 5, "min_length": 2, "max_length": 5}


def space_text(parameters: Mapping[str, object], **sections: object) -> str:
    """The text of a space file: SMALL with these parameters, and the sections; a corpus that is not given is COPY."""
    space = {"corpus": COPY} | sections | {"parameters": SMALL | dict(parameters)}
    return yaml.safe_dump(space, sort_keys=False, default_flow_style=None, width=1000)


def distance(a: Sequence[object], b: Sequence[object]) -> int:
    """The edit distance, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
