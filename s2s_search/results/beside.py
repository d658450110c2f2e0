"""The replicates and the audits of a search, in the run folders beside its own."""

from pathlib import Path

from s2s_search.errors import ConfigError
from s2s_search.results.many import load_many
from s2s_search.results.results import Results, load
from s2s_search.runs.folder import EVENTS
from s2s_search.runs.log import first_event
from s2s_search.runs.state import AUDIT, REPLICATES, History

# The entry of a log that names the search whose trials ran again, and how such folders are named.
LINKS = {REPLICATES: "replicates_of", AUDIT: "audits_of"}


def folders_beside(
    folder: Path, history: History, kind: str = REPLICATES, home: Path | None = None
) -> list[Path]:
    """Returns the run folders with replicates of a search that lie beside its own folder.

    A folder holds replicates of the search if its log names the search's folder. As folders may
    have been moved, a folder whose name begins with the search's name and REPLICATES counts too.
    Replicates with another metric or another corpus are not those of this search.

    Args:
        folder: the run folder of the search.
        history: what its log says.
        kind: REPLICATES; or AUDIT, for the stopped trials that were trained to the end.
        home: another place to look for them; None: the folder that holds the run folder.
    """
    found = []
    link = LINKS[kind]
    for log in sorted((home or folder.absolute().parent).glob(f"*/{EVENTS}")):
        try:
            other = first_event(log.parent)
        except ConfigError:
            continue
        is_named = log.parent.name.startswith(f"{folder.absolute().name}{kind}")
        is_of = str(other.get(link)) in (str(folder.absolute()), str(folder.resolve()))
        replicate = History([other])
        is_alike = all(replicate.search[key] == history.search[key] for key in ("metric", "goal"))
        is_alike = is_alike and replicate.fingerprint == history.fingerprint
        if link in other and (is_of or is_named) and is_alike:
            found.append(log.parent)
    return found


def beside(folder: Path, history: History, kind: str = REPLICATES) -> Results | None:
    """Returns the search's replicates from the run folders beside its own; None if there are none.

    The arguments are those of `folders_beside`. A damaged folder beside this one does not keep its
    report from being written.
    """
    found = folders_beside(folder, history, kind)
    try:
        if len(found) > 1:
            return load_many(found)
        if found:
            return load(found[0])
    except ConfigError:
        pass
    return None
