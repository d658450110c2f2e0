"""A trained model from its checkpoint, and its answers to lines of text."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from s2s_search.corpus.cuts import cut_at_cells
from s2s_search.corpus.text import tokenize
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError, shown
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.nn.models import Seq2Seq, build_model
from s2s_search.runs.checkpoints import read_snapshot
from s2s_search.runs.storage import shown_place
from s2s_search.training.evaluation import decode
from s2s_search.training.footprint import row_cells

LINES_AT_ONCE = 128  # number of lines that are read before the first is answered
NAMED = 20  # number of unknown tokens that are named; all are counted

# Other ways to write a line, in which a model may know more of its tokens.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "in lower case": str.lower,
    "in upper case": str.upper,
    "in Unicode form NFC": lambda line: unicodedata.normalize("NFC", line),
    "in Unicode form NFD": lambda line: unicodedata.normalize("NFD", line),
}


@dataclass(frozen=True)
class TrainedModel:
    """A model with everything that decoding text needs.

    The two delimiters separate the tokens of source and target; "" splits text into characters.
    """

    model: Seq2Seq
    hparams: Hparams
    source_vocab: Vocabulary
    target_vocab: Vocabulary
    delimiters: tuple[str, str]
    step: int
    score: tuple[str, float]  # the metric that chose this step of the trial, and its value

    def answers(self, lines: Iterable[str]) -> Iterator[str]:
        """Yields the target line for each source line, decoded with the `inference.*` settings.

        The tokens of a line are separated as in the corpus. Unknown tokens are read as UNK;
        `SourceNotes` names them. LINES_AT_ONCE lines are read before the first is answered.
        """
        cells = row_cells(self.hparams, len(self.target_vocab))
        longest = self.hparams["inference.max_decode_length"] + 1
        lines = iter(lines)
        while some := list(islice(lines, LINES_AT_ONCE)):
            rows = [
                [*self.source_vocab.encode(self.source_tokens(line)), self.source_vocab.end]
                for line in some
            ]
            for part in cut_at_cells([len(row) for row in rows], [longest] * len(rows), cells):
                yield from self._answers(rows[part])

    def _answers(self, rows: Sequence[Sequence[int]]) -> Iterator[str]:
        """Yields the answer to each row of source ids, END included."""
        ids = pad_sequence(
            [torch.tensor(row) for row in rows],
            batch_first=True,
            padding_value=self.source_vocab.unk,
        )
        lengths = torch.tensor([len(row) for row in rows])
        for row in decode(self.model, ids, lengths, self.hparams):
            yield self.delimiters[1].join(self.target_vocab.decode(row))

    def source_tokens(self, line: str) -> list[str]:
        """Returns the tokens of a source line.

        The source ends at a tab, as in a TSV file, unless the corpus has tabs in its sources.
        """
        if not self.has_tabs:
            line = line.partition("\t")[0]
        return tokenize(line, self.delimiters[0])

    @cached_property
    def has_tabs(self) -> bool:
        """True when a tab is part of source text: in a token, or between tokens."""
        if "\t" in self.delimiters[0]:
            return True
        return any("\t" in token for token in self.source_vocab.tokens)


class SourceNotes:
    """Collects what a model cannot read of source lines, in sentences.

    The lines are passed to `of` one by one; `total` then sums up all of them.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained
        delimiter = trained.delimiters[0]
        self.unit = "token" if delimiter else "character"
        self.spellings = dict(SPELLINGS)
        if delimiter:
            self.spellings[f"with {delimiter!r} between its characters"] = delimiter.join
        else:
            self.spellings["without its spaces"] = lambda line: line.replace(" ", "")
        self.named: set[str] = set()
        self.lines = self.tokens = self.unknown = self.lines_with_unknown = 0
        self.cut_at_tab = self.too_long = 0
        self.known_by_spelling: Counter[str] = Counter()

    def of(self, line: str) -> list[str]:
        """Returns sentences about the next line that were not said before.

        They name new unknown tokens, the first tab and the first line that is too long.
        """
        self.lines += 1
        sentences = []
        if "\t" in line and not self.trained.has_tabs:
            self.cut_at_tab += 1
            if self.cut_at_tab == 1:
                sentences.append("read up to its tab only, since no source of the corpus has a tab")
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
                new.append(f"{_spelt(token)} ({self.unit} {position + 1})")
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
    return TrainedModel(
        model.eval(), hparams, *vocabularies, (first, second), snapshot["step"], score
    )
