"""Models as safetensors with a description in JSON, which need no run folder."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch

from s2s_search.corpus.vocabulary import SPECIALS, Vocabulary
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import resolve
from s2s_search.nn.models import build_model
from s2s_search.runs.exported import (
    FORMAT,
    ExportedMember,
    ExportedModel,
    folder_as_a_whole,
    read_description,
    write_description,
)
from s2s_search.training.trained_model import TrainedModel

PACKAGES = ("s2s-search", "torch", "safetensors")


def export(
    folder: Path,
    models: Sequence[TrainedModel],
    origins: Sequence[tuple[str, str]],
    corpus: Mapping[str, Any],
) -> int:
    """Writes models that answer together into a new folder, and returns its size in bytes.

    Args:
        folder: the new folder.
        models: the models, with equal vocabularies, the best first.
        origins: the names of the run folder and the trial of each.
        corpus: the corpus section of the search space.

    Raises:
        ConfigError: the folder cannot be written. Nothing of it is left.
    """
    first = models[0]
    with folder_as_a_whole(folder) as new:
        members = []
        for number, (model, (run, trial)) in enumerate(zip(models, origins, strict=True), start=1):
            name = f"model-{number}.safetensors"
            weights = {key: value.contiguous() for key, value in model.model.state_dict().items()}
            data = safetensors.torch.save(weights)
            (new / name).write_bytes(data)
            members.append(
                ExportedMember(
                    name,
                    sha256(data).hexdigest(),
                    model.hparams.flat(),
                    model.step,
                    *model.score,
                    run,
                    trial,
                )
            )
        source, target = first.delimiters
        description = ExportedModel(
            format=FORMAT,
            members=members,
            delimiters=(list(source) if isinstance(source, tuple) else source, target),
            source_tokens=list(first.source_vocab.tokens),
            target_tokens=list(first.target_vocab.tokens),
            special_tokens=list(SPECIALS),
            corpus=dict(corpus),
            fingerprint=first.corpus,
            software={package: metadata.version(package) for package in PACKAGES},
        )
        write_description(new, description)
        size = sum(path.stat().st_size for path in new.iterdir())
    return size


def load_exported(folder: Path, overrides: dict[str, object] | None = None) -> list[TrainedModel]:
    """Returns the models of an exported folder. Nothing in it is executed.

    Raises:
        ConfigError: with all files that cannot be read, or that have changed.
    """
    described = read_description(folder)
    source, target = described.delimiters
    problems: list[str] = []
    models = []
    for member in described.members:
        path = folder / member.weights
        try:
            data = path.read_bytes()
            if sha256(data).hexdigest() != member.sha256:
                raise ValueError("its SHA-256 is not that of the description")
            hparams = resolve(str(member.hparams.get("model")), member.hparams | (overrides or {}))
            vocabularies = (
                Vocabulary(tuple(described.source_tokens)),
                Vocabulary(tuple(described.target_tokens)),
            )
            model = build_model(hparams, *map(len, vocabularies))
            model.load_state_dict(safetensors.torch.load(data))
        except Exception as error:  # a damaged file may hold anything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            problems.append(f"{path}: {reason}")
            continue
        models.append(
            TrainedModel(
                model.eval(),
                hparams,
                *vocabularies,
                (tuple(source) if isinstance(source, list) else source, target),
                member.step,
                (member.metric, member.value),
                corpus=described.fingerprint,
            )
        )
    if problems:
        raise ConfigError(problems)
    return models
