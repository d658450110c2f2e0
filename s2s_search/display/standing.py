"""The state of a search as a display shows it: running trials, the best, failures, time left."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Any

from s2s_search.display.time_left import Survival, amount, ideal_ends, lets_wait, steps_of_all
from s2s_search.runs.events import Event
from s2s_search.runs.failures import cause
from s2s_search.runs.state import History
from s2s_search.statuses import ENDS, FAILURES

POINTS = 256  # the largest number of points of a curve; no terminal shows more
Points = list[tuple[int, float]]  # steps in increasing order, and the values of the metric


class Standing:
    """The state of a search for a display, updated event by event.

    `history` says what the events mean. In a search this runs in the driver's main thread.
    """

    def __init__(self, search: Event) -> None:
        self.history = History([search])
        self.name: str = search["name"]
        self.metric: str = search["metric"]
        self.running: set[str] = set()
        self.paused: set[str] = set()  # trials that wait for others to be compared with
        self.restarting: set[str] = set()  # trials that wait for a worker to resume
        # There are as many places as trials ran at once. A place holds the trial that runs there,
        # or that ran there last.
        self.places: list[str] = []
        self.curves: dict[str, Points] = {}  # the curves of trials in a place, and of the best
        self.steps: dict[str, int] = {}  # the steps of the newest reports
        self.ends: dict[str, str] = {}  # the statuses of the trials that have ended
        self.ended: Counter[str] = Counter()
        # Messages by trial, grouped by status and cause.
        self.failures: dict[tuple[str, str], dict[str, str]] = {}
        self.restarts = 0
        self.note = ""  # the newest note
        self.waiting = ""  # why no trial runs
        self.best_settings: Event = {}
        # When the first trial started, in seconds of the search's work.
        self._first: float | None = None
        self._made = 0  # the steps of all trials so far
        self._ended_at: Counter[int] = Counter()  # the number of trials that ended at each step

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
        """Adds an event that follows the search event."""
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
        elif kind == "pause" and has_begun and trial not in self.ends:
            self._wait(trial, self.paused)
        elif kind == "note":
            self.note = event["message"] or ""
        elif kind == "wait":
            self.waiting = event["message"] or ""

    def _start(self, trial: str) -> None:
        """Gives a trial the place of a trial that has ended, or a new place."""
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
        """Puts a trial into one of the sets `running`, `paused` and `restarting`."""
        for trials in (self.running, self.paused, self.restarting):
            trials.discard(trial)
        where.add(trial)

    def _forget(self, *trials: str) -> None:
        """Deletes the curves of trials that are in no place, and not the best."""
        for trial in trials:
            if trial not in self.places and (self.best is None or self.best["trial"] != trial):
                self.curves.pop(trial, None)

    def _report(self, trial: str, report: Event, best: Event | None) -> None:
        """Adds a report that is news. `best` was the best report before it."""
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
        # In a damaged log, a trial may report after its end, and have no place.
        self._forget(trial)

    def _end(self, trial: str, status: str | None, message: str = "") -> None:
        """Counts the end of a trial. Without a status the trial runs again: its end is removed."""
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
        """Returns whether a trial is better than the best trial was after as many steps."""
        if self.best is None or not self.curves[trial]:
            return False
        step, value = self.curves[trial][-1]
        best = self.curves[self.best["trial"]]
        then = bisect_right(best, step, key=lambda point: point[0])
        return then > 0 and self.history.beats(value, best[then - 1][1])

    def settings(self, trial: str) -> Mapping[str, Any]:
        """Returns the searched hyperparameters of a trial, with their values."""
        past = self.history.trials.get(trial)
        return {} if past is None else past.settings

    def max_steps(self, trial: str) -> int:
        """Returns the number of steps of a trial that nothing stops; 0 when it is not known."""
        own = self.history.trials[trial].config.get("train.max_steps")
        return int(amount(own) or amount(self.scheduler.get("max_steps")))

    def counts(self) -> str:
        """Returns the numbers of trials in words: "2 running, 11 to start, 3 stopped"."""
        numbers = {"running": len(self.running), "paused": len(self.paused)}
        numbers["to start"] = max(self.trials - len(self.history.trials), 0) + len(self.restarting)
        numbers |= {status: self.ended[status] for status in (*FAILURES, *ENDS)} | {
            "restarts": self.restarts
        }
        return ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in numbers.items() if n)

    def causes(self) -> list[tuple[str, list[str], str]]:
        """Returns the failures by cause, the most frequent first.

        Each has a status, the names of its trials, and the message of the first of them.
        """
        groups = [
            (status, list(alike), next(iter(alike.values())))
            for (status, _), alike in self.failures.items()
            if alike
        ]
        return sorted(groups, key=lambda group: -len(group[1]))

    # --- time ---

    def elapsed(self, now: float) -> float:
        """Returns the seconds in which the search was at work. They stop when it has ended."""
        end = self.history.now
        if self.status == "running":
            end = max(now, end)
        return max(end - self.history.began, 0.0)

    def seconds_left(self, now: float) -> float | None:
        """Returns an estimate of the seconds that are left; None before the first steps.

        It is the number of steps that are left, at the pace of all steps so far. The estimate is at
        least the time of the slowest running trial, and at most the rest of search.hours.
        """
        if self._first is None or not self._made or self.status != "running":
            return None
        steps, left = self._steps_left()
        pace = (self.elapsed(now) - self._first) / self._made
        alone = (
            n * ((self.history.trials[trial].last or {}).get("seconds") or 0.0) / self.steps[trial]
            for trial, n in left.items()
            if self.steps.get(trial)
        )
        seconds: float = max(steps * pace, *alone, 0.0)
        hours: float | None = self.history.search.get("hours")
        if hours is None:
            return seconds
        return min(seconds, max(3600 * hours - self.elapsed(now), 0.0))

    def _steps_left(self) -> tuple[float, dict[str, float]]:
        """Returns the number of steps that are left, and those of each trial that trains.

        The number of steps of a trial is estimated from the trials that have ended. At first it is
        what the scheduler ideally lets a trial make.

        Where trials wait until the search ends, only the best have ended before. Then it is the
        number of steps that all trials ideally make together, less those that they made.
        """
        waits = lets_wait(self.scheduler)
        alive = self.running | self.restarting
        if not waits:
            alive |= self.paused  # in brackets, which go on soon
        made = {trial: self.steps.get(trial, 0) for trial in alive}
        limit = max(map(self.max_steps, alive or [next(reversed(self.history.trials))]))
        ends = dict(ideal_ends(self.scheduler, limit, self.trials))
        together = steps_of_all(self.scheduler, ends, limit, self.trials)
        if not waits:
            for step, number in self._ended_at.items():
                ends[step] = ends.get(step, 0.0) + number
        survival = Survival(ends, made.values(), limit)
        left = {
            trial: min(survival.left(step), max(self.max_steps(trial) - step, 0))
            for trial, step in made.items()
        }
        steps = sum(left.values())
        if not waits:
            to_begin = max(self.trials - len(self.history.trials), 0)
            return steps + to_begin * survival.left(0), left
        if self.scheduler.get("name") == "freeze_thaw":  # each of them trains for a report or more
            steps = 0.0
        steps = max(together - self._made, steps)
        return steps, {trial: min(n, steps) for trial, n in left.items()}
