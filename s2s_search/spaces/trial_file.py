"""A trial as a file: a search space of one trial that states all values.

No later version can change such a trial by another default.
"""

import os
from collections.abc import Mapping

import yaml

from s2s_search.hparams.configuration import Hparams
from s2s_search.metrics import Metric
from s2s_search.spaces.settings import Resources
from s2s_search.spaces.yaml_file import CORPUS_FILES

LINE_WIDTH = 100


def trial_file(
    hparams: Hparams, corpus: Mapping[str, object], metric: Metric, resources: Resources
) -> str:
    """Returns the text of a search space of one trial.

    `check` accepts it, and `debug --space` runs it. Its corpus has absolute paths, so that the file
    may be moved.

    Args:
        hparams: the trial's configuration.
        corpus: the specification of its corpus.
        metric: the metric by which its best checkpoint is chosen.
        resources: what the trial takes.
    """
    parameters = hparams.flat()
    model = parameters.pop("model")
    sections = {
        "model": model,
        "corpus": _anywhere(corpus),
        "metric": {"name": metric.name, "goal": metric.goal},
        "search": {"trials": 1},
        "scheduler": {"name": "none", "max_steps": hparams["train.max_steps"]},
        "resources": {"cpu": resources.cpu, "gpu": resources.gpu},
        "parameters": parameters,
    }
    return yaml.safe_dump(
        sections, sort_keys=False, default_flow_style=None, allow_unicode=True, width=LINE_WIDTH
    )


def _anywhere(corpus: Mapping[str, object]) -> dict[str, object]:
    """Returns the specification with absolute paths."""
    if "name" in corpus:
        return dict(corpus)
    return {
        key: _absolute(value) if key in CORPUS_FILES else value for key, value in corpus.items()
    }


def _absolute(value: object) -> object:
    if isinstance(value, Mapping):  # sources held out from train, which is no path
        return dict(value)
    if isinstance(value, list):
        return [os.path.abspath(str(path)) for path in value]
    return os.path.abspath(str(value))
