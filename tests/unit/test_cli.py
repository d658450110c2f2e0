"""The command line as its user meets it: what it prints, where, and its exit status."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from s2s_search.cli import command_line
from s2s_search.corpus.load import load_corpus
from s2s_search.hparams.configuration import resolve
from s2s_search.spaces.load import load_space
from s2s_search.training.trial import train
from tests.spaces import COPY, DROPOUT, RATES, space_text

SPACE = space_text(
    DROPOUT | RATES | {"attention.dim": 8, "train.eval_every_steps": 3},
    model=["BasicSeq2Seq", "AttentionSeq2Seq"],
    corpus=COPY | {"name": "reverse"},
    metric={"name": "dev.error_rate", "goal": "minimize"},
    search={"method": "random", "trials": 4, "seed": 3},
    scheduler={"name": "none", "max_steps": 6},
)
TIMES = {"seconds", "evaluation_seconds"}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = command_line.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def untimed(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key not in TIMES}


def test_no_verb_and_help_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"]):
        status, out, err = run(capsys, *argv)
        assert status == 0
        for verb in ("check", "sample", "plan", "debug", "search", "results", "decode"):
            assert verb in out
        assert not err
    assert run(capsys, "serach")[0] == 2
    assert run(capsys, "sample", "x.yaml", "-n", "0")[0] == 2


def test_check_tells_all_problems_of_all_files(
    capsys: pytest.CaptureFixture[str], space: Path
) -> None:
    bad = space.with_name("bad.yaml")
    bad.write_text(
        "model: AttentionSeq2Seq\nparameters:\n  attention.score_tpye: dot\n  embedding.dim: wide\n"
    )
    status, out, err = run(capsys, "check", space, bad, space.with_name("none.yaml"))
    assert status == 2
    assert f"{space}: ok: 4 trials" in out
    assert f"{bad}: 2 problems" in err
    assert "line 3" in err
    assert "did you mean 'attention.score_type'?" in err
    assert "line 4" in err
    assert "none.yaml" in err


def test_check_of_a_space_that_searches_nothing_says_so(
    capsys: pytest.CaptureFixture[str], space: Path
) -> None:
    space.write_text("model: BasicSeq2Seq\ncorpus: {name: copy}\nparameters: {embedding.dim: 8}\n")
    assert run(capsys, "check", space)[1].endswith("searching nothing\n")


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "4294967296", "9" * 5000, "many"])
def test_a_count_that_is_none_is_refused_in_words(
    capsys: pytest.CaptureFixture[str], number: str
) -> None:
    status, out, err = run(capsys, "sample", "x.yaml", f"-n={number}")
    assert (status, out) == (2, "")
    law = err.splitlines()[-1].partition("argument -n: ")[2]
    assert law.startswith(
        f"must be a whole number of at least 1 and at most 4294967295, but got '{number[:50]}"
    )
    assert len(law) < 150


CALL = "import sys; from s2s_search.cli import main; sys.exit(main(sys.argv[1:]))"
LATIN = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("environment", [LATIN, LATIN | {"PYTHONIOENCODING": "ascii"}])
def test_a_pipe_gets_utf_8_whatever_the_locale(space: Path, environment: dict[str, str]) -> None:
    path, missing = (
        space.rename(space.with_name("r\u00e4ume.yaml")),
        space.with_name("\u017e\u8a9e.yaml"),
    )
    for argv, status in (
        (["check", path], 0),
        (["check", missing], 2),
        (["sample", path, "--json"], 0),
    ):
        command = [sys.executable, "-c", CALL, *map(str, argv)]
        result = subprocess.run(
            command, env=os.environ | environment, capture_output=True, check=False
        )
        assert result.returncode == status
        shown = (result.stdout + result.stderr).decode("utf-8")
        assert "\\" not in shown
        assert argv[0] == "sample" or f"{argv[1]}: " in shown


def test_a_terminal_keeps_its_encoding(space: Path) -> None:
    path = space.rename(space.with_name("r\u00e4\u8a9e.yaml"))
    terminal, its_end = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", CALL, "check", str(path)],
        env=os.environ | LATIN,
        stdout=its_end,
        stderr=its_end,
    ):
        os.close(its_end)
        shown = os.read(terminal, 10_000)
    os.close(terminal)
    assert b"r\xe4\\u8a9e.yaml: ok" in shown


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_closed_streams_swallow_what_is_written(space: Path, closed: str) -> None:
    """Nothing of standard error is printed to standard output, and the status stays."""
    bad = space.with_name("none.yaml")
    for path, status, text in ((space, 0, f"{space}: ok"), (bad, 2, str(bad))):
        command = f"{sys.executable} -c '{CALL}' check {path} {closed}"
        result = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=False
        )
        assert result.returncode == status
        is_open = ("2" if status else "1") + ">&-" not in closed
        assert (text in result.stdout + result.stderr) == is_open
        assert not (result.stdout if status else result.stderr)


def test_check_needs_neither_torch_nor_ray(space: Path) -> None:
    code = "import sys; sys.modules['torch'] = sys.modules['ray'] = sys.modules['pandas'] = None\n"
    code += f"from s2s_search.cli import main; sys.exit(main(['check', {str(space)!r}]))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_sample_prints_what_a_search_runs(capsys: pytest.CaptureFixture[str], space: Path) -> None:
    status, out, _ = run(capsys, "sample", space, "-n", 3, "--seed", 5, "--json")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == load_space(space).trials(3, 5)
    status, out, _ = run(capsys, "sample", space)
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "in every trial", "trial-00000", "trial-00001", "trial-00002", "trial-00003",
    ]  # fmt: skip


def test_draws_of_a_search_that_learns_are_said_to_be_draws(
    capsys: pytest.CaptureFixture[str], space: Path
) -> None:
    space.write_text(space.read_text().replace("method: random", "method: gp"))
    note = "note: in a search, gp chooses later trials by the results of earlier ones"
    status, out, err = run(capsys, "sample", space, "--json")
    assert (status, len(out.splitlines())) == (0, 4)
    assert note in err
    assert run(capsys, "sample", space, "-n", 1)[2] == ""
    for number, said in ((0, False), (1, True)):
        err = run(capsys, "debug", "--space", space, "--trial", number)[2]
        assert (note in err) == said


def test_debug_runs_the_trial_of_a_search(capsys: pytest.CaptureFixture[str], space: Path) -> None:
    """The same configuration, budget, corpus and numbers, printed as JSON and nothing else."""
    status, out, err = run(capsys, "debug", "--space", space, "--trial", 2, "--json")
    assert (status, err) == (0, "")
    loaded = load_space(space)
    config = loaded.trials()[2]
    hparams = resolve(str(config["model"]), config)
    torch.set_num_threads(1)
    expected = [untimed(report.metrics) for report in train(hparams, load_corpus(loaded.corpus))]
    assert [untimed(json.loads(line)) for line in out.splitlines()] == expected


def test_overrides_may_fix_all_that_a_space_searches(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One configuration is left: debug runs it, sample and plan know it, and none asks for four."""
    space = tmp_path / "space.yaml"
    space.write_text(
        space_text(RATES, model="BasicSeq2Seq", search={"trials": 4}, scheduler={"max_steps": 6})
    )
    fixed = ("--hparams", "optimizer.learning_rate=0.005")
    status, out, _ = run(capsys, "debug", "--space", space, "--trial", 0, *fixed, "--json")
    assert status == 0
    assert json.loads(out)["learning_rate"] == 0.005
    status, out, _ = run(capsys, "sample", space, *fixed, "--json")
    assert [json.loads(line)["optimizer.learning_rate"] for line in out.splitlines()] == [0.005]
    status, out, _ = run(capsys, "plan", space, *fixed, "--no-probe", "--json")
    assert (status, json.loads(out)["trials"]) == (0, 1)
    assert run(capsys, "debug", "--space", space, "--trial", 1, *fixed)[0] == 2
    assert run(capsys, "sample", space, *fixed, "-n", 2)[0] == 2


def test_debug_says_what_is_wrong_with_a_corpus_before_it_makes_or_imports_anything(
    tmp_path: Path,
) -> None:
    bad = tmp_path / "bad.tsv"
    bad.write_text("no tab\n")
    code = (
        "import sys; sys.modules['torch'] = None; "
        "from s2s_search.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [
        "debug",
        "--corpus",
        f"{{train: {bad}, dev: {bad}}}",
        "--out",
        str(tmp_path / "run"),
    ]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tsv"]


def test_debug_keeps_what_decode_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, space: Path, tmp_path: Path
) -> None:
    out_folder = tmp_path / "deep" / "run"
    status, out, _ = run(capsys, "debug", "--space", space, "--out", out_folder, "--steps", 4)
    assert status == 0
    assert [line.split(" · ")[0] for line in out.splitlines()[1:]] == ["step 3", "step 4"]
    reports = [json.loads(line) for line in (out_folder / "reports.jsonl").read_text().splitlines()]
    assert [report["step"] for report in reports] == [3, 4]
    assert json.loads((out_folder / "config.json").read_text())["train.max_steps"] == 4
    (tmp_path / "lines").write_text("1 2 3\n\n4 4 unheard-of\n")
    for beam in ([], ["--beam", 3]):
        status, out, _ = run(capsys, "decode", out_folder, "--input", tmp_path / "lines", *beam)
        assert status == 0
        assert len(out.splitlines()) == 3
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1 2 3\n")))
    status, out, _ = run(capsys, "decode", out_folder)
    assert status == 0
    assert len(out.splitlines()) == 1
    odd = "1\x0c2\x852\u20283\r4\r\n4".encode()  # Unicode would end lines at each of these
    (tmp_path / "lines").write_bytes(odd)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(odd)))
    outputs = [
        run(capsys, "decode", out_folder, *given) for given in ([], ["--input", tmp_path / "lines"])
    ]
    assert outputs[0][:2] == outputs[1][:2]
    assert outputs[0][1].count("\n") == 2
    assert outputs[0][2].replace("standard input", f"--input {tmp_path}/lines") == outputs[1][2]
    (tmp_path / "lines").write_bytes(b"1\n\xff")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1\n\xff")))
    for place, given in (
        ("standard input", []),
        (f"--input {tmp_path}/lines", ["--input", tmp_path / "lines"]),
    ):
        status, out, err = run(capsys, "decode", out_folder, *given)
        assert status == 2
        assert err.splitlines()[-1].startswith(
            f"{place}: line 2: byte 0xff is not valid UTF-8; is it Windows-1252?"
        )
        assert len(out.splitlines()) == 2  # each line has an answer
    status, _, err = run(capsys, "debug", "--space", space, "--out", out_folder)
    assert status == 2
    assert "nothing is ever overwritten" in err


@pytest.mark.parametrize(
    "argv, messages",
    [
        (
            ["debug", "--hparams", "encoder.typ=x,attention.dim=0"],
            ["did you mean 'encoder.type'?", "attention.dim: must"],
        ),
        (["debug", "--hparams", "bridge_spec={"], ["--hparams"]),
        (["debug", "--model", "BasicSeq2Sq"], ["did you mean 'BasicSeq2Seq'?"]),
        (
            ["debug", "--model", "BasicSeq2Seq", "--hparams", "attention.dim=4"],
            ["belongs to AttentionSeq2Seq"],
        ),
        (
            ["debug", "--model", "BasicSeq2Seq", "--hparams", "model=AttentionSeq2Seq"],
            ["--hparams: model is 'AttentionSeq2Seq', but this is a BasicSeq2Seq"],
        ),
        (["debug", "--run", ".", "--trial", "3", "--seed", "9"], ["--run DIR", "--seed"]),
        (["debug", "--run", ".", "--trial", "3", "--trials", "9"], ["--run DIR", "--trials"]),
        (["debug", "--corpus", "cmudcit"], ["did you mean 'cmudict'?"]),
        (["debug", "--corpus", "{train: [no.a, no.b], dev: no.tsv}"], ["no.a", "no.b", "no.tsv"]),
        (["debug", "--corpus", "{train"], ["--corpus"]),
        (["debug", "--trial", "3"], ["--space"]),
        (["debug", "--trials", "3"], ["--space"]),
        (["debug", "--out", "/dev/null/run"], ["--out"]),
        (["search", "no.yaml"], ["no.yaml"]),
        (["results", "/dev/null"], ["/dev/null"]),
        (["results", "."], ["events.jsonl"]),
        (["decode", "/nowhere"], ["/nowhere"]),
        (["sample", "/dev/null"], ["/dev/null"]),
    ],
)
def test_what_the_user_can_mend(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    argv: list[str],
    messages: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    for message in messages:
        assert message in err
    assert not list(tmp_path.iterdir())


def test_a_trial_beyond_the_search(capsys: pytest.CaptureFixture[str], space: Path) -> None:
    grid = space.with_name("grid.yaml")
    grid.write_text(
        SPACE.replace("random, trials: 4, seed: 3", "grid").replace(
            "{min: 0.001, max: 0.1, log: true}", "0.1"
        )
    )
    status, _, err = run(capsys, "debug", "--space", grid, "--trial", 7)
    assert status == 2
    assert (
        f"{grid}: --trial 7: there is no trial-00007; "
        "there are trial-00000 to trial-00001; --trials N" in err
    )
    assert run(capsys, "debug", "--space", space, "--trial", 4)[0] == 2
    status, out, _ = run(
        capsys, "debug", "--space", space, "--trial", 4, "--trials", 5, "--steps", 1, "--json"
    )
    assert status == 0
    assert json.loads(out)["step"] == 1


def test_check_reads_the_users_corpus(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 2\n3\n")
    (tmp_path / "b").write_text("1 2\n")
    (tmp_path / "space.yaml").write_text(
        "model: BasicSeq2Seq\ncorpus: {train: [a, b], dev: [a, a]}\n"
    )
    status, _, err = run(capsys, "check", tmp_path / "space.yaml")
    assert status == 2
    assert "same number of lines" in err


def test_a_damaged_checkpoint_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for content in (b"", b"garbage", b"PK\x03\x04 half a file"):
        (tmp_path / "best.pt").write_bytes(content)
        status, _, err = run(capsys, "decode", tmp_path)
        assert status == 2
        assert "best.pt: this is no checkpoint of a trial" in err
    torch.save({"model": 1}, tmp_path / "best.pt")
    assert run(capsys, "decode", tmp_path)[0] == 2


def test_a_reader_that_leaves_early_is_no_error(space: Path) -> None:
    code = "import sys; from s2s_search.cli import main; sys.exit(main(sys.argv[1:]))"
    sample = f"{sys.executable} -c {code!r} sample {space} -n 400 --json"
    command = f"{sample} | head -n 1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("verb", [["check"], ["sample"], ["sample", "--json"]])
def test_a_full_disk_under_the_output_is_one_sentence(
    space: Path, verb: list[str], unbuffered: str
) -> None:
    code = "import sys; from s2s_search.cli import main; sys.exit(main(sys.argv[1:]))"
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code, verb[0], str(space), *verb[1:]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert ended.returncode == 2
    assert ended.stderr == "standard output: cannot be written: No space left on device\n"


def test_an_error_that_is_none_of_the_output_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command_line, "run_verb", fail)
    with pytest.raises(OSError, match="No space left"):
        command_line.main(["check"])


def test_an_unknown_key_of_an_override_names_the_option(
    space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["debug", "--space", str(space), "--hparams", "nope=1"]) == 2
    assert capsys.readouterr().err.startswith("--hparams: unknown hyperparameter 'nope'")


def test_only_missing_arguments_are_called_required(capsys: pytest.CaptureFixture[str]) -> None:
    """Further run folders of `compare` may be left out."""
    assert command_line.main(["compare", "run"]) == 2
    assert capsys.readouterr().err.endswith("the following arguments are required: A, B\n")
