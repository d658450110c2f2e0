"""What the text of a corpus is warned of: accepted, though hardly anyone wants it.

A warning names a part or a key of the corpus section and the file of one side. The files' paths are added when a corpus
is loaded (corpus.py), because an encoded corpus is kept by its content.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Literal

from s2s_search.corpus.text import AS_TSV, CONVERT_CR, FROM_UTF16, tokenize
from s2s_search.corpus.vocabulary import SPECIALS, Vocabulary
from s2s_search.errors import InputWarning, noticed, percent, shown

Lines = Sequence[str]
Pairs = Sequence[tuple[str, str]]

SIDES = ("source", "target")
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
HEADERS = (
    *(
        "source",
        "target",
        "src",
        "tgt",
        "trg",
        "input",
        "output",
        "text",
        "label",
        "sentence",
        "translation",
    ),
    *(
        "word",
        "words",
        "grapheme",
        "graphemes",
        "spelling",
        "phone",
        "phones",
        "phoneme",
        "phonemes",
        "ipa",
    ),
    *("pronunciation", "question", "answer", "original", "corrected", "summary"),
)
MANY_SPACES = 0.3  # of all characters; in English text they are a fifth at most
NORMAL_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
CHANGES: dict[str, Callable[[str], str]] = {
    "lower case": str.lower,
    "upper case": str.upper,
    "Unicode's form NFKC, with plain spaces and widths,": partial(unicodedata.normalize, "NFKC"),
}


def text_warnings(
    lines: Mapping[str, Sequence[Lines]],
    pairs: Mapping[str, Pairs],
    vocabs: tuple[Vocabulary, Vocabulary],
    delimiters: tuple[str, str],
) -> Iterator[InputWarning]:
    """Yields the warnings of a corpus: of the lines of its files, vocabularies too, and of the pairs of each part."""
    for part, files in lines.items():
        yield from odd_characters(part, files, delimiters)
        yield from equal_files(part, files)
    found = list(headers(pairs))
    yield from found
    begun = {warning.place[1] for warning in found}
    pairs = {
        part: rows[1:] if part in begun else rows for part, rows in pairs.items()
    }  # a header is said once
    for part, rows in pairs.items():
        for k in range(2):
            yield from blank_cells(part, k, [row[k] for row in rows])
            yield from quoted_cells(part, k, [row[k] for row in rows])
    for k in range(2):
        yield from spaces_as_tokens(k, [row[k] for row in pairs["train"]], delimiters[k])
        for part in [part for part in pairs if part != "train"]:
            yield from unknown_tokens(
                part, k, [row[k] for row in pairs[part]], vocabs[k], delimiters[k]
            )
    yield from shared_sources(pairs, delimiters[0])


def odd_characters(
    part: str, files: Sequence[Lines], delimiters: tuple[str, str]
) -> Iterator[InputWarning]:
    for k, lines in enumerate(files):
        for character, (what, hint) in ODD_CHARACTERS.items():
            if character == "\t" and (len(files) == 1 or "\t" in delimiters[k]):
                continue
            found = [number for number, line in enumerate(lines, start=1) if character in line]
            if found:
                sentence = f"{what}, in {len(found):,} of {len(lines):,} lines"
                values = {"lines": len(found), "of": len(lines)}
                hint = hint.format(side=SIDES[k])
                yield InputWarning(("corpus", part), sentence, values, hint, side=k, line=found[0])


def headers(pairs: Mapping[str, Pairs]) -> Iterator[InputWarning]:
    """A first row of column names: known ones, or the same in all parts whose second rows differ."""
    firsts = {rows[0] for rows in pairs.values()}
    seconds = [rows[1] if len(rows) > 1 else None for rows in pairs.values()]
    is_repeated = len(firsts) == 1 and len(set(seconds)) == len(seconds) > 1
    for part, rows in pairs.items():
        cells = [cell.strip().strip('"').lower() for cell in rows[0]]
        if is_repeated or all(cell in HEADERS for cell in cells):
            sentence = f"the first example looks like a header: {shown(rows[0][0])} and {shown(rows[0][1])}"
            yield InputWarning(("corpus", part), sentence, {"header": list(rows[0])}, AS_TSV)


def equal_files(part: str, files: Sequence[Lines]) -> Iterator[InputWarning]:
    """A file that was named for both sides, or copied over the other one."""
    if len(files) == 2 and files[0] == files[1]:
        sentence = f"the files of sources and targets are equal, in all {len(files[0]):,} lines"
        yield InputWarning(
            ("corpus", part),
            sentence,
            {"lines": len(files[0])},
            "is one file named for both sides?",
        )


def blank_cells(part: str, k: int, cells: Lines) -> Iterator[InputWarning]:
    """Empty sequences on one side."""
    blank = [cell for cell in cells if not cell.strip()]
    if noticed(len(blank), len(cells)):
        share = percent(len(blank), len(cells))
        sentence = f"{len(blank):,} of {len(cells):,} {SIDES[k]}s are blank ({share})"
        hint = "each is read as an empty sequence; leave such lines out"
        yield InputWarning(
            ("corpus", part), sentence, {"blank": len(blank), "of": len(cells)}, hint, side=k
        )


def quoted_cells(part: str, k: int, cells: Lines) -> Iterator[InputWarning]:
    """Quotes that CSV puts around a cell: most cells have them, or those inside a cell are doubled."""
    quoted = [cell for cell in cells if len(cell) > 1 and cell[0] == cell[-1] == '"']
    doubled = [cell for cell in quoted if '""' in cell[1:-1]]
    if doubled or (quoted and len(quoted) >= len(cells) / 2):
        example = shown((doubled or quoted)[0])
        sentence = f"{len(quoted):,} of {len(cells):,} {SIDES[k]}s stand in quotes, which are read as text: {example}"
        yield InputWarning(
            ("corpus", part), sentence, {"quoted": len(quoted), "of": len(cells)}, AS_TSV, side=k
        )


def spaces_as_tokens(k: int, lines: Lines, delimiter: str) -> Iterator[InputWarning]:
    characters, spaces = sum(map(len, lines)), sum(line.count(" ") for line in lines)
    if not delimiter and spaces >= MANY_SPACES * characters > 0:
        key = f"{SIDES[k]}_delimiter"
        sentence = f"{percent(spaces, characters)} of the {SIDES[k]} tokens of train are spaces"
        values = {"spaces": spaces, "of": characters}
        yield InputWarning(
            ("corpus", key), sentence, values, f'{key}: " " splits there instead', side=k
        )


def unknown_tokens(
    part: str, k: int, lines: Lines, vocab: Vocabulary, delimiter: str
) -> Iterator[InputWarning]:
    """The share of unknown tokens, and what would make most of them known."""
    known, unknown = set(vocab.tokens), Counter[str]()
    total, single, affected = 0, 0, list[str]()
    for line in lines:
        tokens = tokenize(line, delimiter)
        missing = [token for token in tokens if token not in known]
        total += len(tokens)
        single += len(tokens) <= 1
        if missing:
            unknown.update(missing)
            affected.append(line)
    count = unknown.total()

    def left(lines: Lines) -> int:
        return sum(token not in known for line in lines for token in tokenize(line, delimiter))

    remedies: list[tuple[float, str]] = []  # the share that stays unknown, and what to do
    for form in NORMAL_FORMS:
        stay = left([unicodedata.normalize(form, line) for line in affected])
        if stay < count:
            hint = (
                f"in Unicode's normal form {form} {stay:,} would be; bring all files into one form"
            )
            remedies.append((stay / total, hint))
    if not noticed(count, total) and not remedies:
        return
    for name, change in CHANGES.items():
        stay = left([change(line) for line in affected])
        if stay <= count / 2:
            remedies.append((stay / total, f"in {name} {stay:,} would be; write all files alike"))
    if delimiter and single >= 0.9 * len(lines):
        letters = set("".join(vocab.tokens))
        characters = "".join(lines)
        share = sum(character not in letters for character in characters) / len(characters)
        if share <= count / total / 2:
            key = f"{SIDES[k]}_delimiter"
            hint = f'almost every {SIDES[k]} is one token; {key}: "" reads characters'
            rest = (
                f", of which {percent(share, 1)} would be unknown"
                if share
                else ", all of them known"
            )
            remedies.append((share, hint + rest))
    most = ", ".join(shown_token(token) for token, _ in unknown.most_common(3))
    sentence = f"{count:,} of {total:,} {SIDES[k]} tokens are unknown ({percent(count, total)}), such as {most}"
    hint = min(remedies, key=itemgetter(0))[1] if remedies else ""
    named = [name for name in SPECIALS if name in unknown]
    if named and not hint:
        hint = f"text cannot hold the name of a special token: {', '.join(named)}"
    yield InputWarning(("corpus", part), sentence, {"unknown": count, "of": total}, hint, side=k)


def shown_token(token: str) -> str:
    """Returns a token in quotes; a mark that would stand on the quote by its code."""
    return (
        f"U+{ord(token[0]):04X}"
        if len(token) == 1 and unicodedata.combining(token)
        else shown(token)
    )


def shared_sources(pairs: Mapping[str, Pairs], delimiter: str) -> Iterator[InputWarning]:
    """Sources of dev that are in train, and those of test that are in train or dev: the same tokens."""
    sources = {
        part: [delimiter.join(tokenize(source, delimiter)) for source, _ in rows if source.strip()]
        for part, rows in pairs.items()
    }
    for part, other in (("dev", "train"), ("test", "train"), ("test", "dev")):
        if part not in sources:
            continue
        known, total = set(sources[other]), len(pairs[part])
        shared = [source for source in sources[part] if source in known]
        if noticed(len(shared), total):
            sentence = f"{len(shared):,} of {total:,} sources are in {other}, too ({percent(len(shared), total)})"
            sentence += f", such as {shown(shared[0])}"
            hint = f"a model can answer them from memory; leave them out of {other}"
            values = {"shared": len(shared), "of": total, "other": other}
            yield InputWarning(("corpus", part), sentence, values, hint)
