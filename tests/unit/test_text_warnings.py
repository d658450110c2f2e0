"""What the text of a corpus is warned of, against counts made by hand and plain loops."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from s2s_search.corpus import load
from s2s_search.corpus.load import load_corpus
from s2s_search.errors import InputWarning

WORDS = ["bonjour", "salut", "merci", "oui", "non", "chat", "chien", "niche", "lune", "soleil"]


class Files:
    """Writes TSV files of a folder, loads them as a corpus and gives its warnings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def warnings(self, train: str, dev: str, **keys: Any) -> list[InputWarning]:
        files = {"train": self.write("train.tsv", train), "dev": self.write("dev.tsv", dev)}
        return list(load_corpus(files | keys).warnings)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Files(tmp_path)


def rows(sources: list[str], target: str = "x y") -> str:
    return "".join(f"{source}\t{target}\n" for source in sources)


def test_plain_text_has_no_warnings(files: Files) -> None:
    known = [f"{a} {b}" for a in WORDS[:5] for b in WORDS[:5]]
    assert files.warnings(rows(known[1:]), rows(known[:1])) == []


@pytest.mark.parametrize("trained, other", [("NFC", "NFD"), ("NFD", "NFC")])
def test_unknown_tokens_that_another_normal_form_explains(
    files: Files, trained: Any, other: Any
) -> None:
    train = ["été", "élève", "mère", "tête"]
    dev = ["même", "tété"]
    texts = [
        unicodedata.normalize(form, rows(words)) for form, words in ((trained, train), (other, dev))
    ]
    (warning,) = files.warnings(*texts, source_delimiter="")
    letters, known = texts[1].replace("\tx y", "").replace("\n", ""), set(texts[0])
    unknown = [letter for letter in letters if letter not in known]
    assert warning.values == {"unknown": len(unknown), "of": len(letters)}
    assert (warning.key_path, warning.file) == (("corpus", "dev"), str(files.folder / "dev.tsv"))
    assert (
        warning.hint
        == f"in Unicode's normal form {trained} 0 would be; bring all files into one form"
    )


def test_one_token_in_another_normal_form_is_enough(files: Files) -> None:
    train = rows([*WORDS, "été"] * 20)
    (warning,) = [
        w
        for w in files.warnings(train, rows(["lune"] * 300 + ["e\u0301te\u0301"]))
        if "unknown" in w.values
    ]
    assert warning.values == {"unknown": 1, "of": 301}


def test_unknown_tokens_that_case_explains(files: Files) -> None:
    (warning,) = files.warnings(
        rows(["le chat dort", "un chien"]), rows(["Le Chien dort", "Un chat"])
    )
    assert warning.values == {"unknown": 3, "of": 5}
    assert warning.hint == "in lower case 0 would be; write all files alike"
    assert str(warning).startswith(
        f"corpus.dev: {files.folder / 'dev.tsv'}: 3 of 5 source tokens are unknown (60 %)"
    )


def test_a_few_unknown_tokens_are_not_worth_a_warning(files: Files) -> None:
    words = rows([f"{word} {word}" for word in WORDS])
    few = rows([" ".join(["lune chat"] * 60), "orage niche"])
    assert not files.warnings(words, few)
    (warning,) = files.warnings(words, rows(["lune chat " * 30, "orage niche"]))
    assert (warning.values, warning.hint) == ({"unknown": 1, "of": 62}, "")


def test_a_forgotten_delimiter_is_told_by_the_key_that_mends_it(files: Files) -> None:
    (warning,) = files.warnings(rows(WORDS[:7]), rows(WORDS[7:]))
    assert warning.values == {"unknown": 3, "of": 3}
    assert warning.hint == (
        'almost every source is one token; source_delimiter: "" reads characters, all of them known'
    )
    mended = files.warnings(rows(WORDS[:7]), rows(WORDS[7:]), source_delimiter="")
    assert not mended


def test_unknown_sentences_are_no_forgotten_delimiter(files: Files) -> None:
    train = rows(["le chat dort", "la lune brille", "un soleil"])
    (warning,) = files.warnings(train, rows(["des nuits claires", "mon ami"]))
    assert warning.hint == ""


def test_a_delimiter_that_splits_too_much(files: Files) -> None:
    (warning,) = files.warnings(
        "ab\tA B\nba\tB A\n" * 5, "aab\tA A B\n", source_delimiter="", target_delimiter=""
    )
    assert (warning.key_path, warning.values) == (
        ("corpus", "target_delimiter"),
        {"spaces": 10, "of": 30},
    )
    assert warning.file == str(files.folder / "train.tsv")


def test_sources_of_dev_and_test_that_are_seen_before(files: Files) -> None:
    part = files.write("test.tsv", rows(["lune", "chat", "chien"]))
    found = files.warnings(rows(["lune", "chat", "oui", "non"]), rows(["chien", "oui"]), test=part)
    shared = [
        (w.key_path[1], w.values["other"], w.values["shared"], w.values["of"])
        for w in found
        if "shared" in w.values
    ]
    assert shared == [("dev", "train", 1, 2), ("test", "train", 2, 3), ("test", "dev", 1, 3)]


def test_the_same_tokens_are_the_same_source(files: Files) -> None:
    """However many delimiters stand between and around them."""
    (warning,) = files.warnings(
        rows(["le chat", "un chien", "oui"]), rows(["le  chat", "un chien ", "oui un"])
    )
    assert warning.values == {"shared": 2, "of": 3, "other": "train"}


def test_a_header_is_said_once(files: Files) -> None:
    found = files.warnings("mot\tphones\n" + rows(WORDS), "mot\tphones\n" + rows(["niche lune"]))
    assert [(w.key_path[1], w.values) for w in found] == [
        (part, {"header": ["mot", "phones"]}) for part in ("train", "dev")
    ]


def test_blank_cells(files: Files) -> None:
    some = "".join(f"{word}\t{'' if number % 2 else 'x y'}\n" for number, word in enumerate(WORDS))
    (warning,) = files.warnings(some, rows(["lune chat"]))
    assert (warning.key_path, warning.side, warning.values) == (
        ("corpus", "train"),
        1,
        {"blank": 5, "of": 10},
    )
    one_of_many = "".join(f"lune {word}\tx y\n" for word in WORDS * 20) + "lune\t\n"
    assert not files.warnings(one_of_many, rows(["lune chat lune"]))


def test_one_file_for_both_sides(files: Files) -> None:
    both = files.write("both", "le chat\nle chien\n")
    other = [files.write("s", "chat\n"), files.write("t", "chien\n")]
    (warning,) = load_corpus({"train": [both, both], "dev": other}).warnings
    assert (warning.key_path, warning.values) == (("corpus", "train"), {"lines": 2})
    assert not files.warnings(
        "le\tle\nchat\tchat\n", "chat le\tchat le\n"
    )  # a TSV that repeats does so on purpose


@pytest.mark.parametrize("odd", ["le\u00a0chat", "ｌｅ ｃｈａｔ", "le\u3000chat"])
def test_unknown_tokens_that_wide_letters_and_spaces_explain(files: Files, odd: str) -> None:
    (warning,) = files.warnings(rows(["le chat", "un chien"]), rows([odd, "un chat"]))
    assert warning.hint.startswith("in Unicode's form NFKC")


@pytest.mark.parametrize(
    "character, word",
    [
        ("\ufeff", "byte order mark"),
        ("\r", "carriage return"),
        ("\0", "null"),
        ("\ufffd", "replacement"),
    ],
)
def test_characters_that_no_text_means(files: Files, character: str, word: str) -> None:
    text = rows(["lune chat", f"{character}chat lune", "chat oui", f"oui{character} oui"])
    found = [w for w in files.warnings(text, rows(["oui chat"])) if word in w.sentence]
    (warning,) = found
    assert (warning.key_path, warning.line) == (("corpus", "train"), 2)
    assert warning.values == {"lines": 2, "of": 4}
    assert f"{files.folder / 'train.tsv'}: line 2: " in str(warning)


def test_a_mark_inside_a_vocabulary_file(files: Files) -> None:
    vocab = files.write("v", "\ufefflune\nchat\n\ufeffoui\n")
    found = files.warnings(rows(["lune chat", "chat oui"]), rows(["lune lune"]), source_vocab=vocab)
    (warning,) = [w for w in found if "byte order mark" in w.sentence]
    assert (warning.key_path, warning.file, warning.line) == (("corpus", "source_vocab"), vocab, 3)


def test_one_mark_at_the_beginning_of_a_file_is_none_of_its_text(files: Files) -> None:
    assert not files.warnings(
        "\ufeff" + rows(["lune chat", "chat oui"]), "\ufeff" + rows(["oui lune"])
    )


def test_a_tab_in_parallel_text(files: Files) -> None:
    train = [files.write("s", "a\tx\nb\tc\n"), files.write("t", "x\ny\n")]
    found = load_corpus({"train": train, "dev": train}).warnings
    assert [w.values for w in found if "tab" in w.sentence] == [{"lines": 2, "of": 2}] * 2
    assert not [
        w
        for w in load_corpus({"train": train, "dev": train, "source_delimiter": "\t"}).warnings
        if "tab" in w.sentence
    ]


def test_files_of_carriage_returns_alone(files: Files) -> None:
    part = [files.write("s", "a b\rb a\rb b\r"), files.write("t", "x\ry\rx\r")]
    found = load_corpus({"train": part, "dev": part}).warnings
    returns = [(w.key_path[1], w.file, w.hint) for w in found if "carriage" in w.sentence]
    hint = "lines must end in LF or CRLF; tr '\\r' '\\n' converts lines that end in CR alone"
    assert returns == [(name, file, hint) for name in ("train", "dev") for file in part]


def test_the_header_and_quotes_of_a_pandas_table(files: Files) -> None:
    found = files.warnings('source\ttarget\nba\tB A\n"sa ""x"""\t"S A"\n', rows(["ba"], "B A"))
    assert [w.values for w in found if "header" in w.values] == [{"header": ["source", "target"]}]
    assert [(w.side, w.values) for w in found if "quoted" in w.values] == [
        (k, {"quoted": 1, "of": 2}) for k in (0, 1)
    ]
    assert all("to_csv" in w.hint for w in found if "header" in w.values or "quoted" in w.values)


def test_a_header_of_any_language_is_the_same_row_in_all_files(files: Files) -> None:
    found = files.warnings("mot\tphones\n" + rows(WORDS[:5]), "mot\tphones\n" + rows(WORDS[5:]))
    assert [w.key_path[1] for w in found if "header" in w.values] == ["train", "dev"]
    same = files.warnings(rows(WORDS), rows(WORDS))
    assert not [w for w in same if "header" in w.values]


def test_a_few_lines_in_quotes_are_literature(files: Files) -> None:
    talk = rows(['"oui" dit "non"', "le chat", "la lune", "un chien", "oui"])
    assert not [w for w in files.warnings(talk, rows(["oui oui"])) if "quoted" in w.values]


def test_what_is_kept_has_the_same_warnings_with_the_files_of_today(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = files.warnings(rows(WORDS[:7]), rows([*WORDS[7:], "\ufeff"]))
    assert first
    monkeypatch.setattr(load, "load_files", lambda *_: pytest.fail("encodes again"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    second = Files(elsewhere).warnings(rows(WORDS[:7]), rows([*WORDS[7:], "\ufeff"]))
    assert {w.file for w in second} == {str(elsewhere / "dev.tsv")}
    assert [w.row() | {"file": None} for w in second] == [w.row() | {"file": None} for w in first]
    json.dumps([w.row() for w in second])
