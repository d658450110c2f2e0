"""The table: every hyperparameter, cell and bridge, declared once, as data.

Defaults, kinds, ranges, docs/hparams.md, the checks of search spaces and the generators of tests
are derived from it.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass

from s2s_search.errors import ConfigError, nearest, shown
from s2s_search.hparams.arguments import (
    BOOL,
    FLOAT,
    INT,
    NAME,
    REQUIRED,
    SPEC,
    WIDEST,
    Argument,
    positive,
    width,
)

MODELS = ("BasicSeq2Seq", "AttentionSeq2Seq")
MODEL_ALIASES = {"AttentionSeq2seq": "AttentionSeq2Seq"}  # the original documentation has both

Problem = tuple[str, str]  # the key with the problem ("" when several keys have it), and a sentence
Spec = dict[str, object]  # {"class": ..., argument: value, ...}


@dataclass(frozen=True)
class Hparam(Argument):
    """The declaration of a hyperparameter.

    A default that depends on the model is a mapping from model to default.
    """

    description: str
    _: KW_ONLY
    models: tuple[str, ...] = MODELS
    ours: bool = False  # True for a hyperparameter that the original does not have

    def default_for(self, model: str) -> object:
        """Returns the default in a model; a spec is returned as a new copy."""
        default = self.default
        if isinstance(default, dict) and model in default:
            default = default[model]
        return dict(default) if isinstance(default, dict) else default


ACTIVATIONS = ("identity", "tanh", "relu", "sigmoid")
ACTIVATION = Argument("activation", NAME, "tanh", choices=ACTIVATIONS)
FORGET_BIAS = Argument("forget_bias", FLOAT, 1.0)
PEEPHOLES = Argument("use_peepholes", BOOL, False)
TUPLE = Argument("state_is_tuple", BOOL, True)
ONE_TENSOR = Argument("state_is_tuple", BOOL, False)
PROJECTION = (width("num_proj", None), positive("proj_clip"))
LAYER_NORM = (
    Argument("layer_norm", BOOL, True),
    Argument("norm_gain", FLOAT, 1.0),
    Argument("norm_shift", FLOAT, 0.0),
    Argument("dropout_keep_prob", FLOAT, 1.0, above=0, maximum=1),
)

CELLS: dict[str, tuple[Argument, ...]] = {
    "BasicLSTMCell": (width("num_units"), FORGET_BIAS, TUPLE, ACTIVATION),
    "LSTMCell": (width("num_units"), PEEPHOLES, positive("cell_clip"), *PROJECTION,
                 FORGET_BIAS, TUPLE, ACTIVATION),
    "GRUCell": (width("num_units"), ACTIVATION),
    "BasicRNNCell": (width("num_units"), ACTIVATION),
    "LayerNormBasicLSTMCell": (width("num_units"), FORGET_BIAS, ACTIVATION, *LAYER_NORM),
    "CoupledInputForgetGateLSTMCell": (width("num_units"), PEEPHOLES, *PROJECTION, FORGET_BIAS,
                                       ONE_TENSOR, ACTIVATION),
    "LSTMBlockCell": (width("num_units"), FORGET_BIAS, Argument("use_peephole", BOOL, False)),
    "GRUBlockCell": (width("cell_size"),),
}  # fmt: skip

BRIDGE_INPUT = Argument("bridge_input", NAME, "final_state", choices=("final_state", "outputs"))
ACTIVATION_FN = Argument("activation_fn", NAME, "identity", choices=ACTIVATIONS)
BRIDGES: dict[str, tuple[Argument, ...]] = {
    "ZeroBridge": (),
    "PassThroughBridge": (),
    "InitialStateBridge": (BRIDGE_INPUT, ACTIVATION_FN),
    "ConcatInputBridge": (width("num_units"), BRIDGE_INPUT, ACTIVATION_FN),
}

# Names that the original knows and that are refused here.
REFUSED = {
    "input_size": "it is deprecated in the original and has no effect",
    "initializer": "it is a function, which a configuration cannot hold",
    "num_unit_shards": "it splits variables over machines and changes no number",
    "num_proj_shards": "it splits variables over machines and changes no number",
    "dropout_prob_seed": "all seeds come from train.seed",
    "piecewise_constant": "its boundaries and values cannot be given by these "
    "hyperparameters (the original fails on it, too)",
}

OPTIMIZERS = ("Adam", "SGD", "Momentum", "Adagrad", "RMSProp", "Ftrl")
DECAYS = (
    "", "exponential_decay", "natural_exp_decay", "inverse_time_decay", "polynomial_decay",
    "cosine_decay",
)  # fmt: skip
ENCODERS = ("UnidirectionalRNNEncoder", "BidirectionalRNNEncoder", "StackBidirectionalRNNEncoder")


def _rnn(side: str) -> tuple[Hparam, ...]:
    """Returns the hyperparameters of a stack of RNN layers: of the encoder or of the decoder."""
    dropout = (
        "Keep probability of the dropout on the (non-recurrent) {} of each RNN layer; "
        "1.0 disables dropout."
    )
    return (
        Hparam(f"{side}.rnn_cell.cell_spec", SPEC, {"class": "BasicLSTMCell", "num_units": 128},
               "The cell's class and the arguments of its constructor."),
        Hparam(f"{side}.rnn_cell.dropout_input_keep_prob", FLOAT, 1.0, dropout.format("inputs"),
               above=0, maximum=1),
        Hparam(f"{side}.rnn_cell.dropout_output_keep_prob", FLOAT, 1.0, dropout.format("outputs"),
               above=0, maximum=1),
        Hparam(f"{side}.rnn_cell.num_layers", INT, 1, "Number of RNN layers.", minimum=1,
               maximum=1000),
        Hparam(f"{side}.rnn_cell.residual_connections", BOOL, False,
               "Whether each RNN layer's input is added to its output (with two layers or more)."),
    )  # fmt: skip


HPARAMS: tuple[Hparam, ...] = (
    Hparam("source.max_seq_len", INT, 40,
           "Maximum length of source sequences in training, END included; longer ones are sliced.",
           minimum=1),
    Hparam("source.reverse", BOOL, True,
           "Whether the source is reversed before it enters the encoder."),
    Hparam("target.max_seq_len", INT, 40,
           "Maximum length of target sequences in training, START and END included; "
           "longer ones are sliced.",
           minimum=2),
    Hparam("embedding.dim", INT, 100, "Dimensionality of the embedding layer.", minimum=1,
           maximum=WIDEST),
    Hparam("inference.max_decode_length", INT, 100,
           "In inference, decode up to this length or until SEQUENCE_END, whichever comes first.",
           minimum=1),
    Hparam("optimizer.name", NAME, "Adam", "The optimizer.", choices=OPTIMIZERS),
    Hparam("optimizer.learning_rate", FLOAT, 1e-4, "Initial learning rate.", above=0),
    Hparam("optimizer.lr_decay_type", NAME, "",
           "The learning-rate decay; empty for none. polynomial_decay (which ends at "
           "optimizer.lr_min_learning_rate) and cosine_decay are ours.", choices=DECAYS),
    Hparam("optimizer.lr_decay_steps", INT, 100, "How often decay is applied, in steps.",
           minimum=1),
    Hparam("optimizer.lr_decay_rate", FLOAT, 0.99, "The decay rate.", above=0),
    Hparam("optimizer.lr_start_decay_at", INT, 0, "The step at which decay starts.", minimum=0),
    Hparam("optimizer.lr_stop_decay_at", INT, 1_000_000_000, "The step at which decay stops.",
           minimum=0),
    Hparam("optimizer.lr_min_learning_rate", FLOAT, 1e-12, "Decay never goes below this rate.",
           minimum=0),
    Hparam("optimizer.lr_staircase", BOOL, False, "Whether the rate decays at discrete intervals."),
    Hparam("optimizer.clip_gradients", FLOAT, 5.0,
           "Largest global norm of the gradients; a negative one never clips."),
    Hparam("bridge_spec", SPEC,
           {"BasicSeq2Seq": {"class": "InitialStateBridge"},
            "AttentionSeq2Seq": {"class": "ZeroBridge"}},
           "The class of the bridge that passes state from encoder to decoder, and its arguments."),
    Hparam("encoder.type", NAME, "UnidirectionalRNNEncoder", "The encoder.", choices=ENCODERS),
    *_rnn("encoder"),
    *_rnn("decoder"),
    Hparam("attention.dim", INT, 128, "Number of units in the attention layer.", minimum=1,
           maximum=WIDEST, models=("AttentionSeq2Seq",)),
    Hparam("attention.score_type", NAME, "dot", "The formula of the attention scores.",
           choices=("bahdanau", "dot"), models=("AttentionSeq2Seq",)),
    Hparam("train.batch_size", INT, 32, "Examples in a training batch.", minimum=1, ours=True),
    Hparam("optimizer.warmup_steps", INT, 0,
           "The updates over which the learning rate grows linearly, from a first one of 1 / "
           "warmup_steps of it; the decay is computed as without; 0 for none.",
           minimum=0, ours=True),
    Hparam("optimizer.weight_decay", FLOAT, 0.0,
           "Each update first takes this share, times the learning rate, from every weight "
           "(decoupled, Loshchilov & Hutter, 2019); 0 for none.",
           minimum=0, ours=True),
    Hparam("train.average_decay", FLOAT, 0.0,
           "Evaluation, checkpoints and decoding use an exponential average of the weights, in "
           "which each update counts this many times as much as the next one; 0 for the newest "
           "weights.",
           minimum=0, below=1, ours=True),
    Hparam("train.label_smoothing", FLOAT, 0.0,
           "The share of each target's probability that training spreads evenly over the target "
           "vocabulary (Szegedy et al., 2016); 0 for none. train.loss is then the smoothed loss; "
           "dev.loss never is.",
           minimum=0, below=1, ours=True),
    Hparam("train.max_steps", INT, 1000, "Steps (updates) after which training ends.", minimum=1,
           ours=True),
    Hparam("train.eval_every_steps", INT, 100, "Steps from one report to the next.", minimum=1,
           ours=True),
    Hparam("train.eval_examples", INT, 0,
           "Evaluate on a fixed part of the dev set with this many sources; 0 for all.", minimum=0,
           ours=True),
    Hparam("train.eval_batch_size", INT, 128, "Examples in an evaluation batch.", minimum=1,
           ours=True),
    Hparam("train.patience", INT, 0,
           "A trial ends after this many reports without a better one, by the metric of the "
           "search; 0 for never. Its status is then plateaued.",
           minimum=0, ours=True),
    Hparam("train.seed", INT, 0, "Seeds the initial weights, the order of the data and dropout.",
           minimum=0, ours=True),
    Hparam("inference.beam_search.beam_width", INT, 1,
           "Hypotheses that are kept; 1 decodes greedily.",
           minimum=1, maximum=WIDEST, ours=True),
    Hparam("inference.beam_search.length_penalty_weight", FLOAT, 0.0,
           "Weight of the length penalty in beam search; 0 for none.", minimum=0, ours=True),
)  # fmt: skip

TABLE = {row.name: row for row in HPARAMS}


def spec_classes(name: str) -> dict[str, tuple[Argument, ...]]:
    """Returns the classes that a spec may name, with their arguments: bridges or cells."""
    return BRIDGES if name == "bridge_spec" else CELLS


def _entries(name: str) -> Iterator[tuple[str, Argument]]:
    """Yields the dotted keys of a spec's entries with their declarations.

    Several classes may have an argument of the same name. Its kind and range are the same in all of
    them, so that a later declaration may replace an earlier one.
    """
    classes = spec_classes(name)
    for arguments in classes.values():
        for argument in arguments:
            yield f"{name}.{argument.name}", argument
    yield f"{name}.class", Argument("class", NAME, REQUIRED, choices=tuple(classes))


SPECS = tuple(row.name for row in HPARAMS if row.kind is SPEC)
ENTRIES = {key: entry for name in SPECS for key, entry in _entries(name)}


def declared(key: str) -> Argument:
    """Returns the declaration of a hyperparameter or of an entry of a spec.

    Raises:
        ValueError: the key is unknown, or refused.
    """
    found = TABLE.get(key) or ENTRIES.get(key)
    if found:
        return found
    row, _, entry = key.rpartition(".")
    if entry in REFUSED and row in TABLE:
        raise ValueError(f"{key} is refused: {REFUSED[entry]}")
    if row in TABLE and TABLE[row].kind is SPEC:
        names = [other.rpartition(".")[2] for other in ENTRIES if other.rpartition(".")[0] == row]
        raise ValueError(f"{row} has no entry {shown(entry)}{nearest(entry, names)}")
    raise ValueError(f"unknown hyperparameter {shown(key)}{nearest(key, [*TABLE, *ENTRIES])}")


def owners(key: str) -> tuple[str, ...]:
    """Returns the models that a declared key belongs to."""
    return TABLE[key if key in TABLE else key.rpartition(".")[0]].models


def canonical_model(model: object) -> str:
    """Returns the name of a model, of which the original has a second spelling.

    Raises:
        ConfigError: the model is unknown.
    """
    name = MODEL_ALIASES.get(model, model) if isinstance(model, str) else model
    if name not in MODELS:
        raise ConfigError(f"unknown model {shown(model)}{nearest(model, MODELS)}")
    return str(name)
