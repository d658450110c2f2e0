"""The names of Ray that s2s_search.tuning uses though Ray does not promise them.

They are private, or public without documentation. pyproject.toml therefore allows only the versions
of Ray on which these tests hold. With a new Ray the tests say which name is gone. After tuning/ is
mended, the bound can be raised.
"""

import ast
import inspect
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune import registry, result
from ray.tune.experiment import Experiment, Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import SearchAlgorithm

import s2s_search
from s2s_search.tuning.cluster import RAY_ENVIRONMENT

ROOT = Path(__file__).parents[2]
TUNING = Path(s2s_search.__file__).parent / "tuning"


def stub() -> Trial:
    return Trial("unknown", stub=True)


def scheduler(kind: type, **arguments: Any) -> Any:
    """A scheduler of Tune's that has one trial."""
    made = kind(time_attr="step", **arguments)
    made.set_search_properties("dev.loss", "min")
    made.on_trial_add(SimpleNamespace(search_alg=None), stub())
    return made


def pbt() -> Any:
    return scheduler(PopulationBasedTraining, custom_explore_fn=dict)


def hyperband() -> Any:
    return scheduler(HyperBandScheduler, max_t=9)


# The owner as a message names it, a function that makes it, its names, and what they are used for.
NAMES: list[tuple[str, Callable[[], Any], str, str]] = [
    ("PopulationBasedTraining", pbt, "_perturbation_interval _trial_state", "a killed pbt search"),
    (
        "the state of a trial in PopulationBasedTraining",
        lambda: next(iter(pbt()._trial_state.values())),
        "last_score last_perturbation_time last_train_time last_result",
        "a killed pbt search",
    ),
    (
        "MedianStoppingRule",
        lambda: scheduler(MedianStoppingRule),
        "_trials_beyond_time _running_mean _results _min_samples_required",
        "the reasons of median stopping",
    ),
    (
        "HyperBandScheduler",
        hyperband,
        "_trial_info _process_bracket",
        "halving when a trial is gone",
    ),
    (
        "a bracket of HyperBandScheduler",
        lambda: next(iter(hyperband()._trial_info.values()))[0],
        "_live_trials trials_to_unpause current_trials cur_iter_done",
        "a killed hyperband search",
    ),
    ("SearchAlgorithm", lambda: SearchAlgorithm, "_finished", "the end of the trials"),
    (
        "SearchAlgorithm",
        lambda: SearchAlgorithm,
        "add_configurations next_trial is_finished on_trial_complete",
        "handing over trials",
    ),
    (
        "Trial",
        stub,
        "PENDING RUNNING PAUSED TERMINATED status trial_id config last_result run_metadata storage "
        "placement_group_factory set_status",
        "trials without Tune's own files",
    ),
    (
        "Trial",
        stub,
        "get_trainable_cls create_placement_group_factory init_local_path update_last_result "
        "handle_error should_recover get_json_state",
        "overriding it",
    ),
    (
        "Trial.run_metadata",
        lambda: stub().run_metadata,
        "last_result last_result_time",
        "the last report",
    ),
    ("RayActorError", RayActorError, "preempted", "losses that are no fault of a trial"),
    ("ray.tune.registry", lambda: registry, "get_trainable_cls", "the class of the workers"),
    (
        "Trainable",
        lambda: tune.Trainable,
        "default_resource_request",
        "the resources of the trials",
    ),
    (
        "ray.tune.result",
        lambda: result,
        "AUTO_RESULT_KEYS NODE_IP",
        "telling Ray's keys from metrics",
    ),
    (
        "PlacementGroupFactory",
        lambda: tune.PlacementGroupFactory,
        "required_resources",
        "a worker's resources",
    ),
    (
        "TrialScheduler",
        lambda: TrialScheduler,
        "CONTINUE PAUSE STOP set_search_properties on_trial_add on_trial_error on_trial_result "
        "on_trial_complete on_trial_remove choose_trial_to_run debug_string",
        "standing in front of a scheduler",
    ),
    (
        "Callback",
        lambda: tune.Callback,
        "on_step_begin on_step_end on_trial_start on_trial_result on_trial_complete "
        "on_trial_recover on_trial_error",
        "recording what happens",
    ),
]
ARGUMENTS: list[tuple[str, Any, str]] = [
    (
        "Trial",
        Trial,
        "config trial_id storage checkpoint_config trial_name_creator trial_dirname_creator",
    ),
    (
        "AsyncHyperBandScheduler",
        AsyncHyperBandScheduler,
        "time_attr max_t grace_period reduction_factor stop_last_trials",
    ),
    ("MedianStoppingRule", MedianStoppingRule, "time_attr grace_period min_time_slice"),
    ("HyperBandScheduler", HyperBandScheduler, "time_attr max_t reduction_factor"),
    (
        "PopulationBasedTraining",
        PopulationBasedTraining,
        "time_attr perturbation_interval custom_explore_fn log_config",
    ),
    ("RayTaskError", RayTaskError, "cause"),
]


def lacking(owner: str, name: str, use: str) -> str:
    return f"{owner} of Ray {ray.__version__} has no {name}; s2s_search/tuning uses it for {use}"


@pytest.mark.parametrize("owner, make, names, use", NAMES)
def test_ray_has_the_names(owner: str, make: Callable[[], Any], names: str, use: str) -> None:
    thing = make()
    for name in names.split():
        assert hasattr(thing, name), lacking(owner, name, use)


@pytest.mark.parametrize("owner, thing, names", ARGUMENTS)
def test_ray_takes_the_arguments(owner: str, thing: Any, names: str) -> None:
    for name in names.split():
        assert name in inspect.signature(thing).parameters, lacking(owner, name, "an argument")


def test_ray_takes_the_variables_of_the_environment() -> None:
    """A variable that nobody reads raises no error, so its name is searched in Ray's source."""
    package = Path(ray.__file__).parent
    folders = ("_common", "_private", "train", "tune")
    files = [path for folder in folders for path in (package / folder).rglob("*.py")]
    text = "".join(path.read_text(errors="replace") for path in files)
    for name in (*RAY_ENVIRONMENT, "RAY_AUTH_TOKEN", "RAY_TMPDIR", "RAY_OVERRIDE_RESOURCES"):
        assert f'"{name}"' in text, lacking("the environment", name, "its settings")


def test_the_texts_by_which_failures_are_told_apart() -> None:
    """`failure_of` in trials.py looks for them in the text of an error."""
    package = Path(ray.__file__).parent
    for text, file in (
        ("creation task", "exceptions.py"),
        ("running low on memory", "core/src/ray/raylet/raylet"),
    ):
        assert text.encode() in (package / file).read_bytes(), lacking(file, text, "failures")


def test_an_experiment_has_the_parts_of_a_trial(tmp_path: Path) -> None:
    def run(config: dict[str, Any]) -> None: ...

    spec = Experiment("contract", run, storage_path=str(tmp_path)).spec
    for name in ("run", "storage", "checkpoint_config"):
        assert name in spec, lacking("the spec of an experiment", name, "its trials")
    assert hasattr(spec["storage"], "trial_dir_name"), lacking(
        "storage", "trial_dir_name", "trials"
    )


def private_names(tree: ast.Module) -> Iterator[str]:
    """Returns the attributes with one underscore that no class of the module defines.

    Texts that look like one count too: getattr takes them.
    """
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    of_self = [node for node in attributes if ast.unparse(node.value) == "self"]
    own = {node.attr for node in of_self if isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    names = [node.attr for node in attributes if node not in of_self or node.attr not in own]
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    names += [text for text in constants if isinstance(text, str) and text.isidentifier()]
    yield from (name for name in names if name.startswith("_") and not name.startswith("__"))


def test_all_private_names_are_listed() -> None:
    listed = {name for _, _, names, _ in NAMES for name in names.split()}
    found = {
        f"{path.name}: {name}"
        for path in TUNING.glob("*.py")
        for name in private_names(ast.parse(path.read_text()))
        if name not in listed
    }
    assert found == set(), "private names of Ray that NAMES does not list"


def test_the_bound_is_that_of_this_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bound,) = [line for line in project["dependencies"] if line.startswith("ray")]
    assert bound == "ray[tune]>=2.60,<2.61"
    assert ray.__version__.startswith("2.60."), "another Ray than the one of these tests"
