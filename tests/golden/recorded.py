"""Reads a folder of numbers recorded from the original (its format: data/README.md)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from s2s_search.corpus.batches import Batch, slice_batch
from s2s_search.hparams.configuration import Hparams, resolve
from s2s_search.nn.models import Seq2Seq, build_model
from s2s_search.tf_variables import load_variables


class Recorded:
    """A case or a trajectory: its facts, its arrays, and the model that it was recorded from."""

    def __init__(self, facts: Mapping[str, Any], folder: Path) -> None:
        self.facts = facts
        with np.load(folder / facts["file"]) as arrays:
            self.arrays: dict[str, NDArray[Any]] = dict(arrays)
        self.hparams: Hparams = resolve(facts["model"], facts["hparams"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def group(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Returns the arrays below a prefix such as "var/", by the rest of their names."""
        return {
            name[len(prefix) :]: array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def model(self, dtype: torch.dtype = torch.float32) -> Seq2Seq:
        sizes = (self.facts["source_vocab_size"] + 3, self.facts["target_vocab_size"] + 3)
        model = build_model(
            self.hparams, *sizes, source_length=self.facts.get("static_source_length")
        ).to(dtype)
        load_variables(model, self.group("var/"))
        return model

    def batch(self, prefix: str = "", row: int | None = None) -> Batch:
        """Returns a batch as recorded, neither sliced nor reversed.

        Of a trajectory it is the batch of update `row`.
        """
        names = ("source_ids", "source_len", "target_ids", "target_len")
        arrays = [
            self[prefix + name] if row is None else self[prefix + name][row] for name in names
        ]
        return Batch(*(torch.from_numpy(np.asarray(array, np.int64)) for array in arrays))

    def training_batch(self, prefix: str = "") -> Batch:
        maxima = (int(self.hparams[f"{side}.max_seq_len"]) for side in ("source", "target"))
        return slice_batch(self.batch(prefix), *maxima)


def read_cases(folder: Path) -> list[Mapping[str, Any]]:
    content = json.loads((folder / "cases.json").read_text())
    assert content["format"] == 1, "this comparison reads format 1"
    cases: list[Mapping[str, Any]] = content["cases"]
    return cases
