"""A trial: trains a model on a corpus and reports as it goes.

The same generator runs under Ray, in a debug run and in a test; seeds come from the hyperparameters alone.
"""

import ctypes
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from s2s_search import metrics
from s2s_search.answers import Answers, Example
from s2s_search.batches import Batch, TrainingBatches, evaluation_batches, make_batch, moved
from s2s_search.corpus import Corpus, Split
from s2s_search.footprint import CELLS, cut_at_cells, row_cells
from s2s_search.hparams import Hparams
from s2s_search.nn.generate import beam_search_from, greedy_from
from s2s_search.nn.models import Encoding, Seq2Seq, build_model
from s2s_search.nn.stepping import selected
from s2s_search.optim import Optimizer, make_optimizer

# What a diverged trial reports: finite, and worse than anything that a model can earn.
WORST: dict[str, float] = {
    "train.loss": 1e6,
    "dev.loss": 1e6,
    "dev.perplexity": math.exp(100),
    "dev.token_accuracy": 0.0,
    "dev.error_rate": 1e6,
    "dev.word_error_rate": 1.0,
    "dev.bleu": 0.0,
}
# A loss is looked at every so many steps: on a GPU each look waits for the device.
STEPS_BETWEEN_LOOKS = 10
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
BLOCK_THAT_TRIMS = 2**17
UNMATCHED = -1  # an id that no model answers
EXAMPLES = 8  # dev sources whose answers are kept whole
MAP_CELLS = 2**16  # numbers of an attention map that is kept: a larger one cannot be read


@dataclass(frozen=True)
class Report:
    """What a trial says at a report: metrics by name, and on demand its snapshot and answers, until the trial goes on.

    metrics: step · status (running, finished, diverged) · seconds (of this trial so far, evaluation included) ·
    evaluation_seconds · learning_rate (of the last update) · parameters · train.loss (nats per target token since the
    last report) · dev.* (see `evaluate`)
    """

    metrics: dict[str, Any]
    snapshot: Callable[[], dict[str, Any]]
    answers: Callable[[], Answers | None]


def train(
    hparams: Hparams, corpus: Corpus, device: str | torch.device = "cpu", snapshot: Mapping[str, Any] | None = None
) -> Iterator[Report]:
    """Trains a model and yields a report every `train.eval_every_steps` steps and at the end.

    With a `snapshot` it goes on from there, on the CPU bit for bit as if it had never stopped. A loss that is not
    finite ends it with status `diverged` and the values of WORST. What the caller does between two reports changes no
    number.
    """
    trial = Trial(hparams, corpus, torch.device(device))
    if snapshot is not None:
        trial.restore(snapshot)
    while trial.status == "running":
        trial.advance()
        states = random_states(trial.device)
        yield Report(trial.report(), trial.snapshot, trial.answers)
        set_random_states(states, trial.device)


class Trial:
    """A model in training, and all that its snapshot holds."""

    def __init__(self, hparams: Hparams, corpus: Corpus, device: torch.device) -> None:
        keep_freed_memory()
        self.hparams, self.corpus, self.device = hparams, corpus, device
        self.steps_between_reports = hparams["train.eval_every_steps"]
        self.max_steps = hparams["train.max_steps"]
        torch.manual_seed(hparams["train.seed"])
        self.model = build_model(hparams, len(corpus.source_vocab), len(corpus.target_vocab)).to(device)
        self.optimizer: Optimizer = make_optimizer(self.model.parameters(), hparams)
        self.batches = TrainingBatches(
            corpus.train,
            corpus.source_vocab,
            corpus.target_vocab,
            batch_size=hparams["train.batch_size"],
            seed=hparams["train.seed"],
            source_max=hparams["source.max_seq_len"],
            target_max=hparams["target.max_seq_len"],
        )
        self.step = 0
        self.status = "running"
        self.seconds = self.evaluation_seconds = 0.0
        self.measured: dict[str, float] = {}
        self.edits: metrics.Edits | None = None

    def advance(self) -> None:
        """Trains up to the next report and evaluates."""
        began = time.perf_counter()
        steps = self.steps_between_reports - self.step % self.steps_between_reports
        self.measured, self.edits = {"train.loss": self.train_steps(min(steps, self.max_steps - self.step))}, None
        trained = time.perf_counter()
        if math.isfinite(self.measured["train.loss"]):
            measured, self.edits = evaluation(self.model, self.corpus.dev, self.corpus, self.hparams)
            self.measured |= measured
        if not all(math.isfinite(value) for value in self.measured.values()):
            self.status, self.measured = "diverged", dict(WORST)
        elif self.step >= self.max_steps:
            self.status = "finished"
        self.evaluation_seconds += time.perf_counter() - trained
        self.seconds += time.perf_counter() - began

    def train_steps(self, steps: int) -> float:
        """Makes up to `steps` updates and returns their mean loss in nats per target token."""
        self.model.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        tokens = torch.zeros((), dtype=torch.int64, device=self.device)  # float32 counts to 2^24, a few thousand steps
        for _ in range(steps):
            batch = next(self.batches).to(self.device)
            loss, count = training_step(self.model, self.optimizer, batch, self.step)
            total, tokens = total + loss, tokens + count
            self.step += 1
            if self.step % STEPS_BETWEEN_LOOKS == 0 and not math.isfinite(total.item()):
                break
        return float(total / tokens.clamp(min=1)) if steps else 0.0

    def report(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "status": self.status,
            "seconds": self.seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "learning_rate": self.optimizer.schedule(max(self.step - 1, 0)),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            **self.measured,
        }

    def snapshot(self) -> dict[str, Any]:
        """All that the trial needs to go on, and what decoding needs; made of tensors and plain values only.

        The tensors are those of the trial: save them before it goes on.
        """
        return {
            "hparams": self.hparams.flat(),
            "source_tokens": list(self.corpus.source_vocab.tokens),
            "target_tokens": list(self.corpus.target_vocab.tokens),
            "delimiters": list(self.corpus.delimiters),
            "corpus": self.corpus.fingerprint,
            "step": self.step,
            "seconds": self.seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "batches": self.batches.position,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random_states(self.device),
        }

    def answers(self) -> Answers | None:
        """What the model answers to the dev set at this report; None where a diverged trial has decoded nothing."""
        if self.edits is None:
            return None
        return Answers(self.step, *self.edits, examples(self.model, self.corpus.dev, self.corpus, self.hparams))

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        if snapshot["corpus"] != self.corpus.fingerprint:
            raise ValueError("the snapshot was made on another corpus")
        self.step, self.seconds = snapshot["step"], snapshot["seconds"]
        self.evaluation_seconds = snapshot["evaluation_seconds"]
        self.status = "finished" if self.step >= self.max_steps else "running"
        self.batches.position = snapshot["batches"]
        self.model.load_state_dict(snapshot["model"])
        self.optimizer.load_state_dict(snapshot["optimizer"])
        set_random_states(snapshot["random"], self.device)


def training_step(model: Seq2Seq, optimizer: Optimizer, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
    """Makes one update and returns the summed loss and the number of target tokens, both scalars on the device."""
    loss, tokens = model.loss(batch), (batch.target_lengths.long() - 1).sum()
    torch.autograd.backward(loss / tokens.clamp(min=1))
    optimizer.step(step)
    return loss.detach(), tokens


def token_losses(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy [B, T] in nats of the logits [B, T, V] against batch.target_ids[:, 1:]; zero past a row's end."""
    targets = batch.target_ids[:, 1:].long()
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    return losses * target_mask(batch)


def target_mask(batch: Batch) -> Tensor:
    """The mask [B, T] of the target tokens to predict."""
    steps = torch.arange(batch.target_ids.shape[1] - 1, device=batch.target_ids.device)
    return steps < (batch.target_lengths.long() - 1).unsqueeze(1)


def evaluate(model: Seq2Seq, split: Split, corpus: Corpus, hparams: Hparams) -> dict[str, float]:
    """The dev.* metrics on all of a split, or on the fixed part of `train.eval_examples` sources.

    Loss, perplexity and accuracy count every target. Error rates and BLEU decode every source once and take the best
    of its references.
    """
    return evaluation(model, split, corpus, hparams)[0]


@torch.no_grad()
def evaluation(
    model: Seq2Seq, split: Split, corpus: Corpus, hparams: Hparams
) -> tuple[dict[str, float], metrics.Edits]:
    """What `evaluate` returns, and the edits of each decoded source, in the split's order."""
    model.eval()
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct tokens, tokens
    decoded: dict[int, list[int]] = {}  # by group
    first_pairs = {int(pair): group for group, pair in enumerate(split.groups[:-1])}
    batches = evaluation_batches(
        split,
        corpus.source_vocab,
        corpus.target_vocab,
        hparams["train.eval_batch_size"],
        hparams["train.eval_examples"],
        row_cells(hparams, len(corpus.target_vocab)),
    )
    for cpu_batch, pairs in batches:
        batch = cpu_batch.to(device)
        rows = [row for row, pair in enumerate(pairs) if int(pair) in first_pairs]
        batch_sums, answered = evaluate_batch(model, batch, hparams, rows)
        sums += batch_sums
        decoded |= zip([first_pairs[int(pairs[row])] for row in rows], answered, strict=True)
    loss, right, tokens = sums.tolist()
    predictions = [decoded[group] for group in sorted(decoded)]
    unk = corpus.target_vocab.unk
    references = [comparable_targets(split, group, unk) for group in sorted(decoded)]
    edits = metrics.nearest_edits(predictions, references)
    measured = {
        "dev.loss": loss / tokens,
        "dev.perplexity": math.exp(min(loss / tokens, 100.0)),
        "dev.token_accuracy": right / tokens,
        "dev.error_rate": edits.error_rate,
        "dev.word_error_rate": edits.word_error_rate,
        "dev.bleu": metrics.bleu(predictions, references),
    }
    return measured, edits


def evaluate_batch(
    model: Seq2Seq, batch: Batch, hparams: Hparams, rows: Sequence[int]
) -> tuple[Tensor, list[list[int]]]:
    """Returns the sums of `target_sums` over a batch, and the answers to the sources of these rows."""
    encoding = model.encode(batch.source_ids, batch.source_lengths)
    sums = target_sums(model, encoding, batch)
    if not rows:
        return sums, []
    chosen = selected(encoding, moved(torch.tensor(rows), sums.device))
    return sums, answers(model, chosen, hparams)


def target_sums(model: Seq2Seq, encoding: Encoding, batch: Batch) -> Tensor:
    """Returns the summed loss in nats, the number of correct tokens and the number of all, float64 [3].

    Logits are computed for so many steps at a time that they have at most CELLS numbers.
    """
    x = model.decoder_inputs(batch.target_ids, encoding.extra)
    lengths = batch.target_lengths - 1
    outputs, contexts = model.decoder.recur(x, lengths, encoding.state, encoding.memory)[:2]
    targets, ended = batch.target_ids[:, 1:], ~target_mask(batch)
    losses, correct = torch.zeros_like(targets, dtype=outputs.dtype), torch.zeros_like(ended)
    steps = max(1, CELLS // (len(targets) * len(model.target_embedding.weight)))
    for first in range(0, targets.shape[1], steps):
        part = slice(first, first + steps)
        logits = model.decoder.predict(outputs[:, part], None if contexts is None else contexts[:, part])
        correct[:, part] = logits.argmax(-1) == targets[:, part]
        loss = F.cross_entropy(logits.flatten(0, 1), targets[:, part].flatten(), reduction="none")
        losses[:, part] = loss.view_as(targets[:, part])
    losses.masked_fill_(ended, 0.0)  # outputs past a row's end are not defined
    correct.masked_fill_(ended, False)
    return torch.stack([losses.sum(dtype=torch.float64), correct.sum(), (~ended).sum()])


def group_targets(split: Split, group: int) -> list[list[int]]:
    """All references of one source, as lists of target ids."""
    return [split.target(pair).tolist() for pair in range(int(split.groups[group]), int(split.groups[group + 1]))]


def comparable_targets(split: Split, group: int, unk: int) -> list[list[int]]:
    """The references of one source as error rates and BLEU see them: nothing equals an unknown token, not even UNK."""
    targets = group_targets(split, group)
    return [[UNMATCHED if token == unk else token for token in target] for target in targets]


@torch.no_grad()
def examples(model: Seq2Seq, split: Split, corpus: Corpus, hparams: Hparams) -> list[Example]:
    """What a model answers to EXAMPLES sources of a split, spread evenly over it, whatever the hyperparameters.

    The answer is the one that `decode` gives, by a beam where that is wider than 1. Attention is that of the decoder
    when it reads this answer: for a greedy one what it saw on its way, for a hypothesis of a beam what led to it.
    """
    model.eval()
    device = next(model.parameters()).device
    groups = len(split.groups) - 1
    chosen = sorted({k * groups // EXAMPLES for k in range(EXAMPLES)})
    pairs = split.groups[chosen]
    sources = (split.source_offsets[pairs + 1] - split.source_offsets[pairs] + 1).tolist()
    longest = [hparams["inference.max_decode_length"] + 1] * len(pairs)
    answered: list[list[int]] = []
    maps: list[list[list[float]] | None] = []
    for part in cut_at_cells(sources, longest, row_cells(hparams, len(corpus.target_vocab))):
        batch = make_batch(split, pairs[part], corpus.source_vocab, corpus.target_vocab).to(device)
        encoding = model.encode(batch.source_ids, batch.source_lengths)
        answered += answers(model, encoding, hparams)
        maps += attention_maps(model, encoding, answered[part])
    return [
        Example(
            corpus.source_vocab.decode(split.source(int(split.groups[group]))),
            [corpus.target_vocab.decode(target) for target in group_targets(split, group)],
            corpus.target_vocab.decode(answer),
            attention,
        )
        for group, answer, attention in zip(chosen, answered, maps, strict=True)
    ]


def attention_maps(
    model: Seq2Seq, encoding: Encoding, target_rows: list[list[int]]
) -> Sequence[list[list[float]] | None]:
    """The attention weights when each encoded source has these target ids, which lack START and END.

    Of each source a row for each target id and END, a column for each source id and END, rounded to four decimals.
    None without attention, and where a map would have more than MAP_CELLS numbers.
    """
    ids = [torch.tensor([model.start_id, *row, model.end_id]) for row in target_rows]
    source_lengths = encoding.encoder_output.lengths
    target_lengths = source_lengths.new_tensor([len(row) for row in ids])
    padded = pad_sequence(ids, batch_first=True).to(source_lengths.device)
    x = model.decoder_inputs(padded, encoding.extra)
    weights = model.decoder.recur(x, target_lengths - 1, encoding.state, encoding.memory).weights
    if weights is None:
        return [None] * len(ids)
    weights = model.source_order(weights, source_lengths)
    maps: list[list[list[float]] | None] = []
    for each, rows, columns in zip(weights, (target_lengths - 1).tolist(), source_lengths.tolist(), strict=True):
        is_shown = rows * columns <= MAP_CELLS
        maps.append(each[:rows, :columns].double().round(decimals=4).tolist() if is_shown else None)
    return maps


@torch.no_grad()
def decode(model: Seq2Seq, source_ids: Tensor, source_lengths: Tensor, hparams: Hparams) -> list[list[int]]:
    """The best target ids of each source, without END: greedy, or by a beam if `inference.*` makes it wider than 1."""
    return answers(model, model.encode(source_ids, source_lengths), hparams)


def answers(model: Seq2Seq, encoding: Encoding, hparams: Hparams) -> list[list[int]]:
    """`decode` for encoded sources."""
    max_length = hparams["inference.max_decode_length"]
    width = hparams["inference.beam_search.beam_width"]
    if width > 1:
        weight = hparams["inference.beam_search.length_penalty_weight"]
        beam = beam_search_from(model, encoding, max_length, width, weight)
        ids, lengths = beam.ids[:, 0], beam.lengths[:, 0]
    else:
        ids, lengths, *_ = greedy_from(model, encoding, max_length)
    rows = [row[:n] for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)]
    return [row[:-1] if row and row[-1] == model.end_id else row for row in rows]


def keep_freed_memory() -> None:
    """Lets this process keep the memory that it frees, where its C library is glibc.

    By default glibc returns large blocks to the system, and each training step asks for the same ones again, at the
    cost of hundreds of page faults or more.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Returns what `keep_freed_memory` keeps to the system, at the end of a trial and in its thread.

    The next trial of a process runs in another thread, to which glibc may give another arena. `malloc_trim` returns
    what is free inside all arenas, but the free end only of the main one. That of any other is returned when its thread
    frees a block of 64 KiB or more while more than the threshold is free there.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(M_TRIM_THRESHOLD, 0)
        libc.free(libc.malloc(BLOCK_THAT_TRIMS))
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Returns the C library of this process where it is glibc."""
    if os.name != "posix" or not hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        return None
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    return libc


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The state of every random number generator that training draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
