"""The number to quote: what the test part says, or how to ask it."""

from collections.abc import Iterator

from s2s_search.errors import command, quantity
from s2s_search.report.page import code
from s2s_search.report.runs import ReportedRun
from s2s_search.results.evaluations import decoding
from s2s_search.runs.evaluations import load_evaluations, looks


def quoted(run: ReportedRun) -> Iterator[str]:
    """Yields the number to quote with its interval, or says which one to quote.

    Everything is chosen by dev, so numbers of dev are too good. The test part is looked at once.
    """
    folder = run.results.folder
    evaluations = load_evaluations(folder)
    count = looks(evaluations)
    if count == 0:
        yield _advice(run)
        return
    newest = [evaluation for evaluation in evaluations if evaluation.split == "test"][-1]
    for evaluated in newest.trials:
        name = f"test.{run.metric.removeprefix('dev.')}"
        name = name if name in evaluated.metrics else "test.error_rate"
        found = evaluated.metrics[name]
        over = "the sources alone: one seed says nothing about others"
        whose = code(evaluated.trial)
        if evaluated.ensemble > 1:
            over = "the sources alone: one ensemble says nothing about others"
            whose = f"the ensemble of {evaluated.ensemble} models, {whose} among them,"
        if len(evaluated.models) > 1:
            over = f"{len(evaluated.models)} seeds and the sources"
        interval = "no interval"
        if found.low is not None and found.high is not None:
            interval = f"95 % interval {found.low:.4g} to {found.high:.4g}, over {over}"
        yield (
            f"The number to quote: {whose} has {code(name)} {found.value:.4g} on "
            f"the {quantity(newest.examples, 'test source')}, {decoding(evaluated.beam)} "
            f"({interval})."
        )
    if count > 1:
        yield (
            f"The test part has been looked at {count} times. A number that was chosen among "
            "several looks is too good."
        )


def to_quote(run: ReportedRun) -> list[str]:
    """Returns the commands that are still to be run for a number to quote."""
    folder = run.results.folder
    if run.scored.empty or looks(load_evaluations(folder)) > 0:
        return []
    commands = []
    if run.beside is None:
        commands.append(command("replicate", folder, "--top", 3, "--seeds", 5))
    if _has_test(run):
        commands.append(command("evaluate", folder, "--split", "test"))
    return commands


def _has_test(run: ReportedRun) -> bool:
    return "name" in run.space.corpus or "test" in run.space.corpus


def _advice(run: ReportedRun) -> str:
    if not _has_test(run):
        return (
            "The corpus has no test part. All numbers are of the dev sources, by which everything "
            "was chosen, so they are too good to quote."
        )
    return (
        "Everything was chosen by dev, so quote an error on the test part of the corpus, measured "
        "once, after the choice."
    )
