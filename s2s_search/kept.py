"""The trials of a search whose best checkpoints are kept."""

from collections.abc import Iterable, Iterator

from s2s_search.checkpoints import BEST, Checkpoints, below
from s2s_search.events import first_event
from s2s_search.results import Results


def kept_checkpoints(run: Results, trials: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
    """Those of some trials, or of all with the best trial first, that have a best checkpoint, and its path or URL."""
    place = first_event(run.folder).get("storage") or run.folder
    for trial in map(str, run.best(None)["trial"]) if trials is None else trials:
        folder = below(place, trial)
        if Checkpoints(folder).has_best():
            yield trial, below(folder, BEST)
