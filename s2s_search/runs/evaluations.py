"""The evaluations of a run folder: which trials were measured on which split, and the numbers.

The file evaluations.jsonl has a line for each evaluation. A line is checked where it is read, and a
damaged line is left out. The numbers of single sources are kept, so that evaluations can be
compared source by source. Reading needs no torch.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from s2s_search.errors import ConfigError, printable
from s2s_search.metrics import MEASURED_SPLITS, METRICS, SUMS
from s2s_search.runs.events import TrialName, one_of
from s2s_search.runs.folder import EVALUATIONS

LOSS_DIGITS = 5  # of the losses of single sources

Count = Annotated[int, Meta(ge=0, lt=2**53)]
Positive = Annotated[int, Meta(ge=1, lt=2**53)]
SplitName = Annotated[str, one_of(MEASURED_SPLITS)]


class Sums(Struct, frozen=True):
    """What each of N sources adds to the sums of a model's metrics (metrics.SUMS)."""

    loss: list[float]
    correct: list[Count]
    tokens: list[Positive]
    errors: list[Count]
    length: list[Count]
    predicted: list[Count]
    reference: list[Count]
    matched: list[tuple[Count, Count, Count, Count]]

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> "Sums":
        """Returns the sums of N sources, given their N rows in the order of metrics.SUMS."""
        columns = dict(zip(SUMS, zip(*rows, strict=True), strict=True))
        whole = {name: [int(value) for value in column] for name, column in columns.items()}
        return cls(
            loss=[round(value, LOSS_DIGITS) for value in columns["loss"]],
            correct=whole["correct"],
            tokens=whole["tokens"],
            errors=whole["errors"],
            length=whole["length"],
            predicted=whole["predicted"],
            reference=whole["reference"],
            matched=list(zip(*(whole[f"matched.{n}"] for n in range(1, 5)), strict=True)),
        )

    def rows(self) -> list[list[float]]:
        """Returns a row for each source, in the order of metrics.SUMS."""
        rows = []
        for loss, correct, tokens, errors, length, predicted, reference, matched in zip(
            *(getattr(self, field) for field in self.__struct_fields__), strict=True
        ):
            counted = [max(predicted - n, 0) for n in range(4)]  # the n-grams of an answer
            of_answer = [errors, length, int(errors > 0), 1, predicted, reference]
            rows.append([loss, correct, tokens, *of_answer, *matched, *counted])
        return rows


class Member(Struct, frozen=True):
    """A model of an ensemble, besides its best: a trial of a run folder, with its step."""

    run: str  # the name of the run folder
    trial: TrialName
    step: Count


class MeasuredModel(Struct, frozen=True):
    """A model that was measured: a trial of a run folder, with its seed and its step.

    Of an ensemble it is the best model, and `others` has the models that answered with it.
    """

    run: str  # the name of the run folder
    trial: TrialName
    seed: int | None
    step: Count
    sums: Sums
    others: list[Member] = []


class Estimate(Struct, frozen=True):
    """A metric: the mean over seeds, and its 95 % interval; None where there is none."""

    value: float
    low: float | None
    high: float | None


class Evaluated(Struct, frozen=True):
    """A configuration that was measured, with one model or with models of several seeds."""

    trial: TrialName  # the trial of this run folder that names the configuration
    fresh: bool  # False when the seeds are those that chose the configuration
    beam: Positive
    metrics: dict[str, Estimate]
    models: Annotated[list[MeasuredModel], Meta(min_length=1)]

    @property
    def ensemble(self) -> int:
        """The number of models that answered together; 1 where each answered alone."""
        return 1 + len(self.models[0].others)


class Evaluation(Struct, frozen=True):
    """One evaluation: some configurations on all sources of a split."""

    time: Annotated[float, Meta(ge=0, lt=2**33)]  # in seconds since 1970
    split: SplitName
    fingerprint: str  # of the corpus
    examples: Positive  # the number of sources
    trials: list[Evaluated]


def load_evaluations(folder: Path) -> list[Evaluation]:
    """Returns the evaluations of a run folder, the oldest first.

    Raises:
        ConfigError: the file is there and cannot be read.
    """
    path = folder / EVALUATIONS
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", str(path)) from None
    found = []
    for line in lines:
        try:
            evaluation = msgspec.json.decode(line, type=Evaluation)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            continue
        if _is_whole(evaluation):
            found.append(evaluation)
    return found


def _is_whole(evaluation: Evaluation) -> bool:
    """Returns whether all metrics and all sources are there, and all text is printable."""
    texts, lengths = [evaluation.fingerprint], set()
    names = {name.replace("dev.", f"{evaluation.split}.") for name in METRICS}
    for evaluated in evaluation.trials:
        if set(evaluated.metrics) != names:
            return False
        for model in evaluated.models:
            texts += [model.run, *(other.run for other in model.others)]
            lengths |= {len(getattr(model.sums, field)) for field in Sums.__struct_fields__}
    return lengths <= {evaluation.examples} and all(text == printable(text) for text in texts)


def keep_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Appends an evaluation to those of a run folder.

    It is one write, so that several processes may append at the same time.

    Raises:
        ConfigError: the file cannot be written.
    """
    path, line = folder / EVALUATIONS, msgspec.json.encode(evaluation) + b"\n"
    try:
        with path.open("a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            if end and file.read(1) != b"\n":  # a writer was killed, or the disk was full
                line = b"\n" + line
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from None


def looks(evaluations: Sequence[Evaluation]) -> int:
    """Returns how often the test part was looked at."""
    return sum(evaluation.split == "test" for evaluation in evaluations)
