"""Sources held out from train: the parts dev and test of a corpus that is one file."""

from collections.abc import Mapping
from zlib import crc32

from s2s_search.corpus.text import Delimiter, canonical
from s2s_search.errors import ConfigError, nearest, shown

KEY = "hold_out"
HASHES = 2**32  # the number of values of crc32
Pairs = list[tuple[str, str]]


def hold_out_problems(value: Mapping[str, object]) -> list[str]:
    """Returns what is wrong with a mapping such as {hold_out: 0.05}."""
    problems = [f"unknown key {shown(key)}{nearest(key, [KEY])}" for key in value if key != KEY]
    if KEY not in value:
        return [*problems, "must have hold_out, as in {hold_out: 0.05}"]
    size = value[KEY]
    is_share = isinstance(size, float) and 0 < size < 1
    is_number = isinstance(size, int) and not isinstance(size, bool) and size > 0
    if not is_share and not is_number:
        law = "must be a share above 0 and below 1, or a whole number of sources"
        problems.append(f"hold_out: {law}, but is {shown(size)}")
    return problems


def hold_out(
    pairs: Pairs, sizes: Mapping[str, int | float], delimiter: Delimiter
) -> dict[str, Pairs]:
    """Returns the pairs that stay in train, and those of each part that holds out sources.

    A source with all its pairs is in one part, which the CRC-32 of its tokens decides: dev takes
    the lowest values, and test the highest. Under a share, new sources never move others. Under a
    number, a new source may take the place of another one.

    Args:
        pairs: all pairs of the files of train.
        sizes: the share (float) or the number (int) of the sources that dev or test holds out.
        delimiter: the delimiter between tokens of source text.

    Raises:
        ConfigError: a part would have no source.
    """
    sources = [canonical(source, delimiter) for source, _ in pairs]
    ranked = sorted((crc32(source.encode()), source) for source in set(sources))
    total = f"{len(ranked):,} sources"
    part_of: dict[str, str] = {}
    left = len(ranked)
    for part, size in sizes.items():
        chosen = _chosen(ranked, size, is_dev=part == "dev")
        part_of |= dict.fromkeys(chosen, part)
        left -= len(chosen)
        if not chosen:
            raise ConfigError(f"corpus.{part}: hold_out: {size} takes none of {total}")
    if left <= 0:
        wanted = " and ".join(f"{part}: {{hold_out: {size}}}" for part, size in sizes.items())
        raise ConfigError(f"corpus.train: {wanted} leave train none of {total}")
    parts: dict[str, Pairs] = {"train": [], **{part: [] for part in sizes}}
    for source, pair in zip(sources, pairs, strict=True):
        parts[part_of.get(source, "train")].append(pair)
    return parts


def _chosen(ranked: list[tuple[int, str]], size: int | float, is_dev: bool) -> list[str]:
    """Returns the sources that a part holds out, of all sources sorted by their values."""
    if isinstance(size, int):
        chosen = ranked[:size] if is_dev else ranked[-size:]
    elif is_dev:
        chosen = [(value, source) for value, source in ranked if value < size * HASHES]
    else:
        chosen = [(value, source) for value, source in ranked if value >= (1 - size) * HASHES]
    return [source for _, source in chosen]
