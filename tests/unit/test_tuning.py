"""What a search that goes on knows of its past, and what a refused one leaves; without Ray."""

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from s2s_search.corpus.load import load_corpus
from s2s_search.display.standing import Standing
from s2s_search.errors import ConfigError
from s2s_search.methods.make import make_sampler
from s2s_search.methods.samplers import TPE
from s2s_search.results import results
from s2s_search.runs import recorder
from s2s_search.runs import storage as storages
from s2s_search.runs.checkpoints import Checkpoints
from s2s_search.runs.explain import explain
from s2s_search.runs.log import EventLog, log_size, read_events
from s2s_search.runs.recorder import Recorder
from s2s_search.runs.state import History, load_history
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space
from s2s_search.tuning import cluster, running, start
from s2s_search.tuning.best_kept import BestKept
from s2s_search.tuning.callback import Listener, Over
from s2s_search.tuning.search import Search
from s2s_search.tuning.start import replicate_search, resume_search, run_search
from s2s_search.tuning.trials import Trials

SPACE = """
model: BasicSeq2Seq
search: {method: grid}
scheduler: {name: asha, max_steps: 40, grace_steps: 10, reduction_factor: 2}
parameters: {train.seed: [0, 1, 2, 3, 4, 5]}
"""


def test_numbers_that_never_began_are_new_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    space = load_space(tmp_path / "space.yaml")
    search = {
        "event": "search",
        "name": "x",
        "metric": "dev.loss",
        "goal": "minimize",
        "searched": {},
        "trials": 6,
    }
    with EventLog(tmp_path) as log:
        log.append(search)
        for number, status, loss in [
            (0, "finished", 1.0),
            (3, "running", 2.0),
            (4, "running", 3.0),
        ]:
            name = f"trial-{number:05d}"
            log.append(
                {"event": "trial", "trial": name, "settings": {}, "config": {"train.seed": number}}
            )
            log.append(
                {"event": "report", "trial": name, "step": 10, "status": status, "dev.loss": loss}
            )
        log.append({"event": "status", "trial": "trial-00000", "status": "finished"})
    corpus: Any = None
    run = Search(
        space, tmp_path, make_sampler(space), corpus, None, None, {}, None, None, None, None
    )
    plan = run.recall(History(read_events(tmp_path)[0]), again=())
    assert run.new == [1, 2, 5]
    assert plan.new == 3
    # 3 was stopped at the rung of step 10, worse than the half of those before, and so was 4: no one had written it.
    assert plan.unrecorded_ends == {"trial-00003": "stopped", "trial-00004": "stopped"}
    assert plan.resumed == {}
    assert plan.ended == 1
    stop = {"action": "stop", "step": 10, "rung": 10}
    assert plan.decisions["trial-00003"].items() >= stop.items()
    assert plan.decisions["trial-00004"].items() >= stop.items()


SEARCH = {
    "event": "search",
    "name": "x",
    "metric": "dev.loss",
    "goal": "minimize",
    "searched": {},
    "trials": 6,
}
COPY = "corpus: {name: copy, train: 9, dev: 3, vocabulary: 5, min_length: 2, max_length: 3}\n"


def a_run(folder: Path, *events: dict[str, Any], text: str = SPACE, **search: Any) -> Space:
    """A run folder whose log has these events, of a search on the corpus COPY."""
    folder.mkdir(exist_ok=True)
    (folder / "space.yaml").write_text(text + COPY)
    space = load_space(folder / "space.yaml")
    corpus = load_corpus(space.corpus)
    about = {
        "corpus": {"name": "copy", "fingerprint": corpus.fingerprint},
        "space": str(folder / "space.yaml"),
    }
    with EventLog(folder) as log:
        for event in (SEARCH | about | search, *events):
            log.append(event)
    return space


def trial(number: int, status: str | None = None) -> list[dict[str, Any]]:
    config = {"model": "BasicSeq2Seq", "train.seed": number}
    begun = {"event": "trial", "trial": f"trial-{number:05d}", "settings": {}, "config": config}
    return [begun] + [{"event": "status", "trial": begun["trial"], "status": status}] * (
        status is not None
    )


def test_a_new_budget_holds_until_the_next(tmp_path: Path, started: list[Search]) -> None:
    a_run(
        tmp_path, *trial(0), text=SPACE.replace("method: grid", "method: grid, hours: 1"), hours=1
    )
    for given in ({"hours": 5.0}, {}, {"gpu_hours": 2.0}, {}, {"hours": 7.0}):
        resume_search(tmp_path, **given)
    budgets = [(search.space.search.hours, search.space.search.gpu_hours) for search in started]
    assert budgets == [(5, None), (5, None), (5, 2), (5, 2), (7, 2)]


def test_failed_trials_keep_their_weights_when_a_search_goes_on(
    tmp_path: Path, started: list[Search]
) -> None:
    report = {
        "event": "report",
        "trial": "trial-00001",
        "step": 40,
        "status": "finished",
        "dev.loss": 1.0,
    }
    a_run(
        tmp_path, *trial(0, "failed"), *trial(1), report, *trial(2, "finished"), *trial(3, "lost")
    )
    for name in ("trial-00000", "trial-00001"):
        Checkpoints(tmp_path / name).save({"step": 40}, is_best=True)
    resume_search(tmp_path)
    (search,) = started
    assert search.ended_before == ["trial-00001", "trial-00002"]
    search.recorder = SimpleNamespace(best={"trial-00001": report}.get)  # type: ignore[assignment]
    BestKept(search)
    assert sorted(path.name for path in (tmp_path / "trial-00000").iterdir()) == [
        "best.pt",
        "last.pt",
    ]
    assert [path.name for path in (tmp_path / "trial-00001").iterdir()] == ["best.pt"]


@pytest.mark.parametrize(
    "method, scheduler, limit, running, paused, ended, waiting, enough",
    [
        ("random", "asha", None, 99, 0, 0, 0, False),  # Ray decides by the resources
        ("random", "asha", 2, 1, 0, 9, 0, False),
        ("random", "asha", 2, 2, 0, 0, 0, True),
        ("random", "asha", 2, 1, 0, 0, 1, True),
        ("random", "hyperband", 2, 2, 9, 0, 31, False),  # brackets are filled ahead
        ("random", "hyperband", 2, 2, 9, 0, 32, True),
        ("tpe", "asha", None, 2, 0, 9, 0, False),  # three fit into the cluster
        ("tpe", "asha", None, 3, 0, 0, 0, True),
        ("tpe", "asha", 2, 2, 0, 0, 0, True),
        ("tpe", "asha", 9, 3, 0, 0, 0, True),
        ("tpe", "hyperband", None, 3, 9, 0, 0, False),  # paused trials do not count
        ("tpe", "hyperband", None, 3, 9, 0, 1, True),
        ("tpe", "hyperband", 2, 2, 9, 0, 1, True),
    ],
)
def test_how_many_trials_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, scheduler: str,
    limit: int | None, running: int, paused: int, ended: int, waiting: int, enough: bool,
) -> None:  # fmt: skip
    text = SPACE.replace("method: grid", f"method: {method}, trials: 6")
    text = text.replace("asha", scheduler).replace("[0, 1, 2, 3, 4, 5]", "{min: 0, max: 99}")
    if scheduler == "hyperband":
        text = text.replace("grace_steps: 10, ", "")
    (tmp_path / "space.yaml").write_text(text)
    space = load_space(tmp_path / "space.yaml")
    space = replace(space, search=replace(space.search, max_at_once=limit))
    monkeypatch.setattr(cluster, "slots", lambda resources: 3)
    search: Any = SimpleNamespace(
        space=space, sampler=make_sampler(space), scheduler=None, resumed=[], new=[],
        recorder=SimpleNamespace(has_begun=lambda name: not name.startswith("waiting")),
    )  # fmt: skip
    trials = Trials(search)
    # With a limit, a trial of hyperband that waits for its first worker is paused to Tune.
    first = "PAUSED" if scheduler == "hyperband" and limit else "PENDING"
    counts = {"RUNNING": running, "PAUSED": paused, "TERMINATED": ended, first + " ": waiting}
    for status, count in counts.items():
        for k in range(count):
            name = f"waiting {k}" if status.endswith(" ") else f"{status} {k}"
            alive: Any = SimpleNamespace(trial_id=name, status=status.strip())
            trials._alive[name] = alive
    assert trials._are_enough() == enough


def test_a_warm_start_is_known_after_a_kill(tmp_path: Path, started: list[Search]) -> None:
    tpe = SPACE.replace("method: grid", "method: tpe, trials: 6").replace(
        "[0, 1, 2, 3, 4, 5]", "{min: 0, max: 99}"
    )
    earlier = [
        [{"model": "BasicSeq2Seq", "train.seed": k}, [float(k)], "finished"] for k in range(3)
    ]
    a_run(tmp_path, *trial(0), text=tpe, warm_start=earlier)
    resume_search(tmp_path)
    sampler = started[0].sampler
    assert isinstance(sampler, TPE)
    assert [known.values for known in sampler._earlier] == [(0.0,), (1.0,), (2.0,)]


def test_a_decision_that_a_kill_lost_is_written_when_the_search_goes_on(
    tmp_path: Path, started: list[Search]
) -> None:
    """The second trial was stopped at a rung, and killed before that was recorded; explain tells the reason."""
    scores = [(number, {"step": 10, "dev.loss": 1.0 + number}) for number in range(2)]
    reports = [{"event": "report", "trial": f"trial-{n:05d}", **score} for n, score in scores]
    kept = {"event": "decision", "trial": "trial-00000", "action": "continue", "rung": 10}
    kept |= {"step": 10, "value": 1.0, "cutoff": None, "rank": 1, "of": 1}
    a_run(tmp_path, *trial(0), reports[0], kept, *trial(1), reports[1])
    resume_search(tmp_path)
    resume_search(tmp_path)
    found = load_history(tmp_path)
    decisions = [[each["action"] for each in found.trial(n).decisions] for n in range(2)]
    assert decisions == [["continue"], ["stop"]]
    lines = "\n".join(explain(found, 1))
    assert "trial-00001: stopped after step 10" in lines
    assert (
        "rung 10, at step 10: dev.loss 2 against the cutoff 1, rank 2 of 2 so far: stopped" in lines
    )


@pytest.mark.parametrize(
    "scheduler, first, step",
    [
        ("{name: asha, variant: promote, max_steps: 40, grace_steps: 10}", 0, 10),
        ("{name: hyperband, max_steps: 40, reduction_factor: 2}", 6, 20),  # 6 in the first bracket
    ],
)
def test_trials_that_wait_still_wait_when_a_search_goes_on(
    tmp_path: Path, started: list[Search], scheduler: str, first: int, step: int
) -> None:
    """Of three trials one waits, one was killed before its pause was recorded, and one trained."""
    text = re.sub("scheduler: .*", f"scheduler: {scheduler}", SPACE)
    text = text.replace("[0, 1, 2, 3, 4, 5]", str(list(range(12))))
    queued = [{"event": "queued", "trial": f"trial-{number:05d}"} for number in range(12)]
    value = {"event": "report", "step": step, "status": "running", "dev.loss": 1.0}
    reports = [value | {"trial": f"trial-{first + k:05d}"} for k in range(2)]
    events = [*trial(first), reports[0], {"event": "pause", "trial": f"trial-{first:05d}"}]
    events += [*trial(first + 1), reports[1], *trial(first + 2)]
    a_run(tmp_path, *queued, *events, text=text, trials=12)
    for _ in range(2):
        said = list[str]()
        resume_search(tmp_path, say=said.append)
        assert said[1:3] == [
            f"resume 1: trial-{first + 2:05d} at step 0",
            f"2 wait: trial-{first:05d} at step {step}, trial-{first + 1:05d} at step {step}",
        ]
        about, *others = read_events(tmp_path)[0]
        standing = Standing(about)
        for event in others:
            standing.add(event)
        assert standing.counts().startswith("2 paused, 10 to start")
    restarts = [trial.restarts for trial in load_history(tmp_path).trials.values()]
    assert restarts == [0, 0, 2]


HOURS = SPACE.replace("method: grid", "method: grid, trial_hours: 2")


def test_a_kill_does_not_lose_that_the_hours_of_a_trial_were_over(
    tmp_path: Path, started: list[Search]
) -> None:
    score = {"step": 10, "dev.loss": 1.0, "seconds": 7201.0}
    a_run(tmp_path, *trial(0), {"event": "report", "trial": "trial-00000", **score}, text=HOURS)
    resume_search(tmp_path)
    found = load_history(tmp_path).trial(0)
    why = "trial_hours: 2 h are over"
    assert (found.status, found.message, found.reason) == ("stopped", why, why)
    assert results.load(tmp_path).trials["message"].tolist() == [why]
    assert started[0].new == [1, 2, 3, 4, 5]


def test_who_is_audited_was_judged_and_has_no_limit_of_its_time(
    tmp_path: Path, started: list[Search]
) -> None:
    over = {"event": "status", "trial": "trial-00001", "status": "stopped"}
    over |= {"message": "trial_hours: 2 h are over"}
    space = a_run(tmp_path / "run", *trial(0, "stopped"), *trial(1), over, text=HOURS)
    with pytest.raises(ConfigError, match="of 1 trials that were stopped, 1 have not been audited"):
        replicate_search(tmp_path / "run", top=1, seeds=1, audit=2)
    replicate_search(tmp_path / "run", top=1, seeds=1, audit=1, out=tmp_path / "audit")
    assert [config["train.seed"] for config in started[0].sampler.configs] == [0]  # type: ignore[attr-defined]
    assert space.search.trial_hours == 2
    assert started[0].space.search.trial_hours is None


@pytest.mark.parametrize("before", ["running", "interrupted", "out of budget"])
def test_a_search_that_was_killed_at_its_end_is_finished_by_resume(
    tmp_path: Path, started: list[Search], before: str
) -> None:
    end = [] if before == "running" else [{"event": "status", "status": before}]
    a_run(tmp_path, *(event for number in range(6) for event in trial(number, "finished")), *end)
    said: list[str] = []
    assert resume_search(tmp_path, say=said.append).status == "finished"
    assert said == ["nothing to do: all 6 trials have ended; --trials N adds more"]
    size = log_size(tmp_path)
    assert results.load(tmp_path).status == "finished"
    assert resume_search(tmp_path).status == "finished"
    assert (log_size(tmp_path), started) == (size, [])


def test_a_search_whose_budget_is_spent_needs_a_larger_one(
    tmp_path: Path, started: list[Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are as old as the search: one hour later it ended, and its one trial trained all the time."""
    monkeypatch.setattr(start.cluster, "ray_problems", lambda *_: [])  # there may be no GPU
    begun = [event | {"time": 1000.0} for event in trial(0)]
    start_event = {"event": "start", "trial": "trial-00000", "time": 1000.0}
    end = {"event": "status", "status": "out of budget", "time": 4600.0}
    text = SPACE.replace("method: grid", "method: grid, hours: 0.5, gpu_hours: 0.25")
    text += "resources: {gpu: 0.5}\n"
    a_run(tmp_path, *begun, start_event, end, text=text, time=1000.0)
    size, said = log_size(tmp_path), list[str]()
    assert resume_search(tmp_path, say=said.append).status == "out of budget"
    assert said == [
        "nothing to do: search.hours: 0.5 hours are over, 1 were used; --hours N gives more",
        "nothing to do: search.gpu_hours: 0.25 GPU hours are over, 0.5 were used; --gpu-hours N "
        "gives more",
    ]
    assert (log_size(tmp_path), started) == (size, [])
    resume_search(tmp_path, hours=2, gpu_hours=1)
    assert len(started) == 1


def test_a_search_that_is_refused_when_it_goes_on_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConfigError("no node is large enough")

    monkeypatch.setattr(start.cluster, "join_ray", refuse)
    a_run(tmp_path, *trial(0), {"event": "status", "status": "out of budget"})
    with pytest.raises(ConfigError, match="no node is large enough"):
        resume_search(tmp_path)
    assert results.load(tmp_path).status == "out of budget"
    with pytest.raises(ConfigError, match="no node is large enough"):
        run_search(load_space(tmp_path / "space.yaml"), out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_read_for_a_moment_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = a_run(tmp_path, *trial(0))

    def unreadable(folder: Path) -> None:
        raise ConfigError("cannot be read: Too many open files", str(folder / "events.jsonl"))

    monkeypatch.setattr(recorder, "write_tables", unreadable)
    with contextlib.closing(Recorder(space, tmp_path)) as kept:
        kept.write_tables()
        kept.note("last.pt is damaged", "trial-00000")
        kept.note("last.pt is damaged", "trial-00001")
        kept.note("last.pt is damaged", "trial-00001")
    notes = [event for event in read_events(tmp_path)[0] if event["event"] == "note"]
    assert "Too many open files; the search continues" in notes[0]["message"]
    assert [event.get("trial") for event in notes[1:]] == ["trial-00000", "trial-00001"]


def test_tables_cost_a_report_the_same_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report comes every two thirds of a second; a table of n rows takes 0.03 s and 40 µs a row."""
    clock, rows = (
        SimpleNamespace(now=0.0, reports=0),
        [0, 0, 0, 0],
    )  # written so far, by quarters of the reports
    space, reports = a_run(tmp_path, *trial(0)), 20_000

    def written(folder: Path) -> None:
        clock.now += 0.03 + 40e-6 * clock.reports
        rows[4 * clock.reports // reports] += clock.reports

    monkeypatch.setattr(recorder, "write_tables", written)
    with contextlib.closing(Recorder(space, tmp_path)) as kept:
        monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=lambda: clock.now))
        for clock.reports in range(reports):
            clock.now += 2 / 3
            kept.tick()
    assert rows[0] > 0
    assert max(rows) < 25 * reports / 4


@pytest.mark.parametrize(
    "storage, law", [("s3://[bucket", "is no URL"), ("https://user:x@host/", "must hold no")]
)
def test_a_storage_that_is_no_place_is_refused(tmp_path: Path, storage: str, law: str) -> None:
    space = a_run(tmp_path)
    with pytest.raises(ConfigError, match=law):
        run_search(space, out=tmp_path / "run", storage=storage)


SECRET = [
    "s3://AKIA:SECRET@bucket/x",
    "s3://SECRET@bucket/x",
    "hdfs://me:SECRET@host/x",
    "s3://bucket/x?secret_key=SECRET",
    "s3://bucket/x?region=a&token=SECRET",
    "s3://bucket/x?sessionToken=SECRET",
    "https://host/x?X-Amz-Signature=SECRET",
    "https://host/x?sv=1&sig=SECRET",
    "s3://bucket/x?tok%65n=SECRET",
    "s3://bucket/x?AWSAccessKeyId=SECRET",
    "s3://bucket/x?a=b;password=SECRET&x=y",
    "abfss://files@account.dfs.core.windows.net/x?account-key=SECRET",
    "s3://bucket/x#apikey=SECRET",
    "s3://bucket/x?PASSWD=SECRET",
]
PLAIN = [
    "s3://bucket/runs?endpoint_override=store.turkey.example:9000&scheme=https",
    "s3://keys-and-secrets/token?region=key",
    "s3://bucket/x?monkey=1&keyspace=2&passenger=3&signal=4&tokenizer=5",
    "gs://anonymous@bucket/x",
    "hdfs://me@host:8020/x",
    "abfss://files@account.dfs.core.windows.net/x",
    "/data/a?token=b@c",
]


@pytest.mark.parametrize("storage", SECRET + PLAIN)
def test_a_secret_in_a_url_of_storage_is_refused_and_not_said(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def file_system(place: str) -> Any:
        used.append(place)
        return SimpleNamespace(create_dir=lambda *_, **__: None), "x"

    monkeypatch.setattr(storages, "file_system", file_system)
    problems = storages.storage_problems(storage)
    assert [*map(bool, (problems, used))] == ([True, False] if storage in SECRET else [False, True])
    assert "SECRET" not in "".join(problems)
    assert all("must hold no password or key" in problem for problem in problems)


def test_a_storage_path_is_the_same_from_everywhere(
    tmp_path: Path, started: list[Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_search(a_run(tmp_path), out=tmp_path / "run", storage="weights")
    assert started[0].storage == str(tmp_path / "weights")


# --- a Ray that cannot be started, or finds no room ---


def test_a_ray_that_cannot_be_started_is_one_sentence_with_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise RuntimeError("Timed out waiting for file gcs_server_port\nand more")

    monkeypatch.setattr(start.cluster.ray, "init", init)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    space = a_run(tmp_path)
    with pytest.raises(ConfigError) as caught:
        run_search(space, out=tmp_path / "new")
    (problem,) = caught.value.problems
    said = (
        r"Ray cannot be started: Timed out waiting for file gcs_server_port; free on this machine: "
    )
    assert re.fullmatch(
        said + r"[\d,]+ MB in /dev/shm \(.*\), [\d,]+ MB in /tmp/ray \(.*\)", problem
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("full", [OutOfDiskError, ObjectStoreFullError])
def test_an_object_store_without_room_for_the_corpus_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: type[Exception]
) -> None:
    def put(*_: object) -> None:
        raise full("Local disk is full")

    monkeypatch.setattr(start.cluster, "join_ray", lambda *_: None)
    monkeypatch.setattr(running, "_tuner", put)
    space = a_run(tmp_path)
    with pytest.raises(
        ConfigError, match="Ray's object store has no room for the corpus; free on this machine: "
    ):
        run_search(space, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_that_is_too_long_for_sockets_is_replaced_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    given = {}
    for length in (20, 39, 40, 80):
        monkeypatch.setenv(name, long := "/" + "x" * (length - 1))
        with cluster.ray_environment(None):
            given[length] = os.environ.get("RAY_TMPDIR", long)
            folder = Path(
                given[length], "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
            )
            assert len(os.fsencode(folder)) <= 107
            assert Path(given[length]).is_dir() == (given[length] != long)
        assert os.environ[name] == long
        assert not Path(given[length]).exists()
    assert [given[length] == "/" + "x" * (length - 1) for length in given] == [
        True,
        True,
        False,
        False,
    ]
    with cluster.ray_environment("auto"):
        assert os.environ[name] == "/" + "x" * 79  # the cluster's Ray has its own


def test_without_a_short_folder_a_search_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 80)
    monkeypatch.setattr(cluster, "SHORT_FOLDER", "/nothing")
    space = a_run(tmp_path)
    with pytest.raises(
        ConfigError,
        match="/nothing cannot be written; set RAY_TMPDIR to a folder with a short path",
    ):
        run_search(space, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_without_a_name_searches_of_one_second_get_folders_of_their_own(
    tmp_path: Path, started: list[Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = replace(a_run(tmp_path), name="a/b")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start.time, "strftime", lambda _: "20260101-000000")
    folders = [run_search(space).folder for _ in range(3)]
    names = [f"a-b-20260101-000000{number}" for number in ("", "-2", "-3")]
    assert folders == [tmp_path / "runs" / name for name in names]


def test_replicates_have_seeds_that_no_earlier_replicate_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same seeds give the same numbers, which would count twice."""
    begin = {"event": "search", "name": "x", "metric": "dev.loss", "goal": "minimize"}
    begin |= {"searched": {}, "trials": 1}
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    (run / "space.yaml").write_text(SPACE)
    with EventLog(run) as log:
        trial = {"trial": "trial-00000"}
        config = {"model": "BasicSeq2Seq", "train.seed": 3}
        log.append(begin)
        log.append({"event": "trial", **trial, "settings": {}, "config": config})
        log.append({"event": "report", **trial, "step": 10, "dev.loss": 1.0})
        log.append({"event": "status", **trial, "status": "finished"})
        log.append({"event": "status", "status": "finished"})
    monkeypatch.setattr(start, "corpus_of", lambda *_: None)

    def fake_search(_: Space, *, out: Path, configs: Any, replicates_of: Path, **__: Any) -> Any:
        out.mkdir(parents=True)
        with EventLog(out) as log:
            log.append(begin | {"configs": configs, "replicates_of": str(replicates_of)})
        return [config["train.seed"] for config in configs]

    monkeypatch.setattr(start, "run_search", fake_search)
    found = []
    for out in ("runs/a", "elsewhere/b", "elsewhere/c", "runs/d", "runs/run-replicates-e"):
        found.append(replicate_search(run, top=1, seeds=2, out=tmp_path / out))
    assert found == [[4, 5], [6, 7], [8, 9], [6, 7], [8, 9]]  # d cannot know of elsewhere


@pytest.mark.parametrize(
    "hours, gpu_hours, left",
    [
        (None, None, float("inf")),
        (1.0, None, 3600 - 1000 - 100),  # of the wall clock: before this process, and in it
        (None, 0.5, (1800 - 500 - 200) / 2),  # two trials train, on a GPU each
        (0.4, 0.5, 340),
        (0.2, None, None),
        (None, 0.1, None),
    ],
)
def test_the_seconds_until_a_budget_is_spent(
    monkeypatch: pytest.MonkeyPatch, hours: float | None, gpu_hours: float | None, left: float
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 600.0)
    listener = Listener.__new__(Listener)
    budget = SimpleNamespace(hours=hours, gpu_hours=gpu_hours)
    space = SimpleNamespace(search=budget, resources=SimpleNamespace(gpu=1.0))
    listener.search = SimpleNamespace(space=space, spent=1000.0)  # type: ignore[assignment]
    listener._begun, listener._busy = 500.0, 500.0
    listener._started = {"trial-00000": 500.0, "trial-00001": 500.0}
    if left is None:
        with pytest.raises(Over, match="hours are over"):
            listener._check_budgets()
    else:
        listener._check_budgets()
        assert listener.seconds_left() == pytest.approx(left)
