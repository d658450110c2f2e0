from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from s2s_search.tuning.search import Search


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> "list[Search]":
    """The searches that were started or resumed, which run nothing."""
    # Late, because importing Ray takes a second, and most tests need none of it.
    from s2s_search.tuning import running
    from s2s_search.tuning.search import Outcome

    found: list[Search] = []

    def run(search: "Search") -> Outcome:
        found.append(search)
        return Outcome("finished", search.folder)

    monkeypatch.setattr(running, "run_trials", run)
    return found
