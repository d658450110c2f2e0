"""Whether the costs of a sweep stay flat: the driver's over 2,000 trials, a worker's memory over 1,000, the tables'.

The cluster is of this machine: a head without processors and four nodes that say that they have 16 GPUs each, 64 in
all. A trial asks for 8 of them, so that 8 run at once: each is a process of 100 MB. Its stand-in for training only
reports, so that nearly all that happens is the driver's work: on tiny trials of at most 4 reports that ASHA stops
early, and on long ones of 20.

The worker is one process that trains 1,000 models of different shapes for a few steps each, one after the other. The
tables are written by a recorder to which a report comes every two thirds of a second, by a clock of its own that only
the writing moves by itself. Single runs.
"""

import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import ray.cloudpickle
from ray.cluster_utils import Cluster

from benchmarks import sweep
from benchmarks.measure import parser, show
from s2s_search.results import load
from s2s_search.runs import recorder
from s2s_search.runs.folder import EVENTS, trial_name
from s2s_search.runs.tables import TRIALS
from s2s_search.spaces import load_space
from s2s_search.tuning import run_search
from s2s_search.tuning.cluster import RAY_ENVIRONMENT

NODES, GPUS, GPUS_OF_A_TRIAL = 4, 16, 8
COUNTS = (1000, 5000, 10000, 20000)  # of reports
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

for module in (sweep.__name__, __name__):  # the stand-ins reach the nodes with their code
    ray.cloudpickle.register_pickle_by_value(sys.modules[module])


@contextlib.contextmanager
def fake_cluster(
    nodes: int = NODES, cpus: int = GPUS // GPUS_OF_A_TRIAL, gpus: int = GPUS
) -> Iterator[str]:
    """Starts the cluster and gives its address."""
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
    """Runs a sweep of trials that only report in a folder of its own."""
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
    """What a run folder holds for each trial and each report: bytes of the log, and files."""
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
) -> tuple[list[Mapping[str, object]], Mapping[str, object]]:
    """The driver's cost in each tenth of a sweep; and its whole, with what it left on disk."""
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
    """Trains, and adds to each report the memory of its process before the trial began."""
    from s2s_search.training import train

    before = sweep.megabytes()
    for report in train(*arguments):
        report.metrics["worker_mb"] = before
        yield report


def worker_memory(folder: Path, address: str, trials: int) -> Iterator[Mapping[str, object]]:
    """The memory of the one worker of a cluster after each tenth of its trials, and from the tenth trial on."""
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
    """The clock of a driver to which a report comes every two thirds of a second, and its own work besides."""

    strftime, process_time = time.strftime, time.process_time

    def __init__(self) -> None:
        self.reports = 0

    def monotonic(self) -> float:
        return self.reports / 1.5 + time.process_time()


def recording(folder: Path) -> Iterator[Mapping[str, object]]:
    """What the log and the tables cost a driver for each report, between so many reports and so many."""
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
        kept.begin(COUNTS[-1] // 20, dict.fromkeys(recorder.KEPT) | {"corpus": {}})
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
        "--tiny", type=int, default=2000, help="trials of 1 to 4 reports (default: 2000)"
    )
    arguments.add_argument(
        "--long", type=int, default=2000, help="trials of 20 reports (default: 2000)"
    )
    arguments.add_argument(
        "--shapes", type=int, default=1000, help="trials of one worker (default: 1000)"
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
