"""What a trial's model answered to the dev set at its best report: the errors of all examples, and a few of them whole.

It lies as answers.json beside the best snapshot, and stays where the weights are deleted. To read it takes no torch.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from s2s_search.runs.events import cleaned
from s2s_search.runs.folder import ANSWERS

LARGEST = 2**53  # counts above it are damage, and no numbers to compute with


@dataclass(frozen=True)
class Example:
    """A dev source, its references, and what the model answered, as tokens.

    attention has a row for each token of the answer and one for its END, a column for each token of the source and one
    for its END; every row sums to 1, but for rounding to four decimals. None for a model without attention, and for
    sources and answers so long that nobody could read the map.
    """

    source: list[str]
    references: list[list[str]]
    answer: list[str]
    attention: list[list[float]] | None


@dataclass(frozen=True)
class Answers:
    """The answers after `step` updates.

    errors holds the edits of each decoded dev source to its nearest reference (`metrics.Edits`), lengths that
    reference's length, both in dev order: where `train.eval_examples` leaves sources out, of the others. The examples
    are the same sources in every trial of a search.
    """

    step: int
    errors: list[int]
    lengths: list[int]
    examples: list[Example]

    def text(self) -> str:
        """The JSON that `load_answers` reads."""
        return json.dumps(vars(self) | {"examples": [vars(example) for example in self.examples]})


def load_answers(place: str, name: str = ANSWERS) -> Answers | None:
    """Reads the answers in a trial's folder, or below its URL. None where there are none, or none that can be read."""
    from s2s_search.runs.storage import (
        file_system,
    )  # late: a trial in this process needs no PyArrow

    files, folder = file_system(place)
    try:
        with files.open_input_file(f"{folder}/{name}") as file:
            found = cleaned(json.loads(file.read()))
        answers = Answers(
            **found | {"examples": [Example(**example) for example in found["examples"]]}
        )
        return answers if _is_whole(answers) else None
    except Exception:  # whatever bytes a damaged file holds
        return None


def _is_whole(answers: Answers) -> bool:
    """Tells whether all parts have the types and sizes that they must have."""
    counts = [answers.step, *answers.errors, *answers.lengths]
    are_counts = all(type(count) is int and 0 <= count < LARGEST for count in counts)
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
