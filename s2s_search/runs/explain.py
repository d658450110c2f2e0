"""Explains from the log why a trial ended as it did."""

from collections.abc import Iterator
from pathlib import Path

from s2s_search.errors import command
from s2s_search.runs.events import Event
from s2s_search.runs.state import History, TrialHistory
from s2s_search.statuses import FAILURES, LOST, OUT_OF_MEMORY, PLATEAUED, TIME_IS_OVER, WAITED

AUDITED = 10  # the largest number of stopped trials that a command trains to the end
ACTIONS = {"stop": "stopped", "pause": "paused", "continue": "continued"}


def explain(history: History, number: int, folder: Path = Path("DIR")) -> Iterator[str]:
    """Says in lines what happened to a trial and why. Commands in these lines name `folder`.

    Raises:
        ConfigError: the trial never began.
    """
    trial = history.trial(number)
    metric, minimize = history.search["metric"], history.search["goal"] == "minimize"
    yield f"{trial.name}: {trial.status}" + (
        f" after step {trial.step}" if trial.reports else ", without a report"
    )
    for key, value in trial.settings.items():
        yield f"  {key} = " + ('""' if value == "" else str(value))
    if trial.best is not None:
        yield f"best {metric} {trial.best[metric]:.4g} at step {trial.best['step']}"
    for event in sorted([*trial.decisions, *trial.events], key=lambda event: event["time"]):
        yield _judged(event, metric, minimize)
        if event["event"] == "decision":
            yield from _not_judged(event, trial, history)
    if trial.message and trial.message not in (trial.reason, WAITED):
        yield f"why: {trial.message}"
    yield from _outlook(trial, history, folder)


def _judged(event: Event, metric: str, minimize: bool) -> str:
    kind = event["event"]
    if kind == "decision":
        return decision_line(event, metric, minimize)
    if kind == "restart":
        cause = "the search was resumed" if event["cause"] == "resume" else event["cause"]
        message = f" ({event['message']})" if event.get("message") else ""
        return f"resumed after step {event.get('step') or 0}: {cause}{message}"
    if kind == "exploit":
        return f"copied the weights of {event['source']}, with other settings"
    return str(event.get("message", ""))


def decision_line(event: Event, metric: str, minimize: bool) -> str:
    """Returns a decision as a sentence.

    The sentence says which values were compared. For a stopped trial it also says which value would
    have kept the trial running.
    """
    value, cutoff, stopped = event["value"], event.get("cutoff"), event["action"] == "stop"
    if event.get("reason"):
        how = ACTIONS.get(event["action"], event["action"])
        return f"step {event['step']}: {metric} {value:.4g}: {how}; {event['reason']}"
    has_rung = event.get("rung") is not None
    at = f"rung {event['rung']:g}, at step {event['step']}" if has_rung else f"step {event['step']}"
    if cutoff is None and not has_rung:
        return (
            f"{at}: {metric} {value:.4g}, too few to compare it with ({event.get('of')} so far), "
            "so it continued"
        )
    if cutoff is None:
        return f"{at}: {metric} {value:.4g}, the first of its kind, so it continued"
    relation = "below" if minimize else "above"
    what = "the median of the others" if not has_rung else "the cutoff"
    among = (
        f", rank {event['rank']} of {event.get('of')} so far"
        if "rank" in event
        else f", {event.get('of')} trials so far"
    )
    verdict = (
        f"stopped; {metric} at or {relation} {cutoff:.4g} would have kept it"
        if stopped
        else "so it continued"
    )
    return f"{at}: {metric} {value:.4g} against {what} {cutoff:.4g}{among}: {verdict}"


def _not_judged(event: Event, trial: TrialHistory, history: History) -> Iterator[str]:
    """Says when a trial that a rung stopped had been better before.

    This can happen because a rung judges the report that reaches it, and not the best report.
    """
    metric, minimize = history.search["metric"], history.search["goal"] == "minimize"
    if event["action"] != "stop" or event.get("rung") is None:
        return
    measured = [
        report
        for report, _ in trial.news
        if report.get(metric) is not None and report.get("status") != "diverged"
    ]
    before = [other for other in measured if (other.get("step") or 0) < event["step"]]
    if not before:
        return
    best = (min if minimize else max)(before, key=lambda report: report[metric])
    if best[metric] < event["value"] if minimize else best[metric] > event["value"]:
        earlier = f"{metric} {best[metric]:.4g} at step {best['step']}"
        yield f"a rung judges the report that reaches it, and not the best one before it: {earlier}"


def _outlook(trial: TrialHistory, history: History, folder: Path) -> Iterator[str]:
    if trial.status in FAILURES:
        yield (
            "to see it fail under a debugger: "
            f"{command('debug', '--run', folder, '--trial', trial.number)}"
        )
    if trial.status == OUT_OF_MEMORY:
        yield (
            "smaller train.batch_size, num_units or sequence lengths need less memory; it is not "
            "run again by itself"
        )
    if trial.status == LOST:
        yield f"its worker was lost {trial.losses + 1} times, more than search.retries allows"
    if trial.decisions and trial.decisions[-1]["action"] == "pause" and trial.status == "stopped":
        yield WAITED
    elif trial.status == "stopped" and not any(
        event["action"] == "stop" for event in trial.decisions
    ):
        yield (
            f"the scheduler, {history.search.get('scheduler', {}).get('name')}, ended it and gave "
            "no numbers"
        )
    if trial.status == PLATEAUED:
        yield "as many reports as train.patience says were no better than its best one"
    yield from _to_the_end(trial, history, folder)
    if trial.status == "running" and not history.is_running:
        how = "killed" if history.is_killed else history.status
        yield f"the search ended before it ({how}); resume continues it"


def _to_the_end(trial: TrialHistory, history: History, folder: Path) -> Iterator[str]:
    """Says for a stopped trial how to train such trials to the end, where `replicate` can."""
    stopped = [each for each in history.of("stopped") if not _used_up_its_hours(each)]
    if history.is_running or history.search.get("scheduler", {}).get("name") == "pbt":
        return
    if trial.status == "stopped" and not _used_up_its_hours(trial):
        count = min(AUDITED, len(stopped))
        yield (
            f"to train stopped trials like this one to the end, {count} drawn at random: "
            f"{command('replicate', folder, '--audit', count)}"
        )


def _used_up_its_hours(trial: TrialHistory) -> bool:
    return (trial.message or "").startswith(TIME_IS_OVER)
