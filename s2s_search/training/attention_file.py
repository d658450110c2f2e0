"""A file of attention weights: an array for each line of text, as NumPy's .npz."""

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from s2s_search.errors import ConfigError
from s2s_search.training.unk_replacement import Weights


@contextmanager
def attention_file(path: Path) -> Iterator[Callable[[Weights], None]]:
    """Gives a function that adds an array to a new file: arr_0, arr_1 and so on, as np.savez does.

    The file takes its place when the block ends. After an error there is no new file, and the
    arrays never lie in memory together.

    Raises:
        ConfigError: the file cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0

    def add(weights: Weights) -> None:
        nonlocal count
        with _written(path), archive.open(f"arr_{count}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, weights, allow_pickle=False)
        count += 1

    try:
        with _written(path):
            archive = zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED)
        yield add
        with _written(path):
            archive.close()
            os.replace(new, path)
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turns an error of the file system into a ConfigError about the file."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from None
