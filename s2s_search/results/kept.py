"""The trials of a search whose best checkpoints are kept."""

from collections.abc import Iterable, Iterator

from s2s_search.errors import ConfigError
from s2s_search.results.results import Results
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
