"""Warnings about the text of a corpus: what is accepted, though it is probably a mistake.

A warning names a part or a key of the corpus section, and the file of one side. The paths of files
are added when a corpus is loaded (files.py), because the cache keeps a corpus by its content,
whatever its files are called.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Literal

from s2s_search.corpus.corpus import SIDES
from s2s_search.corpus.text import AS_TSV, CONVERT_CR, FROM_UTF16, Delimiter, canonical, tokenize
from s2s_search.corpus.vocabulary import SPECIALS, Vocabulary
from s2s_search.errors import InputWarning, noticed, percent, shown

Lines = Sequence[str]
Pairs = Sequence[tuple[str, str]]

# Characters that hardly any text is meant to hold: what they are, and a hint.
ODD_CHARACTERS = {
    "\ufeff": (
        "a byte order mark",
        "files that were joined keep theirs: remove U+FEFF inside the file",
    ),
    "\r": ("a carriage return that ends no line", CONVERT_CR),
    "\0": ("a null character", FROM_UTF16),
    "\ufffd": ("a replacement character (U+FFFD)", "an earlier conversion lost what stood there"),
    "\t": ("a tab inside a token", "is it TSV? name one file alone, or give {side}_delimiter"),
}
# Names of columns, in small letters.
HEADERS = (
    "source", "target", "src", "tgt", "trg", "input", "output", "text", "label", "sentence",
    "translation", "word", "words", "grapheme", "graphemes", "spelling", "phone", "phones",
    "phoneme", "phonemes", "ipa", "pronunciation", "question", "answer", "original", "corrected",
    "summary", "lemma", "form", "inflection", "features", "tags",
)  # fmt: skip
LINES_AT_ONCE = 20_000
MANY_SPACES = 0.3  # a share of all characters; in English text spaces are a fifth at most
NORMAL_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
# Changes of a text that may make its tokens known.
CHANGES: dict[str, Callable[[str], str]] = {
    "lower case": str.lower,
    "upper case": str.upper,
    "Unicode's form NFKC, with plain spaces and widths,": partial(unicodedata.normalize, "NFKC"),
}


def line_warnings(
    part: str, files: Sequence[Lines], delimiters: tuple[Delimiter, str]
) -> Iterator[InputWarning]:
    """Yields the warnings of the lines of files: those of a part, or the tokens of a vocabulary."""
    yield from odd_characters(part, files, delimiters)
    yield from equal_files(part, files)


def text_warnings(
    pairs: Mapping[str, Pairs],
    delimiters: tuple[Delimiter, str],
    is_grouped: bool,
) -> Iterator[InputWarning]:
    """Yields the warnings of a corpus that need no vocabulary.

    Args:
        pairs: the pairs of each part.
        delimiters: the delimiters between tokens of source and target text.
        is_grouped: whether the lines of one source are its references, so that no part should
            have a source of another part.
    """
    found = list(headers(pairs))
    yield from found
    pairs = without_headers(pairs, found)
    for part, rows in pairs.items():
        for k in range(2):
            yield from blank_cells(part, k, [row[k] for row in rows])
            for cells, _ in cells_of([row[k] for row in rows], delimiters[k]):
                yield from quoted_cells(part, k, cells)
    for k in range(2):
        for cells, delimiter in cells_of([row[k] for row in pairs["train"]], delimiters[k]):
            yield from spaces_as_tokens(k, cells, delimiter)
    yield from shared_sources(pairs, delimiters[0], is_grouped)


def unknown_warnings(
    pairs: Mapping[str, Pairs],
    vocabs: tuple[Vocabulary, Vocabulary],
    delimiters: tuple[Delimiter, str],
    found: Sequence[InputWarning],
) -> Iterator[InputWarning]:
    """Yields the warnings of unknown tokens.

    Args:
        pairs: the pairs of dev and test.
        vocabs: the vocabularies of sources and targets.
        delimiters: the delimiters between tokens of source and target text.
        found: the warnings of `text_warnings`.
    """
    pairs = without_headers(pairs, found)
    for k in range(2):
        for part, rows in pairs.items():
            cells = [row[k] for row in rows]
            yield from unknown_tokens(part, k, cells, vocabs[k], delimiters[k])


def without_headers(
    pairs: Mapping[str, Pairs], found: Sequence[InputWarning]
) -> Mapping[str, Pairs]:
    """Returns the pairs without the headers that were found, which would cause more warnings."""
    parts = {warning.key_path[1] for warning in found if "header" in warning.values}
    return {part: rows[1:] if part in parts else rows for part, rows in pairs.items()}


def cells_of(lines: Lines, delimiter: Delimiter) -> list[tuple[Lines, str]]:
    """Returns the texts of each column of one side with the delimiter of the column."""
    if isinstance(delimiter, str):
        return [(lines, delimiter)]
    rows = [line.split("\t") for line in lines]
    return [([row[k] for row in rows], own) for k, own in enumerate(delimiter)]


def odd_characters(
    part: str, files: Sequence[Lines], delimiters: tuple[Delimiter, str]
) -> Iterator[InputWarning]:
    """Warns of characters that hardly any text is meant to hold, by their first line."""
    for k, lines in enumerate(files):
        present = set[str]()  # a search in many lines at once is faster, and most files have none
        for begin in range(0, len(lines), LINES_AT_ONCE):
            text = "".join(lines[begin : begin + LINES_AT_ONCE])
            present.update(character for character in ODD_CHARACTERS if character in text)
        for character, (what, hint) in ODD_CHARACTERS.items():
            if character not in present:
                continue
            # A tab separates the columns of a TSV file, or the tokens.
            if character == "\t" and (len(files) == 1 or "\t" in delimiters[k]):
                continue
            found = [number for number, line in enumerate(lines, start=1) if character in line]
            sentence = f"{what}, in {len(found):,} of {len(lines):,} lines"
            values = {"lines": len(found), "of": len(lines)}
            hint = hint.format(side=SIDES[k])
            yield InputWarning(("corpus", part), sentence, values, hint, side=k, line=found[0])


def headers(pairs: Mapping[str, Pairs]) -> Iterator[InputWarning]:
    """Warns of a first row that is probably a header.

    It holds known names of columns, or it is the same in all parts while the second rows differ.
    """
    firsts = {rows[0] for rows in pairs.values()}
    seconds = [rows[1] if len(rows) > 1 else None for rows in pairs.values()]
    is_repeated = len(firsts) == 1 and len(set(seconds)) == len(seconds) > 1
    for part, rows in pairs.items():
        texts = "\t".join(rows[0]).split("\t")
        cells = [text.strip().strip('"').lower() for text in texts]
        if is_repeated or all(cell in HEADERS for cell in cells):
            source, target = map(shown, rows[0])
            sentence = f"the first example looks like a header: {source} and {target}"
            yield InputWarning(("corpus", part), sentence, {"header": list(rows[0])}, AS_TSV)


def equal_files(part: str, files: Sequence[Lines]) -> Iterator[InputWarning]:
    """Warns of equal files: one file named for both sides, or copied over the other."""
    if len(files) == 2 and files[0] == files[1]:
        sentence = f"the files of sources and targets are equal, in all {len(files[0]):,} lines"
        values = {"lines": len(files[0])}
        yield InputWarning(("corpus", part), sentence, values, "is one file named for both sides?")


def blank_cells(part: str, k: int, cells: Lines) -> Iterator[InputWarning]:
    """Warns of many empty sequences on one side."""
    blank = [cell for cell in cells if not cell.strip()]
    if noticed(len(blank), len(cells)):
        share = percent(len(blank), len(cells))
        sentence = f"{len(blank):,} of {len(cells):,} {SIDES[k]}s are blank ({share})"
        values = {"blank": len(blank), "of": len(cells)}
        hint = "each is read as an empty sequence; leave such lines out"
        yield InputWarning(("corpus", part), sentence, values, hint, side=k)


def quoted_cells(part: str, k: int, cells: Lines) -> Iterator[InputWarning]:
    """Warns of the quotes that CSV puts around a cell.

    Most cells have them, or quotes inside a quoted cell are doubled.
    """
    quoted = [cell for cell in cells if len(cell) > 1 and cell[0] == cell[-1] == '"']
    doubled = [cell for cell in quoted if '""' in cell[1:-1]]
    if doubled or (quoted and len(quoted) >= len(cells) / 2):
        example = shown((doubled or quoted)[0])
        count = f"{len(quoted):,} of {len(cells):,} {SIDES[k]}s"
        sentence = f"{count} are in quotes, which are read as text: {example}"
        values = {"quoted": len(quoted), "of": len(cells)}
        yield InputWarning(("corpus", part), sentence, values, AS_TSV, side=k)


def spaces_as_tokens(k: int, lines: Lines, delimiter: str) -> Iterator[InputWarning]:
    """Warns of text that is split into characters, although spaces seem to separate its tokens."""
    if delimiter:
        return
    characters = sum(map(len, lines))
    spaces = sum(line.count(" ") for line in lines)
    if spaces >= MANY_SPACES * characters > 0:
        key = f"{SIDES[k]}_delimiter"
        sentence = f"{percent(spaces, characters)} of the {SIDES[k]} tokens of train are spaces"
        values = {"spaces": spaces, "of": characters}
        hint = f'{key}: " " splits the text at spaces instead'
        yield InputWarning(("corpus", key), sentence, values, hint, side=k)


def unknown_tokens(
    part: str, k: int, lines: Lines, vocab: Vocabulary, delimiter: Delimiter
) -> Iterator[InputWarning]:
    """Warns of unknown tokens, with the change that would make most of them known.

    Args:
        part: the part of the corpus.
        k: the side, 0 for sources and 1 for targets.
        lines: the text of that side.
        vocab: the vocabulary of that side.
        delimiter: the delimiter between tokens.
    """
    known = set(vocab.tokens)
    unknown = Counter[str]()
    affected = list[str]()  # the lines with unknown tokens
    total = single = 0  # the number of tokens, and of lines with one token at most
    for line in lines:
        tokens = tokenize(line, delimiter)
        missing = [token for token in tokens if token not in known]
        total += len(tokens)
        single += len(tokens) <= 1
        if missing:
            unknown.update(missing)
            affected.append(line)
    count = unknown.total()

    def still_unknown(change: Callable[[str], str]) -> int:
        changed = Counter[str]()
        for line in affected:
            changed.update(tokenize(change(line), delimiter))
        return sum(number for token, number in changed.items() if token not in known)

    remedies: list[tuple[float, str]] = []  # the share that stays unknown, and what to do
    for form in NORMAL_FORMS:
        left = still_unknown(partial(unicodedata.normalize, form))
        if left < count:
            hint = f"in Unicode's normal form {form} {left:,} would be"
            remedies.append((left / total, f"{hint}; bring all files into one form"))
    if not noticed(count, total) and not remedies:
        return
    for name, change in CHANGES.items():
        left = still_unknown(change)
        if left <= count / 2:
            remedies.append((left / total, f"in {name} {left:,} would be; write all files alike"))
    if delimiter and isinstance(delimiter, str) and single >= 0.9 * len(lines):
        share = _unknown_characters(lines, vocab)
        if share <= count / total / 2:
            hint = (
                f'almost every {SIDES[k]} is one token; {SIDES[k]}_delimiter: "" reads characters'
            )
            rest = (
                f"of which {percent(share, 1)} would be unknown" if share else "all of them known"
            )
            remedies.append((share, f"{hint}, {rest}"))
    most = ", ".join(shown_token(token) for token, _ in unknown.most_common(3))
    share_unknown = percent(count, total)
    sentence = (
        f"{count:,} of {total:,} {SIDES[k]} tokens are unknown ({share_unknown}), such as {most}"
    )
    hint = min(remedies, key=itemgetter(0))[1] if remedies else ""
    named = [name for name in SPECIALS if name in unknown]
    if named and not hint:
        hint = f"text cannot hold the name of a special token: {', '.join(named)}"
    values = {"unknown": count, "of": total}
    yield InputWarning(("corpus", part), sentence, values, hint, side=k)


def _unknown_characters(lines: Lines, vocab: Vocabulary) -> float:
    """Returns the share of the characters of a text that no token of the vocabulary has."""
    letters = set("".join(vocab.tokens))
    characters = "".join(lines)
    return sum(character not in letters for character in characters) / len(characters)


def shown_token(token: str) -> str:
    """Returns a token in quotes, or the code of a combining mark, which would join the quote."""
    if len(token) == 1 and unicodedata.combining(token):
        return f"U+{ord(token):04X}"
    return shown(token)


def shared_sources(
    pairs: Mapping[str, Pairs], delimiter: Delimiter, is_grouped: bool
) -> Iterator[InputWarning]:
    """Warns of sources of dev that are also in train, and of sources of test in train or dev.

    Sources are equal when they have the same tokens. Where the lines of a source are its
    references, they count once, and a single shared source is worth a warning.
    """
    for part, other in (("dev", "train"), ("test", "train"), ("test", "dev")):
        if part not in pairs:
            continue
        sources, total = list(sources_of(pairs[part], delimiter)), len(pairs[part])
        if is_grouped:
            sources = list(dict.fromkeys(sources))
            total = len(sources)
        known = set(sources).intersection(sources_of(pairs[other], delimiter))
        shared = [source for source in sources if source in known]
        if noticed(len(shared), total) or (is_grouped and shared):
            share = percent(len(shared), total)
            sentence = f"{len(shared):,} of {total:,} sources are in {other}, too ({share})"
            sentence += f", such as {shown(shared[0])}"
            hint = f"a model can answer them from memory; leave them out of {other}"
            values = {"shared": len(shared), "of": total, "other": other}
            yield InputWarning(("corpus", part), sentence, values, hint)


def sources_of(pairs: Pairs, delimiter: Delimiter) -> Iterator[str]:
    """Yields the sources that are not blank, in a text that is equal for equal tokens."""
    for source, _ in pairs:
        if source and not source.isspace():
            yield canonical(source, delimiter)
