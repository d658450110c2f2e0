"""Greedy decoding as one compiled loop, for decoders of LSTM and GRU layers.

B batch · H cell output units · M memory units · V vocabulary
"""

import torch
from torch import Tensor

from s2s_search.nn.decoders import AttentionDecoder
from s2s_search.nn.fast import native
from s2s_search.nn.fast.attention_loops import AttentionSteps
from s2s_search.nn.fast.cell_loops import Recurrence, Steps
from s2s_search.nn.fast.matmul import addmm
from s2s_search.nn.models import Encoding, Seq2Seq
from s2s_search.nn.stepping import ROWS_OF_A_TABLE


def greedy_ids(model: Seq2Seq, encoding: Encoding, max_length: int) -> Tensor | None:
    """Returns the most probable token at every step: ids [B, max_length], 0 after END.

    Returns None when the compiled loop cannot decode this model or batch: there is no C library, a
    cell or a bridge is unknown to it, or the vocabulary is large for the batch. A row that has
    ended leaves the loop at once, and the rows below move up.
    """
    embeddings, batch = model.target_embedding.weight, len(encoding.encoder_output.outputs)
    if not native.usable(embeddings) or encoding.extra is not None:
        return None
    if len(embeddings) > ROWS_OF_A_TABLE * batch:
        return None
    recurrences = model.decoder.cell.recurrences()
    if recurrences is None:
        return None
    ids, sources = torch.full((batch,), model.start_id), torch.arange(batch)
    all_ids = ids.new_zeros(batch, max_length)
    attention = one_step_of_attention(model, encoding)
    layers = one_step_of_layers(model, encoding, recurrences, attention, ids)
    outputs, linear = layers[-1].output, model.decoder.logits
    prediction: dict[str, Tensor | int] = {
        "batch": batch,
        "time": max_length,
        "output_units": outputs.shape[-1],
        "vocabulary": linear.out_features,
        "end": model.end_id,
        "ids": ids,
        "sources": sources,
        "all_ids": all_ids,
        "weights": linear.weight,
        "biases": linear.bias,
        "logits": outputs.new_empty(batch, linear.out_features),
    }
    of_attention = None
    if attention is not None and model.decoder.mix is not None:
        attention.sources = sources
        of_attention = attention.arguments(outputs[1:])
        prediction |= {
            "memory_units": attention.context.shape[-1],
            "mix": model.decoder.mix.weight.t().contiguous(),
            "mix_biases": model.decoder.mix.bias,
            "mixed": torch.empty_like(outputs[0]),
        }
    cells = [layer.arguments(backward=False) for layer in layers]
    native.run_greedy(outputs.dtype, cells, of_attention, native.Prediction(**prediction))
    return all_ids


def one_step_of_attention(model: Seq2Seq, encoding: Encoding) -> AttentionSteps | None:
    """Returns the buffers of one step, with a context of zeros; None without attention."""
    if encoding.memory is None or not isinstance(model.decoder, AttentionDecoder):
        return None
    lookup = model.decoder.attention.lookup(encoding.memory)
    steps = lookup.steps(
        [len(lookup.values)], lookup.values, lookup.keys, lookup.biases, *lookup.weights
    )
    steps.context.zero_()
    return steps


def one_step_of_layers(
    model: Seq2Seq,
    encoding: Encoding,
    recurrences: list[Recurrence],
    attention: AttentionSteps | None,
    ids: Tensor,
) -> list[Steps]:
    """Returns the buffers of one step of each layer, the first of which reads token ids.

    Each layer looks up the inputs' part of its gates in a table. The first has a row for each
    target token. The others have one row, their biases, which all rows of the batch look up.

    Args:
        model: The model.
        encoding: Holds the state before the first step.
        recurrences: The cells of the layers.
        attention: Its context is an input of the first layer; None without attention.
        ids: The ids [B] of the last step, which the compiled loop replaces at each step.
    """
    embeddings = model.target_embedding.weight
    below = None if attention is None else attention.context[1:]
    layers: list[Steps] = []
    states = model.decoder.cell.layer_states(encoding.state)
    for recurrence, state in zip(recurrences, states, strict=True):
        input_weights, *others = recurrence.weights
        table, looked_up = others[-1].unsqueeze(0), torch.zeros_like(ids)
        if not layers:
            of_embedding, input_weights = input_weights.tensor_split([embeddings.shape[1]])
            table, looked_up = addmm(others[-1], embeddings, of_embedding), ids
        step = recurrence.steps(
            [len(ids)], None, below, (input_weights, *others), state, differentiable=False
        )
        step.table, step.ids = table, looked_up
        below = step.output[1:]
        layers.append(step)
    return layers
