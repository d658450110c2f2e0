"""The claims of the report and of compare about simulated searches are true at the rate that they state.

The rates over more searches are in docs/statistics.md.
"""

import pytest
from scipy.stats import binom

from tests.statistics.claims import FALSE, TRUE
from tests.statistics.kinds import KINDS
from tests.statistics.rates import counted

pytestmark = pytest.mark.slow

RUNS = 12
# With a true rate of 5 in 100, more false ones than this come in 1 of 1,000 tests.
MOST_FALSE = int(binom.ppf(0.999, RUNS, 0.05))


@pytest.mark.parametrize("kind", KINDS)
def test_claims(kind: str) -> None:
    found = counted(kind, 1_000, 1_000 + RUNS)
    plain = found.pop("Welch's t test", None)
    for sentence, counts in found.items():
        assert counts[FALSE] <= MOST_FALSE, f"{sentence}: {counts}"
    # Where draws or seeds share their luck, the plain test claims more than is true.
    if "compare" in found and plain is not None and not KINDS[kind].spread:
        assert found["compare"][TRUE] >= plain[TRUE] - 0.15 * RUNS
