"""The form of answers to lines of text: which of a line's answers are written, and with what."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from s2s_search.corpus.text import without_column
from s2s_search.training.trained_model import RankedAnswer, TrainedModel
from s2s_search.training.unk_replacement import without_unk


@dataclass(frozen=True)
class AnswerForm:
    """What is written of a model's answers to lines.

    count: the number of answers to a line, in rows of the line's number, the rank, and the answer,
        separated by tabs; None: the best answer alone
    scores: whether a score and a tab stand before an answer
    unk_replace: whether the source token with the highest attention weight replaces UNK
    replacements: what replaces UNK in place of some source tokens
    attention: whether attention weights are needed besides
    """

    trained: TrainedModel
    count: int | None = None
    scores: bool = False
    unk_replace: bool = False
    replacements: Mapping[str, Sequence[str]] = field(default_factory=dict)
    attention: bool = False

    def ranked(self, lines: Iterable[str]) -> Iterator[list[RankedAnswer]]:
        """Yields the answers to each line that are written, the best first."""
        attention = self.attention or self.unk_replace
        return self.trained.ranked(lines, self.count or 1, self.scores, attention)

    def rows(self, number: int, line: str, ranked: Sequence[RankedAnswer]) -> Iterator[str]:
        """Yields what is written of the answers to a line, which has a number from 1."""
        for rank, answer in enumerate(ranked, start=1):
            tokens = answer.tokens
            if self.unk_replace and answer.weights is not None:
                delimiter = self.trained.delimiters[0]
                source = []
                for token in self.trained.source_tokens(line):
                    source.append(without_column(token, delimiter))
                tokens = without_unk(tokens, source, answer.weights, self.replacements)
            columns = [self.trained.text(tokens)]
            if self.scores:
                columns.insert(0, f"{answer.score:.6g}")
            if self.count is not None:
                columns = [str(number), str(rank), *columns]
            yield "\t".join(columns)
