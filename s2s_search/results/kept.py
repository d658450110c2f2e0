"""The trials of a search whose best checkpoints are kept."""

from collections.abc import Iterable, Iterator

from s2s_search.errors import ConfigError
from s2s_search.results.results import Results
from s2s_search.runs.checkpoints import BEST, Checkpoints
from s2s_search.runs.log import first_event
from s2s_search.runs.storage import below, is_far, place_of, shown_place


def kept_checkpoints(
    run: Results, trials: Iterable[str] | None = None, fetch: bool = False
) -> Iterator[tuple[str, str]]:
    """Those of some trials, or of all with the best trial first, that have a best checkpoint, and its path or URL.

    With `fetch` also those that lie elsewhere, at a URL that the log names.

    Raises:
        ConfigError: they lie elsewhere, and are not to be fetched, or cannot be reached.
    """
    place = place_of(first_event(run.folder), run.folder)
    if is_far(place) and not fetch:
        raise ConfigError(
            f"its checkpoints lie at {shown_place(place)}, where --fetch reads them",
            str(run.folder),
        )
    for trial in map(str, run.best(None)["trial"]) if trials is None else trials:
        folder = below(place, trial)
        try:
            is_there = Checkpoints(folder).has_best()
        except OSError as error:
            raise ConfigError(
                f"cannot be reached: {str(error).splitlines()[0]}", shown_place(place)
            ) from None
        if is_there:
            yield trial, below(folder, BEST)
