"""Where a search stands, from its events so far: what runs and how, what is best, what failed, how long it takes."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Any

from s2s_search.display.time_left import Survival, amount, ideal_ends
from s2s_search.runs.events import Event
from s2s_search.runs.failures import cause
from s2s_search.statuses import ENDS, FAILURES

POINTS = 256  # of a curve; no terminal shows more
Curve = list[tuple[int, float]]  # steps, upwards, and the values of the metric


class Standing:
    """Takes in the events of a search one by one: `search` is the first."""

    def __init__(self, search: Event) -> None:
        self.name: str = search["name"]
        self.metric: str = search["metric"]
        self.minimize = search["goal"] == "minimize"
        self.trials: int = search.get("trials", 0)  # absent from a damaged log
        self.scheduler: Event = search.get("scheduler") or {}
        self.hours: float | None = search.get("hours")
        self.began: float = search["time"]
        self.started: dict[str, Event] = {}  # the trial events
        self.running: set[str] = set()
        self.paused: set[str] = set()  # they wait for others to be compared with
        self.restarting: set[str] = set()  # they wait for a worker to go on
        self.newest: dict[str, Event] = {}  # the newest reports of all that have not ended
        self.places: list[
            str
        ] = []  # as many as ran at once: who runs there, or did until another trial starts
        self.curves: dict[str, Curve] = {}  # of the trials in a place, and of the best
        self.steps: dict[str, int] = {}  # of the newest reports
        self.ends: dict[str, str] = {}  # the statuses of those that have ended
        self.ended: Counter[str] = Counter()
        self.failures: dict[
            tuple[str, str], dict[str, str]
        ] = {}  # by status and cause: messages by trial
        self.restarts = 0
        self.note = ""  # the newest
        self.waiting = ""  # why nothing runs
        self.now = self.began
        self.best: Event | None = None  # a report
        self.best_settings: Event = {}
        self.status = "running"
        self.message: str | None = None
        self._first: float | None = None  # when a trial started
        self._made = 0  # steps, by all trials
        self._ended_at: Counter[int] = Counter()  # steps

    def add(self, event: Event) -> None:
        """Takes in an event that follows the search event."""
        kind, trial = event["event"], event.get("trial", "")
        if kind in ("trial", "report"):
            self.waiting = ""
        if kind == "trial":
            self.started[trial] = event
            self._first = event["time"] if self._first is None else self._first
            self._start(trial)
        elif kind == "start" and trial in self.started:
            self._start(trial)
        elif kind == "report" and trial in self.started and trial not in self.ends:
            self._start(trial)
            self._report(trial, event)
        elif kind == "status" and trial:
            self._end(trial, event["status"], event.get("message") or "")
        elif kind == "restart" and trial in self.started:
            self._end(trial, None)
            self._wait(trial, self.restarting)
            self.restarts += 1
        elif kind == "pause" and trial in self.running:
            self._wait(trial, self.paused)
        elif kind == "exploit" and trial in self.started:
            self.started[trial] = event
        elif kind == "note":
            self.note = event["message"] or ""
        elif kind == "wait":
            self.waiting = event["message"] or ""
        elif kind == "resume":
            self._resume(event)
        elif kind == "status":
            self.status, self.message = event["status"], event.get("message")
        self.now = event.get("time", self.now)

    def _resume(self, event: Event) -> None:
        self.trials, self.status, self.message = event["trials"], "running", None
        self.hours = event.get("hours", self.hours)
        idle = event["time"] - self.now  # nothing ran in the meantime
        self.began += idle
        self._first = None if self._first is None else self._first + idle

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

    def _report(self, trial: str, report: Event) -> None:
        step, value = report["step"] or 0, report.get(self.metric)
        self._made += max(step - self.steps.get(trial, 0), 0)
        self.steps[trial] = step
        self.newest[trial] = report
        if value is None or report.get("status") == "diverged":
            return
        curve = self.curves[trial]
        while curve and curve[-1][0] >= step:  # it goes on from another's weights
            curve.pop()
        curve.append((step, value))
        if len(curve) > POINTS:
            del curve[-2::-2]
        if self.is_better(value):
            before, self.best = self.best, report
            self.best_settings = self.settings(trial)
            if before is not None:
                self._forget(before["trial"])

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
        self.newest.pop(trial, None)
        self.ends[trial] = status
        self.ended[status] += 1
        self._ended_at[step] += 1
        if status in FAILURES:
            self.failures.setdefault((status, cause(message)), {})[trial] = message

    def is_better(self, value: float) -> bool:
        """Says whether a value of the metric beats the best so far."""
        return self.best is None or self._beats(value, self.best[self.metric])

    def _beats(self, value: float, other: float) -> bool:
        return value < other if self.minimize else other < value

    def is_ahead(self, trial: str) -> bool:
        """Says whether a trial with a curve is better than the best one was after as many steps."""
        if self.best is None or not self.curves[trial]:
            return False
        step, value = self.curves[trial][-1]
        best = self.curves[self.best["trial"]]
        then = bisect_right(best, step, key=lambda point: point[0])
        return then > 0 and self._beats(value, best[then - 1][1])

    def settings(self, trial: str) -> Mapping[str, Any]:
        """The searched hyperparameters that are active in a trial, with their values."""
        found: Mapping[str, Any] = self.started.get(trial, {}).get("settings", {})
        return found

    def max_steps(self, trial: str) -> int:
        """The steps that a trial makes if nothing stops it; 0: not known."""
        own = self.started[trial]["config"].get("train.max_steps")
        return int(amount(own) or amount(self.scheduler.get("max_steps")))

    def counts(self) -> str:
        """The numbers in words: "2 running, 11 to start, 3 stopped"."""
        numbers = {"running": len(self.running), "paused": len(self.paused)}
        numbers["to start"] = max(self.trials - len(self.started), 0) + len(self.restarting)
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
        """The seconds in which the search was at work; it stands still when the search has ended."""
        end: float = max(now, self.now) if self.status == "running" else self.now
        return max(end - self.began, 0.0)

    def seconds_left(self, now: float) -> float | None:
        """An estimate: the steps that are left, at the pace of all steps so far. None before there is a pace.

        How many steps a trial makes is seen from those that have ended, and at first is what the scheduler ideally
        lets it make. The slowest trial that runs is waited for, and search.hours ends everything.
        """
        if self._first is None or not self._made or self.status != "running":
            return None
        alive = self.running | self.paused | self.restarting
        made = {trial: self.steps.get(trial, 0) for trial in alive}
        limit = max(map(self.max_steps, alive or [next(reversed(self.started))]))
        ended: dict[int, float] = dict(ideal_ends(self.scheduler, limit))
        for step, number in self._ended_at.items():
            ended[step] = ended.get(step, 0.0) + number
        survival = Survival(ended, made.values(), limit)
        left = {
            trial: min(survival.left(step), max(self.max_steps(trial) - step, 0))
            for trial, step in made.items()
        }
        steps = sum(left.values()) + max(self.trials - len(self.started), 0) * survival.left(0)
        pace = (max(now, self.now) - self._first) / self._made
        alone = (
            n * (self.newest.get(trial, {}).get("seconds") or 0.0) / made[trial]
            for trial, n in left.items()
            if made[trial]
        )
        seconds: float = max(steps * pace, *alone, 0.0)
        return (
            seconds
            if self.hours is None
            else min(seconds, max(3600 * self.hours - self.elapsed(now), 0.0))
        )
