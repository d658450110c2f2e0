"""The command line: check · sample · plan · debug · search · resume · retry · results · explain · decode.

Imports stand inside the verbs, so that each waits only for what it needs.
Exit status: 0; 1 when a search failed; 2 for what the user can mend; 130 after Ctrl-C or a SIGTERM.
"""

import argparse
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_search.hparams import Hparams, parse_hparams, resolve
from s2s_search.spaces import Space, load_space
from s2s_search.table import MODELS, ConfigError, nearest

if TYPE_CHECKING:
    from s2s_search.tuning import Outcome

QUICKSTART = Path(__file__).parent.parent / "search_spaces" / "quickstart.yaml"


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    parser = make_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:  # after --help, or a message about the arguments
        return int(end.code or 0)
    if args.verb is None:
        parser.print_help()
        return 0
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_search.py",
        description="Searches the hyperparameters of recurrent sequence-to-sequence models.",
        epilog="Without a file, search runs search_spaces/quickstart.yaml: both models, on how English is pronounced.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")

    def verb(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    sub = verb("check", check, "report every problem of search-space files, with file and line")
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE")

    sub = verb("sample", sample, "print the configurations that a search would try")
    sub.add_argument("file", type=Path, metavar="FILE")
    sub.add_argument(
        "-n", dest="trials", type=counted(1), metavar="N", help="how many (default: all that a search runs)"
    )
    add_draw_arguments(sub)
    sub.add_argument("--json", action="store_true", help="one JSON object a line")

    sub = verb("plan", plan, "say what a search will cost: steps, hours, memory, disk")
    sub.add_argument("file", type=Path, metavar="FILE")
    sub.add_argument(
        "--gpus", type=counted(1), metavar="N", help="plan for a cluster with N GPUs, not for this machine"
    )
    sub.add_argument("--trials", type=counted(1), metavar="N", help="draw N configurations, not the file's number")
    add_draw_arguments(sub)
    sub.add_argument("--no-probe", action="store_true", help="train nothing, and leave out hours and memory")
    sub.add_argument("--json", action="store_true", help="one JSON object")

    sub = verb("debug", debug, "run one trial in this process, without Ray")
    sub.add_argument("--model", help=" or ".join(MODELS) + " (default: the latter)")
    sub.add_argument(
        "--corpus", metavar="C", help="cmudict (default), copy, reverse, or {train: [A, B], dev: [C, D], ...}"
    )
    sub.add_argument("--steps", type=counted(1), metavar="N", help="train for N steps (train.max_steps)")
    sub.add_argument("--space", type=Path, metavar="FILE", help="take the configuration from a search space ...")
    sub.add_argument("--trial", type=counted(0), metavar="K", help="... the one that a search runs as trial K, from 0")
    sub.add_argument("--trials", type=counted(1), metavar="N", help="... when that search drew N configurations")
    sub.add_argument(
        "--run", dest="of", type=Path, metavar="DIR", help="take configuration and corpus of --trial K from a run"
    )
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="keep configuration, reports and checkpoints in a new folder"
    )
    add_draw_arguments(sub)
    sub.add_argument("--json", action="store_true", help="one JSON object a line for each report, and nothing else")

    sub = verb("search", search, "search a space on Ray Tune: on this machine, or on a cluster")
    sub.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the search space (default: the quickstart)")
    sub.add_argument(
        "--trials",
        type=counted(1),
        metavar="N",
        help="draw N configurations, not the file's number; grids and replicates multiply them",
    )
    sub.add_argument("--out", type=Path, metavar="DIR", help="the run folder (default: runs/SPACE-TIME)")
    sub.add_argument("--storage", metavar="URL", help="keep checkpoints there (s3://...), not in the run folder")
    sub.add_argument("--warm-start", type=Path, metavar="DIR", help="a tpe sampler learns from this run first")
    add_cluster_argument(sub)
    add_draw_arguments(sub)

    sub = verb("resume", resume, "go on with a search that was killed, interrupted or out of budget, or extend it")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--trials", type=counted(1), metavar="N", help="extend it: draw N configurations in all")
    sub.add_argument("--hours", type=positive, metavar="H", help="a new search.hours for all of the search")
    sub.add_argument("--gpu-hours", type=positive, metavar="H", help="a new search.gpu_hours")
    add_cluster_argument(sub)

    sub = verb("retry", retry, "run trials of a search again that failed")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--status",
        default="failed",
        metavar="S",
        help="which: failed (default), out_of_memory, lost, or several with commas",
    )
    add_cluster_argument(sub)

    sub = verb("explain", explain, "say what happened to a trial, and why it was stopped")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("trial", type=counted(0), metavar="TRIAL", help="its number, from 0")

    sub = verb("results", show_results, "rank the trials of a run folder, also while its search runs")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--top", type=counted(1), metavar="N", help="only the best N")
    sub.add_argument("--sort", metavar="COLUMN", help="rank by another column, such as dev.bleu or seconds")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="all columns as CSV")

    sub = verb("decode", decode, "let the best model of a search answer, from its checkpoint")
    sub.add_argument("folder", type=Path, metavar="DIR", help="a run folder, or the folder of a debug run")
    sub.add_argument("--trial", type=counted(0), metavar="K", help="another trial's model, from 0")
    sub.add_argument("--input", type=Path, metavar="FILE", help="source lines (default: standard input)")
    sub.add_argument("--beam", type=counted(1), metavar="N", help="beam width (inference.beam_search.beam_width)")
    return parser


def add_cluster_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", metavar="A", help='join the Ray cluster at A, such as "auto" on one of its nodes')


def add_draw_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=counted(0), metavar="S", help="draw with another seed than the file's")
    parser.add_argument(
        "--hparams",
        metavar="H",
        help='hyperparameters that win over all others: "optimizer.name=SGD,..." or a JSON object',
    )


class counted:
    """An argument that is a whole number of at least `minimum`."""

    def __init__(self, minimum: int) -> None:
        self.minimum = minimum

    def __call__(self, text: str) -> int:
        if not text.isdecimal() or int(text) < self.minimum:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {self.minimum}, but got {text!r}")
        return int(text)


def positive(text: str) -> float:
    """An argument that is a number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, but got {text!r}")
    return value


# --- verbs ---


def check(args: argparse.Namespace) -> int:
    good = True
    for path in args.files:
        try:
            space = load_space(path)
            trials = space.trials()
            check_files(space)
        except ConfigError as error:
            print(error, file=sys.stderr)
            good = False
        else:
            models, searched = " and ".join(space.models), ", ".join(space.searched)
            print(f"{path}: ok: {len(trials)} trials of {models}, searching {searched}")
    return 0 if good else 2


def check_files(space: Space) -> None:
    """Reads the user's own corpus: unequal line counts and the like are problems, too."""
    if "name" not in space.corpus:
        from s2s_search.corpus import load_corpus

        try:
            load_corpus(space.corpus)
        except ConfigError as error:
            raise ConfigError(error.problems, where=error.where or str(space.path)) from None


def sample(args: argparse.Namespace) -> int:
    space = load_space(args.file)
    trials = space.trials(args.trials, args.seed, overrides(args))[: args.trials]
    if args.json:
        for config in trials:
            print_json(config)
        return 0
    constant = {key: value for key, value in trials[0].items() if all(trial.get(key) == value for trial in trials)}
    if len(trials) > 1 and constant:
        print("in every trial:", settings(constant))
    for k, config in enumerate(trials):
        differing = config if len(trials) == 1 else {key: value for key, value in config.items() if key not in constant}
        print(f"trial-{k:05d}:", settings(differing))
    return 0


def plan(args: argparse.Namespace) -> int:
    from s2s_search.corpus import load_corpus
    from s2s_search.plan import make_plan
    from s2s_search.text_files import collecting

    space = load_space(args.file)
    problems: list[str] = []
    with collecting(problems):
        trials = space.trials(args.trials, args.seed, overrides(args))
    with collecting(problems):
        corpus = load_corpus(space.corpus)
    if problems:
        raise ConfigError(problems, where=str(args.file))
    made = make_plan(space, corpus, trials, gpus=args.gpus, probed=not args.no_probe)
    command = search_command(args, "auto" if args.gpus and made.resources.gpu else None)
    if args.json:
        print_json(asdict(made) | {"command": command})
    else:
        for heading, text in made.lines():
            print(f"{heading:<13}{text}")
        print(f"{'start':<13}{command}")
    if made.problems:
        raise ConfigError(made.problems, where=str(args.file))
    return 0


def search_command(args: argparse.Namespace, address: str | None) -> str:
    """The command that starts the search which `plan` was asked about."""
    given = {"--trials": args.trials, "--seed": args.seed, "--hparams": args.hparams, "--address": address}
    words = [word for key, value in given.items() if value is not None for word in (key, str(value))]
    return shlex.join(["python", "run_search.py", "search", str(args.file), *words])


def debug(args: argparse.Namespace) -> int:
    hparams, corpus_spec, space = debug_configuration(args)
    from s2s_search.corpus import load_corpus

    corpus = load_corpus(corpus_spec)
    if args.out is not None:
        make_new_folder(args.out)
    import torch  # late: a corpus is encoded sooner without, and its problems are said at once

    from s2s_search.training import train

    torch.set_num_threads(max(1, int(space.resources.cpu)) if space else 1)  # as many as the trial of a search has
    gpu = torch.cuda.is_available() and (space is None or space.resources.gpu > 0)
    reports: Iterable[Any] = train(hparams, corpus, "cuda" if gpu else "cpu")
    if args.out is not None:
        from s2s_search.checkpoints import Checkpoints, keep_snapshots

        (args.out / "config.json").write_text(json.dumps(hparams.flat(), indent=1) + "\n")
        metric, goal = (space.metric.name, space.metric.goal) if space else ("dev.loss", "minimize")
        reports = keep_snapshots(reports, Checkpoints(args.out), metric, goal)
    if not args.json:
        print(f"{hparams.model} on {corpus_spec.get('name', 'your corpus')}, {hparams['train.max_steps']} steps")
    status = ""
    for report in reports:
        status = str(report.metrics["status"])
        print_json(report.metrics) if args.json else print(report_line(report.metrics), flush=True)
        if args.out is not None:
            with (args.out / "reports.jsonl").open("a") as file:
                file.write(json.dumps(report.metrics) + "\n")
    if status == "diverged" and not args.json:
        print("diverged: the loss is no longer finite; the values above stand for the worst", file=sys.stderr)
    return 0


def search(args: argparse.Namespace) -> int:
    file = args.file or QUICKSTART
    if args.file is None and not file.exists():
        raise ConfigError(
            "name a search-space file; the quickstart is part of the repository, not of the installed package"
        )
    space = load_space(file)
    given = overrides(args)
    out = args.out or Path("runs") / f"{space.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    from s2s_search.progress import Progress
    from s2s_search.tuning import run_search

    outcome = run_search(
        space,
        out=out,
        trials=args.trials,
        seed=args.seed,
        address=args.address,
        overrides=given,
        command=["run_search.py", *sys.argv[1:]],
        progress=Progress(),
        storage=args.storage,
        warm_start=args.warm_start,
    )
    return conclude(outcome, out)


def resume(args: argparse.Namespace) -> int:
    from s2s_search.progress import Progress
    from s2s_search.tuning import resume_search

    outcome = resume_search(
        args.folder,
        trials=args.trials,
        hours=args.hours,
        gpu_hours=args.gpu_hours,
        address=args.address,
        progress=Progress(),
        say=print,
    )
    return conclude(outcome, args.folder)


def retry(args: argparse.Namespace) -> int:
    from s2s_search.failures import FAILURES

    wanted = [status for status in args.status.split(",") if status]
    if unknown := [status for status in wanted if status not in FAILURES]:
        hint = nearest(unknown[0], FAILURES)
        raise ConfigError(f"must be among {', '.join(FAILURES)}, but got {unknown[0]!r}{hint}", "--status")
    from s2s_search.progress import Progress
    from s2s_search.tuning import resume_search

    outcome = resume_search(args.folder, again=wanted, address=args.address, progress=Progress(), say=print)
    return conclude(outcome, args.folder)


def conclude(outcome: "Outcome", folder: Path) -> int:
    """Prints what a search came to, and returns its exit status."""
    from s2s_search import ranking, results

    table = results.load(outcome.folder)
    ranking.print_ranking(table, 10)
    ranking.print_pareto(table)
    ranking.print_failures(table, folder)
    ranking.print_times(table)
    print(f"\nrun folder: {folder}\nmore: python run_search.py results {folder} · python run_search.py decode {folder}")
    if outcome.status == "finished":
        return 0
    what = f"{outcome.status}: {outcome.message}" if outcome.message else outcome.status
    again = f"python run_search.py resume {folder}"
    print(f"{what}; the tables hold what was done until then; to go on: {again}", file=sys.stderr)
    return {"interrupted": 130, "failed": 1}.get(outcome.status, 0)


def show_results(args: argparse.Namespace) -> int:
    from s2s_search import results

    table = results.load(args.folder)
    for problem in table.damaged:
        print(problem, file=sys.stderr)
    if not args.json and not args.csv:
        from s2s_search import ranking

        ranking.print_ranking(table, args.top, args.sort)
        ranking.print_pareto(table)
        ranking.print_failures(table, args.folder)
        ranking.print_times(table)
        if table.status == "killed":
            print(f"its driver was killed; to go on: python run_search.py resume {args.folder}")
        return 0
    ranked = table.best(args.top, args.sort)
    if args.csv:
        print(ranked.to_csv(index=False), end="")
    else:
        for row in ranked.astype(object).where(ranked.notna(), None).to_dict("records"):
            print_json({str(column): value for column, value in row.items()})
    return 0


def explain(args: argparse.Namespace) -> int:
    from s2s_search import history

    try:
        for line in history.explain(history.load_history(args.folder), args.trial):
            print(line.replace("--run DIR", f"--run {args.folder}"))
    except ConfigError as error:
        raise ConfigError(error.problems, error.where or str(args.folder)) from None
    return 0


def decode(args: argparse.Namespace) -> int:
    path = checkpoint_path(args.folder, args.trial)
    lines: Iterable[str] = read_lines(args.input)
    from s2s_search.decoding import load_trained

    trained = load_trained(path, {"inference.beam_search.beam_width": args.beam} if args.beam else None)
    if args.input is None and sys.stdin.isatty():
        print(f"{path}, step {trained.step}: a source a line, end with Ctrl-D", file=sys.stderr)
        for line in lines:  # answer each line at once
            print(*trained.answers([line]), flush=True)
        return 0
    for answer in trained.answers(lines):
        print(answer)
    return 0


# --- what the verbs share ---


def overrides(args: argparse.Namespace) -> dict[str, object]:
    if args.hparams is None:
        return {}
    try:
        return dict(parse_hparams(args.hparams))
    except ConfigError as error:
        raise ConfigError(error.problems, where="--hparams") from None


def debug_configuration(args: argparse.Namespace) -> tuple[Hparams, dict[str, object], Space | None]:
    """The configuration, the corpus and the search space of a debug run."""
    given = overrides(args)
    if args.steps is not None:
        given["train.max_steps"] = args.steps
    space = None
    corpus: dict[str, object] = {"name": "cmudict"}
    model = args.model or str(given.get("model", MODELS[1]))
    if args.of is not None:
        return run_configuration(args, given)
    if args.space is not None:
        if args.model is not None:
            raise ConfigError("--model: a search space names the model itself; leave one of the two out")
        space = load_space(args.space)
        corpus = space.corpus
        trial = args.trial or 0
        trials = space.trials(args.trials, args.seed, given)
        if trial >= len(trials):
            law = f"{args.space} has trials 0 to {len(trials) - 1}; --trials N draws more, as it does for search"
            raise ConfigError(f"--trial {trial}: {law}")
        given = trials[trial]
        model = str(given["model"])
    elif not (args.trial is args.trials is args.seed is None):
        raise ConfigError("--trial, --trials and --seed choose from a search space: name one with --space FILE")
    if args.corpus is not None:
        corpus = parse_corpus(args.corpus)
    try:
        hparams = resolve(model, {key: value for key, value in given.items() if key != "model"})
    except ConfigError as error:
        raise ConfigError(error.problems, where=None if space else "--hparams" if args.hparams else "debug") from None
    return hparams, corpus, space


def run_configuration(
    args: argparse.Namespace, given: dict[str, object]
) -> tuple[Hparams, dict[str, object], Space | None]:
    """The configuration of a trial of a run folder, with the corpus and the space of its search."""
    from s2s_search.history import load_history, space_of

    if args.trial is None or args.space is not None or args.model is not None:
        raise ConfigError("--run DIR needs --trial K, and neither --space nor --model")
    past = load_history(args.of)
    trial = past.trials.get(f"trial-{args.trial:05d}")
    if trial is None:
        raise ConfigError(f"there is no trial {args.trial}; {len(past.trials)} have begun", f"--run {args.of}")
    space = space_of(past, args.of)
    config = trial.config | given
    if "model" not in config:
        raise ConfigError(f"{trial.name} has no model in the log", f"--run {args.of}")
    hparams = resolve(str(config["model"]), {key: value for key, value in config.items() if key != "model"})
    return hparams, parse_corpus(args.corpus) if args.corpus else space.corpus, space


def parse_corpus(text: str) -> dict[str, object]:
    """The name of a built-in corpus, or the mapping that a search space would have; relative paths as they are."""
    import yaml

    from s2s_search.corpus import check_corpus

    try:
        spec = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(
            f"must be a name or a mapping such as {{train: [A, B], dev: [C, D]}}, but got {text!r}", "--corpus"
        ) from None
    spec = spec if isinstance(spec, dict) else {"name": spec}
    problems = [f"{key}: {problem}" if key else problem for key, problem in check_corpus(spec)]
    if problems:
        raise ConfigError(problems, where="--corpus")
    return spec


def make_new_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(
            "exists already, and nothing is ever overwritten; name a new folder", where=f"--out {folder}"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", where=f"--out {folder}") from None


def checkpoint_path(folder: Path, trial: int | None) -> str:
    """The best checkpoint of a run folder or of one of its trials, or the one of a debug run: a path or URL."""
    from s2s_search.checkpoints import BEST, Checkpoints

    if (folder / BEST).exists() and trial is None:
        return str(folder / BEST)
    from s2s_search import results
    from s2s_search.events import first_event

    table = results.load(folder)
    place = first_event(folder).get("storage") or folder
    names = [str(name) for name in table.best(None).trial]
    if trial is not None:
        names = [f"trial-{trial:05d}"]
        if names[0] not in set(table.trials.trial):
            known = ", ".join(map(str, table.trials.trial.head(12))) + (", ..." if len(table.trials) > 12 else "")
            raise ConfigError(f"there is no trial {trial}; known: {known}", where=str(folder))
    for name in names:
        if Checkpoints(f"{place}/{name}").has_best():
            return f"{place}/{name}/{BEST}"
    if trial is None:
        raise ConfigError("no trial has a checkpoint yet", where=str(folder))
    law = "it never reported, or it is not among the checkpoints.best trials whose weights are kept"
    raise ConfigError(f"{names[0]} has no checkpoint: {law}", where=str(folder))


def read_lines(path: Path | None) -> Iterable[str]:
    if path is None:
        return (line.rstrip("\r\n") for line in sys.stdin)
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is not UTF-8 text"
        raise ConfigError(f"cannot be read: {reason}", where=f"--input {path}") from None


def settings(config: Mapping[str, object]) -> str:
    return " ".join(f"{key}={json.dumps(value) if isinstance(value, dict) else value}" for key, value in config.items())


def print_json(row: Mapping[str, object]) -> None:
    print(json.dumps(row, ensure_ascii=False, default=str), flush=True)


def report_line(metrics: Mapping[str, Any]) -> str:
    """A report in a line: step 200 · train.loss 2.1 · dev.loss 2.0 · ..."""
    shown = ["train.loss", "dev.loss", "dev.error_rate", "dev.word_error_rate", "dev.bleu", "learning_rate"]
    numbers = [f"{name} {metrics[name]:.4g}" for name in shown]
    return " · ".join([f"step {metrics['step']}", *numbers, f"{metrics['seconds']:.1f} s"])


__all__ = ["main"]
