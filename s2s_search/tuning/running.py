"""Runs a search on Ray Tune: joins Ray, runs the trials, and leaves Ray.

Ray Tune's loop (`Tuner.fit`) runs in the driver's main thread. From there it calls the callback,
the scheduler and the source of trials. Each trial runs in a worker process.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from ray import tune

from s2s_search.corpus.corpus import Corpus
from s2s_search.errors import ConfigError
from s2s_search.interrupts import Interrupt
from s2s_search.methods.samplers import Listed
from s2s_search.runs.folder import RAY, RAY_LOG
from s2s_search.tuning import cluster
from s2s_search.tuning.callback import Listener, Over
from s2s_search.tuning.search import HPARAMS_KEY, Outcome, Search
from s2s_search.tuning.trials import Trials
from s2s_search.tuning.worker import trainable


def run_trials(search: Search) -> Outcome:
    """Runs the trials that are left. It returns when the processes of Ray are gone."""
    recorder, interrupt = search.recorder, Interrupt()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(search.folder / RAY_LOG, "a", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(log))  # Ray prints how its workers died
        stack.enter_context(cluster.ray_environment(search.address))
        stack.enter_context(interrupt)
        stack.callback(cluster.leave_ray)
        if search.progress is not None:
            stack.callback(search.progress.close)
            search.progress.note(
                "starting Ray"
                if search.address is None
                else f"joining the cluster at {search.address}"
            )
        begun = False
        try:
            cluster.join_ray(search.address, search.space.resources)
            interrupt.listen()
            _check_disk(search)
            interrupt.check()
            trials = Trials(search)
            with cluster.room_for("the corpus"):
                tuner = _tuner(search, trials, Listener(search, trials, interrupt))
            begun = True
            tuner.fit()
            interrupt.hold()
            recorder.end("finished")
        except KeyboardInterrupt:
            recorder.end("interrupted")
        except Over as over:
            interrupt.hold()
            recorder.end(over.status, str(over))
        except BaseException as error:
            interrupt.hold()
            if begun or not isinstance(error, ConfigError):
                recorder.end("failed", f"{type(error).__name__}: {error}")
            elif search.before is not None:
                recorder.end(
                    "interrupted" if search.before == "running" else search.before, str(error)
                )
            else:
                shutil.rmtree(search.folder)  # a new search that was refused leaves no folder
            raise
    return Outcome(recorder.status, search.folder, recorder.message)


def _check_disk(search: Search) -> None:
    if search.space.checkpoints.disk_gb is not None:
        # Imported late: it needs torch, whose optimizers know their slots.
        from s2s_search.tuning.disk import check_disk

        if isinstance(search.sampler, Listed):
            trials = search.sampler.configs
        else:
            trials = search.space.trials(search.draws, search.seed, search.overrides)
        at_once = search.space.search.at_once(cluster.slots(search.space.resources))
        check_disk(search.space, search.corpus, trials, at_once)


def _tuner(search: Search, trials: Trials, listener: Listener) -> tune.Tuner:
    metric, corpus = search.space.metric, search.corpus
    place, train, pausing = (
        search.storage or search.folder,
        search.train,
        search.space.scheduler.pauses,
    )

    def run(config: Mapping[str, Any], corpus: Corpus | None = None) -> None:
        trainable(
            json.loads(config[HPARAMS_KEY]), corpus, place, metric.name, metric.goal, train, pausing
        )

    resources = {"cpu": search.space.resources.cpu, "gpu": search.space.resources.gpu}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(run, corpus=corpus), resources),
        tune_config=tune.TuneConfig(
            metric=metric.name,
            mode="min" if metric.goal == "minimize" else "max",
            scheduler=search.scheduler,
            search_alg=trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"ray-{os.getpid()}",
            storage_path=str(search.folder / RAY),
            callbacks=[listener],
            verbose=0,
        ),
    )
