import json
from pathlib import Path

import pytest

from tests.golden.recorded import Recorded, read_cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder: Path = metafunc.config.getoption("--golden-dir")
    if not (folder / "cases.json").exists():
        raise pytest.UsageError(f"--golden-dir {folder}: there is no cases.json")
    if "case" in metafunc.fixturenames:
        cases = read_cases(folder)
        metafunc.parametrize("case", cases, ids=[case["id"] for case in cases], indirect=True)
    if "trajectory" in metafunc.fixturenames:
        files = sorted(folder.glob("trajectory_*.json"))
        metafunc.parametrize("trajectory", files, ids=[file.stem for file in files], indirect=True)
    if "schedule" in metafunc.fixturenames:
        file = folder / "lr_schedules.json"
        schedules = json.loads(file.read_text())["schedules"] if file.exists() else []
        metafunc.parametrize(
            "schedule", schedules, ids=lambda schedule: schedule_name(schedule["hparams"])
        )


def schedule_name(hparams: dict[str, object]) -> str:
    return "-".join(
        str(value) for name, value in hparams.items() if name != "optimizer.learning_rate"
    )


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param, request.config.getoption("--golden-dir"))


@pytest.fixture
def trajectory(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(json.loads(request.param.read_text()), request.param.parent)
