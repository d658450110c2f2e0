"""The number of parameters of a model, from its hyperparameters and vocabularies, without torch.

I input units · H cell units · O output units of a cell (H, or the width of its projection)
"""

from s2s_search.hparams.configuration import Hparams
from s2s_search.hparams.rules import Values, cell_output_size, cell_state_sizes

GATES = {  # the number of linear maps in a cell
    "BasicRNNCell": 1,
    "GRUCell": 3,
    "GRUBlockCell": 3,
    "CoupledInputForgetGateLSTMCell": 3,
}
LSTM_GATES = 4  # of every other cell


def count_parameters(hparams: Hparams, source_size: int, target_size: int) -> int:
    """Returns the number of parameters of the model that `build_model` makes.

    Args:
        hparams: the configuration.
        source_size: the size of the source vocabulary, its three special ids included.
        target_size: the size of the target vocabulary, its three special ids included.
    """
    embedding: int = hparams["embedding.dim"]
    encoder_spec = hparams["encoder.rnn_cell.cell_spec"]
    decoder_spec = hparams["decoder.rnn_cell.cell_spec"]
    directions = 1 if hparams["encoder.type"] == "UnidirectionalRNNEncoder" else 2
    memory = directions * cell_output_size(encoder_spec)
    output = cell_output_size(decoder_spec)
    bridge, extra = _bridge(hparams, directions, memory)
    parameters = (source_size + target_size) * embedding + _encoder(hparams, directions) + bridge
    if hparams.model == "BasicSeq2Seq":
        parameters += _stack(hparams, "decoder", embedding + extra)
    else:
        parameters += _stack(hparams, "decoder", embedding + extra + memory)
        units = hparams["attention.dim"]
        parameters += _linear(memory, units) + _linear(output, units)
        if hparams["attention.score_type"] == "bahdanau":
            parameters += units
        parameters += _linear(output + memory, output)
    return parameters + _linear(output, target_size)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _encoder(hparams: Hparams, directions: int) -> int:
    """Returns the number of parameters of the encoder's layers."""
    width = hparams["embedding.dim"]
    if hparams["encoder.type"] != "StackBidirectionalRNNEncoder":
        return directions * _stack(hparams, "encoder", width)
    # Each layer reads both directions of the one below, so it is a stack of its own.
    spec = hparams["encoder.rnn_cell.cell_spec"]
    parameters = 0
    for _ in range(hparams["encoder.rnn_cell.num_layers"]):
        parameters += 2 * _cell(spec, width)
        width = 2 * cell_output_size(spec)
    return parameters


def _bridge(hparams: Hparams, directions: int, memory: int) -> tuple[int, int]:
    """Returns the number of parameters of the bridge, and the units that it adds to each input."""
    spec = hparams["bridge_spec"]
    state = sum(cell_state_sizes(hparams["encoder.rnn_cell.cell_spec"]))
    width = directions * hparams["encoder.rnn_cell.num_layers"] * state
    if spec.get("bridge_input") == "outputs":
        width = hparams["source.max_seq_len"] * memory
    if spec["class"] == "ConcatInputBridge":
        return _linear(width, spec["num_units"]), spec["num_units"]
    if spec["class"] == "InitialStateBridge":
        state = sum(cell_state_sizes(hparams["decoder.rnn_cell.cell_spec"]))
        return _linear(width, hparams["decoder.rnn_cell.num_layers"] * state), 0
    return 0, 0


def _stack(hparams: Hparams, side: str, inputs: int) -> int:
    """Returns the number of parameters of the layers of the encoder or of the decoder."""
    spec = hparams[f"{side}.rnn_cell.cell_spec"]
    layers: int = hparams[f"{side}.rnn_cell.num_layers"]
    output = cell_output_size(spec)
    parameters = 0
    if hparams[f"{side}.rnn_cell.residual_connections"] and layers > 1 and inputs != output:
        parameters = _linear(inputs, output)  # what is added must have the width of the output
        inputs = output
    return parameters + _cell(spec, inputs) + (layers - 1) * _cell(spec, output)


def _cell(spec: Values, inputs: int) -> int:
    """Returns the number of parameters of a cell."""
    name, output = spec["class"], cell_output_size(spec)
    units: int = spec.get("num_units") or spec["cell_size"]
    gates = GATES.get(name, LSTM_GATES)
    parameters = (inputs + output) * gates * units
    if name == "LayerNormBasicLSTMCell" and spec.get("layer_norm", True):
        parameters += 10 * units  # a gain and a shift of four gates and of c, in place of biases
    else:
        parameters += gates * units
    if spec.get("use_peepholes") or spec.get("use_peephole"):
        parameters += (gates - 1) * units  # to every gate but the candidate
    if spec.get("num_proj"):
        parameters += units * output
    return parameters
