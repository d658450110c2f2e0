"""The best checkpoints of a search. The checkpoints of other trials are deleted."""

from s2s_search.runs.checkpoints import Checkpoints
from s2s_search.runs.storage import below
from s2s_search.statuses import FAILURES
from s2s_search.tuning.search import Search


class BestKept:
    """Keeps the weights of the best trials of a search, and deletes those of other ended trials.

    Trials that failed keep their checkpoints, because they may run again. A checkpoint is only
    deleted after the end of its trial has been recorded. A kill in between deletes nothing that a
    resumed search still needs.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._place = search.storage or search.folder
        self._kept: list[tuple[float, str]] = []  # the kept trials, the best first
        for name in search.unrecorded_ends:
            Checkpoints(below(self._place, name)).keep_best()
        for name in search.ended_before:
            self._consider(name)

    def ended(self, name: str, status: str) -> None:
        if status in FAILURES:
            return
        Checkpoints(below(self._place, name)).keep_best()
        self._consider(name)

    def _consider(self, name: str) -> None:
        metric = self._search.space.metric
        best = self._search.recorder.best(name)
        if best is None:
            return
        self._kept.append(
            (best[metric.name] if metric.goal == "minimize" else -best[metric.name], name)
        )
        self._kept.sort()
        while len(self._kept) > self._search.space.checkpoints.best:
            Checkpoints(below(self._place, self._kept.pop()[1])).remove()
