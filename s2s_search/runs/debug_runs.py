"""The folder of a debug run, read as the log of a search with one trial."""

import json
import math
from pathlib import Path

from s2s_search.errors import ConfigError, unreadable
from s2s_search.metrics import METRICS, Metric
from s2s_search.runs.events import Row
from s2s_search.runs.folder import CONFIG, DEBUG_REPORTS, SPACE, trial_name
from s2s_search.runs.state import History
from s2s_search.spaces.load import load_space
from s2s_search.statuses import REPORTED

TRIAL = trial_name(0)


def is_debug_run(folder: Path) -> bool:
    return (folder / DEBUG_REPORTS).is_file() and (folder / CONFIG).is_file()


def debug_history(folder: Path) -> History:
    """Returns the state of a search with one trial. Raises ConfigError as `debug_events`."""
    return History(debug_events(folder)[0])


def judged_by(folder: Path) -> Metric:
    """Returns the metric that chose the best checkpoint; dev.loss without a space.yaml."""
    if not (folder / SPACE).exists():
        return METRICS["dev.loss"]
    return load_space(folder / SPACE, files=False).metric


def debug_events(folder: Path) -> tuple[list[Row], list[str]]:
    """Returns the events that a search would have logged, and one problem for each report left out.

    Times are the seconds of the trial.

    Raises:
        ConfigError: a file of the folder cannot be read.
    """
    metric, path = judged_by(folder), folder / DEBUG_REPORTS
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(unreadable(path, error), str(folder)) from None
    reports, problems = [], list[str]()
    for number, line in enumerate(lines, 1):
        report = _report_event(line)
        if report is None:
            problems.append(f"{path}: line {number}: no report, left out")
        else:
            reports.append(report)
    end = reports[-1] if reports else {"time": 0.0, "status": "running"}
    ended = {"event": "status", "status": end["status"], "time": end["time"]}
    search = {"event": "search", "name": folder.absolute().name, "searched": {}, "time": 0.0}
    return [
        {**search, "metric": metric.name, "goal": metric.goal},
        {
            "event": "trial",
            "trial": TRIAL,
            "settings": {},
            "config": _read_config(folder / CONFIG),
            "time": 0.0,
        },
        *reports,
        {**ended, "trial": TRIAL},
        ended,
    ], problems


def _read_config(path: Path) -> Row:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ConfigError("is no configuration: a JSON object was expected", str(path))
    return config


def _report_event(line: bytes) -> Row | None:
    """Returns a line's report as the event that a search logs; None for any other line.

    Numbers that are not finite are left out.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("status") not in REPORTED:
        return None
    if not all(_is_finite_number(row.get(key)) for key in ("step", "seconds")):
        return None
    values = {
        key: value for key, value in row.items() if key == "status" or _is_finite_number(value)
    }
    return {**values, "event": "report", "trial": TRIAL, "time": row["seconds"]}


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
