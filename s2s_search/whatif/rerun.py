"""A trial run again from what its run folder says of it, and whether it gives the same numbers, bit for bit."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s2s_search.corpus.corpus import Corpus
from s2s_search.metrics import WORST
from s2s_search.runs.environment import ENVIRONMENT, software
from s2s_search.runs.manifest import Manifest, Metrics


def run(manifest: Manifest, corpus: Corpus) -> Iterator[Metrics]:
    """Trains the trial in this process, with as many threads as in its search, and yields its metrics."""
    import torch  # late: what is wrong with a folder is said at once

    from s2s_search.training.trial import train

    torch.set_num_threads(manifest.space.resources.threads)
    device = "cuda" if manifest.space.resources.gpu > 0 and torch.cuda.is_available() else "cpu"
    for report in train(manifest.hparams, corpus, device):
        yield report.metrics


def changes(manifest: Manifest, corpus: Corpus) -> list[str]:
    """What is not as it was when the search began, as far as it was written down: a line each."""
    fingerprints = ({"corpus": manifest.fingerprint}, {"corpus": corpus.fingerprint})
    gpu = manifest.space.resources.gpu
    now: dict[str, Any] = software(gpu) | {"threads": manifest.space.resources.threads}
    found = [
        *_apart(manifest.logged.flat(), manifest.hparams.flat(), "in the log", "in config.json")
    ]
    found += _apart(*fingerprints)
    if not manifest.environment:
        return [*found, f"{ENVIRONMENT} cannot be read: what it ran with is not known"]
    then = {"device": "a GPU", **manifest.environment} if gpu else manifest.environment
    found += _apart({key: then[key] for key in now if key in then and key != "versions"}, now)
    versions = manifest.environment.get("versions")
    found += _apart(versions if isinstance(versions, dict) else {}, now["versions"])
    commit = manifest.environment.get("commit")
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


def check(logged: Sequence[Metrics], made: Iterable[Metrics]) -> Check:
    """Compares reports bit for bit, seconds aside, up to the first difference or to the end of the log."""
    equal, numbers, again = 0, 0, iter(made)
    for report in logged:
        other = next(again, None)
        if other is None:
            return Check(equal, numbers, f"it ends before step {report['step']}, which the log has")
        if difference := _difference(report, other):
            return Check(equal, numbers, difference)
        equal, numbers = (
            equal + 1,
            numbers + sum(isinstance(report[name], int | float) for name in metrics_of(report)),
        )
    return Check(equal, numbers, None)


def _difference(logged: Metrics, made: Metrics) -> str | None:
    for name in metrics_of(logged):
        if name not in made:
            return f"step {logged['step']}: {name} is not reported any more"
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
    """Returns the names of what a report measured. What a diverged trial reports was not measured but stands in."""
    names = []
    for name in report:
        is_own = name in ("event", "time", "trial", "node") or name.endswith("seconds")
        is_stand_in = report.get("status") == "diverged" and name in WORST
        if not is_own and not is_stand_in:
            names.append(name)
    return names
