"""What a search is warned of before it starts: accepted, though hardly anyone wants it.

`space_warnings` collects all: of the corpus (text_warnings.py), and of settings that do not fit each other or it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from s2s_search.corpus.corpus import Corpus
from s2s_search.errors import InputWarning, noticed, percent
from s2s_search.hparams.table import TABLE
from s2s_search.spaces.dimensions import Flat
from s2s_search.spaces.load import longest_training
from s2s_search.spaces.rungs import brackets
from s2s_search.spaces.space import Space

BLEU = "dev.bleu"
BLEU_ORDER = 4  # tokens of the longest n-grams that BLEU counts
MANY_SHORT = 0.25  # of all references
FEWEST_FOR_MEDIAN = 4  # a trial and three others


def space_warnings(
    space: Space, corpus: Corpus | None, trials: Sequence[Flat]
) -> list[InputWarning]:
    """Returns the warnings of a search, each with its line in the space's file; without a corpus, none of its text."""
    found = [*budgets(space), *comparisons(space, trials), *idle_gpus(space)]
    if corpus is not None:
        found += [
            *corpus.warnings,
            *cut_sequences(corpus, space.corpus, trials),
            *short_references(space, corpus),
        ]
    return sorted(
        (replace(warning, at=space.line(warning.place)) for warning in found),
        key=lambda found: found.at,
    )


def trial_warnings(
    corpus: Corpus, spec: Mapping[str, object], config: Mapping[str, object], space: Space | None
) -> list[InputWarning]:
    """Returns the warnings of one trial alone, of a space or of none."""
    found = [*corpus.warnings, *cut_sequences(corpus, spec, [config])]
    return (
        found
        if space is None
        else [replace(warning, at=space.line(warning.place)) for warning in found]
    )


def cut_sequences(
    corpus: Corpus, spec: Mapping[str, object], trials: Sequence[Mapping[str, object]]
) -> Iterator[InputWarning]:
    """The share of training sequences that max_seq_len cuts; where it is searched, under its smallest value.

    Not of a toy task whose lengths are the default, under the default of max_seq_len: there the longest lose their end,
    but nobody chose that.
    """
    import numpy as np

    is_toy_as_it_is = "name" in spec and "max_length" not in spec
    sides = {"source": corpus.train.source_offsets, "target": corpus.train.target_offsets}
    for specials, (side, offsets) in enumerate(
        sides.items(), start=1
    ):  # END, and before a target START
        key = f"{side}.max_seq_len"
        limit = min(int(str(trial.get(key, TABLE[key].default))) for trial in trials)
        lengths = np.diff(offsets) + specials
        cut, total, longest = int((lengths > limit).sum()), len(lengths), int(lengths.max())
        if is_toy_as_it_is and limit == TABLE[key].default:
            continue
        if noticed(cut, total):
            sentence = f"{limit} cuts {cut:,} of {total:,} {side}s of train ({percent(cut, total)}), which lose their ends"
            enough = int(np.quantile(lengths, 0.99, method="higher"))
            some = f"{enough:,} cuts at most one in a hundred, " if enough < longest else ""
            hint = f"{some}{longest:,} cuts none, special tokens included"
            yield InputWarning(
                ("parameters", key), sentence, {"cut": cut, "of": total, "longest": longest}, hint
            )


def short_references(space: Space, corpus: Corpus) -> Iterator[InputWarning]:
    """BLEU as an objective where references are shorter than its longest n-grams."""
    import numpy as np

    if BLEU not in [objective.name for objective in space.objectives]:
        return
    lengths = np.diff(corpus.dev.target_offsets)
    short, total = int((lengths < BLEU_ORDER).sum()), len(lengths)
    if short < MANY_SHORT * total:
        return
    share = percent(short, total)
    sentence = f"BLEU counts {BLEU_ORDER} tokens in a row, but {short:,} of {total:,} references of dev have fewer ({share})"
    if short == total:
        sentence += ", so that it is 0 for perfect answers"
    place = ("metric", "name") if space.metric.name == BLEU else ("objectives",)
    yield InputWarning(
        place, sentence, {"short": short, "of": total}, "dev.error_rate counts tokens one by one"
    )


def budgets(space: Space) -> Iterator[InputWarning]:
    """scheduler.max_steps, by which rungs are placed, above the train.max_steps of every trial."""
    longest, steps = longest_training(space.dimensions), space.scheduler.max_steps
    if longest is not None and longest < steps:
        sentence = f"trials end at {longest:,} steps, but scheduler.max_steps = {steps:,} places what the scheduler compares"
        values = {"train.max_steps": longest, "scheduler.max_steps": steps}
        yield InputWarning(
            ("parameters", "train.max_steps"), sentence, values, "give one of the two, or the same"
        )


def idle_gpus(space: Space) -> Iterator[InputWarning]:
    """More than one GPU for a trial, which trains on one."""
    gpus = space.resources.gpu
    if gpus > 1:
        sentence = f"a trial trains on one GPU, so that {gpus - 1:g} of its {gpus:g} stay idle"
        yield InputWarning(("resources", "gpu"), sentence, {"gpu": gpus}, "resources.gpu: 1")


def comparisons(space: Space, trials: Sequence[Flat]) -> Iterator[InputWarning]:
    """Trials that end before the scheduler has anything to compare: their reports come too late."""
    scheduler, name = space.scheduler, space.scheduler.name
    if name == "none":
        return
    verb = "mutates" if name == "pbt" else "compares"
    if name == "median" and len(trials) < FEWEST_FOR_MEDIAN:
        sentence = f"median compares a trial with three others at least, but there are {len(trials)} trials"
        yield InputWarning(
            ("scheduler", "name"),
            sentence,
            {"trials": len(trials)},
            "scheduler.name: asha needs fewer",
        )
        return
    late, due = list[tuple[int, int]](), first_comparisons(space, len(trials))
    for trial, step in zip(trials, due, strict=True):
        every = int(
            str(trial.get("train.eval_every_steps", TABLE["train.eval_every_steps"].default))
        )
        end = int(str(trial.get("train.max_steps", scheduler.max_steps)))
        last = (end - 1) // every * every  # the last report of a trial that goes on
        if step is not None and (last == 0 or last < step):
            late.append((every, end))
    asked = [step for step in due if step is not None]
    if not asked:
        sentence = f"hyperband never compares: all {len(trials)} trials are in the bracket that runs to its end"
        yield InputWarning(
            ("scheduler", "name"),
            sentence,
            {"trials": len(trials)},
            "more trials fill other brackets",
        )
    elif late:
        (every, end), _ = Counter(late).most_common(1)[0]
        whom = "" if len(late) == len(asked) else f" {len(late):,} of {len(asked):,} trials"
        first = math.ceil(min(asked))
        reports = f"they report every {every:,} steps and end at {end:,}"
        sentence = (
            f"{name} never {verb}{whom or ' any trial'}: it begins at step {first:,}, but {reports}"
        )
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
        yield InputWarning(("scheduler", "name"), sentence, values, hint)


def first_comparisons(space: Space, trials: int) -> list[float | None]:
    """The step from which on the scheduler looks at each trial; None in hyperband's bracket without a halving."""
    scheduler = space.scheduler
    if scheduler.name != "hyperband":
        return [scheduler.interval_steps or scheduler.grace_steps] * trials
    first: list[float | None] = []
    for bracket in brackets(scheduler, trials):
        first += [bracket[0].step if len(bracket) > 1 else None] * round(bracket[0].trials)
    return first
