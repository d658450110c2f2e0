"""The models of several checkpoints, joined to one that answers lines."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError, collecting, shown
from s2s_search.hparams.configuration import resolve
from s2s_search.nn.ensembles import Ensemble
from s2s_search.nn.models import Seq2Seq
from s2s_search.runs.exported import is_exported
from s2s_search.runs.storage import shown_place
from s2s_search.training.exported import load_exported
from s2s_search.training.trained_model import TrainedModel, load_trained

NAMED = 3  # the number of tokens that a sentence about two vocabularies names


def load_ensemble(
    places: Sequence[str], overrides: dict[str, object] | None = None
) -> TrainedModel:
    """Returns one model of several checkpoints, or of the folder of an exported model.

    Of a single checkpoint it is that model. It decodes with the `inference.*` settings of the
    first, and `overrides` may change these.

    Raises:
        ConfigError: as `load_members`.
    """
    return join(load_members(places, overrides))


def load_members(
    places: Sequence[str], overrides: dict[str, object] | None = None
) -> list[TrainedModel]:
    """Returns the models that `load_ensemble` joins.

    Raises:
        ConfigError: with all checkpoints that cannot be read, or else with all that do not fit the
            first.
    """
    if len(places) == 1 and "://" not in places[0] and is_exported(Path(places[0])):
        return load_exported(Path(places[0]), overrides)
    problems: list[str] = []
    models: list[TrainedModel] = []
    for place in places:
        with collecting(problems):
            models.append(load_trained(place, overrides))
    if problems:
        raise ConfigError(problems)
    for place, model in zip(places[1:], models[1:], strict=True):
        for sentence in differences(model, models[0], shown_place(places[0])):
            problems.append(f"{shown_place(place)}: {sentence}")
    if problems:
        raise ConfigError(problems, "--ensemble")
    return models


def join(models: Sequence[TrainedModel]) -> TrainedModel:
    """Returns the ensemble of models with equal vocabularies; of a single model, itself."""
    first = models[0]
    if len(models) == 1:
        return first
    decoding = {
        name: value for name, value in first.hparams.flat().items() if name.startswith("inference.")
    }
    members: list[Seq2Seq] = []
    hparams = []
    for each in models:
        assert isinstance(each.model, Seq2Seq)
        members.append(each.model)
        hparams.append(resolve(each.hparams.model, {**each.hparams.flat(), **decoding}))
    return replace(
        first,
        model=Ensemble(members).eval(),
        members=tuple(hparams),
        member_steps=tuple(each.step for each in models),
    )


def differences(model: TrainedModel, first: TrainedModel, where: str) -> Iterator[str]:
    """Yields why a model cannot answer together with the first one, which lies at a place."""
    pairs = (
        ("source", model.source_vocab, first.source_vocab),
        ("target", model.target_vocab, first.target_vocab),
    )
    for side, vocabulary, other in pairs:
        if vocabulary != other:
            law = f"must have the {side} vocabulary of {where}"
            yield f"{law}, but {_compared(vocabulary, other)}"
    for side, mine, theirs in zip(
        ("source", "target"), model.delimiters, first.delimiters, strict=True
    ):
        if mine != theirs:
            law = f"must have the {side}_delimiter of {where}, {theirs!r}"
            yield f"{law}, but has {mine!r}"


def _compared(vocabulary: Vocabulary, other: Vocabulary) -> str:
    """Returns in which tokens two vocabularies differ, as the end of a sentence."""
    known, others = set(vocabulary.tokens), set(other.tokens)
    phrases = []
    for kind, tokens in (
        ("lacks", [token for token in other.tokens if token not in known]),
        ("has besides", [token for token in vocabulary.tokens if token not in others]),
    ):
        if tokens:
            named = ", ".join(shown(token) for token in tokens[:NAMED])
            more = f" and {len(tokens) - NAMED:,} more" if len(tokens) > NAMED else ""
            phrases.append(f"{kind} {named}{more}")
    return " and ".join(phrases) or "has its tokens in another order"
