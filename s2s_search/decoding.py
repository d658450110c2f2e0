"""A trained model from its checkpoint, and its answers to lines of text."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from s2s_search.checkpoints import read_snapshot
from s2s_search.hparams import Hparams, resolve
from s2s_search.nn.models import Seq2Seq, build_model
from s2s_search.table import ConfigError
from s2s_search.text_files import tokenize
from s2s_search.training import decode
from s2s_search.vocabulary import Vocabulary

LINES_AT_ONCE = 128


@dataclass(frozen=True)
class TrainedModel:
    """A model with all that it takes to use it. Delimiters are the source's and the target's; "" splits characters."""

    model: Seq2Seq
    hparams: Hparams
    source_vocab: Vocabulary
    target_vocab: Vocabulary
    delimiters: tuple[str, str]
    step: int

    def answers(self, lines: Iterable[str]) -> Iterator[str]:
        """Decodes source lines, tokens separated as in the corpus, into target lines, by the `inference.*` settings."""
        source_delimiter, target_delimiter = self.delimiters
        lines = iter(lines)
        while some := list(islice(lines, LINES_AT_ONCE)):
            rows = [[*self.source_vocab.encode(tokenize(x, source_delimiter)), self.source_vocab.end] for x in some]
            ids = pad_sequence(
                [torch.tensor(row) for row in rows], batch_first=True, padding_value=self.source_vocab.unk
            )
            for row in decode(self.model, ids, torch.tensor([len(row) for row in rows]), self.hparams):
                yield target_delimiter.join(self.target_vocab.decode(row))


def load_trained(path: str | Path, overrides: dict[str, object] | None = None) -> TrainedModel:
    """Reads a checkpoint written by a search or a debug run; `overrides` may change `inference.*`.

    Raises ConfigError when the file is missing or no checkpoint. Nothing in the file is executed.
    """
    try:
        snapshot = read_snapshot(str(path))
        hparams = resolve(snapshot["hparams"]["model"], snapshot["hparams"] | (overrides or {}))
        vocabularies = Vocabulary(tuple(snapshot["source_tokens"])), Vocabulary(tuple(snapshot["target_tokens"]))
        model = build_model(hparams, *map(len, vocabularies))
        model.load_state_dict(snapshot["model"])
        first, second = snapshot["delimiters"]
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError("there is no such file", where=str(path)) from None
    except Exception as error:  # whatever bytes a damaged file holds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"this is no checkpoint of a trial: {reason}", where=str(path)) from None
    return TrainedModel(model.eval(), hparams, *vocabularies, (first, second), snapshot["step"])
