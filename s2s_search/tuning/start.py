"""A search on Ray Tune: many trials at once, the hopeless ones stopped early, and nothing lost when it is killed.

    sampler -> configurations -> Ray Tune -> trainable -> train() -> reports -> Recorder -> run folder, display
                                    └─ asks the scheduler

Ray places the trials and runs them. The run folder (docs/results.md) is written by us alone, and nothing in it is read
from what Ray keeps: a search goes on from its own log and its own checkpoints.
"""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from s2s_search.corpus.load import load_corpus
from s2s_search.display.progress import Progress
from s2s_search.errors import ConfigError, InputWarning, collecting, shown
from s2s_search.results.results import load
from s2s_search.runs.environment import environment
from s2s_search.runs.failures import AGAIN
from s2s_search.runs.folder import check_new, is_locked, new_folder, new_folder_of_its_own
from s2s_search.runs.inputs import corpus_of, space_of
from s2s_search.runs.recorder import Recorder
from s2s_search.runs.state import REPLICATES, History, load_history
from s2s_search.runs.storage import file_system
from s2s_search.runs.trackers import check_loggers
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.samplers import TPE, Listed, make_sampler, objective_values, replicated
from s2s_search.spaces.space import Space
from s2s_search.spaces.warnings import space_warnings
from s2s_search.statuses import ENDS
from s2s_search.tuning import cluster, running
from s2s_search.tuning.search import Outcome, Search
from s2s_search.tuning.worker import Train

RUNS = Path("runs")  # where a run folder is made that has no other place
NOTE_OF_REPLICATES = "# Replicates: the configurations are those listed in events.jsonl, and no scheduler stops them.\n"

# Words in the names of a URL's keys whose values are secret.
SECRETS = {
    *(
        "token",
        "secret",
        "password",
        "passwd",
        "passphrase",
        "pass",
        "pwd",
        "key",
        "keys",
        "apikey",
        "accesskey",
    ),
    *(
        "secretkey",
        "credential",
        "credentials",
        "sig",
        "signature",
        "sas",
        "auth",
        "authorization",
        "bearer",
    ),
}


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
    warm_start: Path | None = None,
    configs: Sequence[Flat] | None = None,
    replicates_of: Path | None = None,
    log: Sequence[str] = (),
    warn: Callable[[Sequence[InputWarning]], object] | None = None,
) -> Outcome:
    """Runs the trials of a space on a Ray of its own, or on the cluster at `address`, and fills the run folder `out`.

    Trial K is the K-th configuration of `space.trials(trials, seed, overrides)`, unless a tpe sampler chooses it. A
    trial that fails is a row of the tables and ends nothing, unless the first ones all fail alike. Ctrl-C, a SIGTERM or
    a SIGHUP ends the search within seconds with the tables of what was done; the Ray processes are gone when this
    returns, and `resume_search` goes on. Without `out` it makes a new folder in runs/, with the space's name and the
    time, and where that is there a number. `command` is written down with the versions; `train` may stand in for
    training.train. Checkpoints go to the run folder, or below the URL `storage`. `warm_start` is an earlier run folder
    from which a tpe sampler learns. With `configs` the trials are those, as they are: replicates of an earlier run.
    `log` names tools that hear of all trials (runs.trackers). `warn` gets the warnings of the space before it starts.

    Raises:
        ConfigError: with all problems, before a trial starts, and without a trace in `out`.
    """
    folder = (
        out or RUNS / f"{space.name.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    ).absolute()
    storage = os.path.abspath(storage) if storage is not None and "://" not in storage else storage
    problems: list[str] = []
    with collecting(problems, where=str(space.path)):
        sampler = make_sampler(space, trials, seed, overrides, configs)
    with collecting(problems):
        corpus = load_corpus(space.corpus)
    problems += cluster.ray_problems(space.resources, address)
    problems += _storage_problems(storage)
    with collecting(problems):
        check_loggers(log)
    with collecting(problems):
        if out is not None:
            check_new(folder)
    past = None
    with collecting(problems):
        if warm_start is not None:
            past = load_history(Path(warm_start))
            if space.search.method != "tpe":
                law = f"only search.method tpe learns from an earlier run, but method = {space.search.method}"
                raise ConfigError(f"--warm-start: {law}")
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
        configurations = (
            sampler.configs if isinstance(sampler, Listed) else fixed.trials(trials, seed)
        )
        warn(space_warnings(fixed, corpus, configurations))
    drawn = (trials, seed, overrides or {})
    search = Search(space, folder, sampler, corpus, *drawn, address, storage, progress, train, log)
    with search.recorder_open():
        about = environment(space, corpus, trials, seed, overrides, storage, command)
        more: dict[str, object] = {"log": list(log)}
        if configs is not None:
            more |= {"configs": list(configs), "replicates_of": str(replicates_of)}
        if past is not None:
            more |= {"warm_start": _ended(past, space)}
        search.recorder.begin(len(sampler), about, **more)
        if space.scheduler.name == "pbt":
            search.recorder.note(
                f"pbt changes what a checkpoint survives: {', '.join(space.mutable)}"
            )
        if past is not None and isinstance(sampler, TPE):
            taken, left_out = sampler.warm_start(_ended(past, space))
            search.recorder.note(
                f"warm start from {warm_start}: {taken} trials taken, {left_out} do not fit the space"
            )
        return running.run(search)


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
    """Goes on with the search of a run folder, however it ended; `say` gets its plan, line by line, before it starts.

    What has ended stays. Trials that have not ended go on from their newest checkpoint. The decisions of the past are
    made again from the log, so that scheduler and sampler are where they were. `trials` is a new number of trials to
    draw in all, `again` names statuses of trials to run again (failed, out_of_memory, lost), hours and gpu_hours are
    new budgets, `log` the tools that hear of what is left, None: those that heard so far. `corpus` says where the
    corpus lies now. Where nothing is left to do nothing is changed, but that a search which was killed at its very end
    is finished.

    Raises:
        ConfigError: no run folder, or one that another search uses, or the corpus is not the same.
    """
    folder = Path(out).absolute()
    history = load_history(folder)
    if is_locked(folder):
        Recorder(space_of(history, folder), folder).close()  # refused
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
        check_loggers(log)
    problems += cluster.ray_problems(space.resources, address)
    if problems:
        raise ConfigError(problems)
    run = Search(
        space, folder, sampler, data, *drawn, address, search.get("storage"), progress, train, log
    )
    if isinstance(sampler, TPE):
        sampler.warm_start(search.get("warm_start", ()))
    plan = run.recall(history, again)
    if not plan.going_on and not plan.new and not plan.closed:
        more = "--trials N adds more" if not again else f"none is {' or '.join(again)}"
        say(f"nothing to do: all {plan.ended} trials have ended; {more}")
        if history.status in ("finished", "failed"):
            return Outcome(history.status, folder, history.message)
        with run.recorder_open():  # it was killed, or out of budget, when all was done
            run.recorder.end("finished")
        return Outcome("finished", folder)
    for line in plan.lines():
        say(line)
    with run.recorder_open():
        run.recorder.resume(history, len(sampler), draws=drawn[0], log=list(log), **_budgets(space))
        for name, status in plan.closed.items():
            run.recorder.end_trial(name, status)
        for name in plan.going_on:
            cause = AGAIN if history.trials[name].status in again else "resume"
            run.recorder.restart(name, cause)
        return running.run(run)


def replicate_search(
    folder: Path,
    *,
    top: int,
    seeds: int,
    out: Path | None = None,
    address: str | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    train: Train | None = None,
    storage: str | None = None,
    log: Sequence[str] = (),
    corpus: Mapping[str, object] | None = None,
) -> Outcome:
    """Runs the best configurations of the run in `folder` again, each with other seeds, as a search of its own.

    They are the first `top` of `Results.best` that differ, each with `seeds` seeds that it has not had there. No
    scheduler stops them. `resume_search` goes on with them as with any search. `corpus` says where the corpus lies now.

    Raises:
        ConfigError: `folder` is no run folder, or a search uses it, or it was of pbt; too few configurations have a
            result; the corpus is not the same; and as `run_search`.
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
        everything = [trial.config for trial in history.trials.values()]
        configs = replicated(
            [history.trials[name].config for name in names], everything, top, seeds
        )
    with collecting(problems):
        corpus_of(space, history.fingerprint, folder)
    if problems:
        raise ConfigError(problems)
    replicates = replace(
        space,
        path=Path(history.search.get("space") or space.path),
        text=NOTE_OF_REPLICATES + space.text.removeprefix(NOTE_OF_REPLICATES),
        name=f"{space.name.removesuffix(REPLICATES)}{REPLICATES}",
        scheduler=replace(space.scheduler, name="none", interval_steps=None),
    )
    shared: dict[str, Any] = {
        "address": address,
        "command": command,
        "progress": progress,
        "train": train,
        "log": log,
    }
    return run_search(
        replicates,
        out=out,
        storage=storage,
        configs=configs,
        replicates_of=folder.absolute(),
        **shared,
    )


def _with_budgets(
    space: Space, before: Mapping[str, Any], hours: float | None, gpu_hours: float | None
) -> Space:
    """A space with new budgets, or those that the search went on with, or its own."""
    new = {"hours": hours, "gpu_hours": gpu_hours}
    known: dict[str, Any] = {
        name: value or before.get(name) or getattr(space.search, name)
        for name, value in new.items()
    }
    return replace(space, search=replace(space.search, **known))


def _budgets(space: Space) -> dict[str, object]:
    return {"hours": space.search.hours, "gpu_hours": space.search.gpu_hours}


def _storage_problems(storage: str | None) -> list[str]:
    if storage is None:
        return []
    try:
        parts = urlsplit(storage)
    except ValueError as error:
        return [f"--storage {storage}: is no URL: {error}"]
    if "://" in storage and (secrets := _secrets(parts)):
        law = "must hold no password or key, because it is recorded; give them by the environment"
        return [f"--storage {parts.scheme}://...: {law}; it has {' and '.join(secrets)}"]
    try:
        files, path = file_system(storage)
        files.create_dir(path, recursive=True)
    except Exception as error:  # PyArrow's, and those of the clouds
        return [f"--storage {storage}: cannot be used: {str(error).splitlines()[0]}"]
    return []


def _secrets(parts: SplitResult) -> list[str]:
    """What in a URL looks like a secret, without it: a password, the key of an S3 store, keys named so in its query.

    A name alone is none: hdfs://user@host, gs://anonymous@bucket and abfss://files@account are how these are written.
    """
    found = []
    if parts.password is not None:
        found.append("a password")
    elif parts.username is not None and parts.scheme in ("s3", "http", "https"):
        found.append("an access key")
    for text in (parts.query, parts.fragment):
        for name, _ in parse_qsl(text.replace(";", "&"), keep_blank_values=True):
            words = re.findall(
                "[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name
            )  # secret_key, X-Amz-Signature, accountKey
            if any(word.lower() in SECRETS for word in words):
                found.append(f"the key {shown(name)}")
    return found


def _ended(past: History, space: Space) -> list[tuple[dict[str, Any], list[float] | None, str]]:
    """The trials of a past that have ended: configurations, values of the objectives, statuses."""
    ended = past.of(*ENDS)
    return [(trial.config, objective_values(trial.best, space), trial.status) for trial in ended]
