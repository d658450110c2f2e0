"""The league of search methods: against hand counts, plain loops, and the replay of one scheduler."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from s2s_search.cli import command_line
from s2s_search.errors import ConfigError
from s2s_search.spaces.load import load_space
from s2s_search.whatif import league as whatif_league
from s2s_search.whatif.curves import load_record
from s2s_search.whatif.league import (
    Race,
    contenders,
    league_rows,
    orders_of,
    raced,
)
from s2s_search.whatif.pool import Pool, load_pool, pool_of
from tests.runs import write_run

ROOT = Path(__file__).parents[2]
NAMES = (
    "random",
    "median",
    "asha_9",
    "asha_27",
    "promote_27",
    "pasha_27",
    "first_reports",
    "gp_asha_9",
    "gp_asha_27",
    "gp_promote_27",
    "freeze_thaw",
    "oracle_first",
    "oracle_third",
    "oracle_stop",
)
SPACE = """
model: BasicSeq2Seq
corpus: {name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}
metric: {name: METRIC}
search: {trials: TRIALS, seed: 1}
scheduler: {name: none, max_steps: 540}
parameters:
  optimizer.learning_rate: {min: 1e-4, max: 1e-2, log: true}
  embedding.dim: {min: 8, max: 64}
"""


def pool(folder: Path, trials: int = 27, metric: str = "dev.error_rate") -> Pool:
    """A pool in which the learning rate decides: 27 reports that fall to the end value."""
    (folder / "space.yaml").write_text(
        SPACE.replace("TRIALS", str(trials)).replace("METRIC", metric)
    )
    known = load_space(folder / "space.yaml")
    configs = known.trials()
    rates = np.array([config["optimizer.learning_rate"] for config in configs], float)
    ends = 0.1 + 0.3 * np.abs(np.log10(rates) + 3)
    falls = np.exp(-np.arange(1, 28) / 6)
    values = ends[:, None] + (1 - ends[:, None]) * falls
    # A number of bits of which 1 - value is exact: a fit can follow the last bit of a value.
    values = np.round(values * 2**30) / 2**30
    losses = values
    if known.metric.goal == "maximize":
        values = 1 - values
    steps = tuple(range(20, 541, 20))
    return Pool(known, tuple(configs), steps, values, losses, np.ones_like(values))


def named(known: Pool, name: str) -> Race:
    return Race(known, contenders([name])[0].method(known), 1)


def test_random_trains_each_trial_in_turn(tmp_path: Path) -> None:
    known = pool(tmp_path, 8)
    assert list(named(known, "random").run()) == known.values.ravel().tolist()
    found = raced(known, contenders(["random"])[0].method(known), 1, 0.0)
    winner = int(known.values[:, -1].argmin())
    assert found.to_target == winner + 1
    before = known.values[:5].min() - known.best
    assert found.regrets[0] == pytest.approx(before)


def test_asha_with_one_worker_against_a_plain_loop(tmp_path: Path) -> None:
    known, rungs = pool(tmp_path), {1: [], 3: [], 9: []}
    expected: list[float] = []
    for row in known.values.tolist():
        for place, value in enumerate(row, start=1):
            expected.append(value)
            if place in rungs:
                others: list[float] = rungs[place]
                cut = np.percentile(others, 100 / 3) if others else None
                others.append(value)
                if cut is not None and value > cut:
                    break
    assert list(named(known, "asha_27").run()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_method_pays_for_each_report_once(tmp_path: Path, name: str) -> None:
    known = pool(tmp_path, 16)
    race = Race(known, contenders([name])[0].method(known), workers=3)
    seen = list(race.run())
    assert len(seen) == sum(race._made.values())
    assert known.best in seen, "the best of the pool is trained to the end"
    assert len(set(race._row.values())) == len(race._row), "no trial begins twice"


def test_the_league_has_all_methods(tmp_path: Path) -> None:
    assert tuple(each.name for each in contenders()) == NAMES


def test_oracles_by_hand(tmp_path: Path) -> None:
    """Of eight trials the best is the fifth by its first report, the second by its third report."""
    known = pool(tmp_path, 8)
    values = np.full((8, 27), 0.9)
    values[:, 0] = [0.8, 0.5, 0.4, 0.6, 0.7, 0.3, 0.85, 0.9]
    values[:, 2] = [0.8, 0.5, 0.4, 0.6, 0.3, 0.2, 0.85, 0.9]
    values[:, -1] = [0.7, 0.6, 0.65, 0.5, 0.1, 0.55, 0.55, 0.8]
    found = {}
    for goal in ("minimize", "maximize"):
        metric = replace(known.space.metric, goal=goal)
        space = replace(known.space, metric=metric)
        each = replace(known, space=space, values=values if goal == "minimize" else -values)
        found[goal] = [
            raced(each, method.method(each), 1, 0.0)
            for method in contenders(["oracle_first", "oracle_third", "oracle_stop"])
        ]
    assert found["minimize"] == found["maximize"]
    compute = [outcome.to_target for outcome in found["minimize"]]
    # By the first reports 5, 2, 1, 3 and then 4; by the third ones 5, 4. With perfect stops 0, 1, 3
    # and 4 train to their ends, because each is better than all before, and 2 makes one report.
    assert compute == pytest.approx([5, 2, 4 + 1 / 27])


def test_the_best_hundredth_is_the_third_best_of_240(tmp_path: Path) -> None:
    for metric, sign in (("dev.error_rate", 1), ("dev.token_accuracy", -1)):
        known = pool(tmp_path, 240, metric)
        ends = sorted(min(row) if sign == 1 else -max(row) for row in known.values.tolist())
        assert known.target("best") == sign * ends[0]
        assert known.target("hundredth") == sign * ends[2]
    fewer = known.ordered(range(100))
    assert fewer.target("hundredth") == fewer.best
    found = raced(known, contenders(["random"])[0].method(known), 1, 0.0, "hundredth")
    good = [row for row, curve in enumerate(known.values.tolist()) if -max(curve) <= ends[2]]
    assert min(good) < found.to_target <= min(good) + 1


def test_work_counts_seconds(tmp_path: Path) -> None:
    """The first trial takes three times as long as each other one; the second is the best."""
    known = pool(tmp_path, 8)
    order = np.argsort(known.values[:, -1])
    known = known.ordered([*order[1:2], *order[:1], *order[2:]])
    seconds = np.ones_like(known.values)
    seconds[0] = 3
    slow = replace(known, seconds=seconds)
    found = raced(slow, contenders(["random"])[0].method(slow), 1, 0.0)
    assert (found.to_target, found.work) == (2, pytest.approx((3 + 1) / (10 / 8)))


def test_methods_that_learn_need_less(tmp_path: Path) -> None:
    known = pool(tmp_path)
    methods = contenders(["random", "asha_9", "freeze_thaw"])
    rows = list(league_rows(known, methods, orders=2, workers=4, margin=0.01))
    by_name = {row["method"]: row["to_target"] for row in rows}
    assert by_name["freeze_thaw"] < by_name["asha_9"] < by_name["random"]
    assert all(row["low"] <= row["to_target"] <= row["high"] for row in rows)


def test_several_processes_give_the_same_rows(tmp_path: Path) -> None:
    methods = contenders(["asha_27", "gp_promote_27", "oracle_stop"])
    known = pool(tmp_path, 12)
    alone, shared = (
        list(league_rows(known, methods, 3, 2, 0.0, 0.75, processes=count)) for count in (1, 2)
    )
    assert shared == alone


def test_a_killed_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def broken(count: int) -> Iterator[list[SimpleNamespace]]:
        future = Future[None]()
        future.set_exception(BrokenExecutor())
        yield [SimpleNamespace(submit=lambda *_: future)] * count

    monkeypatch.setattr(whatif_league, "processes_of", broken)
    with pytest.raises(ConfigError, match="the system killed a process"):
        list(league_rows(pool(tmp_path, 8), contenders(["random"]), 2, 1, 0.0, processes=2))


def test_to_maximize(tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    up, down = pool(tmp_path / "up", 8, "dev.token_accuracy"), pool(tmp_path, 8)
    for name in ("asha_27", "promote_27", "freeze_thaw"):
        raised = [1 - value for value in named(up, name).run()]
        assert raised == pytest.approx(list(named(down, name).run()))


def test_orders_are_the_same_for_all_methods_and_each_has_its_share(tmp_path: Path) -> None:
    known = pool(tmp_path)
    first, again = (list(orders_of(known, 3, 0.5)) for _ in range(2))
    assert [each.configs for each in first] == [each.configs for each in again]
    assert all(len(each.configs) == 14 for each in first)


def test_a_league_of_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", trials=40)
    record = load_record(folder)
    known = pool_of(record)
    finished = [t for t in record.history.trials.values() if t.status == "finished"]
    assert len(known.configs) == len(finished) < 40
    names = "random,freeze_thaw"
    command_line.main(
        ["replay", str(folder), "--league", "--methods", names, "--orders", "2", "--json"]
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["method"] for row in rows] == ["random", "freeze_thaw"]
    assert set(rows[0]) >= {"method", "to_target", "low", "high", "lost", "regret_10", "work"}
    command_line.main(["replay", str(folder), "--league", "--methods", names])
    told = capsys.readouterr()
    assert "full trials until a report within 0.01" in told.out
    assert "the fewest of a league" not in told.err
    asked = ["--methods", "random,random", "--share", "0.1"]
    command_line.main(["replay", str(folder), "--league", *asked])
    said = capsys.readouterr()
    assert "--share: each order has 8 trials, the fewest of a league" in said.err
    assert "1 of 1: random" in said.err  # once, though it is named twice
    assert f": 8 of {len(load_pool(folder).configs)} trials on 4 workers, 1 order" in said.out


def test_a_search_that_ends_early_has_lost_and_has_no_regrets_after_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run", trials=40)
    for most, regrets in (("6", {"regret_5"}), ("1", set())):
        given = ["--methods", "random", "--within", "0", "--most", most, "--orders", "8", "--json"]
        assert command_line.main(["replay", str(folder), "--league", *given]) == 0
        (row,) = map(json.loads, capsys.readouterr().out.splitlines())
        assert {key for key in row if key.startswith("regret")} == regrets
        assert row["lost"] > 0
    assert command_line.main(["replay", str(folder), "--league", *given[:-1]]) == 0
    assert "ended before that (full trials: 1)" in capsys.readouterr().out


def test_tables_of_a_run_are_the_same_pool(tmp_path: Path) -> None:
    """Of a run that finished, with failed and stopped trials, the whole curves are kept."""
    folder, kept = write_run(tmp_path / "run", trials=40), tmp_path / "kept"
    script = ROOT / "benchmarks" / "curves" / "tables.py"
    subprocess.run([sys.executable, str(script), str(folder), str(kept)], check=True)
    of_log, of_tables = load_pool(folder), load_pool(kept)
    assert of_tables.configs == of_log.configs
    assert of_tables.steps == of_log.steps
    np.testing.assert_array_equal(of_tables.values, of_log.values)
    np.testing.assert_array_equal(of_tables.losses, of_log.losses)
    np.testing.assert_allclose(of_tables.seconds, of_log.seconds)
    assert str(tmp_path) not in (kept / "trials.parquet").read_bytes().decode(errors="replace")


def test_oracles_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", trials=40)
    names = ["--methods", "asha_9,oracle_stop", "--target", "hundredth"]
    assert command_line.main(["replay", str(folder), "--league", *names, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["oracle"] for row in rows] == [False, True]
    assert command_line.main(["replay", str(folder), "--league", *names]) == 0
    out = capsys.readouterr().out
    assert "within 0.01 of the value of the best hundredth" in out
    assert "oracle_: knows what no search can know" in out


def test_all_problems_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", trials=6)
    given = ["--methods", "randm,asha", "--scheduler", "asha", "--grid"]
    assert command_line.main(["replay", str(folder), "--league", *given]) == 2
    text = capsys.readouterr().err
    for problem in (
        "--scheduler: a league has its own schedulers; --methods names some of its methods",
        "--grid: a league has its own schedulers",
        "--methods: unknown method 'randm'; did you mean 'random'",
        "--methods: unknown method 'asha'",
        "a league needs at least 8 trials that reported",
    ):
        assert problem in text
    assert command_line.main(["replay", str(folder), "--league", "--methods", ","]) == 2
    assert "--methods: ',' names no method" in capsys.readouterr().err
    given = [
        "--methods",
        "random",
        "--within",
        "0.1",
        "--target",
        "best",
        "--share",
        "1",
        "--most",
        "9",
    ]
    assert command_line.main(["replay", str(folder), *given]) == 2
    text = capsys.readouterr().err
    for flag in ("--methods", "--within", "--target", "--share", "--most"):
        assert f"{flag}: only a league has it; add --league" in text


def test_wrong_names_and_small_searches(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="unknown method 'freezethaw'; did you mean 'freeze_thaw'"
    ):
        contenders(["freezethaw"])
    folder = write_run(tmp_path / "run", trials=6)
    with pytest.raises(ConfigError, match="a league needs at least 8 trials that reported"):
        pool_of(load_record(folder))
