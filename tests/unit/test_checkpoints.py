"""Checkpoints that are cut short, spoilt, or find no room."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from s2s_search.answers import Answers, load_answers
from s2s_search.checkpoints import Checkpoints, below, keep_snapshots, read_snapshot
from s2s_search.table import ConfigError


def snapshot(step: int) -> dict[str, object]:
    return {"step": step, "model": {"w": torch.full((50, 50), float(step))}, "report": {"step": step}, "best": 1.0}


def answers(step: int) -> Answers:
    return Answers(step, [1, 0], [3, 4], [])


def test_the_newest_the_one_before_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "trial")
    assert checkpoints.newest() is None
    for step, is_best in [(10, True), (20, True), (30, False), (40, False)]:
        assert checkpoints.save(snapshot(step), is_best)
    steps = {path.name: read_snapshot(str(path))["step"] for path in (tmp_path / "trial").iterdir()}
    assert steps == {"best.pt": 20, "last.pt": 40, "previous.pt": 30}
    checkpoints.keep_best()
    assert [path.name for path in (tmp_path / "trial").iterdir()] == ["best.pt"]
    checkpoints.remove()
    assert not any((tmp_path / "trial").iterdir())


@pytest.mark.parametrize("kept, step", [(["last.pt", "previous.pt", "best.pt"], 20), (["best.pt"], None)])
def test_what_another_trial_takes_over_has_steps_left_to_make(
    tmp_path: Path, kept: list[str], step: int | None
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for number, status in [(10, "running"), (20, "running"), (30, "finished")]:
        report = {"step": number, "status": status}
        assert checkpoints.save(snapshot(number) | {"report": report}, is_best=status == "finished")
    for path in tmp_path.iterdir():
        path.unlink() if path.name not in kept else None
    newest, taken = checkpoints.newest(), checkpoints.newest(unfinished=True)
    assert newest is not None
    assert newest["step"] == 30
    assert (taken and taken["step"]) == step


def test_answers_are_of_the_best_and_outlive_its_weights(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(snapshot(10), True, answers(10))
    checkpoints.save(snapshot(20), True, answers(20))
    checkpoints.save(snapshot(30), is_best=False)
    checkpoints.keep_best()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.json", "best.pt"]
    checkpoints.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["answers.json"]
    assert load_answers(str(tmp_path)) == answers(20)


def test_whatever_damages_the_newest_the_one_before_is_taken(tmp_path: Path) -> None:
    rng = random.Random(0)
    checkpoints = Checkpoints(f"file://{tmp_path}/trial")
    for step in (10, 20, 30):
        checkpoints.save(snapshot(step), is_best=step == 10)
    last = tmp_path / "trial" / "last.pt"
    whole, same = last.read_bytes(), 0
    for _ in range(150):
        at = rng.randrange(len(whole))
        if rng.random() < 0.5:
            last.write_bytes(whole[:at])
        else:
            last.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        found = checkpoints.newest()
        assert found is not None
        if found["step"] == 30:  # the byte was one that nothing depends on
            assert torch.equal(found["model"]["w"], torch.full((50, 50), 30.0))
            same += 1
        else:
            assert found["step"] == 20
            assert "last.pt is damaged and left out" in checkpoints.problems.pop()
    assert same < 75
    (tmp_path / "trial" / "previous.pt").write_bytes(b"")
    last.write_bytes(b"PK")
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 10


def test_without_room_the_old_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(snapshot(10), True, answers(10))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert not checkpoints.save(snapshot(20), True, answers(20))
    assert checkpoints.problems == ["no checkpoint of step 20: No space left on device"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.json", "best.pt", "last.pt"]
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 10
    assert load_answers(str(tmp_path)) == answers(10)


def test_without_room_for_answers_the_old_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(snapshot(10), True, answers(10))

    def full(_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Answers, "text", full)  # when its file has been begun
    assert not checkpoints.save(snapshot(20), True, answers(20))
    assert checkpoints.problems == ["no checkpoint of step 20: No space left on device"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.json", "best.pt", "last.pt"]
    assert [read_snapshot(f"{tmp_path}/{name}.pt")["step"] for name in ("best", "last")] == [10, 10]
    assert load_answers(str(tmp_path)) == answers(10)


class Killed(BaseException):
    """Ends a save as a kill does: nothing is cleaned up."""


class Dying:
    """A file system whose writer dies at the n-th time that it changes something."""

    def __init__(self, files: Any, n: int) -> None:
        self.files, self.left = files, n

    def __getattr__(self, name: str) -> Any:
        if name in ("move", "copy_file", "open_output_stream"):
            self.left -= 1
            if self.left < 0:
                raise Killed
        return getattr(self.files, name)


@pytest.mark.parametrize("n", range(8))
@pytest.mark.parametrize("is_best", [True, False])
def test_a_writer_that_is_killed_leaves_whole_snapshots(tmp_path: Path, n: int, is_best: bool) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(snapshot(step), True, answers(step))
    checkpoints._files = Dying(checkpoints._files, n)
    with contextlib.suppress(Killed):
        checkpoints.save(snapshot(30), is_best, answers(30))
    again = Checkpoints(tmp_path)
    found = again.newest()
    assert found is not None
    assert found["step"] in (20, 30)
    assert not again.problems
    best = read_snapshot(f"{tmp_path}/best.pt")["step"]
    assert best == 30 if is_best and found["step"] == 30 else best >= 20  # what the newest takes for kept is kept
    kept = load_answers(str(tmp_path))
    assert kept == answers(best) or (kept == answers(30) and is_best)  # written before it, and whole
    again.keep_best()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.json", "best.pt"]
    again.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["answers.json"]


def test_where_nothing_can_be_read_nothing_is_taken(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(snapshot(step), is_best=True)
    for name in ("best.pt", "last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(b"\0" * 100)
    assert checkpoints.newest() is None
    assert [problem.split()[0] for problem in checkpoints.problems] == ["last.pt", "previous.pt", "best.pt"]


@pytest.mark.parametrize("place", ["nothing://x", "a b://", "file://%zz", "://"])
def test_a_url_that_is_none_is_the_users_to_mend(place: str) -> None:
    with pytest.raises(ConfigError, match="is no place for checkpoints: "):
        Checkpoints(place)


@pytest.mark.parametrize("held", [{"step": 1, "x": Path()}, {"step": "1"}, {}, [1], {"step": 1, "x": len}])
def test_what_is_no_snapshot_is_refused_and_runs_nothing(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"snapshot|weights_only|Weights only|step|KeyError"):
        read_snapshot(f"{tmp_path}/last.pt")


def test_a_urls_query_stays_its_end() -> None:
    assert (
        below("s3://bucket/runs?region=x&scheme=http", "trial-00001")
        == "s3://bucket/runs/trial-00001?region=x&scheme=http"
    )
    assert below("file:///a/", "b") == "file:///a/b"
    assert below("/a?b", "c") == "/a?b/c"


def reports(*values: float) -> Iterator[Any]:
    for step, value in enumerate(values, 1):
        metrics = {"step": step, "status": "running", "dev.bleu": value}
        yield SimpleNamespace(metrics=metrics, snapshot=lambda step=step: {"step": step}, answers=lambda: None)


def test_a_best_that_found_no_room_is_not_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda snapshot, *rest: snapshot["step"] != 2 and save(snapshot, *rest))
    list(keep_snapshots(reports(1.0, 9.0, 5.0), checkpoints, "dev.bleu", "maximize"))
    assert read_snapshot(str(tmp_path / "best.pt"))["step"] == 3


def test_the_seconds_of_snapshots_go_on_with_the_trial(tmp_path: Path) -> None:
    before = {"step": 5, "best": 1.0, "report": {"snapshot_seconds": 100.0}}
    (report,) = keep_snapshots(reports(2.0), Checkpoints(tmp_path), "dev.bleu", "maximize", before)
    assert 100.0 < report.metrics["snapshot_seconds"] < 110.0
