from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The same examples on every machine, however slow; one thread, so that tests side by side do not starve each other.
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
