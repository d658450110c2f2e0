"""Run folders that were made to deceive: no text in them reaches a terminal or a page as anything but text."""

import contextlib
import http.server
import io
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from s2s_search.cli.command_line import main
from s2s_search.display.progress import Progress
from s2s_search.display.watch import Follower
from s2s_search.errors import ConfigError
from s2s_search.report.page import Table, code
from s2s_search.results import results
from s2s_search.runs import tables
from s2s_search.runs.answers import load_answers
from s2s_search.runs.log import read_events
from s2s_search.spaces.load import load_space
from s2s_search.statuses import ENDS, SEARCH_ENDS
from tests import runs

# A title for the window, red, a new line over the old one, CSI as one character, reversed text, a line separator.
CONTROLS = "\x1b]0;owned\x07\x1b[31m\rOK \x9b2J\u202etxt.exe\u2066\u2028\x7f\n"
LINKS = "[a](http://evil.example) ![b](//evil.example/b) http://evil.example www.evil.example"
MARKUP = f"<img src=x onerror=alert(1)> | `code` {LINKS}"
HOSTILE = CONTROLS + MARKUP
FORBIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)  # a new line is the program's


def spoilt(value: Any) -> Any:
    """JSON with hostile text behind every text in it that may be anything, keys of settings too."""
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, dict):
        return {key: spoilt(inner) for key, inner in value.items()}
    return [spoilt(inner) for inner in value] if isinstance(value, list) else value


FREE = (
    "name",
    "message",
    "cause",
    "source",
    "node",
    "space",
    "settings",
    "scheduler",
    "corpus",
    "action",
)


def write_hostile(folder: Path) -> Path:
    """A run whose every free text is hostile: of the log, the environment, configurations, answers and the lock."""
    example = {
        "source": list("ab"),
        "references": [["B"]],
        "answer": ["B"],
        "attention": [[0.5, 0.25, 0.25]] * 2,
    }
    runs.write_run(folder, trials=14, example=example)
    lines = []
    for line in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        event |= {key: spoilt(event[key]) for key in FREE if key in event}
        if event["event"] == "report":
            event["node"] = "10.0.0.1" + HOSTILE
        if "name" in event:
            event["name"] = "toy" + HOSTILE.replace("/", ":")
        event["own" + HOSTILE] = HOSTILE
        lines.append(json.dumps(event, ensure_ascii=len(lines) % 2 == 0))
    more = [
        {
            "event": "trial",
            "trial": "trial-00090",
            "settings": {"attention.dim": HOSTILE},
            "config": {"model": HOSTILE},
        },
        {"event": "note", "message": HOSTILE, "trial": "trial-00000"},
        {"event": "wait", "message": HOSTILE},
        {
            "event": "exploit",
            "trial": "trial-00003",
            "source": HOSTILE,
            "settings": {},
            "config": {HOSTILE: HOSTILE},
        },
        {"event": "restart", "trial": "trial-00000", "cause": HOSTILE, "message": HOSTILE},
        {"event": "status", "trial": "trial-00001", "status": "failed", "message": HOSTILE},
        {"event": "status", "trial": "trial-00002", "status": "finished" + HOSTILE},
        {"event": "status", "status": "interrupted", "message": HOSTILE},
        {"event": HOSTILE, HOSTILE: HOSTILE},
    ]
    lines += [json.dumps(event | {"time": 5e9}) for event in more] + [HOSTILE.replace("\n", " ")]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    made = (
        json.loads((folder / "environment.json").read_text())
        if (folder / "environment.json").exists()
        else {}
    )
    made |= {"versions": {"torch" + HOSTILE: HOSTILE}, "command": [HOSTILE], "commit": HOSTILE}
    made |= {"corpus": {"name": HOSTILE, "fingerprint": HOSTILE}}
    (folder / "environment.json").write_text(json.dumps(made))
    for answers in folder.glob("*/answers.json"):
        answers.write_text(
            json.dumps(json.loads(answers.read_text()) | {"examples": [spoilt(example)]})
        )
    (folder / "driver.lock").write_text("process 1 on " + HOSTILE)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hostile(tmp_path_factory.mktemp("hostile") / "run")


VERBS = [
    ["results"],
    ["results", "--csv"],
    ["results", "--json"],
    ["report"],
    ["explain", "0"],
    ["explain", "1"],
    ["explain", "3"],
    ["explain", "5"],
    ["explain", "90"],
    ["compare", "0", "2"],
    ["compare", "encoder.type=UnidirectionalRNNEncoder", "encoder.type=BidirectionalRNNEncoder"],
    ["replay"],
    ["rerun", "0", "--check"],
    ["rerun", "90"],
    ["decode"],
    ["debug", "--run", "--trial", "90"],
    ["resume"],
    ["replicate"],
    ["watch", "--interval", "0.1"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_control_character_reaches_a_terminal(
    hostile: Path,
    verb: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("s2s_search.display.watch.SECONDS_OF_SILENCE", 0.0)
    place = 2 if verb[0] == "debug" else 1
    assert main([*verb[:place], str(hostile), *verb[place:]]) in (0, 1, 2, 130)
    out, err = capsys.readouterr()
    assert out or err
    assert FORBIDDEN.findall(out) == []
    assert FORBIDDEN.findall(err) == []
    assert "Traceback" not in err


def test_every_free_text_was_hostile(hostile: Path) -> None:
    """Else the tests here would hold of anything."""
    events = read_events(hostile)[0]
    text = json.dumps(events, ensure_ascii=False)
    assert FORBIDDEN.findall(text) == []
    assert sum("own?]0;owned" in "".join(event) for event in events) > len(events) / 2
    for key in FREE:
        assert any(
            "evil.example" in json.dumps(event[key]) for event in events if event.get(key)
        ), key
    assert {event["status"] for event in events if event["event"] == "status"} <= {
        *ENDS,
        *SEARCH_ENDS,
    }


@pytest.mark.parametrize("live", [True, False])
def test_no_control_character_reaches_the_display(hostile: Path, live: bool) -> None:
    """The terminal's own come from rich; what a log gives is in the frames, and in plain lines."""
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=live, width=200, height=60, _environ={}))
    Follower(hostile, progress).read()
    lines = read_events(hostile)[0]
    for event in lines:
        progress.show(event)
    frame = "\n".join(line.plain for line in progress.frame(199, 59))
    assert "toy" in frame
    assert FORBIDDEN.findall(frame) == []
    if not live:
        assert FORBIDDEN.findall(file.getvalue()) == []
    progress.close()


def test_what_is_appended_to_a_log_that_is_watched(tmp_path: Path) -> None:
    folder = runs.write_run(tmp_path / "run", trials=3)
    file = io.StringIO()
    follower = Follower(folder, Progress(Console(file=file, width=999)))
    follower.read()
    with (folder / "events.jsonl").open("a") as log:
        log.write(json.dumps({"event": "note", "time": 5e9, "message": HOSTILE}) + "\n")
        log.write(
            json.dumps({"event": "status", "time": 5e9, "trial": "trial-00001", "status": HOSTILE})
            + "\n"
        )
    follower.read()
    assert "owned" in file.getvalue()
    assert FORBIDDEN.findall(file.getvalue()) == []


def test_a_report_holds_no_markup_of_others(hostile: Path, tmp_path: Path) -> None:
    assert main(["report", str(hostile), "--out", str(tmp_path)]) == 0
    html, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    page = html.split("plotly.js")[0] + html.rsplit("</script>", 1)[0][-200_000:]
    assert "<img" not in html.replace("<img>", "")
    assert "evil.example" in page
    assert FORBIDDEN.findall(markdown) == []
    assert "evil.example" in markdown
    bare = without_code(markdown)
    assert re.findall(r"(?<!\\)<\s*img", bare) == []
    assert re.findall(r"(?<!\\)\]\(", bare) == []
    assert re.findall(r"https?://|(?<!\\)www\.", bare) == []


def without_code(markdown: str) -> str:
    """Markdown without its fences and code spans, as CommonMark reads them: runs of as many backticks."""
    text = re.sub(r"(?ms)^(`{3,})\n.*?^\1$", "", markdown)
    return re.sub(r"(?<![`\\])(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", text)


@pytest.mark.parametrize("text", ["", "`", "``", "a`b``c", "\n", "<b>", "|", "\\`", "`<b>"])
def test_code_is_one_span_whatever_it_holds(text: str) -> None:
    assert without_code(f"a {code(text)} b") == "a  b"


@pytest.mark.parametrize("text", ["a|b", "\\|", "\\", "a\nb|c", "`|`", "||"])
def test_a_cell_is_one_cell_whatever_it_holds(text: str) -> None:
    row = Table(["x", "y"], [[text, "end"]]).markdown().splitlines()[-1]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3, row


def test_tables_that_others_wrote_are_not_believed(tmp_path: Path) -> None:
    folder = runs.write_run(tmp_path / "run", trials=3)
    whole = results.load(folder).trials
    for name, column in (
        ("trials", "message"),
        ("trials", "status"),
        ("reports", "node"),
        ("reports", "status"),
    ):
        path = folder / f"{name}.parquet"
        data, table = path.read_bytes(), pd.read_parquet(path)
        table[column] = pd.Series(["x" + CONTROLS] * len(table), dtype="string")
        table.to_parquet(path)
        found = results.load(folder)
        assert found.trials.equals(whole)
        assert FORBIDDEN.findall(found.reports.to_csv()) == []
        path.write_bytes(data)
    table = pd.read_parquet(folder / "trials.parquet")
    table["status"] = pd.Series(["<b>done</b>"] * len(table), dtype="string")
    table.to_parquet(folder / "trials.parquet")
    assert results.load(folder).trials.equals(whole)
    table["status"] = whole["status"]
    table.attrs["status"] = "<b>done</b>"
    table.to_parquet(folder / "trials.parquet")
    assert results.load(folder).status == "finished"
    for attribute, value in (("damaged", [CONTROLS]), ("status", "finished")):
        for name in ("trials", "reports"):  # both with the same stamp, as it should be
            stamped = pd.read_parquet(folder / f"{name}.parquet")
            stamped.attrs = {
                **results.load(folder).reports.attrs,
                **stamped.attrs,
                attribute: value,
            }
            stamped.to_parquet(folder / f"{name}.parquet")
        assert results.load(folder).damaged == ()


@pytest.mark.parametrize("label", ["\\e[31mred", "a\\nb", "\\u202Etxt", "\\x9b2J"])
def test_a_label_with_a_control_character_is_refused(tmp_path: Path, label: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(runs.SPACE.replace("large:", f'"{label}":'))
    with pytest.raises(ConfigError, match="a label holds a control character") as raised:
        load_space(path)
    assert FORBIDDEN.findall(str(raised.value)) == []


def test_labels_in_any_script_stay(tmp_path: Path) -> None:
    label = "大きい\u3000\u200dहिन्दी\u00a0é😀"
    folder = runs.write_run(
        tmp_path / "run", trials=8, text=runs.SPACE.replace("large:", f'"{label}":')
    )
    assert label in set(results.load(folder).trials["encoder.rnn_cell.cell_spec"])
    tables.write_tables(folder)
    assert label in set(results.load(folder).trials["encoder.rnn_cell.cell_spec"])


def test_a_space_of_null(tmp_path: Path) -> None:
    folder = runs.write_run(tmp_path / "run", trials=3)
    log = folder / "events.jsonl"
    log.write_text(re.sub(r'"space": "[^"]*"', '"space": null', log.read_text(), count=1))
    assert results.load(folder).space().searched


@pytest.mark.parametrize(
    "key", ["trial", "status", "message", "best.dev.error_rate", "seconds", "<b>", ""]
)
def test_no_searched_hyperparameter_bears_the_name_of_another_column(
    tmp_path: Path, key: str
) -> None:
    folder = runs.write_run(tmp_path / "run", trials=3)
    first, *others = (folder / "events.jsonl").read_text().splitlines()
    search = json.loads(first) | {"searched": {key: "string"}}
    (folder / "events.jsonl").write_text("\n".join([json.dumps(search), *others, ""]))
    with pytest.raises(ConfigError, match="does not begin with a search event"):
        results.load(folder)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b"])
def test_the_name_of_a_search_is_no_path(tmp_path: Path, name: str) -> None:
    folder = runs.write_run(tmp_path / "run", trials=3)
    log = folder / "events.jsonl"
    log.write_text(log.read_text().replace('"name": "run"', json.dumps({"name": name})[1:-1], 1))
    with pytest.raises(ConfigError, match="does not begin with a search event"):
        results.load(folder)


@pytest.mark.parametrize("count", [10**400, 2**60, -1, True, 1.5])
def test_answers_with_counts_that_are_none(tmp_path: Path, count: object) -> None:
    (tmp_path / "answers.json").write_text(
        json.dumps({"step": 1, "errors": [count], "lengths": [1], "examples": []})
    )
    assert load_answers(str(tmp_path)) is None


# --- storage that a log names ---


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """A server that counts who asks it for anything."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ASKS: list[Callable[[str], list[str]]] = [
    lambda run: ["report", run],
    lambda run: ["compare", run, "0", "2"],
    lambda run: ["decode", run],
    lambda run: ["decode", run, "--trial", "0"],
    lambda run: ["tune-decoding", run],
]


def test_a_url_that_a_log_names_is_contacted_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "mine")
    folder = runs.write_run(tmp_path / "run", trials=12)
    with listening() as (port, asked):
        url = f"s3://id:SECRET@bucket/runs?scheme=http&region=x&endpoint_override=127.0.0.1:{port}"
        log = folder / "events.jsonl"
        log.write_text(log.read_text().replace('"storage": null', f'"storage": "{url}"', 1))
        assert main(["results", str(folder)]) == 0
        out = capsys.readouterr().out
        assert "s3://bucket/runs" in out
        assert "SECRET" not in out
        for ask in ASKS:
            status = main(ask(str(folder)))
            out, err = capsys.readouterr()
            assert status == (0 if ask("x")[0] in ("report", "compare") else 2)
            assert asked == []
            said = (
                out
                + err
                + (folder / "report.md").read_text()
                + (folder / "report.html").read_text()
            )
            assert "--fetch" in said
            assert "SECRET" not in said
        for ask in ASKS[:3]:
            asked.clear()
            assert main([*ask(str(folder)), "--fetch"]) in (0, 2)
            assert asked
            out, err = capsys.readouterr()
            assert "Traceback" not in err
            assert "SECRET" not in out + err


def test_a_local_place_needs_no_asking(tmp_path: Path) -> None:
    folder = runs.write_run(tmp_path / "run", trials=3)
    log = folder / "events.jsonl"
    log.write_text(
        log.read_text().replace('"storage": null', f'"storage": "file://{tmp_path}/there"', 1)
    )
    assert main(["report", str(folder)]) == 0
    assert "--fetch" not in (folder / "report.md").read_text()
    with pytest.raises(OSError, match="refused"):  # so that the test above would notice
        socket.create_connection(("127.0.0.1", 9))
