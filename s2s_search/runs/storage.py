"""The place of checkpoints and answers: the run folder, or below a URL."""

import os
import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pyarrow import fs

from s2s_search.errors import ConfigError, shown
from s2s_search.runs.events import Event

# A key of a URL has a secret value when its name holds one of these words.
SECRETS = {
    "token", "secret", "password", "passwd", "passphrase", "pass", "pwd", "key", "keys", "apikey",
    "accesskey", "secretkey", "credential", "credentials", "sig", "signature", "sas", "auth",
    "authorization", "bearer",
}  # fmt: skip


def place_of(search: Event, folder: Path) -> str:
    """Returns the place of a search's checkpoints and answers.

    It is the run folder, unless the log names a URL.
    """
    return str(search.get("storage") or folder)


def is_far(place: str) -> bool:
    """Returns whether a place is reached over a network, with the credentials of the reader."""
    return "://" in place and not place.startswith("file://")


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


def storage_problems(storage: str | None) -> list[str]:
    """Returns the problems of a new storage for checkpoints, and makes its folder."""
    if storage is None:
        return []
    try:
        parts = urlsplit(storage)
    except ValueError as error:
        return [f"--storage {storage}: is no URL: {error}"]
    if "://" in storage and (secrets := _secrets(parts)):
        law = "must hold no password or key, because it is recorded; give them by the environment"
        return [f"--storage {parts.scheme}://...: {law}; it has {' and '.join(secrets)}"]
    try:
        files, path = file_system(storage)
        files.create_dir(path, recursive=True)
    except Exception as error:  # PyArrow and the clouds raise many kinds of errors
        return [f"--storage {storage}: cannot be used: {str(error).splitlines()[0]}"]
    return []


def _secrets(parts: SplitResult) -> list[str]:
    """Returns phrases for the parts of a URL that look like secrets, without the secrets.

    Such parts are a password, the access key of an S3 store, and keys in its query whose names say
    so. A user name alone is no secret: it is part of hdfs://user@host, gs://anonymous@bucket and
    abfss://files@account.
    """
    found = []
    if parts.password is not None:
        found.append("a password")
    elif parts.username is not None and parts.scheme in ("s3", "http", "https"):
        found.append("an access key")
    for text in (parts.query, parts.fragment):
        for name, _ in parse_qsl(text.replace(";", "&"), keep_blank_values=True):
            # The words of names such as secret_key, X-Amz-Signature and accountKey.
            words = re.findall("[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
            if any(word.lower() in SECRETS for word in words):
                found.append(f"the key {shown(name)}")
    return found
