"""Run folders for the tests, written by the Recorder as a search does, without training."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from s2s_search.runs.folder import new_folder, write_json
from s2s_search.runs.recorder import Recorder
from s2s_search.spaces.load import load_space

# A scientific key, a label that is markup, a logarithmic range, one that takes part under a condition, few numbers.
SPACE = """
model: [BasicSeq2Seq, AttentionSeq2Seq]
corpus: {name: copy}
metric: {name: dev.error_rate}
search: {trials: 40, seed: 1}
scheduler: {name: asha, max_steps: 400, grace_steps: 100, reduction_factor: 2}
resources: {cpu: 1, gpu: 0.5}
parameters:
  encoder.type: {choices: [UnidirectionalRNNEncoder, BidirectionalRNNEncoder], role: scientific}
  attention.dim: [32, 64, 128]
  optimizer.learning_rate: {min: 1e-4, max: 1e-2, log: true}
  encoder.rnn_cell.cell_spec:
    choices: {"<script>alert(1)</script>": {class: GRUCell, num_units: 8}, large: {class: GRUCell, num_units: 64}}
  decoder.rnn_cell.dropout_input_keep_prob: {min: 0.5, max: 1.0}
"""
ENVIRONMENT: dict[str, Any] = {
    "space": "space.yaml",
    "seed": 1,
    "overrides": {},
    "draws": None,
    "storage": None,
}
CORPUS = {"corpus": {"name": "copy", "fingerprint": "0" * 64}}

Config = Mapping[str, Any]


def loss_of(number: int, config: Config) -> float:
    """The best with a learning rate of 1e-3 and the bidirectional encoder; a little of the trial's own."""
    distance = abs(math.log10(config["optimizer.learning_rate"]) + 3)
    return (
        0.1 + 0.2 * distance + 0.1 * (config["encoder.type"][0] == "U") + 0.01 * (number * 7 % 11)
    )


def write_run(
    folder: Path,
    trials: int = 40,
    reports: int = 4,
    text: str = SPACE,
    loss: Callable[[int, Config], float] = loss_of,
    example: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a run that finished, a report every 100 steps: every third trial is stopped at the first rung, every
    thirteenth fails, and the others finish, by turns on two nodes.

    example: what all trials answered to their one dev example.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".yaml")
    path.write_text(text)
    space = load_space(path)
    new_folder(folder)
    recorder = Recorder(space, folder)
    recorder.begin(
        trials, ENVIRONMENT | CORPUS | {"space": str(path), "command": ["run_search.py", "search"]}
    )
    for number, config in enumerate(space.trials(trials)):
        name = f"trial-{number:05d}"
        recorder.begin_trial(name, config)
        if number % 13 == 5:
            recorder.fail_trial(
                name, "failed", 'Traceback\n  File "x"\nValueError: <b>no</b> | such thing'
            )
            continue
        stopped = number % 3 == 1
        for report in _reports(1 if stopped else reports, loss(number, config), number):
            recorder.report(name, report)
        decision = {
            "action": "stop" if stopped else "continue",
            "step": 100,
            "value": 1.0,
            "rung": 100,
            "of": number + 1,
        }
        recorder.decision(name, decision | {"cutoff": 0.5, "rank": 1})
        recorder.end_trial(name, "stopped" if stopped else "finished")
        if example is not None:
            write_json(
                folder / name / "answers.json",
                {"step": 100, "errors": [1], "lengths": [2], "examples": [example]},
            )
    recorder.end("finished")
    recorder.close()
    return folder


def _reports(count: int, loss: float, number: int) -> Iterator[dict[str, Any]]:
    for i in range(1, count + 1):
        value = loss * (1 + 1 / i)
        row = {
            "step": 100 * i,
            "status": "running",
            "seconds": 2.0 * i,
            "parameters": 1000 + number,
        }
        yield row | {
            "dev.error_rate": value,
            "dev.loss": 2 * value,
            "node": f"10.0.0.{number % 2 + 1}",
        }
