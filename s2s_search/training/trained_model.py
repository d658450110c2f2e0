"""A trained model from its checkpoint, and its answers to lines of text."""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from s2s_search.corpus.cuts import Cells, cut_at_cells
from s2s_search.corpus.text import Delimiter, tokenize, without_column
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError, quantity, shown
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.nn.ensembles import AnyModel
from s2s_search.nn.models import build_model
from s2s_search.nn.stepping import selected
from s2s_search.runs.checkpoints import read_snapshot
from s2s_search.runs.storage import shown_place
from s2s_search.training.evaluation import Hypothesis, answers, attention_weights, hypotheses
from s2s_search.training.footprint import row_cells
from s2s_search.training.unk_replacement import Weights

LINES_AT_ONCE = 128  # number of lines that are read before the first is answered
NAMED = 20  # number of unknown tokens that are named; all are counted

# Other ways to write a line, in which a model may know more of its tokens.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "in lower case": str.lower,
    "in upper case": str.upper,
    "in Unicode form NFC": lambda line: unicodedata.normalize("NFC", line),
    "in Unicode form NFD": lambda line: unicodedata.normalize("NFD", line),
}


class RankedAnswer(NamedTuple):
    """One of the best answers to a source line, of T tokens to S source tokens.

    The score is that of `nn.generate.beam_search`, NaN unless asked for. The attention weights
    [T + 1, S + 1] have a row and a column for END; they are None unless asked for.
    """

    tokens: list[str]
    score: float
    weights: Weights | None


@dataclass(frozen=True)
class TrainedModel:
    """A model, or an ensemble, with everything that decoding text needs.

    The two delimiters separate the tokens of source and target; "" splits text into characters.
    A source of several columns has a delimiter for each.
    """

    model: AnyModel
    hparams: Hparams
    source_vocab: Vocabulary
    target_vocab: Vocabulary
    delimiters: tuple[Delimiter, str]
    step: int
    score: tuple[str, float]  # the metric that chose this step of the trial, and its value
    # The hyperparameters and the steps of an ensemble, whose other fields are those of its first.
    members: tuple[Hparams, ...] = ()
    member_steps: tuple[int, ...] = ()
    corpus: str = ""  # the fingerprint of the corpus; empty where it is not known

    def answers(self, lines: Iterable[str]) -> Iterator[str]:
        """Yields the target line for each source line, decoded with the `inference.*` settings.

        The tokens of a line are separated as in the corpus. Unknown tokens are read as UNK;
        `SourceNotes` names them. LINES_AT_ONCE lines are read before the first is answered.
        """
        for best, *_ in self.ranked(lines):
            yield self.text(best.tokens)

    def ranked(
        self,
        lines: Iterable[str],
        count: int = 1,
        scores: bool = False,
        attention: bool = False,
    ) -> Iterator[list[RankedAnswer]]:
        """Yields the best answers to each source line, the best first.

        The lines are read as `answers` reads them.

        Args:
            lines: the source lines.
            count: the number of answers to a line, at most the beam width. There are fewer where a
                short decoding with a small vocabulary has fewer.
            scores: True for the scores of the answers.
            attention: True for the attention weights, which only a model with attention has.
        """
        longest = self.hparams["inference.max_decode_length"] + 1
        lines = iter(lines)
        while some := list(islice(lines, LINES_AT_ONCE)):
            rows = [
                [*self.source_vocab.encode(self.source_tokens(line)), self.source_vocab.end]
                for line in some
            ]
            for part in cut_at_cells([len(row) for row in rows], [longest] * len(rows), self.cells):
                yield from self._ranked(rows[part], count, scores, attention)

    @torch.no_grad()
    def _ranked(
        self, rows: Sequence[Sequence[int]], count: int, scores: bool, attention: bool
    ) -> list[list[RankedAnswer]]:
        """Returns what `ranked` yields for rows of source ids, END included."""
        ids = pad_sequence(
            [torch.tensor(row) for row in rows],
            batch_first=True,
            padding_value=self.source_vocab.unk,
        )
        encoding = self.model.encode(ids, torch.tensor([len(row) for row in rows]))
        found: list[list[Hypothesis]] = []
        if count > 1 or scores:
            for of_source in hypotheses(self.model, encoding, self.hparams):
                found.append(of_source[:count])
        else:
            for answer in answers(self.model, encoding, self.hparams):
                found.append([Hypothesis(answer, math.nan)])
        ranked: list[list[RankedAnswer]] = [[] for _ in rows]
        for rank in range(max(map(len, found))):  # a rank at a time, which bounds the memory
            at = [row for row, of_source in enumerate(found) if rank < len(of_source)]
            weights: Sequence[Tensor | None] = [None] * len(at)
            if attention:
                weights = attention_weights(
                    self.model,
                    selected(encoding, torch.tensor(at)),
                    [found[row][rank].ids for row in at],
                )
            for row, of_row in zip(at, weights, strict=True):
                tokens = self.target_vocab.decode(found[row][rank].ids)
                array = None if of_row is None else of_row.numpy()
                ranked[row].append(RankedAnswer(tokens, found[row][rank].score, array))
        return ranked

    def text(self, tokens: Iterable[str]) -> str:
        """Returns target tokens as a line of the corpus."""
        return self.delimiters[1].join(tokens)

    @property
    def without_attention(self) -> list[str]:
        """The classes of the models that have no attention."""
        return sorted({each.model for each in self._hparams} - {"AttentionSeq2Seq"})

    @property
    def steps(self) -> tuple[int, ...]:
        """The step of each model."""
        return self.member_steps or (self.step,)

    @cached_property
    def cells(self) -> Cells:
        """The numbers of a row in the largest tensor that decoding makes."""
        of_models = [row_cells(hparams, len(self.target_vocab)) for hparams in self._hparams]
        return lambda source, target: max(cells(source, target) for cells in of_models)

    @property
    def _hparams(self) -> tuple[Hparams, ...]:
        return self.members or (self.hparams,)

    def source_tokens(self, line: str) -> list[str]:
        """Returns the tokens of a source line.

        The source ends at a tab, as in a TSV file, unless the corpus has tabs in its sources. A
        source of several columns has them in the order of the corpus, with a tab between them.
        """
        if not self.has_tabs:
            line = "\t".join(line.split("\t")[: self.source_columns])
        return tokenize(line, self.delimiters[0])

    @property
    def source_columns(self) -> int:
        """The number of columns of a source."""
        return len(self.delimiters[0]) if isinstance(self.delimiters[0], tuple) else 1

    @cached_property
    def has_tabs(self) -> bool:
        """True when a tab is part of source text of one column: in a token, or between tokens."""
        if self.source_columns > 1:
            return False
        if "\t" in self.delimiters[0]:
            return True
        return any("\t" in token for token in self.source_vocab.tokens)


class SourceNotes:
    """Collects what a model cannot read of source lines, in sentences.

    The lines are passed to `of` one by one; `total` then sums up all of them.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained
        delimiter = self.delimiter = trained.delimiters[0]
        self.unit = "token" if delimiter else "character"
        self.spellings = dict(SPELLINGS)
        if isinstance(delimiter, str) and delimiter:
            self.spellings[f"with {delimiter!r} between its characters"] = delimiter.join
        elif not delimiter:
            self.spellings["without its spaces"] = lambda line: line.replace(" ", "")
        self.named: set[str] = set()
        self.lines = self.tokens = self.unknown = self.lines_with_unknown = 0
        self.cut_at_tab = self.few_columns = self.too_long = 0
        self.known_by_spelling: Counter[str] = Counter()

    def of(self, line: str) -> list[str]:
        """Returns sentences about the next line that were not said before.

        They name new unknown tokens, the first tab too much or too few, and the first line that is
        too long.
        """
        self.lines += 1
        sentences = []
        tabs, columns = line.count("\t"), self.trained.source_columns
        if tabs >= columns and not self.trained.has_tabs:
            self.cut_at_tab += 1
            if self.cut_at_tab == 1 and columns == 1:
                sentences.append("read up to its tab only, since no source of the corpus has a tab")
            elif self.cut_at_tab == 1:
                has = f"a source of the corpus has {columns} columns"
                sentences.append(f"read up to its tab {columns} only, since {has}")
        if tabs + 1 < columns:
            self.few_columns += 1
            if self.few_columns == 1:
                has = f"{quantity(tabs + 1, 'column')}, but a source of the corpus has {columns}"
                sentences.append(f"{has}, with a tab between them")
        tokens = self.trained.source_tokens(line)
        self.tokens += len(tokens)
        most = self.trained.hparams["source.max_seq_len"]
        if len(tokens) >= most:
            self.too_long += 1
            if self.too_long == 1:
                sentences.append(
                    f"{len(tokens):,} {self.unit}s, but training read the first {most} "
                    "of a source, its end included (source.max_seq_len)"
                )
        unknown = self._unknown(tokens)
        if unknown:
            sentences += self._about(line, tokens, unknown)
        return [f"line {self.lines}: {sentence}" for sentence in sentences]

    def _about(self, line: str, tokens: list[str], unknown: list[int]) -> list[str]:
        """Counts the unknown tokens of a line, given their positions.

        Returns a sentence about those that are new, or none.
        """
        self.unknown += len(unknown)
        self.lines_with_unknown += 1
        hints = []
        for spelling, rewrite in self.spellings.items():
            left = len(self._unknown(self.trained.source_tokens(rewrite(line))))
            if left < len(unknown):
                self.known_by_spelling[spelling] += len(unknown) - left
                hints.append(f"; {spelling}, {left} instead of {len(unknown)} would be unknown")
        new = []
        for position in unknown:
            token = tokens[position]
            if token not in self.named and len(self.named) < NAMED:
                self.named.add(token)
                place = f"{self.unit} {position + 1}"
                new.append(f"{_spelt(without_column(token, self.delimiter))} ({place})")
        if not new:
            return []
        return [f"not in the source vocabulary and read as UNK: {', '.join(new)}{''.join(hints)}"]

    def total(self) -> list[str]:
        """Returns sentences with numbers about all lines together, or none if all was readable."""
        sentences = []
        if self.unknown:
            lines = f"in {self.lines_with_unknown:,} of {self.lines:,} lines"
            sentences.append(f"unknown: {self.unknown:,} of {self.tokens:,} {self.unit}s, {lines}")
        sentences += [
            f"{spelling}, {number:,} of them would be known"
            for spelling, number in self.known_by_spelling.items()
        ]
        if self.cut_at_tab:
            sentences.append(f"read up to a tab: {self.cut_at_tab:,} of {self.lines:,} lines")
        if self.few_columns:
            of_lines = f"{self.few_columns:,} of {self.lines:,} lines"
            sentences.append(f"fewer columns than a source: {of_lines}")
        if self.too_long:
            sentences.append(
                f"longer than source.max_seq_len: {self.too_long:,} of {self.lines:,} lines"
            )
        return sentences

    def _unknown(self, tokens: list[str]) -> list[int]:
        """Returns the positions of the tokens that the source vocabulary lacks."""
        vocab = self.trained.source_vocab
        return [position for position, i in enumerate(vocab.encode(tokens)) if i == vocab.unk]


def _spelt(token: str) -> str:
    """Returns a token as a message shows it.

    A single character outside ASCII comes with its Unicode number and name.
    """
    if len(token) > 1 or token.isascii():
        return shown(token)
    return f"{token!r} (U+{ord(token):04X} {unicodedata.name(token, 'without a name')})"


def load_trained(path: str | Path, overrides: dict[str, object] | None = None) -> TrainedModel:
    """Returns the trained model of a checkpoint that a search or a debug run wrote.

    Nothing in the file is executed. `overrides` may change `inference.*`.

    Raises:
        ConfigError: the file is missing or not a checkpoint.
    """
    try:
        snapshot = read_snapshot(str(path))
        hparams = resolve(snapshot["hparams"]["model"], snapshot["hparams"] | (overrides or {}))
        vocabularies = (
            Vocabulary(tuple(snapshot["source_tokens"])),
            Vocabulary(tuple(snapshot["target_tokens"])),
        )
        model = build_model(hparams, *map(len, vocabularies))
        model.load_state_dict(snapshot["model"])
        first, second = snapshot["delimiters"]
        metric = snapshot.get("metric", "dev.loss")  # old checkpoints do not name their metric
        score = metric, float(snapshot["report"][metric])
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError("there is no such file", where=shown_place(path)) from None
    except Exception as error:  # a damaged file may hold any bytes, and torch may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"this is no checkpoint of a trial: {reason}", where=shown_place(path)
        ) from None
    if not isinstance(first, str):
        first = tuple(first)  # a delimiter for each column of a source
    return TrainedModel(
        model.eval(),
        hparams,
        *vocabularies,
        (first, second),
        snapshot["step"],
        score,
        corpus=str(snapshot.get("corpus", "")),
    )
