"""Space files and run folders that are damaged in thousands of ways: a clear error or a right result, no traceback."""

import contextlib
import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console

from s2s_search.cli.command_line import main
from s2s_search.display.progress import Progress
from s2s_search.errors import CONTROL, ConfigError
from s2s_search.report.contents import write_report
from s2s_search.results import results
from s2s_search.runs import explain, inputs, state, tables
from s2s_search.spaces.load import load_space
from s2s_search.tuning.schedulers import make_scheduler
from s2s_search.whatif.curves import load_record
from s2s_search.whatif.replay import made_again
from tests import runs

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "search_spaces").rglob("*.yaml"))
NASTY = [
    "",
    "null",
    "[]",
    "{}",
    "-1",
    "1e400",
    ".nan",
    "true",
    "'",
    "*a",
    "&a",
    "!!python/object:os.system",
    "0x",
    "~",
    "- -",
]
JSON_NASTY = [
    *[
        None,
        True,
        -1,
        0,
        1e308,
        float("nan"),
        2**70,
        10**400,
        "",
        "x",
        "\x00",
        "\ud800",
        "../../x",
        "a://b",
    ],
    *[
        [],
        [None],
        {},
        {"a": {}},
        {"name": 5},
        [["parameters", "minimize"], ["dev.loss", "maximize"], ["x", "x"]],
    ],
    *[
        "trial-00001",
        "trial-000000001",
        "trial-99999999999999999999",
        "dev.bleu",
        "category",
        "diverged",
    ],
    *["\x1b[31mred", "\x9b2J", "a\rb\nc", "\u202etxt", {"\x1b]0;x\x07": ["\x1b[1m"]}],
]
NASTY_KEYS = [
    *[
        "trial",
        "status",
        "step",
        "metric",
        "goal",
        "searched",
        "scheduler",
        "storage",
        "objectives",
        "event",
        "time",
    ],
    *[
        "seconds",
        "rung",
        "rank",
        "of",
        "cutoff",
        "elapsed",
        "best.dev.loss",
        "dev.bleu",
        "settings",
        "index",
        "x",
        "",
    ],
    *["message", "name", "cause", "node", "source", "\x1b[31m", "dev.\x1b[31m"],
]
# What a search event holds besides, to go on from it.
SEARCH = {
    "trials": 3,
    "scheduler": {"name": "asha", "max_steps": 20},
    "objectives": [["dev.loss", "minimize"], ["parameters", "minimize"]],
    **{"space": "space.yaml", "seed": 0, "draws": 3, "overrides": {}, "storage": None},
    "corpus": {"name": "copy", "fingerprint": "0"},
}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to three random changes of lines, words or bytes."""
    for _ in range(rng.randint(1, 3)):
        lines = data.split(b"\n")
        where = rng.randrange(len(lines))
        kind = rng.randrange(7)
        if kind == 0:
            del lines[where]
        elif kind == 1:
            lines.insert(where, lines[rng.randrange(len(lines))])
        elif kind == 2:
            other = rng.randrange(len(lines))
            lines[where], lines[other] = lines[other], lines[where]
        elif kind == 3:
            words = lines[where].split(b" ")
            words[rng.randrange(len(words))] = rng.choice(NASTY).encode()
            lines[where] = b" ".join(words)
        elif kind == 4:
            lines[where] = bytes([rng.randrange(256)]) + lines[where]
        data = b"\n".join(lines)
        if kind == 5 and data:
            data = data[: rng.randrange(len(data))]
        elif kind == 6 and data:
            at = rng.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    return data


def spoilt_event(line: bytes, rng: random.Random) -> bytes:
    """A line of the log with one of its values, or of those inside them, replaced, added or taken away."""
    event = json.loads(line)
    inner = [value for value in event.values() if isinstance(value, dict) and value]
    values = rng.choice(inner) if inner and rng.random() < 0.3 else event
    key, kind = rng.choice(list(values)), rng.random()
    if kind < 0.2:
        del values[key]
    else:
        values[key if kind < 0.7 else rng.choice(NASTY_KEYS)] = rng.choice(JSON_NASTY)
    return json.dumps(event, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")


def write_run(folder: Path) -> list[bytes]:
    """A log with every kind of event, and its lines."""
    trial = {"trial": "trial-00000"}
    settings = {"attention.dim": 64, "bridge_spec": "zero"}
    searched = {"attention.dim": "Int64", "bridge_spec": "string"}
    report = {
        "seconds": 1.0,
        "status": "running",
        "dev.loss": 2.0,
        "parameters": 7,
        "dev.bleu": 1.5,
    }
    driver = {"reports": 2, "seconds": 1.0, "processor_seconds": 0.1}
    events: list[dict[str, object]] = [
        {
            "event": "search",
            "name": "x",
            "metric": "dev.loss",
            "goal": "minimize",
            "searched": searched,
            **SEARCH,
        },
        {
            "event": "trial",
            **trial,
            "settings": settings,
            "config": {"train.seed": 1, "attention.dim": 64},
        },
        {"event": "report", **trial, "step": 10, **report},
        {
            "event": "decision",
            **trial,
            "action": "continue",
            "step": 10,
            "value": 2.0,
            "cutoff": None,
            "rung": 10.0,
        },
        {
            "event": "decision",
            **trial,
            "action": "stop",
            "step": 10,
            "value": 2.0,
            "cutoff": 1.0,
            "rank": 2,
            "of": 3,
        },
        {"event": "restart", **trial, "cause": "lost", "message": "The actor died."},
        {"event": "report", **trial, "step": 20, **report},
        {"event": "pause", **trial},
        {"event": "start", **trial},
        {
            "event": "exploit",
            **trial,
            "source": "trial-00001",
            "settings": settings,
            "config": {"train.seed": 1},
        },
        {"event": "status", **trial, "status": "finished"},
        {"event": "trial", "trial": "trial-00001", "settings": {}, "config": {}},
        {"event": "note", "message": "no room", **trial},
        {"event": "wait", "message": "no node"},
        {"event": "status", "trial": "trial-00001", "status": "failed", "message": "ValueError: 1"},
        {"event": "trial", "trial": "trial-00002", "settings": settings, "config": {}},
        {"event": "status", "trial": "trial-00002", "status": "stopped"},
        {"event": "status", "status": "interrupted", "driver": driver},
        {"event": "resume", "trials": 3, "draws": 3, "hours": None},
    ]
    lines = [json.dumps({**event, "time": 1000.0 + k}).encode() for k, event in enumerate(events)]
    (folder / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return lines


def holds(call: Callable[[], object]) -> bool:
    """Says whether a call gave something; a ConfigError with a message is as good, and anything else raises."""
    try:
        call()
    except ConfigError as error:
        message = str(error)
    else:
        return True
    assert message
    return False


def read_all(folder: Path) -> None:
    """Reads a folder in every way, first from its log alone; tables and history must tell the same."""
    for name in (tables.TRIALS, tables.REPORTS):
        (folder / name).unlink(missing_ok=True)
    found = results.load(folder)
    found.best(None)
    found.worker_seconds()
    found.pareto()
    for key in found.searched:
        found.by(key)
    tables.write_tables(folder)
    assert results.load(folder).trials.equals(found.trials)
    past = state.load_history(folder)
    for trial in list(past.trials.values()):
        assert "\n".join(explain.explain(past, trial.number)).encode()
        assert not any(CONTROL.search(line) for line in explain.explain(past, trial.number))
    texts = [table.to_csv(lineterminator="|") for table in (found.trials, found.reports)]
    assert not any(
        CONTROL.search(text) for text in [found.name, found.status, *texts, *found.damaged]
    )
    bests = {
        name: trial.best and trial.best[past.search["metric"]]
        for name, trial in past.trials.items()
    }
    told = {name: (trial.status, bests[name]) for name, trial in past.trials.items()}
    columns = found.trials[["trial", "status", f"best.{found.metric}"]].astype(object)
    assert {
        name: (status, None if pd.isna(best) else best) for name, status, best in columns.to_numpy()
    } == told
    assert all(
        (folder / name).resolve().parent == folder.resolve()
        for name in [*past.trials, *found.trials["trial"]]
    )
    for live in (True, False):
        display = Progress(
            Console(file=io.StringIO(), force_terminal=live, width=60, height=20, _environ={})
        )
        for event in past.events:
            display.show(event)
        assert max(line.cell_len for line in display.frame(59, 19)) <= 59
        assert not any(CONTROL.search(line.plain) for line in display.frame(59, 19))
        display.close()


@pytest.mark.parametrize("count", [600, pytest.param(9_000, marks=pytest.mark.slow)])
def test_damaged_space_files(tmp_path: Path, count: int) -> None:
    rng, good = random.Random(count), 0
    texts = [path.read_bytes() for path in SPACES]
    path = tmp_path / "space.yaml"
    for _ in range(count):
        path.write_bytes(damaged(rng.choice(texts), rng))
        good += holds(lambda: load_space(path))
    assert 0 < good < count


@pytest.mark.parametrize(
    "count", [50, *(pytest.param(n, marks=pytest.mark.slow) for n in (800, 850, 900))]
)
def test_damaged_run_folders(tmp_path: Path, count: int) -> None:
    rng, good = random.Random(count), 0
    lines = write_run(tmp_path)
    read_all(tmp_path)
    whole = (tmp_path / "events.jsonl").read_bytes()
    for _ in range(count):
        if rng.random() < 0.5:
            spoilt = list(lines)
            for _ in range(rng.randint(1, 3)):
                where = rng.randrange(len(spoilt))
                with contextlib.suppress(ValueError):
                    spoilt[where] = spoilt_event(spoilt[where], rng)
            data = b"\n".join(spoilt) + b"\n"
        else:
            data = damaged(whole, rng)
        (tmp_path / "events.jsonl").write_bytes(data)
        good += holds(lambda: read_all(tmp_path))
    assert 0 < good < count


def decide_again(folder: Path) -> None:
    """Makes the decisions of a log again, as a resumed search and a replay do, with every scheduler."""
    past = state.load_history(folder)
    space = inputs.space_of(past, folder)
    queued = [event | {"event": "queued"} for event in past.events if event["event"] == "trial"]
    for name in ("asha", "hyperband", "median", "pbt", "none"):
        scheduler = make_scheduler(
            replace(space, scheduler=replace(space.scheduler, name=name)), explore=dict
        )
        scheduler.replay([*queued, *past.events] if name == "hyperband" else past.events)
    made_again(load_record(folder))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of 1e308, by Tune's medians
@pytest.mark.parametrize(
    "read, count",
    [
        (decide_again, 30),
        pytest.param(decide_again, 1_600, marks=pytest.mark.slow),
        pytest.param(lambda folder: write_report([folder]), 100, marks=pytest.mark.slow),
    ],
)
def test_damaged_logs_of_a_search(
    tmp_path: Path, read: Callable[[Path], object], count: int
) -> None:
    rng, good = random.Random(count), 0
    folder = runs.write_run(tmp_path / "run", trials=12)
    lines = (folder / "events.jsonl").read_bytes().splitlines()
    for _ in range(count):
        spoilt = list(lines)
        for _ in range(rng.randint(1, 5)):
            where, kind = rng.randrange(len(spoilt)), rng.random()
            if kind < 0.6:
                with contextlib.suppress(ValueError):
                    spoilt[where] = spoilt_event(spoilt[where], rng)
            elif kind < 0.8:
                spoilt.insert(where + 1, rng.choice(spoilt[1:]))
            else:
                del spoilt[where]
        (folder / "events.jsonl").write_bytes(b"\n".join(spoilt) + b"\n")
        good += holds(lambda: read(folder))
    assert 0 < good < count


def test_damaged_tables_are_made_anew(tmp_path: Path) -> None:
    rng = random.Random(0)
    write_run(tmp_path)
    tables.write_tables(tmp_path)
    whole = results.load(tmp_path)
    for name in ("trials.parquet", "reports.parquet"):
        data = (tmp_path / name).read_bytes()
        for _ in range(100):
            at = rng.randrange(len(data))
            flipped = bytes([data[at] ^ (1 << rng.randrange(8))])
            spoilt = rng.choice(
                [data[:at], data[:at].ljust(len(data), b"\0"), data[:at] + flipped + data[at + 1 :]]
            )
            (tmp_path / name).write_bytes(spoilt)
            found = results.load(tmp_path)
            assert found.trials.equals(whole.trials)
            assert found.reports.equals(whole.reports)
            assert (found.status, found.driver, found.damaged) == (
                whole.status,
                whole.driver,
                whole.damaged,
            )
        (tmp_path / name).write_bytes(data)


def test_tables_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    write_run(tmp_path)
    tables.write_tables(tmp_path)
    table = pd.read_parquet(tmp_path / "trials.parquet")
    table.replace("trial-00001", "../../x").to_parquet(tmp_path / "trials.parquet")
    assert list(results.load(tmp_path).trials["trial"]) == [
        "trial-00000",
        "trial-00001",
        "trial-00002",
    ]


def test_a_damaged_line_is_as_good_as_none(tmp_path: Path) -> None:
    lines, log = write_run(tmp_path), tmp_path / "events.jsonl"
    for at in range(1, len(lines)):
        log.write_bytes(b"\n".join([*lines[:at], b"\xff{", *lines[at + 1 :], b""]))
        spoilt = results.load(tmp_path)
        log.write_bytes(b"\n".join([*lines[:at], *lines[at + 1 :], b""]))
        without = results.load(tmp_path)
        assert spoilt.trials.equals(without.trials)
        assert spoilt.reports.equals(without.reports)
        assert spoilt.damaged == (f"{log}: line {at + 1}: no event, left out: '\ufffd{{'",)


@pytest.mark.parametrize("name", ["events.jsonl", "trials.parquet", "reports.parquet"])
def test_missing_files_and_folders_in_their_place(tmp_path: Path, name: str) -> None:
    write_run(tmp_path)
    whole = tables.write_tables(tmp_path).trials
    for make in (lambda: None, (tmp_path / name).mkdir):
        (tmp_path / name).unlink(missing_ok=True)
        make()
        if name == "events.jsonl":
            assert [main([*verb, str(tmp_path)]) for verb in (["results"], ["decode"])] == [2, 2]
            assert main(["explain", str(tmp_path), "0"]) == 2
        else:
            assert results.load(tmp_path).trials.equals(whole)


def test_decode_names_a_damaged_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(2)
    write_run(tmp_path)
    lines = tmp_path / "lines"
    lines.write_text("a b\n")
    best = tmp_path / "trial-00000" / "best.pt"
    best.parent.mkdir()
    command = ["decode", str(tmp_path), "--input", str(lines)]
    for snapshot in (
        {},
        [],
        {"step": "x"},
        {"step": 1},
        {"step": 1, "hparams": {"model": "x"}},
        {"step": 1, "x": Path()},
    ):
        torch.save(snapshot, best)
        data = best.read_bytes()
        assert main(command) == 2
        assert capsys.readouterr().err
    for _ in range(50):
        at = rng.randrange(len(data))
        best.write_bytes(
            rng.choice([data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]])
        )
        assert main(command) == 2
        assert "best.pt: " in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["results"], ["explain"]])
def test_the_commands_say_what_is_damaged(
    tmp_path: Path, verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(1)
    lines = write_run(tmp_path)
    for _ in range(60):
        spoilt = [spoilt_event(line, rng) if rng.random() < 0.2 else line for line in lines]
        (tmp_path / "events.jsonl").write_bytes(b"\n".join(spoilt) + b"\n")
        status = main([*verb, str(tmp_path), *(["0"] if verb == ["explain"] else [])])
        assert status in (0, 2)
        err = capsys.readouterr().err
        assert "Traceback" not in err
        assert bool(err) or status == 0


def test_nothing_unsafe_reads_a_file() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "s2s_search").rglob("*.py"))
    source = source.replace("safetensors.torch.load(", "")  # it reads numbers alone
    for forbidden in ("import pickle", "pickle.load", "yaml.load(", "eval(", "weights_only=False"):
        assert forbidden not in source.replace(".eval()", ""), (  # the eval of a torch module
            forbidden
        )
    assert source.count("torch.load(") == source.count("weights_only=True")
