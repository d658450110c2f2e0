"""Ensembles of checkpoints: their models, answers and numbers, and what is refused."""

# The fixtures of test_evaluate are imported, and are parameters of the tests.
# ruff: noqa: F401, F811

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from s2s_search.cli.command_line import main
from s2s_search.corpus.batches import make_batch
from s2s_search.corpus.corpus import Corpus, Split
from s2s_search.corpus.load import load_corpus
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError
from s2s_search.nn.models import Seq2Seq
from s2s_search.results import results
from s2s_search.results.evaluations import compared
from s2s_search.runs.evaluations import load_evaluations
from s2s_search.runs.folder import BEST
from s2s_search.spaces.load import load_space
from s2s_search.training.ensemble import differences, load_ensemble
from s2s_search.training.trained_model import TrainedModel, load_trained
from s2s_search.whatif.evaluate import choose_ensemble
from tests.spaces import space_text
from tests.unit.test_answer_form import folder_of, trained
from tests.unit.test_evaluate import (
    SPACE,
    Call,
    call,
    expected,
    home,
    in_threads,
    lines,
    made,
    write_run,
)


def best_of(folders: Sequence[Path], count: int) -> list[Path]:
    """Returns the best checkpoints by the reports that they hold."""
    found = [path for folder in folders for path in folder.glob(f"*/{BEST}")]
    return sorted(found, key=lambda path: load_trained(path).score[1])[:count]


def next_probabilities(
    models: Sequence[Seq2Seq], ids: torch.Tensor, target: list[int]
) -> torch.Tensor:
    """Returns the mean probabilities of the token after a target, [V], by plain steps."""
    total = torch.zeros(())
    length = torch.tensor([ids.shape[1]])
    for model in models:
        with torch.no_grad():
            encoding = model.encode(ids, length)
            state = model.decoder.start(encoding.state, encoding.memory)
            for i in [model.start_id, *target]:
                x = model.decoder_input(torch.tensor([i]), encoding.extra)
                logits, state, _ = model.decoder.step(x, state, encoding.memory)
        total = total + logits[0].softmax(-1)
    return total / len(models)


def one_at_a_time(
    models: Sequence[TrainedModel], split: Split, corpus: Corpus
) -> list[tuple[object, ...]]:
    """Returns loss, correct tokens, tokens, answer and references of each source, greedily."""
    members: list[Seq2Seq] = [each.model for each in models]  # type: ignore[misc]
    end = corpus.target_vocab.end
    found: list[tuple[object, ...]] = []
    for group in range(len(split.groups) - 1):
        loss, right, tokens, references = 0.0, 0, 0, []
        for pair in range(split.groups[group], split.groups[group + 1]):
            batch = make_batch(split, np.array([pair]), corpus.source_vocab, corpus.target_vocab)
            target = split.target(pair).tolist()
            for t, wanted in enumerate([*target, end]):
                probabilities = next_probabilities(members, batch.source_ids, target[:t])
                loss -= math.log(probabilities[wanted])
                right += int(probabilities.argmax()) == wanted
                tokens += 1
            references.append(target)
        answer: list[int] = []
        while len(answer) < models[0].hparams["inference.max_decode_length"]:
            best = int(next_probabilities(members, batch.source_ids, answer).argmax())
            if best == end:
                break
            answer.append(best)
        found.append((loss, right, tokens, answer, references))
    return found


@pytest.mark.usefixtures("in_threads")
def test_an_ensemble_is_measured_and_answers_as_a_plain_loop_over_its_models(
    home: Path,
    call: Call,
    tmp_path: Path,
) -> None:
    """Of two run folders. The table of evaluations has it, and compare leaves it out."""
    folders = [home / "run", home / "run-replicates"]
    paths = best_of(folders, 3)
    corpus = load_corpus(load_space(home / "space.yaml").corpus)
    models = [load_trained(path) for path in paths]
    found = one_at_a_time(models, corpus.dev, corpus)
    status, out, err = call("evaluate", *folders, "--ensemble", 3, "--json")
    assert status == 0, err
    row = json.loads(out)
    assert [(each["run"], each["trial"]) for each in row["models"]] == [
        (p.parts[-3], p.parts[-2]) for p in paths
    ]
    assert (row["ensemble"], row["trial"], row["examples"]) == (3, paths[0].parts[-2], 20)
    for name, value in expected(found).items():
        assert row[f"dev.{name}"] == pytest.approx(value, rel=1e-5), name
    (table,) = results.load(home / "run").evaluations.to_dict("records")
    assert (table["ensemble"], table["seeds"]) == (3, 1)
    assert set(table["run"].split(", ")) == {path.parts[-3] for path in paths}

    sources = ["".join(corpus.source_vocab.decode(corpus.dev.source(k))) for k in range(20)]
    (tmp_path / "lines").write_text("".join(f"{line}\n" for line in sources))
    asked = ["decode", *folders, "--ensemble", 3, "--input", tmp_path / "lines"]
    status, out, err = call(*asked)
    assert status == 0, err
    target_vocab = corpus.target_vocab
    answers = [" ".join(target_vocab.decode(row[3])) for row in found]  # type: ignore[arg-type]
    assert out.splitlines() == answers
    assert "ensemble of 3 models" in err
    rows = call(*asked, "--beam", 3, "--n-best", 2, "--scores")[1].splitlines()
    assert len(rows) == 40
    members: list[Seq2Seq] = [each.model for each in models]  # type: ignore[misc]
    for line in rows[:8]:
        number, _, score, text = line.split("\t")
        target = corpus.target_vocab.encode(text.split())
        source = torch.tensor(
            [[*corpus.source_vocab.encode(sources[int(number) - 1]), corpus.source_vocab.end]]
        )
        log_p = 0.0
        for t, i in enumerate([*target, corpus.target_vocab.end]):
            log_p += math.log(next_probabilities(members, source, target[:t])[i])
        assert float(score) == pytest.approx(log_p, rel=1e-4)

    one = call("evaluate", home / "run", "--trial", 0)
    assert one[0] == 0
    said = compared(
        home / "run", ("A", "B"), ({"trial-00000"}, {paths[0].parts[-2]}), "dev.loss", "minimize"
    )
    assert list(said) == []


@pytest.mark.usefixtures("in_threads")
def test_the_ensemble_to_quote_is_named_as_one(home: Path, call: Call) -> None:
    shutil.rmtree(home / "run-replicates")
    status, out, _ = call("evaluate", home / "run", "--ensemble", 2, "--split", "test")
    assert status == 0
    assert out.startswith("ensemble of 2, the best first: run/trial-0000")
    assert (
        "the ensemble of 2 on 30 test sources, greedy, with the 95 % interval over sources" in out
    )
    assert "one seed" not in out
    (evaluation,) = load_evaluations(home / "run")
    assert [each.ensemble for each in evaluation.trials] == [2]
    assert call("report", home / "run")[0] == 0
    said = " ".join((home / "run" / "report.md").read_text().split())
    assert "The number to quote: the ensemble of 2 models, `trial-0000" in said
    assert "over the sources alone: one ensemble says nothing about others" in said


def test_an_ensemble_of_one_is_its_model(home: Path) -> None:
    (path,) = best_of([home / "run"], 1)
    alone, joined = load_trained(path), load_ensemble([str(path)])
    assert isinstance(joined.model, Seq2Seq)
    text = ["abc", "", "dd"]
    assert list(joined.answers(text)) == list(alone.answers(text))


def test_a_folder_that_is_named_twice_counts_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    chosen = choose_ensemble([Path("run"), home / "run"], 3)
    assert len({model.trial for model in chosen.models}) == 3


def test_members_decode_with_the_settings_of_the_first(tmp_path: Path) -> None:
    first = folder_of(trained(0, inference__max_decode_length=3), tmp_path / "a")
    other = folder_of(trained(1, inference__max_decode_length=9), tmp_path / "b")
    joined = load_ensemble([str(first / BEST), str(other / BEST)])
    assert [each["inference.max_decode_length"] for each in joined.members] == [3, 3]
    assert all(len(answer.split()) <= 3 for answer in joined.answers(["abc", "d"]))


# --- what is refused ---


def test_other_vocabularies_are_refused_with_their_differences(home: Path, call: Call) -> None:
    (home / "other").mkdir()
    for name in ("train", "dev"):
        text = lines(40, 3).replace("d", "e") + "f\tf\n"
        (home / "other" / f"{name}.tsv").write_text(text)
    text = SPACE.replace("test: test.tsv, ", "")
    (home / "other" / "space.yaml").write_text(text)
    run = write_run(home / "other" / "run", load_space(home / "other" / "space.yaml").trials()[:1])
    shutil.rmtree(home / "run-replicates")
    (home / "run" / "trial-00001" / BEST).unlink()
    (home / "run" / "trial-00002" / BEST).unlink()
    for verb in ("decode", "evaluate"):
        status, out, err = call(verb, home / "run", run, "--ensemble", 2)
        assert (status, out.startswith("ensemble") or not out) == (2, True)
        for side in ("source", "target"):
            assert f"must have the {side} vocabulary of {home}" in err
        assert (
            "lacks 'd' and has besides 'e', 'f'" in err
            or "lacks 'e', 'f' and has besides 'd'" in err
        )
        assert "Traceback" not in err
    assert load_evaluations(home / "run") == []


def test_attention_is_needed_of_all_models(tmp_path: Path) -> None:
    paths = []
    for name in ("AttentionSeq2Seq", "BasicSeq2Seq"):
        made = trained(0, model=name, source__max_seq_len=12)
        paths.append(str(folder_of(made, tmp_path / name) / BEST))
    assert load_ensemble(paths).without_attention == ["BasicSeq2Seq"]
    assert load_ensemble(paths[:1]).without_attention == []


def test_orders_and_delimiters_count(tmp_path: Path) -> None:
    first = trained(0)
    turned = replace(first, source_vocab=Vocabulary(tuple("abdc")), delimiters=("", ""))
    assert list(differences(turned, first, "A")) == [
        "must have the source vocabulary of A, but has its tokens in another order",
        "must have the target_delimiter of A, ' ', but has ''",
    ]
    with pytest.raises(ConfigError) as found:
        load_ensemble([str(tmp_path / "x"), str(tmp_path / "y")])
    assert len(found.value.problems) == 2


def test_arguments_that_do_not_go_together(home: Path, call: Call) -> None:
    run, beside = home / "run", home / "run-replicates"
    for verb in ("decode", "evaluate"):
        status, _, err = call(verb, run, beside)
        assert status == 2
        assert (
            err == "several run folders make an ensemble; add --ensemble K, such as --ensemble 2\n"
        )
        status, _, err = call(verb, run, "--trial", 1, "--ensemble", 2)
        assert (status, "so --trial cannot name them" in err) == (2, True)
        status, _, err = call(verb, run, "--ensemble", 4)
        assert status == 2
        assert (
            "needs 4 checkpoints, but the runs keep 3 (checkpoints.best); "
            "--ensemble 3 takes them all" in err
        )
        status, _, err = call(verb, run, home / "none", home / "nowhere", "--ensemble", 2)
        assert status == 2
        assert "none" in err
        assert "nowhere" in err


def test_a_run_without_checkpoints_is_one_sentence(home: Path, tmp_path: Path, call: Call) -> None:
    run = home / "run"
    for path in run.glob(f"*/{BEST}"):
        path.unlink()
    for argv in (
        ["decode", run, "--ensemble", 2],
        ["evaluate", run, "--ensemble", 2],
        ["export", run, "--to", tmp_path / "model"],
    ):
        assert call(*argv) == (2, "", f"{run}: no trial has a checkpoint yet\n")


def test_runs_of_other_metrics_have_no_best(home: Path, call: Call) -> None:
    log = home / "run-replicates" / "events.jsonl"
    log.write_text(log.read_text().replace('"metric": "dev.loss"', '"metric": "dev.error_rate"'))
    status, _, err = call("decode", home / "run", home / "run-replicates", "--ensemble", 2)
    assert status == 2
    assert "the best of several runs need one metric, but there are dev.loss (" in err


@pytest.mark.usefixtures("in_threads")
def test_debug_runs_are_measured_and_join(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, count, seed in (("train", 60, 0), ("dev", 20, 1), ("test", 20, 2)):
        Path(f"{name}.tsv").write_text(lines(count, seed))
    text = space_text(
        {"attention.dim": 8, "train.seed": [1, 2]},
        model="AttentionSeq2Seq",
        corpus={"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv", "source_delimiter": ""},
        search={"method": "grid"},
        scheduler={"name": "none", "max_steps": 10},
    )
    Path("space.yaml").write_text(text)
    for trial in (0, 1):
        assert (
            main(["debug", "--space", "space.yaml", "--trial", str(trial), "--out", f"run{trial}"])
            == 0
        )
    status, out, err = call("evaluate", "run0", "--split", "test", "--json")
    assert status == 0, err
    alone = json.loads(out)
    assert (alone["ensemble"], alone["models"][0]["run"]) == (1, "run0")
    status, out, err = call(
        "evaluate", "run0", "run1", "--split", "test", "--ensemble", 2, "--json"
    )
    assert status == 0, err
    corpus = load_corpus(load_space(Path("space.yaml")).corpus)
    paths = sorted(
        (Path(f"run{k}") / BEST for k in (0, 1)), key=lambda path: load_trained(path).score[1]
    )
    assert corpus.test is not None
    found = one_at_a_time([load_trained(path) for path in paths], corpus.test, corpus)
    assert json.loads(out)["test.loss"] == pytest.approx(expected(found)["loss"], rel=1e-5)
    assert json.loads(out)["looks"] == 2
    assert call("evaluate", "run0", "--trial", 3)[0] == 2
