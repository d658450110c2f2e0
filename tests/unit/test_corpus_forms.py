"""Forms of a user's corpus: sources held out, several references of a source, and columns.

The parts are held to plain loops.
"""

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import pytest
import yaml

from s2s_search.cli.command_line import main
from s2s_search.corpus.corpus import Corpus, Split
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import ConfigError
from s2s_search.hparams.configuration import resolve
from s2s_search.metrics import METRICS
from s2s_search.spaces.load import load_space
from s2s_search.spaces.settings import Resources
from s2s_search.spaces.trial_file import trial_file
from s2s_search.spaces.yaml_file import parse_corpus

Rows = list[tuple[str, str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_rows(path: Path, rows: Sequence[Sequence[str]]) -> str:
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return str(path)


def rows_of(corpus: Corpus, split: Split | None) -> Rows:
    """Returns the pairs of a part as text, with one space between tokens."""
    assert split is not None
    rows = []
    for i in range(len(split)):
        source = corpus.source_vocab.decode(split.source(i))
        rows.append((" ".join(source), " ".join(corpus.target_vocab.decode(split.target(i)))))
    return rows


def problems_of(spec: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_corpus(spec)
    return list(caught.value.problems)


def made_rows(seed: int, number: int) -> Rows:
    """Returns rows of which many have the same source, once with other spaces."""
    rng = random.Random(seed)
    rows = []
    for _ in range(number):
        source = " ".join(rng.choices("abcde", k=rng.randint(1, 4)))
        if rng.random() < 0.2:
            source = f" {source}  "
        rows.append((source, " ".join(rng.choices("xyz", k=rng.randint(1, 5)))))
    return rows


def share_of(source: str) -> float:
    """Returns the place of a source in [0, 1)."""
    return crc32(" ".join(source.split()).encode()) / 2**32


@pytest.mark.parametrize("seed", range(5))
def test_a_share_is_held_out_by_the_source_alone(tmp_path: Path, seed: int) -> None:
    rows = made_rows(seed, 400)
    path = write_rows(tmp_path / "all.tsv", rows)
    dev, test = {"hold_out": 0.25}, {"hold_out": 0.125}
    corpus = load_corpus({"train": path, "dev": dev, "test": test})
    expected: dict[str, Rows] = {"train": [], "dev": [], "test": []}
    for source, target in rows:
        part = "train"
        if share_of(source) < 0.25:
            part = "dev"
        elif share_of(source) >= 0.875:
            part = "test"
        expected[part].append((" ".join(source.split()), target))
    assert all(expected.values())
    for part, wanted in expected.items():
        assert rows_of(corpus, getattr(corpus, part)) == wanted
    without_test = load_corpus({"train": path, "dev": dev})
    assert rows_of(without_test, without_test.dev) == expected["dev"]
    assert without_test.test is None


@pytest.mark.parametrize("seed", range(5))
def test_a_number_of_sources_is_held_out(tmp_path: Path, seed: int) -> None:
    rows = made_rows(seed, 400)
    path = write_rows(tmp_path / "all.tsv", rows)
    corpus = load_corpus({"train": path, "dev": {"hold_out": 7}, "test": {"hold_out": 5}})
    sources = sorted({" ".join(source.split()) for source, _ in rows}, key=share_of)
    dev, test = set(sources[:7]), set(sources[-5:])
    plain = [(" ".join(source.split()), target) for source, target in rows]
    assert rows_of(corpus, corpus.dev) == [row for row in plain if row[0] in dev]
    assert rows_of(corpus, corpus.test) == [row for row in plain if row[0] in test]
    assert rows_of(corpus, corpus.train) == [row for row in plain if row[0] not in dev | test]


def test_new_lines_move_no_source_that_a_share_has_placed(tmp_path: Path) -> None:
    rows = made_rows(1, 300)
    spec = {"dev": {"hold_out": 0.2}, "test": {"hold_out": 0.2}}
    before = load_corpus({"train": write_rows(tmp_path / "a.tsv", rows), **spec})
    more = [*made_rows(2, 500), *rows[::-1]]
    after = load_corpus({"train": write_rows(tmp_path / "b.tsv", more), **spec})
    for part in ("train", "dev", "test"):
        old = {source for source, _ in rows_of(before, getattr(before, part))}
        new = {source for source, _ in rows_of(after, getattr(after, part))}
        assert old < new


def test_the_vocabulary_is_made_from_what_stays_in_train(tmp_path: Path) -> None:
    rows = [(f"s{k}", f"t{k}") for k in range(50)]
    path = write_rows(tmp_path / "all.tsv", rows)
    corpus = load_corpus({"train": path, "dev": {"hold_out": 10}})
    dev = sorted((source for source, _ in rows), key=share_of)[:10]
    assert set(corpus.source_vocab.tokens) == {source for source, _ in rows} - set(dev)
    assert corpus.dev.source_tokens.tolist() == [corpus.source_vocab.unk] * 10
    assert {warning.file for warning in corpus.warnings} == {path}


def test_parts_can_be_held_out_from_parallel_files(tmp_path: Path) -> None:
    rows = made_rows(3, 100)
    files = [tmp_path / "a.source", tmp_path / "a.target"]
    for k, file in enumerate(files):
        file.write_text("".join(row[k] + "\n" for row in rows))
    tsv = write_rows(tmp_path / "all.tsv", rows)
    dev = {"hold_out": 0.3}
    assert (
        load_corpus({"train": files, "dev": dev}).fingerprint
        == load_corpus({"train": tsv, "dev": dev}).fingerprint
    )


def test_what_is_held_out_is_part_of_the_key_of_the_cache(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "all.tsv", made_rows(4, 100))
    sizes = [3, 4, 0.3, 3]
    lengths = [len(load_corpus({"train": path, "dev": {"hold_out": size}}).dev) for size in sizes]
    assert lengths[0] == lengths[3]
    assert len(set(lengths)) == 3


@pytest.mark.parametrize(
    "dev, problem",
    [
        ({}, "must have hold_out, as in {hold_out: 0.05}"),
        ({"holdout": 0.1}, "unknown key 'holdout'; did you mean 'hold_out'?"),
        ({"hold_out": 0}, "number of sources, but is 0"),
        ({"hold_out": 1.0}, "must be a share above 0 and below 1, or a whole number"),
        ({"hold_out": -0.1}, "but is -0.1"),
        ({"hold_out": True}, "but is True"),
        ({"hold_out": "half"}, "but is 'half'"),
        ({"hold_out": float("nan")}, "but is nan"),
        ({"hold_out": [1]}, "but is [1]"),
        ({"hold_out": 1e-9}, "hold_out: 1e-09 takes none of 3 sources"),
        ({"hold_out": 3}, "dev: {hold_out: 3} leave train none of 3 sources"),
    ],
)
def test_a_bad_hold_out(tmp_path: Path, dev: dict[str, object], problem: str) -> None:
    path = write_rows(tmp_path / "all.tsv", [("a", "x"), ("b", "y"), ("b ", "x"), ("c", "x")])
    found = problems_of({"train": path, "dev": dev})
    assert problem in found[0]


def test_a_bad_hold_out_of_a_file_has_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "all.tsv", [("a", "x"), ("b", "y")])
    space = tmp_path / "space.yaml"
    text = "corpus:\n  train: all.tsv\n  dev: {hold_out: 2.5}\n  test: {hold_out: 1, half: 2}\n"
    space.write_text("model: BasicSeq2Seq\n" + text)
    assert main(["check", str(space)]) == 2
    err = capsys.readouterr().err
    law = "must be a share above 0 and below 1, or a whole number of sources, but is 2.5"
    assert f"line 4: corpus.dev: hold_out: {law}" in err
    assert "line 5: corpus.test: unknown key 'half'; known: hold_out" in err
    space.write_text(f"model: BasicSeq2Seq\ncorpus: {{train: {path}, dev: {{hold_out: 5e-1}}}}\n")
    assert load_space(space).corpus["dev"] == {"hold_out": 0.5}


def test_train_cannot_be_held_out() -> None:
    found = problems_of({"train": {"hold_out": 0.1}, "dev": {"hold_out": 0.1}})
    assert len(found) == 1
    assert found[0].startswith("corpus.train: must be [SOURCE, TARGET] or one TSV file")


def test_an_argument_and_a_file_give_the_same_corpus(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "all.tsv", made_rows(5, 100))
    spec = {"train": path, "dev": {"hold_out": 0.2}, "test": {"hold_out": 3}}
    assert parse_corpus(yaml.safe_dump(spec)) == spec


def test_the_file_of_one_trial_holds_out_the_same_sources(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "all.tsv", made_rows(6, 100))
    spec: dict[str, object] = {"train": path, "dev": {"hold_out": 0.2}}
    hparams = resolve("BasicSeq2Seq", {})
    text = trial_file(hparams, spec, METRICS["dev.loss"], Resources())
    (tmp_path / "trial.yaml").write_text(text)
    again = load_space(tmp_path / "trial.yaml").corpus
    assert load_corpus(again).fingerprint == load_corpus(spec).fingerprint


# --- several references ---


def groups_of(corpus: Corpus, split: Split | None) -> list[Rows]:
    assert split is not None
    rows = rows_of(corpus, split)
    bounds = split.groups.tolist()
    return [rows[begin:end] for begin, end in pairwise(bounds)]


@pytest.mark.parametrize("seed", range(5))
def test_the_lines_of_one_source_are_one_group(tmp_path: Path, seed: int) -> None:
    parts = {"train": made_rows(seed, 200), "dev": made_rows(seed + 50, 60)}
    files = {part: write_rows(tmp_path / f"{part}.tsv", rows) for part, rows in parts.items()}
    corpus = load_corpus({**files, "group_by": "source"})
    alone = load_corpus(files)
    assert corpus.source_vocab == alone.source_vocab
    for part, rows in parts.items():
        expected: list[Rows] = []
        for source, target in rows:
            row = (" ".join(source.split()), target)
            for group in expected:
                if group[0][0] == row[0]:
                    group.append(row)
                    break
            else:
                expected.append([row])
        assert len(expected) < len(rows)
        known = set(corpus.target_vocab.tokens)
        assert all(token in known for _, target in rows for token in target.split())
        assert groups_of(corpus, getattr(corpus, part)) == expected
        assert len(getattr(alone, part).groups) == len(rows) + 1


def test_held_out_sources_keep_all_their_references(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "all.tsv", made_rows(8, 300))
    corpus = load_corpus({"train": path, "dev": {"hold_out": 20}, "group_by": "source"})
    assert len(corpus.dev.groups) == 21
    assert not [warning for warning in corpus.warnings if "shared" in warning.values]


def test_sources_that_are_all_different_make_the_same_corpus(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.tsv", [("a b", "x"), ("b", "y"), ("c a", "x y")])
    spec: dict[str, object] = {"train": path, "dev": path}
    grouped = load_corpus({**spec, "group_by": "source"})
    assert grouped.fingerprint == load_corpus(spec).fingerprint


def test_one_shared_source_is_warned_of_when_sources_have_references(tmp_path: Path) -> None:
    train = [(f"s{k}", "x") for k in range(1000)]
    dev = [(f"s{k % 500 + 999}", "x y") for k in range(1000)]
    files = {
        "train": write_rows(tmp_path / "train.tsv", [*train, ("all", "x y")]),
        "dev": write_rows(tmp_path / "dev.tsv", [*dev, ("s999  ", "y")]),
    }

    def shared(spec: dict[str, object]) -> list[dict[str, object]]:
        found = load_corpus(spec).warnings
        return [dict(warning.values) for warning in found if "shared" in warning.values]

    assert shared({**files}) == []
    assert shared({**files, "group_by": "source"}) == [{"shared": 1, "of": 500, "other": "train"}]


@pytest.mark.parametrize("value", ["target", "sources", 1, None, ["source"]])
def test_a_bad_group_by(tmp_path: Path, value: object) -> None:
    path = write_rows(tmp_path / "a.tsv", [("a", "x")])
    assert problems_of({"train": path, "dev": path, "group_by": value}) == [
        f"corpus.group_by: must be source, but is {value!r}"
    ]


# --- columns ---

INFLECTION = [
    ("Haus", "Hauses", "N;GEN;SG"),
    ("N", "Ns", "N;;PL"),
    ("hau ab", "haute ab", "V;PST"),
    ("SG", "SGs", ""),
]
INFLECTION_KEYS: dict[str, object] = {
    "columns": {"source": [1, 3], "target": 2},
    "source_delimiter": ["", ";"],
    "target_delimiter": "",
}


def test_a_source_of_two_columns_has_the_tokens_of_both(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.tsv", INFLECTION)
    corpus = load_corpus({"train": path, "dev": path, **INFLECTION_KEYS})
    for i, (lemma, form, features) in enumerate(INFLECTION):
        expected = list(lemma)
        for feature in features.split(";"):
            if feature:
                expected.append("\t" + feature)
        assert corpus.source_vocab.decode(corpus.train.source(i)) == expected
        assert corpus.target_vocab.decode(corpus.train.target(i)) == list(form)
    assert corpus.delimiters == (("", ";"), "")
    kept = load_corpus({"train": path, "dev": path, **INFLECTION_KEYS})
    assert (kept.delimiters, kept.fingerprint) == (corpus.delimiters, corpus.fingerprint)


@pytest.mark.parametrize("seed", range(10))
def test_tokens_of_different_columns_are_never_equal(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    delimiters = ["", ";", " ", ";"]
    rows = []
    for _ in range(50):
        rows.append(["".join(rng.choices("ab; 12", k=rng.randint(1, 5))) for _ in range(5)])
    path = write_rows(tmp_path / "a.tsv", rows)
    order = rng.sample([1, 2, 4, 5], k=4)
    corpus = load_corpus(
        {
            "train": path,
            "dev": path,
            "columns": {"source": order, "target": 3},
            "source_delimiter": delimiters,
            "target_delimiter": "",
        }
    )
    ids: dict[tuple[int, str], int] = {}  # the id of each token of each column
    for i, row in enumerate(rows):
        tokens = []
        for place, column in enumerate(order):
            cell, delimiter = row[column - 1], delimiters[place]
            pieces = list(cell) if delimiter == "" else cell.split(delimiter)
            tokens += [(place, piece) for piece in pieces if piece]
        source = corpus.train.source(i).tolist()
        assert len(source) == len(tokens)
        for token, token_id in zip(tokens, source, strict=True):
            assert ids.setdefault(token, token_id) == token_id
    assert len(set(ids.values())) == len(ids) == len(corpus.source_vocab.tokens)


def test_two_columns_of_three_are_as_a_file_of_these_two(tmp_path: Path) -> None:
    rows = [(source, target, str(k)) for k, (source, target) in enumerate(made_rows(9, 100))]
    wide = write_rows(tmp_path / "wide.tsv", rows)
    narrow = write_rows(tmp_path / "narrow.tsv", [row[:2] for row in rows])
    turned = write_rows(tmp_path / "turned.tsv", [row[1::-1] for row in rows])
    for path, columns in (
        (narrow, {"source": 1, "target": 2}),
        (narrow, {"source": [1], "target": 2}),
        (turned, {"source": 2, "target": 1}),
    ):
        plain = load_corpus({"train": path, "dev": path})
        spec: dict[str, object] = {"train": wide, "dev": wide, "columns": columns}
        assert load_corpus(spec).fingerprint == plain.fingerprint


def test_columns_go_with_held_out_sources_and_groups(tmp_path: Path) -> None:
    rows = [(lemma, form, "N;PL") for lemma, form in made_rows(10, 200)]
    path = write_rows(tmp_path / "a.tsv", [*rows, *rows])
    more: dict[str, object] = {"dev": {"hold_out": 0.2}, "group_by": "source"}
    corpus = load_corpus({"train": path, **INFLECTION_KEYS, **more, "source_delimiter": [" ", ";"]})
    sources = {" ".join(lemma.split()) for lemma, _, _ in rows}
    dev = {source for source in sources if crc32(f"{source}\tN;PL".encode()) < 0.2 * 2**32}
    assert {source for source, _ in rows_of(corpus, corpus.dev)} == {f"{s} \tN \tPL" for s in dev}
    assert len(corpus.dev.groups) == len(dev) + 1


def test_three_columns_without_the_key_are_one_sentence_that_names_it(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.tsv", INFLECTION * 3000)
    assert problems_of({"train": path, "dev": {"hold_out": 1}}) == [
        f"corpus.train: {path}: every line has 3 columns; the key columns names those to read, as "
        "in columns: {source: 1, target: 2} or {source: [1, 3], target: 2}"
    ]


def test_lines_that_lack_a_column_are_one_sentence(tmp_path: Path) -> None:
    rows: list[Sequence[str]] = [*INFLECTION * 10, ("a", "b"), ("a", "b"), ("a", "b", "c", "d")]
    path = write_rows(tmp_path / "a.tsv", rows)
    law = "must have 3 columns, as most lines have, but has"
    assert problems_of({"train": path, "dev": {"hold_out": 1}, **INFLECTION_KEYS}) == [
        f"corpus.train: {path}: lines 41, 42: {law} 2",
        f"corpus.train: {path}: line 43: {law} 4",
    ]
    narrow = write_rows(tmp_path / "b.tsv", [("a", "b")])
    assert problems_of({"train": narrow, "dev": narrow, **INFLECTION_KEYS}) == [
        f"corpus.{part}: {narrow}: columns names column 3, but every line has 2 columns"
        for part in ("train", "dev")
    ]


@pytest.mark.parametrize(
    "keys, expected",
    [
        ({"columns": 3}, ["columns: must be a mapping such as {source: [1, 3], target: 2}"]),
        (
            {"columns": {"sorce": 1, "target": 2}},
            ["columns: unknown key 'sorce'; did you mean 'source'?", "columns: source is missing"],
        ),
        (
            {"columns": {"source": 0, "target": [2]}},
            ["columns: target: must be the number of one", "columns: source: must be the number"],
        ),
        ({"columns": {"source": [], "target": 2}}, ["columns: source: must be the number"]),
        ({"columns": {"source": [1, True], "target": 2}}, ["columns: source: must be"]),
        ({"columns": {"source": [1, 2], "target": 2}}, ["columns: column 2 is named 2 times"]),
        (
            {"columns": {"source": [1, 3], "target": 2}, "source_delimiter": [" "]},
            [
                "source_delimiter: must have a delimiter for each column in columns.source, but has 1"
            ],
        ),
        ({"source_delimiter": ["", ";"]}, ["source_delimiter: must have a delimiter for each"]),
        (
            {"columns": {"source": [1, 3], "target": 2}, "source_delimiter": ["", 5]},
            ["source_delimiter: must be text within a line, or empty for characters, but is 5"],
        ),
        (
            {"columns": {"source": 1, "target": 2}, "source_delimiter": "\t"},
            ["source_delimiter: must not hold a tab, which is between the columns"],
        ),
        ({"target_delimiter": [" "]}, ["target_delimiter: must be text within a line"]),
    ],
)
def test_bad_columns(tmp_path: Path, keys: dict[str, object], expected: list[str]) -> None:
    path = write_rows(tmp_path / "a.tsv", INFLECTION)
    found = problems_of({"train": path, "dev": path, **keys})
    assert len(found) == len(expected)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(f"corpus.{start}")


def test_keys_that_do_not_go_with_columns(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.tsv", INFLECTION)
    keys: dict[str, object] = {"dev": [path, path], "source_vocab": path}
    found = problems_of({"train": path, **INFLECTION_KEYS, **keys})
    law = "must be one TSV file, because columns names the columns of sources"
    assert found[0] == f"corpus.dev: {law}"
    assert found[1].startswith("corpus.source_vocab: cannot be combined with several columns")
    assert len(found) == 2


def test_quotes_and_spaces_are_found_in_each_column(tmp_path: Path) -> None:
    rows = [("a b c d", "x", '"N;PL"'), ("d c b a", "y", '"N;SG"')]
    path = write_rows(tmp_path / "a.tsv", rows)
    found = load_corpus({"train": path, "dev": {"hold_out": 1}, **INFLECTION_KEYS}).warnings
    assert [warning.values for warning in found if "quoted" in warning.values][:1] == [
        {"quoted": 1, "of": 1}
    ]
    assert [warning.values for warning in found if "spaces" in warning.values] == [
        {"spaces": 3, "of": 7}
    ]


def test_a_model_of_columns_answers_lines_of_the_columns_of_its_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "a.tsv", INFLECTION)
    space = tmp_path / "space.yaml"
    text = "corpus:\n  train: a.tsv\n  dev: a.tsv\n  columns: {source: [1, 3], target: 2}\n"
    text += '  source_delimiter: ["", ";"]\n  target_delimiter: ""\n'
    space.write_text("model: AttentionSeq2Seq\n" + text)
    run = tmp_path / "run"
    assert main(["debug", "--space", str(space), "--steps", "1", "--out", str(run)]) == 0
    lines = tmp_path / "lines"
    lines.write_text("Haus\tN;GEN;SG\nHaus\nHaus\tN;DU\tx\n\n")
    capsys.readouterr()
    assert main(["decode", str(run), "--input", str(lines), "--unk-replace"]) == 0
    out, err = capsys.readouterr()
    assert len(out.split("\n")) == 5
    assert "\t" not in out
    assert (
        "2 columns with a tab between them (split into characters; tokens separated by ';')" in err
    )
    assert "line 2: 1 column, but a source of the corpus has 2, with a tab between them" in err
    assert "line 3: read up to its tab 2 only, since a source of the corpus has 2 columns" in err
    assert "line 3: not in the source vocabulary and read as UNK: 'DU' (token 6)" in err
    assert "fewer columns than a source: 2 of 4 lines" in err
