"""Properties of every shipped search space: each draw resolves, and draws depend on nothing but the seed.

What tpe suggests depends on nothing but what it was asked and told besides, and pbt changes what it may change.
"""

import json
import random
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import overlay, resolve
from s2s_search.hparams.rules import RULES
from s2s_search.methods.make import make_sampler
from s2s_search.spaces.dimensions import Choice, Prior, Range, Tie, value_of
from s2s_search.spaces.explore import explore
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space

FOLDER = Path(__file__).parents[2] / "search_spaces"
NAMES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml"))
SOME = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
spaces = pytest.mark.parametrize("name", NAMES)


@cache
def load(name: str) -> Space:
    return load_space(FOLDER / name)


def test_the_spaces_are_there():
    ours = {
        "quickstart",
        "encoder_type",
        "attention",
        "lr_decay",
        "optimizer",
        "cells",
        "bridge",
        "dropout",
    }
    study = {
        f"britz_2017/{name}"
        for name in ("embedding", "cell", "depth", "direction", "attention", "decoding")
    }
    assert {name.removesuffix(".yaml") for name in NAMES} >= ours | study


@spaces
def test_begins_with_its_question(name):
    text = load(name).text
    comments = [line for line in text.splitlines() if line.startswith("#")]
    sentences = " ".join(line.removeprefix("# ") for line in comments)
    assert text.startswith("# ")
    assert "?" in sentences.partition(".")[0]
    assert ("Results of the study (BLEU" in text) == name.startswith("britz_2017/")


@spaces
def test_every_trial_resolves(name):
    trials = load(name).trials()
    complete = {resolve(str(flat["model"]), flat) for flat in trials}
    assert len(complete) == len(trials)


@spaces
def test_every_choice_is_drawn_sooner_or_later(name):
    space = load(name)
    flats = space.grid() if space.search.method == "grid" else space.draw(150)
    for dimension in space.varying:
        drawn = [flat.get(dimension.key) for flat in flats]
        if isinstance(dimension.domain, Choice):
            assert all(value in drawn for value in dimension.domain.values), dimension.key


@spaces
@SOME
@given(data=st.data())
def test_every_point_is_a_configuration_that_only_rules_can_refuse(name, data):
    space = load(name)
    u = data.draw(st.lists(st.floats(0, 1), min_size=space.size, max_size=space.size))
    flat = space.at(u)
    values, problems = overlay(str(flat["model"]), flat)
    assert problems == []
    assert any(rule(values) for rule in RULES) or resolve(str(flat["model"]), flat)
    for dimension in space.dimensions:
        if dimension.key in flat and not isinstance(dimension.domain, Tie):
            assert_inside(flat[dimension.key], dimension.domain)


def assert_inside(value: object, domain: Choice | Range) -> None:
    if isinstance(domain, Choice):
        assert value in domain.values
        return
    assert isinstance(value, int if domain.whole else float)
    assert domain.low <= value <= domain.high
    if domain.step is not None:
        point = domain.low + round((value - domain.low) / domain.step) * domain.step
        assert abs(value - point) <= 1e-11 * max(
            abs(domain.low), abs(domain.high)
        )  # points have twelve digits


@spaces
def test_the_default_can_be_the_first_trial_of_every_space(name, tmp_path):
    path = tmp_path / Path(name).name
    path.write_text(load(name).text + "\nfirst: default\n")
    space = load_space(path)
    first, *others = space.trials()
    for dimension in space.varying:
        if dimension.key in first and dimension.key != "model":
            default = value_of(dimension.key, {"model": first["model"]})
            assert dimension.domain.allows(first[dimension.key])
            assert first[dimension.key] == default or not dimension.domain.allows(default)
    grids = [dimension.key for dimension in space.varying if dimension.grid]
    if not grids and space.search.replicates == 1:
        without = load(name).trials()
        kept = [trial for trial in without if trial != first]
        assert others == kept[: len(others)]
        assert len(others) >= len(without) - 1


def test_weights_are_the_frequencies_of_the_draws(tmp_path):
    """A chi-square test over 2,000 draws with a fixed seed."""
    path = tmp_path / "space.yaml"
    path.write_text(
        "model: BasicSeq2Seq\nparameters:\n"
        "  optimizer.learning_rate: {min: 1e-4, max: 1e-2}\n"
        "  embedding.dim: {choices: [8, 16, 32, 64], weights: [5, 1, 0.5, 3.5]}\n"
    )
    drawn = Counter(flat["embedding.dim"] for flat in load_space(path).draw(2000, seed=1))
    expected = {8: 1000, 16: 200, 32: 100, 64: 700}
    statistic = sum((drawn[dim] - n) ** 2 / n for dim, n in expected.items())
    assert statistic < 11.34  # the quantile 0.99 of 3 degrees of freedom


def test_priors_are_the_frequencies_of_the_draws(tmp_path):
    """A chi-square test over 2,000 draws with a fixed seed."""
    path = tmp_path / "space.yaml"
    path.write_text(
        "model: BasicSeq2Seq\nparameters:\n"
        "  optimizer.learning_rate: {min: 1e-4, max: 1e-2}\n"
        "  embedding.dim: {choices: [8, 16, 32, 64], weights: [2, 1, 1, 1], prior: 16}\n"
    )
    space = load_space(path)
    drawn = Counter(flat["embedding.dim"] for flat in space.draw(2000, seed=1))
    # Three quarters without the prior; of the last one half at the prior, and one half without it.
    expected = {8: 700, 16: 600, 32: 350, 64: 350}
    statistic = sum((drawn[dim] - n) ** 2 / n for dim, n in expected.items())
    assert statistic < 11.34  # the quantile 0.99 of 3 degrees of freedom


COMPARED = ("embedding.dim", "attention.dim", "encoder.rnn_cell.num_layers")
SIGNS = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
comparisons = st.tuples(
    st.sampled_from(COMPARED), st.sampled_from(sorted(SIGNS)), st.sampled_from((*COMPARED, 2, 4))
).filter(lambda sides: sides[0] != sides[2])


def satisfied(wanted: list[tuple], point: dict) -> bool:
    return all(SIGNS[sign](point[left], point.get(right, right)) for left, sign, right in wanted)


@SOME
@given(
    wanted=st.lists(comparisons, min_size=1, max_size=4),
    method=st.sampled_from(("random", "halton", "grid", "tpe")),
)
def test_draws_are_the_points_that_satisfy_the_constraints(tmp_path_factory, wanted, method):
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    texts = [f"{left} {sign} {right}" for left, sign, right in wanted]
    parameters = {key: {"min": 1, "max": 5} for key in COMPARED}
    points = [dict(zip(COMPARED, values, strict=True)) for values in product(range(1, 6), repeat=3)]
    left = [point for point in points if satisfied(wanted, point)]
    trials = min(len(left), 12)
    sections = {
        "model": "AttentionSeq2Seq",
        "search": {"method": method, "trials": trials or 1},
        "constraints": texts,
        "parameters": parameters,
    }
    path.write_text(json.dumps(sections))
    if not left:
        with pytest.raises(ConfigError, match="constraints"):
            load_space(path)
        return
    space = load_space(path)
    assert len(space.grid()) == len(left)
    assert all(satisfied(wanted, flat) for flat in space.grid())
    sampler = make_sampler(space)
    asked = []
    for number in range(trials):  # better where the constraints may not hold
        asked.append(sampler.ask(number))
        sampler.tell(number, asked[-1], [-sum(asked[-1][key] for key in COMPARED)], "finished")
    assert len({resolve("AttentionSeq2Seq", flat) for flat in asked}) == trials
    assert all(satisfied(wanted, flat) for flat in asked)


def test_tpe_and_pbt_stay_within_the_constraints(tmp_path):
    path = tmp_path / "space.yaml"
    keep = "encoder.rnn_cell.dropout_{}_keep_prob"
    path.write_text(
        "model: BasicSeq2Seq\nsearch: {method: tpe, trials: 40}\n"
        f"constraints: [{keep.format('input')} < {keep.format('output')}]\nparameters:\n"
        f"  {keep.format('input')}: {{min: 0.1, max: 1}}\n"
        f"  {keep.format('output')}: {{min: 0.1, max: 1}}\n"
    )
    space, rng = load_space(path), random.Random(1)
    sampler = make_sampler(space)
    for number in range(40):
        config = sampler.ask(number)
        low, high = (config[keep.format(side)] for side in ("input", "output"))
        assert low < high
        sampler.tell(number, config, [high - low], "finished")  # best where it just holds
    for _ in range(200):
        config = explore(space, config, rng)
        assert config[keep.format("input")] < config[keep.format("output")]


@spaces
@settings(SOME, max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 12), m=st.integers(0, 12))
def test_first_draws_do_not_depend_on_how_many_follow(name, seed, n, m):
    space = load(name)
    most = len(space.grid()) if space.search.method == "grid" else 12
    n, m = sorted((min(n, most), min(m, most)))
    assert space.draw(m, seed)[:n] == space.draw(n, seed)
    assert len({resolve(str(flat["model"]), flat) for flat in space.draw(m, seed)}) == m


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    whole = draw(st.booleans())
    numbers = st.integers(1, 65536) if whole else st.floats(1e-9, 1e9)
    low, high = sorted((draw(numbers), draw(numbers)))
    high = high if high > low else low * 2
    stepped = (
        st.integers(1, int(high - low))
        if whole
        else st.none() | st.floats((high - low) / 1000, high - low)
    )
    return Range(low, high, log=draw(st.booleans()), step=draw(stepped), whole=whole)


@SOME
@given(ranges(), st.floats(0, 1))
def test_a_range_stays_inside(domain, u):
    value = domain.at(u)
    assert domain.low <= value <= domain.high
    if domain.step is not None:
        assert value in domain
        assert value in domain.points() or domain.size > 1000


@SOME
@given(ranges(), st.floats(0, 1))
def test_a_position_is_where_a_value_is(domain, u):
    value = domain.at(u)
    if domain.step is None:
        assert domain.at(domain.position(value)) == pytest.approx(
            value, rel=1e-4, abs=1e-5 * (domain.high - domain.low)
        )
    else:
        assert domain.at(domain.position(value)) == value


@SOME
@given(ranges(), st.floats(0, 1), st.floats(0.01, 0.5))
def test_leaning_values_lie_in_the_range_and_their_ratios_have_the_mean_one(domain, u, spread):
    prior = Prior(domain.at(u), spread)
    shares = [(k + 0.5) / 1000 for k in range(1000)]
    drawn = [prior.at(domain, share) for share in (0, *shares, 1)]
    for value in drawn:
        assert_inside(value, domain)
    assert drawn == sorted(drawn)
    if domain.step is None:
        ratios = [prior.ratio(domain, domain.at(share)) for share in shares]
        assert sum(ratios) / 1000 == pytest.approx(1, rel=0.02)
        # Half of the draws lie below the value at one half.
        below = [
            ratio
            for ratio, share in zip(ratios, shares, strict=True)
            if domain.at(share) < prior.at(domain, 0.5)
        ]
        assert sum(below) / 1000 == pytest.approx(0.5, abs=0.05)
    elif domain.size <= 1000:
        total = 0.0
        for point in domain.points():
            begin, end = domain.interval(point)
            total += (end - begin) * prior.ratio(domain, point)
        assert total == pytest.approx(1, rel=1e-6)


@SOME
@given(ranges(), st.floats(0, 1), st.sampled_from((0.8, 1.2)))
def test_a_perturbation_stays_inside_and_goes_the_right_way(domain, u, factor):
    value = domain.at(u)
    other = domain.perturbed(value, factor)
    assert_inside(other, domain)
    assert other >= value if factor > 1 else other <= value


@SOME
@given(ranges(), st.floats(0, 1), st.floats(0, 1))
def test_a_range_never_falls(domain, u, v):
    assert domain.at(min(u, v)) <= domain.at(max(u, v))


ENDS = st.sampled_from(
    ("finished",) * 6 + ("stopped", "diverged", "failed", "running")
)  # past the random start


def judged(config: dict, status: str, objectives: int) -> list[float] | None:
    number = random.Random(json.dumps(config, sort_keys=True)).random()
    return None if status in ("failed", "diverged") else [number, *range(1, objectives)]


@pytest.mark.parametrize("name", ["tpe.yaml", "quickstart.yaml", "bridge.yaml", "dropout.yaml"])
@settings(SOME, max_examples=15)
@given(
    ends=st.lists(ENDS, min_size=16, max_size=24),
    kill=st.integers(0, 23) | st.just(15),
    data=st.data(),
)
def test_a_search_that_was_killed_goes_on_as_if_it_had_lived(name, ends, kill, data):
    """A new sampler hears, in any order and from JSON, what the old one did; from there on both ask the same."""
    space = load(name)
    space = replace(space, search=replace(space.search, method="tpe", trials=24))
    lived, heard = make_sampler(space), []
    for number, status in enumerate(ends):
        if number == kill:
            revived = make_sampler(space)
            for one, config, end in data.draw(st.permutations(heard)):
                hear(revived, one, json.loads(json.dumps(config)), end, len(space.objectives))
            assert revived.ask(number) == lived.ask(number)
        config = lived.ask(number)
        hear(lived, number, config, status, len(space.objectives))
        heard.append((number, config, status))


def hear(sampler, number: int, config: dict, status: str, objectives: int) -> None:
    if status == "running":
        sampler.running(number, config)
    else:
        sampler.tell(number, config, judged(config, status, objectives), status)


@spaces
@settings(SOME, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_pbt_changes_only_what_a_checkpoint_survives_and_stays_in_the_space(name, seed):
    space, rng = load(name), random.Random(seed)
    config = rng.choice(space.trials())
    for _ in range(5):
        new = explore(space, config, rng)
        resolved = [resolve(str(flat["model"]), flat) for flat in (config, new)]
        changed = {key for key in resolved[0] if resolved[0][key] != resolved[1][key]}
        survivors = ("keep_prob", "train.label_smoothing")
        assert all(key.startswith("optimizer.") or key.endswith(survivors) for key in changed)
        assert "optimizer.name" not in changed
        for dimension in space.dimensions:
            assert (
                dimension.key in new
                or dimension.key not in config
                or dimension.key.startswith("optimizer.")
            )
            if dimension.key in new and not isinstance(dimension.domain, Tie):
                assert_inside(new[dimension.key], dimension.domain)
        config = new
