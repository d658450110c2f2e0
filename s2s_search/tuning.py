"""A search on Ray Tune: many trials at once, the hopeless ones stopped early by ASHA.

    Space.trials() -> configurations -> Ray Tune -> trainable -> train() -> reports -> Recorder -> run folder, display

Ray places the trials, runs them and asks the scheduler. The run folder (docs/results.md) is written by us alone, and
nothing in it is read from what Ray keeps. The one file that imports Ray.
"""

import contextlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.result import AUTO_RESULT_KEYS
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from s2s_search import results
from s2s_search.corpus import Corpus, load_corpus
from s2s_search.progress import Interrupt, Progress
from s2s_search.recorder import ERROR, Config, Recorder, environment, resolved
from s2s_search.spaces import Resources, Space
from s2s_search.table import ConfigError

Train = Callable[..., Iterable[Any]]  # (hparams, corpus, device) -> reports: training.train, or a stand-in for it

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative path means in a trial what it means here
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints even with verbose=0
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "TUNE_MAX_PENDING_TRIALS_PG": "32",  # the driver looks through all that wait
}
# Ray protects a cluster that it starts with a token, which it reads once in a process. Where one is given, it writes
# none to the home folder.
RAY_TOKEN = secrets.token_hex(32)
TOKEN = "if it asks for a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file that holds it"
RAY_LOG = "ray.log"
NUMBER, HPARAMS = "number", "hparams"  # of Tune's configuration of a trial; the latter are JSON, one value to Tune
NOT_THE_ERROR = re.compile(r"\x1b\[[0-9;]*m|^Failure # .*\n", re.MULTILINE)  # in Ray's error files
RAY_KEYS = {*AUTO_RESULT_KEYS, "done", "trial_id", "experiment_tag"}


# --- a trial ---


def trainable(
    config: Config,
    corpus: Corpus | None = None,
    folder: Path | None = None,
    metric: str = "dev.loss",
    goal: str = "minimize",
    train: Train | None = None,
) -> None:
    """Runs one trial inside Ray Tune: trains by `config` and passes every report on.

    Everything is built and seeded from `config`, so that a process that ran other trials before gives the same
    numbers as a fresh one. The newest snapshot and the one of the best report are kept as last.pt and best.pt in the
    trial's folder below `folder`, without `folder` in Ray's own. Without a corpus it is cmudict.
    """
    began = time.perf_counter()
    import torch  # slow to import, and the process that drives the search needs none

    from s2s_search import training

    context = tune.get_context()
    place = Path(context.get_trial_dir()) if folder is None else folder / context.get_trial_name()
    place.mkdir(parents=True, exist_ok=True)
    needs = context.get_trial_resources().required_resources
    torch.set_num_threads(max(1, int(needs.get("CPU", 1))))
    device = "cuda" if needs.get("GPU", 0) > 0 else "cpu"
    try:
        corpus = corpus or load_corpus({"name": "cmudict"})
        _pass_on((train or training.train)(resolved(config), corpus, device), place, metric, goal, began)
    except Exception:
        text = traceback.format_exc()
        (place / ERROR).write_text(text, encoding="utf-8")
        raise RuntimeError(results.error_message(text)) from None  # of a kind that Ray can copy
    except SystemExit as stop:  # the scheduler's
        traceback.clear_frames(stop.__traceback__)  # they hold the model
        raise
    finally:
        torch.cuda.empty_cache()  # for the trials that share the GPU
        training.release_freed_memory()


def _pass_on(reports: Iterable[Any], place: Path, metric: str, goal: str, began: float) -> None:
    """Passes the reports of a trial that began at `began` on to Tune, with the seconds that are not of training."""
    from s2s_search.training import keep_snapshots

    start, waiting = math.nan, 0.0
    for report in keep_snapshots(reports, place, metric, goal):
        metrics = guarded(report.metrics)
        now = time.perf_counter()
        if math.isnan(start):  # until now it has started, trained and written a snapshot, nothing else
            start = max(now - began - metrics["seconds"] - metrics["snapshot_seconds"], 0.0)
        tune.report(metrics | {"start_seconds": start, "waiting_seconds": waiting})
        waiting += time.perf_counter() - now
        if metrics["status"] == "diverged":
            return


def guarded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a report, or where one is not finite those of a diverged trial: no scheduler can rank a NaN."""
    from s2s_search.training import WORST

    finite = {key: value for key, value in metrics.items() if not isinstance(value, float) or math.isfinite(value)}
    return finite if len(finite) == len(metrics) else finite | WORST | {"status": "diverged"}


# --- a search ---


@dataclass(frozen=True)
class Outcome:
    """How a search ended, finished or interrupted, and where its tables are."""

    status: str
    folder: Path


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
) -> Outcome:
    """Runs the trials of a space on a Ray of its own, or on the cluster at `address`, and fills the run folder `out`.

    Trial K is the K-th configuration of `space.trials(trials, seed, overrides)`. A trial that fails is a row of the
    tables and ends nothing. Ctrl-C ends the search within seconds with the tables of what was done; the Ray processes
    are gone when this returns. `command` is written down with the versions; `train` may stand in for training.train.

    Raises:
        ConfigError: with all problems, before a trial starts, and without a trace in `out`.
    """
    folder = Path(out).absolute()
    configs, corpus = _prepare(space, folder, trials, seed, overrides, address)
    interrupt = Interrupt()
    recorder = Recorder(space, folder, progress)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / RAY_LOG, "w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(log))  # Ray prints how its workers died
        stack.enter_context(_ray_environment(address))
        stack.enter_context(interrupt)
        stack.callback(_leave_ray)
        if progress is not None:
            stack.callback(progress.close)
        try:
            recorder.begin(len(configs), environment(space, corpus, seed, overrides, command))
            if progress is not None:
                progress.note("starting Ray" if address is None else f"joining the cluster at {address}")
            _join_ray(address, space.resources)
            interrupt.check()
            _tuner(configs, corpus, space, folder, train, Listener(recorder, interrupt)).fit()
            interrupt.hold()
            recorder.end("finished")
        except KeyboardInterrupt:
            recorder.end("interrupted")
        except ConfigError:
            shutil.rmtree(folder)
            raise
        except BaseException as error:
            interrupt.hold()
            recorder.end("failed", f"{type(error).__name__}: {error}")
            raise
    return Outcome(recorder.status, folder)


class Listener(tune.Callback):
    """Passes on what Tune tells, and interrupts it between two of its steps."""

    def __init__(self, recorder: Recorder, interrupt: Interrupt) -> None:
        self.recorder, self.interrupt = recorder, interrupt

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Ray pickles its callbacks into its own state: of this one nothing."""
        return tune.Callback, ()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: object) -> None:
        self.interrupt.check()

    def on_step_end(self, iteration: int, trials: list[Any], **info: object) -> None:
        self.recorder.tick()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        self.recorder.begin_trial(str(trial), _hparams(trial.config))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: object
    ) -> None:
        self.recorder.report(str(trial), {key: value for key, value in result.items() if key not in RAY_KEYS})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        status = trial.last_result.get("status", "finished")
        self.recorder.end_trial(str(trial), "stopped" if status == "running" else status)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        self.recorder.begin_trial(str(trial), _hparams(trial.config))  # it may have failed before it started
        text = Path(trial.error_file).read_text(encoding="utf-8")
        self.recorder.fail_trial(str(trial), NOT_THE_ERROR.sub("", text))


# --- before the start ---


def _prepare(
    space: Space,
    folder: Path,
    trials: int | None,
    seed: int | None,
    overrides: Mapping[str, object] | None,
    address: str | None,
) -> tuple[list[dict[str, Any]], Corpus]:
    """Draws the configurations, loads the corpus and makes the folder, or raises ConfigError with all that is wrong."""
    problems: list[str] = []
    with _collected(problems):
        configs = space.trials(trials, seed, overrides)
    with _collected(problems):
        corpus = load_corpus(space.corpus)
    problems += _ray_problems(space.resources, address)
    with _collected(problems):
        results.check_new(folder)
    if not problems:
        with _collected(problems):
            results.new_folder(folder)
    if problems:
        raise ConfigError(problems, str(space.path))
    return configs, corpus


@contextlib.contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        problems += [f"{error.where}: {problem}" if error.where else problem for problem in error.problems]


def _ray_problems(resources: Resources, address: str | None) -> list[str]:
    if ray.is_initialized():
        return ["this process has a Ray already: call ray.shutdown() first, or search from another process"]
    if address is not None:
        return _address_problems(address)
    gpus = 0
    if resources.gpu > 0:
        import torch

        gpus = torch.cuda.device_count()
    return resource_problems(resources, [{"CPU": os.cpu_count() or 1, "GPU": gpus}])


def _address_problems(address: str) -> list[str]:
    host, _, port = address.rpartition(":")
    if address == "auto":
        return []
    if not host or "/" in host or not port.isdigit():  # ray:// is for clients outside the cluster
        return [f"address {address!r}: must be auto, or the HOST:PORT of the cluster's head as its nodes see it"]
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()  # Ray would wait for minutes
    except (OSError, OverflowError) as error:
        return [f"address {address!r}: no Ray cluster answers there: {error}"]
    return []


def resource_problems(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> list[str]:
    """Says what is wrong when no single node can ever hold a trial."""
    if any(resources.cpu <= node.get("CPU", 0) and resources.gpu <= node.get("GPU", 0) for node in nodes):
        return []
    largest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
    wanted = f"{resources.cpu:g} CPU and {resources.gpu:g} GPU"
    found = f"{largest.get('CPU', 0):g} CPU and {largest.get('GPU', 0):g} GPU"
    return [f"resources: a trial must fit on one node, but it needs {wanted}, and the largest node has {found}"]


# --- Ray ---


@contextlib.contextmanager
def _ray_environment(address: str | None) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(RAY_ENVIRONMENT | before)  # what the user has set wins
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", RAY_TOKEN)
    try:
        yield
    finally:
        for key in set(os.environ) - set(before):
            del os.environ[key]


def _join_ray(address: str | None, resources: Resources) -> None:
    """Starts a Ray of our own, or joins the one at an address; it must have a node that is large enough."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ray.exceptions.RayError) as error:
        reason = getattr(error, "message", error)
        raise ConfigError(f"no Ray cluster can be joined: {reason}; {TOKEN}", f"address {address!r}") from None
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    problems = resource_problems(resources, [node["Resources"] for node in nodes if node["Alive"]])
    if problems:
        raise ConfigError(problems)


def _leave_ray() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        ray.shutdown()


def _tuner(
    configs: Sequence[Config], corpus: Corpus, space: Space, folder: Path, train: Train | None, listener: Listener
) -> tune.Tuner:
    metric = space.metric

    def run(config: Mapping[str, Any], corpus: Corpus | None = None) -> None:
        trainable(_hparams(config), corpus, folder, metric.name, metric.goal, train)

    resources = {"cpu": space.resources.cpu, "gpu": space.resources.gpu}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(run, corpus=corpus), resources),
        tune_config=tune.TuneConfig(
            metric=metric.name,
            mode="min" if metric.goal == "minimize" else "max",
            scheduler=_scheduler(space),
            search_alg=Configurations(configs),
            num_samples=len(configs),
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(name="ray", storage_path=str(folder), callbacks=[listener], verbose=0),
    )


class Configurations(tune.search.Searcher):
    """Hands one configuration a trial to Tune, in their order. (Of a grid Tune makes a copy for every trial.)"""

    def __init__(self, configs: Sequence[Config]) -> None:
        super().__init__()
        self.configs = enumerate(configs)

    def suggest(self, trial_id: str) -> Any:
        for number, config in self.configs:
            return {NUMBER: number, HPARAMS: json.dumps(config)}
        return tune.search.Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None: ...


def _name(trial: Any) -> str:
    """Names the K-th configuration trial-0000K."""
    return f"trial-{trial.config[NUMBER]:05d}"


def _hparams(config: Mapping[str, Any]) -> Config:
    """The hyperparameters of a trial, from Tune's configuration of it."""
    hparams: Config = json.loads(config[HPARAMS])
    return hparams


def _scheduler(space: Space) -> TrialScheduler:
    scheduler = space.scheduler
    if scheduler.name == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    return AsyncHyperBandScheduler(
        time_attr="step",
        max_t=scheduler.max_steps,
        grace_period=scheduler.grace_steps,
        reduction_factor=scheduler.reduction_factor,
        stop_last_trials=False,  # a trial ends by itself; else Tune compares late reports at rungs long passed
    )
