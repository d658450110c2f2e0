"""Trained models on all sources of the dev or the test part, over seeds and examples.

Replicates of a configuration are measured in place of the trial that chose it. Nothing is trained,
and Ray is not needed: the models are spread over processes.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import time
from typing import NamedTuple

import numpy as np

from s2s_search.corpus.corpus import Corpus, Split
from s2s_search.errors import ConfigError, collecting, command, printable
from s2s_search.hparams.configuration import Hparams
from s2s_search.machine import usable_cores
from s2s_search.results.beside import LINKS, folders_beside
from s2s_search.results.evaluations import with_intervals
from s2s_search.results.kept import best_kept, kept_checkpoints
from s2s_search.results.replicates import seedless
from s2s_search.results.results import Results, load
from s2s_search.results.statistics import Floats
from s2s_search.runs.evaluations import Evaluated, Evaluation, MeasuredModel, Member, Sums
from s2s_search.runs.exported import ExportedModel
from s2s_search.runs.state import REPLICATES, History, TrialHistory, load_history
from s2s_search.runs.storage import shown_place
from s2s_search.statuses import COMPLETE
from s2s_search.whatif.processes import KILLED, processes_of

BEAM_WIDTH = "inference.beam_search.beam_width"
WITHOUT_CHECKPOINT = (
    "has no checkpoint: it made no report, or it is not among the best trials whose weights are "
    "kept (checkpoints.best)"
)


# --- which models ---


@dataclass(frozen=True)
class Checkpoint:
    """A trained model: the best checkpoint of a trial."""

    run: str  # the name of the run folder
    trial: str
    seed: int | None
    place: str  # a path or URL


@dataclass(frozen=True)
class Chosen:
    """A configuration to evaluate, with its models."""

    trial: str  # the trial of the run folder that names it
    models: Sequence[Checkpoint]
    fresh: bool  # False when the seeds are those that chose the configuration
    left_out: Sequence[str]  # a phrase for each model that does not count
    is_ensemble: bool = False  # whether the models answer together
    of_folder: str = ""  # the name of the folder of a debug run or an exported model

    @property
    def units(self) -> list[Sequence[Checkpoint]]:
        """The models that answer together, the best first: all of an ensemble, or one by one."""
        if self.is_ensemble:
            return [self.models]
        return [[model] for model in self.models]

    def about(self, folder: Path) -> Iterator[str]:
        """Yields sentences about the models, and about those that do not count."""
        if self.is_ensemble and len(self.models) > 1:
            named = ", ".join(f"{model.run}/{model.trial}" for model in self.models)
            yield f"ensemble of {len(self.models)}, the best first: {named}"
            return
        if self.of_folder:
            yield f"the model of {self.of_folder}"
            return
        seeds = ", ".join(str(model.seed) for model in self.models)
        many = "s" if len(self.models) > 1 else ""
        if self.fresh:
            runs = ", ".join(dict.fromkeys(model.run for model in self.models))
            yield f"{self.trial}: {len(self.models)} replicate{many} of {runs}, seed{many} {seeds}"
        else:
            again = command("replicate", folder, "--seeds", 5)
            yield (
                f"{self.trial}: there is no replicate, so it is measured with seed{many} {seeds}, "
                f"by which it was chosen; {again} trains the best with other seeds"
            )
        if self.left_out:
            yield f"{self.trial}: left out: {', '.join(self.left_out)}"


class TrialsOf:
    """A run folder with its trials by configuration."""

    def __init__(self, folder: Path, history: History, fetch: bool) -> None:
        self.folder, self.history, self.fetch = folder, history, fetch
        self.is_of_replicates = LINKS[REPLICATES] in history.search
        self.trials: dict[Hparams | str, list[TrialHistory]] = {}
        for trial in history.trials.values():
            self.trials.setdefault(seedless(trial.config), []).append(trial)

    @cached_property
    def results(self) -> Results:
        return load(self.folder)

    @cached_property
    def name(self) -> str:
        return printable(self.folder.absolute().name)

    def checkpoints(self, trials: Sequence[TrialHistory]) -> dict[str, str]:
        """Returns the places of the best checkpoints of those trials that have one."""
        names = [trial.name for trial in trials]
        return dict(kept_checkpoints(self.results, names, self.fetch))

    def checkpoint(self, trial: TrialHistory, place: str) -> Checkpoint:
        return Checkpoint(self.name, trial.name, seed_of(trial), place)


def seed_of(trial: TrialHistory) -> int | None:
    return trial.seed if isinstance(trial.seed, int) else None  # a log may hold anything


def choose(folder: Path, numbers: Sequence[int] = (), fetch: bool = False) -> list[Chosen]:
    """Returns the configurations to evaluate, each with the models that count.

    These are the replicates of the configuration: the finished trials of the run folders beside,
    or of this folder if it holds replicates. Without any, they are the trials of the search itself.

    Args:
        folder: the run folder.
        numbers: the trials that name the configurations. Without any it is the configuration with
            the best mean over replicates, or without replicates the best trial with a checkpoint.
        fetch: also look at the URL where the search saved its checkpoints.

    Raises:
        ConfigError: the folder is no run folder, or a trial is missing or has no checkpoint.
    """
    history = load_history(folder)
    search = TrialsOf(folder, history, fetch)
    replicates = []
    if search.is_of_replicates:
        replicates.append(search)
    else:
        for other in folders_beside(folder, history):
            replicates.append(TrialsOf(other, load_history(other), fetch))
    problems: list[str] = []
    chosen: dict[Hparams | str, Chosen] = {}
    if not numbers:
        numbers = [_best(search, replicates)]
    for number in numbers:
        with collecting(problems, where=str(folder)):
            trial = history.trial(number, str(folder))
            configuration = seedless(trial.config)
            if configuration not in chosen:
                chosen[configuration] = _chosen(trial, configuration, search, replicates)
    if problems:
        raise ConfigError(problems, str(folder))
    return list(chosen.values())


def choose_ensemble(folders: Sequence[Path], count: int, fetch: bool = False) -> Chosen:
    """Returns the ensemble of the `count` best checkpoints of several run folders.

    Raises:
        ConfigError: as `results.kept.best_kept`.
    """
    models = []
    for kept in best_kept(folders, count, fetch):
        name = printable(kept.folder.absolute().name)
        models.append(Checkpoint(name, kept.trial, None, kept.place))
    return Chosen(models[0].trial, models, fresh=False, left_out=(), is_ensemble=True)


def choose_debug_run(folder: Path) -> Chosen:
    """Returns the model of a debug run. Raises ConfigError when it has none."""
    (kept,) = best_kept([folder], 1)
    name = printable(kept.folder.absolute().name)
    model = Checkpoint(name, kept.trial, None, kept.place)
    return Chosen(kept.trial, [model], fresh=False, left_out=(), of_folder=name)


def choose_exported(folder: Path, described: ExportedModel) -> Chosen:
    """Returns the models of an exported folder, which answer together."""
    models = []
    for member in described.members:
        seed = member.hparams.get("train.seed")
        own = seed if isinstance(seed, int) else None
        models.append(Checkpoint(printable(member.run), member.trial, own, str(folder)))
    return Chosen(
        models[0].trial, models, fresh=False, left_out=(), is_ensemble=True, of_folder=folder.name
    )


def _best(search: TrialsOf, replicates: Sequence[TrialsOf]) -> int:
    """Returns the number of the best trial: by the mean of its replicates, if any was replicated.

    Raises:
        ConfigError: no trial has a checkpoint.
    """
    history, metric = search.history, search.history.search["metric"]
    ranked = [str(name) for name in search.results.best(None)["trial"]]
    best, best_mean = None, 0.0
    for name in ranked:
        configuration = seedless(history.trials[name].config)
        found = [
            trial.best[metric]
            for other in replicates
            for trial in other.trials.get(configuration, ())
            if trial.status in COMPLETE and trial.best is not None
        ]
        if found and (best is None or history.beats(float(np.mean(found)), best_mean)):
            best, best_mean = name, float(np.mean(found))
    if best is None:
        best = next(iter(search.checkpoints([history.trials[name] for name in ranked])), None)
    if best is None:
        raise ConfigError("no trial has a checkpoint yet", str(search.folder))
    return history.trials[best].number


def _chosen(
    trial: TrialHistory,
    configuration: Hparams | str,
    search: TrialsOf,
    replicates: Sequence[TrialsOf],
) -> Chosen:
    """Returns a configuration with its models. Raises ConfigError when it has none."""
    models, left_out = _models(configuration, replicates)
    fresh = bool(models)
    if not fresh:
        models, _ = _models(configuration, [search])
    if trial.name not in [model.trial for model in models] and not fresh:
        # It did not finish. Other seeds of its configuration may have made more steps.
        places = search.checkpoints([trial])
        models = [search.checkpoint(trial, place) for place in places.values()]
    if not models:
        raise ConfigError(f"{trial.name} {WITHOUT_CHECKPOINT}", str(search.folder))
    return Chosen(trial.name, models, fresh, left_out)


def _models(
    configuration: Hparams | str, searches: Sequence[TrialsOf]
) -> tuple[list[Checkpoint], list[str]]:
    """Returns the finished models of a configuration, and a phrase for each trial left out.

    A seed counts once: a trial with the same seed has the same numbers.
    """
    found: dict[int | None, Checkpoint] = {}
    left_out = []
    for search in searches:
        trials = search.trials.get(configuration, [])
        places = search.checkpoints(trials)
        for trial in trials:
            name, seed = f"{search.name}/{trial.name}", seed_of(trial)
            if trial.status not in COMPLETE:
                left_out.append(f"{name} ({trial.status.replace('_', ' ')})")
            elif trial.name not in places:
                left_out.append(f"{name} (no checkpoint)")
            elif seed in found:
                left_out.append(f"{name} (seed {seed} again)")
            else:
                found[seed] = search.checkpoint(trial, places[trial.name])
    return list(found.values()), left_out


# --- their numbers ---


class Part(NamedTuple):
    """A part of the batches of a split, which one process evaluates with one model."""

    model: int  # the place of the model among all
    checkpoints: tuple[str, ...]  # of an ensemble several
    beam: int | None
    number: int
    parts: int
    device: str


class Found(NamedTuple):
    """What a process found: the steps of the models, their beam width, and sums by source."""

    steps: tuple[int, ...]
    beam: int
    sums: Floats


def part_of(corpus: Corpus, split: str, folder: Path) -> Split:
    """Returns the dev or the test part. Raises ConfigError when there is no test part."""
    part: Split | None = getattr(corpus, split)
    if part is None:
        law = "the corpus of the search has no test part; it has train and dev"
        raise ConfigError(law, str(folder))
    return part


def evaluate(
    chosen: Sequence[Chosen],
    corpus: Corpus,
    split: str,
    beam: int | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Evaluation:
    """Measures configurations on all sources of a split.

    Args:
        chosen: the configurations with their models.
        corpus: the corpus of the search.
        split: "dev" or "test"; the corpus must have it.
        beam: the beam width; None: that of each configuration.
        say: gets a line after each part of the work.

    Raises:
        ConfigError: checkpoints cannot be read, or a process was killed.
    """
    part: Split = getattr(corpus, split)
    units = [unit for each in chosen for unit in each.units]
    found = _found(units, replace(corpus, train=part, dev=part, test=None), beam, say)
    trials, first = [], 0
    for each in chosen:
        of_trial = found[first : first + len(each.units)]
        kept = [_measured(unit, one) for unit, one in zip(each.units, of_trial, strict=True)]
        metrics = with_intervals([one.sums for one in of_trial], split)
        trials.append(Evaluated(each.trial, each.fresh, of_trial[0].beam, metrics, kept))
        first += len(each.units)
    return Evaluation(round(time(), 3), split, corpus.fingerprint, len(part.groups) - 1, trials)


def _measured(unit: Sequence[Checkpoint], found: Found) -> MeasuredModel:
    """Returns what is kept of a model, or of an ensemble."""
    first, *others = zip(unit, found.steps, strict=True)
    model, step = first
    return MeasuredModel(
        model.run,
        model.trial,
        model.seed,
        step,
        Sums.of(found.sums.tolist()),
        [Member(other.run, other.trial, of_other) for other, of_other in others],
    )


def _found(
    units: Sequence[Sequence[Checkpoint]],
    corpus: Corpus,
    beam: int | None,
    say: Callable[[str], object],
) -> list[Found]:
    """Returns what each model or ensemble answers to the dev part of the corpus, by source."""
    import torch

    gpus = torch.cuda.device_count()
    processes = gpus or usable_cores()
    parts = -(-processes // len(units))  # so that no process is without work
    work: list[Part] = []
    for number in range(parts):
        for place, unit in enumerate(units):
            device = f"cuda:{len(work) % gpus}" if gpus else "cpu"
            places = tuple(dict.fromkeys(model.place for model in unit))
            work.append(Part(place, places, beam, number, parts, device))
    found: dict[int, Found] = {}
    problems: list[str] = []
    ended = 0
    with processes_of(min(processes, len(work))) as pools:
        waiting = {}
        for position, each in enumerate(work):
            waiting[pools[position % len(pools)].submit(evaluate_part, corpus, each)] = each
        for done in as_completed(waiting):
            each = waiting[done]
            with collecting(problems):
                try:
                    one = done.result()
                except BrokenExecutor:
                    raise ConfigError(KILLED) from None
                if each.model in found:
                    one = one._replace(sums=found[each.model].sums + one.sums)
                found[each.model] = one
            model = units[each.model][0]
            ended += 1
            say(f"{ended} of {len(work)}: {model.run}/{model.trial}")
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return [found[place] for place in range(len(units))]


def evaluate_part(corpus: Corpus, part: Part) -> Found:
    """Returns what a model or an ensemble answers to a part of the dev sources of a corpus.

    Raises:
        ConfigError: a checkpoint cannot be read, or its vocabularies are not those of the corpus.
    """
    import torch

    from s2s_search.training.ensemble import load_ensemble
    from s2s_search.training.evaluation import source_sums

    torch.set_num_threads(1)
    overrides: dict[str, object] = {"train.eval_examples": 0}
    if part.beam is not None:
        overrides[BEAM_WIDTH] = part.beam
    trained = load_ensemble(part.checkpoints, overrides)
    vocabularies = corpus.source_vocab, corpus.target_vocab
    if (trained.source_vocab, trained.target_vocab) != vocabularies:
        law = "the vocabularies of the model are not those of the corpus"
        raise ConfigError(law, shown_place(part.checkpoints[0]))
    model = trained.model.to(part.device)
    sums = source_sums(
        model, corpus.dev, corpus, trained.hparams, part.number, part.parts, trained.cells
    )
    return Found(trained.steps, trained.hparams[BEAM_WIDTH], sums)
