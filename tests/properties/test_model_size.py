"""The number of parameters without torch is that of the real model, of every kind."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_search.errors import ConfigError
from s2s_search.hparams.arguments import BOOL, INT, NAME, REQUIRED, Argument
from s2s_search.hparams.configuration import resolve
from s2s_search.hparams.model_size import count_parameters
from s2s_search.hparams.table import BRIDGES, CELLS, ENCODERS, MODELS
from s2s_search.nn.models import build_model


@st.composite
def specs(draw: st.DrawFn, classes: dict[str, tuple[Argument, ...]]) -> dict[str, object]:
    """A spec with values for some of its arguments: all those that can decide a size."""
    name = draw(st.sampled_from(sorted(classes)))
    spec: dict[str, object] = {"class": name}
    for argument in classes[name]:
        if argument.default is not REQUIRED and draw(st.booleans()):
            continue
        if argument.kind is INT:
            spec[argument.name] = draw(st.integers(1, 6))
        elif argument.kind is BOOL:
            spec[argument.name] = draw(st.booleans())
        elif argument.kind is NAME:
            spec[argument.name] = draw(st.sampled_from(argument.choices))
    return spec


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, object]:
    flat: dict[str, object] = {
        "model": draw(st.sampled_from(MODELS)),
        "embedding.dim": draw(st.integers(1, 6)),
        "source.max_seq_len": draw(st.integers(1, 7)),
        "encoder.type": draw(st.sampled_from(ENCODERS)),
        "bridge_spec": draw(specs(BRIDGES)),
    }
    for side in ("encoder", "decoder"):
        flat[f"{side}.rnn_cell.cell_spec"] = draw(specs(CELLS))
        flat[f"{side}.rnn_cell.num_layers"] = draw(st.integers(1, 3))
        flat[f"{side}.rnn_cell.residual_connections"] = draw(st.booleans())
    if flat["model"] == "AttentionSeq2Seq":
        flat["attention.dim"] = draw(st.integers(1, 6))
        flat["attention.score_type"] = draw(st.sampled_from(["dot", "bahdanau"]))
    return flat


@settings(max_examples=200)
@given(configurations(), st.integers(4, 9), st.integers(4, 9))
def test_it_is_that_of_the_model(flat: dict[str, object], source: int, target: int) -> None:
    try:
        hparams = resolve(str(flat["model"]), flat)
    except ConfigError:  # states that do not fit: another bridge fits any
        hparams = resolve(str(flat["model"]), flat | {"bridge_spec": {"class": "ZeroBridge"}})
    with torch.device("meta"):
        model = build_model(hparams, source, target)
    assert count_parameters(hparams, source, target) == sum(p.numel() for p in model.parameters())
