"""Whether the driver's cost stays flat over 2,000 trials on a cluster, by tenths of a sweep; what it leaves on disk.

The cluster is of this machine: a head without processors and four nodes that say that they have 16 GPUs each, 64 in
all. A trial asks for 8 of them, so that 8 run at once: each is a process of 100 MB. Its stand-in for training only
reports, so that nearly all that happens is the driver's work: on tiny trials of at most 4 reports that ASHA stops
early, and on long ones of 20. Single runs.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import ray.cloudpickle
from ray.cluster_utils import Cluster

from benchmarks import sweep
from benchmarks.measure import parser, show
from s2s_search.cluster import RAY_ENVIRONMENT
from s2s_search.events import EVENTS
from s2s_search.spaces import load_space
from s2s_search.tuning import run_search

NODES, GPUS, GPUS_OF_A_TRIAL = 4, 16, 8
PARTS = 10
RESOURCES = f"{{cpu: 1, gpu: {GPUS_OF_A_TRIAL}}}"

ray.cloudpickle.register_pickle_by_value(sys.modules[sweep.__name__])  # the stand-in reaches the nodes with its code


@contextlib.contextmanager
def fake_cluster() -> Iterator[str]:
    """Starts the cluster and gives its address."""
    os.environ.update(RAY_ENVIRONMENT | os.environ)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(NODES):
            cluster.add_node(num_cpus=GPUS // GPUS_OF_A_TRIAL, num_gpus=GPUS)
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
    run_search(space, out=folder / "run", trials=trials, address=address, progress=meter, train=sweep.only_reports)  # type: ignore[arg-type]
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
    growth = (meter.readings[-1][2] - meter.readings[trials // PARTS][2]) / (trials - trials // PARTS)
    del whole["part"]
    return tenths, whole | {"KB of memory a trial": 1000 * growth} | on_disk(folder / "run", trials, meter.reports)


def main() -> None:
    arguments = parser("scale", __doc__)
    arguments.add_argument("--tiny", type=int, default=2000, help="trials of 1 to 4 reports (default: 2000)")
    arguments.add_argument("--long", type=int, default=2000, help="trials of 20 reports (default: 2000)")
    args = arguments.parse_args()
    sweeps = {"tiny trials": (sweep.TINY, args.tiny), "trials of 20 reports": (sweep.LONG, args.long)}
    tenths: list[Mapping[str, object]] = []
    wholes: list[Mapping[str, object]] = []
    with tempfile.TemporaryDirectory() as place:
        for name, (scheduler, trials) in sweeps.items():
            if trials == 0:
                continue
            with fake_cluster() as address:
                rows, whole = measured(name, Path(place) / name.split()[0], address, scheduler, trials)
            tenths += rows
            wholes.append(whole)
    show(tenths, args.json.with_name("scale_tenths.json"))
    show(wholes, args.json)


if __name__ == "__main__":
    main()
