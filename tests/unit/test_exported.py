"""Exported models answer and are measured without the run; a damaged one is refused."""

# The fixtures of test_evaluate are imported, and are parameters of the tests.
# ruff: noqa: F401, F811

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s2s_search.runs.exported import read_description
from s2s_search.training.exported import load_exported
from s2s_search.training.trained_model import TrainedModel
from tests.test_docs import ROOT
from tests.unit.test_answer_form import folder_of, trained
from tests.unit.test_evaluate import Call, call, home, in_threads, made


def ask(call: Call, tmp_path: Path, *argv: object) -> list[str]:
    (tmp_path / "lines").write_text("abc\n\nd\nbbbb\nxa\n")
    status, out, err = call("decode", *argv, "--input", tmp_path / "lines")
    assert status == 0, err
    return list(out.splitlines())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.usefixtures("in_threads")
def test_what_is_exported_needs_no_run_folder(
    home: Path, tmp_path: Path, call: Call, count: int
) -> None:
    folders, to = [home / "run", home / "run-replicates"], tmp_path / "model"
    status, out, err = call("export", *folders, "--ensemble", count, "--to", to)
    assert status == 0, err
    assert len(out.splitlines()) == count + 1
    assert sorted(path.name for path in to.iterdir()) == [
        *(f"model-{k + 1}.safetensors" for k in range(count)),
        "model.json",
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    before = ask(call, tmp_path, *folders, "--ensemble", count)
    status, out, _ = call("evaluate", *folders, "--ensemble", count, "--split", "test", "--json")
    assert status == 0
    measured = json.loads(out)
    for folder in folders:
        shutil.rmtree(folder)
    assert ask(call, tmp_path, to) == before
    assert len(ask(call, tmp_path, to, "--beam", 3, "--n-best", 2)) == 10
    status, out, err = call("evaluate", to, "--split", "test", "--json")
    assert status == 0, err
    again = json.loads(out)
    for key, value in measured.items():
        if key.startswith("test.") or key in ("trial", "ensemble", "examples", "beam"):
            assert again[key] == value, key
    assert [(m["run"], m["trial"]) for m in again["models"]] == [
        (m["run"], m["trial"]) for m in measured["models"]
    ]
    assert again["looks"] == 1


def test_a_trial_is_chosen_and_its_provenance_kept(home: Path, tmp_path: Path, call: Call) -> None:
    status, out, err = call("export", home / "run", "--trial", 1, "--to", tmp_path / "model")
    assert status == 0, err
    described = read_description(tmp_path / "model")
    (member,) = described.members
    assert (member.run, member.trial, member.step) == ("run", "trial-00001", 20)
    assert member.hparams["optimizer.learning_rate"] == 0.005
    assert out.startswith("run/trial-00001, step 20, dev.loss ")
    assert described.corpus["train"].endswith("train.tsv")
    assert set(described.software) == {"s2s-search", "torch", "safetensors"}
    assert len(described.fingerprint) == 64


def test_a_damaged_folder_is_refused(home: Path, tmp_path: Path, call: Call) -> None:
    to = tmp_path / "model"
    assert call("export", home / "run", "--ensemble", 2, "--to", to)[0] == 0
    whole = {path: path.read_bytes() for path in to.iterdir()}
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (to / name).write_bytes(whole[to / name][:-1])
    status, out, err = call("decode", to)
    assert (status, out) == (2, "")
    for name in ("model-1.safetensors", "model-2.safetensors"):
        assert f"{to / name}: its SHA-256 is not that of the description" in err
    (to / "model-2.safetensors").unlink()
    status, _, err = call("decode", to)
    assert (status, "No such file" in err) == (2, True)
    text = whole[to / "model.json"]
    for wrong in (
        b"{",
        b"[" * 100_000,
        b"\xff",
        text.replace(b'"format": 1', b'"format": 2'),
        text.replace(b"model-1.safetensors", b"../1.safetensors"),
        text.replace(b'"target_tokens"', b'"tokens"'),
    ):
        assert wrong != text
        (to / "model.json").write_bytes(wrong)
        for verb in ("decode", "evaluate"):
            status, out, err = call(verb, to)
            assert (status, out) == (2, "")
            assert f"{to / 'model.json'}: describes no exported model" in err
            assert "Traceback" not in err
    for path, data in whole.items():
        path.write_bytes(data)
    (to / "model.json").write_bytes(
        text.replace(b'"optimizer.name": "Adam"', b'"optimizer.name": "Adm"')
    )
    status, _, err = call("decode", to)
    assert status == 2
    assert "optimizer.name" in err


def test_an_exported_model_answers_as_a_whole(home: Path, tmp_path: Path, call: Call) -> None:
    to = tmp_path / "model"
    assert call("export", home / "run", "--to", to)[0] == 0
    law = "is an exported model, which answers as a whole"
    law += ", without --ensemble, --trial and other folders"
    for verb in (["decode"], ["evaluate"], ["export", "--to", tmp_path / "new"]):
        for more in (
            [to, "--ensemble", 2],
            [to, "--trial", 0],
            [home / "run", to, "--ensemble", 2],
        ):
            assert call(verb[0], *more, *verb[1:]) == (2, "", f"{to}: {law}\n")
    assert call("export", to, "--to", tmp_path / "new") == (
        2,
        "",
        f"{to}: is an exported model already; copy the folder\n",
    )


def test_nothing_is_overwritten_or_left(
    home: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    status, _, err = call("export", home / "run", "--trial", 9, "--to", tmp_path / "there")
    assert status == 2
    assert "there is no trial-00009" in err
    assert f"--to {tmp_path / 'there'}: is there already, and nothing is ever overwritten" in err

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(Path, "write_bytes", full)
    status, _, err = call("export", home / "run", "--to", tmp_path / "model")
    assert (status, err) == (
        2,
        f"{tmp_path / 'model'}: cannot be written: No space left on device\n",
    )
    assert sorted(tmp_path.iterdir()) == before


def test_the_script_with_torch_alone_gives_the_same_answers(tmp_path: Path, call: Call) -> None:
    made: TrainedModel = trained(
        5,
        encoder__type="BidirectionalRNNEncoder",
        attention__score_type="bahdanau",
        bridge_spec={"class": "ZeroBridge"},
        source__max_seq_len=12,
    )
    folder = folder_of(made, tmp_path / "run")
    (folder / "space.yaml").write_text("model: AttentionSeq2Seq\ncorpus: {name: copy}\n")
    (folder / "config.json").write_text(json.dumps(made.hparams.flat()))
    report = {"step": 1, "seconds": 1.0, "status": "finished", "dev.loss": 1.0}
    (folder / "reports.jsonl").write_text(json.dumps(report) + "\n")
    status, _, err = call("export", folder, "--to", tmp_path / "model")
    assert status == 0, err
    lines = ["abc", "", "d" * 20, "qa", "bcd"]
    command = [sys.executable, str(ROOT / "examples" / "read_exported.py"), str(tmp_path / "model")]
    given = "".join(f"{line}\n" for line in lines)
    shown = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == list(made.answers(lines))
    (loaded,) = load_exported(tmp_path / "model")
    for key, value in made.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[key], value, rtol=0, atol=0)
