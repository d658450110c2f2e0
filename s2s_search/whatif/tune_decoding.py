"""Beam widths and length penalties on trained models: what quality they buy, and for how much time.

The best checkpoints of a search decode its dev set under each setting, at once on Ray. Nothing is trained.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from s2s_search.corpus.corpus import Corpus
from s2s_search.corpus.cuts import Cells
from s2s_search.errors import ConfigError
from s2s_search.metrics import Edits
from s2s_search.results.kept import kept_checkpoints
from s2s_search.results.pareto import pareto
from s2s_search.results.results import load
from s2s_search.results.statistics import interval
from s2s_search.runs.state import corpus_of, load_history, space_of
from s2s_search.spaces.settings import Resources
from s2s_search.training.footprint import row_cells

if TYPE_CHECKING:
    import torch

WIDTH, PENALTY = "inference.beam_search.beam_width", "inference.beam_search.length_penalty_weight"
SOURCES_AT_ONCE = 128

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
    """A checkpoint, and how it decodes; a penalty of None where there is no beam to penalize."""

    trial: str
    checkpoint: str
    width: int
    penalty: float | None

    @property
    def hparams(self) -> dict[str, object]:
        return {WIDTH: self.width} | ({} if self.penalty is None else {PENALTY: self.penalty})

    def __str__(self) -> str:
        return f"{self.trial}, beam {self.width}" + (
            "" if self.penalty is None else f", penalty {self.penalty:g}"
        )


class Decoded(NamedTuple):
    """How good a setting's answers are, source by source, and the median of a batch's seconds for each source."""

    edits: Edits
    bleu: float
    seconds: float


class Dev(NamedTuple):
    """What every setting decodes, and what with: so many sources of the dev set (0: all)."""

    corpus: Corpus
    examples: int
    resources: Resources


def load_dev(folder: Path, examples: int, corpus: Mapping[str, object] | None = None) -> Dev:
    """The dev set of a search, for one thread each, and the share of a GPU that its trials had.

    `corpus` says where the corpus lies now.

    Raises:
        ConfigError: no run folder, or the corpus is not the same.
    """
    history = load_history(folder)
    space = space_of(history, folder, corpus)
    return Dev(
        corpus_of(space, history.fingerprint, folder),
        examples,
        Resources(min(space.resources.cpu, 1.0), space.resources.gpu),
    )


def best_checkpoints(folder: Path, top: int, fetch: bool = False) -> dict[str, str]:
    """The best checkpoints of the `top` best trials that still have one, by trial, the best trial first.

    With `fetch` also where they lie at a URL.

    Raises:
        ConfigError: no run folder, they lie at a URL and are not to be fetched, or no trial has a checkpoint.
    """
    found = dict(islice(kept_checkpoints(load(folder), fetch=fetch), top))
    if not found:
        raise ConfigError("no trial has a checkpoint to decode with", str(folder))
    return found


def grid(
    checkpoints: dict[str, str], widths: Sequence[int], penalties: Sequence[float]
) -> list[Setting]:
    """Every checkpoint with every width and penalty, the widest first, as they take longest."""
    pairs = [(width, penalty if width > 1 else None) for width in widths for penalty in penalties]
    return [
        Setting(trial, checkpoint, width, penalty)
        for width, penalty in sorted(dict.fromkeys(pairs), key=lambda pair: -pair[0])
        for trial, checkpoint in checkpoints.items()
    ]


def decode(dev: Dev, setting: Setting) -> Decoded:
    """Decodes the dev set. Seconds are processor time of this thread alone; on a GPU they pass on the wall."""
    import torch  # the process that asks for it needs none

    from s2s_search import metrics
    from s2s_search.training.evaluation import answers, comparable_targets
    from s2s_search.training.trained_model import load_trained

    torch.set_num_threads(1)
    device, clock = ("cuda", time.perf_counter) if dev.resources.gpu else ("cpu", time.thread_time)
    trained = load_trained(setting.checkpoint, setting.hparams)
    model = trained.model.to(device)
    predictions, references, seconds = list[list[int]](), list[list[list[int]]](), list[float]()
    for groups, ids, lengths in batches(dev, row_cells(trained.hparams, len(trained.target_vocab))):
        began = clock()
        with torch.no_grad():
            predictions += answers(
                model, model.encode(ids.to(device), lengths.to(device)), trained.hparams
            )
        seconds.append((clock() - began) / len(groups))
        unk = dev.corpus.target_vocab.unk
        references += [comparable_targets(dev.corpus.dev, group, unk) for group in groups]
    edits = metrics.nearest_edits(predictions, references)
    return Decoded(edits, metrics.bleu(predictions, references), statistics.median(seconds))


def batches(
    dev: Dev, cells: Cells | None = None
) -> Iterator[tuple[list[int], "torch.Tensor", "torch.Tensor"]]:
    """The dev sources, each once, in batches of like lengths: their groups, ids [B, S] and lengths [B]."""
    from s2s_search.corpus.batches import evaluation_batches

    split, vocabularies = dev.corpus.dev, (dev.corpus.source_vocab, dev.corpus.target_vocab)
    group_of = {
        int(pair): group for group, pair in enumerate(split.groups[:-1])
    }  # by its first pair
    for batch, pairs in evaluation_batches(
        split, *vocabularies, SOURCES_AT_ONCE, dev.examples, cells
    ):
        rows = [row for row, pair in enumerate(pairs) if int(pair) in group_of]
        if rows:
            yield (
                [group_of[int(pairs[row])] for row in rows],
                batch.source_ids[rows],
                batch.source_lengths[rows],
            )


def table(settings: Sequence[Setting], decoded: Sequence[Decoded]) -> pd.DataFrame:
    """A row for each setting, the least error rate first.

    `behind` is how much more errors a setting makes than the best one, per reference token of the best one's, with its
    95 % interval by the bootstrap over the dev sources, on which the two are paired. `front`: no other setting is as
    good and as fast. `recommended` is the fastest of which no interval says that it is worse than the best; of one
    source there is none, and its ends are NA.
    """
    order = sorted(
        range(len(settings)), key=lambda i: (decoded[i].edits.error_rate, decoded[i].seconds)
    )
    best = decoded[order[0]].edits
    rows = [_row(settings[i], decoded[i], best) for i in order]
    found = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    costs = found[["dev.error_rate", "seconds_per_source"]].to_numpy(float).tolist()
    found["front"] = pareto(costs, ["minimize", "minimize"])
    is_as_good = ~(found["behind.low"] > 0).fillna(False)
    found["recommended"] = found.index == found["seconds_per_source"].where(is_as_good).idxmin()
    return found.astype(COLUMNS)


def _row(setting: Setting, decoded: Decoded, best: Edits) -> dict[str, object]:
    more = (
        (np.array(decoded.edits.errors) - np.array(best.errors))
        * len(best.errors)
        / max(sum(best.lengths), 1)
    )
    low, high = interval(more) if more.any() else (0.0, 0.0)
    return {
        "trial": setting.trial,
        "beam_width": setting.width,
        "length_penalty_weight": setting.penalty,
        "dev.error_rate": decoded.edits.error_rate,
        "dev.word_error_rate": decoded.edits.word_error_rate,
        "dev.bleu": decoded.bleu,
        "seconds_per_source": decoded.seconds,
        "behind": float(more.mean()),
        "behind.low": low,
        "behind.high": high,
    }
