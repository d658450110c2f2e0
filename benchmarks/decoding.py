"""Measures decoding, greedy and with a beam: the processor time, and the ratio to plain steps.

Plain steps are those of `stepping.PlainStepper`, in the same search. W1 and W2 have the sizes of
the comparison with other toolkits. Their models are untrained, and no sequence ends before STEPS
steps. The test set of CMUdict is decoded with a model of W2's sizes. It is trained for
`--train-steps` steps, so that words end. All run on one thread.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import parser, ratio, show, take_turns
from benchmarks.training import WORKS, trial
from s2s_search.corpus import Corpus, load_corpus
from s2s_search.corpus.batches import evaluation_batches, make_batch
from s2s_search.hparams import resolve
from s2s_search.metrics import error_rate
from s2s_search.nn import generate
from s2s_search.nn.generate import beam_search, greedy
from s2s_search.nn.models import Seq2Seq
from s2s_search.nn.stepping import PlainStepper
from s2s_search.spaces import load_space
from s2s_search.training.evaluation import decode, evaluate, group_targets
from s2s_search.training.trial import Trial

BATCH, BATCHES, STEPS = 128, 4, 20
SPACES = Path(__file__).parent.parent / "search_spaces"

Sources = Sequence[tuple[Tensor, Tensor]]  # ids [B, S] and lengths [B] of each batch


def main() -> None:
    made = parser("decoding", __doc__, rounds=7)
    made.add_argument(
        "--train-steps",
        type=int,
        default=500,
        metavar="N",
        help="steps of training (default: %(default)s)",
    )
    made.add_argument("--test-set", action="store_true", help="only the test set")
    made.add_argument(
        "--spaces",
        action="store_true",
        help="measure the share of evaluation in trials of each search space instead",
    )
    made.add_argument(
        "--trials",
        type=int,
        default=2,
        metavar="N",
        help="number of trials of each space (default: %(default)s)",
    )
    args = made.parse_args()
    torch.set_num_threads(1)
    if args.spaces:
        paths = sorted(SPACES.rglob("*.yaml"))
        show(
            [row for path in paths for row in evaluations(path, args.trials, args.train_steps)],
            args.json,
        )
        return
    rows = (
        []
        if args.test_set
        else [forced(name, beam, args.rounds) for name in ("W1", "W2") for beam in (1, 5)]
    )
    show([*rows, test_set(args.train_steps, args.rounds)], args.json)


def forced(name: str, beam: int, rounds: int) -> dict[str, object]:
    """Measures STEPS steps of BATCHES batches."""
    made = trial(WORKS[name])
    corpus, model = made.corpus, made.model.eval()
    model.end_id = -1
    batches = evaluation_batches(
        corpus.train, corpus.source_vocab, corpus.target_vocab, BATCH, BATCH * BATCHES
    )
    sources = [(batch.source_ids, batch.source_lengths) for batch, _ in islice(batches, BATCHES)]
    run = partial(decode_all, model, sources, beam)
    seconds = take_turns({"now": run, "plain": partial(plainly, run)}, rounds)
    now = statistics.median(seconds["now"])
    return {
        "decoded": f"{name}, {'greedy' if beam == 1 else f'beam {beam}'}",
        "seconds": now,
        "sources a second": sum(len(ids) for ids, _ in sources) / now,
        "plain steps take": ratio(seconds["plain"], seconds["now"]),
    }


def decode_all(model: Seq2Seq, sources: Sources, beam: int) -> None:
    for ids, lengths in sources:
        if beam == 1:
            greedy(model, ids, lengths, STEPS)
        else:
            beam_search(model, ids, lengths, STEPS, beam)


def plainly(run: Callable[[], None]) -> None:
    never = mock.patch.object(generate, "greedy_ids", return_value=None)
    with never, mock.patch.object(generate, "make_stepper", PlainStepper):
        run()


def test_set(train_steps: int, rounds: int) -> dict[str, object]:
    """Measures greedy decoding of each word in CMUdict's test set, up to END."""
    made = trial(
        replace(WORKS["W2"], overrides={**WORKS["W2"].overrides, "optimizer.learning_rate": 0.003})
    )
    made.train_steps(train_steps)
    made.model.eval()
    corpus, split = made.corpus, made.corpus.test
    words = np.argsort(np.diff(split.source_offsets)[split.groups[:-1]], kind="stable")
    answers: list[list[int]] = []

    def run() -> None:
        answers.clear()
        for k in range(0, len(words), BATCH):
            pairs = split.groups[words[k : k + BATCH]]
            batch = make_batch(split, pairs, corpus.source_vocab, corpus.target_vocab)
            answers.extend(decode(made.model, batch.source_ids, batch.source_lengths, made.hparams))

    seconds = take_turns({"now": run, "plain": partial(plainly, run)}, rounds)
    now = statistics.median(seconds["now"])
    return {
        "decoded": f"CMUdict's test set, {len(words)} words, greedy, after {train_steps} updates",
        "seconds": now,
        "sources a second": len(words) / now,
        "plain steps take": ratio(seconds["plain"], seconds["now"]),
        "error rate": error_rate(answers, [group_targets(split, int(word)) for word in words]),
    }


def evaluations(path: Path, trials: int, train_steps: int) -> list[dict[str, object]]:
    """Measures the share of evaluation in a trial, by one evaluation after `train_steps` updates.

    A less trained model decodes longer sequences, so the share of the whole trial is smaller.
    """
    space = load_space(path)
    drawn = space.trials()
    corpus = load_corpus(space.corpus)
    chosen = sorted({round(k) for k in np.linspace(0, len(drawn) - 1, trials)})
    return [
        {
            "space": str(path.relative_to(SPACES)),
            "trial": k,
            **evaluation(drawn[k], corpus, train_steps),
        }
        for k in chosen
    ]


def evaluation(config: dict[str, object], corpus: Corpus, train_steps: int) -> dict[str, object]:
    hparams = resolve(str(config["model"]), config)
    made = Trial(hparams, corpus, torch.device("cpu"))
    between = int(hparams["train.eval_every_steps"])
    steps = min(between, train_steps)
    began = time.process_time()
    made.train_steps(steps)
    trained = time.process_time()
    evaluate(made.model, corpus.dev, corpus, hparams)
    update, evaluated = (trained - began) / steps, time.process_time() - trained
    return {
        "ms an update": 1000 * update,
        "updates between": between,
        "seconds an evaluation": evaluated,
        "evaluation, %": 100 * evaluated / (between * update + evaluated),
    }


if __name__ == "__main__":
    main()
