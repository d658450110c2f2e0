"""Text that is read and encoded in blocks, against plain loops over its lines."""

import codecs
import random
from collections import Counter
from pathlib import Path

import pytest

from s2s_search.corpus import encoding, text
from s2s_search.corpus.corpus import make_split, split_of
from s2s_search.corpus.encoding import encode_pairs
from s2s_search.corpus.text import Delimiter, canonical, read_lines, tokenize
from s2s_search.corpus.vocabulary import Vocabulary
from s2s_search.errors import ConfigError

ALPHABETS = ["ab ", "a|b|c ", "\u00e9e\u0301\U0001f600 \u2028\0x", "aaba", "\r\x0b\ufeff\u00a0 "]
DELIMITERS: list[Delimiter] = [" ", "", "|", "a", "aa", "ab", "aba", "\U0001f600", "\0", "  "]


def made_line(rng: random.Random, longest: int = 12) -> str:
    return "".join(rng.choices(rng.choice(ALPHABETS), k=rng.randint(0, longest)))


def made_lines(rng: random.Random, columns: int = 1) -> list[str]:
    lines = []
    for _ in range(rng.randint(1, 30)):
        lines.append("\t".join(made_line(rng) for _ in range(columns)))
    return lines


def made_delimiter(rng: random.Random) -> Delimiter:
    if rng.random() < 0.7:
        return rng.choice(DELIMITERS)
    return tuple(str(rng.choice(DELIMITERS)) for _ in range(rng.randint(2, 4)))


@pytest.mark.parametrize("seed", range(200))
def test_lines_are_encoded_as_by_a_plain_loop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(encoding, "LINES_AT_ONCE", rng.choice([1, 2, 7, 100]))
    monkeypatch.setattr(encoding, "IDS_AT_ONCE", rng.choice([1, 3, 50, 1000]))
    delimiter = made_delimiter(rng)
    lines = made_lines(rng, len(delimiter) if isinstance(delimiter, tuple) else 1)
    targets = [made_line(rng) for _ in lines]
    own = str(rng.choice(DELIMITERS))
    pairs = list(zip(lines, targets, strict=True))
    encoded, target = encode_pairs(pairs, (delimiter, own))
    assert pairs == []
    sequences = [tokenize(line, delimiter) for line in lines]
    counts = Counter(token for sequence in sequences for token in sequence)
    assert encoded.counts() == counts
    for i, sequence in enumerate(sequences):
        numbers = encoded.numbers[encoded.offsets[i] : encoded.offsets[i + 1]]
        assert [encoded.tokens[number] for number in numbers] == sequence
    assert encoded.offsets[-1] == len(encoded.numbers)
    vocab = Vocabulary(
        tuple(rng.sample([*sorted(counts), "never", "seen"], k=1 + len(counts) // 2))
    )
    split = split_of(encoded.ids(vocab), target.ids(vocab))
    target_sequences = [tokenize(line, own) for line in targets]
    plain = make_split(sequences, target_sequences, (vocab, vocab))
    for name, values in vars(plain).items():
        found = vars(split)[name]
        assert (found.dtype, found.tolist()) == (values.dtype, values.tolist())
        assert not found.flags.writeable


@pytest.mark.parametrize("seed", range(100))
def test_equal_texts_are_those_with_equal_tokens(seed: int) -> None:
    rng = random.Random(seed)
    delimiter = rng.choice(DELIMITERS)
    assert isinstance(delimiter, str)
    for line in made_lines(rng):
        assert canonical(line, delimiter) == delimiter.join(tokenize(line, delimiter))


def plain_lines(data: bytes) -> list[str]:
    lines = data.removeprefix(codecs.BOM_UTF8).decode().replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


@pytest.mark.parametrize("seed", range(200))
def test_a_file_is_read_in_blocks(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(text, "BLOCK", rng.choice([1, 2, 3, 10, 1000]))
    content = ""
    for _ in range(rng.randint(0, 8)):
        content += made_line(rng, 6) + rng.choice(["\n", "\r\n", "\n\n", "\r\r\n", ""])
    data = rng.choice([b"", codecs.BOM_UTF8]) + content.encode()
    path = tmp_path / "text"
    path.write_bytes(data)
    assert read_lines(path) == plain_lines(data)


@pytest.mark.parametrize("block", [1, 4, 1000])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_byte_that_is_not_utf8_has_its_line(
    tmp_path: Path, block: int, mark: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "BLOCK", block)
    path = tmp_path / "text"
    for line in range(1, 6):
        lines = [b"caf\xc3\xa9"] * 5
        lines[line - 1] = b"caf\xe9"
        path.write_bytes(mark + b"\n".join(lines))
        with pytest.raises(ConfigError) as caught:
            read_lines(path)
        assert f"{path}: line {line}: byte 0xe9 is not valid UTF-8" in caught.value.problems[0]
