"""Measures whether the costs of a sweep grow with the number of trials. All are single runs.

The driver: the cluster is on this machine, with a head without processors and four nodes that claim
to have 16 GPUs each. A trial asks for 8 GPUs, so that 8 trials run at once, each in a process of
100 MB. A stand-in for training only reports, and nearly all work is therefore the driver's. Tiny
trials have at most 4 reports, and ASHA stops them early. Long trials have 20 reports.

The worker: one process trains 1,000 models of different shapes for a few steps each, one after the
other.

The tables: a recorder gets a report every two thirds of a second. The time between reports is
simulated, and only the time of writing is real.
"""

import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import ray.cloudpickle
from ray.cluster_utils import Cluster

from benchmarks import sweep
from benchmarks.measure import parser, show
from s2s_search.results import load
from s2s_search.runs import recorder
from s2s_search.runs.folder import EVENTS, TRIALS, trial_name
from s2s_search.spaces import load_space
from s2s_search.tuning import run_search
from s2s_search.tuning.cluster import RAY_ENVIRONMENT

NODES, GPUS, GPUS_OF_A_TRIAL = 4, 16, 8
COUNTS = (1000, 5000, 10000, 20000)  # numbers of reports
PARTS = 10
SHAPES = """\
model: [BasicSeq2Seq, AttentionSeq2Seq]
corpus: {name: copy, train: 200, dev: 10, vocabulary: 1000, min_length: 2, max_length: 20}
scheduler: {name: asha, max_steps: 4, grace_steps: 2, reduction_factor: 2}
resources: {cpu: 1}
parameters:
  encoder.type: [UnidirectionalRNNEncoder, BidirectionalRNNEncoder, StackBidirectionalRNNEncoder]
  attention.score_type: [dot, bahdanau]
  embedding.dim: [16, 50, 100, 128]
  encoder.rnn_cell.cell_spec: [%s]
  decoder.rnn_cell.cell_spec: {same_as: encoder.rnn_cell.cell_spec}
  decoder.rnn_cell.dropout_input_keep_prob: [0.8, 1.0]
  optimizer.learning_rate: {min: 1e-4, max: 1e-1, log: true}
  train.batch_size: [8, 16, 32, 64, 100]
  train.eval_every_steps: 2
  inference.max_decode_length: 20
"""
CELLS = ("BasicLSTMCell", "LSTMCell", "GRUCell", "LayerNormBasicLSTMCell", "LSTMBlockCell")
WIDTHS = (32, 64, 128, 200, 256)
RESOURCES = f"{{cpu: 1, gpu: {GPUS_OF_A_TRIAL}}}"

for module in (sweep.__name__, __name__):  # Ray sends the stand-ins to the nodes with their code
    ray.cloudpickle.register_pickle_by_value(sys.modules[module])


@contextlib.contextmanager
def fake_cluster(
    nodes: int = NODES, cpus: int = GPUS // GPUS_OF_A_TRIAL, gpus: int = GPUS
) -> Iterator[str]:
    """Starts the cluster and yields its address."""
    os.environ.update(RAY_ENVIRONMENT | os.environ)
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=cpus, num_gpus=gpus)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def run(folder: Path, address: str, scheduler: str, trials: int) -> sweep.Meter:
    """Runs a sweep of trials that only report, in the new folder `folder`."""
    folder.mkdir()
    text = sweep.SPACE.replace("{scheduler}", scheduler).replace("{cpu: 1}", RESOURCES)
    (folder / "space.yaml").write_text(text)
    meter = sweep.Meter()
    space = load_space(folder / "space.yaml")
    run_search(
        space,
        out=folder / "run",
        trials=trials,
        address=address,
        progress=meter,
        train=sweep.only_reports,
    )  # type: ignore[arg-type]
    return meter


def on_disk(run: Path, trials: int, reports: int) -> dict[str, float]:
    """Returns the bytes of the log and the number of files for each trial and each report."""
    lines = (run / EVENTS).read_bytes().splitlines(keepends=True)
    of_reports = sum(len(line) for line in lines if line.startswith(b'{"event": "report"'))
    files = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    rays = sum(path.parts[0] == "ray" for path in files)
    return {
        "log bytes a report": of_reports / reports,
        "log bytes a trial beside them": (sum(map(len, lines)) - of_reports) / trials,
        "files a trial": (len(files) - rays) / trials,
        "Ray's files a trial": rays / trials,
    }


def measured(
    name: str, folder: Path, address: str, scheduler: str, trials: int
) -> tuple[Sequence[Mapping[str, object]], Mapping[str, object]]:
    """Returns the driver's cost in each tenth of a sweep, and the total with the disk space."""
    meter = run(folder, address, scheduler, trials)
    tenths = sweep.parts(name, meter, PARTS)
    whole = sweep.parts(name, meter, 1)[0]
    growth = (meter.readings[-1][2] - meter.readings[trials // PARTS][2]) / (
        trials - trials // PARTS
    )
    del whole["part"]
    return tenths, whole | {"KB of memory a trial": 1000 * growth} | on_disk(
        folder / "run", trials, meter.reports
    )


def weighed(*arguments: Any) -> Iterator[Any]:
    """Trains, and adds to each report the memory of the process before the trial began."""
    from s2s_search.training import train

    before = sweep.megabytes()
    for report in train(*arguments):
        report.metrics["worker_mb"] = before
        yield report


def worker_memory(folder: Path, address: str, trials: int) -> Iterator[Mapping[str, object]]:
    """Yields the memory of the only worker after 0, 1 and 10 trials, and after each tenth."""
    folder.mkdir()
    cells = ", ".join(
        f"{{class: {cell}, num_units: {width}}}" for cell in CELLS for width in WIDTHS
    )
    (folder / "space.yaml").write_text(SHAPES % cells)
    space, run = load_space(folder / "space.yaml"), folder / "run"
    run_search(space, out=run, trials=trials, address=address, train=weighed)
    left = load(run).reports.drop_duplicates("trial")["worker_mb"].tolist()
    for after in sorted({0, 1, 10, *range(trials // PARTS, trials, trials // PARTS), trials - 1}):
        yield {"trials of one worker so far": after, "worker MB": left[after]}


class Clock:
    """A clock that advances by two thirds of a second per report, and by this process' work."""

    strftime, process_time = time.strftime, time.process_time

    def __init__(self) -> None:
        self.reports = 0

    def monotonic(self) -> float:
        return self.reports / 1.5 + time.process_time()


def recording(folder: Path) -> Iterator[Mapping[str, object]]:
    """Yields the cost of log and tables for each report, between each two of COUNTS."""
    folder.mkdir()
    (folder / "space.yaml").write_text(sweep.SPACE.replace("{scheduler}", sweep.LONG))
    space, clock = load_space(folder / "space.yaml"), Clock()
    metrics = {
        "status": "running",
        "seconds": 1.0,
        "parameters": 1,
        "dev.loss": 1.0,
        "node": "127.0.0.1",
    }
    with (
        mock.patch.object(recorder, "time", clock),
        contextlib.closing(recorder.Recorder(space, folder)) as kept,
    ):
        kept.begin(COUNTS[-1] // 20, dict.fromkeys(recorder.NEEDED_TO_RESUME) | {"corpus": {}})
        for first, last in itertools.pairwise((0, *COUNTS)):
            began, sizes = time.process_time(), set()
            for clock.reports in range(first, last):
                number, step = divmod(clock.reports, 20)
                if step == 0:
                    kept.begin_trial(trial_name(number), space.draw(1, seed=number)[0])
                kept.report(trial_name(number), metrics | {"step": step + 1})
                kept.tick()
                sizes.add((folder / TRIALS).stat().st_mtime_ns)
            cost = 1000 * (time.process_time() - began) / (last - first)
            yield {
                "reports": last,
                "ms a report, tables included": cost,
                "tables written": len(sizes),
            }


def main() -> None:
    arguments = parser("scale", __doc__)
    arguments.add_argument(
        "--tiny", type=int, default=2000, help="number of trials of 1 to 4 reports (default: 2000)"
    )
    arguments.add_argument(
        "--long", type=int, default=2000, help="number of trials of 20 reports (default: 2000)"
    )
    arguments.add_argument(
        "--shapes", type=int, default=1000, help="number of trials of the worker (default: 1000)"
    )
    args = arguments.parse_args()
    sweeps = {
        "tiny trials": (sweep.TINY, args.tiny),
        "trials of 20 reports": (sweep.LONG, args.long),
    }
    tenths: list[Mapping[str, object]] = []
    wholes: list[Mapping[str, object]] = []
    with tempfile.TemporaryDirectory() as place:
        show([*recording(Path(place) / "recording")], args.json.with_name("scale_recording.json"))
        if args.shapes:
            with fake_cluster(nodes=1, cpus=1, gpus=0) as address:
                curve = [*worker_memory(Path(place) / "shapes", address, args.shapes)]
            show(curve, args.json.with_name("scale_worker.json"))
        for name, (scheduler, trials) in sweeps.items():
            if trials == 0:
                continue
            with fake_cluster() as address:
                rows, whole = measured(
                    name, Path(place) / name.split()[0], address, scheduler, trials
                )
            tenths += rows
            wholes.append(whole)
    if wholes:
        show(tenths, args.json.with_name("scale_tenths.json"))
        show(wholes, args.json)


if __name__ == "__main__":
    main()
