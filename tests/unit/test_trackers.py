"""What TensorBoard, MLflow and Weights & Biases hear of a search, and that none of them can disturb it."""

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s2s_search.errors import ConfigError
from s2s_search.results.results import load
from s2s_search.runs import trackers
from s2s_search.runs.log import read_events
from s2s_search.runs.recorder import NEEDED_TO_RESUME, Recorder
from s2s_search.runs.trackers import TRACKERS, Trackers, check_trackers
from s2s_search.spaces.load import load_space

Call = tuple[Any, ...]
SEARCH = {"event": "search", "name": "toy", "time": 1e9}


class Heard:
    """A tracker that records what it is told, and fails at one of the methods."""

    def __init__(self, calls: list[Call], fails: str = "") -> None:
        self.calls, self.fails = calls, fails

    def _take(self, *call: object) -> None:
        if call[0] == self.fails:
            raise RuntimeError("no room\nand more")
        self.calls.append(call)

    def begin(self, *values: object) -> None:
        self._take("begin", *values)

    def report(self, *values: object) -> None:
        self._take("report", *values)

    def end(self, *values: object) -> None:
        self._take("end", *values)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Call]]:
    def put(name: str, fails: str = "") -> list[Call]:
        calls: list[Call] = []
        monkeypatch.setitem(TRACKERS, name, lambda folder, space, began: Heard(calls, fails))
        return calls

    return put


def trial(k: int, **settings: object) -> dict[str, Any]:
    event = {"event": "trial", "time": 1.0, "trial": f"trial-{k:05d}", "config": {"train.seed": 7}}
    return event | {"settings": {key.replace("__", "."): value for key, value in settings.items()}}


def report(k: int, step: int, loss: float | None, status: str = "running") -> dict[str, Any]:
    event = {
        "event": "report",
        "time": 2.5,
        "trial": f"trial-{k:05d}",
        "step": step,
        "status": status,
    }
    return event | {"dev.loss": loss, "seconds": 3, "parameters": 100}


def start(k: int) -> dict[str, Any]:
    return {"event": "start", "time": 4.0, "trial": f"trial-{k:05d}"}


def status(k: int, how: str) -> dict[str, Any]:
    return {"event": "status", "time": 3.0, "trial": f"trial-{k:05d}", "status": how}


def test_trials_and_reports_are_told_in_order(
    tmp_path: Path, use: Callable[..., list[Call]]
) -> None:
    calls, other = use("mlflow"), use("wandb")
    told = Trackers(["mlflow", "wandb"], tmp_path, "toy")
    events = [
        {"event": "search", "time": 0.0},
        trial(0, a__b=None, model="X", bridge_spec={"class": "Z"}),
        trial(1),
    ]
    events += [
        report(0, 10, 2.0),
        report(1, 10, None),
        report(0, 20, 1e6, "diverged"),
        status(0, "diverged"),
    ]
    for event in events:
        told.hear(event)
    told.close()
    assert calls == [
        ("begin", "trial-00000", {"model": "X", "bridge_spec": '{"class": "Z"}', "train.seed": 7}),
        ("begin", "trial-00001", {"train.seed": 7}),
        ("report", "trial-00000", 10, {"dev.loss": 2.0, "seconds": 3.0}, 2.5),
        ("report", "trial-00001", 10, {"seconds": 3.0}, 2.5),
        ("end", "trial-00000", "diverged"),
        ("end", "trial-00001", "running"),
    ]
    assert other == calls
    assert told.problems == []


def test_a_resumed_search_tells_of_what_goes_on(
    tmp_path: Path, use: Callable[..., list[Call]]
) -> None:
    calls = use("mlflow")
    told = Trackers(["mlflow"], tmp_path, "toy")
    told.recall(
        [trial(0, model="X"), report(0, 10, 2.0), trial(1, model="Y"), status(1, "finished")]
    )
    restart = {"event": "restart", "time": 4.0, "trial": "trial-00000", "cause": "resume"}
    told.hear(
        restart | {"trial": "trial-00001"}
    )  # it has no worker yet, and the search ends before
    for event in (restart, start(0), start(0), report(0, 20, 1.0)):
        told.hear(event)
    told.close()
    assert [call[:3] for call in calls] == [
        ("begin", "trial-00000", {"model": "X", "train.seed": 7}),
        ("report", "trial-00000", 20),
        ("end", "trial-00000", "running"),
    ]


def test_a_trial_that_ran_at_a_kill_is_told_its_end_though_it_never_runs_again(
    tmp_path: Path, use: Callable[..., list[Call]]
) -> None:
    """0 had ended, 1 is closed by the resumed search, 2 goes on, and the search ends before 3 gets a worker."""
    calls = use("mlflow")
    told = Trackers(["mlflow"], tmp_path, "toy")
    told.recall([SEARCH, *map(trial, range(4)), status(0, "finished"), report(1, 10, 2.0)])
    for event in (status(1, "stopped"), start(2), report(2, 20, 1.0), status(2, "finished")):
        told.hear(event)
    told.close()
    told.close()
    heard = [
        (call[0], call[1][-1], *call[2:3]) if call[0] == "end" else (call[0], call[1][-1])
        for call in calls
    ]
    assert heard == [
        *[("begin", "1"), ("end", "1", "stopped")],
        *[("begin", "2"), ("report", "2"), ("end", "2", "finished")],
        *[("begin", "3"), ("end", "3", "running")],
    ]


def test_after_an_end_in_order_no_trial_is_told_its_end_again(
    tmp_path: Path, use: Callable[..., list[Call]]
) -> None:
    calls = use("mlflow")
    told = Trackers(["mlflow"], tmp_path, "toy")
    ended = {"event": "status", "time": 5.0, "status": "interrupted"}
    told.recall(
        [SEARCH, trial(0), trial(1), ended, {"event": "resume", "time": 6.0, "trials": 2}, start(1)]
    )
    told.close()
    assert [call[:2] for call in calls] == [("begin", "trial-00001"), ("end", "trial-00001")]


def test_a_trial_that_is_paused_runs_on_for_the_trackers(
    tmp_path: Path, use: Callable[..., list[Call]]
) -> None:
    calls = use("mlflow")
    told = Trackers(["mlflow"], tmp_path, "toy")
    pause = {"event": "pause", "time": 3.0, "trial": "trial-00000"}
    for event in (
        trial(0),
        report(0, 10, 2.0),
        pause,
        start(0),
        report(0, 20, 1.0),
        status(0, "stopped"),
    ):
        told.hear(event)
    told.close()
    assert [call[0] for call in calls] == ["begin", "report", "report", "end"]


@pytest.mark.parametrize("method", ["begin", "report", "end"])
def test_a_tracker_that_fails_is_off_and_the_others_hear_on(
    tmp_path: Path, use: Callable[..., list[Call]], method: str
) -> None:
    failing, calls = use("mlflow", method), use("wandb")
    told = Trackers(["mlflow", "wandb"], tmp_path, "toy")
    for k in (0, 1):
        for event in (trial(k), report(k, 10, 1.0), status(k, "finished")):
            told.hear(event)
    told.close()
    assert told.problems == ["--log mlflow: off from here on: RuntimeError: no room"]
    assert len(calls) == 6
    assert all(call[1] == "trial-00000" for call in failing)


def test_a_tracker_that_hangs_does_not_hold_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    monkeypatch.setitem(TRACKERS, "mlflow", lambda folder, space, began: free.wait(60))
    monkeypatch.setattr(trackers, "SECONDS_TO_END", 0.1)
    told = Trackers(["mlflow"], tmp_path, "toy")
    told.hear(trial(0))
    told.close()
    assert told.problems == ["--log mlflow: has not taken all within 0.1 seconds"]
    free.set()


def test_nothing_is_made_before_the_first_trial(tmp_path: Path) -> None:
    told = Trackers(list(TRACKERS), tmp_path, "toy")
    told.hear({"event": "search", "time": 0.0})
    told.close()
    assert list(tmp_path.iterdir()) == []


def test_unknown_and_missing_tools_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mlflow" else find(name)
    )
    check_trackers(["tensorboard"])
    with pytest.raises(ConfigError) as caught:
        check_trackers(["tensorbord", "mlflow", "wandb"])
    assert caught.value.problems == (
        "--log: unknown tracker 'tensorbord'; did you mean 'tensorboard'?",
        "--log mlflow: is not installed; pip install 's2s-search[log]'",
    )


ODD_NAMES = [
    "a?b",
    "a#b",
    "a%b",
    "a%20b",
    "a%3Fb",
    "a b",
    "a:b",
    "a;b",
    "a@b",
    "a&b=c",
    "a'b",
    'a"b',
    "a\\b",
    "[a]",
    "é漢",
]


@pytest.mark.parametrize("name", [*ODD_NAMES, "?mode=ro", "x" * 255])
def test_a_database_is_where_its_path_says(tmp_path: Path, name: str) -> None:
    from sqlalchemy import create_engine

    path = tmp_path / name / "mlflow.db"
    path.parent.mkdir()
    with create_engine(trackers.sqlite_url(path)).connect():
        assert path.exists()


def test_searches_that_begin_at_one_moment_have_names_of_their_own() -> None:
    marked = [trackers.search_id("toy", SEARCH | {"mark": mark}) for mark in ("a1", "b2")]
    assert marked == ["toy-20010909-014640.000000-a1", "toy-20010909-014640.000000-b2"]
    assert trackers.search_id("toy", SEARCH) == "toy-20010909-014640.000000"  # an older log
    assert (
        trackers.search_id("toy", SEARCH | {"mark": "../x"}) == "toy-20010909-014640.000000"
    )  # another's


# --- the real libraries ---


def scalars(folder: Path, name: str, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / name))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def sessions(folder: Path, name: str) -> dict[str, Any]:
    """What the HParams tab of TensorBoard reads: session_start_info, session_end_info."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(folder / "tensorboard" / name))
    events.Reload()
    contents = events.PluginTagToContent("hparams")
    return {
        tag.rpartition("/")[2]: HParamsPluginData.FromString(content)
        for tag, content in contents.items()
    }


def mlflow_runs(folder: Path) -> dict[str, Any]:
    """Runs by name, each with the history of dev.loss as `steps`."""
    from mlflow import MlflowClient

    client = MlflowClient(trackers.sqlite_url(folder / "mlflow.db"))
    experiment = client.get_experiment_by_name(folder.name)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    for run in runs.values():
        history = client.get_metric_history(run.info.run_id, "dev.loss")
        run.steps = sorted((metric.step, metric.value) for metric in history)
    return runs


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: wandb's protocol buffers in a log of LevelDB's format.

    After seven bytes come blocks of 32 KiB, the seven counted; a block has pieces with checksum (4 bytes), length (2),
    type (1: whole, 2: first, 3: middle, 4: last).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if place + 7 + length > len(data):
            return
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(record)
            record = b""


def ended_records(path: Path) -> list[Any]:
    """The records of a run that was told its end, which wandb's own process may still be writing."""
    due = time.monotonic() + 60
    while True:
        records = list(wandb_records(path))
        if time.monotonic() > due or any(
            record.WhichOneof("record_type") == "exit" for record in records
        ):
            return records
        time.sleep(0.1)


def wandb_runs(folder: Path) -> dict[str, Any]:
    """By trial: config, steps of dev.loss, theirs, by which metric each is drawn, exit codes, over all folders."""
    import json

    found: dict[str, Any] = {}
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        name = "trial-" + path.stem.rpartition("-")[2]
        run = found.setdefault(
            name, {"config": {}, "steps": [], "theirs": [], "metrics": {}, "exits": []}
        )
        for record in ended_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                given = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                run["config"] |= {
                    key: value for key, value in given.items() if key != "_wandb"
                }  # its own
            elif kind == "history":
                row = {
                    ".".join(item.nested_key) or item.key: item.value_json
                    for item in record.history.item
                }
                run["steps"].append((json.loads(row["step"]), json.loads(row["dev.loss"])))
                run["theirs"].append(json.loads(row["_step"]))
            elif kind == "metric":
                run["metrics"][record.metric.glob_name or record.metric.name] = (
                    record.metric.step_metric
                )
            elif kind == "exit":
                run["exits"].append(record.exit.exit_code)
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
def test_the_libraries_read_back_what_a_search_told_also_when_it_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "SECONDS_TO_END", 200)
    folder = tmp_path / "run"
    folder.mkdir()
    first = [
        SEARCH,
        trial(0, model="X", optimizer__learning_rate=0.5),
        trial(1, model="Y", encoder__type=""),
    ]
    first += [report(0, 10, 2.0), report(1, 10, 4.0), status(1, "failed")]
    before = Trackers(list(TRACKERS), folder, "toy")
    for event in first:
        before.hear(event)
    before.close()
    after = Trackers(list(TRACKERS), folder, "toy")
    after.recall(first)
    for event in [start(0), report(0, 20, 1.0), status(0, "finished")]:
        after.hear(event)
    after.close()
    assert before.problems == after.problems == []

    steps = {"trial-00000": [(10, 2.0), (20, 1.0)], "trial-00001": [(10, 4.0)]}
    assert {name: scalars(folder, name, "dev.loss") for name in steps} == steps
    runs, theirs = mlflow_runs(folder), wandb_runs(folder)
    assert {name: run.steps for name, run in runs.items()} == steps
    assert {name: run["steps"] for name, run in theirs.items()} == steps

    info = sessions(folder, "trial-00000")["session_start_info"].session_start_info
    assert info.hparams["optimizer.learning_rate"].number_value == 0.5
    assert info.hparams["model"].string_value == "X"
    assert runs["trial-00000"].data.params == {
        "model": "X",
        "optimizer.learning_rate": "0.5",
        "train.seed": "7",
    }
    assert theirs["trial-00000"]["config"] == {
        "model": "X",
        "optimizer.learning_rate": 0.5,
        "train.seed": 7,
    }
    assert (runs["trial-00000"].info.status, runs["trial-00000"].data.tags["status"]) == (
        "FINISHED",
        "finished",
    )
    assert (runs["trial-00001"].info.status, runs["trial-00001"].data.tags["status"]) == (
        "FAILED",
        "failed",
    )
    assert theirs["trial-00001"]["exits"] == [1]
    ends = {
        name: sessions(folder, name)["session_end_info"].session_end_info.status for name in steps
    }
    assert ends == {"trial-00000": 1, "trial-00001": 2}  # success, failure


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the libraries' own
def test_at_a_server_searches_of_one_name_have_runs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is told of the steps of the first, and the first goes on: MLflow has two runs, W&B two ids."""
    from mlflow import MlflowClient

    monkeypatch.setattr(trackers, "SECONDS_TO_END", 200)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'server.db'}")
    searches = [
        (tmp_path / k / "attention", SEARCH | {"time": 1e9 + seconds})
        for k, seconds in (("a", 0), ("b", 0.5))
    ]
    for folder, search in searches:
        folder.mkdir(parents=True)
        told = Trackers(["mlflow", "wandb"], folder, "toy")
        for event in (search, trial(0), report(0, 10, 2.0)):
            told.hear(event)
        told.close()
        assert told.problems == []
    folder, search = searches[0]
    told = Trackers(["mlflow", "wandb"], folder, "toy")
    told.recall([search, trial(0), report(0, 10, 2.0)])
    for event in (start(0), report(0, 20, 1.0)):
        told.hear(event)
    told.close()
    assert told.problems == []
    client = MlflowClient()
    experiment = client.get_experiment_by_name("attention")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(len(client.get_metric_history(run.info.run_id, "dev.loss")) for run in runs) == [
        1,
        2,
    ]
    first, second = (
        {path.stem for path in folder.glob("wandb/offline-run-*/*.wandb")} for folder, _ in searches
    )
    assert (len(first), len(second), len(first & second)) == (1, 1, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "folder, name",
    [
        ("run ?#%20:;'\"\\", "a/\\#?%:;,'b\t c"),
        ("é" * 127, "漢字 " * 80),
        ("r" * 255, "n" * 255),
        ("run", " a "),
    ],
)
def test_the_libraries_take_any_name_and_write_in_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, name: str
) -> None:
    monkeypatch.setattr(trackers, "SECONDS_TO_END", 200)
    monkeypatch.chdir(tmp_path)
    place = tmp_path / folder
    place.mkdir()
    told = Trackers(list(TRACKERS), place, name)
    for event in (
        SEARCH | {"mark": "a1b2c3d4"},
        trial(0),
        report(0, 10, 2.0),
        status(0, "finished"),
    ):
        told.hear(event)
    told.close()
    assert told.problems == []
    assert list(tmp_path.iterdir()) == [place]
    assert scalars(place, "trial-00000", "dev.loss") == [(10, 2.0)]
    assert mlflow_runs(place)["trial-00000"].info.status == "FINISHED"
    assert wandb_runs(place)["trial-00000"]["steps"] == [(10, 2.0)]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_mlflow_hears_of_the_end_of_a_trial_that_ran_at_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "SECONDS_TO_END", 200)
    folder = tmp_path / "run"
    folder.mkdir()
    past = [SEARCH, trial(0), report(0, 10, 2.0), trial(1)]
    killed = Trackers(["mlflow"], folder, "toy")
    for event in past:
        killed.hear(event)
    killed._call("")  # its thread writes what it has heard, and no end
    killed._threads["mlflow"].join()
    assert {run.info.status for run in mlflow_runs(folder).values()} == {"RUNNING"}
    resumed = Trackers(["mlflow"], folder, "toy")
    resumed.recall(past)
    resumed.hear(status(0, "stopped"))
    resumed.close()
    ends = {
        name: (run.info.status, run.data.tags["status"])
        for name, run in mlflow_runs(folder).items()
    }
    assert ends == {"trial-00000": ("FINISHED", "stopped"), "trial-00001": ("KILLED", "running")}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_weights_and_biases_keeps_what_pbt_tells_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "SECONDS_TO_END", 200)
    told = Trackers(["wandb"], tmp_path, "toy")
    steps = [10, 20, 10, 20, 30]
    for event in (
        SEARCH,
        trial(0),
        *(report(0, step, 1.0) for step in steps),
        status(0, "finished"),
    ):
        told.hear(event)
    told.close()
    run = wandb_runs(tmp_path)["trial-00000"]
    assert [step for step, _ in run["steps"]] == steps
    assert run["theirs"] == [10, 20, 21, 22, 30]
    assert run["metrics"]["*"] == "step"


def test_a_failing_tracker_is_one_note_of_the_run(
    tmp_path: Path, use: Callable[..., list[Call]]
) -> None:
    use("mlflow", "report")
    text = "model: BasicSeq2Seq\ncorpus: {name: copy}\nparameters: {embedding.dim: [8, 16]}\n"
    (tmp_path / "space.yaml").write_text(text)
    space, folder = load_space(tmp_path / "space.yaml"), tmp_path / "run"
    folder.mkdir()
    recorder = Recorder(space, folder, trackers=Trackers(["mlflow"], folder, "toy"))
    recorder.begin(2, dict.fromkeys(NEEDED_TO_RESUME) | {"corpus": {}})
    for k, config in enumerate(space.trials(2)):
        recorder.begin_trial(f"trial-{k:05d}", config)
        recorder.report(f"trial-{k:05d}", {"step": 10, "status": "running", "dev.loss": 1.0})
        recorder.end_trial(f"trial-{k:05d}", "finished")
    recorder.end("finished")
    recorder.close()
    notes = [event["message"] for event in read_events(folder)[0] if event["event"] == "note"]
    assert notes == ["--log mlflow: off from here on: RuntimeError: no room"]
    assert load(folder).status == "finished"
    assert len(load(folder).trials) == 2
