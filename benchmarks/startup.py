"""Measures the start of commands, of a corpus and of trials on Ray, and the memory of a trial.

Commands run in new processes, and are compared with the imports that they need, in processor time.
Trials run in the processes of real searches, in elapsed time and in processor time.
"""

import ctypes
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import parser, ratio, show, take_turns
from s2s_search import results
from s2s_search.corpus import Corpus, load_corpus
from s2s_search.corpus.batches import make_batch
from s2s_search.hparams import Hparams, resolve
from s2s_search.metrics import bleu_signature
from s2s_search.nn.models import build_model
from s2s_search.spaces import load_space
from s2s_search.training.evaluation import evaluate
from s2s_search.training.optimizers import make_optimizer
from s2s_search.training.process_memory import keep_freed_memory
from s2s_search.training.trial import Report, Trial, training_step

Row = dict[str, object]

SPACE = """
model: AttentionSeq2Seq
corpus: {{name: cmudict}}
search: {{method: grid}}
scheduler: {{name: none, max_steps: {steps}}}
resources: {{cpu: {cpu}}}
parameters:
  train.seed: {seeds}
  train.batch_size: 64
  train.eval_every_steps: {steps}
  train.eval_examples: {examples}
"""
ONE_STEP = ["--steps", "1", "--hparams", "train.eval_examples=1"]
FORGETFUL = "/dev/null"  # a cache folder that keeps nothing


def main() -> None:
    args = parser("startup", __doc__, rounds=7).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder + "/cache"
        rows = [
            *trial_starts(Path(folder)),
            *commands(Path(folder) / "starts", args.rounds),
            *corpora(args.rounds),
        ]
        show([*rows, *trial_memory(Path(folder)), *two_against_one(5 * args.rounds)], args.json)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Returns the median and the quartiles as text."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def search(
    out: Path, run: Any, steps: int, cpu: int, trials: int, examples: int
) -> results.Results:
    """Runs a search of `trials` trials, with `run` in place of training.train."""
    from s2s_search.tuning import run_search  # late: the processes of `two_against_one` need no Ray

    space = out.with_suffix(".yaml")
    space.write_text(
        SPACE.format(steps=steps, cpu=cpu, seeds=list(range(1, trials + 1)), examples=examples)
    )
    return results.load(run_search(load_space(space), out=out, train=run).folder)


# --- commands ---


def commands(run: Path, rounds: int) -> Iterator[Row]:
    """Measures each command, and what it takes beyond its import; `run` is a run folder."""

    def python(*arguments: str, cache: str = os.environ["XDG_CACHE_HOME"]) -> Any:
        command, environment = [sys.executable, *arguments], {**os.environ, "XDG_CACHE_HOME": cache}
        return lambda: subprocess.run(command, env=environment, check=True, capture_output=True)

    space = "search_spaces/quickstart.yaml"
    seconds = take_turns(
        {
            "import torch": python("-c", "import torch"),
            "import pandas": python("-c", "import pandas"),
            "--help": python("run_search.py", "--help"),
            "check": python("run_search.py", "check", space),
            "sample": python("run_search.py", "sample", space),
            "results": python("run_search.py", "results", str(run)),
            "debug, a step on cmudict": python("run_search.py", "debug", *ONE_STEP),
            "debug, nothing kept": python("run_search.py", "debug", *ONE_STEP, cache=FORGETFUL),
        },
        rounds,
        clock=lambda: sum(os.times()[2:4]),  # processor time of all ended child processes
    )
    for name, times in seconds.items():
        row: Row = {"what": name, "seconds": spread(times)}
        yardstick = {"results": "import pandas"}.get(
            name, "import torch" if name.startswith("debug") else ""
        )
        if yardstick:
            beyond = [a - b for a, b in zip(times, seconds[yardstick], strict=True)]
            row |= {"beyond": spread(beyond), "yardstick": yardstick}
        yield row


def corpora(rounds: int) -> Iterator[Row]:
    def load(cache: str) -> Any:
        def run() -> None:
            os.environ["XDG_CACHE_HOME"] = cache
            load_corpus({"name": "cmudict"})

        return run

    kept = os.environ["XDG_CACHE_HOME"]
    seconds = take_turns({"kept": load(kept), "encoded": load(FORGETFUL)}, rounds)
    os.environ["XDG_CACHE_HOME"] = kept
    yield {"what": "cmudict, kept", "seconds": spread(seconds["kept"], 4)}
    encoded = spread(seconds["encoded"]), str(ratio(seconds["encoded"], seconds["kept"]))
    yield {
        "what": "cmudict, encoded",
        "seconds": encoded[0],
        "ratio": encoded[1],
        "yardstick": "cmudict, kept",
    }


# --- trials ---


def trial_starts(folder: Path) -> Iterator[Row]:
    """Measures from the last report of a trial to the first step of the next in its process."""
    rows = search(folder / "starts", first_step, steps=1, cpu=1, trials=40, examples=1).reports
    passed, used, left = [], [], []
    for _, trials in rows.sort_values("stepped").groupby("process"):
        passed += (trials.stepped - trials.reported.shift()).dropna().tolist()
        used += (trials.stepped_cpu - trials.reported_cpu.shift()).dropna().tolist()
        left += trials.own.diff().dropna().tolist()
    yield {"what": "a trial's first step in a warm process", "seconds": spread(passed, 3)}
    yield {"what": "of it, on the processor", "seconds": spread(used, 3)}
    yield {"what": "memory that a trial leaves behind", "MB": spread(left, 1)}


def first_step(hparams: Hparams, corpus: Corpus, device: str) -> Iterator[Report]:
    trial = Trial(hparams, corpus, torch.device(device))
    trial.train_steps(1)
    stepped = {
        "stepped": time.monotonic(),
        "stepped_cpu": time.process_time(),
        "process": os.getpid(),
    }
    metrics = {
        "step": 1,
        "status": "finished",
        "seconds": 0.0,
        "parameters": 0,
        "dev.loss": 1.0,
        **stepped,
    }
    metrics["own"] = memory()["own"]
    yield Report(
        metrics | {"reported": time.monotonic(), "reported_cpu": time.process_time()},
        trial.snapshot,
        trial.answers,
    )


def trial_memory(folder: Path) -> Iterator[Row]:
    """Measures the memory of two trials, beyond that of the same model after a step on one pair."""
    rows = search(folder / "memory", weighed, steps=400, cpu=1, trials=2, examples=0).reports
    for name in WEIGHED:
        kinds = {"own": "MB", "held": "MB, held between steps", "shared": "MB, part of shared"}
        of_kinds = {
            kinds[kind]: ", ".join(f"{mb:.1f}" for mb in rows[f"{kind} {name}"]) for kind in kinds
        }
        yield {"what": f"memory of two trials, {name}", **of_kinds}


WEIGHED = ("a step on a long batch", "and 400 steps", "and an evaluation")


def weighed(hparams: Hparams, corpus: Corpus, device: str) -> Iterator[Report]:
    keep_freed_memory()
    vocabs = corpus.source_vocab, corpus.target_vocab
    bleu_signature()  # imports sacrebleu, which comes with the first evaluation
    longest = np.argsort(np.diff(corpus.dev.source_offsets))[::-1]

    def step(pairs: int) -> dict[str, float]:
        """Returns the memory after steps of a model on `pairs` pairs."""
        model = build_model(hparams, *map(len, vocabs))
        optimizer = make_optimizer(model.parameters(), hparams)
        for number in range(3):
            training_step(
                model, optimizer, make_batch(corpus.dev, longest[:pairs], *vocabs), number
            )
        return memory()

    bare, stepped = step(1), step(hparams["train.batch_size"])
    trial = Trial(hparams, corpus, torch.device(device))
    trial.train_steps(400)
    trained = memory()
    evaluate(trial.model, corpus.dev, corpus, hparams)
    metrics = {"step": 400, "status": "finished", "seconds": 0.0, "parameters": 0, "dev.loss": 1.0}
    for name, now in zip(WEIGHED, (stepped, trained, memory()), strict=True):
        metrics |= {f"{kind} {name}": now[kind] - bare[kind] for kind in bare}
    yield Report(metrics, trial.snapshot, trial.answers)


def memory() -> dict[str, float]:
    """Returns the memory of this process in MB.

    `own` is its own memory without libraries. `held` is the same without the freed memory that a
    trial keeps for its next step. `shared` is its part of the memory that Ray shares between
    processes.
    """

    def mb() -> dict[str, float]:
        lines = [
            line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
        ]
        return {name: int(kilobytes) / 1024 for name, kilobytes, _ in lines}

    kept = mb()
    ctypes.CDLL(None).malloc_trim(0)
    return {"own": kept["Anonymous:"], "held": mb()["Anonymous:"], "shared": kept["Pss_Shmem:"]}


# --- threads ---


def two_against_one(rounds: int) -> Iterator[Row]:
    """Compares two trials side by side, with one thread each, with two in turn, with two threads.

    It measures elapsed time. The turns are short: if other work shares the cores, two threads wait
    for each other.
    """
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(2, spawn, begin_trial, (1,)) as side_by_side,
        ProcessPoolExecutor(1, spawn, begin_trial, (2,)) as in_turn,
    ):
        pools = {"side by side": side_by_side, "in turn": in_turn}
        contestants = {name: partial(go_on_twice, pool) for name, pool in pools.items()}
        seconds = take_turns(contestants, rounds, clock=time.perf_counter)
    ratios = str(ratio(seconds["in turn"], seconds["side by side"]))
    yield {
        "what": "two trials of two threads in turn",
        "ratio": ratios,
        "yardstick": "two of one thread side by side",
    }


trial: Trial  # that of a process


def begin_trial(threads: int) -> None:
    global trial
    torch.set_num_threads(threads)
    hparams = resolve("AttentionSeq2Seq", {"train.batch_size": 64})
    trial = Trial(hparams, load_corpus({"name": "cmudict"}), torch.device("cpu"))


def go_on_twice(pool: ProcessPoolExecutor) -> None:
    list(pool.map(go_on, [10, 10]))


def go_on(steps: int) -> None:
    trial.train_steps(steps)


if __name__ == "__main__":
    main()
