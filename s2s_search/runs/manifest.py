"""What a run folder says of one trial: its configuration, corpus, versions and reports."""

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
    """What a run folder says of a trial: its complete configuration, its reports, and what they were made with."""

    trial: str
    hparams: Hparams
    logged: Hparams  # the configuration as the log has it
    reports: Sequence[Metrics]  # steps upwards
    space: Space
    fingerprint: str  # of the corpus
    environment: Mapping[str, Any]  # empty where it cannot be read

    def file(self) -> str:
        """Returns the trial as a search space that holds it alone."""
        return trial_file(self.hparams, self.space.corpus, self.space.metric, self.space.resources)


def load_manifest(folder: Path, number: int, corpus: Mapping[str, Any] | None = None) -> Manifest:
    """Reads what it takes to run a trial again. `corpus` says where the corpus lies now.

    Its configuration is that of config.json, where nothing was left to a default; without such a file that of the log.

    Raises:
        ConfigError: no run folder, no such trial, one that pbt changed, or a configuration that is none.
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
    """A JSON object; empty when there is none, or the file is damaged."""
    try:
        value = cleaned(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
