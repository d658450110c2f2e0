import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from s2s_search.corpus import cache

HEAD = {"tokens": ["é\n", '"'], "number": 1}
ARRAYS = [np.arange(5, dtype=np.int32), np.empty(0, np.int64), np.array([-1, 2**40])]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache folder of one test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "s2s_search"


def is_whole(entry: object) -> bool:
    """Whether it is what was saved, and not what there is none of."""
    if entry is None:
        return False
    assert isinstance(entry, tuple)
    head, arrays = entry
    assert head == HEAD
    assert len(arrays) == len(ARRAYS)
    assert all(
        a.dtype == b.dtype and a.tolist() == b.tolist() for a, b in zip(arrays, ARRAYS, strict=True)
    )
    return True


def test_what_is_saved_is_loaded(folder: Path) -> None:
    assert cache.load("k") is None
    cache.save("k", HEAD, ARRAYS)
    assert is_whole(cache.load("k"))
    assert cache.load("l") is None
    assert len(list(folder.iterdir())) == 1


def test_arrays_lie_in_the_mapped_file_where_their_dtype_wants_them() -> None:
    cache.save("k", HEAD, ARRAYS)
    _, arrays = cache.load("k") or ({}, [])
    for values in arrays:
        base: object = values
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base, memoryview)
        assert isinstance(base.obj, mmap.mmap)
        assert values.flags.aligned
        assert not values.flags.writeable


@pytest.mark.parametrize(
    "damage", [lambda data, k: data[:k], lambda data, k: data[:k] + b"\xaa" + data[k + 1 :]]
)
def test_an_entry_with_any_byte_lost_or_changed_is_none(
    folder: Path, damage: Callable[[bytes, int], bytes]
) -> None:
    cache.save("k", HEAD, ARRAYS)
    (path,) = folder.iterdir()
    data = path.read_bytes()
    for k in range(len(data)):
        path.write_bytes(changed := damage(data, k))
        assert is_whole(cache.load("k")) is (changed == data)
    path.write_bytes(data + b"\0")
    assert cache.load("k") is None
    cache.save("k", HEAD, ARRAYS)
    assert is_whole(cache.load("k"))


def test_an_entry_of_another_key_is_none(folder: Path) -> None:
    cache.save("k", HEAD, ARRAYS)
    os.replace(folder / ("k" + cache.SUFFIX), folder / ("l" + cache.SUFFIX))
    assert cache.load("l") is None


def test_a_write_that_fails_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.save("k", HEAD, ARRAYS)
    before = [(path, path.read_bytes()) for path in folder.iterdir()]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.save("k", {}, [])
    cache.save("l", {}, [])
    assert [(path, path.read_bytes()) for path in folder.iterdir()] == before


@pytest.mark.parametrize(
    "call", ["cache.checksum", "os.replace"]
)  # before the first byte, and after the last
def test_a_kill_while_an_entry_is_written_leaves_what_was_there(folder: Path, call: str) -> None:
    cache.save("k", HEAD, ARRAYS)
    program = (
        f"import os; from s2s_search.corpus import cache; {call} = lambda *_: os._exit(9); "
        "cache.save('k', 0, [])"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert is_whole(cache.load("k"))
    assert len(list(folder.iterdir())) == 2  # what was half written goes when it is the oldest


@pytest.mark.parametrize("home", ["/dev/null", "/proc/no/such"])
def test_a_folder_that_cannot_be_written_is_done_without(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    cache.save("k", HEAD, ARRAYS)
    assert cache.load("k") is None


def test_whatever_is_in_the_way_is_done_without(folder: Path) -> None:
    (folder / ("k" + cache.SUFFIX)).mkdir(parents=True)
    cache.save("k", HEAD, ARRAYS)
    assert cache.load("k") is None
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_the_folder_is_below_home_unless_an_absolute_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME") if value is None else monkeypatch.setenv(
        "XDG_CACHE_HOME", value
    )
    assert cache.cache_folder() == tmp_path / ".cache" / "s2s_search"


def test_a_user_without_a_home_has_no_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    cache.save("k", HEAD, ARRAYS)
    assert cache.load("k") is None


def test_the_entries_used_last_stay(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "notes").write_text("somebody else's")
    keys = [f"key{number}" for number in range(cache.ENTRIES_KEPT)]
    for age, key in enumerate(keys):
        cache.save(key, HEAD, ARRAYS)
        os.utime(folder / (key + cache.SUFFIX), (0, 1000 - age))
    assert is_whole(cache.load(keys[-1]))  # the one saved longest ago, and used just now
    cache.save("new", HEAD, ARRAYS)
    kept = {path.stem for path in folder.iterdir()}
    assert kept == {"notes", "new", *keys} - {keys[-2]}
