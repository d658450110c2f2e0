"""The two tables of a run folder, trials and reports, made from its event log (docs/results.md).

While a search runs, its driver appends events to the log. No other file has to survive a kill:

    log events ──fold──> trials   one row per trial     (trials.csv, trials.parquet)
                 └─────> reports  one row per report    (reports.parquet)

The tables on disk hold the length of the log from which they were made. When the log still has that
length, they are read from disk. When it has not, they are made again from the log. A running search
can therefore be read at any time.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from s2s_search.errors import CONTROL
from s2s_search.metrics import COLUMNS
from s2s_search.runs.events import Event, Row, cleaned
from s2s_search.runs.folder import REPORTS, TRIALS, TRIALS_CSV, is_trial_name, replace
from s2s_search.runs.log import first_event, log_size, read_events
from s2s_search.runs.state import History, TrialHistory
from s2s_search.statuses import ENDS, RUNNING, SEARCH_ENDS

# Text that readers of CSV take for a missing value, in small letters: the defaults of pandas, and
# NA of R.
MISSING = {
    *(
        "",
        "#n/a",
        "#n/a n/a",
        "#na",
        "-1.#ind",
        "-1.#qnan",
        "-nan",
        "1.#ind",
        "1.#qnan",
        "<na>",
        "n/a",
        "na",
        "nan",
    ),
    *("none", "null"),
}

# The columns of a report besides its metrics, with their dtypes. Each kind of seconds is counted
# over the trial so far:
#   seconds              training, with evaluation
#   evaluation_seconds   evaluation
#   start_seconds        from the start of the trial to its first step
#   snapshot_seconds     writing snapshots
#   waiting_seconds      waiting until the search has taken earlier reports
# `elapsed` is the time of the whole search. `node` is the address of the node that ran the trial.
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
    "node": "string",
}
SECONDS_COLUMNS = [name for name in REPORT if name.endswith("seconds")]
LAYOUT = 7  # the version of the tables on disk; tables of another version are made again


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a search, with its search event and other facts about the whole search."""

    search: Event
    status: str  # the status by the log, where a killed search is still running
    trials: pd.DataFrame
    reports: pd.DataFrame
    workers: int  # the largest number of trials that ran at once
    # Worker seconds without a trial, from the last start or resumption of a trial to the end.
    tail: float
    # The costs of the driver: reports, seconds, processor_seconds. Empty until the end.
    driver: dict[str, float]
    damaged: tuple[str, ...]  # the lines of the log that are no events, with their places


def read_tables(folder: Path, size: int) -> Tables:
    """Returns the tables of the first `size` bytes of the log, from disk or from the log.

    Raises:
        ConfigError: the folder is no run folder.
    """
    trials, reports = (_stored(folder / name, size) for name in (TRIALS, REPORTS))
    if trials is None or reports is None or trials.attrs != reports.attrs:
        return _fold(folder, size)
    if not all(map(is_trial_name, trials["trial"])) or not set(trials["status"]) <= {
        RUNNING,
        *ENDS,
    }:
        return _fold(folder, size)
    kept = trials.attrs
    about = (
        kept["status"],
        trials,
        reports,
        kept["workers"],
        kept["tail"],
        kept["driver"],
        tuple(kept["damaged"]),
    )
    return Tables(first_event(folder), *about)


def write_tables(folder: Path) -> Tables:
    """Writes the three files of the tables from the log, and returns the tables.

    Each file is replaced as a whole or stays as it was.
    """
    size = log_size(folder)
    made = _fold(folder, size)
    tables = {REPORTS: made.reports, TRIALS: made.trials}
    stamp: dict[Any, Any] = {
        "log_bytes": size,
        "layout": LAYOUT,
        "status": made.status,
        "driver": made.driver,
    }
    stamp |= {"workers": made.workers, "tail": made.tail, "damaged": list(made.damaged)}
    stamp |= {"columns": {name: _dtypes(table) for name, table in tables.items()}}
    for name, table in tables.items():
        stamped = table.copy(deep=False)
        stamped.attrs = stamp
        replace(folder / name, functools.partial(stamped.to_parquet, write_page_checksum=True))
    replace(folder / TRIALS_CSV, lambda path: for_csv(made.trials).to_csv(path, index=False))
    return made


def for_csv(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table whose text no reader of CSV takes for a missing value.

    Text that looks like a missing value becomes a JSON string, in quotation marks. Text that begins
    with a quotation mark does so, too, so that a reader can undo this.
    """
    texts = list(map(str, table.select_dtypes("string")))
    return table.assign(**{name: table[name].map(_quoted, na_action="ignore") for name in texts})


def _quoted(text: str) -> str:
    if text.casefold() in MISSING or text.startswith('"'):
        return json.dumps(text, ensure_ascii=False)
    return text


def _stored(path: Path, log_bytes: int) -> pd.DataFrame | None:
    """Returns a table on disk that was made from `log_bytes` bytes of the log.

    Returns None when there is no table, when it is damaged, and when it was made from another part.
    """
    try:
        table = pd.read_parquet(path, page_checksum_verification=True)
        stamp = table.attrs
        fits = (stamp["log_bytes"], stamp["layout"]) == (log_bytes, LAYOUT)
        # Parquet has no checksum over the names and dtypes of columns.
        fits = fits and stamp["columns"][path.name] == _dtypes(table)
        fits = fits and stamp["status"] in (RUNNING, *SEARCH_ENDS) and _is_printable(table)
    except Exception:  # a damaged file may hold any bytes, and these may cause any error
        return None
    return table if fits else None


def _is_printable(table: pd.DataFrame) -> bool:
    """Returns whether all text of a table is printable, as `events.cleaned` leaves it.

    The check is needed because anyone may have written the file.
    """
    texts = [str(name) for name in table]
    for name in map(str, table.select_dtypes("string")):
        texts += table[name].dropna().unique().tolist()
    return bool(cleaned(table.attrs) == table.attrs) and all(
        CONTROL.search(text) is None for text in texts
    )


def _dtypes(table: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in table.dtypes.items()}


def _fold(folder: Path, size: int) -> Tables:
    events, damaged = read_events(folder, size)
    return tables_of(History(events), damaged)


def tables_of(history: History, damaged: Sequence[str]) -> Tables:
    """Returns the tables of a search; `damaged` names lines of its log that were left out."""
    search = history.events[0]
    reports = [{**event, "elapsed": elapsed} for event, elapsed in history.news]
    rows = [_trial_row(trial, search["searched"]) for trial in history.trials.values()]
    reports_table = _reports_table(reports, search["metric"])
    trials_table = _trials_table(rows, reports_table, search)
    return Tables(
        search,
        history.status,
        trials_table,
        reports_table,
        history.workers,
        history.tail,
        history.driver,
        tuple(damaged),
    )


def _trial_row(trial: TrialHistory, searched: Iterable[str]) -> Row:
    row: Row = {
        "trial": trial.name,
        "status": trial.status,
        "began": trial.began,
        "ended": trial.ended,
        "restarts": trial.restarts,
        "seed": trial.seed,
        "message": trial.message,
    }
    return row | {key: stored(trial.settings.get(key)) for key in searched}


def stored(value: object) -> object:
    """Returns a hyperparameter's value as the trials table has it.

    A cell or a bridge without a label becomes JSON text.
    """
    return json.dumps(value) if isinstance(value, dict | list) else value


def _reports_table(reports: Sequence[Event], metric: str) -> pd.DataFrame:
    table = pd.DataFrame(list(reports))
    dtypes = REPORT | dict.fromkeys((*COLUMNS, metric), "Float64")
    others = [str(name) for name in table if name not in dtypes and name not in ("event", "time")]
    return typed(table, dtypes | dict.fromkeys(others, "Float64"))


def _trials_table(rows: Iterable[Row], reports: pd.DataFrame, search: Event) -> pd.DataFrame:
    metric, metrics = search["metric"], [name for name in reports if name not in REPORT]
    last = reports.drop_duplicates("trial", keep="last").set_index("trial")
    # The stand-in values of a diverged report are never the best.
    diverged = reports["status"].fillna("").eq("diverged")
    measured = reports[~diverged & reports[metric].notna()]
    ranked = measured.sort_values(metric, ascending=search["goal"] == "minimize", kind="stable")
    best = ranked.drop_duplicates("trial").set_index("trial")
    searched: dict[str, str] = search["searched"]
    times = {"began": "Float64", "ended": "Float64"}
    settings = {"status": "string", **times, "restarts": "Int64", "seed": "Int64"}
    settings |= {"message": "string", **searched}
    table = typed(
        pd.DataFrame(list(rows), columns=["trial", *settings]), {"trial": "string", **settings}
    )
    table = table.set_index("trial").join(last[["step", *SECONDS_COLUMNS, "parameters"]])
    table = table.join(best[["step", *metrics]].add_prefix("best.")).join(
        last[metrics].add_prefix("last.")
    )
    results = [name for name in table if str(name).startswith(("best.", "last."))]
    order = [
        "status",
        "step",
        *SECONDS_COLUMNS,
        *times,
        *results,
        "parameters",
        "restarts",
        "seed",
        "message",
        *searched,
    ]
    return table.sort_index().reset_index()[["trial", *order]]


def typed(table: pd.DataFrame, dtypes: Mapping[str, str]) -> pd.DataFrame:
    """Returns the named columns in their order, with nullable dtypes.

    A column that is not in the table is added, with missing values. Where values do not fit the
    dtype of their column, the column becomes text.
    """
    return pd.DataFrame({name: _column(table, name, dtype) for name, dtype in dtypes.items()})


def _column(table: pd.DataFrame, name: str, dtype: str) -> pd.Series:
    values = table[name] if name in table else pd.Series([None] * len(table), index=table.index)
    try:
        with np.errstate(invalid="ignore"):  # a column with values that do not fit becomes text
            return values.astype(pd.api.types.pandas_dtype(dtype))
    except (TypeError, ValueError, OverflowError):
        return values.map(str, na_action="ignore").astype("string")
