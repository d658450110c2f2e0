"""Beam widths and length penalties of trained models: their error rates and their times.

The best checkpoints of a search decode its dev set with each setting, in parallel on Ray. Nothing
is trained.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from s2s_search.corpus.corpus import Corpus
from s2s_search.corpus.cuts import Cells
from s2s_search.errors import ConfigError
from s2s_search.metrics import Edits
from s2s_search.results.kept import kept_checkpoints
from s2s_search.results.pareto import pareto
from s2s_search.results.results import load
from s2s_search.results.statistics import rate_difference_interval
from s2s_search.runs.inputs import corpus_of, space_of
from s2s_search.runs.state import load_history
from s2s_search.spaces.settings import Resources
from s2s_search.training.footprint import row_cells

if TYPE_CHECKING:
    import torch

WIDTH, PENALTY = "inference.beam_search.beam_width", "inference.beam_search.length_penalty_weight"
SOURCES_AT_ONCE = 128
MARGIN = 0.02  # the share of the least error rate by which a recommended setting may be worse
LEAST_MARGIN = 0.001  # the least such margin

COLUMNS = {
    "trial": "string",
    "beam_width": "Int64",
    **dict.fromkeys(
        (
            "length_penalty_weight",
            "dev.error_rate",
            "dev.word_error_rate",
            "dev.bleu",
            "seconds_per_source",
            "behind",
            "behind.low",
            "behind.high",
        ),
        "Float64",
    ),
    "front": "boolean",
    "recommended": "boolean",
}


@dataclass(frozen=True)
class Setting:
    """A checkpoint and how it decodes. A width of 1, greedy decoding, has no penalty (None)."""

    trial: str
    checkpoint: str
    width: int
    penalty: float | None

    @property
    def hparams(self) -> dict[str, object]:
        values: dict[str, object] = {WIDTH: self.width}
        if self.penalty is not None:
            values[PENALTY] = self.penalty
        return values

    def __str__(self) -> str:
        text = f"{self.trial}, beam {self.width}"
        if self.penalty is not None:
            text += f", penalty {self.penalty:g}"
        return text


class Decoded(NamedTuple):
    """The errors of a setting's answers by source, their BLEU, and the seconds per source.

    The seconds are the median over batches.
    """

    edits: Edits
    bleu: float
    seconds: float


class Dev(NamedTuple):
    """What every setting decodes, with which resources; examples: the number of sources, 0: all."""

    corpus: Corpus
    examples: int
    resources: Resources


def load_dev(folder: Path, examples: int, corpus: Mapping[str, object] | None = None) -> Dev:
    """Returns the dev set of a search. A setting takes one core, and as much of a GPU as a trial.

    corpus: the new place of the corpus; None: where the search had it.

    Raises:
        ConfigError: the folder is no run folder, or the corpus has changed.
    """
    history = load_history(folder)
    space = space_of(history, folder, corpus)
    resources = Resources(min(space.resources.cpu, 1.0), space.resources.gpu)
    return Dev(corpus_of(space, history.fingerprint, folder), examples, resources)


def best_checkpoints(folder: Path, top: int, fetch: bool = False) -> dict[str, str]:
    """Returns the checkpoints of the `top` best trials that still have one, the best trial first.

    fetch: also look at the URL where the search saved its checkpoints.

    Raises:
        ConfigError: the folder is no run folder; the checkpoints are at a URL and `fetch` is not
            set; or no trial has a checkpoint.
    """
    found = dict(islice(kept_checkpoints(load(folder), fetch=fetch), top))
    if not found:
        raise ConfigError("no trial has a checkpoint, which decoding needs", str(folder))
    return found


def grid(
    checkpoints: dict[str, str], widths: Sequence[int], penalties: Sequence[float]
) -> list[Setting]:
    """Returns every combination of checkpoint, width and penalty.

    Wide beams come first: they take longest, and should not be the last to start.
    """
    pairs: dict[tuple[int, float | None], None] = {}  # without repetition, in order
    for width in sorted(widths, reverse=True):
        for penalty in penalties:
            pairs[(width, penalty if width > 1 else None)] = None
    settings = []
    for width, chosen in pairs:
        for trial, checkpoint in checkpoints.items():
            settings.append(Setting(trial, checkpoint, width, chosen))
    return settings


def decode(dev: Dev, setting: Setting) -> Decoded:
    """Decodes the dev set with a setting.

    On the CPU the seconds are the processor time of this thread, which other processes do not
    affect. On a GPU they are wall time.
    """
    import torch  # late, as the driver does not need it

    from s2s_search import metrics
    from s2s_search.training.evaluation import answers, comparable_targets
    from s2s_search.training.trained_model import load_trained

    torch.set_num_threads(1)  # a setting has one core, and its times should not depend on others
    if dev.resources.gpu:
        device, clock = "cuda", time.perf_counter
    else:
        device, clock = "cpu", time.thread_time
    trained = load_trained(setting.checkpoint, setting.hparams)
    model = trained.model.to(device)
    predictions: list[list[int]] = []
    references: list[list[list[int]]] = []
    seconds: list[float] = []
    cells = row_cells(trained.hparams, len(trained.target_vocab))
    for groups, ids, lengths in batches(dev, cells):
        began = clock()
        with torch.no_grad():
            encoded = model.encode(ids.to(device), lengths.to(device))
            predictions += answers(model, encoded, trained.hparams)
        seconds.append((clock() - began) / len(groups))
        unk = dev.corpus.target_vocab.unk
        references += [comparable_targets(dev.corpus.dev, group, unk) for group in groups]
    edits = metrics.nearest_edits(predictions, references)
    return Decoded(edits, metrics.bleu(predictions, references), statistics.median(seconds))


def batches(
    dev: Dev, cells: Cells | None = None
) -> Iterator[tuple[list[int], "torch.Tensor", "torch.Tensor"]]:
    """Yields the dev sources in batches of similar lengths: their groups, ids [B, S], lengths [B].

    A group is a source with all its references, so that each source is decoded once.
    """
    from s2s_search.corpus.batches import evaluation_batches

    split, vocabularies = dev.corpus.dev, (dev.corpus.source_vocab, dev.corpus.target_vocab)
    group_of = {int(pair): group for group, pair in enumerate(split.groups[:-1])}  # by first pair
    for batch, pairs in evaluation_batches(
        split, *vocabularies, SOURCES_AT_ONCE, dev.examples, cells
    ):
        rows = [row for row, pair in enumerate(pairs) if int(pair) in group_of]
        if rows:
            groups = [group_of[int(pairs[row])] for row in rows]
            yield groups, batch.source_ids[rows], batch.source_lengths[rows]


def table(settings: Sequence[Setting], decoded: Sequence[Decoded]) -> pd.DataFrame:
    """Returns a table with one row per setting, the least error rate first.

    behind: how many more errors a setting makes than the best one, per reference token
    behind.low, behind.high: the 95 % interval of `behind`, on whose sources the settings are paired
    front: the setting is on the Pareto front of error rate and time
    recommended: the fastest setting that is worse than no other by more than `margin_of` the least
        error rate, by the upper ends of 95 % intervals; no row if no setting is shown to be so
    """
    order = sorted(
        range(len(settings)), key=lambda i: (decoded[i].edits.error_rate, decoded[i].seconds)
    )
    best = decoded[order[0]]
    rows = [_row(settings[i], decoded[i], best) for i in order]
    found = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    costs = found[["dev.error_rate", "seconds_per_source"]].to_numpy(float).tolist()
    found["front"] = pareto(costs, ["minimize", "minimize"])
    found["recommended"] = False
    for row in found["seconds_per_source"].sort_values().index:
        if _is_as_good(order[row], decoded, margin_of(best.edits.error_rate)):
            found.loc[row, "recommended"] = True
            break
    return found.astype(COLUMNS)


def margin_of(error_rate: float) -> float:
    """Returns by how much more than an error rate another may be, to count as good."""
    return max(MARGIN * error_rate, LEAST_MARGIN)


def _is_as_good(number: int, decoded: Sequence[Decoded], margin: float) -> bool:
    """Returns whether a setting is worse than no other by more than a margin.

    The best setting on these sources may be the best by luck, so it is compared, too. All the
    intervals must say so, and therefore one that is too bad passes in at most 2.5 of 100 cases.
    """
    for other, result in enumerate(decoded):
        if other != number and _behind(decoded[number].edits, result.edits)[2] > margin:
            return False
    return True


def _behind(edits: Edits, best: Edits) -> tuple[float, float, float]:
    """Returns the difference of two error rates, and its 95 % interval.

    Two more sources, with an edit more on one side each, keep the interval from having no width
    where the answers of two settings differ on few sources (as Agresti and Coull, 1998).
    """
    usual = round(sum(best.lengths) / max(len(best.lengths), 1))
    a = [*edits.errors, 1, 0], [*edits.lengths, usual, usual]
    b = [*best.errors, 0, 1], [*best.lengths, usual, usual]
    _, low, high = rate_difference_interval(a, b)
    return edits.error_rate - best.error_rate, low, high


def _row(setting: Setting, decoded: Decoded, best: Decoded) -> dict[str, object]:
    behind = 0.0, 0.0, 0.0
    if decoded is not best:
        behind = _behind(decoded.edits, best.edits)
    return {
        "trial": setting.trial,
        "beam_width": setting.width,
        "length_penalty_weight": setting.penalty,
        "dev.error_rate": decoded.edits.error_rate,
        "dev.word_error_rate": decoded.edits.word_error_rate,
        "dev.bleu": decoded.bleu,
        "seconds_per_source": decoded.seconds,
        "behind": behind[0],
        "behind.low": behind[1],
        "behind.high": behind[2],
    }
