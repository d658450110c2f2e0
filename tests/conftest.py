import os
from collections.abc import Iterator
from pathlib import Path

# One thread each, so that tests side by side do not starve each other. NumPy reads this when it is imported, and so
# do the processes that tests start.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import settings

# The same examples on every machine, however slow.
settings.register_profile("tests", derandomize=True, deadline=None)
settings.load_profile("tests")
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=Path(__file__).parent / "golden" / "data",
        help="the folder of recorded numbers that tests/golden compares with",
    )


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own, for their processes too."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder
