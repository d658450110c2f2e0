"""Measures how long a search takes to load, with results.load and with Ray Tune's class.

The latter is ExperimentAnalysis(folder).dataframe(). The run folder and Tune's folder hold the same
trials and reports. The Recorder writes the one, and Tune's own classes write the other, in this
process. An ended search has stored tables. A killed search may have only its log.
"""

import json
import logging
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.constants import EXPR_PARAM_FILE, EXPR_RESULT_FILE
from ray.train._internal.storage import StorageContext
from ray.tune import ExperimentAnalysis
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.serialization import TuneFunctionEncoder

from benchmarks.measure import parser, ratio, show, take_turns
from s2s_search import results
from s2s_search.runs.folder import EVENTS, new_folder
from s2s_search.runs.recorder import NEEDED_TO_RESUME, Recorder
from s2s_search.spaces import Space, load_space

SPACE = Path(__file__).parents[1] / "search_spaces" / "quickstart.yaml"

THEIRS = "ExperimentAnalysis.dataframe"

Reports = list[list[dict[str, Any]]]  # one list per trial


def main() -> None:
    made = parser("results", __doc__, rounds=3)
    made.add_argument("--trials", type=int, default=5000, help="(default: %(default)s)")
    made.add_argument(
        "--reports", type=int, default=20, help="reports of each trial (default: %(default)s)"
    )
    args = made.parse_args()
    space = load_space(SPACE)
    configs = space.draw(args.trials)
    reports = [list(reports_of(k, args.reports)) for k in range(args.trials)]
    with tempfile.TemporaryDirectory() as place:
        log, tables, ray_folder = (Path(place) / name for name in ("log", "tables", "ray"))
        write_run(tables, space, configs, reports)
        log.mkdir()
        shutil.copy(tables / EVENTS, log)
        write_experiment(ray_folder, configs, reports)
        check_equal(
            results.load(log), results.load(tables), ExperimentAnalysis(ray_folder).dataframe()
        )
        readers = {
            "results.load, the event log alone": lambda: results.load(log),
            "results.load, stored tables": lambda: results.load(tables),
            THEIRS: lambda: ExperimentAnalysis(ray_folder).dataframe(),
        }
        seconds = take_turns(readers, args.rounds)
    print(f"{args.trials} trials of {args.reports} reports\n")
    rows = [
        {
            "reader": reader,
            "seconds": statistics.median(spent),
            "times as fast": ratio(seconds[THEIRS], spent),
        }
        for reader, spent in seconds.items()
    ]
    show(rows, args.json)


def reports_of(k: int, number: int) -> Iterator[dict[str, Any]]:
    """Yields the reports of a trial, with the keys of training.train's reports."""
    for i in range(1, number + 1):
        loss = 3.0 / (i + k % 7) + k / 1e6
        yield {
            "step": 100 * i,
            "status": "finished" if i == number else "running",
            "seconds": 1.25 * i + k / 1e3,
            "evaluation_seconds": 0.25 * i + k / 1e4,
            "learning_rate": 0.001 * 0.9**i,
            "parameters": 123456,
            "train.loss": loss * 1.1,
            "dev.loss": loss,
            "dev.perplexity": 2.0**loss,
            "dev.token_accuracy": 1 / (1 + loss),
            "dev.error_rate": loss / (1 + loss),
            "dev.word_error_rate": loss / (0.5 + loss),
            "dev.bleu": 100 / (1 + loss),
        }


def name_of(k: int) -> str:
    return f"trial-{k:05d}"


def write_run(folder: Path, space: Space, configs: list[dict[str, Any]], reports: Reports) -> None:
    """Writes a run folder as a search does, with all trials side by side."""
    new_folder(folder)
    recorder = Recorder(space, folder)
    recorder.begin(len(configs), dict.fromkeys(NEEDED_TO_RESUME) | {"corpus": {}})
    for k, config in enumerate(configs):
        recorder.begin_trial(name_of(k), config)
    for row in zip(*reports, strict=True):
        for k, report in enumerate(row):
            recorder.report(name_of(k), report)
    for k in range(len(configs)):
        recorder.end_trial(name_of(k), "finished")
    recorder.end("finished")
    recorder.close()


def write_experiment(folder: Path, configs: list[dict[str, Any]], reports: Reports) -> None:
    """Writes the files that ExperimentAnalysis reads: the states and the results of all trials."""
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    folder.mkdir()
    storage = StorageContext(folder.parent, folder.name)
    states = []
    for k, config in enumerate(configs):
        trial = Trial("train", config=config, trial_id=f"{k:05d}", storage=storage, stub=True)
        trial.create_placement_group_factory()
        trial.storage.trial_dir_name = name_of(k)
        reporting = Reporting({"reports": iter(reports[k])})
        trial_folder = folder / name_of(k)
        trial_folder.mkdir()
        (trial_folder / EXPR_PARAM_FILE).write_text(json.dumps(config, indent=2, sort_keys=True))
        with open(trial_folder / EXPR_RESULT_FILE, "w") as log:
            for _ in reports[k]:
                result = reporting.train() | {"trial_id": trial.trial_id, "config": config}
                trial.update_last_result(result)
                log.write(json.dumps(result) + "\n")
        trial.set_status(Trial.TERMINATED)
        states.append(trial.get_json_state())
    state = {"trial_data": states, "runner_data": {}, "stats": {}}
    path = folder / TuneController.CKPT_FILE_TMPL.format("2026-01-01_00-00-00")
    path.write_text(json.dumps(state, cls=TuneFunctionEncoder))


class Reporting(tune.Trainable):
    """Returns recorded reports; Tune adds its own keys to each."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reports = config["reports"]

    def step(self) -> dict[str, Any]:
        return dict(next(self.reports))


def check_equal(log: results.Results, tables: results.Results, frame: Any) -> None:
    """Asserts that all three hold the same numbers."""
    for found in (log, tables):
        assert found.trials["last.dev.loss"].tolist() == frame["dev.loss"].tolist()
        assert len(found.reports) == len(frame) * frame["training_iteration"].max()


if __name__ == "__main__":
    main()
