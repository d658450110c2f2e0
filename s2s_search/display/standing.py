"""Where a search stands, from its events so far: what runs and how, what is best, what failed, how long it takes."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Any

from s2s_search.display.time_left import Survival, amount, ideal_ends
from s2s_search.runs.events import Event
from s2s_search.runs.failures import cause
from s2s_search.runs.state import History
from s2s_search.statuses import ENDS, FAILURES

POINTS = 256  # of a curve; no terminal shows more
Points = list[tuple[int, float]]  # steps, upwards, and the values of the metric


class Standing:
    """What a display shows of a search, event by event; `history` says what the events mean."""

    def __init__(self, search: Event) -> None:
        self.history = History([search])
        self.name: str = search["name"]
        self.metric: str = search["metric"]
        self.running: set[str] = set()
        self.paused: set[str] = set()  # they wait for others to be compared with
        self.restarting: set[str] = set()  # they wait for a worker to go on
        # As many as ran at once: who runs in this place, or ran there last.
        self.places: list[str] = []
        self.curves: dict[str, Points] = {}  # of the trials in a place, and of the best
        self.steps: dict[str, int] = {}  # of the newest reports
        self.ends: dict[str, str] = {}  # the statuses of those that have ended
        self.ended: Counter[str] = Counter()
        # Messages by trial, grouped by status and cause.
        self.failures: dict[tuple[str, str], dict[str, str]] = {}
        self.restarts = 0
        self.note = ""  # the newest
        self.waiting = ""  # why nothing runs
        self.best_settings: Event = {}
        self._first: float | None = None  # when a trial started, in seconds of the search's work
        self._made = 0  # steps, by all trials
        self._ended_at: Counter[int] = Counter()  # steps

    @property
    def trials(self) -> int:
        """The number of trials that the search will run; 0 in a damaged log."""
        return int(self.history.search["trials"])

    @property
    def scheduler(self) -> Event:
        found: Event = self.history.search.get("scheduler") or {}
        return found

    @property
    def status(self) -> str:
        return self.history.status

    @property
    def message(self) -> str | None:
        return self.history.message

    @property
    def best(self) -> Event | None:
        """The best report of all trials."""
        return self.history.best

    def add(self, event: Event) -> None:
        """Takes in an event that follows the search event."""
        kind, trial = event["event"], event.get("trial", "")
        best = self.best
        is_news = self.history.add(event)
        has_begun = trial in self.history.trials
        if kind in ("trial", "report"):
            self.waiting = ""
        if kind == "trial":
            self._first = self.history.elapsed if self._first is None else self._first
            self._start(trial)
        elif kind == "start" and has_begun:
            self._start(trial)
        elif is_news:
            if trial not in self.ends:
                self._start(trial)
            self._report(trial, event, best)
        elif kind == "status" and trial:
            self._end(trial, event["status"], event.get("message") or "")
        elif kind == "restart" and has_begun:
            self._end(trial, None)
            self._wait(trial, self.restarting)
            self.restarts += 1
        elif kind == "pause" and trial in self.running:
            self._wait(trial, self.paused)
        elif kind == "note":
            self.note = event["message"] or ""
        elif kind == "wait":
            self.waiting = event["message"] or ""

    def _start(self, trial: str) -> None:
        """Gives a trial the place of one that has ended, or a new one."""
        self._wait(trial, self.running)
        self.curves.setdefault(trial, [])
        if trial in self.places:
            return
        free = next(
            (k for k, other in enumerate(self.places) if other not in self.running),
            len(self.places),
        )
        before = self.places[free : free + 1]
        self.places[free : free + 1] = [trial]
        self._forget(*before)

    def _wait(self, trial: str, where: set[str]) -> None:
        """Puts a trial among those that run, or that wait to."""
        for trials in (self.running, self.paused, self.restarting):
            trials.discard(trial)
        where.add(trial)

    def _forget(self, *trials: str) -> None:
        """Drops the curves that are of no more use."""
        for trial in trials:
            if trial not in self.places and (self.best is None or self.best["trial"] != trial):
                self.curves.pop(trial, None)

    def _report(self, trial: str, report: Event, best: Event | None) -> None:
        """Takes in a report that is news; `best` was the best report before it."""
        step, value = report["step"] or 0, report.get(self.metric)
        self._made += max(step - self.steps.get(trial, 0), 0)
        self.steps[trial] = step
        if value is None or report.get("status") == "diverged":
            return
        curve = self.curves.setdefault(trial, [])
        while curve and curve[-1][0] >= step:  # pbt copied weights from an earlier step
            curve.pop()
        curve.append((step, value))
        if len(curve) > POINTS:
            del curve[-2::-2]
        if self.best is report:
            self.best_settings = self.settings(trial)
            if best is not None:
                self._forget(best["trial"])
        self._forget(trial)  # of a damaged log: the trial had ended before

    def _end(self, trial: str, status: str | None, message: str = "") -> None:
        """Counts a trial's end; without a status, its beginning again."""
        step = self.steps.get(trial, 0)
        if before := self.ends.pop(trial, None):
            self.ended[before] -= 1
            self._ended_at[step] -= 1
            for alike in self.failures.values():
                alike.pop(trial, None)
        if status is None:
            return
        for trials in (self.running, self.paused, self.restarting):
            trials.discard(trial)
        self.ends[trial] = status
        self.ended[status] += 1
        self._ended_at[step] += 1
        if status in FAILURES:
            self.failures.setdefault((status, cause(message)), {})[trial] = message

    def is_ahead(self, trial: str) -> bool:
        """Says whether a trial with a curve is better than the best one was after as many steps."""
        if self.best is None or not self.curves[trial]:
            return False
        step, value = self.curves[trial][-1]
        best = self.curves[self.best["trial"]]
        then = bisect_right(best, step, key=lambda point: point[0])
        return then > 0 and self.history.beats(value, best[then - 1][1])

    def settings(self, trial: str) -> Mapping[str, Any]:
        """The searched hyperparameters that take part in a trial, with their values."""
        past = self.history.trials.get(trial)
        return {} if past is None else past.settings

    def max_steps(self, trial: str) -> int:
        """The steps that a trial makes if nothing stops it; 0: not known."""
        own = self.history.trials[trial].config.get("train.max_steps")
        return int(amount(own) or amount(self.scheduler.get("max_steps")))

    def counts(self) -> str:
        """The numbers in words: "2 running, 11 to start, 3 stopped"."""
        numbers = {"running": len(self.running), "paused": len(self.paused)}
        numbers["to start"] = max(self.trials - len(self.history.trials), 0) + len(self.restarting)
        numbers |= {status: self.ended[status] for status in (*FAILURES, *ENDS)} | {
            "restarts": self.restarts
        }
        return ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in numbers.items() if n)

    def causes(self) -> list[tuple[str, list[str], str]]:
        """The failures by cause, the most frequent first: status, trials, the message of the first."""
        groups = [
            (status, list(alike), next(iter(alike.values())))
            for (status, _), alike in self.failures.items()
            if alike
        ]
        return sorted(groups, key=lambda group: -len(group[1]))

    # --- time ---

    def elapsed(self, now: float) -> float:
        """The seconds in which the search was at work; they stand still when it has ended."""
        end = self.history.now
        if self.status == "running":
            end = max(now, end)
        return max(end - self.history.began, 0.0)

    def seconds_left(self, now: float) -> float | None:
        """An estimate: the steps that are left, at the pace of all steps so far. None before there is a pace.

        How many steps a trial makes is seen from those that have ended, and at first is what the scheduler ideally
        lets it make. The slowest trial that runs is waited for, and search.hours ends everything.
        """
        if self._first is None or not self._made or self.status != "running":
            return None
        alive = self.running | self.paused | self.restarting
        made = {trial: self.steps.get(trial, 0) for trial in alive}
        limit = max(map(self.max_steps, alive or [next(reversed(self.history.trials))]))
        ended: dict[int, float] = dict(ideal_ends(self.scheduler, limit))
        for step, number in self._ended_at.items():
            ended[step] = ended.get(step, 0.0) + number
        survival = Survival(ended, made.values(), limit)
        left = {
            trial: min(survival.left(step), max(self.max_steps(trial) - step, 0))
            for trial, step in made.items()
        }
        steps = sum(left.values()) + max(self.trials - len(self.history.trials), 0) * survival.left(
            0
        )
        pace = (self.elapsed(now) - self._first) / self._made
        alone = (
            n * ((self.history.trials[trial].last or {}).get("seconds") or 0.0) / made[trial]
            for trial, n in left.items()
            if made[trial]
        )
        seconds: float = max(steps * pace, *alone, 0.0)
        hours: float | None = self.history.search.get("hours")
        if hours is None:
            return seconds
        return min(seconds, max(3600 * hours - self.elapsed(now), 0.0))
