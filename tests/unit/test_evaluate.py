"""Evaluations: metrics as one example at a time gives them, which models count, what is kept and counted."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from torch.nn import functional as F

from s2s_search import metrics
from s2s_search.cli.command_line import main
from s2s_search.corpus.batches import make_batch
from s2s_search.corpus.corpus import Corpus, Split
from s2s_search.corpus.load import load_corpus
from s2s_search.results import results
from s2s_search.results.evaluations import compared
from s2s_search.runs.checkpoints import Checkpoints, keep_snapshots
from s2s_search.runs.environment import environment
from s2s_search.runs.evaluations import Sums, keep_evaluation, load_evaluations, looks
from s2s_search.runs.folder import BEST, EVALUATIONS, new_folder
from s2s_search.runs.inputs import space_of
from s2s_search.runs.recorder import Recorder, resolved
from s2s_search.runs.state import load_history
from s2s_search.spaces.load import load_space
from s2s_search.training.evaluation import decode, source_sums
from s2s_search.training.trained_model import TrainedModel, load_trained
from s2s_search.training.trial import train
from s2s_search.tuning.start import replicate_search
from s2s_search.whatif import evaluate as whatif_evaluate
from s2s_search.whatif.evaluate import choose
from tests.spaces import distance, space_text

ROOT = Path(__file__).parents[2]
RATES = [0.02, 0.005, 0.001]
SPACE = space_text(
    {"optimizer.learning_rate": RATES, "attention.dim": 8, "train.eval_examples": 5},
    model="AttentionSeq2Seq",
    corpus={"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv", "source_delimiter": ""},
    metric={"name": "dev.loss"},
    search={"method": "grid"},
    scheduler={"name": "none", "max_steps": 20},
)


def lines(count: int, seed: int) -> str:
    draw = np.random.default_rng(seed)
    words = ["".join(draw.choice(list("abcd"), draw.integers(1, 6))) for _ in range(count)]
    return "".join(f"{word}\t{' '.join(word[::-1])}\n" for word in words)


def write_run(folder: Path, trials: list[dict[str, Any]] | None = None, **more: object) -> Path:
    """A run folder of trained trials: those of the space, or of the configurations, all finished."""
    space = load_space(folder.parent / "space.yaml")
    corpus = load_corpus(space.corpus)
    chosen = space.trials() if trials is None else trials
    new_folder(folder)
    recorder = Recorder(space, folder)
    described = environment(space, corpus, None, None, None, None, ["run_search.py"])
    recorder.begin(len(chosen), described, **more)
    for number, config in enumerate(chosen):
        name = f"trial-{number:05d}"
        recorder.begin_trial(name, config)
        reports = train(resolved(config), corpus, "cpu")
        for report in keep_snapshots(reports, Checkpoints(folder / name), "dev.loss", "minimize"):
            recorder.report(name, report.metrics)
        recorder.end_trial(name, "finished")
    recorder.end("finished")
    recorder.close()
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of three trials, and beside it three replicates of the first and two of the second."""
    home = tmp_path_factory.mktemp("made")
    for name, count, seed in (("train", 80, 0), ("dev", 20, 1), ("test", 30, 2)):
        (home / f"{name}.tsv").write_text(lines(count, seed))
    (home / "space.yaml").write_text(SPACE)
    run = write_run(home / "run")
    trials = load_space(home / "space.yaml").trials()
    configs = [
        {**trials[k], "train.seed": seed} for k, seed in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2))
    ]
    write_run(home / "run-replicates", configs, configs=configs, replicates_of=str(run))
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    home = tmp_path / "home"
    shutil.copytree(made, home)
    for log in home.glob("*/events.jsonl"):
        log.write_text(log.read_text().replace(str(made), str(home)))
    return home


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the start of processes, which import torch; other tests have real ones."""

    @contextmanager
    def threads(count: int) -> Iterator[list[ThreadPoolExecutor]]:
        with ThreadPoolExecutor(1) as pool:
            yield [pool] * count

    monkeypatch.setattr(whatif_evaluate, "processes_of", threads)


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def called(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(list(map(str, argv)))
        out, err = capsys.readouterr()
        return status, out, err

    return called


# --- the numbers ---


def one_at_a_time(trained: TrainedModel, split: Split, corpus: Corpus, width: int) -> list[Any]:
    """Returns loss, correct tokens, tokens, answer and references of each source, in plain loops."""
    hparams = {**trained.hparams.flat(), "inference.beam_search.beam_width": width}
    found = []
    for group in range(len(split.groups) - 1):
        loss, right, tokens, references = 0.0, 0, 0, []
        for pair in range(split.groups[group], split.groups[group + 1]):
            batch = make_batch(split, np.array([pair]), corpus.source_vocab, corpus.target_vocab)
            with torch.no_grad():
                logits = trained.model(batch)
            wanted = batch.target_ids[0, 1:]
            loss += float(F.cross_entropy(logits[0], wanted, reduction="sum"))
            right += int((logits[0].argmax(-1) == wanted).sum())
            tokens += len(wanted)
            references.append(split.target(pair).tolist())
        first = make_batch(
            split, split.groups[group : group + 1], corpus.source_vocab, corpus.target_vocab
        )
        (answer,) = decode(trained.model, *first[:2], resolved(hparams))
        found.append((loss, right, tokens, answer, references))
    return found


def expected(found: list[Any]) -> dict[str, float]:
    """Returns all metrics of the sources of one_at_a_time, by their definitions."""
    loss, right, tokens = (sum(row[k] for row in found) for k in range(3))
    errors = length = wrong = 0
    for *_, answer, references in found:
        fewest, minus = min((distance(answer, each), -len(each)) for each in references)
        errors, length, wrong = errors + fewest, length - minus, wrong + (fewest > 0)
    texts = [" ".join(map(str, row[3])) for row in found]
    most = max(len(row[4]) for row in found)
    streams = [
        [" ".join(map(str, row[4][k])) if k < len(row[4]) else None for row in found]
        for k in range(most)
    ]
    return {
        "loss": loss / tokens,
        "perplexity": math.exp(loss / tokens),
        "token_accuracy": right / tokens,
        "error_rate": errors / length,
        "word_error_rate": wrong / len(found),
        "bleu": sacrebleu.BLEU(tokenize="none", force=True).corpus_score(texts, streams).score,
    }


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_sums_of_sources_are_those_of_one_source_at_a_time(
    made: Path, width: int, parts: int
) -> None:
    """Also where sources have several references, which lie in several batches."""
    corpus = load_corpus(load_space(made / "space.yaml").corpus)
    assert corpus.test is not None
    grouped = replace(corpus.test, groups=np.array([0, 1, 4, 5, 9, *range(10, 31)]))
    trained = load_trained(
        made / "run" / "trial-00000" / BEST,
        {
            "inference.beam_search.beam_width": width,
            "train.eval_examples": 0,
            "train.eval_batch_size": 4,
        },
    )
    sums = sum(
        source_sums(trained.model, grouped, corpus, trained.hparams, part, parts)
        for part in range(parts)
    )
    found = one_at_a_time(trained, grouped, corpus, width)
    for row, (loss, right, tokens, answer, references) in zip(sums, found, strict=True):
        named = dict(zip(metrics.SUMS, row.tolist(), strict=True))
        assert named["loss"] == pytest.approx(loss, rel=1e-5)
        assert (named["correct"], named["tokens"]) == (right, tokens)
        fewest, minus = min((distance(answer, each), -len(each)) for each in references)
        assert (named["errors"], named["length"]) == (fewest, -minus)
        assert (named["wrong"], named["sources"]) == (fewest > 0, 1)
    measured = metrics.metrics_of(sums.sum(axis=0).tolist(), "test")
    assert measured == pytest.approx(
        {f"test.{name}": value for name, value in expected(found).items()}, rel=1e-6
    )


def test_an_evaluation_is_that_of_plain_loops_over_its_models(made: Path, call: Call) -> None:
    """All of the dev part counts, though the trials looked at 5 sources of it."""
    corpus = load_corpus(load_space(made / "space.yaml").corpus)
    status, out, err = call("evaluate", made / "run", "--json", "--trial", 0, 2, "--beam", 2)
    assert status == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["trial"] for row in rows] == ["trial-00000", "trial-00002"]
    assert [len(row["models"]) for row in rows] == [3, 1]
    for row in rows:
        assert (row["split"], row["examples"], row["beam"]) == ("dev", 20, 2)
        of_models = []
        for model in row["models"]:
            trained = load_trained(made / model["run"] / model["trial"] / BEST)
            assert trained.step == model["step"]
            of_models.append(expected(one_at_a_time(trained, corpus.dev, corpus, 2)))
        for name in of_models[0]:
            mean = np.mean([of_model[name] for of_model in of_models])
            assert row[f"dev.{name}"] == pytest.approx(mean, rel=1e-6)
            if row[f"dev.{name}.low"] is not None:
                assert row[f"dev.{name}.low"] <= row[f"dev.{name}"] <= row[f"dev.{name}.high"]
    kept = load_evaluations(made / "run")[-1]
    (made / "run" / EVALUATIONS).unlink()
    for evaluated, row in zip(kept.trials, rows, strict=True):
        values = []
        for model in evaluated.models:
            sums = np.sum(model.sums.rows(), axis=0).tolist()
            values.append(metrics.metrics_of(sums)["dev.error_rate"])
        assert np.mean(values) == pytest.approx(row["dev.error_rate"])


# --- which models ---


def test_replicates_count_and_their_mean_chooses(home: Path) -> None:
    """The best trial, its replicates, and the mean of the replicates need not agree."""
    run = results.load(home / "run")
    again = results.load(home / "run-replicates").trials
    means = again.groupby("optimizer.learning_rate")["best.dev.loss"].mean()
    best = run.trials.set_index("optimizer.learning_rate")["trial"][means.idxmin()]
    (chosen,) = choose(home / "run")
    assert (chosen.trial, chosen.fresh, chosen.left_out) == (best, True, [])
    first, second, third = choose(home / "run", [0, 1, 2])
    assert [model.seed for model in first.models] == [1, 2, 3]
    assert {model.run for model in first.models} == {"run-replicates"}
    assert [model.seed for model in second.models] == [1, 2]
    assert (third.fresh, [model.run for model in third.models]) == (False, ["run"])
    assert [each.trial for each in choose(home / "run-replicates", [0, 1, 3])] == [
        "trial-00000",
        "trial-00003",
    ]  # trials 0 and 1 are of one configuration
    shutil.rmtree(home / "run-replicates")
    (alone,) = choose(home / "run")
    assert (alone.trial, alone.fresh) == (str(run.best(1)["trial"][0]), False)


def test_what_does_not_count_is_named(home: Path, call: Call) -> None:
    replicates = home / "run-replicates"
    (replicates / "trial-00001" / BEST).unlink()
    events = (replicates / "events.jsonl").read_text()
    ended = '"trial": "trial-00002", "status": "finished"}'
    assert ended in events
    (replicates / "events.jsonl").write_text(
        events.replace(ended, ended.replace("finished", "diverged"))
    )
    shutil.copytree(replicates, home / "run-replicates-2")
    (chosen,) = choose(home / "run", [0])
    assert [model.seed for model in chosen.models] == [1]
    assert set(chosen.left_out) == {
        "run-replicates/trial-00001 (no checkpoint)",
        "run-replicates/trial-00002 (diverged)",
        "run-replicates-2/trial-00000 (seed 1 again)",
        "run-replicates-2/trial-00001 (no checkpoint)",
        "run-replicates-2/trial-00002 (diverged)",
    }
    assert "left out: run-replicates" in " ".join(chosen.about(home / "run"))
    (alone,) = choose(home / "run", [2])
    said = " ".join(alone.about(home / "run"))
    assert "no replicate" in said
    assert f"replicate {home / 'run'} --seeds 5" in said


def test_new_replicates_have_new_seeds_and_all_keep_their_weights(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds that count once must not be trained twice, and the best seeds alone say too much."""
    begun: list[Any] = []
    monkeypatch.setattr(
        "s2s_search.tuning.start.run_search", lambda space, **more: begun.append((space, more))
    )
    replicate_search(home / "run", top=3, seeds=4)
    ((space, more),) = begun
    seeds: dict[float, list[int]] = {}
    for config in more["configs"]:
        seeds.setdefault(config["optimizer.learning_rate"], []).append(config["train.seed"])
    assert seeds == {0.02: [4, 5, 6, 7], 0.005: [3, 4, 5, 6], 0.001: [1, 2, 3, 4]}
    assert (space.checkpoints.best, space.scheduler.name) == (12, "none")
    history = load_history(home / "run-replicates")
    assert space_of(history, home / "run-replicates").checkpoints.best == 10
    assert len(history.search["configs"]) == 5


# --- what is kept ---


@pytest.mark.usefixtures("in_threads")
def test_looks_at_the_test_part_are_counted_and_all_is_kept(home: Path, call: Call) -> None:
    assert results.load(home / "run").evaluations.empty
    command = ["evaluate", home / "run", "--trial", 1]
    status, out, err = call(*command, "--split", "test")
    assert status == 0, err
    assert "trial-00001: 2 replicates of run-replicates, seeds 1, 2" in out
    assert "trial-00001 on 30 test sources, greedy" in out
    assert "the 95 % interval over 2 seeds and the sources" in out
    assert "has been looked at once in this run folder" in out
    assert "looked at" not in call(*command)[1]
    out = call(*command, "--split", "test")[1]
    assert "has been looked at 2 times in this run folder" in out
    row = json.loads(call(*command, "--split", "test", "--json")[1])
    assert row["looks"] == 3
    table = results.load(home / "run").evaluations
    assert table["split"].tolist() == ["test", "dev", "test", "test"]
    assert table["error_rate"][0] == table["error_rate"][2] == row["test.error_rate"]
    assert table["error_rate.low"][3] == row["test.error_rate.low"]
    assert (table["seeds"] == 2).all()
    assert table["fresh"].all()
    assert (table["run"] == "run-replicates").all()


@pytest.mark.usefixtures("in_threads")
def test_compare_pairs_two_evaluations_over_the_sources(home: Path, call: Call) -> None:
    """Of one call or of two; the newest counts; not replicates against a trial that was chosen."""
    run = home / "run"
    command = ["compare", run, 0, 1, home / "run-replicates"]
    assert "test sources" not in call(*command)[1]
    for trials in ([0], [1, 2]):
        assert call("evaluate", run, "--split", "test", "--trial", *trials)[0] == 0
    table = results.load(run).evaluations.set_index("trial")["loss"]
    (line,) = [line for line in call(*command)[1].splitlines() if "test sources" in line]
    assert line.startswith("on 30 test sources, greedy: ")
    assert (
        f"test.loss {table['trial-00000']:.4g} against {table['trial-00001']:.4g}, difference "
        f"{table['trial-00000'] - table['trial-00001']:+.3g} (95 % interval " in line
    )
    assert line.endswith("over 3 and 2 seeds, paired over the sources")
    turned = call("compare", run, 1, 0, home / "run-replicates")[1].splitlines()
    assert any(line.endswith("over 2 and 3 seeds, paired over the sources") for line in turned)
    of_a, of_b = {"trial-00000"}, {"trial-00001"}
    (line,) = compared(run, ("A", "B"), (of_a, of_b), "dev.loss", "minimize", ", of few pairs")
    assert "A is better than B, of few pairs: test.loss " in line
    said = call("compare", run, 0, 2)[1]
    assert "trial-00000 and trial-00002 are not compared: one was measured by replicates" in said


@pytest.mark.usefixtures("in_threads")
def test_the_report_asks_for_the_test_part_once_and_quotes_it(home: Path, call: Call) -> None:
    run = home / "run"

    def said() -> str:
        assert call("report", run)[0] == 0
        return " ".join((run / "report.md").read_text().split())

    assert f"`python run_search.py evaluate {run} --split test`" in said()
    assert f"replicate {run}" not in said()
    row = json.loads(call("evaluate", run, "--split", "test", "--json")[1])
    assert (
        f"The number to quote: `{row['trial']}` has `test.loss` {row['test.loss']:.4g} on the 30 "
        f"test sources, greedy (95 % interval {row['test.loss.low']:.4g} to "
        f"{row['test.loss.high']:.4g}, over {len(row['models'])} seeds and the sources)." in said()
    )
    assert "looked at" not in said()
    assert call("evaluate", run, "--split", "test")[0] == 0
    assert "The test part has been looked at 2 times." in said()
    shutil.rmtree(home / "run-replicates")
    (run / EVALUATIONS).unlink()
    assert f"`python run_search.py replicate {run} --top 3 --seeds 5`, then `python" in said()


@pytest.mark.usefixtures("in_threads")
def test_damaged_lines_are_left_out(home: Path, call: Call) -> None:
    """As a killed writer leaves them, or another hand."""
    command = ["evaluate", home / "run", "--trial", 2, "--split", "test"]
    assert call(*command)[0] == 0
    path = home / "run" / EVALUATIONS
    whole = path.read_bytes()
    (evaluation,) = load_evaluations(home / "run")
    for wrong in (
        whole[:-1000],
        whole.replace(b'"split":"test"', b'"split":"train"'),
        whole.replace(b'"examples":30', b'"examples":31'),
        whole.replace(b'"run":"run"', b'"run":"\\u001b[2J"'),
        whole.replace(b'"test.error_rate"', b'"test.errors"'),
        whole.replace(b'"time":', b'"time":9'),
        b"[" * 100_000 + b"\n",
        b"\xff\n",
    ):
        assert wrong != whole
        path.write_bytes(wrong)
        assert load_evaluations(home / "run") == []
        keep_evaluation(home / "run", evaluation)
        assert load_evaluations(home / "run") == [evaluation]
        assert looks(load_evaluations(home / "run")) == 1


def test_sums_are_kept_as_they_are() -> None:
    draw = np.random.default_rng(0)
    answers = [draw.integers(0, 5, draw.integers(0, 9)).tolist() for _ in range(50)]
    references = [[draw.integers(0, 5, draw.integers(1, 9)).tolist()] for _ in range(50)]
    rows = [
        [float(draw.random()), 1.0, 2.0, *row] for row in metrics.answer_sums(answers, references)
    ]
    again = Sums.of(rows).rows()
    assert np.array(again) == pytest.approx(np.array(rows), abs=1e-5)
    of_bleu = np.sum(again, axis=0).tolist()[metrics.SUMS.index("predicted") :]
    assert metrics.bleu(answers, references) == pytest.approx(metrics.bleu_of(of_bleu))


# --- what is refused ---


@pytest.mark.usefixtures("in_threads")
def test_a_corpus_without_a_test_part_is_refused(home: Path, call: Call) -> None:
    text = SPACE.replace("test: test.tsv, ", "")
    assert text != SPACE
    (home / "other").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        shutil.copy(home / name, home / "other")
    (home / "other" / "space.yaml").write_text(text)
    run = write_run(home / "other" / "run", load_space(home / "space.yaml").trials()[:1])
    status, out, err = call("evaluate", run, "--split", "test")
    assert (status, out) == (2, "")
    assert err == f"{run}: the corpus of the search has no test part; it has train and dev\n"
    assert call("evaluate", run)[0] == 0


def test_all_problems_are_said_before_anything_is_evaluated(home: Path, call: Call) -> None:
    (home / "run" / "trial-00002" / BEST).unlink()
    (home / "run" / EVALUATIONS).mkdir()
    (home / "dev.tsv").write_text(lines(20, 9))
    status, out, err = call("evaluate", home / "run", "--trial", 0, 2, 7)
    assert (status, out) == (2, "")
    assert "4 problems" in err
    assert "trial-00002 has no checkpoint" in err
    assert "there is no trial-00007; there are trial-00000 to trial-00002" in err
    assert "the corpus is not the one that the search was made with" in err
    assert "cannot be written: a folder has this name" in err
    status, out, err = call("evaluate", home, "--split", "train")
    assert status == 2
    assert "invalid choice" in err
    status, _, err = call("evaluate", home)
    assert status == 2
    assert "is no run folder of a search" in err


@pytest.mark.usefixtures("in_threads")
def test_a_moved_corpus_is_found_by_corpus(home: Path, call: Call) -> None:
    (home / "there").mkdir()
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        shutil.move(home / name, home / "there")
    command = ["evaluate", home / "run", "--trial", 2, "--split", "test"]
    status, _, err = call(*command)
    assert status == 2
    assert "where it lies now is said by --corpus" in err
    there = {part: str(home / "there" / f"{part}.tsv") for part in ("train", "dev", "test")}
    assert call(*command, "--corpus", json.dumps(there))[0] == 0
    changed = there | {"test": there["dev"]}
    status, _, err = call(*command, "--corpus", json.dumps(changed))
    assert status == 2
    assert "the corpus is not the one" in err


@pytest.mark.usefixtures("in_threads")
def test_damaged_checkpoints_are_all_named_and_nothing_is_kept(home: Path, call: Call) -> None:
    for trial in ("trial-00000", "trial-00002"):
        (home / "run-replicates" / trial / BEST).write_bytes(b"damaged")
    status, _, err = call("evaluate", home / "run", "--trial", 0)
    assert status == 2
    for trial in ("trial-00000", "trial-00002"):
        assert f"{home / 'run-replicates' / trial / BEST}: this is no checkpoint of a trial" in err
    assert "trial-00001/best.pt" not in err
    assert not (home / "run" / EVALUATIONS).exists()


# --- processes ---

ENDLESS = """
import os, sys, time
from pathlib import Path
from s2s_search.whatif.processes import processes_of
if __name__ == "__main__":
    with processes_of(2) as pools:
        for pool in pools:
            print(pool.submit(os.getpid).result(), flush=True)
        for pool in pools:
            pool.submit(time.sleep, 1000)
        if sys.argv[1:]:
            raise KeyboardInterrupt
        time.sleep(1000)
"""


@pytest.mark.parametrize("ends", ["killed", "interrupted"])
def test_no_process_outlives_its_parent(tmp_path: Path, ends: str) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    command = [sys.executable, str(script), *(["now"] if ends == "interrupted" else [])]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        children = [parent.stdout.readline() for _ in range(2)]
        assert all(children)
        if ends == "killed":
            parent.kill()
        parent.communicate(timeout=100)  # the output ends when the last process has closed it
