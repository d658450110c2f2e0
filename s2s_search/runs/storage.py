"""The place of checkpoints and answers: the run folder, or below a URL."""

import logging
import os
import re
from pathlib import Path

from pyarrow import fs

from s2s_search.errors import ConfigError
from s2s_search.runs.events import Event


def place_of(search: Event, folder: Path) -> str:
    """Returns the place of a search's checkpoints and answers.

    It is the run folder, unless the log names a URL.
    """
    return str(search.get("storage") or folder)


def is_far(place: str) -> bool:
    """Returns whether a place is reached over a network, with the credentials of the reader."""
    return "://" in place and not place.startswith("file://")


logger = logging.getLogger(__name__)


def below(place: str | Path, name: str) -> str:
    """Returns the place of a name below a folder or URL.

    The query of a URL, as in s3://bucket/path?region=..., stays at its end.
    """
    path, mark, query = str(place).partition("?") if "://" in str(place) else (str(place), "", "")
    return f"{path.rstrip('/')}/{name}{mark}{query}"


def shown_place(place: str | Path) -> str:
    """Returns a place as it is printed.

    A URL loses its user, its query and its fragment, because they may hold a secret.
    """
    kind, mark, rest = str(place).partition("://")
    if not mark:
        return str(place)
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{kind}://{host.rpartition('@')[2]}{slash}{path}"


def file_system(place: str) -> tuple[fs.FileSystem, str]:
    """Returns the file system of a folder or URL, and the path in it.

    Raises:
        ConfigError: PyArrow does not know such a URL.
    """
    if "://" in place:
        try:
            files, path = fs.FileSystem.from_uri(place)
        except ValueError as error:
            why = reason(error).replace(place, shown_place(place))
            raise ConfigError(f"is no place for checkpoints: {why}", shown_place(place)) from None
        return files, path
    return fs.LocalFileSystem(), os.path.abspath(place)


def reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return next(iter(text.splitlines()), type(error).__name__).split(". ")[0]
