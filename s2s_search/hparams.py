"""Declares every hyperparameter once, and makes overrides into a complete configuration.

The table is data: defaults, kinds, ranges, docs/hparams.md, the checks of search-space files and the tests'
generators are derived from it. `resolve` is the one way to a configuration; it reports all problems at once.
"""

import difflib
import json
import math
import numbers
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from typing import Any

MODELS = ("BasicSeq2Seq", "AttentionSeq2Seq")
MODEL_ALIASES = {"AttentionSeq2seq": "AttentionSeq2Seq"}  # the hyperparameter page's spelling

Problem = tuple[str, str]  # the key that it is about ("" when several), and the sentence
Spec = dict[str, object]  # {"class": ..., argument: value, ...}


class ConfigError(ValueError):
    """Carries all problems of a user's input: "where: problem", or "where: N problems" and a line for each."""

    def __init__(self, problems: str | Sequence[str], where: str | None = None) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        self.where = where
        super().__init__(self.problems, where)

    def __str__(self) -> str:
        prefix = f"{self.where}: " if self.where else ""
        if len(self.problems) == 1:
            return prefix + self.problems[0]
        return "\n  ".join([f"{prefix}{len(self.problems)} problems", *self.problems])


def nearest(name: object, known: Iterable[str]) -> str:
    """Returns the end of a sentence about an unknown name: the nearest known one, or the known ones."""
    word, names = str(name)[:100], list(known)
    by_ending = [other for other in names if word and other.endswith("." + word)]
    close = by_ending or difflib.get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    if len(names) > 20:
        return f"; known: {', '.join(names[:3])}, ... ({len(names)} in all)"
    return "; known: " + ", ".join(other or '""' for other in names) if names else ""


def shown(value: object) -> str:
    """Returns the value as a message shows it: quoted when a string, shortened when long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ---------------------------------------------------------------------------------------------- declarations


class Kind(Enum):
    """What a value is; the value of the member is what a message calls it."""

    INT = "a whole number"
    FLOAT = "a number"
    BOOL = "true or false"
    NAME = "a name"
    SPEC = "a mapping with a class"


INT, FLOAT, BOOL, NAME, SPEC = Kind
REQUIRED = ...  # the default of an argument that must be given
WIDEST = 65536  # units: a width beyond it is a slip of the pen


@dataclass(frozen=True)
class Argument:
    """Declares an argument of a cell or bridge, or a hyperparameter. A default of None allows None."""

    name: str
    kind: Kind
    default: object
    _: KW_ONLY
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # a minimum that is itself excluded

    @property
    def law(self) -> str:
        """What a value must be, in words: "a number above 0 and at most 1"."""
        if self.choices:
            return "one of " + ", ".join(choice or '""' for choice in self.choices)
        ends = (("at least", self.minimum), ("above", self.above), ("at most", self.maximum))
        bounds = " and ".join(f"{word} {end:.12g}" for word, end in ends if end is not None)
        return f"{self.kind.value} {bounds}".strip() + (" or null" if self.default is None else "")


@dataclass(frozen=True)
class Hparam(Argument):
    """Declares a hyperparameter. A default that depends on the model is a mapping from model to default."""

    description: str
    _: KW_ONLY
    models: tuple[str, ...] = MODELS
    ours: bool = False  # not on the original's hyperparameter page

    def default_for(self, model: str) -> object:
        """Returns the default of this hyperparameter in the model; a spec as a fresh copy."""
        default = self.default
        if isinstance(default, dict) and model in default:
            default = default[model]
        return dict(default) if isinstance(default, dict) else default


def width(name: str, default: object = REQUIRED) -> Argument:
    """Declares a number of units."""
    return Argument(name, INT, default, minimum=1, maximum=WIDEST)


def positive(name: str, default: object) -> Argument:
    """Declares a number above zero."""
    return Argument(name, FLOAT, default, above=0)


ACTIVATIONS = ("identity", "tanh", "relu", "sigmoid")
ACTIVATION = Argument("activation", NAME, "tanh", choices=ACTIVATIONS)
FORGET_BIAS = Argument("forget_bias", FLOAT, 1.0)
PEEPHOLES = Argument("use_peepholes", BOOL, False)
TUPLE = Argument("state_is_tuple", BOOL, True)
ONE_TENSOR = Argument("state_is_tuple", BOOL, False)
PROJECTION = (width("num_proj", None), positive("proj_clip", None))
LAYER_NORM = (
    Argument("layer_norm", BOOL, True),
    Argument("norm_gain", FLOAT, 1.0),
    Argument("norm_shift", FLOAT, 0.0),
    Argument("dropout_keep_prob", FLOAT, 1.0, above=0, maximum=1),
)

CELLS: dict[str, tuple[Argument, ...]] = {
    "BasicLSTMCell": (width("num_units"), FORGET_BIAS, TUPLE, ACTIVATION),
    "LSTMCell": (width("num_units"), PEEPHOLES, positive("cell_clip", None), *PROJECTION, FORGET_BIAS, TUPLE,
                 ACTIVATION),
    "GRUCell": (width("num_units"), ACTIVATION),
    "BasicRNNCell": (width("num_units"), ACTIVATION),
    "LayerNormBasicLSTMCell": (width("num_units"), FORGET_BIAS, ACTIVATION, *LAYER_NORM),
    "CoupledInputForgetGateLSTMCell": (width("num_units"), PEEPHOLES, *PROJECTION, FORGET_BIAS, ONE_TENSOR,
                                       ACTIVATION),
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
    "", "exponential_decay", "natural_exp_decay", "inverse_time_decay", "polynomial_decay", "cosine_decay",
)  # fmt: skip
ENCODERS = ("UnidirectionalRNNEncoder", "BidirectionalRNNEncoder", "StackBidirectionalRNNEncoder")


def _rnn(side: str) -> tuple[Hparam, ...]:
    """The rows of a stack of RNN layers: the encoder's or the decoder's."""
    dropout = "Keep probability of the dropout on the (non-recurrent) {} of each RNN layer; 1.0 disables dropout."
    return (
        Hparam(f"{side}.rnn_cell.cell_spec", SPEC, {"class": "BasicLSTMCell", "num_units": 128},
               "The cell's class and the arguments of its constructor."),
        Hparam(f"{side}.rnn_cell.dropout_input_keep_prob", FLOAT, 1.0, dropout.format("inputs"),
               above=0, maximum=1),
        Hparam(f"{side}.rnn_cell.dropout_output_keep_prob", FLOAT, 1.0, dropout.format("outputs"),
               above=0, maximum=1),
        Hparam(f"{side}.rnn_cell.num_layers", INT, 1, "Number of RNN layers.", minimum=1, maximum=1000),
        Hparam(f"{side}.rnn_cell.residual_connections", BOOL, False,
               "Whether each RNN layer's input is added to its output (with two layers or more)."),
    )  # fmt: skip


HPARAMS: tuple[Hparam, ...] = (
    Hparam("source.max_seq_len", INT, 40,
           "Maximum length of source sequences in training, END included; longer ones are sliced.",
           minimum=1),
    Hparam("source.reverse", BOOL, True, "Whether the source is reversed before it enters the encoder."),
    Hparam("target.max_seq_len", INT, 40,
           "Maximum length of target sequences in training, START and END included; longer ones are sliced.",
           minimum=2),
    Hparam("embedding.dim", INT, 100, "Dimensionality of the embedding layer.", minimum=1, maximum=WIDEST),
    Hparam("inference.max_decode_length", INT, 100,
           "In inference, decode up to this length or until SEQUENCE_END, whichever comes first.", minimum=1),
    Hparam("optimizer.name", NAME, "Adam", "The optimizer.", choices=OPTIMIZERS),
    Hparam("optimizer.learning_rate", FLOAT, 1e-4, "Initial learning rate.", above=0),
    Hparam("optimizer.lr_decay_type", NAME, "",
           "The learning-rate decay; empty for none. polynomial_decay (which ends at "
           "optimizer.lr_min_learning_rate) and cosine_decay are ours.", choices=DECAYS),
    Hparam("optimizer.lr_decay_steps", INT, 100, "How often decay is applied, in steps.", minimum=1),
    Hparam("optimizer.lr_decay_rate", FLOAT, 0.99, "The decay rate.", above=0),
    Hparam("optimizer.lr_start_decay_at", INT, 0, "The step at which decay starts.", minimum=0),
    Hparam("optimizer.lr_stop_decay_at", INT, 1_000_000_000, "The step at which decay stops.", minimum=0),
    Hparam("optimizer.lr_min_learning_rate", FLOAT, 1e-12, "Decay never goes below this rate.", minimum=0),
    Hparam("optimizer.lr_staircase", BOOL, False, "Whether the rate decays at discrete intervals."),
    Hparam("optimizer.clip_gradients", FLOAT, 5.0,
           "Largest global norm of the gradients; a negative one never clips."),
    Hparam("bridge_spec", SPEC,
           {"BasicSeq2Seq": {"class": "InitialStateBridge"}, "AttentionSeq2Seq": {"class": "ZeroBridge"}},
           "The class of the bridge that passes state from encoder to decoder, and its arguments."),
    Hparam("encoder.type", NAME, "UnidirectionalRNNEncoder", "The encoder.", choices=ENCODERS),
    *_rnn("encoder"),
    *_rnn("decoder"),
    Hparam("attention.dim", INT, 128, "Number of units in the attention layer.", minimum=1, maximum=WIDEST,
           models=("AttentionSeq2Seq",)),
    Hparam("attention.score_type", NAME, "dot", "The formula of the attention scores.",
           choices=("bahdanau", "dot"), models=("AttentionSeq2Seq",)),
    Hparam("train.batch_size", INT, 32, "Examples in a training batch.", minimum=1, ours=True),
    Hparam("train.max_steps", INT, 1000, "Steps (updates) after which training ends.", minimum=1, ours=True),
    Hparam("train.eval_every_steps", INT, 100, "Steps from one report to the next.", minimum=1, ours=True),
    Hparam("train.eval_examples", INT, 0,
           "Evaluate on a fixed part of the dev set with this many sources; 0 for all.", minimum=0, ours=True),
    Hparam("train.eval_batch_size", INT, 128, "Examples in an evaluation batch.", minimum=1, ours=True),
    Hparam("train.seed", INT, 0, "Seeds the initial weights, the order of the data and dropout.",
           minimum=0, ours=True),
    Hparam("inference.beam_search.beam_width", INT, 1, "Hypotheses that are kept; 1 decodes greedily.",
           minimum=1, maximum=WIDEST, ours=True),
    Hparam("inference.beam_search.length_penalty_weight", FLOAT, 0.0,
           "Weight of the length penalty in beam search; 0 for none.", minimum=0, ours=True),
)  # fmt: skip

TABLE = {row.name: row for row in HPARAMS}


def spec_classes(name: str) -> dict[str, tuple[Argument, ...]]:
    """Returns the classes that the spec-valued hyperparameter `name` may name, with their arguments."""
    return BRIDGES if name == "bridge_spec" else CELLS


def _entries(name: str) -> Iterator[tuple[str, Argument]]:
    classes = spec_classes(name)
    for arguments in classes.values():  # an argument's kind and range are the same in all classes that have it
        yield from ((f"{name}.{argument.name}", argument) for argument in arguments)
    yield f"{name}.class", Argument("class", NAME, REQUIRED, choices=tuple(classes))


SPECS = tuple(row.name for row in HPARAMS if row.kind is SPEC)
ENTRIES = {key: entry for name in SPECS for key, entry in _entries(name)}


def declared(key: str) -> Argument:
    """Returns the declaration of a hyperparameter or of a spec's entry. Raises ValueError for another key."""
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
    """Returns the model's name, the page's spelling understood. Raises ConfigError when it is unknown."""
    name = MODEL_ALIASES.get(model, model) if isinstance(model, str) else model
    if name not in MODELS:
        raise ConfigError(f"unknown model {shown(model)}{nearest(model, MODELS)}")
    return str(name)


# ---------------------------------------------------------------------------------------------------- values

WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LARGEST_INT = 2**53
LARGEST_FLOAT = 3.4e38  # of float32, in which models compute


def convert(argument: Argument, value: object) -> object:
    """Returns the value in the argument's kind, text ("1e-4") included. Raises ValueError with the law."""
    if argument.default is None and (value is None or value in ("null", "None")):
        return None
    if argument.choices and isinstance(value, str) and value not in argument.choices:
        refused = f"{value} is refused: {REFUSED[value]}" if value in REFUSED else ""
        raise ValueError(refused or f"unknown name {shown(value)}{nearest(value, argument.choices)}")
    converted = _of_kind(argument.kind, value)
    if converted is None or not _within(argument, converted):
        raise ValueError(f"must be {argument.law}, but got {shown(value)}")
    return converted


def _of_kind(kind: Kind, value: object) -> object:
    """Returns the value in the kind, or None when it cannot be."""
    if kind is NAME:
        return value if isinstance(value, str) else None
    if kind is BOOL:
        return WORDS.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None
    if isinstance(value, str):
        value = float(value) if len(value) < 100 and NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if kind is FLOAT:
        return number if abs(number) <= LARGEST_FLOAT else None
    return int(number) if number.is_integer() and abs(number) <= LARGEST_INT else None


def _within(argument: Argument, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    least, most, above = argument.minimum, argument.maximum, argument.above
    return (least is None or least <= value) and (most is None or value <= most) and (above is None or above < value)


def check_spec(name: str, spec: Spec, entries: Iterable[str] = ()) -> tuple[Spec, list[Problem]]:
    """Returns the spec with its arguments in their kinds, and the problems of its class and arguments.

    A problem of an argument among `entries` is about the key name.argument, one of another is about the spec.
    """
    class_name, classes = spec.get("class"), spec_classes(name)
    if not isinstance(class_name, str) or class_name not in classes:
        key = f"{name}.class" if "class" in entries else name
        problem = f"unknown class {shown(class_name)}" if "class" in spec else "class is missing"
        return spec, [(key, f"{key}: {problem}{nearest(class_name, classes)}")]
    arguments = {argument.name: argument for argument in classes[class_name]}
    typed, problems = {"class": class_name, **spec}, list[Problem]()
    for key in typed.keys() - {"class"}:
        try:
            typed[key] = convert(_argument(class_name, arguments, key), typed[key])
        except ValueError as problem:
            problems.append((f"{name}.{key}" if key in entries else name, f"{name}.{key}: {problem}"))
    return typed, sorted(problems)


def complete_spec(name: str, spec: Spec, entries: Mapping[str, object], whole: bool) -> tuple[Spec, list[Problem]]:
    """Lays single entries over a spec (given whole, or the default); returns it, checked, and the problems.

    Entries of the default that another class does not know are dropped; its `num_units` becomes the `cell_size`
    of GRUBlockCell. An entry that was given and that the class does not know is a problem.
    """
    spec = {**spec, **entries}
    arguments = {argument.name: argument for argument in spec_classes(name).get(str(spec.get("class")), ())}
    if not whole:
        if "cell_size" in arguments:
            spec.setdefault("cell_size", spec.get("num_units"))
        spec = {key: value for key, value in spec.items() if key in arguments or key in entries or key == "class"}
    missing = [key for key, argument in arguments.items() if argument.default is REQUIRED and key not in spec]
    spec, problems = check_spec(name, spec, entries)
    return spec, [*problems, *((name, f"{name}: {spec['class']} needs {key}") for key in missing)]


def _argument(class_name: str, arguments: Mapping[str, Argument], key: str) -> Argument:
    if key in arguments:
        return arguments[key]
    if key in REFUSED:
        raise ValueError(f"{key} is refused: {REFUSED[key]}")
    raise ValueError(f"{class_name} has no argument {shown(key)}{nearest(key, arguments)}")


# ------------------------------------------------------------------------------------------------------ rules


def cell_output_size(spec: Mapping[str, object]) -> int:
    """Returns the width of the cell's output: its projection's where it has one, else its number of units."""
    size = spec.get("num_proj") or spec.get("num_units") or spec.get("cell_size")
    assert isinstance(size, int), spec
    return size


def cell_state_sizes(spec: Mapping[str, object]) -> tuple[int, ...]:
    """Returns the widths of the tensors of the cell's state: (c, h) of an LSTM, else one."""
    output = cell_output_size(spec)
    units = spec.get("num_units", output)
    assert isinstance(units, int), spec
    arguments = {argument.name: argument.default for argument in CELLS[str(spec["class"])]}
    if "forget_bias" not in arguments:
        return (output,)
    return (units, output) if spec.get("state_is_tuple", arguments.get("state_is_tuple", True)) else (units + output,)


Structure = int | str | tuple["Structure", ...]  # a tensor's width, or a tuple; an LSTM's is ("LSTM", c, h)


def _cell_structure(spec: Mapping[str, object]) -> Structure:
    sizes = cell_state_sizes(spec)
    if len(sizes) == 1:
        return sizes[0]
    return sizes if spec["class"] == "LSTMBlockCell" else ("LSTM", *sizes)


def state_structures(values: Mapping[str, object]) -> tuple[Structure, Structure]:
    """Returns the structures of the encoder's final state and of the decoder's state, as in the original.

    One layer has its cell's state, several have a tuple of them; a bidirectional encoder has (fw, bw). The
    stacked one has a tuple of layers in each direction even when there is one layer.
    """
    stacks = []
    for side in ("encoder", "decoder"):
        spec, layers = values[f"{side}.rnn_cell.cell_spec"], values[f"{side}.rnn_cell.num_layers"]
        assert isinstance(spec, dict)
        assert isinstance(layers, int)
        stacked = layers > 1 or (side == "encoder" and values["encoder.type"] == "StackBidirectionalRNNEncoder")
        stacks.append((_cell_structure(spec),) * layers if stacked else _cell_structure(spec))
    encoder, decoder = stacks
    return encoder if values["encoder.type"] == "UnidirectionalRNNEncoder" else (encoder, encoder), decoder


def _described(structure: Structure) -> str:
    if not isinstance(structure, tuple):
        return str(structure)
    if structure[0] == "LSTM":
        return f"LSTM{structure[1:]}"
    inner = _described(structure[0])
    return f"({len(structure)} x {inner})" if len(structure) > 2 else "(" + ", ".join(inner for _ in structure) + ")"


def passthrough_problems(values: Mapping[str, object]) -> list[str]:
    """PassThroughBridge hands on the encoder's final state as it is: it must be shaped as the decoder's."""
    bridge = values["bridge_spec"]
    assert isinstance(bridge, dict)
    encoder, decoder = state_structures(values)
    if bridge["class"] != "PassThroughBridge" or encoder == decoder:
        return []
    return [
        "bridge_spec: PassThroughBridge needs an encoder whose final state is shaped as the decoder's state, "
        f"but encoder = {_described(encoder)} and decoder = {_described(decoder)}; InitialStateBridge fits any"
    ]


DECAY = ("decay_type", "start_decay_at", "stop_decay_at", "decay_steps", "decay_rate", "staircase")


def decay_problems(values: Mapping[str, object]) -> list[str]:
    """Decay must keep the learning rate finite and positive; it can grow when stop < start or rate > 1."""
    kind, start, stop, steps, rate, staircase = (values[f"optimizer.lr_{name}"] for name in DECAY)
    last = values["train.max_steps"]
    assert isinstance(start, int) and isinstance(stop, int) and isinstance(last, int)  # noqa: PT018
    assert isinstance(steps, int) and isinstance(rate, float)  # noqa: PT018
    progress = (min(last, stop) - start) / steps if last > start else 0.0
    progress = math.floor(progress) if staircase else progress
    law = f"{kind} must keep the learning rate finite and positive, but rate = {rate:g} and p = {progress:g}"
    growth = {"exponential_decay": progress * math.log(rate), "natural_exp_decay": -progress * rate}
    if growth.get(str(kind), 0) > 300:  # e^300: float32 has long overflowed
        return [f"optimizer.lr_decay_type: {law} give a factor of e^{growth[str(kind)]:.4g}"]
    if kind == "inverse_time_decay" and 1 + rate * progress <= 0:
        return [f"optimizer.lr_decay_type: {law} give 1 + rate * p = {1 + rate * progress:g}"]
    return []


# There is no rule for residual connections: all layers of a stack share one spec, hence one output width, and an
# input of another width goes through a linear layer first. Nothing can be unequal, projections included.
RULES: tuple[Callable[[Mapping[str, object]], list[str]], ...] = (passthrough_problems, decay_problems)


# --------------------------------------------------------------------------------------------- configurations


class Hparams(Mapping[str, Any]):
    """A complete configuration: the model's name and a value for each hyperparameter. Never changes."""

    __slots__ = ("_values", "model")
    model: str
    _values: dict[str, object]

    def __init__(self, model: str, values: Mapping[str, object]) -> None:
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "_values", dict(values))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a configuration never changes; resolve another one")

    def __reduce__(self) -> tuple[type["Hparams"], tuple[str, dict[str, object]]]:
        return Hparams, (self.model, self._values)

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        return dict(value) if isinstance(value, dict) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hparams) and (self.model, self._values) == (other.model, other._values)

    def __hash__(self) -> int:
        return hash(json.dumps(self.flat(), sort_keys=True))

    def __repr__(self) -> str:
        return f"Hparams({self.flat()})"

    def flat(self) -> dict[str, object]:
        """Returns everything as a flat JSON-able dict, "model" first."""
        return {"model": self.model, **self}


def defaults(model: str) -> dict[str, object]:
    """Returns the default of each hyperparameter of the model. Raises ConfigError for an unknown model."""
    name = canonical_model(model)
    return {row.name: row.default_for(name) for row in HPARAMS if name in row.models}


def overlay(model: str, overrides: Mapping[str, object]) -> tuple[dict[str, object], list[Problem]]:
    """Lays overrides over the model's defaults: returns all values and the problems, those of rules aside."""
    values, problems = defaults(model), list[Problem]()
    specs: dict[str, Spec] = {}
    entries: dict[str, dict[str, object]] = {}
    for key, value in overrides.items():
        try:
            if key == "model":
                if canonical_model(value) != model:
                    raise ValueError(f"model is {shown(value)}, but this is a {model}")
                continue
            argument = declared(str(key))
            if model not in owners(key):
                raise ValueError(f"{key} belongs to {' and '.join(owners(key))}, and this is a {model}")
            row, _, entry = key.rpartition(".")
            if key in ENTRIES:
                entries.setdefault(row, {})[entry] = value
            elif argument.kind is SPEC:
                specs[key] = _mapping(key, value)
            else:
                values[key] = _converted(argument, key, value)
        except ValueError as problem:
            problems.append((str(key), str(problem)))
    for name in [row for row in SPECS if row in specs or row in entries]:
        spec = specs.get(name, values[name])
        assert isinstance(spec, dict)
        values[name], found = complete_spec(name, spec, entries.get(name, {}), whole=name in specs)
        problems += found
    return values, problems


def _mapping(key: str, value: object) -> Spec:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: must be {SPEC.value}, but got {shown(value)}")
    return {str(name): entry for name, entry in value.items()}


def _converted(argument: Argument, key: str, value: object) -> object:
    try:
        return convert(argument, value)
    except ValueError as problem:
        raise ValueError(f"{key}: {problem}") from None


def resolve(model: str, overrides: Mapping[str, object]) -> Hparams:
    """Returns the complete configuration. Raises ConfigError with all problems of names, values and rules."""
    name = canonical_model(model)
    values, problems = overlay(name, overrides)
    sentences = [sentence for _, sentence in problems] or [text for rule in RULES for text in rule(values)]
    if sentences:
        raise ConfigError(sentences)
    return Hparams(name, values)


# ------------------------------------------------------------------------------------------------- text forms

NAME_AND_EQUALS = re.compile(r"\s*([^\s=,]+)\s*=\s*")
COMMA_OR_END = re.compile(r"\s*(,|$)")


def parse_hparams(text: str) -> dict[str, object]:
    """Returns the overrides written as "a.b=1,c.d={...JSON...}" (the original's form) or as one JSON object.

    Values stay text where they are not JSON; the table decides their kinds. Raises ConfigError.
    """
    try:
        if text.strip().startswith("{"):
            return dict(json.loads(text, object_pairs_hook=_without_duplicates))
        return _without_duplicates(_assignments(text))
    except json.JSONDecodeError as problem:
        raise ConfigError(f"no valid JSON: {problem}, in {shown(text)}") from None
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{problem}, in {shown(text)}") from None


def _without_duplicates(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = value
    return values


def _assignments(text: str) -> Iterator[tuple[str, object]]:
    decoder, position = json.JSONDecoder(object_pairs_hook=_without_duplicates), 0
    while text[position:].strip():
        match = NAME_AND_EQUALS.match(text, position)
        if not match:
            raise ValueError(f"expected name=value, but got {shown(text[position:])}")
        name, position = match[1], match.end()
        value: object
        if text.startswith(("{", "[", '"'), position):
            try:
                value, position = decoder.raw_decode(text, position)
            except json.JSONDecodeError as problem:
                raise ValueError(f"{name}: no valid JSON: {problem}") from None
        else:
            value = text[position:].partition(",")[0]
            position += len(value)
            value = value.strip()
        yield name, value
        separator = COMMA_OR_END.match(text, position)
        if not separator:
            raise ValueError(f"{name}: expected a comma after the value, but got {shown(text[position:])}")
        position = separator.end()


def _code(value: object) -> str:
    if value is REQUIRED or value == "":
        return "" if value == "" else "must be given"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _row(row: Hparam) -> str:
    values = {model: _code(row.default_for(model)) for model in row.models}
    each = "; ".join(f"{model}: {value}" for model, value in values.items())
    default = each if len(set(values.values())) > 1 else next(iter(values.values()))
    return f"| `{row.name}` | {default} | {row.law} | {row.description} |"


def _section(title: str, rows: Iterable[Hparam]) -> list[str]:
    head = ["| Name | Default | Values | Description |", "| --- | --- | --- | --- |"]
    return [f"\n## {title}\n", *head, *map(_row, rows)]


def _classes(title: str, classes: Mapping[str, tuple[Argument, ...]]) -> list[str]:
    lines = [f"\n## {title}\n", "| Class | Argument | Default | Values |", "| --- | --- | --- | --- |"]
    for name, arguments in classes.items():
        lines += [f"| `{name}` | `{a.name}` | {_code(a.default)} | {a.law} |" for a in arguments]
        lines += [] if arguments else [f"| `{name}` | none | | |"]
    return lines


def reference() -> str:
    """Returns docs/hparams.md, made from the table."""
    common = HPARAMS[: HPARAMS.index(TABLE["bridge_spec"])]
    models = [row for row in HPARAMS if not row.ours and row not in common]
    lines = [
        "<!-- Written by `python -m s2s_search.hparams > docs/hparams.md`; do not edit. -->",
        "# Hyperparameters\n",
        "Models: " + ", ".join(f"`{model}`" for model in MODELS) + " (`AttentionSeq2seq` is understood).",
        "One entry of a spec is set by one more dot: `encoder.rnn_cell.cell_spec.num_units=256`. A spec given",
        "whole replaces the default whole. Where an entry sets another class, entries of the default that it does",
        "not know are dropped, and `num_units` becomes the `cell_size` of `GRUBlockCell`.",
        *_section("Common", common),
        *_section("Both models", (row for row in models if row.models == MODELS)),
        *_section("AttentionSeq2Seq only", (row for row in models if row.models != MODELS)),
        *_section("Ours: training, evaluation and beam search", (row for row in HPARAMS if row.ours)),
        *_classes("Cells", CELLS),
        *_classes("Bridges", BRIDGES),
        "\n## Rules\n",
        *(f"- {rule.__doc__}" for rule in RULES),
        "\nNames that the original knows and that are refused:\n",
        *(f"- `{name}`: {reason}." for name, reason in REFUSED.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
