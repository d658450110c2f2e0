"""A trial inside Ray Tune: it trains in a worker process, and passes its reports on.

Ray Tune calls `trainable` in a thread that it starts in the worker. A worker runs one trial after
the other. For each report the order is: save the snapshot, then hand the report to Ray Tune. If
anything is killed in between, the resumed trial finds the report in its snapshot, and sends it
again.
"""

import json
import math
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
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

# (hparams, corpus, device[, snapshot]) -> reports: training.train, or a stand-in for it.
Train = Callable[..., Iterable[Any]]
CONTEXT_BYTES = 0.5e9  # a guess at the size of a CUDA context, which was not measured
# The file that Tune gets as a checkpoint. It names the trial and the step of the real checkpoint.
REFERENCE = "reference.json"


def trainable(
    config: Config,
    corpus: Corpus | None = None,
    folder: str | Path | None = None,
    metric: str = "dev.loss",
    goal: str = "minimize",
    train: Train | None = None,
    pausing: bool = False,
) -> None:
    """Runs one trial inside Ray Tune, and passes every report on.

    Everything is built and seeded from `config`. A process that ran other trials before therefore
    gives the same numbers as a new process. If the trial has checkpoints already, it resumes from
    the newest one. It sends the report of that checkpoint again, which may not have been recorded.

    Args:
        config: the flat configuration of the trial, with "model" among its keys.
        corpus: the corpus; None stands for CMUdict, so that a script needs hyperparameters only.
        folder: the folder or URL below which the trial's checkpoints lie, in a folder of its name;
            None stands for the folder that Ray gives the trial.
        metric: the name of the metric that decides which checkpoint is the best.
        goal: "minimize" or "maximize".
        train: a stand-in for training.train.
        pausing: True for a scheduler that pauses trials. Tune then gets a reference to each
            checkpoint.

    Raises:
        RuntimeError: the trial failed. The message is the traceback.
    """
    began = time.perf_counter()
    # Imported late: torch is slow to import, and the driver of a search does not need it.
    import torch

    from s2s_search.training import process_memory, trial

    context = tune.get_context()
    name = context.get_trial_name()
    needs = context.get_trial_resources().required_resources
    torch.set_num_threads(max(1, int(needs.get("CPU", 1))))
    gpu = needs.get("GPU", 0)
    device = "cuda" if gpu > 0 else "cpu"
    shared = 0 < gpu < 1
    try:
        # A user may have told Ray of a GPU that torch does not see.
        if shared and torch.cuda.is_available():
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
        reports_of = train or partial(trial.train, metric=metric, goal=goal)
        arguments += [] if before is None else [before]
        # No variable here holds the reports, because the reports hold the model.
        _pass_on(
            name,
            keep_snapshots(reports_of(*arguments), checkpoints, metric, goal, before),
            checkpoints,
            before,
            pausing,
            began,
        )
    except Exception as error:
        text = traceback.format_exc()
        let_go(error)
        raise RuntimeError(text) from None  # a kind of error that Ray 2.60 can always pickle
    except SystemExit as stop:  # raised by Ray Tune when the scheduler stops the trial
        let_go(stop)
        raise
    finally:
        arguments, before = [], None  # this frees the snapshot from which the trial resumed
        if shared:
            # The freed memory goes to the trials that share the GPU. On a GPU of its own, the next
            # trial of this worker takes it.
            torch.cuda.empty_cache()
        process_memory.release_freed_memory()


def let_go(error: BaseException | None) -> None:
    """Clears the frames of an error and of its causes, because these frames hold the model."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def keep_to_share(share: float) -> None:
    """Limits the memory that torch takes of the GPU to a share of it.

    A trial that grows then fails itself, and not the other trials on the GPU. Besides the memory of
    torch, each process has a CUDA context, which nothing limits.
    """
    import torch

    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        # Batches differ in length. Without this, freed blocks of one size give no room for others.
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
    """Passes the reports of a trial on to Tune, with the seconds of starting and of waiting.

    Args:
        name: the name of the trial.
        reports: its reports, from keep_snapshots.
        checkpoints: its checkpoints, whose problems go into the reports.
        before: the snapshot from which it resumes.
        pausing: True when Tune needs a reference to each checkpoint.
        began: when the trial began, by time.perf_counter.
    """
    start, waiting, spent = math.nan, 0.0, 0.0
    if before is not None:
        spent = before["report"]["seconds"] + before["report"]["snapshot_seconds"]
    if before is not None and "exploited" not in before:
        _send_report(
            name,
            before["report"] | {"start_seconds": 0.0, "waiting_seconds": 0.0},
            checkpoints,
            pausing,
        )
    for report in reports:
        metrics = guarded(report.metrics)
        now = time.perf_counter()
        # Until the first report, the trial has only started, trained and written a snapshot.
        if math.isnan(start):
            start = max(
                now - began - (metrics["seconds"] + metrics["snapshot_seconds"] - spent), 0.0
            )
        _send_report(
            name,
            metrics | {"start_seconds": start, "waiting_seconds": waiting},
            checkpoints,
            pausing,
        )
        waiting += time.perf_counter() - now
        if metrics["status"] == "diverged":
            return


def _send_report(
    name: str, metrics: dict[str, Any], checkpoints: Checkpoints, pausing: bool
) -> None:
    """Hands a report to Ray Tune, with the problems of the checkpoints as notes.

    Args:
        name: the name of the trial.
        metrics: the metrics of the report.
        checkpoints: the checkpoints of the trial.
        pausing: True when Tune needs a reference to each checkpoint, which it hands to the trial
            that resumes or copies it.
    """
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
    """Returns the snapshot from which a trial resumes, when its scheduler pauses trials.

    That is its own newest snapshot. After an exploit of pbt it is the newest snapshot of the trial
    whose weights are copied. The copy is saved at once, so that it is made only once.

    A copy must have steps left to train with the new hyperparameters. The other trial may have only
    the snapshot of its end. Then the trial resumes from its own newest snapshot before the end.

    Args:
        name: the name of the trial.
        folder: the folder or URL below which the checkpoints of all trials lie.
        checkpoints: the checkpoints of the trial.
        goal: "minimize" or "maximize".
    """
    own, given = checkpoints.newest(), tune.get_checkpoint()
    if given is None:
        return own
    with given.as_directory() as local:
        reference = json.loads(Path(local, REFERENCE).read_text())
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
    """Returns the metrics of a report. If one is NaN or infinite, they say that the trial diverged.

    Each metric then has its worst value, because no scheduler can rank a NaN.
    """
    finite = {
        key: value
        for key, value in metrics.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    return finite if len(finite) == len(metrics) else finite | WORST | {"status": "diverged"}
