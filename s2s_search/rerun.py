"""A trial run again from what its run folder says of it, and whether it gives the same numbers, bit for bit."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2s_search.corpus import Corpus
from s2s_search.events import cleaned
from s2s_search.history import TrialHistory, load_history, space_of
from s2s_search.hparams import Hparams
from s2s_search.recorder import ENVIRONMENT, resolved, software
from s2s_search.spaces import Space
from s2s_search.table import ConfigError
from s2s_search.trial_files import trial_file

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

    def run(self, corpus: Corpus) -> Iterator[Metrics]:
        """Trains the trial in this process, with as many threads as in its search, and yields its metrics."""
        import torch  # late: what is wrong with a folder is said at once

        from s2s_search.training import train

        torch.set_num_threads(self.space.resources.threads)
        device = "cuda" if self.space.resources.gpu > 0 and torch.cuda.is_available() else "cpu"
        for report in train(self.hparams, corpus, device):
            yield report.metrics

    def file(self) -> str:
        """Returns the trial as a search space that holds it alone."""
        return trial_file(self.hparams, self.space.corpus, self.space.metric, self.space.resources)

    def changes(self, corpus: Corpus) -> list[str]:
        """What is not as it was when the search began, as far as it was written down: a line each."""
        fingerprints = ({"corpus": self.fingerprint}, {"corpus": corpus.fingerprint})
        gpu = self.space.resources.gpu
        now: dict[str, Any] = software(gpu) | {"threads": self.space.resources.threads}
        found = [*_apart(self.logged.flat(), self.hparams.flat(), "in the log", "in config.json")]
        found += _apart(*fingerprints)
        if not self.environment:
            return [*found, f"{ENVIRONMENT} cannot be read: what it ran with is not known"]
        then = {"device": "a GPU", **self.environment} if gpu else self.environment
        found += _apart({key: then[key] for key in now if key in then and key != "versions"}, now)
        versions = self.environment.get("versions")
        found += _apart(versions if isinstance(versions, dict) else {}, now["versions"])
        commit = self.environment.get("commit")
        if commit == now["commit"] and str(commit).endswith("-dirty"):
            found.append("commit: it had changes then and has some now, which nobody wrote down")
        return found


@dataclass(frozen=True)
class Check:
    """How reports made again compare with those of the log: how many were equal, and where they first differ."""

    reports: int  # that are equal
    numbers: int  # in them
    difference: str | None

    def sentence(self) -> str:
        counted = f"{self.reports} report{'s' if self.reports != 1 else ''}, {self.numbers} numbers"
        if self.difference is None:
            return f"identical ({counted})"
        return f"not identical: {self.difference}; before it all is equal ({counted})"


def load_manifest(folder: Path, number: int, corpus: Mapping[str, Any] | None = None) -> Manifest:
    """Reads what it takes to run a trial again. `corpus` says where the corpus lies now.

    Its configuration is that of config.json, where nothing was left to a default; without such a file that of the log.

    Raises:
        ConfigError: no run folder, no such trial, one that pbt changed, or a configuration that is none.
    """
    history = load_history(folder)
    trial = history.trial(number, str(folder))
    if any(event["event"] == "exploit" for event in trial.events):
        raise ConfigError(f"{trial.name} took over weights of others (pbt): it cannot run again alone", str(folder))
    reports: list[Metrics] = []
    for event in (event for event in history.events if event["event"] == "report" and event["trial"] == trial.name):
        if not reports or event["step"] > reports[-1]["step"]:  # else it was said again
            reports.append(event)
    logged, complete = (_resolved(config, trial, folder) for config in (trial.config, _config(folder, trial)))
    environment, space = _read_object(folder / ENVIRONMENT), space_of(history, folder, corpus)
    return Manifest(trial.name, complete, logged, reports, space, history.fingerprint, environment)


def check(logged: Sequence[Metrics], made: Iterable[Metrics]) -> Check:
    """Compares reports bit for bit, seconds aside, up to the first difference or to the end of the log."""
    equal, numbers, again = 0, 0, iter(made)
    for report in logged:
        other = next(again, None)
        if other is None:
            return Check(equal, numbers, f"it ends before step {report['step']}, which the log has")
        if difference := _difference(report, other):
            return Check(equal, numbers, difference)
        equal, numbers = equal + 1, numbers + sum(isinstance(report[name], int | float) for name in _metrics(report))
    return Check(equal, numbers, None)


def _difference(logged: Metrics, made: Metrics) -> str | None:
    for name in _metrics(logged):
        if name not in made:
            return f"step {logged['step']}: {name} is not reported any more"
        if made[name] != logged[name]:
            return f"step {logged['step']}: {name} was {logged[name]!r} and is {made[name]!r}"
    return None


def _metrics(report: Metrics) -> list[str]:
    return [name for name in report if name not in ("event", "time", "trial", "node") and not name.endswith("seconds")]


def _config(folder: Path, trial: TrialHistory) -> Mapping[str, Any]:
    return _read_object(folder / trial.name / "config.json") or trial.config


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


def _apart(
    then: Mapping[str, Any], now: Mapping[str, Any], word_then: str = "then", word_now: str = "now"
) -> Iterator[str]:
    for key, value in then.items():
        if value != now.get(key):
            yield f"{key}: {value} {word_then}, {now.get(key)} {word_now}"
