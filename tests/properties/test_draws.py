"""Properties of every shipped search space: each draw resolves, and draws depend on nothing but the seed."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s2s_search.dimensions import Choice, Range, Tie
from s2s_search.hparams import overlay, resolve
from s2s_search.rules import RULES
from s2s_search.spaces import Space, load_space

FOLDER = Path(__file__).parents[2] / "search_spaces"
NAMES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml"))
SOME = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
spaces = pytest.mark.parametrize("name", NAMES)


@cache
def load(name: str) -> Space:
    return load_space(FOLDER / name)


def test_the_spaces_are_there():
    ours = {"quickstart", "encoder_type", "attention", "lr_decay", "optimizer", "cells", "bridge", "dropout"}
    study = {f"britz_2017/{name}" for name in ("embedding", "cell", "depth", "direction", "attention", "decoding")}
    assert {name.removesuffix(".yaml") for name in NAMES} >= ours | study


@spaces
def test_begins_with_its_question(name):
    comments = [line for line in load(name).text.splitlines() if line.startswith("#")]
    assert load(name).text.startswith("# ")
    assert "?" in comments[0]
    assert ("The study (BLEU" in load(name).text) == name.startswith("britz_2017/")


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
        steps = (value - domain.low) / domain.step
        assert abs(steps - round(steps)) < 1e-9


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
    stepped = st.integers(1, int(high - low)) if whole else st.none() | st.floats((high - low) / 1000, high - low)
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
@given(ranges(), st.floats(0, 1), st.floats(0, 1))
def test_a_range_never_falls(domain, u, v):
    assert domain.at(min(u, v)) <= domain.at(max(u, v))
