"""The grammar of search-space files: what each form means, and what is refused with which line."""

import math
import pickle
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import resolve
from s2s_search.hparams.table import ENTRIES, TABLE
from s2s_search.nn.models import build_model
from s2s_search.spaces.constraints import read_constraints
from s2s_search.spaces.dimensions import Choice, Range, Tie
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space
from s2s_search.spaces.yaml_file import Problems

ROOT = Path(__file__).parents[2]
CELL = "encoder.rnn_cell.cell_spec"


@pytest.fixture
def load(tmp_path):
    """Loads a space from text: parameters alone, or a whole file where it names a model."""

    def load(text: str, **sections: str) -> Space:
        text = textwrap.dedent(text)
        if not re.search("^model:", text, re.MULTILINE):
            head = {"model": "AttentionSeq2Seq", "search": "{trials: 1}", **sections}
            text = (
                "".join(f"{name}: {value}\n" for name, value in head.items())
                + "parameters:\n"
                + indent(text)
            )
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return load_space(path)

    return load


@pytest.fixture
def problems(load):
    def problems(text: str, **sections: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, **sections)
        assert str(caught.value).splitlines()[0].startswith(caught.value.where)
        return [re.sub(": +", ": ", problem, count=1) for problem in caught.value.problems]

    return problems


def indent(text: str) -> str:
    return textwrap.indent(text.strip("\n"), "  ") + "\n"


def domain(space: Space, key: str) -> Choice | Range | Tie:
    (found,) = (dimension.domain for dimension in space.dimensions if dimension.key == key)
    return found


class TestForms:
    def test_constant(self, load):
        space = load("embedding.dim: 64")
        assert space.searched == ()
        assert space.at([]) == {"model": "AttentionSeq2Seq", "embedding.dim": 64}

    def test_choice(self, load):
        space = load("embedding.dim: [64, 128, 256]")
        assert [space.at([u])["embedding.dim"] for u in (0, 0.33, 0.34, 0.67, 1)] == [
            64,
            64,
            128,
            256,
            256,
        ]

    def test_weights(self, load):
        space = load("embedding.dim: {choices: [64, 128], weights: [3, 1]}")
        assert [space.at([u])["embedding.dim"] for u in (0, 0.74, 0.75, 1)] == [64, 64, 128, 128]

    def test_weights_by_labels(self, load):
        space = load("""
            bridge_spec:
              choices: {zero: {class: ZeroBridge}, state: {class: InitialStateBridge}}
              weights: {state: 1, zero: 4}
        """)
        drawn = [space.label("bridge_spec", space.at([u])["bridge_spec"]) for u in (0.79, 0.8)]
        assert drawn == ["zero", "state"]

    def test_kinds_come_from_the_table(self, load):
        space = load("""
            optimizer.learning_rate: 1e-4
            optimizer.lr_decay_type: ["", exponential_decay]
            optimizer.lr_staircase: no
            source.reverse: "True"
            optimizer.lr_stop_decay_at: 1e9
            encoder.rnn_cell.cell_spec:
              {class: LSTMCell, num_units: "64", use_peepholes: yes, num_proj: ~}
        """)
        flat = space.at([0.0])
        assert flat["optimizer.learning_rate"] == 1e-4
        assert flat["optimizer.lr_decay_type"] == ""
        assert flat["optimizer.lr_staircase"] is False
        assert flat["source.reverse"] is True
        assert repr(flat["optimizer.lr_stop_decay_at"]) == "1000000000"
        assert flat[CELL] == {
            "class": "LSTMCell",
            "num_units": 64,
            "use_peepholes": True,
            "num_proj": None,
        }

    def test_labelled_choices_and_conditions_on_labels(self, load):
        space = load(
            """
            bridge_spec:
              choices:
                zero: {class: ZeroBridge}
                initial: {class: InitialStateBridge, activation_fn: tanh}
              role: scientific
            embedding.dim: {choices: [7], when: {bridge_spec: initial}}
            """
        )
        assert space.at([0.0]) == {
            "model": "AttentionSeq2Seq",
            "bridge_spec": {"class": "ZeroBridge"},
        }
        assert space.at([1.0])["embedding.dim"] == 7
        assert space.label("bridge_spec", space.at([1.0])["bridge_spec"]) == "initial"
        assert space.label("embedding.dim", 7) == 7
        assert space.dimensions[1].role == "scientific"

    def test_same_as_ties_a_spec_with_its_entries(self, load):
        space = load(f"""
            {CELL}.class: [GRUCell, LSTMCell]
            {CELL}.num_units: [8, 16]
            {CELL}.use_peepholes: {{choices: [true], when: {{{CELL}.class: LSTMCell}}}}
            decoder.rnn_cell.cell_spec: {{same_as: {CELL}}}
            attention.dim: {{same_as: {CELL}.num_units}}
        """)
        assert space.searched == (f"{CELL}.class", f"{CELL}.num_units")
        for flat in space.grid():
            h = resolve("AttentionSeq2Seq", flat)
            assert h[CELL] == h["decoder.rnn_cell.cell_spec"]
            assert h["attention.dim"] == h[CELL]["num_units"]

    def test_same_as_ties_a_whole_spec_and_an_own_entry_wins(self, load):
        space = load(f"""
            {CELL}: [{{class: GRUCell, num_units: 8}}, {{class: BasicRNNCell, num_units: 9}}]
            decoder.rnn_cell.cell_spec: {{same_as: {CELL}}}
            decoder.rnn_cell.cell_spec.num_units: 32
            attention.dim: {{same_as: {CELL}.num_units}}
        """)
        h = resolve("AttentionSeq2Seq", space.at([1.0]))
        assert h["decoder.rnn_cell.cell_spec"] == {"class": "BasicRNNCell", "num_units": 32}
        assert h["attention.dim"] == 9

    def test_conditions_all_hold_and_chain(self, load):
        space = load("""
            optimizer.lr_staircase: {choices: [true], when: {optimizer.lr_decay_rate: [0.25]}}
            optimizer.lr_decay_rate:
              choices: [0.25, 0.75]
              when:
                optimizer.lr_decay_type: [exponential_decay, natural_exp_decay]
                optimizer.name: SGD
            optimizer.lr_decay_type: ["", exponential_decay, natural_exp_decay]
            optimizer.name: [Adam, SGD]
        """)
        flats = [flat for flat in space.grid() if "optimizer.lr_decay_rate" in flat]
        assert len(space.grid()) == 8
        assert [flat["optimizer.lr_decay_rate"] for flat in flats] == [0.25, 0.75] * 2
        assert [("optimizer.lr_staircase" in flat) for flat in flats] == [True, False] * 2

    def test_a_condition_on_a_key_outside_the_file_looks_at_its_default(self, load):
        space = load("embedding.dim: {choices: [7], when: {optimizer.name: Adam}}")
        assert space.at([])["embedding.dim"] == 7

    def test_keys_of_one_of_two_models(self, load):
        space = load(
            """
            attention.score_type: [dot, bahdanau]
            attention.dim: 32
            embedding.dim: {choices: [7], when: {model: BasicSeq2Seq}}
            """,
            model="[BasicSeq2Seq, AttentionSeq2seq]",
        )
        assert space.models == ("BasicSeq2Seq", "AttentionSeq2Seq")
        assert space.searched == ("model", "attention.score_type")
        assert space.grid() == [
            {"model": "BasicSeq2Seq", "embedding.dim": 7},
            {"model": "AttentionSeq2Seq", "attention.score_type": "dot", "attention.dim": 32},
            {"model": "AttentionSeq2Seq", "attention.score_type": "bahdanau", "attention.dim": 32},
        ]

    def test_aliases_are_followed(self, load):
        space = load(f"""
            {CELL}: &cell {{class: GRUCell, num_units: 8}}
            decoder.rnn_cell.cell_spec: *cell
        """)
        assert space.at([])["decoder.rnn_cell.cell_spec"] == {"class": "GRUCell", "num_units": 8}

    def test_a_configuration_shares_nothing_with_the_space(self, load):
        space = load(f"{CELL}: {{class: GRUCell, num_units: 8}}")
        space.at([])[CELL]["num_units"] = 9
        assert space.at([])[CELL]["num_units"] == 8

    def test_a_space_is_picklable(self, load):
        space = load("embedding.dim: [1, 2]")
        assert pickle.loads(pickle.dumps(space)) == space


class TestRange:
    def test_linear(self):
        assert [Range(0.0, 2.0).at(u) for u in (0, 0.25, 1)] == [0, 0.5, 2]

    def test_log(self):
        assert [Range(1e-4, 1e-2, log=True).at(u) for u in (0, 0.5, 1)] == [1e-4, 1e-3, 1e-2]

    def test_whole_numbers_are_equally_likely_ends_included(self):
        whole = Range(1, 4, step=1, whole=True)
        assert [whole.at((i + 0.5) / 16) for i in range(16)] == [1] * 4 + [2] * 4 + [3] * 4 + [
            4
        ] * 4
        assert whole.at(1.0) == 4

    def test_step(self):
        assert Range(0.5, 1.0, step=0.1).points() == (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
        assert Range(64, 500, step=64, whole=True).points()[-1] == 448

    def test_log_of_whole_numbers_covers_octaves_evenly(self):
        whole = Range(8, 127, log=True, step=1, whole=True)
        drawn = [whole.at((i + 0.5) / 1000) for i in range(1000)]
        for low in (8, 16, 32, 64):
            assert abs(sum(low <= x < 2 * low for x in drawn) - 250) <= 10
        assert (min(drawn), max(drawn)) == (8, 127)

    def test_few_digits_and_never_outside(self):
        for low, high in ((1e-4, 1e-2), (0.99999, 0.999999), (3.0, 3.0000000001), (1e-300, 1e38)):
            for log in (True, False):
                for i in range(101):
                    assert low <= Range(low, high, log=log).at(i / 100) <= high
        assert len(repr(Range(1e-4, 1e-2, log=True).at(math.pi / 4))) <= 11

    def test_times_a_factor_within_the_range(self):
        rate = Range(1e-4, 1e-2, log=True)
        assert [rate.perturbed(x, 1.2) for x in (1e-3, 9e-3, 1e-2)] == [1.2e-3, 1e-2, 1e-2]
        assert [rate.perturbed(x, 0.8) for x in (1e-3, 1.1e-4)] == [8e-4, 1e-4]
        layers = Range(1, 8, step=1, whole=True)
        assert [layers.perturbed(n, 1.2) for n in (1, 2, 5, 8)] == [2, 3, 6, 8]
        assert [layers.perturbed(n, 0.8) for n in (1, 2, 5, 8)] == [1, 1, 4, 6]
        keep = Range(0.5, 1.0, step=0.1)
        assert [keep.perturbed(x, 0.8) for x in (1.0, 0.6, 0.5)] == [0.8, 0.5, 0.5]

    def test_a_choice_moves_to_its_neighbour(self):
        choice = Choice((5, 1, 3))
        assert [choice.perturbed(x, 1.2) for x in (5, 1, 3)] == [1, 3, 3]
        assert [choice.perturbed(x, 0.8) for x in (5, 1, 3)] == [5, 5, 1]

    @pytest.mark.parametrize("value", [0, 9, 2.5, True, "3", None])
    def test_a_position_is_of_values_only(self, value):
        with pytest.raises(ValueError, match="must be a value of Range"):
            Range(1, 8, step=1, whole=True).position(value)


class TestDraws:
    TEXT = """
        embedding.dim: {min: 8, max: 64}
        optimizer.learning_rate: {min: 1e-4, max: 1e-2, log: true}
        encoder.type: [UnidirectionalRNNEncoder, BidirectionalRNNEncoder]
    """

    @pytest.mark.parametrize("method", ["random", "halton"])
    def test_seeded_and_prefixes(self, load, method):
        space = load(self.TEXT, search=f"{{method: {method}, seed: 3}}")
        assert space.draw(20) == space.draw(20, seed=3) == [*space.draw(7), *space.draw(20)[7:]]
        assert space.draw(5, seed=4) != space.draw(5)

    def test_halton_is_more_even_than_chance(self, load):
        space = load(self.TEXT, search="{method: halton, seed: 3}")
        dims = sorted(flat["embedding.dim"] for flat in space.draw(57))
        worst = max(abs(sum(x <= bound for x in dims) - (bound - 7)) for bound in range(8, 65))
        assert worst <= 4

    def test_no_configuration_twice(self, load):
        space = load("embedding.dim: [100, 200]\noptimizer.name: [Adam, SGD]\n")
        drawn = space.draw(4)
        assert len({resolve("AttentionSeq2Seq", flat) for flat in drawn}) == 4

    def test_equal_when_resolved_is_equal(self, load):
        space = load(
            f"{CELL}.num_units: [128, 64]\n"
            f"embedding.dim: {{choices: [100], when: {{{CELL}.num_units: 128}}}}"
        )
        with pytest.raises(
            ConfigError, match="3 different configurations were asked for, but only 2 valid ones"
        ):
            space.draw(3)

    def test_invalid_combinations_are_never_drawn(self, load):
        space = load("""
            bridge_spec: [{class: PassThroughBridge}, {class: ZeroBridge}]
            encoder.rnn_cell.num_layers: [1, 2, 3]
            decoder.rnn_cell.num_layers: [1, 2, 3]
        """)
        assert len(space.draw(12)) == len(space.grid()) == 12
        for flat in space.draw(12):
            resolve("AttentionSeq2Seq", flat)

    def test_fixing_a_key_leaves_the_others(self, load):
        space = load(self.TEXT)
        free = [flat["optimizer.learning_rate"] for flat in space.draw(10)]
        fixed = space.fixed({"embedding.dim": "32"}).draw(10)
        assert [flat["optimizer.learning_rate"] for flat in fixed] == free
        assert {flat["embedding.dim"] for flat in fixed} == {32}

    def test_at_takes_as_many_numbers_as_searched(self, load):
        space = load(self.TEXT)
        assert space.size == len(space.searched) == 3
        for u in ([0.5] * 2, [0.5, 0.5, 1.5], [0.5, 0.5, math.nan]):
            with pytest.raises(ValueError, match="at needs 3 numbers from 0 to 1"):
                space.at(u)


UNITS = "cell_spec.num_units"
CONSTRAINED = f"""
    model: [BasicSeq2Seq, AttentionSeq2Seq]
    search: {{trials: 20}}
    scheduler: {{max_steps: 3000}}
    constraints:
      - decoder.rnn_cell.{UNITS} >= encoder.rnn_cell.{UNITS}
      - attention.dim < embedding.dim
      - train.max_steps == 3000
      - encoder.rnn_cell.num_layers != 2
    parameters:
      embedding.dim: {{min: 8, max: 64}}
      attention.dim: {{min: 8, max: 64}}
      encoder.rnn_cell.num_layers: [1, 2, 3]
      encoder.rnn_cell.{UNITS}: {{min: 8, max: 64}}
      decoder.rnn_cell.{UNITS}: {{min: 8, max: 64}}
"""


class TestConstraints:
    def test_they_hold_in_every_draw(self, load):
        space = load(CONSTRAINED)
        drawn = space.draw(200)
        for flat in drawn:
            values = resolve(str(flat["model"]), flat)
            encoder, decoder = (
                values[f"{side}.rnn_cell.cell_spec"]["num_units"] for side in ("encoder", "decoder")
            )
            assert decoder >= encoder
            assert values["encoder.rnn_cell.num_layers"] in (1, 3)
            if flat["model"] == "AttentionSeq2Seq":
                assert values["attention.dim"] < values["embedding.dim"]
        # A key of the other model takes no part, so its constraint holds.
        assert any(flat["model"] == "BasicSeq2Seq" for flat in drawn)

    def test_the_draws_are_those_without_constraints_that_satisfy_them(self, load):
        text = "embedding.dim: {min: 8, max: 64}"
        free = load(text).draw(50)
        wanted = [flat for flat in free if flat["embedding.dim"] <= 20]
        space = load(text, constraints="[embedding.dim <= 20]")
        assert 3 < len(wanted) < 13
        assert space.draw(13)[: len(wanted)] == wanted

    def test_parameters_are_those_of_the_model(self, load):
        text, corpus = "embedding.dim: {min: 8, max: 64}", "{name: copy, vocabulary: 5}"
        drawn = load(text, corpus=corpus).draw(20)
        vocabularies = load_corpus({"name": "copy", "vocabulary": 5})
        sizes = []
        for flat in drawn:
            hparams = resolve("AttentionSeq2Seq", flat)
            with torch.device("meta"):
                model = build_model(
                    hparams, len(vocabularies.source_vocab), len(vocabularies.target_vocab)
                )
            sizes.append(sum(p.numel() for p in model.parameters()))
        limit = sorted(sizes)[10]
        space = load(text, corpus=corpus, constraints=f"[parameters <= {limit}]")
        assert [space.complete(flat) is not None for flat in drawn] == [
            size <= limit for size in sizes
        ]

    @pytest.mark.parametrize(
        "key, value",
        [
            (f"{CELL}.num_units", None),  # GRUBlockCell has a cell_size
            (f"{CELL}.cell_size", 7),
            ("decoder.rnn_cell.cell_spec.num_units", 128),  # the default of the table
            ("decoder.rnn_cell.cell_spec.forget_bias", 1),  # the default of the class
            ("decoder.rnn_cell.cell_spec.num_proj", None),  # null
            ("attention.dim", 9),
            ("optimizer.lr_decay_rate", None),  # its condition does not hold
            ("optimizer.lr_decay_steps", 100),
        ],
    )
    def test_a_constraint_on_what_takes_no_part_holds(self, load, key, value):
        """A constraint that no number satisfies holds only where there is no number."""
        text = f"""
            embedding.dim: [8, 16]
            {CELL}: {{class: GRUBlockCell, cell_size: 7}}
            attention.dim: 9
            optimizer.lr_decay_rate: {{choices: [0.5], when: {{embedding.dim: 16}}}}
        """
        for number in ("-1", *([] if value is None else [str(value)])):
            space, problems = load(text), Problems("here")
            given = {"constraints": f"{key} == {number}"}
            read = read_constraints(given, space.models, problems)
            constrained = replace(space, constraints=read)
            holds = constrained.complete(space.at([0.0])) is not None
            assert holds is (value is None or number == str(value))

    def test_a_grid_leaves_points_out(self, load):
        space = load(
            "embedding.dim: [8, 16, 32]\nattention.dim: [8, 16, 32]",
            search="{method: grid}",
            constraints="[attention.dim <= embedding.dim]",
        )
        assert len(space.trials()) == len(space.grid()) == 6

    def test_overrides_that_break_them(self, load):
        space = load("embedding.dim: [8, 16, 32]", constraints="[embedding.dim <= 16]")
        with pytest.raises(ConfigError, match="no configuration that satisfies the constraints"):
            space.trials(overrides={"embedding.dim": 32})
        with pytest.raises(ConfigError, match="only 2 valid ones that satisfy the constraints"):
            space.trials(3)

    def test_the_file_of_a_run_folder_needs_no_corpus(self, load, tmp_path):
        path = tmp_path / "space.yaml"
        path.write_text(
            "model: BasicSeq2Seq\ncorpus: {train: [a, b], dev: [c, d]}\n"
            "constraints: [parameters > 9]\n"
        )
        assert load_space(path, files=False).fixed({"embedding.dim": 3}).searched == ()

    @pytest.mark.parametrize(
        "given, expected",
        [
            (
                "\n  - embedding.dim <= 8\n  - embedding.dmi <= 8",
                "line 5: constraints: embedding.dmi <= 8: unknown hyperparameter 'embedding.dmi'; "
                "did you mean 'embedding.dim'?",
            ),
            (
                "[paramters <= 8]",
                "line 3: constraints: paramters <= 8: unknown hyperparameter 'paramters'; did you "
                "mean 'parameters'?",
            ),
            (
                "[embedding.dim = 8]",
                "line 3: constraints: embedding.dim = 8: unknown comparison '='; known: <=, >=, <, "
                ">, ==, !=",
            ),
            (
                "[8 <= embedding.dim <= 16]",
                "line 3: constraints: 8 <= embedding.dim <= 16: a comparison is LEFT OP RIGHT with "
                "one of <=, >=, <, >, ==, !=",
            ),
            (
                "[embedding.dim <=]",
                "line 3: constraints: embedding.dim <=: a comparison is LEFT OP RIGHT with one of "
                "<=, >=, <, >, ==, !=",
            ),
            (
                "{embedding.dim: 8}",
                "line 3: constraints: a comparison is LEFT OP RIGHT with one of <=, >=, <, >, ==, "
                "!=, but got a mapping",
            ),
            (
                "",
                "line 3: constraints: a comparison is LEFT OP RIGHT with one of <=, >=, <, >, ==, "
                "!=, but got nothing",
            ),
            (
                "[embedding.dim <= 2 * attention.dim]",
                "line 3: constraints: embedding.dim <= 2 * attention.dim: a side is a key, a "
                "number or the word parameters, without arithmetic, but got '2 * attention.dim'",
            ),
            ("[1 <= 2]", "line 3: constraints: 1 <= 2: one side must be a key, or the word "
                         "parameters"),
            (
                "[embedding.dim < embedding.dim]",
                "line 3: constraints: embedding.dim < embedding.dim: both sides are the same",
            ),
            (
                "[optimizer.name != 3]",
                "line 3: constraints: optimizer.name != 3: only numbers are compared, and "
                "optimizer.name is a name",
            ),
            (
                f"[{CELL} > 3]",
                f"line 3: constraints: {CELL} > 3: only numbers are compared, and {CELL} is a "
                f"mapping with a class; one entry of it may be, such as {CELL}.num_units",
            ),
            (
                "\n  - embedding.dim >= 8\n  - embedding.dim < 8",
                "line 5: constraints: embedding.dim < 8: holds in none of 2 configurations",
            ),
            (
                "[embedding.dim < 16, embedding.dim > 8]",
                "line 3: constraints: all of them hold in none of 2 configurations",
            ),
            (
                "[parameters < 10]",
                "line 3: constraints: parameters < 10: holds in none of 2 configurations",
            ),
        ],
    )  # fmt: skip
    def test_problems(self, problems, given, expected):
        assert expected in problems("embedding.dim: [8, 16]", constraints=given)

    def test_a_key_of_another_model(self, problems):
        assert problems(
            "model: BasicSeq2Seq\nconstraints: [attention.dim < 3]\nparameters: {}"
        ) == [
            "line 2: constraints: attention.dim < 3: attention.dim belongs to AttentionSeq2Seq, "
            "and this file searches BasicSeq2Seq"
        ]

    def test_hardly_any_configuration(self, problems):
        assert problems(
            "optimizer.learning_rate: {min: 0.1, max: 1}",
            constraints="[optimizer.learning_rate < 0.10001]",
        ) == [
            "line 3: constraints: optimizer.learning_rate < 0.10001: holds in none of 2,000 "
            "configurations"
        ]

    def test_a_corpus_that_is_not_there_is_one_problem(self, problems):
        found = problems(
            "embedding.dim: [8, 16]",
            corpus="{train: [a, b], dev: [a, b]}",
            constraints="[parameters < 10]",
        )
        assert found
        assert all("corpus." in problem for problem in found)


FIRST = """
    model: [BasicSeq2Seq, AttentionSeq2Seq]
    search: {{trials: 12, method: {method}, seed: 3}}
    {first}
    parameters:
      embedding.dim: {{min: 8, max: 64}}
      optimizer.learning_rate: {{min: 3e-4, max: 1e-2, log: true}}
      optimizer.lr_decay_type: ["", exponential_decay]
      optimizer.lr_decay_rate:
        {{min: 0.5, max: 0.9, when: {{optimizer.lr_decay_type: exponential_decay}}}}
      bridge_spec:
        choices: {{state: {{class: InitialStateBridge}}, zero: {{class: ZeroBridge}}}}
"""
TWO = """first:
      - default
      - {{model: AttentionSeq2Seq, embedding.dim: 20, bridge_spec: zero,
         optimizer.lr_decay_type: exponential_decay}}"""
DEFAULTS = {
    "model": "BasicSeq2Seq",
    "embedding.dim": 64,
    "optimizer.learning_rate": 3e-4,
    "optimizer.lr_decay_type": "",
    "bridge_spec": {"class": "InitialStateBridge"},
}
BUDGET = {"train.max_steps": 1000, "train.seed": 3}


class TestFirst:
    @pytest.mark.parametrize("method", ["random", "halton", "tpe"])
    def test_they_come_first_and_the_draws_are_as_without(self, load, method):
        space = load(FIRST.format(first=TWO.format(), method=method))
        without = load(FIRST.format(first="", method=method)).trials()
        first, second, *others = space.trials()
        assert first == DEFAULTS | BUDGET
        assert second == DEFAULTS | BUDGET | {
            "model": "AttentionSeq2Seq",
            "embedding.dim": 20,
            "optimizer.lr_decay_type": "exponential_decay",
            "optimizer.lr_decay_rate": 0.9,  # the default, 0.99, is outside
            "bridge_spec": {"class": "ZeroBridge"},
        }
        assert others == without[:10]
        assert space.trials(1) == [first]
        assert space.draw(3) == load(FIRST.format(first="", method=method)).draw(3)

    def test_what_was_first_is_not_drawn_again(self, load):
        text = "embedding.dim: {min: 8, max: 13}"
        without = [flat["embedding.dim"] for flat in load(text).trials(6)]
        trials = load(
            text, search="{trials: 6}", first="[{embedding.dim: 12}, {embedding.dim: 9}]"
        ).trials()
        rest = [dim for dim in without if dim not in (12, 9)]
        assert [flat["embedding.dim"] for flat in trials] == [12, 9, *rest]

    @pytest.mark.parametrize(
        "parameter, expected",
        [
            ("embedding.dim: [64, 120, 30]", 120),  # the default is 100
            ("embedding.dim: {min: 8, max: 256, step: 16}", 104),
            ("embedding.dim: {min: 200, max: 256}", 200),
            ("optimizer.name: [SGD, Adam]", "Adam"),
            ("optimizer.name: [SGD, Momentum]", "SGD"),
            ("optimizer.learning_rate: {min: 5e-5, max: 1}", 1e-4),
            (f"{CELL}.num_units: {{min: 8, max: 512}}", 128),
            (f"{CELL}.class: [GRUCell, LSTMCell]", "GRUCell"),
            (f"{CELL}: [{{class: GRUCell, num_units: 8}}, "
             "{class: BasicLSTMCell, num_units: 128}]", {"class": "BasicLSTMCell",
                                                         "num_units": 128}),
        ],
    )  # fmt: skip
    def test_a_default_is_that_of_the_table_or_the_nearest(self, load, parameter, expected):
        (trial,) = load(parameter, first="default").trials()
        assert trial[parameter.partition(": ")[0]] == expected

    def test_an_entry_without_a_default_has_the_middle(self, load):
        (trial,) = load(
            f"{CELL}: {{class: LSTMCell, num_units: 32}}\n{CELL}.num_proj: {{min: 1, max: 9}}",
            first="default",
        ).trials()
        assert trial[f"{CELL}.num_proj"] == 5

    def test_grids_and_replicates_multiply_them(self, load):
        space = load(
            "embedding.dim: {min: 8, max: 64}\nattention.score_type: {grid: [dot, bahdanau]}",
            search="{trials: 2, replicates: 2}",
            first="[{embedding.dim: 9}]",
        )
        rows = [
            (flat["embedding.dim"], flat["attention.score_type"], flat["train.seed"])
            for flat in space.trials()
        ]
        assert rows[:4] == [(9, "dot", 0), (9, "dot", 1), (9, "bahdanau", 0), (9, "bahdanau", 1)]
        assert len(rows) == 8

    def test_in_a_grid_they_are_its_first_points(self, load):
        text = "embedding.dim: [8, 16]\nattention.score_type: {grid: [dot, bahdanau]}"
        space = load(text, search="{method: grid}", first="[{attention.score_type: bahdanau}]")
        rows = [(flat["embedding.dim"], flat["attention.score_type"]) for flat in space.trials()]
        assert rows == [(16, "bahdanau"), (8, "dot"), (8, "bahdanau"), (16, "dot")]

    def test_overrides_win(self, load):
        space = load(FIRST.format(first=TWO.format(), method="random"))
        trials = space.trials(overrides={"embedding.dim": 7, "model": "BasicSeq2Seq"})
        assert {flat["embedding.dim"] for flat in trials} == {7}
        assert trials[0] == DEFAULTS | BUDGET | {"embedding.dim": 7}
        assert trials[1]["bridge_spec"] == {"class": "ZeroBridge"}

    def test_one_mistake_is_one_problem(self, problems):
        found = problems("embedding.dim: {min: 9, max: 8}", first="[{embedding.dim: 9}]")
        assert found == ["line 5: embedding.dim: min must be below max, but min = 9 and max = 8"]

    def test_sixteen_trials_or_as_many_as_are_first(self, load):
        rates = ", ".join(f"{{optimizer.learning_rate: {n}}}" for n in range(1, 21))
        text = "optimizer.learning_rate: {min: 1, max: 99}"
        assert len(load(text, search="{}", first=f"[{rates}]").trials()) == 20
        assert len(load(text, search="{}", first="default").trials()) == 16

    @pytest.mark.parametrize(
        "given, expected",
        [
            (
                "\n  - default\n  - defualt",
                "line 5: first: must be default, or a mapping from searched keys to values, but "
                "got 'defualt'",
            ),
            ("", "line 3: first: must be default, or a mapping from searched keys to values, but "
                 "got nothing"),
            (
                "\n  - embedding.dim: 9\n    embedding.dmi: 8",
                "line 5: first: unknown hyperparameter 'embedding.dmi'; did you mean "
                "'embedding.dim'?",
            ),
            ("[{train.batch_size: 8}]", "line 3: first: train.batch_size is not set in this file; "
                                        "known: model, embedding.dim, source.max_seq_len, "
                                        "target.max_seq_len, encoder.type, bridge_spec, "
                                        "optimizer.name, optimizer.lr_decay_rate, train.seed"),
            ("[{embedding.dim: 80}]", "line 3: first: embedding.dim: must be from 8 to 64, but "
                                      "got '80'"),
            ("[{embedding.dim: x}]", "line 3: first: embedding.dim: must be a whole number at "
                                     "least 1 and at most 65536, but got 'x'"),
            ("[{source.max_seq_len: 15}]", "line 3: first: source.max_seq_len: must be from 10 to "
                                           "30 in steps of 10, but got '15'"),
            ("[{optimizer.name: Ftrl}]", "line 3: first: optimizer.name: must be one of Adam, SGD, "
                                         "but got 'Ftrl'"),
            ("[{bridge_spec: zreo}]", "line 3: first: bridge_spec has no choice 'zreo'; did you "
                                      "mean 'zero'?"),
            ("[{train.seed: 4}]", "line 3: first: train.seed: this file sets it to 3, but got '4'"),
            ("[{target.max_seq_len: 20}]", "line 3: first: target.max_seq_len cannot be named, "
                                           "because it follows source.max_seq_len"),
            ("[{encoder.type: BidirectionalRNNEncoder}]",
             "line 3: first: encoder.type cannot be named, because each configuration is run with "
             "its grid"),
            ("\n  - optimizer.name: Adam\n    optimizer.lr_decay_rate: 0.7",
             "line 5: first: optimizer.lr_decay_rate takes no part where optimizer.name is "
             "'Adam'"),
            ("[{bridge_spec: pass}]",
             "line 3: first: bridge_spec: PassThroughBridge needs an encoder whose final state is "
             "shaped as the decoder's state, but encoder = (LSTM(128, 128), LSTM(128, 128)) and "
             "decoder = LSTM(128, 128); InitialStateBridge fits any"),
            ("[{embedding.dim: 13}]", "line 3: first: it breaks the constraint embedding.dim != "
                                      "13: embedding.dim = 13"),
            ("\n  - default\n  - {embedding.dim: 64}",
             "line 5: first: it is the same configuration as that of line 4"),
            ("[default, {embedding.dim: 9}, {embedding.dim: 10}]",
             "line 2: search.trials: must be at least the number of configurations in first, "
             "which is 3, but trials = 2"),
        ],
    )  # fmt: skip
    def test_problems(self, problems, given, expected):
        text = """
            embedding.dim: {min: 8, max: 64}
            source.max_seq_len: {min: 10, max: 30, step: 10}
            target.max_seq_len: {same_as: source.max_seq_len}
            encoder.type: {grid: [BidirectionalRNNEncoder]}
            bridge_spec: {choices: {zero: {class: ZeroBridge}, pass: {class: PassThroughBridge}}}
            optimizer.name: [Adam, SGD]
            optimizer.lr_decay_rate: {min: 0.5, max: 0.9, when: {optimizer.name: SGD}}
            train.seed: 3
        """
        found = problems(
            text, search="{trials: 2}", first=given, constraints="[embedding.dim != 13]"
        )
        assert found == [expected]


PRIORS = """
    embedding.dim: {{min: 8, max: 64{dim}}}
    optimizer.learning_rate: {{min: 3e-4, max: 1e-2, log: true{rate}}}
    attention.score_type: {{choices: [dot, bahdanau]{score}}}
    encoder.rnn_cell.dropout_input_keep_prob: {{min: 0.5, max: 1}}
"""
WITH = {"dim": ", prior: 20, spread: 0.05", "rate": ", prior: 1e-3", "score": ", prior: bahdanau"}
WITHOUT = dict.fromkeys(WITH, "")
RATE, SCORE = "optimizer.learning_rate", "attention.score_type"


class TestPrior:
    @pytest.mark.parametrize("method", ["random", "halton", "tpe"])
    @pytest.mark.parametrize("constraints", ["[]", "[embedding.dim != 30, embedding.dim <= 50]"])
    def test_most_draws_are_those_without_at_their_numbers(self, load, method, constraints):
        sections = {"search": f"{{method: {method}, seed: 1}}", "constraints": constraints}
        drawn = load(PRIORS.format(**WITH), **sections).draw(400)
        free = load(PRIORS.format(**WITHOUT), **sections).draw(400)
        leaning = [flat for flat, other in zip(drawn, free, strict=True) if flat != other]
        assert 75 < len(leaning) < 125  # one in four
        near = [abs(flat["embedding.dim"] - 20) <= 2.5 * 0.05 * 57 for flat in leaning]
        assert sum(near) > 0.95 * len(leaning)  # 0.988 of a normal distribution
        decade = [
            abs(math.log(flat[RATE] / 1e-3)) < 0.15 * math.log(1e-2 / 3e-4) for flat in leaning
        ]
        assert 0.55 * len(leaning) < sum(decade) < 0.8 * len(leaning)  # 0.68, and cut below
        scores = [flat[SCORE] == "bahdanau" for flat in leaning]
        assert 0.6 * len(leaning) < sum(scores) < 0.9 * len(leaning)  # 3/4
        keeps = [flat["encoder.rnn_cell.dropout_input_keep_prob"] < 0.75 for flat in leaning]
        assert 0.35 * len(leaning) < sum(keeps) < 0.65 * len(leaning)  # no prior

    @pytest.mark.parametrize("method", ["random", "halton"])
    def test_the_first_draws_do_not_depend_on_how_many_follow(self, load, method):
        space = load(PRIORS.format(**WITH), search=f"{{method: {method}, seed: 5}}")
        assert space.trials(40)[:12] == space.trials(12)

    def test_fixing_a_key_leaves_the_others(self, load):
        space = load(PRIORS.format(**WITH))
        fixed = space.fixed({"embedding.dim": 32}).draw(20)
        assert [flat[RATE] for flat in fixed] == [flat[RATE] for flat in space.draw(20)]

    def test_when_the_only_prior_is_fixed_the_draws_are_those_without(self, load):
        fixed = {SCORE: "dot"}
        only = load(PRIORS.format(**WITHOUT | {"score": ", prior: dot"})).fixed(fixed)
        assert only.draw(9) == load(PRIORS.format(**WITHOUT)).fixed(fixed).draw(9)

    def test_first_comes_before_them(self, load):
        first = "[{embedding.dim: 9}]"
        space = load(PRIORS.format(**WITH), search="{trials: 20}", first=first)
        plain = load(PRIORS.format(**WITH), search="{trials: 20}")
        assert space.trials()[1:] == plain.trials()[:19]

    @pytest.mark.parametrize("prior", [8, 13])
    def test_a_small_space_is_run_through(self, load, prior):
        space = load(f"embedding.dim: {{min: 8, max: 13, prior: {prior}, spread: 0.01}}")
        for seed in range(20):
            assert {flat["embedding.dim"] for flat in space.draw(6, seed)} == {*range(8, 14)}

    def test_all_points_of_a_space_with_priors_are_those_without(self, load):
        text = "embedding.dim: [8, 9, 10{}]\nattention.score_type: [dot, bahdanau]"
        prior = text.replace("[8, 9, 10{}]", "{{choices: [8, 9, 10], prior: 10}}")
        assert load(prior.format()).grid() == load(text.format("")).grid()

    def test_grids_multiply_leaning_draws(self, load):
        text = "embedding.dim: {min: 8, max: 64, prior: 9}\n"
        text += "attention.score_type: {grid: [dot, bahdanau]}"
        flats = [flat["embedding.dim"] for flat in load(text).trials(10)]
        assert flats[::2] == flats[1::2]

    def test_the_log_density(self, load):
        space = load(PRIORS.format(**WITH | {"dim": ""}))
        assert load(PRIORS.format(**WITHOUT)).log_prior(space.at([0.3] * 4)) == 0
        width = math.log(1e-2 / 3e-4)
        for u in ([0.1, 0.2, 0.3, 0.4], [0.5] * 4, [1.0] * 4):
            flat = space.at(u)
            # A plain loop over the truncated normal distribution on the logarithmic scale.
            x, mean = (math.log(rate / 3e-4) / width for rate in (flat[RATE], 1e-3))
            bell = [
                math.exp(-(((k + 0.5) / 1e4 - mean) ** 2) / (2 * 0.15**2)) for k in range(10000)
            ]
            rate = math.exp(-((x - mean) ** 2) / (2 * 0.15**2)) / (sum(bell) / 10000)
            score = 1.5 if flat[SCORE] == "bahdanau" else 0.5
            expected = math.log(0.75 + 0.25 * rate * score)
            assert space.log_prior(flat) == pytest.approx(expected, rel=1e-4)
        with pytest.raises(ValueError, match="must be a value of"):
            space.log_prior({"model": "AttentionSeq2Seq", RATE: 1.0})

    @pytest.mark.parametrize(
        "text, expected",
        [
            (
                "embedding.dim:\n  min: 8\n  max: 64\n  prior: 65",
                "line 7: prior of embedding.dim: must be from 8 to 64, but got '65'",
            ),
            (
                "embedding.dim: {min: 8, max: 64, step: 8, prior: 9}",
                "line 4: prior of embedding.dim: must be from 8 to 64 in steps of 8, but got '9'",
            ),
            (
                "embedding.dim: {choices: [8, 64], prior: 9}",
                "line 4: prior of embedding.dim: must be one of 8, 64, but got '9'",
            ),
            (
                "embedding.dim: {min: 8, max: 64, prior: x}",
                "line 4: prior of embedding.dim: must be a whole number at least 1 and at most 65536, but "
                "got 'x'",
            ),
            (
                "bridge_spec: {choices: {zero: {class: ZeroBridge}}, prior: zreo}",
                "line 4: prior of bridge_spec has no choice 'zreo'; did you mean 'zero'?",
            ),
            (
                "embedding.dim: {grid: [8, 64], prior: 8}",
                "line 4: prior of embedding.dim: only choices, or min and max, can have one",
            ),
            (
                "attention.dim: [8, 9]\nembedding.dim: {same_as: attention.dim, prior: 8}",
                "line 5: prior of embedding.dim: only choices, or min and max, can have one",
            ),
            (
                "embedding.dim:\n  min: 8\n  max: 64\n  prior: 9\n  spread: 0.6",
                "line 8: embedding.dim: spread must be a number at least 0.01 and at most 0.5, but "
                "got '0.6'",
            ),
            (
                "embedding.dim: {min: 8, max: 64, spread: 0.1}",
                "line 4: embedding.dim: spread is how far draws lie from a prior, and there is no "
                "prior",
            ),
            (
                "embedding.dim: {choices: [8, 64], prior: 8, spread: 0.1}",
                "line 4: embedding.dim: spread is for min and max, and this has choices",
            ),
        ],
    )  # fmt: skip
    def test_problems(self, problems, text, expected):
        assert problems(text) == [expected]

    def test_a_grid_search_has_none(self, problems):
        assert problems("embedding.dim: {choices: [8, 64], prior: 8}", search="{method: grid}") == [
            "line 4: embedding.dim: a prior decides how often a value is drawn, and method grid "
            "runs each value"
        ]


class TestTrials:
    def test_budget_and_seeds(self, load):
        space = load(
            "embedding.dim: [1, 2, 3]",
            search="{trials: 2, seed: 5, replicates: 2}",
            scheduler="{max_steps: 70}",
        )
        trials = space.trials()
        assert [flat["train.seed"] for flat in trials] == [5, 6, 5, 6]
        assert {flat["train.max_steps"] for flat in trials} == {70}
        assert (
            trials[0]["embedding.dim"] == trials[1]["embedding.dim"] != trials[2]["embedding.dim"]
        )
        assert trials[:2] == space.trials(1)
        assert [flat["train.seed"] for flat in space.trials(1, seed=9)] == [9, 10]

    def test_grids_multiply_the_draws(self, load):
        space = load(
            """
            optimizer.learning_rate: {min: 0.1, max: 0.9}
            attention.score_type: {grid: [dot, bahdanau]}
            embedding.dim: {grid: [1, 2], when: {attention.score_type: dot}}
            """,
            search="{trials: 3}",
        )
        trials = space.trials()
        assert len(trials) == 9
        assert len({flat["optimizer.learning_rate"] for flat in trials[:3]}) == 1
        assert space.draw(9) == [
            {k: v for k, v in flat.items() if not k.startswith("train")} for flat in trials
        ]

    def test_grid_search(self, load):
        space = load(
            "embedding.dim: {min: 1, max: 3}\n"
            "optimizer.clip_gradients: {min: 1, max: 2, step: 0.5}",
            search="{method: grid}",
        )
        trials = space.trials()
        assert [(flat["embedding.dim"], flat["optimizer.clip_gradients"]) for flat in trials] == [
            (dim, clip) for dim in (1, 2, 3) for clip in (1.0, 1.5, 2.0)
        ]
        assert space.trials(4) == trials[:4]
        assert len(space.trials(100)) == 9

    def test_overrides_win_and_ties_follow(self, load):
        space = load(f"""
            {CELL}.num_units: [8, 16]
            decoder.rnn_cell.cell_spec: {{same_as: {CELL}}}
            optimizer.lr_decay_type: ["", exponential_decay]
            optimizer.lr_decay_rate:
              {{choices: [0.5], when: {{optimizer.lr_decay_type: exponential_decay}}}}
        """)
        overrides = {
            f"{CELL}.num_units": "4",
            "optimizer.lr_decay_type": "exponential_decay",
            "train.max_steps": 7,
        }
        (flat,) = space.trials(1, overrides=overrides)
        h = resolve("AttentionSeq2Seq", flat)
        assert h["decoder.rnn_cell.cell_spec"]["num_units"] == 4
        assert (h["optimizer.lr_decay_rate"], h["train.max_steps"]) == (0.5, 7)

    def test_a_whole_spec_overrides_entries(self, load):
        space = load(f"{CELL}.num_units: [8, 16]\n{CELL}.forget_bias: 0")
        (flat,) = space.trials(1, overrides={CELL: {"class": "GRUCell", "num_units": 4}})
        assert resolve("AttentionSeq2Seq", flat)[CELL] == {"class": "GRUCell", "num_units": 4}

    def test_bad_overrides(self, load):
        space = load("embedding.dim: [1, 2]", search="{trials: 1, replicates: 2}")
        with pytest.raises(ConfigError) as caught:
            space.trials(
                overrides={
                    "embedding.dmi": 3,
                    "embedding.dim": "x",
                    "train.seed": 1,
                    "model": "BasicSeq2Seq",
                }
            )
        assert caught.value.problems == (
            "unknown hyperparameter 'embedding.dmi'; did you mean 'embedding.dim'?",
            "embedding.dim: must be a whole number at least 1 and at most 65536, but got 'x'",
            "model: BasicSeq2Seq is not searched here; known: AttentionSeq2Seq",
            "train.seed: cannot be fixed, because replicates differ by it",
        )

    def test_overrides_that_no_draw_survives(self, load):
        space = load("encoder.rnn_cell.num_layers: [2, 3]")
        with pytest.raises(
            ConfigError, match="no valid configuration among 2000 draws: bridge_spec: PassThrough"
        ):
            space.trials(overrides={"bridge_spec": {"class": "PassThroughBridge"}})

    def test_train_max_steps_among_the_parameters(self, load):
        space = load("train.max_steps: [50, 80, 60]\ntrain.seed: 4")
        assert space.scheduler.max_steps == 80
        assert {flat["train.max_steps"] for flat in space.trials(3)} == {50, 60, 80}
        assert {flat["train.seed"] for flat in space.trials(3)} == {4}

    def test_too_few(self, load):
        with pytest.raises(ConfigError, match=r"search\.trials: must be at least 1, but got -1"):
            load("embedding.dim: [1, 2]").trials(-1)

    def test_too_many(self, load):
        with pytest.raises(
            ConfigError, match="9 different configurations were asked for, but only 2 valid ones"
        ):
            load("embedding.dim: [1, 2]").trials(9)


class TestSections:
    @pytest.mark.parametrize(
        "asked, counted",
        [
            ("0.25", 0.25),
            ("0.29", 0.29),
            ("0.015625", 0.0156),
            ("0.66667", 0.6666),
            ("0.0001", 0.0001),
            ("3", 3.0),
        ],
    )
    def test_shares_are_rounded_down_to_those_that_ray_counts(self, load, asked, counted):
        resources = load("embedding.dim: 4", resources=f"{{cpu: {asked}, gpu: {asked}}}").resources
        assert (resources.cpu, resources.gpu) == (counted, counted)

    def test_defaults(self, load):
        space = load("model: BasicSeq2Seq")
        assert (space.metric.name, space.metric.goal) == ("dev.loss", "minimize")
        assert (
            space.search.method,
            space.search.trials,
            space.search.seed,
            space.search.replicates,
        ) == (
            "random",
            1,
            0,
            1,
        )
        assert (space.scheduler.name, space.scheduler.max_steps, space.scheduler.grace_steps) == (
            "asha",
            1000,
            111,
        )
        assert (space.resources.cpu, space.resources.gpu) == (1, 0)
        assert space.corpus == {"name": "cmudict"}
        assert space.name == "space"
        assert space.text == "model: BasicSeq2Seq"

    def test_goal_follows_the_metric(self, load):
        assert load("embedding.dim: 1", metric="{name: dev.bleu}").metric.goal == "maximize"

    def test_objectives_begin_with_the_metric(self, load):
        plain = load("embedding.dim: [1, 2]", metric="{name: dev.bleu}")
        assert [(one.name, one.goal) for one in plain.objectives] == [("dev.bleu", "maximize")]
        space = load(
            "embedding.dim: [1, 2]",
            search="{method: tpe}",
            objectives="[parameters, dev.token_accuracy]",
        )
        goals = [
            ("dev.loss", "minimize"),
            ("parameters", "minimize"),
            ("dev.token_accuracy", "maximize"),
        ]
        assert [(one.name, one.goal) for one in space.objectives] == goals
        assert space.objectives[0] is space.metric

    def test_pbt_mutates_what_a_checkpoint_survives(self, load):
        rate = "optimizer.learning_rate: {min: 1, max: 2}"
        space = load(
            f"""
            embedding.dim: [1, 2]
            optimizer.name: [Adam, SGD]
            {rate}
            optimizer.clip_gradients: 1
            optimizer.weight_decay: {{min: 0, max: 0.1}}
            optimizer.warmup_steps: [0, 100]
            train.label_smoothing: [0, 0.1]
            train.average_decay: [0, 0.9]
            train.patience: [0, 5]
            decoder.rnn_cell.dropout_input_keep_prob: [0.5, 1]
            {CELL}.class: LayerNormBasicLSTMCell
            {CELL}.dropout_keep_prob: {{min: 0.5, max: 1}}
            """,
            scheduler="{name: pbt, max_steps: 90}",
        )
        keeps = ("decoder.rnn_cell.dropout_input_keep_prob", f"{CELL}.dropout_keep_prob")
        ours = ("optimizer.weight_decay", "optimizer.warmup_steps", "train.label_smoothing")
        assert set(space.mutable) == {"optimizer.learning_rate", *ours, *keeps}
        assert space.scheduler.interval_steps == space.scheduler.grace_steps == 10
        assert load(rate, scheduler="{name: pbt, interval_steps: 7}").scheduler.interval_steps == 7
        assert load(rate).scheduler.interval_steps is None

    @pytest.mark.parametrize("name", ["asha", "hyperband", "median", "none"])
    def test_other_schedulers_mutate_nothing_and_need_nothing(self, load, name):
        assert load("embedding.dim: [1, 2]", scheduler=f"{{name: {name}}}").scheduler.name == name

    def test_sixteen_draws_or_as_many_as_there_are(self, load):
        assert load("embedding.dim: [1, 2]", search="{}").search.trials == 2
        assert load("embedding.dim: {min: 1, max: 99}", search="{}").search.trials == 16

    def test_paths_of_a_corpus_start_from_the_folder_of_the_file(self, load, tmp_path):
        for name in ("a.src", "a.tgt", "b.tsv"):
            (tmp_path / name).write_text("x\ty\n")
        space = load(
            "embedding.dim: 1", corpus="{train: [a.src, a.tgt], dev: b.tsv, source_delimiter: ' '}"
        )
        assert space.corpus == {
            "train": [str(tmp_path / "a.src"), str(tmp_path / "a.tgt")],
            "dev": str(tmp_path / "b.tsv"),
            "source_delimiter": " ",
        }

    def test_numbers_of_a_toy_corpus(self, load):
        assert load("embedding.dim: 1", corpus="{name: reverse, train: 100}").corpus == {
            "name": "reverse",
            "train": 100,
        }


class TestProblems:
    """Each with its line; in these texts the parameters begin in line 4."""

    @pytest.mark.parametrize(
        "text, expected",
        [
            (
                "embedding.dmi: 3",
                "line 4: unknown hyperparameter 'embedding.dmi'; did you mean 'embedding.dim'?",
            ),
            (
                "embedding.dim: 3\nembedding.dim: 4",
                "line 5: embedding.dim is given twice, first in line 4",
            ),
            (
                "embedding.dim: 0",
                "line 4: embedding.dim: must be a whole number at least 1 and at most 65536, but "
                "got '0'",
            ),
            (
                "embedding.dim: [64,\n  1.5]",
                "line 5: embedding.dim: must be a whole number at least 1 and at most 65536, but "
                "got '1.5'",
            ),
            (
                "embedding.dim: [[1]]",
                "line 4: embedding.dim: must be a whole number at least 1 and at most 65536, but "
                "got ['1']",
            ),
            (
                "embedding.dim:",
                "line 4: embedding.dim: must be a whole number at least 1 and at most 65536, but "
                "got None",
            ),
            ("embedding.dim: []", "line 4: embedding.dim: the list of choices is empty"),
            ("embedding.dim: [8, 8.0]", "line 4: embedding.dim: 8 is listed twice"),
            (
                "embedding.dim: {choices: 3}",
                "line 4: embedding.dim: choices must be a list, or a mapping from labels, but got "
                "'3'",
            ),
            (
                "embedding.dim: {}",
                "line 4: embedding.dim: needs one of choices, grid, same_as, or min and max, but "
                "has none",
            ),
            (
                "embedding.dim: {min: 1, max: 2, grid: [3]}",
                "line 4: embedding.dim: needs one of choices, grid, same_as, or min and max, but "
                "has grid and min and max",
            ),
            (
                "embedding.dim: {choices: [3], rol: nuisance}",
                "line 4: embedding.dim: unknown word 'rol'; did you mean 'role'?",
            ),
            (
                "embedding.dim: {choices: [3], role: x}",
                "line 4: embedding.dim: role: unknown name 'x'; known: scientific, nuisance",
            ),
            (
                "embedding.dim: {min: 1, max: 9, weights: [1, 2]}",
                "line 4: embedding.dim: weights are for choices, but this has min and max",
            ),
            (
                "embedding.dim: {grid: [1, 2], weights: [1, 2]}",
                "line 4: embedding.dim: weights are for choices, but this has grid",
            ),
            (
                "embedding.dim: {choices: [1, 2], weights: {a: 1}}",
                "line 4: embedding.dim: weights must be a list, as choices are, but got a mapping",
            ),
            (
                "embedding.dim: {choices: [1, 2], weights: [1]}",
                "line 4: embedding.dim: each choice needs a weight, but 2 choices and 1 weight are "
                "given",
            ),
            (
                "embedding.dim:\n  choices: [1, 2]\n  weights:\n    - 1\n    - 0",
                "line 8: embedding.dim: weights: must be a number above 0, but got '0'",
            ),
            (
                "embedding.dim:\n  choices: {a: 1, b: 2}\n  weights: [1, 2]",
                "line 4: embedding.dim: weights must be a mapping from the labels of choices, but "
                "got a list",
            ),
            (
                "embedding.dim:\n  choices: {small: 1, large: 2}\n  weights:\n    small: 1\n"
                "    lrage: 2",
                "line 8: embedding.dim: weights: there is no choice 'lrage'; did you mean 'large'?",
            ),
            (
                "embedding.dim:\n  choices: {small: 1, large: 2}\n  weights: {small: 1}",
                "line 6: embedding.dim: weights: large has no weight",
            ),
            (
                "model: BasicSeq2Seq\nsearch: {method: grid}\nparameters:\n"
                "  embedding.dim: {choices: [1, 2], weights: [1, 2]}",
                "line 4: embedding.dim: weights decide how often a value is drawn, and method grid "
                "runs each value",
            ),
            ("embedding.dim:\n  min: 1", "line 4: embedding.dim: max is missing"),
            (
                "embedding.dim:\n  min: 1\n  max: x",
                "line 6: embedding.dim: must be a whole number at least 1 and at most 65536, but "
                "got 'x'",
            ),
            (
                "optimizer.learning_rate: {min: 1e-2, max: 1e-3}",
                "line 4: optimizer.learning_rate: min must be below max, but min = 0.01 and max = "
                "0.001",
            ),
            (
                "optimizer.clip_gradients: {min: 0, max: 1, log: true}",
                "line 4: optimizer.clip_gradients: log needs min above 0, but min = 0.0",
            ),
            (
                "embedding.dim: {min: 1, max: 9, log: 1}",
                "line 4: embedding.dim: log must be true or false, but got '1'",
            ),
            (
                "embedding.dim: {min: 1, max: 9, step: 0}",
                "line 4: embedding.dim: step must be a whole number above 0, but got '0'",
            ),
            (
                "embedding.dim: {min: 1, max: 9, step: 10}",
                "line 4: embedding.dim: step must be at most max - min and at least 1e-16 of it, "
                "but step = 10 and max - min = 8",
            ),
            (
                "optimizer.clip_gradients: {min: 1e-30, max: 1e30, step: 1e-300}",
                "line 4: optimizer.clip_gradients: step must be at most max - min and at least "
                "1e-16 of it, but step = 1e-300 and max - min = 1e+30",
            ),
            (
                "optimizer.lr_stop_decay_at: {min: 1, max: 1e15}\n"
                "embedding.dim: {choices: [1], when: {optimizer.lr_stop_decay_at: [7, 0]}}",
                "line 5: embedding.dim: when: optimizer.lr_stop_decay_at can never be 0 in this "
                "file",
            ),
            (
                "source.reverse: {min: 0, max: 1}",
                "line 4: source.reverse: min and max are for numbers, and this is true or false",
            ),
            (
                "embedding.dim: {same_as: optimizer.name}",
                "line 4: embedding.dim: same_as: embedding.dim is a whole number, but "
                "optimizer.name is a name",
            ),
            (
                "embedding.dim: {same_as: attention.dim}",
                "line 4: embedding.dim: same_as: attention.dim is not set in this file",
            ),
            (
                "embedding.dim: {same_as: [x]}",
                "line 4: unknown hyperparameter \"['x']\"; known: source.max_seq_len, "
                f"source.reverse, target.max_seq_len, ... ({len(TABLE) + len(ENTRIES)} in all)",
            ),
            (
                "embedding.dim: {same_as: embedding.dim}",
                "line 4: embedding.dim: when and same_as go in a circle: embedding.dim -> "
                "embedding.dim",
            ),
            (
                "embedding.dim: {choices: [1], when: 3}",
                "line 4: embedding.dim.when: must be a mapping, but got '3'",
            ),
            (
                "embedding.dim:\n  choices: [1]\n  when:\n    optimizer.nam: x",
                "line 7: embedding.dim: when: unknown hyperparameter 'optimizer.nam'; did you "
                "mean 'optimizer.name'?",
            ),
            (
                "embedding.dim: {choices: [1], when: {optimizer.name: SGD}}",
                "line 4: embedding.dim: when: optimizer.name can never be 'SGD' in this file",
            ),
            (
                "embedding.dim: {choices: [1], when: {model: BasicSeq2Seq}}",
                "line 4: embedding.dim: when: model: BasicSeq2Seq is not searched here; known: "
                "AttentionSeq2Seq",
            ),
            (
                "attention.dim: {min: 1, max: 4}\n"
                "embedding.dim: {choices: [1], when: {attention.dim: [4, 5]}}",
                "line 5: embedding.dim: when: attention.dim can never be 5 in this file",
            ),
            (
                "optimizer.learning_rate: {min: 1, max: 4}\n"
                "embedding.dim: {choices: [1], when: {optimizer.learning_rate: 2}}",
                "line 5: embedding.dim: when: optimizer.learning_rate can never be 2.0 in this "
                "file",
            ),
            (
                "bridge_spec: {class: ZeroBridg}",
                "line 4: bridge_spec: unknown class 'ZeroBridg'; did you mean 'ZeroBridge'?",
            ),
            (
                "bridge_spec: ZeroBridge",
                "line 4: bridge_spec: must be a mapping with a class, but got 'ZeroBridge'",
            ),
            (
                "bridge_spec:\n  choices:\n    a: {class: ZeroBridge}\n"
                "    b: {class: ConcatInputBridge}",
                "line 4: bridge_spec: ConcatInputBridge needs num_units",
            ),
            (
                "bridge_spec: {choices: {a: {class: ZeroBridge}}}\n"
                "embedding.dim: {choices: [1], when: {bridge_spec: b}}",
                "line 5: embedding.dim: when: bridge_spec has no choice 'b'; known: a",
            ),
            (
                f"{CELL}.initializer: 3",
                f"line 4: {CELL}.initializer is refused: it is a function, which a configuration "
                "cannot hold",
            ),
            (
                f"{CELL}.class: [LSTMCell, GRUCell]\n{CELL}.use_peepholes: [true, false]",
                f"line 5: {CELL}.use_peepholes: GRUCell has no argument 'use_peepholes'; known: "
                "num_units, activation",
            ),
            (
                "bridge_spec: {class: PassThroughBridge}\nencoder.rnn_cell.num_layers: 2",
                "line 3: bridge_spec: PassThroughBridge needs an encoder whose final state is "
                "shaped as the decoder's state, but encoder = (LSTM(128, 128), LSTM(128, 128)) "
                "and decoder = LSTM(128, 128); InitialStateBridge fits any",
            ),
            (
                "model: BasicSeq2Seq\nembedding.dim: !!python/name:os.system 3\nparameters: {}",
                "line 2: unknown section 'embedding.dim'; it belongs under parameters:",
            ),
            (
                "embedding.dim: !!python/name:os.system 3",
                "line 4: unknown tag 'tag:yaml.org,2002:python/name:os.system'",
            ),
            ("? [a, b]\n: 3", "line 4: a key must be a name"),
        ],
    )  # fmt: skip
    def test_parameters(self, problems, text, expected):
        assert expected in problems(text)

    @pytest.mark.parametrize(
        "sections, expected",
        [
            (
                {"model": "BasicSeq"},
                "line 1: unknown model 'BasicSeq'; did you mean 'BasicSeq2Seq'?",
            ),
            ({"model": "[BasicSeq2Seq, BasicSeq2Seq]"}, "line 1: model: a model is listed twice"),
            ({"model": "[]"}, "line 1: model is missing; known: BasicSeq2Seq, AttentionSeq2Seq"),
            (
                {"metric": "{name: dev.los}"},
                "line 3: metric.name: unknown name 'dev.los'; did you mean 'dev.loss'?",
            ),
            (
                {"metric": "{goal: maximize}"},
                "line 3: metric.goal: dev.loss can only be minimized, but goal = maximize",
            ),
            ({"metric": "dev.loss"}, "line 3: metric: must be a mapping, but got 'dev.loss'"),
            (
                {"search": "{method: tpee}"},
                "line 2: search.method: unknown name 'tpee'; did you mean 'tpe'?",
            ),
            (
                {"search": "{method: tpe, replicates: 2}"},
                "line 2: search.replicates: tpe runs each configuration once, but replicates = 2; "
                "use random",
            ),
            (
                {"objectives": "[parameters]"},
                "line 3: objectives: need search.method tpe, but method = random",
            ),
            (
                {"search": "{method: tpe}", "objectives": "[parameter]"},
                "line 3: objectives: unknown name 'parameter'; did you mean 'parameters'?",
            ),
            (
                {"search": "{method: tpe}", "objectives": "\n  - seconds\n  - [dev.bleu]"},
                "line 5: objectives: unknown name ['dev.bleu']; did you mean 'dev.bleu'?",
            ),
            (
                {"search": "{method: tpe}", "objectives": "\n  - seconds\n  - seconds"},
                "line 5: objectives: seconds is listed twice",
            ),
            (
                {"search": "{method: tpe}", "objectives": "[dev.loss]"},
                "line 3: objectives: dev.loss is the metric, which is always an objective",
            ),
            (
                {"search": "{trails: 3}"},
                "line 2: search: unknown key 'trails'; did you mean 'trials'?",
            ),
            (
                {"search": "{trials: 0}"},
                "line 2: search.trials: must be a whole number at least 1 and at most 1000000 or "
                "null, but got '0'",
            ),
            (
                {"search": "{trials: 1, max_at_once: 0}"},
                "line 2: search.max_at_once: must be a whole number at least 1 and at most 1000000 "
                "or null, but got '0'",
            ),
            (
                {"search": "{trials: 1, trial_hours: 0}"},
                "line 2: search.trial_hours: must be a number above 0 or null, but got '0'",
            ),
            (
                {"search": "{trials: 1, max_at_one: 2}"},
                "line 2: search: unknown key 'max_at_one'; did you mean 'max_at_once'?",
            ),
            (
                {"search": "{trials: 3}"},
                "line 2: search.trials: draws must differ, but trials = 3 and there are 2 "
                "configurations; method: grid runs each once",
            ),
            (
                {"scheduler": "{name: sha}"},
                "line 3: scheduler.name: unknown name 'sha'; did you mean 'asha'?",
            ),
            (
                {"scheduler": "{name: pbt}"},
                "line 3: scheduler.name: pbt needs a searched key that may change in training: "
                "optimizer.* without optimizer.name, a keep_prob, or train.label_smoothing; "
                "this file searches "
                "embedding.dim",
            ),
            (
                {"scheduler": "{name: median, interval_steps: 5}"},
                "line 3: scheduler.interval_steps: only pbt has interval_steps, but name = median",
            ),
            (
                {"scheduler": "{name: pbt, max_steps: 5, interval_steps: 6}"},
                "line 3: scheduler.interval_steps: must be at most max_steps, but interval_steps "
                "= 6 and max_steps = 5",
            ),
            (
                {"scheduler": "{name: hyperband, grace_steps: 6}"},
                "line 3: scheduler.grace_steps: hyperband has no grace_steps, but grace_steps = "
                "6; its brackets begin at max_steps / 3^k, k = 0, 1, ...; asha has grace_steps",
            ),
            (
                {"scheduler": "{max_steps: 5, grace_steps: 6}"},
                "line 3: scheduler.grace_steps: must be at most max_steps, but grace_steps = 6 "
                "and max_steps = 5",
            ),
            (
                {"scheduler": "{reduction_factor: 1}"},
                "line 3: scheduler.reduction_factor: must be a number at least 1.1, but got '1'",
            ),
            (
                {"scheduler": "{reduction_factor: 1.00001}"},
                "line 3: scheduler.reduction_factor: must be a number at least 1.1, but got "
                "'1.00001'",
            ),
            (
                {"search": "{method: tpe}", "objectives": "\n" + "  - sceonds\n" * 10_000},
                "lines 4, 5, 6, 7, 8 and 9,995 more: objectives: unknown name 'sceonds'; did you "
                "mean 'seconds'?",
            ),
            (
                {"resources": "{cpu: 0}"},
                "line 3: resources.cpu: must be a number at least 0.0001, but got '0'",
            ),
            (
                {"resources": "{gpu: 1.5}"},
                "line 3: resources.gpu: must be whole above 1, but gpu = 1.5",
            ),
            (
                {"corpus": "{name: cmudct}"},
                "line 3: corpus.name: unknown corpus 'cmudct'; did you mean 'cmudict'?",
            ),
            ({"sarch": "{}"}, "line 3: unknown section 'sarch'; did you mean 'search'?"),
            (
                {"search": "{}", "parameter": "{}"},
                "line 3: unknown section 'parameter'; did you mean 'parameters'?",
            ),
        ],
    )  # fmt: skip
    def test_sections(self, problems, sections, expected):
        assert expected in problems("embedding.dim: [3, 4]", **sections)

    def test_missing_corpus_file(self, problems, tmp_path):
        text = "model: BasicSeq2Seq\ncorpus:\n  train: [a, b]\n  dev: c\n"
        expected = [
            f"corpus.train: {tmp_path / 'a'}",
            f"corpus.train: {tmp_path / 'b'}",
            f"corpus.dev: {tmp_path / 'c'}",
        ]
        found = problems(text)
        assert [p.split(": cannot")[0].split(": ", 1)[1] for p in found] == expected
        assert [p.split(":")[0] for p in found] == ["line 3", "line 3", "line 4"]

    def test_one_mistake_is_one_problem(self, problems):
        assert problems(
            "",
            metric="{name: dev.blue, goal: maximize}",
            scheduler="{max_steps: x, grace_steps: 9000}",
        ) == [
            "line 3: metric.name: unknown name 'dev.blue'; did you mean 'dev.bleu'?",
            "line 4: scheduler.max_steps: must be a whole number at least 1 or null, but got 'x'",
            "line 5: parameters: must be a mapping, but got nothing",
        ]

    def test_budget_and_seed_that_contradict_the_sections(self, problems):
        found = problems(
            "train.max_steps: [10, 30]\ntrain.seed: 3",
            scheduler="{max_steps: 20}",
            search="{trials: 1, replicates: 2}",
        )
        assert found == [
            "line 5: train.max_steps: must be at most scheduler.max_steps = 20, but goes up to 30",
            "line 6: train.seed: cannot be set, because search.replicates differ by it",
        ]

    def test_grids(self, problems):
        text = (
            "optimizer.learning_rate: {min: 1, max: 2}\n"
            "embedding.dim: {min: 1, max: 1000}\n"
            "target.max_seq_len: {min: 2, max: 1000}"
        )
        assert problems(text, search="{method: grid}") == [
            "line 4: optimizer.learning_rate: a grid needs steps; give step or choices"
        ]
        assert problems(text.split("\n", 1)[1], search="{method: grid}") == [
            "line 4: search.method: a grid may have at most 100000 points, but this one has 999000"
        ]

    def test_tpe_takes_no_grid(self, problems):
        text = (
            "embedding.dim: {grid: [1, 2]}\n"
            "optimizer.name:\n  role: scientific\n  grid: [Adam, SGD]"
        )
        law = "search.method: tpe chooses every value itself; write choices, not grid"
        assert problems(text, search="{method: tpe}") == [f"lines 4, 7: {law}"]

    def test_circles_through_specs(self, problems):
        (problem,) = problems(f"""
            {CELL}: {{same_as: decoder.rnn_cell.cell_spec}}
            decoder.rnn_cell.cell_spec.num_units: {{same_as: {CELL}.num_units}}
        """)
        assert "when and same_as go in a circle" in problem

    def test_all_at_once_in_the_order_of_lines_under_one_head(self, load, tmp_path):
        with pytest.raises(ConfigError) as caught:
            load(
                "embedding.dim: 0\nattention.dmi: 2\n\n\n\n\n\nencoder.type: x",
                metric="{goal: maximize}",
            )
        lines = str(caught.value).splitlines()
        assert lines[0] == f"{tmp_path / 'space.yaml'}: 4 problems"
        assert [line[:10] for line in lines[1:]] == [
            "  line 3: ",
            "  line 5: ",
            "  line 6: ",
            "  line 12:",
        ]
        assert {line[11] != " " for line in lines[1:]} == {True}

    @pytest.mark.parametrize(
        "data, expected",
        [
            (
                b"",
                "the file (sections: model, corpus, metric, search, scheduler, resources, "
                "checkpoints, objectives, constraints, first, parameters): must be a mapping, but got nothing",
            ),
            (b"- a\n", "but got a list"),
            (
                b"model: BasicSeq2Seq\nparameters:\n\tembedding.dim: 3\n",
                "line 3: broken YAML: while scanning for the next token found character '\\t' "
                "that cannot start any token; indent with spaces, not tabs",
            ),
            (
                b"model: BasicSeq2Seq\n---\na: 3\n",
                "line 2: broken YAML: expected a single document",
            ),
            (b"model: BasicSeq2Seq\nx: \xff\n", "line 2: not UTF-8: byte 0xff"),
            (b"model: BasicSeq2Seq\nx: \x00\n", "line 2: broken YAML: character '\\x00'"),
            (b"a: &a [*a]\n", "broken YAML: an alias is inside the value that it stands for"),
            (b"a: *b\n", "line 1: broken YAML: found undefined alias 'b'"),
            (b"a: [1, 2\n", "broken YAML: while parsing a flow sequence"),
            (b"a: " + b"[" * 1000, "broken YAML: nested too deeply"),
            (
                b"a0: &a0 [x, x]\n"
                + b"".join(
                    b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9))
                    for i in range(1, 9)
                ),
                "broken YAML: too many values by aliases",
            ),
            (b"#" * 300_000, "is larger than 200000 bytes"),
            (b"parameters: {}", "model is missing; known: BasicSeq2Seq, AttentionSeq2Seq"),
        ],
    )  # fmt: skip
    def test_broken_files(self, tmp_path, data, expected):
        path = tmp_path / "broken.yaml"
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=re.escape(expected)):
            load_space(path)

    @pytest.mark.parametrize("path", ["no/such/file.yaml", ".", "a\0b"])
    def test_unreadable_files(self, path):
        with pytest.raises(ConfigError, match="cannot be read: "):
            load_space(path)

    def test_a_missing_file_is_told_the_nearest(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in (
            "attention.yaml",
            "search_spaces/britz_2017/depth.yaml",
            "search_spaces/dropout.yaml",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        for asked, nearest in {
            "atention.yaml": "attention.yaml",
            "depth": "search_spaces/britz_2017/depth.yaml",
            "search_spaces/dropuot.yaml": "search_spaces/dropout.yaml",
        }.items():
            with pytest.raises(ConfigError) as raised:
                load_space(Path(asked))
            assert (
                str(raised.value)
                == f"{asked}: cannot be read: No such file or directory; did you mean '{nearest}'?"
            )
        with pytest.raises(ConfigError, match=r"directory$"):
            load_space(Path("unlike.yaml"))


class TestLines:
    """Lines are those of an editor, whatever else breaks lines in YAML."""

    HEAD = "model: AttentionSeq2Seq\nparameters:\n  optimizer.learning_rate: [1e-3,{} 1e-2]\n"

    @pytest.mark.parametrize("start", ["", "\ufeff"])
    @pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("odd", ["", "\u00a0", "\u0085", "\u2028", "\u2029", "\u3000"])
    def test_a_problem_below_an_odd_character(self, tmp_path, start, line_end, odd):
        text = start + (self.HEAD.format(odd) + "  # four\n  embedding.dim: x\n").replace(
            "\n", line_end
        )
        assert problem_of(tmp_path, text).startswith("line 5: embedding.dim: must be")

    @pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("last", ["", "\n", "\n\n"])
    @pytest.mark.parametrize("odd", ["\u00a0", "\u0085", "\u2028", "\u3000", "\u200b"])
    def test_a_key_that_an_odd_space_hides_is_named_in_its_own_line(
        self, tmp_path, odd, last, line_end
    ):
        text = self.HEAD.format("") + f"  embedding.dim:{odd} [32, 64]{last}"
        problem = problem_of(tmp_path, text.replace("\n", line_end))
        assert problem.startswith("line 4: broken YAML: ")
        assert f"the line has a U+{ord(odd):04X} (" in problem

    @pytest.mark.parametrize("line", ["  embedding.dim:\u00a08", "\u00a0 embedding.dim: 8"])
    def test_an_odd_space_that_spoils_the_line_below_is_named(self, tmp_path, line):
        problem = problem_of(
            tmp_path, f"model: AttentionSeq2Seq\nparameters:\n{line}\n  attention.dim: 8\n"
        )
        assert problem.startswith("line 4: broken YAML: ")
        assert "; line 3 has a U+00A0 (NO-BREAK SPACE)" in problem

    @pytest.mark.parametrize(
        "text", ["model: [A", "model: [A\n", 'model: "A\n', "# x\r\rmodel: {\r"]
    )
    def test_what_is_open_at_the_end_names_no_line_behind_it(self, tmp_path, text):
        assert problem_of(tmp_path, text).startswith(f"line {len(text.splitlines())}: broken YAML")

    def test_a_run_folder_of_an_earlier_version_is_read(self, tmp_path):
        """Which accepted every reduction_factor above 1."""
        path = tmp_path / "space.yaml"
        text = "model: BasicSeq2Seq\nscheduler: {{reduction_factor: {}}}\n"
        path.write_text(text.format(1.05))
        assert load_space(path, files=False).scheduler.reduction_factor == 1.05
        with pytest.raises(ConfigError, match=r"must be a number at least 1\.1, but got '1\.05'"):
            load_space(path)
        path.write_text(text.format(1))
        with pytest.raises(ConfigError, match="must be a number above 1, but got '1'"):
            load_space(path, files=False)

    def test_a_byte_that_is_not_utf_8(self, tmp_path):
        path = tmp_path / "space.yaml"
        path.write_bytes(b"model: A\r\r\n\nparameters: \xff\n")
        with pytest.raises(ConfigError, match="line 4: not UTF-8"):
            load_space(path)


def problem_of(folder: Path, text: str) -> str:
    path = folder / "space.yaml"
    path.write_bytes(text.encode())
    with pytest.raises(ConfigError) as raised:
        load_space(path)
    (problem,) = raised.value.problems
    return problem


class TestOneProblem:
    """A fault in one place is one problem: what follows from it is not reported, too."""

    @pytest.mark.parametrize(
        "text, sections, problem",
        [
            (
                "embedding.dim: [16, 32, 64, 16]",
                {"search": "{trials: 3}"},
                "line 4: embedding.dim: 16 is listed twice",
            ),
            (
                "embedding.dim: [16, x, 64]",
                {"search": "{trials: 3}"},
                "line 4: embedding.dim: must be",
            ),
            (
                "optimizer.learning_rate: [1, 1, 2]",
                {"scheduler": "{name: pbt}"},
                "line 5: optimizer.learning_rate: 1.0 is",
            ),
            (
                "train.max_steps: [3000, 3000]",
                {"scheduler": "{grace_steps: 2000}"},
                "line 5: train.max_steps: 3000 is",
            ),
            (
                "train.max_steps: [3000, 3000]",
                {"scheduler": "{name: pbt, interval_steps: 2000}", "search": "{}"},
                "line 5: train.max_steps: 3000 is",
            ),
            (
                f"{CELL}: {{choices: {{a: {{class: GRUCell}}, b: {{class: GRUCell}}}}}}\n"
                f"attention.dim: {{choices: [1, 2], when: {{{CELL}: c}}}}",
                {},
                f"line 4: {CELL}: {{'class': 'GRUCell'}} is listed twice",
            ),
            (
                "embedding.dim: {lo: 1}",
                {},
                "line 4: embedding.dim: unknown word 'lo'; did you mean 'min'?",
            ),
        ],
    )  # fmt: skip
    def test_is_one(self, problems, text, sections, problem):
        (only,) = problems(text, **sections)
        assert only.startswith(problem)

    def test_what_does_not_follow_is_said_too(self, problems):
        sections = {
            "scheduler": "{name: asha, max_steps: 10, grace_steps: 20}",
            "search": "{method: grid}",
        }
        found = problems(
            "embedding.dim: [16, 16]\noptimizer.learning_rate: {min: 1, max: 2}", **sections
        )
        assert any("a grid needs steps" in problem for problem in found)
        assert any("embedding.dim: 16 is listed twice" in problem for problem in found)
        assert any(
            "scheduler.grace_steps: must be at most max_steps" in problem for problem in found
        )


class TestOverridesLeaveFew:
    """Overrides may fix all that a file searches.

    The configurations that are left run, and only an explicit number of trials is refused.
    """

    ALL = "optimizer.learning_rate: {min: 1e-3, max: 1e-2}"
    UNDER = (
        'optimizer.lr_decay_type: ["", exponential_decay]\n'
        "optimizer.lr_decay_rate:\n"
        "  {min: 0.5, max: 1.0, when: {optimizer.lr_decay_type: exponential_decay}}"
    )

    @pytest.mark.parametrize("method", ["random", "halton", "grid"])
    @pytest.mark.parametrize(
        "text, fixed",
        [(ALL, {"optimizer.learning_rate": 5e-3}), (UNDER, {"optimizer.lr_decay_type": ""})],
    )
    def test_one_configuration_is_left(self, load, text, fixed, method):
        if method == "grid":
            text = text.replace("max: 1e-2", "max: 1e-2, step: 1e-3").replace(
                "max: 1.0", "max: 1.0, step: 0.1"
            )
        space = load(text, search=f"{{trials: 4, method: {method}, replicates: 2}}")
        first, second = space.trials(overrides=fixed)
        assert first | {"train.seed": 1} == second
        assert fixed.items() <= first.items()
        assert space.fixed(fixed).trials() == [first, second]

    def test_an_explicit_number_is_refused(self, load):
        with pytest.raises(
            ConfigError, match="2 different configurations were asked for, but only 1 valid"
        ):
            load(self.ALL, search="{trials: 4}").trials(
                2, overrides={"optimizer.learning_rate": 5e-3}
            )


class TestDocument:
    def test_its_files_load(self, load):
        blocks = re.findall(
            "```yaml\n(.*?)```", (ROOT / "docs" / "search_spaces.md").read_text(), re.DOTALL
        )
        counts = [len(load(block).trials()) for block in blocks]
        assert counts == [64, 8, 4, 16, 32, 32, 40, 8, 64]


def test_checking_a_file_imports_nothing_heavy():
    script = (
        "import sys\n"
        "from s2s_search.spaces import load_space\n"
        f"load_space({str(ROOT / 'search_spaces' / 'quickstart.yaml')!r}).trials()\n"
        "print({'torch', 'ray', 'pandas', 'numpy'} & set(sys.modules))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout == "set()\n"
