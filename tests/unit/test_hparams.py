"""The table against the hyperparameter page; overrides, rules and text forms."""

import copy
import json
import math
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s2s_search.errors import ConfigError, nearest
from s2s_search.hparams.arguments import SPEC
from s2s_search.hparams.configuration import Hparams, defaults, parse_hparams, resolve
from s2s_search.hparams.reference import reference
from s2s_search.hparams.rules import cell_output_size, cell_state_sizes, state_structures
from s2s_search.hparams.table import (
    BRIDGES,
    CELLS,
    ENCODERS,
    ENTRIES,
    HPARAMS,
    MODELS,
    SPECS,
    TABLE,
    declared,
)
from s2s_search.hparams.values import convert

PAGE = Path(__file__).parent / "data" / "hyperparameters.md"
DOCUMENT = Path(__file__).parents[2] / "docs" / "hparams.md"


def page_sections() -> dict[str, dict[str, str]]:
    """The rows of the page: section -> name -> default as written."""
    sections: dict[str, dict[str, str]] = {}
    rows: dict[str, str] = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            rows = sections.setdefault(line[3:].strip(), {})
        elif match := re.match(r"\| `([\w.]+)` \|([^|]*)\|", line):
            rows[match[1]] = match[2].strip().strip("`")
    return sections


def problems(model: str, overrides: dict[str, object]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        resolve(model, overrides)
    return caught.value.problems


def assert_readable(error: ConfigError) -> None:
    assert error.problems
    assert all(isinstance(problem, str) and problem for problem in error.problems)


KEYS = st.sampled_from([*TABLE, *ENTRIES, "x", "bridge_spec.x"])
WORDS = st.sampled_from([*CELLS, *BRIDGES, "", "1", "1e-4", "null", "true", "nan", "x" * 1000])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
SPECIFICATIONS = st.dictionaries(
    st.sampled_from(["class", "num_units", "activation_fn", "x"]), SCALARS, max_size=3
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | SPECIFICATIONS


class TestPage:
    def test_every_row_is_in_the_table_in_the_same_order(self):
        names = [name for rows in page_sections().values() for name in rows]
        assert len(names) == 29
        assert [row.name for row in HPARAMS if not row.ours] == names

    @pytest.mark.parametrize("model", MODELS)
    def test_defaults_are_those_of_the_page(self, model):
        sections = page_sections()
        rows = {**sections["Common Hyperparameters"], **sections["BasicSeq2Seq"]}
        if model == "AttentionSeq2Seq":
            rows |= sections["AttentionSeq2seq"] | {
                "bridge_spec": '{"class": "ZeroBridge"}'
            }  # its prose says so
        ours = defaults(model)
        for name, text in rows.items():
            expected = (
                json.loads(text) if declared(name).kind is SPEC else convert(declared(name), text)
            )
            assert ours[name] == expected, name
            assert type(ours[name]) is type(expected), name
        assert {name for name in ours if not TABLE[name].ours} == set(rows)

    def test_sections_are_the_models(self):
        for row in page_sections()["AttentionSeq2seq"]:
            assert TABLE[row].models == ("AttentionSeq2Seq",)

    def test_document_is_fresh(self):
        assert DOCUMENT.read_text() == reference(), (
            "run: python -m s2s_search.hparams.reference > docs/hparams.md"
        )


class TestTable:
    def test_every_default_obeys_its_own_law(self):
        for row in HPARAMS:
            if row.kind is not SPEC:
                assert convert(row, row.default) == row.default

    def test_an_argument_means_the_same_in_every_class(self):
        for classes in (CELLS, BRIDGES):
            seen: dict[str, object] = {}
            for arguments in classes.values():
                for argument in arguments:
                    law = (argument.kind, argument.law)
                    assert seen.setdefault(argument.name, law) == law

    def test_defaults_are_fresh_copies(self):
        defaults("BasicSeq2Seq")["bridge_spec"]["class"] = "ZeroBridge"
        assert defaults("BasicSeq2Seq")["bridge_spec"] == {"class": "InitialStateBridge"}

    @pytest.mark.parametrize("model", MODELS)
    def test_defaults_resolve(self, model):
        assert dict(resolve(model, {})) == defaults(model)


class TestValues:
    @pytest.mark.parametrize(
        "name, given, expected",
        [
            ("optimizer.learning_rate", "1e-4", 1e-4),
            ("optimizer.learning_rate", 1, 1.0),
            ("optimizer.lr_stop_decay_at", "1e9", 10**9),
            ("optimizer.lr_stop_decay_at", 1e9, 10**9),
            ("embedding.dim", " 64 ", 64),
            ("source.reverse", "False", False),
            ("source.reverse", "yes", True),
            ("optimizer.clip_gradients", -1, -1.0),
            ("optimizer.clip_gradients", "0", 0.0),
            ("optimizer.lr_decay_type", "", ""),
        ],
    )
    def test_kinds_come_from_the_table(self, name, given, expected):
        value = resolve("BasicSeq2Seq", {name: given})[name]
        assert value == expected
        assert type(value) is type(expected)

    @pytest.mark.parametrize(
        "name, given",
        [
            ("embedding.dim", True),
            ("embedding.dim", 1.5),
            ("embedding.dim", "64.5"),
            ("embedding.dim", 0),
            ("embedding.dim", 10**400),
            ("embedding.dim", "9" * 5000),
            ("embedding.dim", "٣"),
            ("embedding.dim", None),
            ("embedding.dim", [64]),
            ("optimizer.learning_rate", "nan"),
            ("optimizer.learning_rate", math.inf),
            ("optimizer.learning_rate", "1e999"),
            ("optimizer.learning_rate", 1e39),
            ("optimizer.learning_rate", "1_0"),
            ("optimizer.learning_rate", False),
            ("optimizer.learning_rate", 0),
            ("target.max_seq_len", 1),
            ("source.reverse", 1),
            ("source.reverse", "maybe"),
            ("optimizer.name", 3),
            ("optimizer.name", "adam"),
            ("encoder.rnn_cell.dropout_input_keep_prob", 0),
            ("encoder.rnn_cell.dropout_input_keep_prob", 1.01),
            ("bridge_spec", "ZeroBridge"),
            ("bridge_spec", None),
        ],
    )
    def test_a_value_against_its_law_is_refused(self, name, given):
        (problem,) = problems("BasicSeq2Seq", {name: given})
        assert problem.startswith(f"{name}: ")
        assert len(problem) < 250

    def test_all_problems_at_once(self):
        found = problems(
            "BasicSeq2Seq",
            {
                "attention.score_type": "dot",
                "optimizer.learning_rte": 1,
                "optimizer.lr_decay_type": "piecewise_constant",
                "encoder.rnn_cell.cell_spec.num_units": 0,
                "decoder.rnn_cell.cell_spec": {"class": "GRUCel", "num_units": 8},
                "bridge_spec.activation_fun": "tanh",
            },
        )
        assert found == (
            "attention.score_type belongs to AttentionSeq2Seq, and this is a BasicSeq2Seq",
            "unknown hyperparameter 'optimizer.learning_rte'; did you mean "
            "'optimizer.learning_rate'?",
            "optimizer.lr_decay_type: piecewise_constant is refused: its boundaries and values "
            "cannot be given by "
            "these hyperparameters (the original fails on it, too)",
            "bridge_spec has no entry 'activation_fun'; did you mean 'activation_fn'?",
            "encoder.rnn_cell.cell_spec.num_units: must be a whole number at least 1 and at most "
            "65536, but got 0",
            "decoder.rnn_cell.cell_spec: unknown class 'GRUCel'; did you mean 'GRUCell'?",
        )

    def test_an_ending_is_enough_to_find_a_name(self):
        assert nearest("learning_rate", TABLE) == "; did you mean 'optimizer.learning_rate'?"

    @pytest.mark.parametrize(
        "word, known, guess",
        [
            ("low", ("log", "min", "max"), "min"),
            ("high", ("log", "min", "max"), "max"),
            ("lower", ("log", "min", "max"), "min"),
            ("values", ("choices", "role"), "choices"),
            ("eta", ("max_steps", "reduction_factor"), "reduction_factor"),
            ("lag", ("log", "min"), None),
            ("dev.cer", ("dev.loss", "dev.bleu"), None),
            ("metric", ("method", "retries"), None),
            ("grace", ("grace_steps", "max_steps"), "grace_steps"),
            ("steps", ("grace_steps", "max_steps"), "max_steps"),
            ("gamma", ("lr_decay_rate",), None),
            ("low", ("log", "high"), None),
        ],
    )
    def test_the_words_of_other_tools_are_known_and_far_spellings_are_no_guess(
        self, word, known, guess
    ):
        expected = f"; did you mean '{guess}'?" if guess else f"; known: {', '.join(known)}"
        assert nearest(word, known) == expected

    def test_unknown_model(self):
        with pytest.raises(
            ConfigError, match="unknown model 'Transformer'; known: BasicSeq2Seq, AttentionSeq2Seq"
        ):
            resolve("Transformer", {})

    def test_model_key_must_agree(self):
        assert (
            resolve("AttentionSeq2seq", {"model": "AttentionSeq2Seq"}).model == "AttentionSeq2Seq"
        )
        assert problems("BasicSeq2Seq", {"model": "AttentionSeq2Seq"})

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(KEYS, VALUES, max_size=6), st.sampled_from(MODELS))
    def test_any_overrides_resolve_or_are_a_config_error(self, overrides, model):
        try:
            configuration = resolve(model, overrides)
        except ConfigError as error:
            configuration = None
            assert_readable(error)
        assert configuration is None or resolve(model, configuration) == configuration


class TestSpecs:
    CELL = "encoder.rnn_cell.cell_spec"

    def test_an_entry_sets_one_entry_of_the_default(self):
        h = resolve("BasicSeq2Seq", {f"{self.CELL}.num_units": 64, f"{self.CELL}.forget_bias": "0"})
        assert h[self.CELL] == {"class": "BasicLSTMCell", "num_units": 64, "forget_bias": 0.0}

    def test_a_spec_given_whole_replaces_the_default_whole(self):
        h = resolve(
            "AttentionSeq2Seq",
            {"bridge_spec": {"class": "InitialStateBridge", "activation_fn": "tanh"}},
        )
        assert h["bridge_spec"] == {"class": "InitialStateBridge", "activation_fn": "tanh"}
        assert problems("BasicSeq2Seq", {self.CELL: {"class": "GRUCell"}}) == (
            f"{self.CELL}: GRUCell needs num_units",
        )

    def test_an_entry_beside_a_whole_spec_wins(self):
        overrides = {f"{self.CELL}.num_units": 9, self.CELL: {"class": "GRUCell", "num_units": 5}}
        assert resolve("BasicSeq2Seq", overrides)[self.CELL] == {"class": "GRUCell", "num_units": 9}

    def test_another_class_keeps_what_it_knows_of_the_default(self):
        overrides = {"bridge_spec.class": "ZeroBridge", f"{self.CELL}.class": "GRUBlockCell"}
        assert resolve("BasicSeq2Seq", overrides)[self.CELL] == {
            "class": "GRUBlockCell",
            "cell_size": 128,
        }

    def test_an_entry_that_the_class_does_not_know_is_an_error(self):
        overrides = {f"{self.CELL}.class": "GRUBlockCell", f"{self.CELL}.num_units": 4}
        assert problems("BasicSeq2Seq", overrides)[0] == (
            f"{self.CELL}.num_units: GRUBlockCell has no argument 'num_units'; known: cell_size"
        )

    @pytest.mark.parametrize("entry", ["initializer", "input_size", "num_unit_shards"])
    def test_refused_arguments_say_why(self, entry):
        (single,) = problems("BasicSeq2Seq", {f"{self.CELL}.{entry}": 1})
        (whole,) = problems(
            "BasicSeq2Seq", {self.CELL: {"class": "LSTMCell", "num_units": 4, entry: 1}}
        )
        assert "is refused: it" in single
        assert "is refused: it" in whole

    def test_optional_arguments_may_be_null(self):
        spec = {"class": "LSTMCell", "num_units": 4, "num_proj": None, "cell_clip": "null"}
        h = resolve("BasicSeq2Seq", {self.CELL: spec})
        assert h[self.CELL] == {**spec, "cell_clip": None}

    @pytest.mark.parametrize(
        "spec, output, sizes",
        [
            ({"class": "BasicLSTMCell", "num_units": 5}, 5, (5, 5)),
            ({"class": "BasicLSTMCell", "num_units": 5, "state_is_tuple": False}, 5, (10,)),
            ({"class": "LSTMCell", "num_units": 5, "num_proj": 3}, 3, (5, 3)),
            ({"class": "LSTMCell", "num_units": 5, "num_proj": None}, 5, (5, 5)),
            (
                {"class": "LSTMCell", "num_units": 5, "num_proj": 3, "state_is_tuple": False},
                3,
                (8,),
            ),
            ({"class": "GRUCell", "num_units": 5}, 5, (5,)),
            ({"class": "BasicRNNCell", "num_units": 5}, 5, (5,)),
            ({"class": "LayerNormBasicLSTMCell", "num_units": 5}, 5, (5, 5)),
            ({"class": "CoupledInputForgetGateLSTMCell", "num_units": 5, "num_proj": 3}, 3, (8,)),
            (
                {"class": "CoupledInputForgetGateLSTMCell", "num_units": 5, "state_is_tuple": True},
                5,
                (5, 5),
            ),
            ({"class": "LSTMBlockCell", "num_units": 5}, 5, (5, 5)),
            ({"class": "GRUBlockCell", "cell_size": 5}, 5, (5,)),
        ],
    )
    def test_sizes(self, spec, output, sizes):
        assert cell_output_size(spec) == output
        assert cell_state_sizes(spec) == sizes


LSTM = {"class": "BasicLSTMCell", "num_units": 4}
GRU = {"class": "GRUCell", "num_units": 4}
BLOCK = {"class": "LSTMBlockCell", "num_units": 4}
UNI, BIDI, STACK = ENCODERS


class TestPassThrough:
    """PassThroughBridge compares structures and widths, as the original's check does."""

    @pytest.mark.parametrize(
        "encoder, layers, cell, decoder_layers, decoder_cell, fits",
        [
            (UNI, 1, LSTM, 1, LSTM, True),
            (UNI, 2, LSTM, 2, LSTM, True),
            (UNI, 2, LSTM, 1, LSTM, False),
            (UNI, 1, LSTM, 1, GRU, False),
            (UNI, 1, LSTM, 1, BLOCK, False),  # a named pair is no plain pair
            (UNI, 1, LSTM, 1, {"class": "LSTMCell", "num_units": 4}, True),
            (UNI, 1, LSTM, 1, {"class": "LSTMCell", "num_units": 4, "num_proj": 3}, False),
            (UNI, 1, GRU, 1, {"class": "GRUCell", "num_units": 5}, False),
            (UNI, 1, GRU, 1, {"class": "GRUBlockCell", "cell_size": 4}, True),
            (BIDI, 1, LSTM, 2, LSTM, True),  # forward to layer 0, backward to layer 1
            (BIDI, 1, LSTM, 1, LSTM, False),
            (BIDI, 1, GRU, 1, BLOCK, True),  # (fw, bw) is a plain pair
            (BIDI, 2, LSTM, 2, LSTM, False),
            (BIDI, 2, GRU, 2, BLOCK, True),
            (STACK, 1, LSTM, 2, LSTM, False),
            (STACK, 1, LSTM, 1, LSTM, False),
            (STACK, 2, GRU, 2, BLOCK, True),
        ],
    )
    def test_fits(self, encoder, layers, cell, decoder_layers, decoder_cell, fits):
        overrides = {
            "bridge_spec": {"class": "PassThroughBridge"},
            "encoder.type": encoder,
            "encoder.rnn_cell.num_layers": layers,
            "encoder.rnn_cell.cell_spec": cell,
            "decoder.rnn_cell.num_layers": decoder_layers,
            "decoder.rnn_cell.cell_spec": decoder_cell,
        }
        if fits:
            encoder_state, decoder_state = state_structures(resolve("BasicSeq2Seq", overrides))
            assert encoder_state == decoder_state
        else:
            (problem,) = problems("BasicSeq2Seq", overrides)
            assert "PassThroughBridge needs an encoder whose final state" in problem
            assert problem.endswith("; InitialStateBridge fits any")

    def test_message_shows_both_states(self):
        overrides = {"bridge_spec.class": "PassThroughBridge", "encoder.rnn_cell.num_layers": 3}
        (problem,) = problems("BasicSeq2Seq", overrides)
        assert "encoder = (3 x LSTM(128, 128)) and decoder = LSTM(128, 128)" in problem

    def test_it_is_checked_beside_a_wrong_value_that_it_does_not_read(self):
        broken = {"bridge_spec.class": "PassThroughBridge", "encoder.rnn_cell.num_layers": 3}
        found = problems("BasicSeq2Seq", broken | {"optimizer.learning_rate": -1})
        assert len(found) == 2
        assert found[0].startswith("optimizer.learning_rate: must be a number above 0")
        assert found[1].startswith("bridge_spec: PassThroughBridge needs")
        for wrong in ("decoder.rnn_cell.num_layers", "decoder.rnn_cell.cell_spec.num_units"):
            (problem,) = problems("BasicSeq2Seq", broken | {wrong: -3})
            assert problem.startswith(wrong)


class TestDecay:
    @pytest.mark.parametrize(
        "kind, rate, steps, start, stop",
        [
            ("inverse_time_decay", 0.5, 1, 100, 10),
            ("exponential_decay", 0.5, 1, 900, 10),
            ("exponential_decay", 2.0, 1, 0, 10**9),
            ("natural_exp_decay", 1.0, 1, 500, 10),
        ],
    )
    def test_growth_without_end_is_refused(self, kind, rate, steps, start, stop):
        (problem,) = problems("BasicSeq2Seq", self.overrides(kind, rate, steps, start, stop))
        assert "must keep the learning rate finite and positive" in problem

    @pytest.mark.parametrize(
        "kind, rate, steps, start, stop",
        [
            ("inverse_time_decay", 0.5, 100, 100, 10),
            ("exponential_decay", 0.5, 10, 100, 10),
            ("exponential_decay", 1.1, 100, 0, 10**9),
            ("exponential_decay", 0.5, 1, 5000, 10),  # training ends before decay starts
            ("", 2.0, 1, 0, 10**9),
        ],
    )
    def test_moderate_growth_is_the_users_business(self, kind, rate, steps, start, stop):
        resolve("BasicSeq2Seq", self.overrides(kind, rate, steps, start, stop))

    @staticmethod
    def overrides(kind, rate, steps, start, stop):
        names = ("decay_type", "decay_rate", "decay_steps", "start_decay_at", "stop_decay_at")
        return {
            f"optimizer.lr_{n}": v
            for n, v in zip(names, (kind, rate, steps, start, stop), strict=True)
        }


class TestHparams:
    def test_is_a_value(self):
        one, same = (resolve("BasicSeq2Seq", {"embedding.dim": n}) for n in (64, "64"))
        assert one == same
        assert hash(one) == hash(same)
        assert one != resolve("BasicSeq2Seq", {})
        assert resolve("AttentionSeq2Seq", {}) != resolve("BasicSeq2Seq", {})
        assert pickle.loads(pickle.dumps(one)) == one
        assert copy.deepcopy(one) == one

    def test_never_changes(self):
        h = resolve("BasicSeq2Seq", {})
        h["bridge_spec"]["class"] = "ZeroBridge"
        h.flat()["bridge_spec"]["class"] = "ZeroBridge"
        assert h["bridge_spec"] == {"class": "InitialStateBridge"}
        with pytest.raises(AttributeError):
            h.model = "AttentionSeq2Seq"
        with pytest.raises(TypeError):
            h["embedding.dim"] = 3

    def test_flat_resolves_to_itself_through_json(self):
        h = resolve("AttentionSeq2Seq", {"attention.dim": 7})
        flat = json.loads(json.dumps(h.flat()))
        assert next(iter(flat)) == "model"
        assert resolve(flat["model"], flat) == h
        assert isinstance(h, Hparams)
        assert len(h) == len(list(h)) == len(flat) - 1


class TestParse:
    def test_the_original_form(self):
        text = (
            "optimizer.name=SGD, optimizer.learning_rate=1e-1,"
            'bridge_spec={"class": "ZeroBridge"} ,a="x,y",b='
        )
        assert parse_hparams(text) == {
            "optimizer.name": "SGD",
            "optimizer.learning_rate": "1e-1",
            "bridge_spec": {"class": "ZeroBridge"},
            "a": "x,y",
            "b": "",
        }

    def test_a_json_object(self):
        assert parse_hparams(' {"embedding.dim": 64, "bridge_spec": {"class": "ZeroBridge"}}') == {
            "embedding.dim": 64,
            "bridge_spec": {"class": "ZeroBridge"},
        }

    def test_nothing(self):
        assert parse_hparams("") == parse_hparams(" ") == parse_hparams("{}") == {}

    @pytest.mark.parametrize("name", SPECS)
    def test_flat_defaults_survive_as_text(self, name):
        for model in MODELS:
            text = ",".join(
                f"{k}={json.dumps(v) if k in SPECS else v}" for k, v in defaults(model).items()
            )
            assert resolve(model, parse_hparams(text)) == resolve(model, {})

    @pytest.mark.parametrize(
        "text, message",
        [
            ("embedding.dim", "expected name=value, but got 'embedding.dim'"),
            ("a=1,a=2", "a is given twice"),
            ('{"a": 1, "a": 2}', "a is given twice"),
            ('{"a": ', "no valid JSON"),
            ("a={'class': 1}", "a: no valid JSON"),
            ('a={"b": 1} c', "a: expected a comma"),
            ("[1]", "expected name=value"),
            ("a=" + "[" * 100_000, "recursion"),
        ],
    )
    def test_what_is_wrong(self, text, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            parse_hparams(text)

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.text(alphabet='a.=,{}[]":1 \n', max_size=30))
    def test_any_text_is_parsed_or_a_config_error(self, text):
        try:
            assert isinstance(parse_hparams(text), dict)
        except ConfigError as error:
            assert_readable(error)


class TestConfigError:
    def test_one_problem_in_one_line(self):
        assert str(ConfigError("line 3: broken", "x.yaml")) == "x.yaml: line 3: broken"
        assert str(ConfigError("broken")) == "broken"

    def test_several_problems_a_line_each(self):
        error = ConfigError(["line 3: a", "line 9: b"], "x.yaml")
        assert str(error) == "x.yaml: 2 problems\n  line 3: a\n  line 9: b"
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
