"""The trials of a search whose best checkpoints are kept."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from s2s_search.errors import ConfigError, collecting
from s2s_search.results.results import Results, load
from s2s_search.runs.checkpoints import Checkpoints
from s2s_search.runs.folder import BEST
from s2s_search.runs.log import first_event
from s2s_search.runs.storage import below, is_far, place_of, shown_place


def kept_checkpoints(
    run: Results, trials: Iterable[str] | None = None, fetch: bool = False
) -> Iterator[tuple[str, str]]:
    """Yields those trials that have a best checkpoint, each with the checkpoint's path or URL.

    Args:
        run: the search.
        trials: the trials to look at; None: all, the best trial first.
        fetch: also look at the URL where the search saved its checkpoints.

    Raises:
        ConfigError: the checkpoints are at a URL, and `fetch` is not set or the URL is out of
            reach.
    """
    place = place_of(first_event(run.folder), run.folder)
    if is_far(place) and not fetch:
        raise ConfigError(
            f"its checkpoints are at {shown_place(place)}; --fetch reads them there",
            str(run.folder),
        )
    if trials is None:
        trials = map(str, run.best(None)["trial"])
    for trial in trials:
        folder = below(place, trial)
        try:
            is_there = Checkpoints(folder).has_best()
        except OSError as error:
            raise ConfigError(
                f"cannot be reached: {str(error).splitlines()[0]}", shown_place(place)
            ) from None
        if is_there:
            yield trial, below(folder, BEST)


class Kept(NamedTuple):
    """A best checkpoint that is kept, with the value that chose it."""

    folder: Path  # a run folder, or the folder of a debug run
    trial: str
    place: str  # a path or URL
    value: float


def best_kept(folders: Sequence[Path], count: int, fetch: bool = False) -> list[Kept]:
    """Returns the `count` best checkpoints of several run folders, the best first.

    Args:
        folders: run folders, or folders of debug runs. A folder that is named twice counts once.
        count: the number of checkpoints.
        fetch: also look at the URLs where the searches saved their checkpoints.

    Raises:
        ConfigError: with all folders that cannot be read; or there are fewer checkpoints; or there
            are more, and different metrics chose them.
    """
    problems: list[str] = []
    found: list[Kept] = []
    metrics: dict[tuple[str, str], str] = {}  # metric and goal, with a folder that has them
    for folder in {folder.resolve(): folder for folder in folders}.values():
        with collecting(problems):
            run = load(folder)
            metrics.setdefault((run.metric, run.goal), str(folder))
            found += islice(_kept_of(run, fetch), count)
    if not problems and not found:
        raise ConfigError("no trial has a checkpoint yet", ", ".join(map(str, folders)))
    if not problems and len(found) < count:
        law = f"needs {count} checkpoints, but the runs keep {len(found)} (checkpoints.best)"
        problems.append(f"{law}; --ensemble {len(found)} takes them all")
    if not problems and len(found) > count and len(metrics) > 1:
        named = ", ".join(f"{metric} ({folder})" for (metric, _), folder in metrics.items())
        problems.append(f"the best of several runs need one metric, but there are {named}")
    if problems:
        raise ConfigError(problems, "--ensemble" if count > 1 else None)
    if len(metrics) == 1:
        ((_, goal),) = metrics
        found.sort(key=lambda kept: kept.value if goal == "minimize" else -kept.value)
    return found[:count]


def _kept_of(run: Results, fetch: bool) -> Iterator[Kept]:
    """Yields the best checkpoints of a search or a debug run, the best trial first."""
    trials = run.best(None)
    values = dict(zip(map(str, trials["trial"]), trials[f"best.{run.metric}"], strict=True))
    if (run.folder / BEST).exists():  # of a debug run
        for trial, value in values.items():
            if pd.isna(value):  # its reports are lost
                continue
            yield Kept(run.folder, trial, str(run.folder / BEST), float(value))
        return
    for trial, place in kept_checkpoints(run, fetch=fetch):
        yield Kept(run.folder, trial, place, float(values[trial]))
