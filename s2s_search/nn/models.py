"""The two models, and how they are built from hyperparameters.

B batch · S source positions · T target steps · E embedding · M memory units
V target vocabulary, special ids included
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_search.corpus.batches import Batch
from s2s_search.hparams.configuration import Hparams
from s2s_search.hparams.rules import cell_state_sizes
from s2s_search.nn.attention import Attention, Memory
from s2s_search.nn.bridges import BRIDGE_CLASSES, Bridge, ReadingBridge
from s2s_search.nn.cells import State
from s2s_search.nn.decoders import AttentionDecoder, BasicDecoder, Decoder, DecoderOutput
from s2s_search.nn.encoders import (
    BidirectionalRNNEncoder,
    Encoder,
    EncoderOutput,
    StackBidirectionalRNNEncoder,
    UnidirectionalRNNEncoder,
)
from s2s_search.nn.stacks import Embedded, StackedCell, reverse_sequence


class Encoding(NamedTuple):
    """An encoded source, with all that decoding needs.

    `state` is the cell's first state. `extra` is the vector [B, X] that the bridge appends to every
    decoder input, or None. `memory` is None without attention.
    """

    encoder_output: EncoderOutput
    state: State
    extra: Tensor | None
    memory: Memory | None

    @property
    def lengths(self) -> Tensor:
        """The source lengths [B]."""
        return self.encoder_output.lengths


class Seq2Seq(nn.Module):
    """Embeddings, an encoder, a bridge and a decoder.

    With `reverse_source` the encoder reads the source from its end to its beginning (Sutskever et
    al., 2014). The gradients of the embeddings are row-sparse, with one row for each looked-up
    position, as in the original.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        embedding_size: int,
        encoder: Encoder,
        bridge: Bridge,
        decoder: Decoder,
        reverse_source: bool,
    ) -> None:
        super().__init__()
        self.source_embedding = nn.Embedding(source_size, embedding_size, sparse=True)
        self.target_embedding = nn.Embedding(target_size, embedding_size, sparse=True)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.xavier_uniform_(embedding.weight)
        self.encoder, self.bridge, self.decoder = encoder, bridge, decoder
        self.reverse_source = reverse_source
        self.start_id, self.end_id = target_size - 2, target_size - 1
        self.target_size = target_size

    def encode(self, source_ids: Tensor, source_lengths: Tensor) -> Encoding:
        """Returns the encoding of source_ids [B, S] of lengths [B], integers of any type.

        Ids and lengths include END.

        Raises:
            TypeError: the ids or the lengths are not integers.
            ValueError: the shapes do not fit, there are no rows or no positions, or a length
                exceeds the number of positions.
        """
        source_ids, source_lengths = sequences(source_ids, source_lengths, "source")
        if self.reverse_source:
            source_ids = reverse_sequence(source_ids, source_lengths)
        encoded = self.encoder(embedded(self.source_embedding, source_ids), source_lengths)
        state, extra = self.bridge(encoded)
        return Encoding(encoded, state, extra, self.decoder.remember(encoded))

    def decoder_input(self, ids: Tensor, extra: Tensor | None) -> Tensor:
        """Returns the decoder's input [B, X] at one step, for target ids [B]."""
        vectors: Tensor = self.target_embedding(ids)
        if extra is None:
            return vectors
        return torch.cat([vectors, extra], dim=-1)

    def decoder_inputs(self, target_ids: Tensor, extra: Tensor | None) -> Embedded:
        """Returns the decoder's inputs [B, T, X] that predict target_ids[:, 1:] of [B, T + 1]."""
        # The last column is looked up too, as in the original: row-sparse update rules change the
        # embeddings of its ids.
        vectors, _, table = embedded(self.target_embedding, target_ids)
        vectors = vectors[:, :-1]
        if extra is None:
            return Embedded(vectors, target_ids[:, :-1], table)
        extra_at_each_step = extra.unsqueeze(1).expand(-1, vectors.shape[1], -1)
        return Embedded(torch.cat([vectors, extra_at_each_step], dim=-1))

    def decode(
        self, encoding: Encoding, target_ids: Tensor, target_lengths: Tensor
    ) -> DecoderOutput:
        """Predicts target_ids[:, 1:] from target_ids[:, :-1] (teacher forcing).

        The ids are [B, T + 1], with START and END. Attention weights are in the order of the given
        source, also when the encoder reads it in reverse.

        Raises:
            TypeError, ValueError: as `encode`.
        """
        target_ids, target_lengths = sequences(target_ids, target_lengths, "target")
        x = self.decoder_inputs(target_ids, encoding.extra)
        output = self.decoder.unroll(x, target_lengths - 1, encoding.state, encoding.memory)
        if output.weights is None:
            return output
        return output._replace(
            weights=self.source_order(output.weights, encoding.encoder_output.lengths)
        )

    def predictor(
        self, encoding: Encoding, target_ids: Tensor, target_lengths: Tensor
    ) -> Callable[[slice], Tensor]:
        """Returns a function that computes the logits [B, steps, V] of a slice of the steps.

        The arguments are those of `decode`. Logits past a row's end are not defined.
        """
        x = self.decoder_inputs(target_ids, encoding.extra)
        unrolled = self.decoder.recur(x, target_lengths - 1, encoding.state, encoding.memory)
        outputs, contexts = unrolled.outputs, unrolled.contexts

        def logits(steps: slice) -> Tensor:
            of_context = None if contexts is None else contexts[:, steps]
            return self.decoder.predict(outputs[:, steps], of_context)

        return logits

    def attention(
        self, encoding: Encoding, target_ids: Tensor, target_lengths: Tensor
    ) -> Tensor | None:
        """Returns the attention weights [B, T, S] of a decoder that reads a target.

        The arguments are those of `decode`. The weights are in the order of the given source; past
        a row's end they are not defined. They are None without attention.
        """
        x = self.decoder_inputs(target_ids, encoding.extra)
        unrolled = self.decoder.recur(x, target_lengths - 1, encoding.state, encoding.memory)
        if unrolled.weights is None:
            return None
        return self.source_order(unrolled.weights, encoding.lengths)

    def source_order(self, weights: Tensor, lengths: Tensor) -> Tensor:
        """Returns attention weights [B, T, S] in the order of the given source."""
        if not self.reverse_source:
            return weights
        return reverse_sequence(weights.transpose(1, 2), lengths).transpose(1, 2)

    def forward(self, batch: Batch) -> Tensor:
        """Returns the logits [B, T, V] for batch.target_ids[:, 1:], zero past the end of a row."""
        encoding = self.encode(batch.source_ids, batch.source_lengths)
        return self.decode(encoding, batch.target_ids, batch.target_lengths).logits

    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Returns the cross-entropy in nats of batch.target_ids[:, 1:], summed over all targets.

        With label smoothing, a target shares this part of its probability evenly with all tokens.
        """
        encoding = self.encode(batch.source_ids, batch.source_lengths)
        target_ids, target_lengths = sequences(batch.target_ids, batch.target_lengths, "target")
        x, targets = self.decoder_inputs(target_ids, encoding.extra), target_ids[:, 1:]
        return self.decoder.loss(
            x, targets, target_lengths - 1, encoding.state, encoding.memory, label_smoothing
        )


def sequences(ids: Tensor, lengths: Tensor, side: str) -> tuple[Tensor, Tensor]:
    """Returns the ids [B, S] and the lengths [B] of a batch as int64.

    The values of lengths are checked on the CPU only: the host would wait for a GPU's.

    Raises:
        TypeError: the ids or the lengths are not integers.
        ValueError: the shapes do not fit, there are no rows or no positions, or a length exceeds
            the number of positions.
    """
    for name, tensor in (("ids", ids), ("lengths", lengths)):
        if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
            raise TypeError(f"{side}_{name} must be integers, but are {tensor.dtype}")
    least = 1 if side == "source" else 2  # END, or START and one token to predict
    fit = ids.dim() == 2 and lengths.shape == ids.shape[:1]
    if not fit or ids.shape[0] == 0 or ids.shape[1] < least:
        law = f"{side}_ids must be [B, S] and {side}_lengths [B], with B >= 1 and S >= {least}"
        raise ValueError(f"{law}, but they are {list(ids.shape)} and {list(lengths.shape)}")
    if lengths.device.type == "cpu":
        values = lengths.tolist()
        if min(values) < 0 or max(values) > ids.shape[1]:
            law = f"{side}_lengths must be 0 to {ids.shape[1]}, as many as there are positions"
            raise ValueError(f"{law}, but are {min(values)} to {max(values)}")
    return ids.long(), lengths.long().contiguous()


def embedded(embedding: nn.Embedding, ids: Tensor) -> Embedded:
    """Returns the embeddings of ids [B, S], time first in memory, as the fast loops read them."""
    return Embedded(embedding(ids.t()).transpose(0, 1), ids, embedding.weight)


class BasicSeq2Seq(Seq2Seq):
    """The decoder knows the source only through the bridge (Sutskever et al., 2014)."""


class AttentionSeq2Seq(Seq2Seq):
    """The decoder attends to all source positions at every step (Bahdanau et al., 2015)."""


def build_model(
    hparams: Hparams, source_size: int, target_size: int, source_length: int | None = None
) -> Seq2Seq:
    """Returns a model of given hyperparameters, initialised from torch's global random numbers.

    Args:
        hparams: The hyperparameters.
        source_size: The size of the source vocabulary, its three special ids included.
        target_size: The size of the target vocabulary, its three special ids included.
        source_length: The number of positions that a bridge with `bridge_input` "outputs" reads;
            by default `source.max_seq_len`.
    """
    embedding_size = hparams["embedding.dim"]
    encoder = make_encoder(hparams, embedding_size)
    layer_state_sizes = cell_state_sizes(hparams["decoder.rnn_cell.cell_spec"])
    decoder_state_sizes = layer_state_sizes * hparams["decoder.rnn_cell.num_layers"]
    width = sum(encoder.state_sizes)
    if hparams["bridge_spec"].get("bridge_input") == "outputs":
        width = (source_length or hparams["source.max_seq_len"]) * encoder.output_size
    bridge = make_bridge(hparams["bridge_spec"], decoder_state_sizes, width)
    model = MODEL_CLASSES[hparams.model]
    decoder = make_decoder(
        hparams, embedding_size + bridge.extra_size, encoder.output_size, target_size
    )
    return model(
        source_size,
        target_size,
        embedding_size,
        encoder,
        bridge,
        decoder,
        hparams["source.reverse"],
    )


MODEL_CLASSES: dict[str, type[Seq2Seq]] = {
    model.__name__: model for model in (BasicSeq2Seq, AttentionSeq2Seq)
}


def make_decoder(hparams: Hparams, input_size: int, memory_size: int, target_size: int) -> Decoder:
    """Returns the decoder that the hyperparameters describe.

    Args:
        hparams: The hyperparameters.
        input_size: The width of a decoder input, without the context.
        memory_size: The width of the encoder's outputs.
        target_size: The size of the target vocabulary.
    """
    if hparams.model == "BasicSeq2Seq":
        return BasicDecoder(make_stack(hparams, "decoder", input_size), target_size)
    cell = make_stack(hparams, "decoder", input_size + memory_size)
    attention = Attention(
        cell.output_size, memory_size, hparams["attention.dim"], hparams["attention.score_type"]
    )
    return AttentionDecoder(cell, attention, memory_size, target_size)


def make_encoder(hparams: Hparams, input_size: int) -> Encoder:
    """Returns the encoder that the hyperparameters describe."""
    kind = hparams["encoder.type"]
    if kind == "UnidirectionalRNNEncoder":
        return UnidirectionalRNNEncoder(make_stack(hparams, "encoder", input_size))
    if kind == "BidirectionalRNNEncoder":
        return BidirectionalRNNEncoder(
            *(make_stack(hparams, "encoder", input_size) for _ in range(2))
        )
    if kind == "StackBidirectionalRNNEncoder":
        layers: list[BidirectionalRNNEncoder] = []
        for _ in range(hparams["encoder.rnn_cell.num_layers"]):
            width = layers[-1].output_size if layers else input_size
            layers.append(
                BidirectionalRNNEncoder(
                    *(make_stack(hparams, "encoder", width, 1) for _ in range(2))
                )
            )
        return StackBidirectionalRNNEncoder(layers)
    raise AssertionError(f"encoder.type {kind!r} passed the table's check and has no constructor")


def make_stack(
    hparams: Hparams, side: str, input_size: int, num_layers: int | None = None
) -> StackedCell:
    """Returns the stacked cell that the `encoder` or `decoder` hyperparameters describe.

    Args:
        hparams: The hyperparameters.
        side: "encoder" or "decoder".
        input_size: The width of the first layer's input.
        num_layers: By default `rnn_cell.num_layers` of the side.
    """
    return StackedCell(
        hparams[f"{side}.rnn_cell.cell_spec"],
        input_size,
        num_layers or hparams[f"{side}.rnn_cell.num_layers"],
        hparams[f"{side}.rnn_cell.dropout_input_keep_prob"],
        hparams[f"{side}.rnn_cell.dropout_output_keep_prob"],
        hparams[f"{side}.rnn_cell.residual_connections"],
    )


def make_bridge(
    spec: Mapping[str, object], decoder_state_sizes: tuple[int, ...], width: int
) -> Bridge:
    """Returns the bridge that a spec describes, for `width` values of the encoder to read.

    Such a spec is {"class": "InitialStateBridge", "activation_fn": "tanh"}.
    """
    arguments = {name: value for name, value in spec.items() if name != "class"}
    bridge = BRIDGE_CLASSES[str(spec["class"])]
    if issubclass(bridge, ReadingBridge):
        return bridge(decoder_state_sizes, width, **arguments)  # type: ignore[arg-type]
    return bridge(decoder_state_sizes, **arguments)  # type: ignore[arg-type]
