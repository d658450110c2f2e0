"""Warnings about a search before it starts: what is accepted, though it is probably a mistake.

`space_warnings` collects them: those of the corpus (corpus/warnings.py), and those of settings that
do not fit each other or the corpus.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from s2s_search.corpus.corpus import Corpus
from s2s_search.errors import InputWarning, noticed, percent
from s2s_search.hparams.table import TABLE
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.load import longest_training
from s2s_search.spaces.rungs import brackets
from s2s_search.spaces.space import Space

BLEU = "dev.bleu"
BLEU_ORDER = 4  # the number of tokens in the longest n-grams that BLEU counts
MANY_SHORT = 0.25  # the share of short references that is worth a warning
FEWEST_FOR_MEDIAN = 4  # trials: one, and three others to compare it with


def space_warnings(
    space: Space, corpus: Corpus | None, trials: Sequence[Flat]
) -> list[InputWarning]:
    """Returns the warnings of a search in the order of their lines in the file of the space.

    Args:
        space: the space.
        corpus: the corpus; without it, there are no warnings about text.
        trials: the configurations that the search runs.
    """
    found = [*budgets(space), *comparisons(space, trials), *idle_gpus(space)]
    if corpus is not None:
        found += corpus.warnings
        found += cut_sequences(corpus, space.corpus, trials)
        found += short_references(space, corpus)
    return sorted(_with_lines(found, space), key=lambda warning: warning.at)


def _with_lines(found: Iterable[InputWarning], space: Space) -> list[InputWarning]:
    return [replace(warning, at=space.line(warning.key_path)) for warning in found]


def corpus_warnings(
    corpus: Corpus,
    spec: Mapping[str, object],
    trials: Sequence[Mapping[str, object]],
    space: Space | None,
) -> list[InputWarning]:
    """Returns the warnings about a corpus, and about the lengths that trials on it have.

    Args:
        corpus: the corpus.
        spec: the specification of the corpus.
        trials: the configurations of the trials.
        space: the space whose file gives lines; None when there is none.
    """
    found = [*corpus.warnings, *cut_sequences(corpus, spec, trials)]
    return found if space is None else _with_lines(found, space)


def least_limit(key: str, trials: Sequence[Mapping[str, object]]) -> int:
    """Returns the smallest value of a max_seq_len in trials."""
    return min(int(str(trial.get(key, TABLE[key].default))) for trial in trials)


def cut_sequences(
    corpus: Corpus, spec: Mapping[str, object], trials: Sequence[Mapping[str, object]]
) -> Iterator[InputWarning]:
    """Warns of training sequences that max_seq_len cuts.

    Where max_seq_len is searched, its smallest value counts. A toy task with default lengths has no
    such warning under the default of max_seq_len. The longest sequences lose their end there, but
    the user has chosen neither.
    """
    import numpy as np

    has_default_lengths = "name" in spec and "max_length" not in spec
    # The last numbers count the special tokens: END, and START and END.
    sides = (
        ("source", corpus.train.source_offsets, 1),
        ("target", corpus.train.target_offsets, 2),
    )
    for side, offsets, specials in sides:
        key = f"{side}.max_seq_len"
        limit = least_limit(key, trials)
        if has_default_lengths and limit == TABLE[key].default:
            continue
        lengths = np.diff(offsets) + specials
        total = len(lengths)
        cut = int((lengths > limit).sum())
        if noticed(cut, total):
            longest = int(lengths.max())
            sentence = f"{limit} cuts {cut:,} of {total:,} {side}s of train"
            sentence += f" ({percent(cut, total)}), which lose their ends"
            hint = f"{longest:,} cuts none, special tokens included"
            enough = int(np.quantile(lengths, 0.99, method="higher"))
            if enough < longest:
                hint = f"{enough:,} cuts at most one in a hundred, {hint}"
            values = {"cut": cut, "of": total, "longest": longest}
            yield InputWarning(("parameters", key), sentence, values, hint)


def short_references(space: Space, corpus: Corpus) -> Iterator[InputWarning]:
    """Warns of BLEU as an objective when many references are shorter than its longest n-grams."""
    import numpy as np

    if BLEU not in [objective.name for objective in space.objectives]:
        return
    lengths = np.diff(corpus.dev.target_offsets)
    total = len(lengths)
    short = int((lengths < BLEU_ORDER).sum())
    if short < MANY_SHORT * total:
        return
    sentence = f"BLEU counts {BLEU_ORDER} tokens in a row, but {short:,} of {total:,} references"
    sentence += f" of dev have fewer ({percent(short, total)})"
    if short == total:
        sentence += ", so that it is 0 for perfect answers"
    key_path = ("metric", "name") if space.metric.name == BLEU else ("objectives",)
    hint = "dev.error_rate counts tokens one by one"
    yield InputWarning(key_path, sentence, {"short": short, "of": total}, hint)


def budgets(space: Space) -> Iterator[InputWarning]:
    """Warns when all trials end before scheduler.max_steps, from which the rungs are computed."""
    longest = longest_training(space.dimensions)
    steps = space.scheduler.max_steps
    if longest is not None and longest < steps:
        sentence = f"trials end at {longest:,} steps, but scheduler.max_steps = {steps:,}"
        sentence += " decides at which steps the scheduler compares trials"
        values = {"train.max_steps": longest, "scheduler.max_steps": steps}
        hint = "give one of the two, or the same number to both"
        yield InputWarning(("parameters", "train.max_steps"), sentence, values, hint)


def idle_gpus(space: Space) -> Iterator[InputWarning]:
    """Warns of more than one GPU for a trial, which trains on one."""
    gpus = space.resources.gpu
    if gpus > 1:
        sentence = f"a trial trains on one GPU, so that {gpus - 1:g} of its {gpus:g} stay idle"
        yield InputWarning(("resources", "gpu"), sentence, {"gpu": gpus}, "resources.gpu: 1")


def comparisons(space: Space, trials: Sequence[Flat]) -> Iterator[InputWarning]:
    """Warns when the scheduler can compare nothing, or when reports come too late for it."""
    scheduler, name = space.scheduler, space.scheduler.name
    key_path = ("scheduler", "name")
    if name == "none":
        return
    if name == "median" and len(trials) < FEWEST_FOR_MEDIAN:
        sentence = "median compares a trial with three others at least,"
        sentence += f" but there are {len(trials)} trials"
        hint = "scheduler.name: asha needs fewer"
        yield InputWarning(key_path, sentence, {"trials": len(trials)}, hint)
        return
    late: list[
        tuple[int, int]
    ] = []  # steps between reports, and steps in all, of trials that report too late
    due = first_comparisons(space, len(trials))
    for trial, step in zip(trials, due, strict=True):
        default = TABLE["train.eval_every_steps"].default
        every = int(str(trial.get("train.eval_every_steps", default)))
        end = int(str(trial.get("train.max_steps", scheduler.max_steps)))
        last = (end - 1) // every * every  # the last report before the end
        if step is not None and (last == 0 or last < step):
            late.append((every, end))
    asked = [step for step in due if step is not None]
    if not asked:
        sentence = f"hyperband never compares: all {len(trials)} trials are in the bracket"
        sentence += " that runs to its end"
        hint = "more trials fill other brackets"
        yield InputWarning(key_path, sentence, {"trials": len(trials)}, hint)
    elif late:
        (every, end), _ = Counter(late).most_common(1)[0]
        whom = "any trial"
        if len(late) < len(asked):
            whom = f"{len(late):,} of {len(asked):,} trials"
        verb = "mutates" if name == "pbt" else "compares"
        first = math.ceil(min(asked))
        sentence = f"{name} never {verb} {whom}: it begins at step {first:,}, but they report"
        sentence += f" every {every:,} steps and end at {end:,}"
        values = {
            "trials": len(late),
            "first": first,
            "train.eval_every_steps": every,
            "train.max_steps": end,
        }
        if first < end:
            hint = f"train.eval_every_steps: {first} reports in time"
        else:
            hint = "it must begin before their end; scheduler.name: none does the same"
        yield InputWarning(key_path, sentence, values, hint)


def first_comparisons(space: Space, trials: int) -> list[float | None]:
    """Returns the step at which the scheduler first looks at each trial.

    It is None for trials in the bracket of hyperband that halves nothing.
    """
    scheduler = space.scheduler
    if scheduler.name == "freeze_thaw":  # it compares at every report
        return [1] * trials
    if scheduler.name != "hyperband":
        return [scheduler.interval_steps or scheduler.grace_steps] * trials
    first: list[float | None] = []
    for bracket in brackets(scheduler, trials):
        step = bracket[0].step if len(bracket) > 1 else None
        first += [step] * round(bracket[0].trials)
    return first
