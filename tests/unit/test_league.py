"""The league of search methods: against hand counts, plain loops, and the replay of one scheduler."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s2s_search.cli import command_line
from s2s_search.errors import ConfigError
from s2s_search.spaces.load import load_space
from s2s_search.whatif.curves import load_record
from s2s_search.whatif.league import (
    OwnMethod,
    Pool,
    Race,
    contenders,
    league_rows,
    load_pool,
    orders_of,
    pool_of,
    raced,
)
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
    if known.metric.goal == "maximize":
        values = 1 - values
    steps = tuple(range(20, 541, 20))
    return Pool(known, tuple(configs), steps, values, np.ones_like(values))


def own(known: Pool, name: str) -> OwnMethod:
    return OwnMethod(known, contenders(known, [name])[0])


def named(known: Pool, name: str) -> Race:
    return Race(known, own(known, name), 1)


def test_random_trains_each_trial_in_turn(tmp_path: Path) -> None:
    known = pool(tmp_path, 8)
    assert list(named(known, "random").run()) == known.values.ravel().tolist()
    found = raced(known, own(known, "random"), 1, 0.0)
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
    race = Race(known, own(known, name), workers=3)
    seen = list(race.run())
    assert len(seen) == sum(race._made.values())
    assert known.best in seen, "the best of the pool is trained to the end"
    assert len(set(race._row.values())) == len(race._row), "no trial begins twice"


def test_the_league_has_all_methods(tmp_path: Path) -> None:
    assert tuple(each.name for each in contenders(pool(tmp_path))) == NAMES


def test_methods_that_learn_need_less(tmp_path: Path) -> None:
    known = pool(tmp_path, 40)
    methods = contenders(known, ["random", "asha_9", "freeze_thaw"])
    rows = list(league_rows(known, methods, orders=3, workers=4, margin=0.01))
    by_name = {row["method"]: row["to_target"] for row in rows}
    assert by_name["freeze_thaw"] < by_name["asha_9"] < by_name["random"]
    assert all(row["low"] <= row["to_target"] <= row["high"] for row in rows)


def test_to_maximize(tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    up, down = pool(tmp_path / "up", metric="dev.token_accuracy"), pool(tmp_path)
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
    assert set(rows[0]) >= {"method", "to_target", "low", "high", "lost", "regret_10"}
    command_line.main(["replay", str(folder), "--league", "--methods", names])
    assert "full trials until a report within 0.01" in capsys.readouterr().out


def test_tables_of_a_run_are_the_same_pool(tmp_path: Path) -> None:
    """Of a run that finished, with failed and stopped trials, the whole curves are kept."""
    folder, kept = write_run(tmp_path / "run", trials=40), tmp_path / "kept"
    script = ROOT / "benchmarks" / "curves" / "tables.py"
    subprocess.run([sys.executable, str(script), str(folder), str(kept)], check=True)
    of_log, of_tables = load_pool(folder), load_pool(kept)
    assert of_tables.configs == of_log.configs
    assert of_tables.steps == of_log.steps
    np.testing.assert_array_equal(of_tables.values, of_log.values)
    np.testing.assert_allclose(of_tables.seconds, of_log.seconds)
    assert str(tmp_path) not in (kept / "trials.parquet").read_bytes().decode(errors="replace")


def test_wrong_names_and_small_searches(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="unknown method 'freezethaw'; did you mean 'freeze_thaw'"
    ):
        contenders(pool(tmp_path), ["freezethaw"])
    folder = write_run(tmp_path / "run", trials=6)
    with pytest.raises(ConfigError, match="a league needs at least 8 trials that reported"):
        pool_of(load_record(folder))
