"""Starts, resumes and replicates searches on Ray Tune.

A search runs many trials at once, stops bad ones early, and loses nothing when it is killed:

    sampler -> configurations -> Ray Tune -> trainable -> train() -> reports
                                    └─ asks the scheduler               │
                                               Recorder  <──────────────┘
                                                   └─> run folder, display

Ray places the trials and runs them. Only this package writes the run folder (docs/results.md). A
search is resumed from its own log and its own checkpoints, and not from files of Ray.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from s2s_search.corpus.load import load_corpus
from s2s_search.display.progress import Progress
from s2s_search.errors import ConfigError, InputWarning, collecting
from s2s_search.methods.make import make_sampler
from s2s_search.methods.samplers import TPE, Listed, replicated
from s2s_search.results.beside import folders_beside
from s2s_search.results.results import load
from s2s_search.runs.environment import environment
from s2s_search.runs.failures import AGAIN
from s2s_search.runs.folder import check_new, is_locked, new_folder, new_folder_of_its_own
from s2s_search.runs.inputs import corpus_of, of_replicates, space_of
from s2s_search.runs.log import first_event
from s2s_search.runs.recorder import Recorder
from s2s_search.runs.state import AUDIT, REPLICATES, History, load_history
from s2s_search.runs.storage import storage_problems
from s2s_search.runs.trackers import check_trackers
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.settings import MODELS
from s2s_search.spaces.space import Space
from s2s_search.spaces.warnings import space_warnings
from s2s_search.statuses import TIME_IS_OVER
from s2s_search.tuning import cluster, running
from s2s_search.tuning.search import Outcome, Search
from s2s_search.tuning.warm_start import BEST, EarlierRun, earlier_runs, warm_start_of
from s2s_search.tuning.worker import Train

RUNS = Path("runs")  # the place of a run folder for which no other place is given
NOTE_OF_REPLICATES = (
    "# Replicates: the configurations are those listed in events.jsonl, and no scheduler stops "
    "them.\n"
)


def run_search(
    space: Space,
    *,
    out: Path | None = None,
    trials: int | None = None,
    seed: int | None = None,
    address: str | None = None,
    overrides: Mapping[str, object] | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    train: Train | None = None,
    storage: str | None = None,
    warm_start: str | Path | Sequence[str | Path] | None = None,
    warm_start_best: int = BEST,
    configs: Sequence[Flat] | None = None,
    replicates_of: Path | None = None,
    audits_of: Path | None = None,
    log: Sequence[str] = (),
    warn: Callable[[Sequence[InputWarning]], object] | None = None,
) -> Outcome:
    """Runs the trials of a space on Ray, and fills a run folder.

    Trial K is the K-th configuration of `space.trials(trials, seed, overrides)`, unless a tpe
    sampler chooses it. A trial that fails is a row of the tables. It does not end the search,
    unless the first trials all fail alike. Ctrl-C, a SIGTERM or a SIGHUP ends the search within
    seconds, with the tables of the work so far. The Ray processes are gone when this returns, and
    `resume_search` continues the search.

    Args:
        space: the search space.
        out: the run folder, which must be new; None stands for a new folder in runs/, with the name
            of the space and the time.
        trials: the number of trials to draw; None stands for the number of the space.
        seed: the seed of the search; None stands for the seed of the space.
        address: the address of a Ray cluster; None stands for a Ray of our own.
        overrides: hyperparameters that are fixed for all trials.
        command: the command line, which is recorded with the versions.
        progress: the display of the search.
        train: a stand-in for training.train.
        storage: a folder or URL for the checkpoints; None stands for the run folder.
        warm_start: an earlier run folder, or several. The best configurations there that the space
            contains are run first. For tpe and a model, all trials there are data.
        warm_start_best: the number of configurations that are run first.
        configs: the configurations of the trials, in place of the sampler's: replicates.
        replicates_of: the run folder of which the trials are replicates.
        audits_of: the run folder whose stopped trials are trained to the end.
        log: the names of trackers (runs.trackers).
        warn: a function that gets the warnings of the space before the search starts.

    Raises:
        ConfigError: the problems of the space, the arguments and the machine, all at once. No trial
            has started, and `out` is as it was.
    """
    folder = (out or _dated_folder(space.name)).absolute()
    if storage is not None and "://" not in storage:
        storage = os.path.abspath(storage)
    problems: list[str] = []
    earlier: list[EarlierRun] = []
    with collecting(problems):
        folders = [warm_start] if isinstance(warm_start, str | Path) else warm_start or ()
        earlier = earlier_runs(list(map(Path, folders)), space)
    with collecting(problems, where=str(space.path)):
        taken = warm_start_of(earlier, space, overrides or {}, trials, warm_start_best)
        space = replace(space, first=(*space.first, *taken.first))
        sampler = make_sampler(space, trials, seed, overrides, configs)
    with collecting(problems):
        corpus = load_corpus(space.corpus)
    if not problems:
        curves = taken.curves(corpus.fingerprint) if space.learner in MODELS else []
        with collecting(problems):
            notes = taken.teach(sampler, curves)
    problems += cluster.ray_problems(space.resources, address)
    problems += storage_problems(storage)
    with collecting(problems):
        check_trackers(log)
    with collecting(problems):
        if out is not None:
            check_new(folder)
    if not problems:
        with collecting(problems):
            if out is None:
                folder = new_folder_of_its_own(folder)
            else:
                new_folder(folder)
    if problems:
        raise ConfigError(problems, str(space.path))
    if warn is not None:
        fixed = space.fixed(overrides) if overrides else space
        if isinstance(sampler, Listed):
            configurations = sampler.configs
        else:
            configurations = fixed.trials(trials, seed)
        warn(space_warnings(fixed, corpus, configurations))
    drawn = (trials, seed, overrides or {})
    search = Search(space, folder, sampler, corpus, *drawn, address, storage, progress, train, log)
    with search.recorder_open():
        about = environment(space, corpus, trials, seed, overrides, storage, command)
        more: dict[str, object] = {"log": list(log)}
        if configs is not None:
            origin = {"replicates_of": replicates_of, "audits_of": audits_of}
            more |= {"configs": list(configs)}
            more |= {name: str(path) for name, path in origin.items() if path is not None}
        more |= taken.entries(sampler, curves)
        search.recorder.begin(len(sampler), about, **more)
        if space.scheduler.name == "pbt":
            search.recorder.note(
                f"pbt changes what a checkpoint survives: {', '.join(space.mutable)}"
            )
        for note in [*notes, *taken.corpus_notes(corpus.fingerprint, space.learner)]:
            search.recorder.note(note)
        return running.run_trials(search)


def resume_search(
    out: Path,
    *,
    trials: int | None = None,
    again: Sequence[str] = (),
    hours: float | None = None,
    gpu_hours: float | None = None,
    address: str | None = None,
    progress: Progress | None = None,
    train: Train | None = None,
    say: Callable[[str], object] = lambda line: None,
    log: Sequence[str] | None = None,
    corpus: Mapping[str, object] | None = None,
) -> Outcome:
    """Resumes the search of a run folder, however it ended.

    Trials that have ended stay as they are. Other trials resume from their newest checkpoint. The
    decisions of the past are recomputed from the log, so that scheduler and sampler are where they
    were. When nothing is left to do, nothing changes. The exception is a search whose trials had
    all ended when it was killed: its end is recorded now.

    Args:
        out: the run folder.
        trials: a new number of trials to draw in all; None leaves it as it is.
        again: the statuses of trials to run again (failed, out_of_memory, lost).
        hours: a new budget of hours.
        gpu_hours: a new budget of GPU hours.
        address: the address of a Ray cluster; None stands for a Ray of our own.
        progress: the display of the search.
        train: a stand-in for training.train.
        say: a function that gets the plan, line by line, before the search starts.
        log: the names of trackers (runs.trackers); None stands for those so far.
        corpus: where the corpus lies now, if its files have moved.

    Raises:
        ConfigError: the folder is no run folder, another search uses it, the corpus has changed, or
            an argument is wrong.
    """
    folder = Path(out).absolute()
    history = load_history(folder)
    if is_locked(folder):
        # This raises the error that names the process that holds the lock.
        Recorder(space_of(history, folder), folder).close()
    search = history.search
    space = _with_budgets(space_of(history, folder, corpus), search, hours, gpu_hours)
    problems: list[str] = []
    drawn = (trials or search.get("draws"), search.get("seed"), search.get("overrides") or {})
    with collecting(problems):
        sampler = make_sampler(space, *drawn, search.get("configs"))
        if trials is not None and "configs" in search:
            raise ConfigError(
                "--trials: replicates are not drawn; replicate again gives more", str(folder)
            )
        if len(sampler) < search["trials"]:
            law = f"the search has {search['trials']} already; a search can only be extended"
            raise ConfigError(f"--trials: {len(sampler)} trials, but {law}", str(folder))
    with collecting(problems):
        data = corpus_of(space, history.fingerprint, folder)
    log = search.get("log", ()) if log is None else log
    with collecting(problems):
        check_trackers(log)
    problems += cluster.ray_problems(space.resources, address)
    if problems:
        raise ConfigError(problems)
    run = Search(
        space, folder, sampler, data, *drawn, address, search.get("storage"), progress, train, log
    )
    if isinstance(sampler, TPE):
        sampler.warm_start(search.get("warm_start", ()))
    sampler.learn(search.get("warm_start_curves", ()))
    plan = run.recall(history, again)
    if not plan.resumed and not plan.waiting and not plan.new and not plan.unrecorded_ends:
        more = "--trials N adds more" if not again else f"none is {' or '.join(again)}"
        say(f"nothing to do: all {plan.ended} trials have ended; {more}")
        if history.status in ("finished", "failed"):
            return Outcome(history.status, folder, history.message)
        # The search was killed, or out of budget, when all trials had ended.
        with run.recorder_open():
            run.recorder.end("finished")
        return Outcome("finished", folder)
    if history.status == "out of budget":
        over = list(_spent(run))
        for law in over:
            say(f"nothing to do: {law}")
        if over:
            return Outcome(history.status, folder, "; ".join(over))
    for line in plan.lines():
        say(line)
    with run.recorder_open():
        run.recorder.resume(history, len(sampler), draws=drawn[0], log=list(log), **_budgets(space))
        for name, decision in plan.decisions.items():
            run.recorder.decision(name, decision)
        for name, status in plan.unrecorded_ends.items():
            run.recorder.end_trial(name, status)
        for name in plan.resumed:
            cause = AGAIN if history.trials[name].status in again else "resume"
            run.recorder.restart(name, cause)
        for name in plan.waiting:
            run.recorder.pause(name)
        return running.run_trials(run)


def replicate_search(
    folder: Path,
    *,
    top: int,
    seeds: int,
    audit: int | None = None,
    out: Path | None = None,
    address: str | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    train: Train | None = None,
    storage: str | None = None,
    log: Sequence[str] = (),
    corpus: Mapping[str, object] | None = None,
) -> Outcome:
    """Runs the best configurations of an earlier run with other seeds, as a search of its own.

    No scheduler stops these trials. `resume_search` resumes this search like any other. With
    `audit`, trials that the scheduler of the earlier run stopped are trained to the end instead.

    Args:
        folder: the run folder of the earlier run.
        top: the number of different configurations, the first ones of `Results.best`.
        seeds: the number of seeds for each configuration. It has had none of them in the run, nor
            in earlier replicates that lie beside the run or beside `out`.
        audit: the number of stopped trials to train to the end, with their own seeds, in place of
            `top` and `seeds`. They are drawn at random from those that no earlier audit had.
        out: the new run folder; None stands for a new folder in runs/.
        address: the address of a Ray cluster; None stands for a Ray of our own.
        command: the command line, which is recorded with the versions.
        progress: the display of the search.
        train: a stand-in for training.train.
        storage: a folder or URL for the checkpoints; None stands for the run folder.
        log: the names of trackers (runs.trackers).
        corpus: where the corpus lies now, if its files have moved.

    Raises:
        ConfigError: `folder` is no run folder, a search uses it, or its scheduler was pbt; too few
            configurations have a result; too few trials were stopped; the corpus has changed; or a
            problem of `run_search`.
    """
    run = load(folder)
    history = run.history()
    space = space_of(history, folder, corpus)
    problems = (
        [f"{folder}: is in use; a search can be replicated when it has ended"]
        if history.is_running
        else []
    )
    if space.scheduler.name == "pbt":
        problems.append(
            f"{folder}: pbt changes configurations while they train: there is none to run again"
        )
    ranked = run.best(None)
    names = ranked["trial"][ranked[f"best.{space.metric.name}"].notna()]
    configs: list[Flat] = []
    with collecting(problems):
        if audit is None:
            others = [trial.config for trial in history.trials.values()]
            for home in {folder.absolute().parent, (out or RUNS / "replicates").absolute().parent}:
                for earlier in folders_beside(folder, history, home=home):
                    others += first_event(earlier).get("configs", [])
            best = [history.trials[name].config for name in names]
            configs = replicated(best, others, top, seeds)
        else:
            configs = _to_audit(folder, history, audit)
    with collecting(problems):
        corpus_of(space, history.fingerprint, folder)
    if problems:
        raise ConfigError(problems)
    replicates = replace(
        space,
        path=Path(history.search.get("space") or space.path),
        text=NOTE_OF_REPLICATES + space.text.removeprefix(NOTE_OF_REPLICATES),
        name=f"{space.name.removesuffix(REPLICATES)}{REPLICATES if audit is None else AUDIT}",
    )
    replicates = of_replicates(replicates, configs)
    shared: dict[str, Any] = {
        "address": address,
        "command": command,
        "progress": progress,
        "train": train,
        "log": log,
    }
    origin = "replicates_of" if audit is None else "audits_of"
    shared[origin] = folder.absolute()
    return run_search(replicates, out=out, storage=storage, configs=configs, **shared)


def _to_audit(folder: Path, history: History, count: int) -> list[Flat]:
    """Returns the configurations of `count` stopped trials that no earlier audit has trained.

    A trial that had used up search.trial_hours is not among them: nobody judged it.

    Raises:
        ConfigError: there are fewer.
    """
    judged = [
        trial
        for trial in history.of("stopped")
        if not (trial.message or "").startswith(TIME_IS_OVER)
    ]
    stopped = [trial.config for trial in judged]
    audited = []
    for earlier in folders_beside(folder, history, AUDIT):
        audited += first_event(earlier).get("configs", [])
    left = [config for config in stopped if config not in audited]
    if count > len(left):
        law = f"of {len(stopped)} trials that were stopped, {len(left)} have not been audited"
        raise ConfigError(f"--audit {count}: {law}", str(folder))
    return random.Random(f"{folder.name} {len(left)} audit").sample(left, count)


def _dated_folder(name: str) -> Path:
    """Returns the run folder of a space for which the user names none."""
    return RUNS / f"{name.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"


def _with_budgets(
    space: Space, before: Mapping[str, Any], hours: float | None, gpu_hours: float | None
) -> Space:
    """Returns a space with new budgets.

    Args:
        space: the space.
        before: the search event. It holds the budgets of the last `resume`.
        hours: a new budget of hours. With None the last one holds, or else that of the space.
        gpu_hours: a new budget of GPU hours, in the same way.
    """
    new = {"hours": hours, "gpu_hours": gpu_hours}
    known: dict[str, Any] = {
        name: value or before.get(name) or getattr(space.search, name)
        for name, value in new.items()
    }
    return replace(space, search=replace(space.search, **known))


def _spent(run: Search) -> Iterator[str]:
    """Yields the budgets of a resumed search that are spent, and how much was used."""
    settings, hours = run.space.search, run.spent / 3600
    gpu_hours = run.busy * run.space.resources.gpu / 3600
    if settings.hours is not None and hours >= settings.hours:
        used = f"{hours:.6g} were used; --hours N gives more"
        yield f"search.hours: {settings.hours:g} hours are over, {used}"
    if settings.gpu_hours is not None and gpu_hours >= settings.gpu_hours:
        used = f"{gpu_hours:.6g} were used; --gpu-hours N gives more"
        yield f"search.gpu_hours: {settings.gpu_hours:g} GPU hours are over, {used}"


def _budgets(space: Space) -> dict[str, object]:
    return {"hours": space.search.hours, "gpu_hours": space.search.gpu_hours}
