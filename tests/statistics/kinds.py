"""The kinds of searches that are simulated, by name."""

from tests.statistics.worlds import RATE, SCORE, Config, World, position, space_text

ENCODER = "encoder.type"
BOTH = "[UnidirectionalRNNEncoder, BidirectionalRNNEncoder]"
GRID = {
    "encoder__type": f"{{grid: {BOTH}}}",
    "attention__score_type": "{grid: [dot, bahdanau], role: scientific}",
}


CROSSED = (SCORE, ENCODER, "train.seed")


def random_draws(trials: int, scheduler: str = "none") -> str:
    return space_text(f"{{trials: {trials}}}", scheduler)


def bowl(config: Config) -> float:
    """The learning rate in the middle of its range is the best."""
    return 8 * (position(config) - 0.5) ** 2


def slope(config: Config) -> float:
    """The larger the learning rate, the better, to the end of its range."""
    return -3 * position(config)


KINDS: dict[str, World] = {
    **{f"equal, {n} trials": World(random_draws(n)) for n in (8, 16, 32, 64, 200)},
    "equal, skewed noise, 32": World(random_draws(32), noise="skewed"),
    "equal, rounded values, 32": World(random_draws(32), noise="rounded"),
    **{f"dot worse by 1, {n}": World(random_draws(n), dot=1.0) for n in (16, 32, 64)},
    "dot worse by 1, skewed noise, 32": World(random_draws(32), dot=1.0, noise="skewed"),
    "two keys, 64": World(random_draws(64), dot=1.0, truth=bowl, effects=(RATE,)),
    "a slope to the end, 64": World(random_draws(64), truth=slope, effects=(RATE,)),
    "an interaction, 64": World(
        random_draws(64),
        truth=lambda config: 2.0 * ((config[SCORE] == "dot") == (config[ENCODER][0] == "U")),
        effects=(ENCODER, SCORE),
        together=(ENCODER, SCORE),
    ),
    "a condition, 32": World(
        space_text("{trials: 32}", model="[BasicSeq2Seq, AttentionSeq2Seq]"),
        truth=lambda config: 3.0 * (config["model"] == "BasicSeq2Seq"),
        effects=("model",),
    ),
    "asha, equal, 32": World(random_draws(32, "asha")),
    "asha, equal, 64": World(random_draws(64, "asha")),
    "asha, equal at the end only, 64": World(random_draws(64, "asha"), dot_early=1.0),
    "asha, dot slow and better, 64": World(random_draws(64, "asha"), dot=-0.5, dot_early=2.0),
    "asha, dot worse by 1, 64": World(random_draws(64, "asha"), dot=1.0),
    "hyperband, equal, 32": World(random_draws(32, "hyperband")),
    "tpe, equal, 32": World(space_text("{method: tpe, trials: 32}")),
    "tpe, dot worse by 1, 32": World(space_text("{method: tpe, trials: 32}"), dot=1.0),
    "grid of 8 draws, equal": World(space_text("{trials: 8}", **GRID), spread=1.0, crossed=CROSSED),
    "grid of 8 draws, dot worse by 1": World(
        space_text("{trials: 8}", **GRID), dot=1.0, spread=1.0, crossed=CROSSED
    ),
    "16 draws of 4 seeds, equal": World(space_text("{trials: 16, replicates: 4}"), spread=1.0),
    "16 draws of 4 seeds, dot worse by 1": World(
        space_text("{trials: 16, replicates: 4}"), dot=1.0, spread=0.5
    ),
    "dot diverges, 32": World(
        random_draws(32), diverges=lambda config: 0.6 * (config[SCORE] == "dot"), losing=(SCORE,)
    ),
    "large rates diverge, 32": World(
        random_draws(32), diverges=lambda config: 0.9 * (position(config) > 0.7), losing=(RATE,)
    ),
}
