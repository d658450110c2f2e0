"""The verb `corpus`: what it says, against plain loops over the text."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from s2s_search.cli.command_line import main
from s2s_search.corpus.description import describe
from s2s_search.corpus.load import load_corpus

Rows = list[tuple[list[str], list[str]]]
LIMITS = {"source": 5, "target": 6}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def made(seed: int, number: int, letters: str) -> Rows:
    """Returns pairs of tokens of which many are equal, and some have an empty side."""
    rng = random.Random(seed)
    rows = []
    for _ in range(number):
        source = rng.choices(letters, k=rng.randint(0, 5))
        target = rng.choices("xyz", k=rng.randint(0 if source else 1, 6))
        rows.append((source, target))
    return rows


def written(path: Path, rows: Rows) -> str:
    text = "".join(f"{' '.join(source)}\t{' '.join(target)}\n" for source, target in rows)
    path.write_text(text)
    return str(path)


def quantile(lengths: list[int], share: float) -> int:
    """Returns the smallest length that a share of the lengths, without the last, is below."""
    ordered = sorted(lengths)
    place = share * (len(ordered) - 1)
    return ordered[int(place) + (place > int(place))]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("group_by", [{}, {"group_by": "source"}])
def test_a_description_is_as_counted(tmp_path: Path, seed: int, group_by: dict[str, str]) -> None:
    texts = {
        "train": made(seed, 150, "abcd"),
        "dev": made(seed + 10, 40, "abcdef"),
        "test": made(seed + 20, 30, "cdefg"),
    }
    files = {part: written(tmp_path / f"{part}.tsv", rows) for part, rows in texts.items()}
    found = describe(load_corpus({**files, **group_by}), LIMITS)
    known = [{token for row in texts["train"] for token in row[k]} for k in range(2)]
    seen: dict[str, set[tuple[str, ...]]] = {}
    for part, rows in texts.items():
        read = []
        for row in rows:
            read.append(
                tuple(
                    tuple(token if token in known[k] else "?" for token in row[k]) for k in range(2)
                )
            )
        sources = {source for source, _ in read}
        described = found.parts[part]
        assert described.pairs == len(rows)
        assert described.sources == len(sources)
        written_sources = {tuple(source) for source, _ in rows}  # with all unknown tokens apart
        assert described.groups == (len(written_sources) if group_by else len(rows))
        assert described.repeated == len(rows) - len(set(read))
        assert described.shared == {other: len(sources & seen[other]) for other in seen}
        seen[part] = sources
        for k, side in enumerate(("source", "target")):
            lengths = [len(row[k]) for row in rows]
            own = described.sides[side]
            assert own.tokens == sum(lengths)
            assert own.unknown == sum(row[k].count("?") for row in read)
            assert own.empty == lengths.count(0)
            assert (own.longest, own.median) == (max(lengths), quantile(lengths, 0.5))
            assert own.most == quantile(lengths, 0.99)
            assert own.cut == sum(length + k + 1 > LIMITS[side] for length in lengths)
    for k, side in enumerate(("source", "target")):
        counts = Counter(token for row in texts["train"] for token in row[k])
        use = found.vocabularies[side]
        assert use.size == len(counts)
        assert dict(use.most_frequent) == counts
        assert [count for _, count in use.most_frequent] == sorted(counts.values(), reverse=True)


def test_a_vocabulary_of_a_file_has_tokens_that_train_lacks(tmp_path: Path) -> None:
    (tmp_path / "vocab").write_text("a\nb\nc\nd\n")
    path = written(tmp_path / "a.tsv", [(["a", "b", "a"], ["x"]), (["e"], ["x"])])
    spec = {"train": path, "dev": path, "source_vocab": str(tmp_path / "vocab")}
    found = describe(load_corpus(spec), LIMITS)
    use = found.vocabularies["source"]
    assert (use.size, use.once, use.unused) == (4, 1, 2)
    assert use.most_frequent[:2] == [("a", 2), ("b", 1)]
    assert found.examples == [(["a", "b", "a"], ["x"]), (["UNK"], ["x"])]


def test_ten_examples_from_the_first_pair_to_the_last(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", [([f"s{k}"], [f"t{k}"]) for k in range(100)])
    found = describe(load_corpus({"train": path, "dev": path}), LIMITS)
    assert [source for source, _ in found.examples] == [[f"s{k}"] for k in range(0, 100, 11)]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["corpus", *arguments])
    return status, *capsys.readouterr()


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: Rows = [(["a", "b"], ["x"]), (["a", "b"], ["y"]), (["a", "b"], ["x"]), (["c"] * 9, ["y"])]
    written(tmp_path / "train.tsv", rows)
    written(tmp_path / "dev.tsv", [(["a", "b"], ["z"]), (["d"], ["x"])])
    space = tmp_path / "space.yaml"
    lines = ["model: BasicSeq2Seq", "corpus: {train: train.tsv, dev: dev.tsv, group_by: source}"]
    lines.append("parameters: {source.max_seq_len: {choices: [9, 20]}}")
    space.write_text("\n".join(lines) + "\n")
    status, out, err = said(capsys, str(space))
    assert status == 0
    table = [line.split("  ") for line in out.split("\n\n")[1].splitlines()]
    cells = {row[0] or row[1]: [cell.strip() for cell in row[1:] if cell.strip()] for row in table}
    assert cells["pairs"] == ["4", "2"]
    assert cells["different sources"] == ["2", "2"]
    assert cells["groups of references"] == ["2", "2"]
    assert cells["repeated pairs"] == ["1 (25 %)", "0"]
    assert cells["sources that train has, too"] == ["-", "1 (50 %)"]
    assert "  cut by source.max_seq_len = 9  " in out
    assert "source vocabulary: 3 tokens, 0 of them once in train; most frequent: 'c' 9" in out
    assert out.endswith("  c c c c c c c c c -> y\n")
    assert f"{space}: line 2: warning: corpus.dev: " in err
    assert f"{space}: line 3: warning: source.max_seq_len: 9 cuts 1 of 4 sources" in err


def test_an_object_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.tsv", made(3, 50, "abc"))
    spec: dict[str, Any] = {"train": path, "dev": {"hold_out": 5}}
    status, out, _ = said(capsys, json.dumps(spec), "--json")
    row = json.loads(out)
    corpus = load_corpus(spec)
    assert status == 0
    assert row["fingerprint"] == corpus.fingerprint
    assert row["parts"]["dev"]["sources"] == 5
    assert row["parts"]["dev"]["shared"] == {"train": 0}
    assert row["vocabularies"]["source"]["size"] == 3
    assert row["limits"] == {"source": 40, "target": 40}
    assert len(row["examples"]) == 10


@pytest.mark.parametrize(
    "argument, problem",
    [
        ("none.yaml", "none.yaml: cannot be read: No such file or directory"),
        ("cmudct", "cmudct: cannot be read: No such file or directory"),
        ("{name: copi}", "corpus: corpus.name: unknown corpus 'copi'; did you mean 'copy'?"),
        ("{train: a", "corpus: line 1: broken YAML"),
        ("{train: /none.tsv, dev: {hold_out: 2}}", "corpus: corpus.train: /none.tsv: cannot be"),
    ],
)
def test_no_corpus(argument: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, argument)
    assert (status, out) == (2, "")
    assert problem in err
    assert "Traceback" not in err


def test_a_file_of_pairs_is_no_search_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names the argument that describes it."""
    file = tmp_path / "pairs.tsv"
    file.write_text("a\tb\nb\ta\n" * 50)
    status, out, err = said(capsys, str(file))
    assert (status, out) == (2, "")
    assert "a search space ends in .yaml" in err
    assert "Traceback" not in err
    meant = err.partition("'")[2].rpartition("'")[0]
    assert said(capsys, meant.replace("0.05", "1"))[0] == 0


def test_bad_text_is_named_with_the_file_of_the_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tsv").write_text("a\tx\nb y\n")
    space = tmp_path / "space.yaml"
    space.write_text("model: BasicSeq2Seq\ncorpus: {train: a.tsv, dev: a.tsv}\n")
    status, out, err = said(capsys, str(space))
    assert (status, out) == (2, "")
    assert err.startswith(f"{space}: 2 problems\n  corpus.train: {tmp_path}/a.tsv: line 2: must be")
