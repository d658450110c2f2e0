"""A trial inside Ray Tune: what runs in a worker, and passes the reports of train() on."""

import json
import math
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from s2s_search.corpus.corpus import Corpus
from s2s_search.corpus.load import load_corpus
from s2s_search.metrics import WORST
from s2s_search.runs.checkpoints import Checkpoints, Saveable, keep_snapshots
from s2s_search.runs.recorder import Config, resolved
from s2s_search.runs.storage import below
from s2s_search.training.footprint import check_memory

Train = Callable[
    ..., Iterable[Any]
]  # (hparams, corpus, device[, snapshot]) -> reports: training.train, or a stand-in
CONTEXT_BYTES = 0.5e9  # of a CUDA context, about: it was not measured here
REFERENCE = "reference.json"  # what Tune gets for a checkpoint: whose it is, and its step


def trainable(
    config: Config,
    corpus: Corpus | None = None,
    folder: str | Path | None = None,
    metric: str = "dev.loss",
    goal: str = "minimize",
    train: Train | None = None,
    pausing: bool = False,
) -> None:
    """Runs one trial inside Ray Tune: trains by `config` and passes every report on.

    Everything is built and seeded from `config`, so that a process that ran other trials before gives the same
    numbers as a fresh one. Checkpoints are kept in the trial's folder below `folder`, which may be a URL; without
    `folder` in Ray's own. Where there are some already it goes on from the newest, and says its report again, which
    may not have been heard. With `pausing`, Tune gets a reference to each, as a scheduler that pauses trials needs.
    Without a corpus it is cmudict.
    """
    began = time.perf_counter()
    import torch  # slow to import, and the process that drives the search needs none

    from s2s_search.training import process_memory, trial

    context = tune.get_context()
    name = context.get_trial_name()
    needs = context.get_trial_resources().required_resources
    torch.set_num_threads(max(1, int(needs.get("CPU", 1))))
    gpu = needs.get("GPU", 0)
    device = "cuda" if gpu > 0 else "cpu"
    shared = 0 < gpu < 1
    try:
        if (
            shared and torch.cuda.is_available()
        ):  # Ray may have been told of a GPU that torch does not see
            keep_to_share(gpu)
        checkpoints = Checkpoints(
            context.get_trial_dir() if folder is None else below(folder, name)
        )
        before = _taken_over(name, folder, checkpoints, goal) if pausing else checkpoints.newest()
        arguments: list[Any] = [
            resolved(config),
            corpus or load_corpus({"name": "cmudict"}),
            device,
        ]
        if train is None:
            check_memory(arguments[0], arguments[1], torch.device(device))
        arguments += [] if before is None else [before]
        _pass_on(
            name,  # the reports are made for it alone: what holds them holds the model
            keep_snapshots((train or trial.train)(*arguments), checkpoints, metric, goal, before),
            checkpoints,
            before,
            pausing,
            began,
        )
    except Exception as error:
        text = traceback.format_exc()
        let_go(error)
        raise RuntimeError(text) from None  # of a kind that Ray 2.60 can pickle
    except SystemExit as stop:  # the scheduler's
        let_go(stop)
        raise
    finally:
        arguments, before = [], None  # with the snapshot that the trial went on from
        if shared:
            torch.cuda.empty_cache()  # for the trials that share the GPU; on a GPU of its own the next one takes it
        process_memory.release_freed_memory()


def let_go(error: BaseException | None) -> None:
    """Empties the frames that an error, and those that led to it, came through: they hold the model."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def keep_to_share(share: float) -> None:
    """Limits what torch takes of this process' GPU, so that a trial that grows fails itself and not its neighbours.

    Besides torch's memory each process has a CUDA context, which nothing limits.
    """
    import torch

    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        # Batches differ in length, and without it freed blocks of one size are no room for another.
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(max(share - CONTEXT_BYTES / total, share / 2))


def _pass_on(
    name: str,
    reports: Iterable[Saveable],
    checkpoints: Checkpoints,
    before: Mapping[str, Any] | None,
    pausing: bool,
    began: float,
) -> None:
    """Passes the reports of a trial that began at `began` on to Tune, with the seconds that are not of training."""
    start, waiting, spent = math.nan, 0.0, 0.0
    if before is not None:
        spent = before["report"]["seconds"] + before["report"]["snapshot_seconds"]
    if before is not None and "exploited" not in before:
        _report(
            name,
            before["report"] | {"start_seconds": 0.0, "waiting_seconds": 0.0},
            checkpoints,
            pausing,
        )
    for report in reports:
        metrics = guarded(report.metrics)
        now = time.perf_counter()
        if math.isnan(
            start
        ):  # until now it has started, trained and written a snapshot, nothing else
            start = max(
                now - began - (metrics["seconds"] + metrics["snapshot_seconds"] - spent), 0.0
            )
        _report(
            name,
            metrics | {"start_seconds": start, "waiting_seconds": waiting},
            checkpoints,
            pausing,
        )
        waiting += time.perf_counter() - now
        if metrics["status"] == "diverged":
            return


def _report(name: str, metrics: dict[str, Any], checkpoints: Checkpoints, pausing: bool) -> None:
    if checkpoints.problems:
        metrics = metrics | {"notes": list(checkpoints.problems)}
        checkpoints.problems.clear()
    if not pausing:
        tune.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, REFERENCE).write_text(json.dumps({"trial": name, "step": metrics["step"]}))
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def _taken_over(
    name: str, folder: str | Path | None, checkpoints: Checkpoints, goal: str
) -> dict[str, Any] | None:
    """The snapshot to go on from: the trial's own newest, or that of another whose weights Tune gave it (pbt).

    What is taken over is kept at once, so that it is taken over once. It has steps left to make with the new settings:
    where the other has only the snapshot of its end, the trial goes on from its own newest that is none.
    """
    own, given = checkpoints.newest(), tune.get_checkpoint()
    if given is None:
        return own
    with given.as_directory() as place:
        reference = json.loads(Path(place, REFERENCE).read_text())
    if reference["trial"] == name or (own is not None and own.get("exploited") == reference):
        return own
    other = Checkpoints(below(str(folder), reference["trial"]))
    start = other.newest(unfinished=True) or checkpoints.newest(unfinished=True)
    if start is None:
        return own
    worst = math.inf if goal == "minimize" else -math.inf
    best = worst if own is None else own["best"]
    taken = start | {"exploited": reference, "best": best}
    checkpoints.save(taken, is_best=False)
    return taken


def guarded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a report, or where one is not finite those of a diverged trial: no scheduler can rank a NaN."""
    finite = {
        key: value
        for key, value in metrics.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    return finite if len(finite) == len(metrics) else finite | WORST | {"status": "diverged"}
