"""What a log says of its trials, from logs written by hand."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from s2s_search.errors import ConfigError
from s2s_search.runs.explain import explain
from s2s_search.runs.folder import no_trial
from s2s_search.runs.log import EventLog
from s2s_search.runs.state import History, load_history

Said = dict[str, object]


def trial(k: int, at: float = 0, **settings: object) -> Said:
    return {
        "event": "trial",
        "trial": f"trial-{k:05d}",
        "settings": settings,
        "config": settings,
        "time": at,
    }


def report(k: int, step: int, loss: float | None, at: float = 0, **rest: object) -> Said:
    return {
        "event": "report",
        "trial": f"trial-{k:05d}",
        "step": step,
        "dev.loss": loss,
        "time": at,
        **rest,
    }


def end(k: int | None, status: str, at: float = 0, **rest: object) -> Said:
    return {
        "event": "status",
        "status": status,
        "time": at,
        **({} if k is None else {"trial": f"trial-{k:05d}"}),
        **rest,
    }


def restart(k: int, cause: str, at: float = 0, **rest: object) -> Said:
    return {"event": "restart", "trial": f"trial-{k:05d}", "cause": cause, "time": at, **rest}


def decision(
    k: int, action: str, value: float, cutoff: float | None, at: float = 0, **rest: object
) -> Said:
    numbers = {"action": action, "step": 9, "value": value, "cutoff": cutoff}
    return {"event": "decision", "trial": f"trial-{k:05d}", "time": at, **numbers, **rest}


def past(*events: Said, goal: str = "minimize", **search: object) -> History:
    named = {
        "event": "search",
        "name": "x",
        "metric": "dev.loss",
        "goal": goal,
        "searched": {},
        "time": 0,
        **search,
    }
    return History([named, *events])


def test_statuses_restarts_and_losses() -> None:
    history = past(
        *[trial(k) for k in range(4)],
        end(0, "finished"),
        restart(1, "lost"),
        restart(1, "lost"),
        end(1, "lost", message="its node vanished"),
        end(2, "failed", message="ValueError: 3"),
        restart(2, "run again"),
        report(2, 5, 1.0),
        end(None, "interrupted", message="Ctrl-C"),
    )
    assert {name: held.status for name, held in history.trials.items()} == {
        "trial-00000": "finished",
        "trial-00001": "lost",
        "trial-00002": "running",
        "trial-00003": "running",
    }
    assert [held.losses for held in history.trials.values()] == [0, 2, 0, 0]
    assert [held.message for held in history.trials.values()] == [
        None,
        "its node vanished",
        None,
        None,
    ]
    assert [held.number for held in history.of("finished", "lost")] == [0, 1]
    assert (history.status, history.message) == ("interrupted", "Ctrl-C")


@pytest.mark.parametrize("goal, best", [("minimize", 4), ("maximize", 2)])
def test_the_best_report_is_the_earliest_of_equals_and_never_of_a_divergence(
    goal: str, best: int
) -> None:
    losses = {2: 3.0, 4: 1.0, 6: 1.0, 8: 3.0, 10: None}
    reports = [report(0, step, loss) for step, loss in losses.items()]
    worst = 0.0 if goal == "minimize" else 9.0
    held = past(trial(0), *reports, report(0, 12, worst, status="diverged"), goal=goal).trials[
        "trial-00000"
    ]
    assert held.best is not None
    assert held.best["step"] == best
    assert (held.step, held.reports, held.reported_status) == (12, 6, "diverged")


def test_what_a_trial_repeats_counts_once() -> None:
    repeated = [
        report(0, 5, 2.0),
        report(0, 10, 1.0),
        restart(0, "lost"),
        report(0, 5, 0.5),
        report(0, 10, 0.5),
    ]
    held = past(trial(0), *repeated, report(0, 15, 3.0), trial(0, other=1)).trials["trial-00000"]
    assert (held.reports, held.step, held.config) == (3, 15, {})
    assert held.best is not None
    assert held.best["dev.loss"] == 1.0


def test_an_exploit_changes_the_configuration_and_begins_the_steps_anew() -> None:
    taken = {"event": "exploit", "trial": "trial-00000", "source": "trial-00001", "time": 3}
    settings = {"optimizer.learning_rate": 0.5}
    events = [
        trial(0),
        report(0, 30, 2.0),
        {**taken, "settings": settings, "config": settings},
        report(0, 20, 1.0),
    ]
    history = past(*events)
    held = history.trials["trial-00000"]
    assert (held.config, held.settings, held.step) == (settings, settings, 20)
    assert "copied the weights of trial-00001, with other settings" in list(explain(history, 0))


def test_seconds_count_while_a_driver_is_at_work() -> None:
    first = [
        trial(0, at=10),
        trial(1, at=10),
        end(0, "finished", at=30),
        end(None, "interrupted", at=40),
    ]
    again = [{"event": "resume", "trials": 2, "time": 1000}, restart(1, "resume", at=1000)]
    starts = {"event": "start", "trial": "trial-00001", "time": 1003}
    history = past(*first, *again, starts, end(1, "finished", at=1005))
    assert history.elapsed == 40 + 5
    assert history.busy == 2 * 20 + 10 + 2
    assert history.status == "running"


def test_a_paused_trial_takes_no_seconds_and_no_worker() -> None:
    pause = [
        {"event": event, "trial": "trial-00000", "time": at}
        for event, at in [("pause", 20), ("start", 50)]
    ]
    events = [
        trial(0, at=10),
        pause[0],
        trial(1, at=30),
        end(1, "stopped", at=40),
        pause[1],
        end(0, "finished", at=55),
    ]
    history = past(*events)
    assert history.busy == 10 + 10 + 5
    assert [name for name, *_ in history.spans] == ["trial-00000", "trial-00001", "trial-00000"]
    assert history.workers == 1


def test_trials_that_are_run_again_take_seconds_when_their_turn_comes() -> None:
    failed = [
        event for k in range(4) for event in (trial(k, at=10 * k), end(k, "failed", at=10 * k + 10))
    ]
    turns = [
        {"event": "resume", "trials": 4, "time": 100},
        *(restart(k, "run again", at=100) for k in range(4)),
    ]
    for k in range(4):
        turns += [
            {"event": "start", "trial": f"trial-{k:05d}", "time": 100 + 10 * k},
            end(k, "failed", at=110 + 10 * k),
        ]
    history = past(*failed, *turns)
    assert history.busy == 80
    assert history.workers == 1


def test_a_resumed_search_has_new_budgets_and_its_old_metric() -> None:
    again = {
        "event": "resume",
        "trials": 9,
        "hours": 2.0,
        "time": 5,
        "metric": "dev.bleu",
        "goal": "maximize",
    }
    history = past(trial(0), report(0, 5, 1.0), again, trials=3, hours=1.0)
    assert {key: history.search[key] for key in ("trials", "hours", "metric", "goal", "time")} == {
        "trials": 9,
        "hours": 2.0,
        "metric": "dev.loss",
        "goal": "minimize",
        "time": 0,
    }
    assert "best dev.loss 1 at step 5" in list(explain(history, 0))


def test_why_asha_stopped_a_trial() -> None:
    kept = decision(0, "continue", 2.5, None, at=1, rung=3.0, rank=1, of=1)
    stopped = decision(0, "stop", 2.0, 1.25, at=2, rung=9.0, rank=4, of=6)
    history = past(trial(0, cell="GRUCell"), report(0, 9, 2.0), stopped, kept, end(0, "stopped"))
    assert list(explain(history, 0)) == [
        "trial-00000: stopped after step 9",
        "  cell = GRUCell",
        "best dev.loss 2 at step 9",
        "rung 3, at step 9: dev.loss 2.5, the first of its kind, so it continued",
        "rung 9, at step 9: dev.loss 2 against the cutoff 1.25, rank 4 of 6 so far: "
        "stopped; dev.loss at or below 1.25 would have kept it",
    ]


def test_a_stopped_trial_names_the_command_that_trains_such_trials_to_the_end() -> None:
    """A search that runs is in use; pbt changes configurations; trial_hours judges no trial."""
    ended, over = (
        end(None, "finished", at=9),
        end(1, "stopped", message="trial_hours: 2 h are over"),
    )
    events = [trial(0), trial(1), end(0, "stopped"), over]
    assert list(explain(past(*events, ended), 0))[-1] == (
        "to train stopped trials like this one to the end, 1 drawn at random: "
        "python run_search.py replicate DIR --audit 1"
    )
    for history, k in (
        (past(*events), 0),
        (past(*events, ended), 1),
        (past(*events, ended, scheduler={"name": "pbt"}), 0),
    ):
        assert not any("--audit" in line for line in explain(history, k))


def test_why_a_trial_was_stopped_that_was_compared_with_none() -> None:
    why = "trial_hours: 2 h are over"
    stopped = decision(0, "stop", 2.0, None, reason=why)
    history = past(trial(0), report(0, 9, 2.0), stopped, end(0, "stopped", message=why))
    assert list(explain(history, 0)) == [
        "trial-00000: stopped after step 9",
        "best dev.loss 2 at step 9",
        "step 9: dev.loss 2: stopped; trial_hours: 2 h are over",
    ]


def test_why_the_median_rule_stopped_a_trial_that_should_be_large() -> None:
    stopped = decision(0, "stop", 20.0, 31.5, of=5)
    line = list(
        explain(past(trial(0), stopped, end(0, "stopped"), goal="maximize", metric="dev.bleu"), 0)
    )[1]
    assert line == (
        "step 9: dev.bleu 20 against the median of the others 31.5, 5 trials so far: "
        "stopped; dev.bleu at or above 31.5 would have kept it"
    )


@pytest.mark.parametrize(
    "events, line",
    [
        ([], "trial-00000: running, without a report"),
        (
            [end(None, "out of budget")],
            "the search ended before it (out of budget); resume continues it",
        ),
        ([restart(0, "lost", step=7, message="gone")], "resumed after step 7: lost (gone)"),
        ([restart(0, "resume", step=7)], "resumed after step 7: the search was resumed"),
        ([end(0, "failed", message="KeyError: 1")], "why: KeyError: 1"),
        (
            [end(0, "failed")],
            "to see it fail under a debugger: python run_search.py debug --run DIR --trial 0",
        ),
        (
            [restart(0, "lost"), end(0, "lost")],
            "its worker was lost 2 times, more than search.retries allows",
        ),
        ([end(0, "stopped")], "the scheduler, hyperband, ended it and gave no numbers"),
        ([{"event": "note", "trial": "trial-00000", "message": "no room", "time": 1}], "no room"),
    ],
)
def test_what_else_explain_says(events: list[Said], line: str) -> None:
    assert line in list(explain(past(trial(0), *events, scheduler={"name": "hyperband"}), 0))


def test_a_trial_that_never_began_is_named_with_those_that_did() -> None:
    with pytest.raises(
        ConfigError, match=r"there is no trial-00005; there are trial-00001, trial-00003$"
    ):
        list(explain(past(trial(3), trial(1)), 5))
    with pytest.raises(ConfigError, match=r"there is no trial-00000; no trial has begun$"):
        list(explain(past(), 0))


@pytest.mark.parametrize(
    "known, there",
    [
        ([3], "there is trial-00003"),
        ([3, 4], "there are trial-00003 to trial-00004"),
        (
            [9, 0, 1, 2, 5, 7, 8],
            "there are trial-00000 to trial-00002, trial-00005, trial-00007 to trial-00009",
        ),
        (range(0, 20, 2), ", ".join(f"trial-{k:05d}" for k in range(0, 12, 2)) + ", ..."),
        ([100_000], "there is trial-100000"),
    ],
)
def test_the_trials_that_there_are(known: Sequence[int], there: str) -> None:
    reported_status = no_trial(11, [f"trial-{k:05d}" for k in known])
    assert reported_status.startswith("there is no trial-00011; ")
    assert reported_status.endswith(there)


@pytest.mark.parametrize("goal, before, is_said", [("minimize", 1.5, True), ("minimize", 2.5, False),
                                                   ("maximize", 2.5, True), ("maximize", 1.5, False)])  # fmt: skip
def test_a_rung_judges_the_report_that_reaches_it(goal: str, before: float, is_said: bool) -> None:
    """Said where the trial had a better report before: its best and the value of the rung are then two numbers."""
    reports = [
        report(0, 3, before),
        report(0, 5, 9.0, status="diverged"),
        report(1, 3, 0.0),
        report(0, 9, 2.0),
    ]
    stopped = decision(
        0, "stop", 2.0, 1.75 if goal == "minimize" else 2.25, at=2, rung=9.0, rank=4, of=6
    )
    later = report(0, 12, 0.0 if goal == "minimize" else 9.0)
    lines = list(
        explain(past(trial(0), trial(1), *reports, stopped, later, end(0, "stopped"), goal=goal), 0)
    )
    law = "a rung judges the report that reaches it, and not the best one before it"
    assert [line for line in lines if "judges" in line] == [
        f"{law}: dev.loss {before:g} at step 3"
    ] * is_said
    went_on = list(
        explain(past(trial(0), *reports, {**stopped, "action": "continue"}, goal=goal), 0)
    )
    assert not [line for line in went_on if "judges" in line]


@pytest.mark.parametrize(
    "name", ["../../x", "trial-00001/..", "trial-1", "trial-000000001", "trial-١٢٣٤٥", "/x", ""]
)
def test_a_name_that_is_none_of_ours_is_left_out(tmp_path: Path, name: str) -> None:
    with EventLog(tmp_path) as log:
        log.append(
            {
                "event": "search",
                "name": "x",
                "metric": "dev.loss",
                "goal": "minimize",
                "searched": {},
            }
        )
        for given in (name, "trial-00000", "trial-123456"):
            log.append({"event": "trial", "trial": given, "settings": {}, "config": {}})
    assert list(load_history(tmp_path).trials) == ["trial-00000", "trial-123456"]


def test_an_empty_text_is_seen() -> None:
    history = past(trial(0, **{"optimizer.lr_decay_type": ""}))
    assert '  optimizer.lr_decay_type = ""' in list(explain(history, 0))


def test_a_median_of_too_few_and_the_step_of_a_restart() -> None:
    alone = decision(0, "continue", 2.0, None, of=2)
    lines = list(explain(past(trial(0), report(0, 9, 2.0), alone, restart(0, "lost", step=9)), 0))
    assert "step 9: dev.loss 2, too few to compare it with (2 so far), so it continued" in lines
    assert "resumed after step 9: lost" in lines
