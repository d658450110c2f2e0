"""The tables of a run folder, from logs written by hand."""

import io
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from s2s_search.cli.command_line import main
from s2s_search.display.tables import print_ranking
from s2s_search.errors import ConfigError
from s2s_search.metrics import COLUMNS
from s2s_search.results.many import load_many
from s2s_search.results.results import load
from s2s_search.runs import tables
from s2s_search.runs.log import EventLog
from s2s_search.runs.tables import write_tables
from s2s_search.statuses import ENDS

SEARCHED = {
    "model": "string",
    "encoder.type": "string",
    "attention.dim": "Int64",
    "optimizer.learning_rate": "Float64",
    "bridge_spec": "string",
}


def append_event(folder: Path, event: dict[str, object]) -> None:
    with EventLog(folder) as log:
        log.append(event)


class Run:
    """A run folder, filled event by event."""

    def __init__(self, folder: Path, metric: str = "dev.loss", goal: str = "minimize") -> None:
        self.folder = folder
        search = {
            "event": "search",
            "name": "toy",
            "metric": metric,
            "goal": goal,
            "searched": SEARCHED,
        }
        append_event(folder, search | {"trials": 4})

    def trial(self, k: int, **settings: object) -> None:
        settings = {key.replace("__", "."): value for key, value in settings.items()}
        event = {"event": "trial", "trial": f"trial-{k:05d}", "settings": settings}
        append_event(self.folder, event | {"config": {"train.seed": k, **settings}})

    def report(self, k: int, step: int, loss: float, **metrics: object) -> None:
        numbers = {
            "step": step,
            "seconds": step / 10,
            "status": "running",
            "dev.loss": loss,
            "parameters": 100 + k,
        }
        append_event(
            self.folder, {"event": "report", "trial": f"trial-{k:05d}", **numbers, **metrics}
        )

    def end(self, k: int | None, status: str, message: str | None = None) -> None:
        trial = {} if k is None else {"trial": f"trial-{k:05d}", "message": message}
        append_event(self.folder, {"event": "status", "status": status, **trial})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Four trials: finished, stopped, failed before its first report, running."""
    run = Run(tmp_path)
    run.trial(
        0,
        model="AttentionSeq2Seq",
        encoder__type="A",
        attention__dim=64,
        optimizer__learning_rate=1e-3,
    )
    run.trial(
        1,
        model="BasicSeq2Seq",
        encoder__type="B",
        optimizer__learning_rate=1,
        bridge_spec={"class": "X"},
    )
    run.report(0, 10, 2.0)
    run.report(1, 10, 3.0)
    run.end(1, "stopped")
    run.trial(2, model="BasicSeq2Seq", encoder__type="B")
    run.end(2, "failed", "ValueError: no")
    run.report(0, 20, 1.0)
    run.report(0, 30, 1.5)
    run.end(0, "finished")
    run.trial(3, model="AttentionSeq2Seq", encoder__type="A", attention__dim=32)
    run.report(3, 10, 1.25)
    return run


def test_a_row_a_trial(run: Run) -> None:
    trials = load(run.folder).trials.set_index("trial")
    assert list(trials.status) == ["finished", "stopped", "failed", "running"]
    first = trials.loc["trial-00000"]
    assert (first["step"], first["seconds"], first["parameters"], first["seed"]) == (
        30,
        3.0,
        100,
        0,
    )
    assert (first["best.step"], first["best.dev.loss"], first["last.dev.loss"]) == (20, 1.0, 1.5)
    assert trials["message"].dropna().to_dict() == {"trial-00002": "ValueError: no"}


def test_a_trial_that_failed_before_its_first_report_has_a_row_without_numbers(run: Run) -> None:
    failed = load(run.folder).trials.set_index("trial").loc["trial-00002"]
    assert (
        failed[["step", "seconds", "best.step", "best.dev.loss", "last.dev.loss", "parameters"]]
        .isna()
        .all()
    )
    assert failed["encoder.type"] == "B"


def test_a_column_for_each_searched_hyperparameter_with_na_where_inactive(run: Run) -> None:
    trials = load(run.folder).trials
    assert list(trials.columns[-len(SEARCHED) :]) == list(SEARCHED)
    assert trials["attention.dim"].isna().tolist() == [False, True, True, False]
    assert trials["bridge_spec"][1] == '{"class": "X"}'


def test_dtypes_do_not_depend_on_what_the_rows_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    full, empty = load(run.folder), load(Run(tmp_path / "empty").folder)
    assert len(empty.trials) == len(empty.reports) == 0
    assert full.trials.dtypes.to_dict() == empty.trials.dtypes.to_dict()
    assert full.reports.dtypes.to_dict() == empty.reports.dtypes.to_dict()
    assert {key: str(full.trials[key].dtype) for key in SEARCHED} == SEARCHED
    assert str(full.trials["last.dev.bleu"].dtype) == "Float64"


def test_a_row_a_report_in_the_order_of_time(run: Run) -> None:
    reports = load(run.folder).reports
    assert list(reports.columns) == [*tables.REPORT, *COLUMNS]
    assert reports[reports.trial == "trial-00000"]["dev.loss"].tolist() == [2.0, 1.0, 1.5]
    assert reports["elapsed"].is_monotonic_increasing


def test_stored_tables_equal_those_from_the_log(run: Run) -> None:
    from_log = load(run.folder)
    write_tables(run.folder)
    (run.folder / "events.jsonl").write_bytes(
        _without_all_but_the_first_line(run.folder / "events.jsonl")
    )
    stored = load(run.folder)
    pd.testing.assert_frame_equal(stored.trials, from_log.trials)
    pd.testing.assert_frame_equal(stored.reports, from_log.reports)
    assert (stored.status, stored.metric, stored.searched) == (
        "killed",
        "dev.loss",
        tuple(SEARCHED),
    )


def test_a_worker_second_is_counted_once(tmp_path: Path) -> None:
    """Two workers, three trials with known times: the first step is at 1 s, and the end at 21 s."""
    log, began = tmp_path / "events.jsonl", 1000.0

    def add(at: float, kind: str, k: int | None = None, **rest: object) -> None:
        trial = {} if k is None else {"trial": f"trial-{k:05d}"}
        with log.open("a") as file:
            file.write(json.dumps({"event": kind, "time": began + at, **trial, **rest}) + "\n")

    def report(
        at: float, k: int, seconds: float, evaluation: float, snapshot: float, waiting: float
    ) -> None:
        numbers = {
            "seconds": seconds,
            "evaluation_seconds": evaluation,
            "snapshot_seconds": snapshot,
        }
        times = numbers | {"start_seconds": 1.0, "waiting_seconds": waiting}
        add(at, "report", k, step=at, status="running", **{"dev.loss": 1.0}, **times)

    add(0, "search", name="toy", metric="dev.loss", goal="minimize", searched={})
    for k in (0, 1):
        add(0, "trial", k, settings={}, config={})
    report(
        5, 0, seconds=3.5, evaluation=1.0, snapshot=0.5, waiting=0
    )  # its first step is the first of all
    report(8, 1, seconds=5, evaluation=1.0, snapshot=1.0, waiting=0)  # starts 1 s later
    report(10, 0, seconds=7.5, evaluation=2.0, snapshot=1.0, waiting=0.5)
    add(10, "status", 0, status="finished")
    add(12, "trial", 2, settings={}, config={})  # the worker is idle for 2 s
    report(18, 2, seconds=5, evaluation=0, snapshot=0, waiting=0)
    add(18, "status", 2, status="finished")
    report(21, 1, seconds=17, evaluation=3.0, snapshot=2.0, waiting=1.0)
    add(21, "status", 1, status="finished")
    cost = {"reports": 5, "seconds": 21.5, "processor_seconds": 2.0}
    add(21.5, "status", status="finished", driver=cost)
    parts = {
        "steps": 24.5,
        "evaluation": 5,
        "snapshots": 3,
        "waiting": 1.5,
        "starting": 2.0,
        "between": 1.0,
        "tail": 3,
    }
    for _ in range(2):  # from the log, then from the tables on disk
        assert load(tmp_path).worker_seconds() == pytest.approx(parts)
        assert load(tmp_path).driver == cost
        write_tables(tmp_path)


def timetable(folder: Path, events: list[tuple[float, str, int | None, dict[str, object]]]) -> None:
    """Writes a log of events at seconds of a search, as (at, event, trial, more keys)."""
    log = [
        {
            "event": "search",
            "time": 1000.0,
            "name": "toy",
            "metric": "dev.loss",
            "goal": "minimize",
            "searched": {},
        }
    ]
    for at, kind, k, more in events:
        trial = {} if k is None else {"trial": f"trial-{k:05d}"}
        log.append({"event": kind, "time": 1000.0 + at} | trial | more)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in log))


BEGUN: dict[str, object] = {"settings": {}, "config": {}}
FINISHED: dict[str, object] = {"status": "finished"}


def updated(seconds: float) -> dict[str, object]:
    return {
        "step": int(seconds),
        "status": "running",
        "dev.loss": 1.0,
        "seconds": seconds,
        "start_seconds": 0.0,
    }


def test_a_trial_that_is_paused_occupies_no_worker(tmp_path: Path) -> None:
    """Two trials share a worker in turns of 10 s, from 0 to 40; no second is without a trial."""
    events = [
        (0, "trial", 0, BEGUN),
        (10, "report", 0, updated(10)),
        (10, "pause", 0, {}),
        (10, "trial", 1, BEGUN),
    ]
    events += [(20, "report", 1, updated(10)), (20, "pause", 1, {}), (20, "start", 0, {})]
    events += [(30, "report", 0, updated(20)), (30, "status", 0, FINISHED), (30, "start", 1, {})]
    events += [
        (40, "report", 1, updated(20)),
        (40, "status", 1, FINISHED),
        (41, "status", None, FINISHED),
    ]
    timetable(tmp_path, events)
    found = load(tmp_path)
    nothing = dict.fromkeys(
        ("evaluation", "snapshots", "waiting", "starting", "between", "tail"), 0.0
    )
    assert (found.workers, found.worker_seconds()) == (
        1,
        pytest.approx({"steps": 40.0} | nothing, abs=1e-6),
    )


def test_a_tail_begins_where_the_last_paused_trial_goes_on(tmp_path: Path) -> None:
    """Two workers, 0 to 30 s: trial 0 is paused from 10 to 20, and trial 1 ends at 12.

    From 20 on no trial is left to start.
    """
    events = [
        (0, "trial", 0, BEGUN),
        (0, "trial", 1, BEGUN),
        (10, "report", 0, updated(10)),
        (10, "pause", 0, {}),
    ]
    events += [(12, "report", 1, updated(12)), (12, "status", 1, FINISHED), (20, "start", 0, {})]
    events += [
        (30, "report", 0, updated(20)),
        (30, "status", 0, FINISHED),
        (31, "status", None, FINISHED),
    ]
    timetable(tmp_path, events)
    parts = load(tmp_path).worker_seconds()
    assert (parts["steps"], parts["between"], parts["tail"]) == pytest.approx((32, 18, 10))


def test_a_trial_that_was_retried_leaves_no_negative_tail(tmp_path: Path) -> None:
    """One worker: trial 0 fails at 5 s, and trial 1 ends at 10 s.

    A day later trial 0 runs again, from 10 to 20 s without the downtime.
    """
    failed, day = {"status": "failed"}, 86_400
    events = [
        (0, "trial", 0, BEGUN),
        (5, "report", 0, updated(5)),
        (5, "status", 0, failed),
        (5, "trial", 1, BEGUN),
    ]
    events += [
        (10, "report", 1, updated(5)),
        (10, "status", 1, FINISHED),
        (10, "status", None, FINISHED),
    ]
    events += [
        (10 + day, "resume", None, {"trials": 2}),
        (10 + day, "restart", 0, {"cause": "run again"}),
    ]
    events += [(10 + day, "start", 0, {})]
    events += [(20 + day, "report", 0, updated(15)), (20 + day, "status", 0, FINISHED)]
    timetable(tmp_path, [*events, (20 + day, "status", None, FINISHED)])
    found = load(tmp_path)
    parts = found.worker_seconds()
    assert (parts["steps"], parts["between"], parts["tail"]) == pytest.approx((20, 0, 0), abs=1e-6)
    assert sum(parts.values()) == pytest.approx(found.workers * 20)


def test_a_log_without_times_has_tables_too(run: Run) -> None:
    found = load(run.folder)
    assert found.trials[["start_seconds", "waiting_seconds"]].isna().all(axis=None)
    assert found.driver == {}
    assert found.worker_seconds()["steps"] == pytest.approx(5.0)  # the newest reports' seconds


def _without_all_but_the_first_line(log: Path) -> bytes:
    """Of the same length, so that only the stored tables can say what the rest was."""
    first, rest = log.read_bytes().split(b"\n", 1)
    return first + b"\n" + b"#" * len(rest)


def test_tables_older_than_the_log_are_not_believed(run: Run) -> None:
    write_tables(run.folder)
    run.report(3, 20, 0.5)
    run.end(None, "interrupted")
    found = load(run.folder)
    assert found.best(1)["best.dev.loss"][0] == 0.5
    assert found.status == "interrupted"


@pytest.mark.parametrize("name", ["trials.parquet", "reports.parquet"])
@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense", None])
def test_a_damaged_table_is_made_again_from_the_log(
    run: Run, name: str, content: bytes | None
) -> None:
    write_tables(run.folder)
    (run.folder / name).unlink() if content is None else (run.folder / name).write_bytes(content)
    assert len(load(run.folder).trials) == 4


def test_the_csv_reads_as_the_table(run: Run) -> None:
    trials = write_tables(run.folder).trials
    read = pd.read_csv(run.folder / "trials.csv", dtype=trials.dtypes.astype(str).to_dict())
    pd.testing.assert_frame_equal(read, trials)


# Labels that pandas, R and others take for a missing value, some that need quotes in CSV, and one
# in quotation marks.
LABELS = [
    "None",
    "NA",
    "nan",
    "",
    "null",
    "N/A",
    "<NA>",
    "NaN",
    "#N/A",
    "n/a",
    "NULL",
    '"NA"',
    "a,b",
    '"',
    " NA",
    "é",
]


def test_any_reader_of_the_csv_tells_a_label_from_a_missing_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path)
    for k, label in enumerate(LABELS):
        run.trial(k, bridge_spec=label)
    run.trial(len(LABELS), bridge_spec=None)
    run.trial(len(LABELS) + 1)
    trials = write_tables(run.folder).trials
    assert trials["bridge_spec"].tolist() == [*LABELS, pd.NA, pd.NA]
    pd.testing.assert_frame_equal(load(run.folder).trials, trials)  # by Parquet
    assert main(["results", str(tmp_path), "--csv"]) == 0
    texts = [(run.folder / "trials.csv").read_text(), capsys.readouterr().out]
    for text in texts:
        read = pd.read_csv(io.StringIO(text)).sort_values("trial")[
            "bridge_spec"
        ]  # with its defaults
        assert read.isna().tolist() == [False] * len(LABELS) + [True, True]
        assert read.nunique() == len(LABELS)
        back = [json.loads(label) if label[0] == '"' else label for label in read.dropna()]
        assert back == LABELS
        assert read.iloc[:4].tolist() == ['"None"', '"NA"', '"nan"', '""']
        assert read.iloc[12] == "a,b"
    assert main(["results", str(tmp_path), "--json"]) == 0
    rows = sorted(
        map(json.loads, capsys.readouterr().out.splitlines()), key=lambda row: str(row["trial"])
    )
    assert [row["bridge_spec"] for row in rows] == [*LABELS, None, None]


def test_what_pandas_takes_for_a_missing_value_is_known() -> None:
    from pandas._libs.parsers import (
        STR_NA_VALUES,
    )  # documented with read_csv, but with no public name

    assert {text.casefold() for text in STR_NA_VALUES} == tables.MISSING


def test_no_temporary_file_stays(run: Run) -> None:
    write_tables(run.folder)
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"events.jsonl", "trials.csv", "trials.parquet", "reports.parquet"}
    with pytest.raises(ZeroDivisionError):
        tables.replace(run.folder / "trials.csv", lambda path: [path.write_text("half"), 1 / 0])
    assert {path.name for path in run.folder.iterdir()} == names
    assert "half" not in (run.folder / "trials.csv").read_text()


def test_best_ranks_by_the_metric_with_trials_without_one_last(run: Run) -> None:
    found = load(run.folder)
    assert found.best(None).trial.str[-1:].tolist() == ["0", "3", "1", "2"]
    assert found.best(2)["best.dev.loss"].tolist() == [1.0, 1.25]


def test_best_of_a_metric_to_maximize(tmp_path: Path) -> None:
    run = Run(tmp_path, "dev.bleu", "maximize")
    for k, bleu in enumerate([10.0, 30.0, 20.0]):
        run.trial(k)
        run.report(k, 1, 1.0, **{"dev.bleu": bleu})
        run.report(k, 2, 1.0, **{"dev.bleu": 5.0})
    found = load(tmp_path)
    assert found.best()["best.dev.bleu"].tolist() == [30.0, 20.0, 10.0]
    assert found.best()["best.step"].tolist() == [1, 1, 1]
    assert found.best(sort="dev.loss")["trial"].str[-1:].tolist() == ["0", "1", "2"]
    assert [found.minimizes(name) for name in ("dev.bleu", "best.dev.bleu", "last.dev.bleu")] == [
        False
    ] * 3


def test_best_sorts_by_any_column_towards_its_better_side(run: Run) -> None:
    found = load(run.folder)
    assert found.best(None, "seconds")["trial"].str[-1:].tolist() == ["1", "3", "0", "2"]
    assert found.best(None, "encoder.type")["encoder.type"].tolist() == ["A", "A", "B", "B"]
    with pytest.raises(ConfigError, match=r"encoder\.typ"):
        found.best(sort="encoder.typ")


def test_a_column_that_sorts_the_ranking_is_printed_once(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    print_ranking(load(run.folder), None, "optimizer.learning_rate")
    assert capsys.readouterr().out.count("learning_rate") == 1


def test_the_ranking_begins_with_what_is_read_first(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = load(run.folder)
    print_ranking(found, None)
    heading = next(line for line in capsys.readouterr().out.splitlines() if " trial " in line)
    # The last parts of the dotted headings stand in the same line.
    searched = [key.split(".")[-1] for key in found.searched]
    first = ["trial", "loss", "status", "step", *searched]
    assert heading.split()[: len(first)] == first


def test_equal_values_rank_the_earlier_report_first(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.trial(0)
    run.report(0, 10, 1.0)
    run.report(0, 20, 1.0)
    assert load(tmp_path).trials["best.step"][0] == 10


def test_curves_have_a_column_a_trial_and_a_row_a_step(run: Run) -> None:
    curves = load(run.folder).curves()
    assert curves.columns.tolist() == [f"trial-{k:05d}" for k in range(4)]
    assert curves.index.tolist() == [10, 20, 30]
    assert curves.index.name == "step"
    assert curves["trial-00000"].tolist() == [2.0, 1.0, 1.5]
    assert curves["trial-00001"].dropna().to_dict() == {10: 3.0}
    assert curves["trial-00002"].isna().all()
    assert {str(dtype) for dtype in curves.dtypes} == {"Float64"}
    with pytest.raises(ConfigError, match=r"dev\.los'.*dev\.loss"):
        load(run.folder).curves("dev.los")


def test_curves_of_any_metric_and_of_no_report(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert load(tmp_path).curves().empty
    run.trial(0)
    assert load(tmp_path).curves().shape == (0, 1)
    run.report(0, 10, 1.0, **{"dev.bleu": 7.0})
    assert load(tmp_path).curves("dev.bleu")["trial-00000"].tolist() == [7.0]


def test_a_curve_has_no_divergence_and_of_a_step_made_again_the_later_value(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for k in (0, 1):
        run.trial(k)
        run.report(k, 10, 3.0)
        run.report(k, 20, 2.0)
    other = {
        "event": "exploit",
        "trial": "trial-00000",
        "source": "trial-00001",
        "settings": {},
        "config": {},
    }
    append_event(tmp_path, other)
    run.report(0, 20, 1.0)
    run.report(1, 30, 1e6, status="diverged")
    curves = load(tmp_path).curves()
    assert curves["trial-00000"].tolist() == [3.0, 1.0]
    assert curves["trial-00001"].tolist() == [3.0, 2.0]


def test_pivot_has_the_best_or_mean_of_two_hyperparameters_values(tmp_path: Path) -> None:
    run = Run(tmp_path)
    losses = {("A", 32): [3.0, 1.0], ("A", 64): [2.0], ("B", 32): [5.0], ("B", None): [4.0]}
    cells = [(encoder, dim, loss) for (encoder, dim), values in losses.items() for loss in values]
    for k, (encoder, dim, loss) in enumerate(cells):
        run.trial(k, encoder__type=encoder, **({} if dim is None else {"attention__dim": dim}))
        run.report(k, 10, loss, **{"dev.bleu": loss})
    run.trial(9, encoder__type="C", attention__dim=32)  # no report
    found = load(tmp_path)

    def table(**options: str) -> dict[object, list[object]]:
        pivot = found.pivot("attention.dim", "encoder.type", **options).astype(object)
        return {
            None if pd.isna(dim) else dim: row.where(row.notna(), None).tolist()
            for dim, row in pivot.iterrows()
        }

    assert found.pivot("attention.dim", "encoder.type").columns.tolist() == ["A", "B"]
    assert table() == {32: [1.0, 5.0], 64: [2.0, None], None: [None, 4.0]}
    assert table(aggregate="mean") == {32: [2.0, 5.0], 64: [2.0, None], None: [None, 4.0]}
    assert table(aggregate="trials") == {32: [2, 1], 64: [1, None], None: [None, 1]}
    assert table(metric="dev.bleu")[32] == [3.0, 5.0]
    assert set(found.pivot("encoder.type", "attention.dim").dtypes.astype(str)) == {"Float64"}


@pytest.mark.parametrize(
    "asked",
    [
        {"rows": "attention.dim", "columns": "encoder.typ"},
        {"rows": "attention.dim", "columns": "encoder.type", "metric": "dev.los"},
        {"rows": "attention.dim", "columns": "encoder.type", "metric": "model"},
        {"rows": "attention.dim", "columns": "encoder.type", "aggregate": "bests"},
        {"rows": "attention.dim", "columns": "attention.dim"},
    ],
)
def test_a_pivot_of_what_there_is_not_is_refused(run: Run, asked: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        load(run.folder).pivot(**asked)


def two_runs(folder: Path) -> list[Path]:
    """Two runs of one trial each, in folders of the same name."""
    folders = [folder / "one" / "run", folder / "two" / "run"]
    for k, place in enumerate(folders):
        place.mkdir(parents=True)
        run = Run(place)
        for trial in (0, 1):
            run.trial(trial, model="BasicSeq2Seq", encoder__type="AB"[trial])
            run.report(trial, 10, 2.0 + trial - k)
        run.report(1, 20, 9.0, **{"dev.chrf": 1.0} if k else {})
        run.end(None, ("finished", "interrupted")[k])
    return folders


def test_several_runs_are_one_table_with_a_column_of_their_names(tmp_path: Path) -> None:
    folders = two_runs(tmp_path)
    runs = load_many(folders)
    assert runs.trials.columns[:3].tolist() == ["run", "trial", "status"]
    assert runs.reports.columns[:2].tolist() == ["run", "trial"]
    assert runs.trials["run"].tolist() == ["one/run", "one/run", "two/run", "two/run"]
    assert (len(runs.reports), runs.status, runs.metric) == (6, "finished, interrupted", "dev.loss")
    single = load(folders[1])
    second = runs.trials[runs.trials["run"] == "two/run"].drop(columns="run").reset_index(drop=True)
    pd.testing.assert_frame_equal(second[single.trials.columns], single.trials)
    assert runs.trials["best.dev.chrf"].isna().all()
    assert runs.trials["last.dev.chrf"].dropna().tolist() == [1.0]


def test_methods_take_the_trials_of_all_runs(tmp_path: Path) -> None:
    folders = two_runs(tmp_path)
    runs = load_many(map(str, folders))
    assert runs.best(2)[["run", "trial"]].to_numpy().tolist() == [
        ["two/run", "trial-00000"],
        ["one/run", "trial-00000"],
    ]
    table = runs.by("encoder.type")
    assert table["trials"].tolist() == [2, 2]
    assert table.loc["B", ["best", "mean", "run", "trial"]].tolist() == [
        2.0,
        2.5,
        "two/run",
        "trial-00001",
    ]
    assert runs.by("run")["best"].to_dict() == {"two/run": 1.0, "one/run": 2.0}
    assert runs.pivot("run", "encoder.type").to_numpy().tolist() == [[2.0, 3.0], [1.0, 2.0]]
    assert runs.pareto()["run"].tolist() == ["two/run"]
    curves = runs.curves()
    assert curves[("two/run", "trial-00001")].tolist() == [2.0, 9.0]
    assert curves.shape == (2, 4)
    each = [load(folder).worker_seconds() for folder in folders]
    assert runs.worker_seconds()["steps"] == pytest.approx(sum(parts["steps"] for parts in each))


def test_a_trial_that_was_cut_short_is_not_fast(tmp_path: Path) -> None:
    """It took a second of the four that its neighbours took, as it made a quarter of the steps.

    A trial that plateaued ended by itself after a second, and is fast.
    """
    begin = {"event": "search", "name": "x", "metric": "dev.loss", "goal": "minimize"}
    objectives = [["dev.loss", "minimize"], ["seconds", "minimize"]]
    with EventLog(tmp_path) as log:
        log.append(begin | {"searched": {}, "trials": 5, "objectives": objectives})
        for k, (status, loss, seconds) in enumerate(
            [
                ("finished", 0.1, 4.0),
                ("finished", 0.2, 3.0),
                ("stopped", 0.5, 1.0),
                ("diverged", 0.05, 0.5),
                ("failed", 0.6, 0.1),
                ("plateaued", 0.25, 1.0),
            ]
        ):
            trial = {"trial": f"trial-{k:05d}"}
            log.append({"event": "trial", **trial, "settings": {}, "config": {"train.seed": k}})
            log.append(
                {"event": "report", **trial, "step": 10, "dev.loss": loss, "seconds": seconds}
            )
            log.append({"event": "status", **trial, "status": status})
    front = load(tmp_path).pareto()
    names = ["trial-00001", "trial-00003", "trial-00005"]
    assert front["trial"].tolist() == names  # 0.05 after 4 s, at most
    assert front["seconds"].tolist() == [3.0, 0.5, 1.0]  # as they were measured


def test_runs_that_do_not_compare_are_refused(tmp_path: Path) -> None:
    folders = two_runs(tmp_path)
    with pytest.raises(ConfigError, match="no run folder"):
        load_many([])
    with pytest.raises(ConfigError, match="2 times"):
        load_many([folders[0], folders[0].parent / "." / "run"])
    (tmp_path / "bleu").mkdir()
    Run(tmp_path / "bleu", "dev.bleu", "maximize")
    with pytest.raises(ConfigError, match=r"dev\.loss \(minimize\).*dev\.bleu \(maximize\)"):
        load_many([folders[0], tmp_path / "bleu"])


def test_by_compares_the_values_of_a_hyperparameter(run: Run) -> None:
    table = load(run.folder).by("encoder.type")
    assert table.index.tolist() == ["A", "B"]
    assert table["trials"].tolist() == [2, 2]
    assert table["scored"].tolist() == [2, 1]
    assert table.loc["A", ["best", "median", "mean", "trial"]].tolist() == [
        1.0,
        1.125,
        1.125,
        "trial-00000",
    ]
    assert pd.isna(table.loc["B", "std"])


def test_by_keeps_the_trials_where_the_hyperparameter_is_inactive(run: Run) -> None:
    table = load(run.folder).by("attention.dim")
    assert table.index.fillna(0).tolist() == [64, 32, 0]
    assert table["trials"].tolist() == [1, 1, 2]
    assert table["scored"].tolist() == [1, 1, 1]


def test_by_shows_values_whose_trials_all_failed(run: Run) -> None:
    run.trial(4, encoder__type="C")
    run.end(4, "failed", "no")
    row = load(run.folder).by("encoder.type").loc["C"]
    assert (row["trials"], row["scored"]) == (1, 0)
    assert row[["best", "mean", "trial"]].isna().all()


def test_what_a_divergence_is_given_is_never_best(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for k in (0, 1):
        run.trial(k)
    run.report(0, 10, 3.0)
    run.report(0, 20, 1e6, status="diverged")
    run.report(1, 10, 1e6, status="diverged")
    trials = load(tmp_path).trials
    assert trials["best.dev.loss"].fillna(-1).tolist() == [3.0, -1]
    assert trials["last.dev.loss"].tolist() == [1e6, 1e6]


def test_numbers_that_are_not_finite_become_na(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.trial(0)
    run.report(0, 10, float("nan"), **{"train.loss": float("inf")})
    found = load(tmp_path)
    assert found.reports[["dev.loss", "train.loss"]].isna().all(axis=None)
    assert pd.isna(found.trials["best.dev.loss"][0])


def test_metrics_that_are_not_known_get_columns_of_their_own(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.trial(0)
    run.report(0, 10, 1.0, node="a", **{"dev.chrf": 3})
    found = load(tmp_path)
    assert found.trials["best.dev.chrf"][0] == 3
    assert found.reports["node"].tolist() == ["a"]


def test_a_line_that_is_being_written_is_left_out(run: Run) -> None:
    with open(run.folder / "events.jsonl", "ab") as log:
        log.write(b'{"event": "report", "trial": "trial-00003", "st')
    assert len(load(run.folder).reports) == 5


def test_a_damaged_line_is_named(run: Run) -> None:
    log = run.folder / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    whole = load(run.folder).trials
    log.write_bytes(b"".join([*lines[:3], b"nonsense\n", *lines[3:]]))
    found = load(run.folder)
    assert len(found.damaged) == 1
    assert re.fullmatch(r".*events\.jsonl: line 4: .*nonsense.*", found.damaged[0])
    pd.testing.assert_frame_equal(found.trials, whole)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "\n",
        "{}\n",
        "[1]\n[2]\n",
        '{"event": "trial"}\n',
        '"search"\n',
        '{"event": "search"}\n',
        '{"event": []}\n',
    ],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "events.jsonl").write_text(content)
    with pytest.raises(ConfigError):
        load(tmp_path)


@pytest.mark.parametrize("name", ["missing", "file", "file/below"])
def test_a_path_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="no folder"):
        load(tmp_path / name)


def test_reading_needs_neither_ray_nor_torch(run: Run) -> None:
    program = f"""
        import sys
        sys.modules["ray"] = sys.modules["torch"] = None
        from s2s_search import results
        print(len(results.load({str(run.folder)!r}).trials))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "4"


def test_the_log_is_json_lines_with_times(run: Run) -> None:
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events][:4] == ["search", "trial", "trial", "report"]
    assert all(event["time"] > 1.6e9 for event in events)


def test_the_documentation_names_every_column_with_its_dtype() -> None:
    rows: dict[str, str] = {}
    for line in (Path(__file__).parents[2] / "docs" / "results.md").read_text().splitlines():
        if line.startswith("| `"):
            name, dtype, *_ = [cell.strip(" `") for cell in line.split("|")[1:]]
            rows.setdefault(name, dtype)
    metrics = dict.fromkeys(COLUMNS, "Float64")
    assert {name: rows.get(name) for name in tables.REPORT | metrics} == tables.REPORT | metrics
    assert {*ENDS, "running"} <= set(rows)
    trials = {
        "best.step": "Int64",
        "seed": "Int64",
        "message": "string",
        "best.*": "Float64",
        "last.*": "Float64",
    }
    assert {name: rows.get(name) for name in trials} == trials
