"""Simulated searches with a known truth, as run folders: no training, only the log that it would write.

The end value of a configuration is a mean, which is the truth, and noise of the trial. A trial reports at every
hundredth step until 400, and its value approaches the end value.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s2s_search.methods.make import make_sampler
from s2s_search.spaces.load import load_space
from s2s_search.spaces.space import Space

Config = Mapping[str, Any]
Draw = Callable[[np.random.Generator], float]
STEPS = (100, 200, 300, 400)

NOISES: dict[str, Draw] = {
    "normal": lambda rng: float(rng.normal()),
    "skewed": lambda rng: float(rng.exponential() - 1.0),
    "rounded": lambda rng: float(np.round(rng.normal() * 2) / 2),
}

SCORE, LAYERS = "attention.score_type", "encoder.rnn_cell.num_layers"
RATE, DIM, DROPOUT = (
    "optimizer.learning_rate",
    "attention.dim",
    "decoder.rnn_cell.dropout_input_keep_prob",
)
HEAD = "corpus: {name: copy}\nmetric: {name: dev.error_rate}\n"
KEYS = {
    SCORE: "{choices: [dot, bahdanau], role: scientific}",
    "encoder.type": "{choices: [UnidirectionalRNNEncoder, BidirectionalRNNEncoder]}",
    RATE: "{min: 1e-4, max: 1e-2, log: true}",
    DIM: "{choices: [32, 64, 128]}",
    DROPOUT: "{min: 0.5, max: 1.0}",
}


def space_text(
    search: str, scheduler: str = "none", model: str = "AttentionSeq2Seq", **changes: str
) -> str:
    """The text of a space; a double underscore in a name of `changes` stands for a dot, and "" leaves a key out."""
    keys = KEYS | {name.replace("__", "."): text for name, text in changes.items()}
    lines = [f"  {key}: {text}" for key, text in keys.items() if text]
    grace = ", grace_steps: 100" if scheduler == "asha" else ""
    rungs = f"{{name: {scheduler}, max_steps: 400, reduction_factor: 2{grace}}}"
    head = f"model: {model}\n{HEAD}search: {search}\nscheduler: {rungs}\nparameters:\n"
    return (
        head + "\n".join([*lines, "  train.max_steps: 400", "  train.eval_every_steps: 100"]) + "\n"
    )


def position(config: Config) -> float:
    """Where the learning rate lies in its range, in [0, 1] on the logarithmic scale."""
    return float(np.log10(config[RATE] / 1e-4) / 2)


def nothing(config: Config) -> float:
    return 0.0


@dataclass(frozen=True)
class World:
    """A kind of search, and what is true in it. All values are in standard deviations of a trial's noise.

    dot: what attention.score_type dot adds to the end value; above 0 it is worse than bahdanau
    dot_early: what it adds to the first report besides, and half as much to each next report but the last
    truth: the mean end value of a configuration apart from that
    spread: the standard deviation between draws, beside the noise of a trial
    crossed: the hyperparameters that take several values in each draw
    diverges: the probability that a configuration diverges before its first report
    effects: the hyperparameters that change end or early values, attention.score_type apart
    together: the two hyperparameters that act together
    losing: the hyperparameters by which trials diverge
    """

    text: str
    dot: float = 0.0
    dot_early: float = 0.0
    truth: Callable[[Config], float] = nothing
    spread: float = 0.0
    crossed: tuple[str, ...] = ("train.seed",)
    diverges: Callable[[Config], float] = nothing
    noise: str = "normal"
    effects: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    losing: tuple[str, ...] = ()

    def difference_at(self, step: int) -> float:
        """How much worse dot is at a step, in the mean."""
        if step == STEPS[-1]:
            return self.dot
        return self.dot + self.dot_early / 2 ** STEPS.index(step)

    def better_at(self, step: int) -> str | None:
        """The better value of attention.score_type at a step; None where both are equal."""
        difference = self.difference_at(step)
        if difference == 0:
            return None
        return "bahdanau" if difference > 0 else "dot"

    @property
    def matters(self) -> tuple[str, ...]:
        """The hyperparameters of which it is true that they matter: at the end, early, or by divergence."""
        return (*self.effects, *self.losing, *([SCORE] if self.dot or self.dot_early else []))


def write(world: World, folder: Path, rng: np.random.Generator) -> Space:
    """Writes the run folder of one search of a world."""
    folder.mkdir()
    (folder / "space.yaml").write_text(world.text)
    space = load_space(folder / "space.yaml")
    sampler = make_sampler(space, None, int(rng.integers(1_000_000)), None)
    log = Log(space, folder, len(sampler))
    rungs: dict[int, list[float]] = {step: [] for step in STEPS[:-1]}
    rows: dict[str, float] = {}  # the deviation of each configuration without its seed
    for number in range(len(sampler)):
        config = sampler.ask(number)
        assert config is not None
        log.begin(number, config)
        if rng.random() < world.diverges(config):
            log.report(number, 100, None, "diverged")
            status, best = "diverged", None
        else:
            rest = {key: value for key, value in config.items() if key not in world.crossed}
            known = json.dumps(rest, sort_keys=True)
            own = rows.setdefault(known, world.spread * rng.normal())
            end = world.truth(config) + world.dot * (config.get(SCORE) == "dot") + own
            end += NOISES[world.noise](rng)
            status, best = _train(world, config, end, rng, log, number, space.scheduler.name, rungs)
        log.end(number, status)
        sampler.tell(number, config, None if best is None else [best], status)
    log.close()
    return space


def _train(
    world: World,
    config: Config,
    end: float,
    rng: np.random.Generator,
    log: "Log",
    number: int,
    scheduler: str,
    rungs: dict[int, list[float]],
) -> tuple[str, float]:
    """Reports until the end, or until asha's rule stops the trial: the worse half of a rung goes."""
    values: list[float] = []
    for index, step in enumerate(STEPS):
        early = world.dot_early * (config.get(SCORE) == "dot") / 2**index
        value = 10 + end
        if step < STEPS[-1]:
            value += early + 2.0 / 2**index + 0.05 * rng.normal()
        values.append(value)
        log.report(number, step, value, "finished" if step == STEPS[-1] else "running")
        if scheduler in ("asha", "hyperband") and step in (100, 200):
            before = rungs[step]
            cutoff = float(np.percentile(before, 50)) if before else None
            before.append(value)
            stops = cutoff is not None and value > cutoff
            log.decide(number, step, value, cutoff, len(before), "stop" if stops else "continue")
            if stops:
                return "stopped", min(values)
    return "finished", min(values)


class Log:
    """Writes the events of a search."""

    def __init__(self, space: Space, folder: Path, trials: int) -> None:
        self.space, self.time = space, 0.0
        self.file = (folder / "events.jsonl").open("w")
        searched = {
            key: "Float64" if key in (RATE, DROPOUT) else "string" for key in space.searched
        }
        searched |= {key: "Int64" for key in (DIM, LAYERS, "train.seed") if key in searched}
        scheduler = {"name": space.scheduler.name, "max_steps": 400}
        about = {"searched": searched, "trials": trials, "scheduler": scheduler, "goal": "minimize"}
        about |= {"name": "simulated", "metric": "dev.error_rate", "corpus": {"fingerprint": "0"}}
        self._write("search", objectives=[["dev.error_rate", "minimize"]], **about)

    def _write(self, event: str, **entries: Any) -> None:
        self.time += 0.01
        self.file.write(json.dumps({"event": event, "time": round(self.time, 3), **entries}) + "\n")

    def begin(self, number: int, config: Config) -> None:
        labels = {
            key: self.space.label(key, config[key]) for key in self.space.searched if key in config
        }
        self._write("trial", trial=f"trial-{number:05d}", settings=labels, config=dict(config))

    def report(self, number: int, step: int, value: float | None, status: str) -> None:
        metrics = {"dev.error_rate": value, "seconds": step / 100, "parameters": 1000}
        self._write("report", trial=f"trial-{number:05d}", step=step, status=status, **metrics)

    def decide(
        self, number: int, step: int, value: float, cutoff: float | None, of: int, action: str
    ) -> None:
        reason = {"step": step, "value": value, "cutoff": cutoff, "rung": step, "rank": 1, "of": of}
        self._write("decision", trial=f"trial-{number:05d}", action=action, **reason)

    def end(self, number: int, status: str) -> None:
        self._write("status", trial=f"trial-{number:05d}", status=status)

    def close(self) -> None:
        self._write("status", status="finished")
        self.file.close()
