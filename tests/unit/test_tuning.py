"""Which trials of a resumed search are new."""

from pathlib import Path
from typing import Any

from s2s_search.events import EventLog, read_events
from s2s_search.history import History
from s2s_search.samplers import make_sampler
from s2s_search.spaces import load_space
from s2s_search.tuning import Search

SPACE = """
model: BasicSeq2Seq
search: {method: grid}
scheduler: {name: asha, max_steps: 40, grace_steps: 10, reduction_factor: 2}
parameters: {train.seed: [0, 1, 2, 3, 4, 5]}
"""


def test_numbers_that_never_began_are_new_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    space = load_space(tmp_path / "space.yaml")
    search = {"event": "search", "name": "x", "metric": "dev.loss", "goal": "minimize", "searched": {}, "trials": 6}
    with EventLog(tmp_path) as log:
        log.append(search)
        for number, status, loss in [(0, "finished", 1.0), (3, "running", 2.0), (4, "running", 3.0)]:
            name = f"trial-{number:05d}"
            log.append({"event": "trial", "trial": name, "settings": {}, "config": {"train.seed": number}})
            log.append({"event": "report", "trial": name, "step": 10, "status": status, "dev.loss": loss})
        log.append({"event": "status", "trial": "trial-00000", "status": "finished"})
    corpus: Any = None
    run = Search(space, tmp_path, make_sampler(space), corpus, None, None, {}, None, None, None, None)
    plan = run.recall(History(read_events(tmp_path)[0]), again=())
    assert run.new == [1, 2, 5]
    assert plan.new == 3
    # 3 was stopped at the rung of step 10, worse than the half of those before, and so was 4: no one had written it.
    assert plan.closed == {"trial-00003": "stopped", "trial-00004": "stopped"}
    assert plan.going_on == {}
    assert plan.ended == 1
