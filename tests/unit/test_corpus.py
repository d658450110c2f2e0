import gzip
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import yaml

from s2s_search.corpus import cache, corpus, files, load
from s2s_search.corpus.corpus import Corpus, Split
from s2s_search.corpus.load import check_corpus, load_corpus
from s2s_search.corpus.text import tokenize
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError

TOY = {"train": 30, "dev": 10, "test": 5}


def problems_of(spec: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_corpus(spec)
    return list(caught.value.problems)


def pairs(corpus: Corpus, split: Split) -> list[tuple[list[str], list[str]]]:
    vocabs = corpus.source_vocab, corpus.target_vocab
    return [
        (vocabs[0].decode(split.source(i)), vocabs[1].decode(split.target(i)))
        for i in range(len(split))
    ]


class Folder:
    """Writes files and names their paths."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, name: str, content: str | bytes) -> str:
        data = content.encode() if isinstance(content, str) else content
        (self.path / name).write_bytes(data)
        return str(self.path / name)


@pytest.fixture
def write(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def good(write: Folder) -> list[str]:
    return [write("good.source", "a b\nb c\n"), write("good.target", "x\ny x\n")]


@pytest.fixture(scope="module")
def cmudict() -> Corpus:
    return load_corpus({"name": "cmudict"})


def test_vocabulary_numbers_special_tokens_after_its_own() -> None:
    vocab = Vocabulary(("a", "b"))
    assert (len(vocab), vocab.unk, vocab.start, vocab.end) == (5, 2, 3, 4)
    assert vocab.encode(["b", "?", "a", "SEQUENCE_END"]) == [1, 2, 0, 2]
    assert vocab.decode([3, 1, 2, 0, 4, 1]) == ["SEQUENCE_START", "b", "UNK", "a"]
    assert vocab == pickle.loads(pickle.dumps(vocab))


def test_vocabulary_names_every_bad_token() -> None:
    with pytest.raises(ConfigError) as caught:
        Vocabulary(("a", "", "b", "a", "UNK", "a"))
    assert caught.value.problems == (
        "line 2: blank token",
        "line 4: 'a' is in line 1 already",
        "line 5: UNK is a special token; the special tokens are added automatically",
        "line 6: 'a' is in line 1 already",
    )


def test_built_vocabulary_ranks_by_frequency_then_alphabet() -> None:
    counts = {"c": 1, "b": 1, "z": 7, "UNK": 9}
    assert Vocabulary.from_counts(counts).tokens == ("z", "b", "c")
    assert Vocabulary.from_counts(counts, maximum=2).tokens == ("z", "b")


@pytest.mark.parametrize(
    "content",
    [
        "é\nb\n",
        "\ufeffé\r\nb\r\n",
        "é\nb",
        "é\t7\nb\t3\n",
        "é\nb\t3\n",
        "é\t7\nb",
        "é\t0\nb\t-3.25\n",
        "é\t1e3\nb\t+2.",
    ],
)
def test_vocabulary_file_is_a_token_a_line(write: Folder, content: str) -> None:
    assert Vocabulary.load(write("vocab", content)).tokens == ("é", "b")


def test_vocabulary_file_must_hold_tokens_that_the_delimiter_leaves_whole(write: Folder) -> None:
    path = write("vocab", "a\nb c\n \n\na\n")
    with pytest.raises(ConfigError) as caught:
        Vocabulary.load(path)
    assert caught.value.problems == (
        f"{path}: line 2: 'b c' would never be a token of text split at ' '",
        f"{path}: line 3: ' ' would never be a token of text split at ' '",
        f"{path}: line 4: blank token",
        f"{path}: line 5: 'a' is in line 1 already",
    )
    assert Vocabulary.load(write("letters", "a\n \n"), delimiter="").tokens == ("a", " ")
    with pytest.raises(
        ConfigError, match="line 1: 'ab' would never be a token of text split into characters"
    ):
        Vocabulary.load(write("words", "ab\n"), delimiter="")


def test_a_vocabulary_with_counts_below_a_head_without_gives_the_text_its_tokens(
    write: Folder,
) -> None:
    vocab = write("v", "<unk>\n<s>\n</s>\na\t120\nb\t80\nc\t7\n")
    part = [write("s", "a b <unk>\nc d a\n"), write("t", "x\ny\n")]
    corpus = load_corpus({"train": part, "dev": part, "source_vocab": vocab})
    assert corpus.source_vocab.tokens == ("<unk>", "<s>", "</s>", "a", "b", "c")
    assert pairs(corpus, corpus.train) == [(["a", "b", "<unk>"], ["x"]), (["c", "UNK", "a"], ["y"])]


def test_a_tab_without_a_count_in_a_vocabulary_is_refused_with_its_line(write: Folder) -> None:
    path = write("v", "a\t120\nb\tmany\nc\t\nd\te\t5\n\t9\n")
    law = "must be a token, or a token, a tab and a count, but is"
    with pytest.raises(ConfigError) as caught:
        Vocabulary.load(path)
    assert caught.value.problems == (
        f"{path}: line 2: {law} 'b\\tmany'",
        f"{path}: line 3: {law} 'c\\t'",
        f"{path}: line 4: {law} 'd\\te\\t5'",
        f"{path}: line 5: blank token",
    )
    assert Vocabulary.load(write("letters", "a\n\t\n"), delimiter="").tokens == ("a", "\t")
    assert Vocabulary.load(write("counted", "a\t4\n\t\t2\n"), delimiter="").tokens == ("a", "\t")


def test_ten_thousand_equal_problems_are_one_sentence(write: Folder) -> None:
    path = write("vocab", "a\n" * 10_000)
    with pytest.raises(ConfigError) as caught:
        Vocabulary.load(path)
    assert caught.value.problems == (
        f"{path}: lines 2, 3, 4, 5, 6 and 9,994 more: 'a' is in line 1 already",
    )
    spaces = write("spaces", "a b\n" * 3 + "".join(f"c {k}\n" for k in range(1000)))
    with pytest.raises(ConfigError) as caught:
        Vocabulary.load(spaces)
    assert (
        caught.value.problems[0]
        == f"{spaces}: lines 1, 2, 3: 'a b' would never be a token of text split at ' '"
    )
    problem = "'c 0' would never be a token of text split at ' '; a count follows a tab"
    assert caught.value.problems[1] == f"{spaces}: line 4: {problem}"
    assert len(caught.value.problems) == 6
    assert caught.value.problems[5] == f"{spaces}: ... and 998 more lines like these"


@pytest.mark.parametrize(
    "content, count, hint",
    [
        ("bade,B A D E\nsa,S A\n" * 5000, 0, "; is it CSV? pandas writes plain TSV with "),
        ("bade;B A D E\nsa;S A\n" * 5000, 0, "; is it CSV? pandas writes plain TSV with "),
        ("bade B\nsa, S\n" * 5000, 0, ""),
    ],
)
def test_a_file_without_its_tabs_is_one_sentence(
    write: Folder, content: str, count: int, hint: str
) -> None:
    path = write("bad.tsv", content)
    problems = problems_of({"train": path, "dev": path})
    assert [problem.partition(":")[0] for problem in problems] == ["corpus.train", "corpus.dev"]
    law = "must be a source, one tab and a target, but the tabs number"
    start = f"corpus.train: {path}: lines 1, 2, 3, 4, 5 and 9,995 more: {law} {count}{hint}"
    assert problems[0].startswith(start)
    assert hint or problems[0] == start


def test_two_tsv_files_are_no_source_and_target(write: Folder, good: list[str]) -> None:
    shards = [write("a.tsv", "ab\tA B\n\ncd\tC D\n"), write("b.tsv", "ef\tE F\n")]
    (problem,) = problems_of({"train": shards, "dev": good})
    law = (
        "a list is [SOURCE, TARGET], but every line of both files is a source, one tab and a target"
    )
    end = (
        f"{shards[0]} and {shards[1]}; join them into one TSV file, as cat does, and name that file"
    )
    assert problem == f"corpus.train: {law}: {end}"
    for part in ("dev", "test"):
        (problem,) = problems_of({"train": good, "dev": good, part: shards})
        assert problem == f"corpus.{part}: {law}: {end}"
    whole = write("all.tsv", Path(shards[0]).read_text() + Path(shards[1]).read_text())
    assert len(load_corpus({"train": whole, "dev": whole}).train) == 3
    two_fields = [write("s", "a\tb\nc\td\n"), write("t", "x\ty\nz\tx\n")]
    corpus = load_corpus(
        {"train": two_fields, "dev": two_fields, "source_delimiter": "\t", "target_delimiter": "\t"}
    )
    assert pairs(corpus, corpus.train)[0] == (["a", "b"], ["x", "y"])
    mixed = [two_fields[0], write("plain", "x\nz\n")]
    assert len(load_corpus({"train": mixed, "dev": mixed}).train) == 2


@pytest.mark.parametrize(
    "line, delimiter, tokens",
    [
        ("a  b ", " ", ["a", "b"]),
        ("a b", "", ["a", " ", "b"]),
        ("a|b c|", "|", ["a", "b c"]),
        ("a\u2028b\u00a0c", " ", ["a\u2028b\u00a0c"]),
        ("", " ", []),
        ("", "", []),
    ],
)
def test_tokenize(line: str, delimiter: str, tokens: list[str]) -> None:
    assert tokenize(line, delimiter) == tokens


def test_cmudict_has_the_sizes_of_its_split(cmudict: Corpus) -> None:
    assert cmudict.source_vocab.tokens == ("'", *"abcdefghijklmnopqrstuvwxyz")
    assert len(cmudict.target_vocab.tokens) == 39
    assert cmudict.delimiters == ("", " ")
    assert cmudict.test is not None
    words = [len(split.groups) - 1 for split in (cmudict.train, cmudict.dev, cmudict.test)]
    assert words == [106_345, 6_176, 12_405]  # cmudict 1.1.3; a later dictionary only adds


def test_cmudict_groups_the_different_pronunciations_of_a_word(cmudict: Corpus) -> None:
    words: dict[str, list[str]] = {}
    for number, split in ((0, cmudict.dev), (1, cmudict.test), (3, cmudict.train)):
        assert split is not None
        for begin, end in zip(split.groups[:-1], split.groups[1:], strict=True):
            sources = {
                "".join(cmudict.source_vocab.decode(split.source(i))) for i in range(begin, end)
            }
            (word,) = sources
            assert word not in words
            assert (0, 1, 1, *[3] * 17)[crc32(word.encode()) % 20] == number
            words[word] = [
                " ".join(cmudict.target_vocab.decode(split.target(i))) for i in range(begin, end)
            ]
    assert words["read"] == ["R EH D", "R IY D"]
    assert words["aalborg"] == ["AO L B AO R G", "AA L B AO R G"]
    assert words["o'clock"] == ["AH K L AA K"]
    assert all(len(set(pronunciations)) == len(pronunciations) for pronunciations in words.values())


def test_cmudict_lies_in_arrays_that_processes_share(cmudict: Corpus) -> None:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(cmudict, protocol=5, buffer_callback=buffers.append)
    assert len(head) < 10_000
    again = pickle.loads(head, buffers=buffers)
    assert np.shares_memory(again.train.source_tokens, cmudict.train.source_tokens)
    assert (again.source_vocab, again.fingerprint) == (cmudict.source_vocab, cmudict.fingerprint)
    assert cmudict.train.source_tokens.dtype == np.int32
    assert cmudict.train.source_offsets.dtype == cmudict.train.groups.dtype == np.int64
    assert not cmudict.train.source_tokens.flags.writeable


def test_importing_and_checking_load_neither_the_wrapper_nor_numpy() -> None:
    program = """
        import sys
        from s2s_search.corpus import check_corpus, load_corpus
        assert not check_corpus({"name": "cmudict"})
        assert not {"numpy", "torch", "ray", "pandas"} & sys.modules.keys()
        load_corpus({"name": "cmudict"})
        assert not {"cmudict", "torch", "ray", "pandas"} & sys.modules.keys()
    """
    lines = "\n".join(line.strip() for line in program.splitlines())
    subprocess.run([sys.executable, "-c", lines], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("name", ["copy", "reverse"])
def test_toy_tasks(name: str) -> None:
    corpus = load_corpus({"name": name, **TOY, "vocabulary": 4, "min_length": 2, "max_length": 6})
    assert corpus.test is not None
    assert [len(split) for split in (corpus.train, corpus.dev, corpus.test)] == [30, 10, 5]
    examples = pairs(corpus, corpus.train)
    assert {len(source) for source, _ in examples} == {2, 3, 4, 5, 6}
    assert {token for source, _ in examples for token in source} == set("0123")
    assert all(
        target == (source if name == "copy" else source[::-1]) for source, target in examples
    )


def test_toy_tasks_are_made_from_the_seed() -> None:
    def fingerprint(**keys: int) -> str:
        return load_corpus({"name": "copy", **TOY, **keys}).fingerprint

    assert fingerprint() == fingerprint() == fingerprint(seed=0)
    assert len({fingerprint(), fingerprint(seed=1), fingerprint(train=31)}) == 3
    larger = load_corpus({"name": "copy", **TOY, "train": 300})
    smaller = load_corpus({"name": "copy", **TOY})
    assert pairs(larger, larger.dev) == pairs(smaller, smaller.dev)
    even = load_corpus({"name": "copy", "train": 30, "dev": 30, "test": 30})
    assert even.test is not None
    assert not {tuple(source) for source, _ in pairs(even, even.dev)} & {
        tuple(source) for source, _ in pairs(even, even.test)
    }


def test_parallel_files(write: Folder, good: list[str]) -> None:
    corpus = load_corpus(
        {"train": good, "dev": [write("dev.source", "c ?\n"), write("dev.target", "y\n")]}
    )
    assert corpus.name == "good"
    assert corpus.source_vocab.tokens == ("b", "a", "c")
    assert corpus.target_vocab.tokens == ("x", "y")
    assert pairs(corpus, corpus.train) == [(["a", "b"], ["x"]), (["b", "c"], ["y", "x"])]
    assert pairs(corpus, corpus.dev) == [(["c", "UNK"], ["y"])]
    assert corpus.train.groups.tolist() == [0, 1, 2]
    assert corpus.test is None


def test_forms_of_the_same_text_are_the_same_corpus(write: Folder, good: list[str]) -> None:
    vocabs = {
        "source_vocab": write("s.vocab", "b\na\nc\n"),
        "target_vocab": write("t.vocab", "x\ny\n"),
    }
    dos = [write("dos.source", "\ufeffa b\r\nb c\r\n\r\n"), write("dos.target", "\ufeffx\r\ny x")]
    middle = [write("gap.source", "a  b \n\nb c"), write("gap.target", "x\n \ny x\n\n\n")]
    tsv = write("good.tsv", "a b\tx\n\nb c\ty x\n\t\n")
    forms = [
        {"train": part, "dev": part, **extra}
        for part in (good, dos, middle, tsv)
        for extra in ({}, vocabs)
    ]
    assert len({load_corpus(form).fingerprint for form in forms}) == 1
    assert load_corpus({"train": tuple(map(Path, good)), "dev": Path(tsv)}).delimiters == (" ", " ")


def test_delimiters(write: Folder) -> None:
    part = write("g2p.tsv", "ab c\tEY|B IY|K\n")
    corpus = load_corpus(
        {"train": part, "dev": part, "source_delimiter": "", "target_delimiter": "|"}
    )
    assert pairs(corpus, corpus.train) == [(["a", "b", " ", "c"], ["EY", "B IY", "K"])]
    assert corpus.delimiters == ("", "|")


def test_max_vocab_keeps_the_most_frequent_tokens(good: list[str]) -> None:
    corpus = load_corpus({"train": good, "dev": good, "source_max_vocab": 1})
    assert corpus.source_vocab.tokens == ("b",)
    assert pairs(corpus, corpus.train)[0] == (["UNK", "b"], ["x"])


def test_a_line_that_is_blank_on_one_side_is_an_empty_sequence(write: Folder) -> None:
    part = write("deletions.tsv", "a\t\n\tx\n")
    corpus = load_corpus({"train": part, "dev": part})
    assert pairs(corpus, corpus.train) == [(["a"], []), ([], ["x"])]


def test_line_ends_are_only_line_feeds(write: Folder) -> None:
    part = [write("u.source", "a\u2028b\x0bc\x85d\rf\n"), write("u.target", "x\n")]
    assert len(load_corpus({"train": part, "dev": part}).train) == 1


def test_fingerprint_sees_tokens_order_and_delimiters(write: Folder, good: list[str]) -> None:
    swapped = [write("2.source", "b c\na b\n"), write("2.target", "y x\nx\n")]
    specs: list[dict[str, object]] = [
        {"train": good, "dev": good},
        {"train": good, "dev": swapped},
        {"train": swapped, "dev": good},
        {"train": good, "dev": good, "test": good},
        {"train": good, "dev": good, "source_delimiter": ""},
        {"train": good, "dev": good, "target_vocab": write("v", "x\ny\nz\n")},
    ]
    assert len({load_corpus(spec).fingerprint for spec in specs}) == len(specs)


@pytest.mark.parametrize(
    "content, hint",
    [
        ("bébé\tB\n".encode("utf-16"), "is it UTF-16?"),
        ("bébé\tB\n".encode("utf-16-le"), "is it UTF-16?"),
        ("ba\tB\n".encode("utf-16-le"), "is it UTF-16?"),
        ("bébé\tB\n".encode("latin-1"), "is it Windows-1252?"),
        (gzip.compress(b"ba\tB\n", mtime=0), "is it compressed?"),
    ],
)
def test_another_encoding_is_guessed(
    write: Folder, good: list[str], content: bytes, hint: str
) -> None:
    (problem,) = problems_of({"train": write("train.tsv", content), "dev": good})
    assert hint in problem


def test_a_count_behind_a_space_is_told_of_the_tab(write: Folder, good: list[str]) -> None:
    vocab = write("v", "a 120\nb\nc d\n")
    path = f"corpus.source_vocab: {vocab}"
    assert problems_of({"train": good, "dev": good, "source_vocab": vocab}) == [
        f"{path}: line 1: 'a 120' would never be a token of text split at ' '; a count follows a "
        "tab",
        f"{path}: line 3: 'c d' would never be a token of text split at ' '",
    ]


def test_all_problems_of_all_files_at_once(write: Folder, good: list[str]) -> None:
    latin, short = (
        write("latin.source", b"\xef\xbb\xbfa\ncaf\xe9\n\xff"),
        write("short.target", "x\n"),
    )
    tsv, vocab = write("bad.tsv", "a\tx\na x\na\tx\ty\n"), write("v", "x\nx\n")
    assert problems_of(
        {"train": [latin, short], "dev": [good[0], short], "test": tsv, "target_vocab": vocab}
    ) == [
        f"corpus.train: {latin}: line 2: byte 0xe9 is not valid UTF-8; "
        "is it Windows-1252? iconv -f WINDOWS-1252 -t UTF-8 converts it",
        f"corpus.dev: both sides must have the same number of lines, but {good[0]} has 2 and "
        f"{short} has 1",
        f"corpus.test: {tsv}: line 2: must be a source, one tab and a target, but the tabs number "
        "0",
        f"corpus.test: {tsv}: line 3: must be a source, one tab and a target, but the tabs number "
        "2; "
        "the key columns names those to read, as in columns: {source: 1, target: 2} or "
        "{source: [1, 3], target: 2}",
        f"corpus.target_vocab: {vocab}: line 2: 'x' is in line 1 already",
    ]


def test_empty_corpora(write: Folder, good: list[str]) -> None:
    empty, blank, one_sided = (
        write("empty", ""),
        write("blank", "\n \n\n"),
        write("one.tsv", "a\t\n"),
    )
    assert problems_of({"train": [empty, blank], "dev": empty}) == [
        f"corpus.train: {empty}: holds no examples",
        f"corpus.dev: {empty}: holds no examples",
    ]
    assert problems_of({"train": one_sided, "dev": good}) == [
        f"corpus.train: {one_sided}: every target is blank, in all 1 examples"
    ]
    vocab = write("v", "x\n")
    assert problems_of(
        {"train": [good[0], write("b", "\n \n")], "dev": one_sided, "target_vocab": vocab}
    ) == [
        f"corpus.train: {write.path / 'b'}: every target is blank, in all 2 examples",
        f"corpus.dev: {one_sided}: every target is blank, in all 1 examples",
    ]
    assert problems_of({"train": [write("b", "\n \n"), good[1]], "dev": good}) == [
        f"corpus.train: {write.path / 'b'}: every source is blank, in all 2 examples"
    ]
    special = write("special.tsv", "a\tUNK\nb\tUNK\n")
    assert problems_of({"train": special, "dev": good}) == [
        f"corpus.target_vocab: {special}: train has no target token but UNK, the name of a "
        "special token"
    ]
    assert problems_of({"train": good, "dev": good, "source_vocab": empty}) == [
        f"corpus.source_vocab: {empty}: there is no token"
    ]


def test_vocabulary_of_another_text_is_noticed(write: Folder, good: list[str]) -> None:
    vocab = write("v", "alpha\nbeta\n")
    (problem,) = problems_of({"train": good, "dev": good, "source_vocab": vocab})
    assert problem.startswith(f"corpus.source_vocab: {vocab}: holds no token of train")


def test_error_says_where(good: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_corpus({"train": good})
    assert (
        str(caught.value)
        == "corpus.dev: is missing; give train: and dev:, or name: cmudict | copy | reverse; "
        "dev: {hold_out: 0.05} takes a share of the sources of train"
    )


@pytest.mark.parametrize(
    "spec, expected",
    [
        (None, [("", "must be a mapping")]),
        ([], [("", "must be a mapping")]),
        ({}, [("train", "is missing"), ("dev", "is missing")]),
        ({"name": "cmudct"}, [("name", "unknown corpus 'cmudct'; did you mean 'cmudict'?")]),
        ({"name": ["copy"]}, [("name", "unknown corpus ['copy']")]),
        ({"name": None}, [("name", "unknown corpus None")]),
        ({"name": "cmudict", "train": 5, 3: 4}, [("train", "unknown key"), ("3", "unknown key")]),
        (
            {"name": "copy", "min_lenght": 5},
            [("min_lenght", "unknown key; did you mean 'min_length'?")],
        ),
        (
            {"name": "copy", "train": 0, "seed": -1},
            [("seed", "at least 0"), ("train", "at least 1, but is 0")],
        ),
        (
            {"name": "copy", "dev": True, "test": 2.5},
            [("dev", "but is True"), ("test", "but is 2.5")],
        ),
        (
            {"name": "copy", "train": 99_999_999_999},
            [("", "must not be above 100,000,000 numbers, but are 4,0")],
        ),
        (
            {"name": "copy", "min_length": 41},
            [("min_length", "min_length = 41 and max_length = 40")],
        ),
        ({"train": 5, "dev": ["a"]}, [("train", "but is 5"), ("dev", "but is ['a']")]),
        ({"train": ["a", ""], "dev": None}, [("train", "['a', '']"), ("dev", "but is None")]),
        (
            {"train": "/no/a.tsv", "dev": "/"},
            [("train", "/no/a.tsv: cannot be read"), ("dev", "/: cannot be read")],
        ),
        ({"train": "a\0b", "dev": "/"}, [("train", "null byte"), ("dev", "directory")]),
    ],
)
def test_check_corpus(spec: object, expected: list[tuple[str, str]]) -> None:
    found = check_corpus(spec)
    assert [key for key, _ in found] == [key for key, _ in expected]
    assert all(text in problem for (_, problem), (_, text) in zip(found, expected, strict=True))


def test_check_corpus_of_files_finds_all(good: list[str]) -> None:
    spec = {
        "train": [good[0], "/no"],
        "dev": "/no",
        "tset": good,
        "source_vocab": good,
        "source_max_vocab": 0,
    }
    found = check_corpus(
        {**spec, "target_vocab": "/no", "source_delimiter": "\n", "target_delimiter": None}
    )
    assert [key for key, _ in found] == [
        *(
            "tset",
            "train",
            "dev",
            "source_vocab",
            "source_max_vocab",
            "source_max_vocab",
            "source_delimiter",
        ),
        *("target_vocab", "target_delimiter"),
    ]
    assert found[0][1] == "unknown key; did you mean 'test'?"
    assert check_corpus({"train": good, "dev": good}) == []


def test_check_corpus_reads_no_corpus(write: Folder) -> None:
    bad = write("bad.tsv", b"\xff\n")
    assert check_corpus({"train": bad, "dev": bad}) == []


def test_examples_of_the_documentation_are_specifications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "corpora.md").read_text()
    specs = [
        yaml.safe_load(block)["corpus"]
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    ]
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"\w+\.(?:source|target|vocab|tsv)\b", text):
        (tmp_path / name).touch()
    assert len(specs) == 7
    assert [check_corpus(spec) for spec in specs] == [[]] * 7
    assert load_corpus(specs[2]).fingerprint == load_corpus({"name": "reverse"}).fingerprint


# --- kept between runs ---


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is kept, of one test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache.cache_folder()


def same(one: Corpus, other: Corpus) -> bool:
    """Whether two corpora are equal in all but their names."""

    def content(found: Corpus) -> dict[str, object]:
        splits = {
            part: {
                name: (values.tolist(), values.dtype, values.flags.writeable)
                for name, values in vars(split).items()
            }
            for part in ("train", "dev", "test")
            if (split := getattr(found, part)) is not None
        }
        return {**vars(found), "train": None, "dev": None, "test": None, **splits, "name": None}

    return content(one) == content(other)


def forbid_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_encode", lambda *_: pytest.fail("encodes again"))
    monkeypatch.setattr(files, "encode_pairs", lambda *_: pytest.fail("encodes again"))


def test_cmudict_is_encoded_once(cmudict: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_encoding(monkeypatch)
    assert same(load_corpus({"name": "cmudict"}), cmudict)


def test_the_same_files_are_encoded_once_wherever_they_are(
    write: Folder, good: list[str], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocab = write("v", "x\nz\n\u2028\n")
    spec = {"train": good, "dev": good, "test": good, "target_vocab": vocab, "source_max_vocab": 2}
    first = load_corpus(spec)
    forbid_encoding(monkeypatch)
    assert same(load_corpus(spec), first)
    elsewhere = [
        write("other.source", Path(good[0]).read_bytes()),
        write("other.target", Path(good[1]).read_bytes()),
    ]
    moved = load_corpus({**spec, "train": elsewhere})
    assert same(moved, first)
    assert (first.name, moved.name) == ("good", "other")


def test_other_text_of_the_same_size_and_age_is_encoded(
    write: Folder, good: list[str], kept: Path
) -> None:
    first, times = load_corpus({"train": good, "dev": good}), Path(good[0]).stat()
    write("good.source", "a b\nb d\n")
    os.utime(good[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    second = load_corpus({"train": good, "dev": good})
    assert first.source_vocab.tokens == ("b", "a", "c")
    assert second.source_vocab.tokens == ("b", "a", "d")


def test_specifications_of_the_same_files_are_told_apart(
    write: Folder, good: list[str], kept: Path
) -> None:
    vocab, tsv = write("v", "a\n"), write("good.tsv", "x\ty\n")
    specs: list[dict[str, object]] = [
        {"train": good, "dev": good},
        {"train": good, "dev": good, "test": good},
        {"train": good, "dev": tsv},
        {"train": tsv, "dev": good},
        {"train": good[::-1], "dev": good[::-1]},
        {"train": good, "dev": good, "source_delimiter": ""},
        {"train": good, "dev": good, "target_delimiter": ""},
        {"train": good, "dev": good, "source_max_vocab": 1},
        {"train": good, "dev": good, "target_max_vocab": 1},
        {"train": good, "dev": good, "source_vocab": vocab},
    ]
    encoded = [load_corpus(spec) for spec in specs]
    assert len(list(kept.iterdir())) == len(specs)
    for spec, first in zip(specs, encoded, strict=True):
        assert same(load_corpus(spec), first)
    assert sum(same(one, other) for one in encoded for other in encoded) == len(specs)


def test_another_format_is_encoded_again(
    good: list[str], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_corpus({"train": good, "dev": good})
    monkeypatch.setattr(load, "FORMAT", 0)
    load_corpus({"train": good, "dev": good})
    assert len(list(kept.iterdir())) == 2


def test_a_damaged_or_unwritable_cache_changes_nothing(
    good: list[str], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"train": good, "dev": good}
    first = load_corpus(spec)
    (entry,) = kept.iterdir()
    whole = entry.read_bytes()
    for damaged in (b"", b"{}", whole[:-1], whole[:40] + b"?" + whole[41:]):
        entry.write_bytes(damaged)
        assert same(load_corpus(spec), first)
        assert entry.read_bytes() == whole
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert same(load_corpus(spec), first)


def test_only_good_files_are_kept(write: Folder, good: list[str], kept: Path) -> None:
    short = write("short.target", "x\n")
    for _ in range(2):
        assert len(problems_of({"train": good, "dev": [good[0], short]})) == 1
    assert not kept.exists()


def test_toy_tasks_are_not_kept(kept: Path) -> None:
    load_corpus({"name": "copy", **TOY})
    assert not kept.exists()


def test_files_that_change_while_they_are_read_are_not_kept(
    write: Folder, good: list[str], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_files = files.load_files

    def load_and_write(spec: dict[str, object], name: str) -> Corpus:
        write("good.source", "b\nb\n")
        return load_files(spec, name)

    monkeypatch.setattr(load, "load_files", load_and_write)
    load_corpus({"train": good, "dev": good})
    assert not kept.exists()


def test_a_pipe_is_read_once(good: list[str], kept: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a b\tx\n")
    os.close(writing)
    assert len(load_corpus({"train": f"/dev/fd/{reading}", "dev": good}).train) == 1
    os.close(reading)
    assert not kept.exists()


def test_two_processes_that_start_together(good: list[str], kept: Path) -> None:
    spec: dict[str, object] = {"train": good, "dev": good}
    program = f"from s2s_search.corpus import load_corpus; print(load_corpus({spec}).fingerprint)"
    command, root = [sys.executable, "-c", program], Path(__file__).parents[2]
    running = [
        subprocess.Popen(command, cwd=root, text=True, stdout=subprocess.PIPE) for _ in range(2)
    ]
    assert {process.communicate()[0].strip() for process in running} == {
        load_corpus(spec).fingerprint
    }
    assert len(list(kept.iterdir())) == 1
