"""Samplers: what TPE is asked and told, and what it does with trials that stop, diverge or fail."""

import json
import math
import random
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import resolve
from s2s_search.methods.make import make_sampler
from s2s_search.methods.samplers import STARTUP, TPE, Listed, replicated
from s2s_search.results.pareto import pareto
from s2s_search.spaces.explore import explore
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space
from s2s_search.statuses import FAILURES

FOLDER = Path(__file__).parents[2] / "search_spaces"
RATE = "optimizer.learning_rate"


@pytest.fixture
def space(tmp_path):
    """Makes a space from its parameters, for tpe unless sections say otherwise."""

    def space(parameters: str, **sections: str) -> Space:
        head = {
            "model": "AttentionSeq2Seq",
            "search": "{method: tpe, trials: 30, seed: 4}",
            **sections,
        }
        text = "".join(f"{name}: {value}\n" for name, value in head.items())
        path = tmp_path / "space.yaml"
        path.write_text(text + f"parameters: {{{parameters}}}\n")
        return load_space(path)

    return space


WIDE = f"{RATE}: {{min: 1e-4, max: 1e-2, log: true}}, embedding.dim: {{min: 8, max: 64}}"


def cost(config: dict) -> float:
    """Least, 0, at a rate of 0.002 and 32 dimensions."""
    return abs(math.log(config[RATE] / 2e-3)) + abs(config["embedding.dim"] - 32) / 32


def run(sampler, number_of_trials, cost=cost):
    configs = []
    for number in range(number_of_trials):
        configs.append(sampler.ask(number))
        sampler.tell(number, configs[-1], [cost(configs[-1])], "finished")
    return configs


class TestListed:
    def test_the_trials_of_the_space_in_order(self):
        space = load_space(FOLDER / "attention.yaml")
        sampler = make_sampler(space, 3, 7, {"embedding.dim": 32})
        assert isinstance(sampler, Listed)
        assert [sampler.ask(k) for k in range(len(sampler))] == space.trials(
            3, 7, {"embedding.dim": 32}
        )
        assert sampler.ask(len(sampler)) is None

    def test_results_change_nothing(self):
        space = load_space(FOLDER / "quickstart.yaml")
        told, untold = make_sampler(space), make_sampler(space)
        told.tell(0, told.ask(0), [0.1], "finished")
        told.running(1, told.ask(1))
        assert told.ask(2) == untold.ask(2)


class TestTPE:
    def test_begins_with_the_random_draws(self, space):
        tpe = make_sampler(space(WIDE))
        assert isinstance(tpe, TPE)
        draws = space(WIDE).trials()
        assert run(tpe, STARTUP) == draws[:STARTUP]
        assert tpe.ask(STARTUP) != draws[STARTUP]

    def test_what_the_file_names_first_is_first_after_a_warm_start_too(self, space):
        first = ", ".join(f"{{embedding.dim: {dim}}}" for dim in range(20, 34))
        sections = {"first": f"[{first}]", "search": "{method: tpe, trials: 16}"}
        tpe = make_sampler(space(WIDE, **sections))
        earlier = space(WIDE, search="{trials: 12}").trials()
        assert tpe.warm_start((config, [cost(config)], "finished") for config in earlier)[0] == 12
        asked = [config["embedding.dim"] for config in run(tpe, 14)]
        assert asked == list(range(20, 34))

    def test_the_order_in_which_it_hears_changes_nothing(self, space):
        configs = run(make_sampler(space(WIDE)), 29)
        asked = []
        for order in (configs, configs[::-1]):
            tpe = make_sampler(space(WIDE))
            for config in order:
                tpe.tell(configs.index(config), config, [cost(config)], "finished")
            asked.append(tpe.ask(29))
        assert asked[0] == asked[1]

    def test_asked_side_by_side_it_draws_until_results_come(self, space):
        tpe = make_sampler(space(WIDE))
        assert [tpe.ask(k) for k in range(20)] == space(WIDE).trials()[:20]

    def test_as_many_as_the_space_says_or_the_call(self, space):
        tpe = make_sampler(space(WIDE), 3)
        assert (len(make_sampler(space(WIDE))), len(tpe)) == (30, 3)
        assert tpe.ask(2) is not None
        assert tpe.ask(3) is None

    def test_overrides_are_in_every_configuration(self, space):
        overrides = {"embedding.dim": 9, "train.max_steps": 7}
        for config in run(make_sampler(space(WIDE), 15, None, overrides), 15):
            assert (config["embedding.dim"], config["train.max_steps"], config["train.seed"]) == (
                9,
                7,
                4,
            )

    def test_a_small_space_is_run_through_without_repetition(self, space):
        small = space("embedding.dim: [1, 2, 3, 4, 5], encoder.rnn_cell.num_layers: [1, 2, 3]",
                      search="{method: tpe, trials: 15}")  # fmt: skip
        configs = run(make_sampler(small), 15, lambda config: config["embedding.dim"])
        assert (
            len(
                {
                    (config["embedding.dim"], config["encoder.rnn_cell.num_layers"])
                    for config in configs
                }
            )
            == 15
        )

    def test_what_rules_refuse_is_never_given(self, space):
        layers = "encoder.rnn_cell.num_layers: [1, 2, 3], decoder.rnn_cell.num_layers: [1, 2, 3]"
        bridges = "bridge_spec: [{class: PassThroughBridge}, {class: ZeroBridge}]"
        tpe = make_sampler(space(f"{bridges}, {layers}", search="{method: tpe, trials: 12}"))
        complete = set()
        for config in run(tpe, 12, lambda config: config["bridge_spec"]["class"] == "ZeroBridge"):
            complete.add(resolve("AttentionSeq2Seq", config))
        assert len(complete) == 12  # all that are valid, though the best are PassThroughBridge's

    def test_keys_that_take_no_part_are_not_there_and_ties_follow(self, space):
        parameters = (
            "optimizer.lr_decay_type: ['', exponential_decay], embedding.dim: {min: 8, max: 64},"
            "optimizer.lr_decay_rate: {min: 0.1, max: 0.9, when: {optimizer.lr_decay_type: "
            "exponential_decay}},"
            "attention.dim: {same_as: embedding.dim}"
        )
        for config in run(
            make_sampler(space(parameters)), 30, lambda config: config["embedding.dim"]
        ):
            assert ("optimizer.lr_decay_rate" in config) == (
                config["optimizer.lr_decay_type"] != ""
            )
            assert config["attention.dim"] == config["embedding.dim"]

    def test_the_best_and_the_goal(self, space):
        """After 20 results, suggestions crowd where the values are best, whichever way that is."""
        for metric, best in (("dev.loss", 8), ("dev.bleu", 64)):
            tpe = make_sampler(
                space("embedding.dim: {min: 8, max: 64}", metric=f"{{name: {metric}}}")
            )
            late = [
                config["embedding.dim"]
                for config in run(tpe, 30, lambda config: config["embedding.dim"])[20:]
            ]
            assert statistics.median(abs(dim - best) for dim in late) < 20

    @pytest.mark.parametrize("status, values", [
        ("diverged", None), ("diverged", [0.0]), ("finished", [math.nan]), ("stopped", [math.inf]),
    ])  # fmt: skip
    def test_where_trials_diverge_it_does_not_return(self, space, status, values):
        tpe = make_sampler(space(WIDE))
        late = []
        for number in range(30):
            config = tpe.ask(number)
            late.append(config[RATE])
            if config[RATE] > 1e-3:  # half of the range
                tpe.tell(number, config, values, status)
            else:
                tpe.tell(number, config, [1.0 + number % 3 / 10], "finished")
        assert sum(rate > 1e-3 for rate in late[15:]) <= 3

    @pytest.mark.parametrize(
        "status, values", [("diverged", None), ("failed", None), ("finished", [math.nan])]
    )
    def test_nothing_but_bad_ends_block_nothing(self, space, status, values):
        tpe = make_sampler(space(WIDE))
        for number in range(30):
            tpe.tell(number, tpe.ask(number), values, status)
        assert tpe.ask(29) is not None

    def test_a_diverged_trial_is_told_as_the_worst(self, space):
        tpe = make_sampler(space(WIDE, objectives="[parameters, dev.bleu]"))
        ends = [
            ([0.5, 10, 3.0], "finished"),
            ([0.7, 5, 4.0], "finished"),
            (None, "diverged"),
            (None, "failed"),
        ]
        for number, end in enumerate(ends):
            tpe.tell(number, tpe.ask(number), *end)
        tpe.ask(4)
        assert [values for _, values in tpe._judged(tpe._heard())] == [
            [0.5, 10, 3],
            [0.7, 5, 4],
            [0.7, 10, 3],
            None,
        ]

    @pytest.mark.parametrize("status", FAILURES)
    def test_no_failure_teaches_it_anything(self, space, status):
        sampler = make_sampler(space(WIDE))
        for number in range(3):
            sampler.tell(
                number, sampler.ask(number), [float(number)], status if number else "finished"
            )
        assert [values for _, values in sampler._judged(sampler._heard())] == [[0.0]]

    def test_seconds_of_a_stopped_trial_count_as_the_most(self, space):
        tpe = make_sampler(space(WIDE, objectives="[seconds]"))
        for number, end in enumerate([([0.5, 90], "finished"), ([0.7, 5], "stopped")]):
            tpe.tell(number, tpe.ask(number), *end)
        assert [values for _, values in tpe._judged(tpe._heard())] == [[0.5, 90], [0.7, 90]]

    def test_keys_under_a_condition_are_modelled_together(self, space):
        """The best are on a diagonal of two keys that take part in half of the trials."""
        decay = "when: {optimizer.lr_decay_type: exponential_decay}"
        parameters = (
            f"optimizer.lr_decay_type: ['', exponential_decay],"
            f"optimizer.lr_decay_rate: {{min: 0.01, max: 1, {decay}}},"
            f"optimizer.lr_min_learning_rate: {{min: 0, max: 1, {decay}}}"
        )
        diagonal = space(parameters, search="{method: tpe, trials: 160, seed: 1}")

        def off(config: dict) -> float:
            if not config["optimizer.lr_decay_type"]:
                return 0.5
            least = config["optimizer.lr_min_learning_rate"]
            return abs(config["optimizer.lr_decay_rate"] - least)

        tpe = make_sampler(diagonal)
        for number, config in enumerate(diagonal.trials(100)):
            tpe.tell(number, config, [off(config)], "finished")
        asked = [off(tpe.ask(number)) for number in range(100, 130)]
        assert statistics.mean(asked) < 0.12

    def test_two_objectives_are_traded_off(self, space):
        both = space("embedding.dim: {min: 8, max: 64}, attention.dim: {min: 8, max: 64}",
                     objectives="[parameters]", search="{method: tpe, trials: 40}")  # fmt: skip
        tpe = make_sampler(both)
        late = []
        for number in range(40):
            config = tpe.ask(number)
            dim, waste = config["embedding.dim"], config["attention.dim"] - 8
            tpe.tell(number, config, [1 / dim + waste, dim + waste], "finished")
            late.append((dim, waste))
        assert statistics.median(waste for _, waste in late[20:]) < 15  # evenly drawn: 28
        assert max(dim for dim, _ in late[20:]) - min(dim for dim, _ in late[20:]) > 28


class TestWarmStart:
    def test_it_learns_from_trials_of_an_earlier_search(self, space):
        wide, early, late = space(WIDE, search="{method: tpe, trials: 60}"), [], []
        for seed in range(3):
            first, second = make_sampler(wide, seed=seed), make_sampler(wide, seed=seed + 9)
            rows = [
                (json.loads(json.dumps(config)), [cost(config)], "finished")
                for config in run(first, 60)
            ]
            assert second.warm_start(rows) == (60, 0)
            early += wide.trials(10, seed + 9)
            late += run(second, 10)
        assert statistics.median(map(cost, late)) < 0.6 * statistics.median(map(cost, early))

    def test_what_the_space_does_not_hold_is_skipped(self, space):
        tpe = make_sampler(space(f"{WIDE}, attention.dim: 32"))
        config = {"model": "AttentionSeq2Seq", RATE: 1e-3, "embedding.dim": 16, "attention.dim": 32}
        fit = [
            (config, [0.3], "finished"),
            (config | {"train.max_steps": 9, "train.seed": 8}, [0.3], "stopped"),
            (config, None, "diverged"),
        ]
        unfit = [
            (config | {"embedding.dim": 65}, [0.3], "finished"),
            (config | {RATE: 1e-5}, [0.3], "finished"),
            (config | {"attention.dim": 33}, [0.3], "finished"),
            (config | {"optimizer.name": "SGD"}, [0.3], "finished"),
            (config | {"optimizer.nam": "SGD"}, [0.3], "finished"),
            (config | {"model": "BasicSeq2Seq"}, [0.3], "finished"),
            (
                {key: value for key, value in config.items() if key != "embedding.dim"},
                [0.3],
                "finished",
            ),
            ({}, [0.3], "finished"),
            (config, [0.3, 0.4], "finished"),
            (config, [None], "finished"),
            (config, None, "failed"),
        ]
        assert tpe.warm_start(fit + unfit) == (len(fit), len(unfit))

    def test_its_trials_are_not_run_again(self, space):
        small = space("embedding.dim: [1, 2, 3]", search="{method: tpe, trials: 3}")
        tpe = make_sampler(small)
        tpe.warm_start([(config, [0.3], "finished") for config in small.trials()[:2]])
        assert tpe.ask(0) == small.trials()[2]
        assert tpe.ask(1) is None


class TestExplore:
    TEXT = f"{RATE}: {{min: 1e-3, max: 1e-2}}, encoder.rnn_cell.num_layers: [1, 2, 3]"

    def explored(self, space: Space, config: dict) -> list[dict]:
        rng = random.Random(5)
        return [explore(space, config, rng) for _ in range(400)]

    def test_a_quarter_is_drawn_anew_the_rest_times_0_8_or_1_2(self, space):
        pbt = space(self.TEXT, search="{}", scheduler="{name: pbt}")
        config = pbt.trials()[0] | {RATE: 5e-3}
        found = self.explored(pbt, config)
        rates = [new.pop(RATE) for new in found]
        assert all(
            new == {key: value for key, value in config.items() if key != RATE} for new in found
        )
        assert (pbt.mutable, config[RATE]) == ((RATE,), 5e-3)
        for factor in (0.8, 1.2):
            assert 110 < rates.count(5e-3 * factor) < 190  # 150 of 400
        drawn = [rate for rate in rates if rate not in (4e-3, 6e-3)]
        assert 3e-3 < statistics.median(drawn) < 8e-3

    def test_ends_hold_and_choices_move_to_a_neighbour(self, space):
        names = "optimizer.clip_gradients: [1, 2, 3, 4, 5, 6]"
        pbt = space(f"{self.TEXT}, {names}", search="{}", scheduler="{name: pbt}")
        config = pbt.trials()[0] | {RATE: 9.9e-3, "optimizer.clip_gradients": 3.0}
        found = self.explored(pbt, config)
        assert max(new[RATE] for new in found) == 1e-2
        clips = [new["optimizer.clip_gradients"] for new in found]
        assert all(clips.count(near) > 110 for near in (2, 4))

    def test_what_a_new_value_brings_along_is_drawn(self, space):
        parameters = (
            "optimizer.lr_decay_type: ['', exponential_decay],"
            "optimizer.lr_decay_rate: {min: 0.1, max: 0.9, when: {optimizer.lr_decay_type: "
            "exponential_decay}}"
        )
        pbt = space(parameters, search="{}", scheduler="{name: pbt}")
        config = {
            "model": "AttentionSeq2Seq",
            "optimizer.lr_decay_type": "",
            "train.max_steps": 9,
            "train.seed": 1,
        }
        rates = {new.get("optimizer.lr_decay_rate") for new in self.explored(pbt, config)}
        assert len(rates) > 50
        assert None in rates

    def test_a_change_that_brings_along_another_model_is_not_made(self, space):
        parameters = (
            "optimizer.clip_gradients: [1, 5],"
            "embedding.dim: {choices: [7, 8], when: {optimizer.clip_gradients: 5}}"
        )
        pbt = space(parameters, search="{}", scheduler="{name: pbt}")
        config = {"model": "AttentionSeq2Seq", "optimizer.clip_gradients": 1.0}
        assert self.explored(pbt, config) == [config] * 400

    def test_an_invalid_change_is_not_made(self, space):
        parameters = (
            "optimizer.lr_decay_type: [exponential_decay], optimizer.lr_decay_rate: [1, 1e30]"
        )
        pbt = space(parameters, search="{}", scheduler="{name: pbt}")
        config = {"model": "AttentionSeq2Seq", "optimizer.lr_decay_type": "exponential_decay",
                  "optimizer.lr_decay_rate": 1.0, "train.max_steps": 1000}  # fmt: skip
        assert self.explored(pbt, config) == [config] * 400


def test_tpe_beats_random_search():
    """On a made-up cost over a packaged space, after 60 trials.

    For each seed the result is below the median of random search.
    """
    single = replace(load_space(FOLDER / "tpe.yaml"), further=())

    def cost(config: dict) -> float:
        rate, dim = math.log(config[RATE] / 3e-3), math.log(config["embedding.dim"] / 90)
        units = math.log(config["encoder.rnn_cell.cell_spec.num_units"] / 40)
        wrong = (config["encoder.type"] != "BidirectionalRNNEncoder") + (
            config["attention.score_type"] != "bahdanau"
        )
        return rate**2 + dim**2 + units**2 + wrong

    def best(sampler) -> float:
        return min(map(cost, run(sampler, 60, cost)))

    chance = statistics.median(best(Listed(single.trials(60, seed))) for seed in range(15))
    found = [best(make_sampler(single, 60, seed)) for seed in range(5)]
    assert statistics.median(found) < chance / 2
    assert sum(value < chance for value in found) >= 4


def test_the_module_needs_no_package_of_the_layers_above():
    packages = ("torch", "ray", "pandas", "numpy", "rich", "optuna")
    code = f"import sys\nfor name in {packages}:\n    sys.modules[name] = None\n"
    code += "import s2s_search.methods.samplers"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def beats(a: list, b: list, goals: tuple[str, ...]) -> bool:
    """The definition: nowhere worse, somewhere better."""
    better = [
        x < y if goal == "minimize" else x > y for x, y, goal in zip(a, b, goals, strict=True)
    ]
    return any(better) and all(
        x == y or is_better for x, y, is_better in zip(a, b, better, strict=True)
    )


@pytest.mark.parametrize(
    "goals", [("minimize",), ("minimize", "maximize"), ("maximize", "minimize", "minimize")]
)
def test_pareto_is_what_nothing_beats(goals):
    rng = random.Random(3)
    for _ in range(100):
        rows = [
            [rng.choice((0, 1, 2, 3, -1, None, math.nan, math.inf)) for _ in goals]
            for _ in range(12)
        ]
        finite = [
            row for row in rows if all(value is not None and math.isfinite(value) for value in row)
        ]
        expected = [
            row in finite and not any(beats(other, row, goals) for other in finite) for row in rows
        ]
        assert pareto(rows, goals) == expected
    assert pareto([], goals) == []


class TestReplicated:
    @staticmethod
    def config(rate: float, seed: int) -> dict[str, object]:
        return {"model": "BasicSeq2Seq", RATE: rate, "train.seed": seed}

    def test_the_best_that_differ_each_with_seeds_that_it_never_had(self):
        ranked = [
            self.config(0.1, 4),
            self.config(0.1, 2),
            self.config(0.2, 4),
            self.config(0.3, 4),
        ]
        others = [self.config(0.1, 9), self.config(0.4, 50)]  # without a result
        again = replicated(ranked, others, top=2, seeds=3)
        assert again == [
            *(self.config(0.1, seed) for seed in (10, 11, 12)),
            *(self.config(0.2, s) for s in (5, 6, 7)),
        ]

    def test_configurations_that_resolve_alike_are_one(self):
        default = resolve("BasicSeq2Seq", {})[RATE]
        with pytest.raises(
            ConfigError, match="--top 2: only 1 different configurations have a result"
        ):
            replicated([self.config(default, 0), {"model": "BasicSeq2Seq"}], [], top=2, seeds=1)
        assert (
            len(
                replicated([self.config(default, 0), {"model": "BasicSeq2Seq"}], [], top=1, seeds=2)
            )
            == 2
        )
