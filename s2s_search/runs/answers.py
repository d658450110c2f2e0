"""The answers of a trial's model to the dev set at its best report.

The file holds the errors of all examples, and a few examples in full. It is called answers.json and
lies beside the best snapshot. It stays when the weights are deleted. Reading it needs no torch.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from s2s_search.runs.events import cleaned
from s2s_search.runs.folder import ANSWERS

LARGEST_COUNT = 2**53  # larger counts can only come from a damaged file


@dataclass(frozen=True)
class Example:
    """A dev source, its references, and the answer of the model, all as tokens.

    `attention` has one row for each token of the answer and one for its END. It has one column for
    each token of the source and one for its END. Every row sums to 1, except for rounding to four
    decimals. It is None for a model without attention, and for a source or an answer that is too
    long for a readable map.
    """

    source: list[str]
    references: list[list[str]]
    answer: list[str]
    attention: list[list[float]] | None


@dataclass(frozen=True)
class Answers:
    """The answers after `step` updates.

    `errors` holds, for each decoded dev source, the number of edits between the answer and its
    nearest reference (`metrics.Edits`). `lengths` holds the length of that reference. Both are in
    dev order, without the sources that `train.eval_examples` leaves out. The examples are the same
    sources in every trial of a search.
    """

    step: int
    errors: list[int]
    lengths: list[int]
    examples: list[Example]

    def text(self) -> str:
        """Returns the JSON text that `load_answers` reads."""
        return json.dumps(vars(self) | {"examples": [vars(example) for example in self.examples]})


def load_answers(place: str, name: str = ANSWERS) -> Answers | None:
    """Returns the answers in a trial's folder, or below its URL.

    Returns None when there is no such file, and when the file is damaged.
    """
    # Imported late: a trial in this process needs no PyArrow.
    from s2s_search.runs.storage import file_system

    files, folder = file_system(place)
    try:
        with files.open_input_file(f"{folder}/{name}") as file:
            found = cleaned(json.loads(file.read()))
        answers = Answers(
            **found | {"examples": [Example(**example) for example in found["examples"]]}
        )
        return answers if _is_whole(answers) else None
    except Exception:  # a damaged file may hold any bytes, and these may cause any error
        return None


def _is_whole(answers: Answers) -> bool:
    """Returns whether all parts have the types and sizes that they must have."""
    counts = [answers.step, *answers.errors, *answers.lengths]
    are_counts = all(type(count) is int and 0 <= count < LARGEST_COUNT for count in counts)
    return (
        are_counts
        and len(answers.errors) == len(answers.lengths)
        and all(map(_is_example, answers.examples))
    )


def _is_example(example: Example) -> bool:
    sequences = all(map(_is_sequence, [example.source, example.answer, *example.references]))
    if example.attention is None or not sequences:
        return sequences
    rows, columns = len(example.answer) + 1, len(example.source) + 1
    whole = all(len(row) == columns and all(map(math.isfinite, row)) for row in example.attention)
    return whole and len(example.attention) == rows


def _is_sequence(tokens: Any) -> bool:
    return isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
