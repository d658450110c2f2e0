"""The folder of an exported model: its description, and how the folder comes to be as a whole.

model.json describes the models; each has its weights in a safetensors file beside it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from s2s_search.errors import ConfigError, unreadable

DESCRIPTION = "model.json"
FORMAT = 1  # a new number for folders that older versions could not read


class ExportedMember(Struct, frozen=True):
    """One of the models that answer together, with its provenance."""

    weights: Annotated[str, Meta(pattern=r"^model-[0-9]+\.safetensors$")]  # the name of a file
    sha256: str  # of that file
    hparams: dict[str, Any]
    step: int
    metric: str  # the metric that chose the step
    value: float
    run: str  # the name of the run folder
    trial: str


class ExportedModel(Struct, frozen=True):
    """What decoding needs besides the weights, and where the models come from.

    The ids of the tokens are their places, from 0. Those of the special tokens follow.
    """

    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)]
    members: Annotated[list[ExportedMember], Meta(min_length=1)]  # the best first
    delimiters: tuple[str | list[str], str]
    source_tokens: list[str]
    target_tokens: list[str]
    special_tokens: list[str]
    corpus: dict[str, Any]  # the corpus section of the search space
    fingerprint: str  # of the corpus
    software: dict[str, str]  # versions


def is_exported(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def read_description(folder: Path) -> ExportedModel:
    """Returns the description of an exported model.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    path = folder / DESCRIPTION
    try:
        return msgspec.json.decode(path.read_bytes(), type=ExportedModel)
    except OSError as error:
        raise ConfigError(unreadable(path, error), str(path)) from None
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ConfigError(f"describes no exported model: {error}", str(path)) from None


def write_description(folder: Path, description: ExportedModel) -> None:
    data = msgspec.json.format(msgspec.json.encode(description), indent=1)
    (folder / DESCRIPTION).write_bytes(data + b"\n")


@contextmanager
def folder_as_a_whole(folder: Path) -> Iterator[Path]:
    """Gives a hidden folder that takes the place of `folder` when the block ends without an error.

    Raises:
        ConfigError: the folder cannot be written.
    """
    hidden = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}")
    try:
        hidden.mkdir(parents=True)
        yield hidden
        os.replace(hidden, folder)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(folder)) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
