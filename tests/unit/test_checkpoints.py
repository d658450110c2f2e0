"""Checkpoints that are cut short, spoilt, or find no room."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pyarrow import fs

from s2s_search.errors import ConfigError
from s2s_search.runs import checkpoints, storage
from s2s_search.runs.answers import Answers, load_answers
from s2s_search.runs.checkpoints import Checkpoints, keep_snapshots, read_snapshot
from s2s_search.runs.storage import below, shown_place


def snapshot(step: int) -> dict[str, object]:
    return {
        "step": step,
        "model": {"w": torch.full((50, 50), float(step))},
        "report": {"step": step},
        "best": 1.0,
    }


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


@pytest.mark.parametrize(
    "kept, step", [(["last.pt", "previous.pt", "best.pt"], 20), (["best.pt"], None)]
)
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
            last.write_bytes(
                whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
            )
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
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "answers.json",
        "best.pt",
        "last.pt",
    ]
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 10
    assert load_answers(str(tmp_path)) == answers(10)


def test_without_room_for_answers_the_old_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(snapshot(10), True, answers(10))

    def full(_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Answers, "text", full)  # when its file has been begun
    assert not checkpoints.save(snapshot(20), True, answers(20))
    assert checkpoints.problems == ["no checkpoint of step 20: No space left on device"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "answers.json",
        "best.pt",
        "last.pt",
    ]
    assert [read_snapshot(f"{tmp_path}/{name}.pt")["step"] for name in ("best", "last")] == [10, 10]
    assert load_answers(str(tmp_path)) == answers(10)


class Killed(BaseException):
    """Ends a save as a kill does: nothing is cleaned up."""


class Stream:
    """An output stream whose first write may fail."""

    def __init__(self, stream: Any, files: "Faulty") -> None:
        self.stream, self.files, self.is_new = stream, files, True

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def write(self, data: bytes) -> int:
        if self.is_new:
            self.is_new = False
            return int(self.files.do(self.stream.write, data))
        return int(self.stream.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Faulty:
    """A file system of which `failing` operations fail from the `first` on, before or after they took effect.

    As in an object store, a move may be a copy and a deletion.
    """

    def __init__(self, first: int, failing: int, after: bool, kills: bool, moves: bool) -> None:
        self.files, self.count = fs.LocalFileSystem(), 0
        self.first, self.failing, self.after, self.kills, self.moves = (
            first,
            failing,
            after,
            kills,
            moves,
        )

    def do(self, call: Any, *values: Any, **named: Any) -> Any:
        fails = self.first <= self.count < self.first + self.failing
        self.count += 1
        found = call(*values, **named) if self.after or not fails else None
        if fails:
            raise Killed if self.kills else OSError(5, "Input/output error")
        return found

    def move(self, source: str, target: str) -> None:
        if self.moves:
            self.do(self.files.move, source, target)
        else:
            self.do(self.files.copy_file, source, target)
            self.do(self.files.delete_file, source)

    def open_output_stream(self, path: str) -> Stream:
        return Stream(self.do(self.files.open_output_stream, path), self)

    def __getattr__(self, name: str) -> Any:
        return lambda *values, **named: self.do(getattr(self.files, name), *values, **named)


VALUES = (5.0, 3.0, 4.0, 2.0)  # of the metric, to be minimized


def trained(after: int, worse: float) -> Iterator[Any]:
    """The reports of a trial that has made so many steps; where it was killed others may come than before."""
    for step, value in enumerate(VALUES[after:], after + 1):
        metrics = {"step": step, "status": "running", "dev.loss": value + worse}
        yield SimpleNamespace(
            metrics=metrics,
            snapshot=lambda step=step: {
                "step": step,
                "model": {"w": torch.full((3,), float(step))},
            },
            answers=lambda step=step: answers(step),
        )


@pytest.mark.parametrize("moves", [True, False], ids=["moves", "copies and deletes"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "kills, failing", [(True, 1), (False, 1), (False, 2), (False, 7), (False, 30)]
)
def test_whatever_operation_fails_the_best_is_kept_with_its_answers_and_the_newest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moves: bool,
    after: bool,
    kills: bool,
    failing: int,
) -> None:
    first, reached = 0, True
    while reached:
        place = tmp_path / str(first)
        files = Faulty(first, failing, after, kills, moves)
        for module in (storage, checkpoints):
            monkeypatch.setattr(
                module, "file_system", lambda place, files=files: (files, str(place))
            )
        reached = go_through(place, files)
        first += 1
    assert first > 10 * len(VALUES)


def go_through(place: Path, files: Faulty) -> bool:
    """Lets a trial report to its end, and go on where it is killed; returns True when an operation has failed."""
    kept, newest, worth = list[float](), 0, math.inf

    def look() -> None:
        nonlocal newest, worth
        found = {name: read_if_there(place / f"{name}.pt") for name in ("best", "last", "previous")}
        steps = [snapshot["step"] for snapshot in found.values() if snapshot is not None]
        assert max(steps, default=0) >= newest
        newest = max(steps, default=0)
        if (best := found["best"]) is not None:
            assert best["best"] <= worth
            worth = best["best"]
        else:
            assert worth == math.inf
        if (place / "answers.json").exists():
            assert best is not None
            assert json.loads((place / "answers.json").read_bytes())["step"] == best["step"]

    step, worse = 0, 0.0
    while step < len(VALUES):
        checkpoints = Checkpoints(place)
        try:
            before = checkpoints.newest()
            step = 0 if before is None else before["step"]
            for report in keep_snapshots(
                trained(step, worse), checkpoints, "dev.loss", "minimize", before
            ):
                step = report.metrics["step"]
                kept += [] if checkpoints.problems else [report.metrics["dev.loss"]]
                checkpoints.problems.clear()
                look()
        except OSError:  # the trial fails, and is run again
            step, worse = 0, 0.5
        except Killed:
            look()
            step, worse = 0, 0.5
    assert worth <= min(kept, default=math.inf)
    if files.count > files.first + files.failing + 30:  # long over
        assert load_answers(str(place)) is not None
        Checkpoints(place).keep_best()
        assert {path.name for path in place.iterdir()} == {"answers.json", "best.pt"}
    return files.count > files.first


def read_if_there(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found: dict[str, Any] = torch.load(path, weights_only=True)  # whole, or it raises
    return found


def test_a_worse_model_does_not_replace_a_best_whose_save_failed_later(tmp_path: Path) -> None:
    class Full(Faulty):
        def move(self, source: str, target: str) -> None:
            if target.endswith("last.pt") and worth() == 3.0:
                raise OSError(5, "Input/output error")
            self.files.move(source, target)

    def worth() -> float:
        return float(torch.load(tmp_path / "best.pt", weights_only=True)["best"])

    checkpoints = Checkpoints(tmp_path)
    checkpoints._files = Full(0, 0, after=False, kills=False, moves=True)
    for report in keep_snapshots(trained(0, 0.0), checkpoints, "dev.loss", "minimize"):
        if (
            report.metrics["step"] == 3
        ):  # of loss 4, after the best of loss 3 was kept and last.pt was not
            break
    assert checkpoints.problems == [
        f"no checkpoint of step {step}: Input/output error" for step in (2, 3)
    ]
    assert worth() == 3.0
    found = load_answers(str(tmp_path))
    assert found is not None
    assert found.step == 2


def test_a_damaged_newest_never_replaces_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20, 30):
        checkpoints.save(snapshot(step), is_best=step == 10)
    (tmp_path / "last.pt").write_bytes(b"damaged")
    for first in range(4):  # the folder, the file, its first write, its move to last.pt
        again = Checkpoints(tmp_path)
        found = again.newest()
        assert found is not None
        assert found["step"] == 20
        again._files = Faulty(first, 1, after=False, kills=True, moves=True)
        with pytest.raises(Killed):
            again.save(snapshot(30), is_best=False)
        assert read_snapshot(f"{tmp_path}/previous.pt")["step"] == 20


def test_files_that_cannot_be_read_are_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(snapshot(step), is_best=True)
    read = read_snapshot
    broken = ["last.pt"]

    def unreadable(place: str) -> dict[str, Any]:
        if Path(place).name in broken:
            raise OSError(5, "Input/output error")
        return read(place)

    monkeypatch.setattr("s2s_search.runs.checkpoints.read_snapshot", unreadable)
    found = checkpoints.newest()
    assert found is not None
    assert found["step"] == 20  # best.pt
    assert checkpoints.problems == ["last.pt cannot be read and is left out: Input/output error"]
    broken += ["previous.pt", "best.pt"]
    with pytest.raises(
        OSError, match="Input/output error"
    ):  # else the trial would begin anew over its own weights
        checkpoints.newest()
    reported = keep_snapshots(trained(2, 0.0), checkpoints, "dev.loss", "minimize")
    assert [report.metrics["step"] for report in reported] == [3, 4]  # without a checkpoint
    assert [read(f"{tmp_path}/{name}.pt")["step"] for name in ("best", "last", "previous")] == [
        20,
        20,
        10,
    ]
    assert "no checkpoint: best.pt cannot be read: Input/output error" in checkpoints.problems


def test_where_nothing_can_be_read_nothing_is_taken(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(snapshot(step), is_best=True)
    for name in ("best.pt", "last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(b"\0" * 100)
    assert checkpoints.newest() is None
    assert [problem.split()[0] for problem in checkpoints.problems] == [
        "last.pt",
        "previous.pt",
        "best.pt",
    ]


@pytest.mark.parametrize("place", ["nothing://x", "a b://", "file://%zz", "://"])
def test_a_url_that_is_none_is_the_users_to_mend(place: str) -> None:
    with pytest.raises(ConfigError, match="is no place for checkpoints: "):
        Checkpoints(place)


@pytest.mark.parametrize(
    "place, shown",
    [
        ("s3://key:secret@bucket/runs/a?token=secret#secret", "s3://bucket/runs/a"),
        ("https://host?sig=secret", "https://host"),
        ("hdfs://host:8020/x@y", "hdfs://host:8020/x@y"),
        ("runs/a?b@c#d", "runs/a?b@c#d"),
    ],
)
def test_a_url_is_printed_without_what_may_be_secret(place: str, shown: str) -> None:
    assert shown_place(place) == shown


def test_an_unknown_url_is_refused_without_its_secret() -> None:
    with pytest.raises(ConfigError) as refused:
        Checkpoints("nothing://x?token=secret")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "held", [{"step": 1, "x": Path()}, {"step": "1"}, {}, [1], {"step": 1, "x": len}]
)
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
        yield SimpleNamespace(
            metrics=metrics, snapshot=lambda step=step: {"step": step}, answers=lambda: None
        )


def test_a_best_that_found_no_room_is_not_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    save = checkpoints.save
    monkeypatch.setattr(
        checkpoints, "save", lambda snapshot, *rest: snapshot["step"] != 2 and save(snapshot, *rest)
    )
    list(keep_snapshots(reports(1.0, 9.0, 5.0), checkpoints, "dev.bleu", "maximize"))
    assert read_snapshot(str(tmp_path / "best.pt"))["step"] == 3


def test_the_seconds_of_snapshots_go_on_with_the_trial(tmp_path: Path) -> None:
    before = {"step": 5, "best": 1.0, "report": {"snapshot_seconds": 100.0}}
    (report,) = keep_snapshots(reports(2.0), Checkpoints(tmp_path), "dev.bleu", "maximize", before)
    assert 100.0 < report.metrics["snapshot_seconds"] < 110.0
