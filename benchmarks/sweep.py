"""Measures how the workers of real trials spend their time, and the driver's time per report.

Shares are those of the workers' seconds from the first step to the end. The tail, in which no trial
is left to start, is listed separately. The driver's cost is measured on trials that only report, in
place of training. Tiny trials have at most 4 reports, and ASHA stops them early; long trials have
20 reports. The tiny ones are measured in tenths of the sweep: equal tenths mean that the cost does
not grow with the number of trials. All measurements are single runs.
"""

import tempfile
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import parser, show
from s2s_search import results
from s2s_search.runs.folder import EVENTS
from s2s_search.spaces import load_space
from s2s_search.tuning import run_search

QUICKSTART = Path(__file__).parent.parent / "search_spaces" / "quickstart.yaml"
SPACE = """\
model: BasicSeq2Seq
corpus: {name: copy, train: 20, dev: 5, vocabulary: 5, min_length: 2, max_length: 5}
scheduler: {scheduler}
resources: {cpu: 1}
parameters: {optimizer.learning_rate: {min: 1e-3, max: 1e-1, log: true}}
"""
TINY = "{name: asha, max_steps: 4, grace_steps: 1, reduction_factor: 4}"
LONG = "{name: none, max_steps: 20}"


class Meter:
    """Replaces the progress display: reads the driver's clock and memory at each trial's end."""

    def __init__(self) -> None:
        self.reports = 0
        self.readings: list[tuple[float, int, float]] = []  # processor seconds, reports, megabytes

    def show(self, event: Mapping[str, Any]) -> None:
        self.reports += event["event"] == "report"
        ended = event["event"] == "status" and "trial" in event
        if ended or (event["event"] == "trial" and not self.readings):
            self.readings.append((time.process_time(), self.reports, megabytes()))

    def note(self, text: str) -> None: ...

    def tick(self) -> None: ...

    def close(self) -> None: ...


def megabytes() -> float:
    """Returns the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def only_reports(hparams: Any, corpus: Any, device: Any) -> Iterator[Any]:
    """Yields one report per step without any work. The loss is the learning rate over the step."""
    numbers = {"seconds": 0.0, "evaluation_seconds": 0.0, "parameters": 1}
    steps = hparams["train.max_steps"]
    for step in range(1, steps + 1):
        loss = {"dev.loss": hparams["optimizer.learning_rate"] / step}
        status = {"status": "finished" if step == steps else "running"}
        yield types.SimpleNamespace(
            metrics=numbers | loss | status | {"step": step}, snapshot=dict, answers=lambda: None
        )


def shares(name: str, folder: Path, **how: Any) -> dict[str, object]:
    """Runs trials of the quickstart's space, and returns the shares of the workers' seconds."""
    run_search(load_space(QUICKSTART), out=folder, **how)
    found = results.load(folder)
    parts = found.worker_seconds()
    tail = parts.pop("tail")
    total = sum(parts.values())
    useful = parts["steps"] + parts["evaluation"]
    trained = found.trials["seconds"].sum()
    return {
        "sweep": name,
        "trials": len(found.trials),
        "seconds a trial": float(found.trials["seconds"].mean()),
        "steps and evaluation %": 100 * useful / total,
        "with the tail %": 100 * useful / (total + tail),
        **{f"{part} %": 100 * seconds / total for part, seconds in parts.items()},
        "evaluation % of trials": 100 * float(found.trials["evaluation_seconds"].sum() / trained),
        "driver processor s, with Ray's start": found.driver["processor_seconds"],
    }


def driver(
    name: str, folder: Path, scheduler: str, trials: int, count: int
) -> list[dict[str, object]]:
    """Runs trials that only report, and returns the driver's cost in `count` equal parts."""
    folder.mkdir()
    (folder / "space.yaml").write_text(SPACE.replace("{scheduler}", scheduler))
    meter = Meter()
    run = folder / "run"
    run_search(
        load_space(folder / "space.yaml"),
        out=run,
        trials=trials,
        progress=meter,
        train=only_reports,
    )  # type: ignore[arg-type]
    log = (run / EVENTS).stat().st_size / meter.reports
    return [row | {"log bytes a report": log} for row in parts(name, meter, count)]


def parts(name: str, meter: Meter, count: int) -> list[dict[str, object]]:
    """Returns the driver's cost in `count` equal parts of a sweep, counted by ended trials."""
    rows: list[dict[str, object]] = []
    trials = len(meter.readings) - 1
    for k in range(count):
        (began, before, _), (ended, reports, memory) = (
            meter.readings[trials * i // count] for i in (k, k + 1)
        )
        row = {"sweep": name, "part": k + 1, "trials": trials // count, "reports": reports - before}
        cost = {
            "ms a report": 1000 * (ended - began) / (reports - before),
            "ms a trial": 1000 * count * (ended - began) / trials,
        }
        rows.append(row | cost | {"driver MB": memory})
    return rows


def main() -> None:
    arguments = parser("sweep", __doc__)
    arguments.add_argument(
        "--tiny",
        type=int,
        default=200,
        help="number of tiny trials for the driver's cost (default: 200)",
    )
    arguments.add_argument(
        "--short", type=int, default=20, help="number of real trials of a few seconds (default: 20)"
    )
    arguments.add_argument(
        "--quickstart", action="store_true", help="also run the quickstart, which takes minutes"
    )
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = driver("tiny trials", folder / "tiny", TINY, args.tiny, count=10)
        rows += driver(
            "trials of 20 reports", folder / "long", LONG, max(1, args.tiny // 10), count=1
        )
        short = {"train.max_steps": 200, "train.eval_every_steps": 100}
        searches = [shares("short trials", folder / "short", trials=args.short, overrides=short)]
        if args.quickstart:
            searches.append(shares("quickstart", folder / "quickstart"))
    show(rows, args.json.with_name("sweep_driver.json"))
    show(searches, args.json)


if __name__ == "__main__":
    main()
