"""The manifest of a trial: everything that a run folder says about the trial."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import Hparams
from s2s_search.runs.events import cleaned
from s2s_search.runs.folder import CONFIG, ENVIRONMENT
from s2s_search.runs.inputs import space_of
from s2s_search.runs.recorder import resolved
from s2s_search.runs.state import TrialHistory, load_history
from s2s_search.spaces.space import Space
from s2s_search.spaces.trial_file import trial_file

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """A trial's complete configuration, its reports, and the corpus and software behind them."""

    trial: str
    hparams: Hparams
    logged: Hparams  # the configuration as the log has it, with today's defaults
    reports: Sequence[Metrics]  # in order of their steps
    space: Space
    fingerprint: str  # the fingerprint of the corpus
    environment: Mapping[str, Any]  # empty when the file cannot be read

    def file(self) -> str:
        """Returns the text of a search space that holds this trial only."""
        return trial_file(self.hparams, self.space.corpus, self.space.metric, self.space.resources)


def load_manifest(folder: Path, number: int, corpus: Mapping[str, Any] | None = None) -> Manifest:
    """Returns everything that is needed to run a trial again.

    The configuration comes from config.json, which holds all hyperparameters. Without such a file
    it comes from the log. `corpus` says where the corpus lies now.

    Raises:
        ConfigError: the folder is no run folder or has no such trial, pbt changed the trial, or its
            configuration is invalid.
    """
    history = load_history(folder)
    trial = history.trial(number, str(folder))
    if trial.exploits:
        raise ConfigError(
            f"{trial.name} copied weights of other trials (pbt), so it cannot run again alone",
            str(folder),
        )
    reports: list[Metrics] = [event for event, _ in trial.news]
    logged, complete = (
        _resolved(config, trial, folder) for config in (trial.config, _config(folder, trial))
    )
    environment, space = _read_object(folder / ENVIRONMENT), space_of(history, folder, corpus)
    return Manifest(trial.name, complete, logged, reports, space, history.fingerprint, environment)


def _config(folder: Path, trial: TrialHistory) -> Mapping[str, Any]:
    return _read_object(folder / trial.name / CONFIG) or trial.config


def _resolved(config: Mapping[str, Any], trial: TrialHistory, folder: Path) -> Hparams:
    if "model" not in config:
        raise ConfigError(f"{trial.name} has no model", str(folder))
    try:
        return resolved(config)
    except ConfigError as error:
        raise ConfigError(error.problems, f"{folder}: {trial.name}") from None


def _read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; an empty one when the file is missing or damaged."""
    try:
        value = cleaned(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
