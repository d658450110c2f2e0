"""Runs a trial again as its run folder records it, and compares the numbers bit for bit."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s2s_search.corpus.corpus import Corpus
from s2s_search.errors import quantity
from s2s_search.metrics import WORST
from s2s_search.runs.environment import software
from s2s_search.runs.folder import ENVIRONMENT
from s2s_search.runs.manifest import Manifest, Metrics


def train_again(manifest: Manifest, corpus: Corpus) -> Iterator[Metrics]:
    """Trains the trial in this process, with the threads of its search, and yields its metrics."""
    import torch  # late, so that a user sees problems of the folder without waiting for torch

    from s2s_search.training.trial import train

    torch.set_num_threads(manifest.space.resources.threads)
    device = "cuda" if manifest.space.resources.gpu > 0 and torch.cuda.is_available() else "cpu"
    metric = manifest.space.metric
    for report in train(manifest.hparams, corpus, device, metric=metric.name, goal=metric.goal):
        yield report.metrics


def changes(manifest: Manifest, corpus: Corpus) -> list[str]:
    """Returns one line for each recorded thing that has changed since the search began."""
    gpu = manifest.space.resources.gpu
    now: dict[str, Any] = software(gpu) | {"threads": manifest.space.resources.threads}
    logged, configured = manifest.logged.flat(), manifest.hparams.flat()
    found = [*_apart(logged, configured, "in the log", "in config.json")]
    found += _apart({"corpus": manifest.fingerprint}, {"corpus": corpus.fingerprint})
    if not manifest.environment:
        found.append(f"{ENVIRONMENT} cannot be read: the versions and the machine are not known")
        return found
    then = dict(manifest.environment)
    if gpu:
        then.setdefault("device", "a GPU")
    found += _apart({key: then[key] for key in now if key in then and key != "versions"}, now)
    versions = then.get("versions")
    if isinstance(versions, dict):
        found += _apart(versions, now["versions"])
    commit = then.get("commit")
    if commit == now["commit"] and str(commit).endswith("-dirty"):
        found.append("commit: uncommitted changes then and now, which are not recorded")
    return found


@dataclass(frozen=True)
class Check:
    """How new reports compare with those of the log."""

    reports: int  # the number of equal reports
    numbers: int  # the number of metrics in them
    difference: str | None  # the first difference

    def sentence(self) -> str:
        counted = f"{quantity(self.reports, 'report')}, {quantity(self.numbers, 'number')}"
        if self.difference is None:
            return f"identical ({counted})"
        return f"not identical: {self.difference}; everything before is equal ({counted})"


def compare_reports(logged: Sequence[Metrics], made: Iterable[Metrics]) -> Check:
    """Compares reports bit for bit, except times, up to the first difference or the log's end."""
    equal, numbers = 0, 0
    again = iter(made)
    for report in logged:
        other = next(again, None)
        if other is None:
            difference = f"it ends before step {report['step']}, which the log has"
            return Check(equal, numbers, difference)
        different = _difference(report, other)
        if different:
            return Check(equal, numbers, different)
        equal += 1
        numbers += sum(isinstance(report[name], int | float) for name in metrics_of(report))
    return Check(equal, numbers, None)


def _difference(logged: Metrics, made: Metrics) -> str | None:
    for name in metrics_of(logged):
        if name not in made:
            return f"step {logged['step']}: {name} is no longer reported"
        if made[name] != logged[name]:
            return f"step {logged['step']}: {name} was {logged[name]!r} and is {made[name]!r}"
    return None


def _apart(
    then: Mapping[str, Any], now: Mapping[str, Any], word_then: str = "then", word_now: str = "now"
) -> Iterator[str]:
    for key, value in then.items():
        if value != now.get(key):
            yield f"{key}: {value} {word_then}, {now.get(key)} {word_now}"


def metrics_of(report: Metrics) -> list[str]:
    """Returns the names of the numbers that a report measured.

    The metrics of a diverged report are stand-ins for the worst model, and were not measured.
    """
    names = []
    for name in report:
        is_own = name in ("event", "time", "trial", "node") or name.endswith("seconds")
        is_stand_in = report.get("status") == "diverged" and name in WORST
        if not is_own and not is_stand_in:
            names.append(name)
    return names
