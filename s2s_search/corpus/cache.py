"""A cache of arrays in the user's cache folder.

An entry is one file, which is mapped into memory to be read. It holds a checksum, a line of JSON,
and the arrays, each of which begins at a multiple of 8 bytes. The checksum is the SHA-256 of the
key and of all that follows. A file is written whole or not at all. A damaged or foreign file counts
as no entry, and a folder that cannot be written stays empty: nothing here raises an error for the
user.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from hashlib import sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

ENTRIES_KEPT = 20  # the number of entries that stay: those that were used last
SUFFIX = ".arrays"
CHECKSUM = sha256().digest_size


def cache_folder() -> Path:
    """Returns $XDG_CACHE_HOME/s2s_search, by default ~/.cache/s2s_search.

    Raises:
        RuntimeError: the user has no home.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "s2s_search"


def load(key: str) -> tuple[Any, list[Array]] | None:
    """Returns the head and the arrays that were saved under a key, or None.

    The arrays are read-only. The processes of a node that load them share their memory.
    """
    import numpy as np

    try:
        path = cache_folder() / (key + SUFFIX)
        with path.open("rb") as file:
            content = mmap(file.fileno(), 0, access=ACCESS_READ)
    except (OSError, RuntimeError, ValueError):  # mmap raises ValueError for an empty file
        return None
    if content[:CHECKSUM] != checksum(key, [memoryview(content)[CHECKSUM:]]):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # an entry that is used stays
    end = content.find(b"\n", CHECKSUM) + 1
    head, layout = json.loads(content[CHECKSUM:end])
    data, arrays = np.frombuffer(content, np.uint8), []
    for dtype, size in layout:
        arrays.append(data[end : end + size].view(dtype))
        end += size + -size % 8
    return head, arrays


def save(key: str, head: object, arrays: Sequence[Array]) -> None:
    """Writes an entry of flat arrays and a head of plain values, if the disk allows it."""
    line = json.dumps([head, [(array.dtype.str, array.nbytes) for array in arrays]])
    line += " " * (-(CHECKSUM + len(line) + 1) % 8) + "\n"  # the arrays begin at a multiple of 8
    pieces: list[bytes | memoryview] = [line.encode()]
    for array in arrays:
        pieces += [array.data, bytes(-array.nbytes % 8)]
    with contextlib.suppress(OSError, RuntimeError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=SUFFIX, delete=False) as file:
            try:
                file.writelines([checksum(key, pieces), *pieces])
                file.close()
                os.replace(file.name, folder / (key + SUFFIX))
            except BaseException:
                os.unlink(file.name)
                raise
        entries = sorted(folder.glob("*" + SUFFIX), key=lambda path: path.stat().st_mtime)
        for path in entries[:-ENTRIES_KEPT]:
            path.unlink(missing_ok=True)


def checksum(key: str, pieces: Iterable[bytes | memoryview]) -> bytes:
    """Returns the SHA-256 of a key and of all pieces after it."""
    digest = sha256(key.encode())
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
