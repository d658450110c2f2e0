"""A trial: trains a model on a corpus and yields reports.

The same generator runs under Ray, in a debug run and in a test. Its seeds come from the
hyperparameters alone. It has run on CPUs only: nothing here has run on a GPU yet.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s2s_search import metrics
from s2s_search.corpus.batches import Batch, TrainingBatches
from s2s_search.corpus.corpus import Corpus
from s2s_search.hparams.configuration import Hparams
from s2s_search.nn.models import Seq2Seq, build_model
from s2s_search.runs.answers import Answers
from s2s_search.statuses import PLATEAUED
from s2s_search.training.average import Average
from s2s_search.training.evaluation import evaluation, examples
from s2s_search.training.optimizers import Optimizer, make_optimizer
from s2s_search.training.patience import Patience
from s2s_search.training.process_memory import keep_freed_memory

# The number of steps between two looks at the loss. On a GPU each look waits for the device.
STEPS_BETWEEN_LOOKS = 10


@dataclass(frozen=True)
class Report:
    """A report of a trial: metrics by name, and on demand its snapshot and its answers.

    `snapshot` and `answers` read the trial's own tensors, which the next step changes. Both are
    valid only until the next report is asked for: call them, and save what they return, before.

    step                number of updates so far
    status              running, finished, plateaued or diverged
    seconds             time of this trial so far, evaluation included
    evaluation_seconds  the part of `seconds` that evaluation took
    learning_rate       that of the last update
    parameters          number of the model's parameters
    train.loss          nats per target token since the last report, with label smoothing if any
    dev.*               see `evaluate`
    """

    metrics: dict[str, Any]
    snapshot: Callable[[], dict[str, Any]]
    answers: Callable[[], Answers | None]


def train(
    hparams: Hparams,
    corpus: Corpus,
    device: str | torch.device = "cpu",
    snapshot: Mapping[str, Any] | None = None,
    metric: str = metrics.LOSS.name,
    goal: str = metrics.LOSS.goal,
) -> Iterator[Report]:
    """Trains a model and yields a report every `train.eval_every_steps` steps and at the end.

    A loss that is not finite ends the trial with status `diverged` and the values of
    `metrics.WORST`. `train.patience` reports without a better one end it with status `plateaued`.
    Random numbers that the caller draws between two reports change no number.

    Args:
        hparams: The hyperparameters.
        corpus: The corpus.
        device: The device of the model.
        snapshot: The snapshot of a report from which training resumes. On the CPU the numbers are
            then the same, bit for bit, as without the interruption.
        metric: The name of the metric by which a report is better than another.
        goal: "minimize" or "maximize".
    """
    trial = Trial(hparams, corpus, torch.device(device), metric, goal)
    if snapshot is not None:
        trial.restore(snapshot)
    while trial.status == "running":
        trial.advance()
        state = torch.get_rng_state()
        yield Report(trial.report(), trial.snapshot, trial.answers)
        torch.set_rng_state(state)


class Trial:
    """A model in training, with everything that a snapshot holds."""

    def __init__(
        self,
        hparams: Hparams,
        corpus: Corpus,
        device: torch.device,
        metric: str = metrics.LOSS.name,
        goal: str = metrics.LOSS.goal,
    ) -> None:
        keep_freed_memory()
        self.hparams, self.corpus, self.device = hparams, corpus, device
        self.steps_between_reports = hparams["train.eval_every_steps"]
        self.max_steps = hparams["train.max_steps"]
        self.label_smoothing = hparams["train.label_smoothing"]
        torch.manual_seed(hparams["train.seed"])
        self.model = build_model(hparams, len(corpus.source_vocab), len(corpus.target_vocab)).to(
            device
        )
        self.optimizer: Optimizer = make_optimizer(self.model.parameters(), hparams)
        self.average: Average | None = None
        if hparams["train.average_decay"]:
            self.average = Average(self.model, hparams["train.average_decay"])
        self.batches = TrainingBatches(
            corpus.train,
            corpus.source_vocab,
            corpus.target_vocab,
            batch_size=hparams["train.batch_size"],
            seed=hparams["train.seed"],
            source_max=hparams["source.max_seq_len"],
            target_max=hparams["target.max_seq_len"],
        )
        self.patience: Patience | None = None
        if hparams["train.patience"]:
            self.patience = Patience(hparams["train.patience"], metric, goal)
        self.step = 0
        self.status = "running"
        self.seconds = self.evaluation_seconds = 0.0
        self.measured: dict[str, float] = {}
        self.edits: metrics.Edits | None = None

    @property
    def evaluated(self) -> Seq2Seq:
        """The model that answers: the one that is trained, or the average of its weights."""
        return self.model if self.average is None else self.average.model

    def advance(self) -> None:
        """Trains up to the next report, and evaluates unless the loss has diverged."""
        began = time.perf_counter()
        steps = self.steps_between_reports - self.step % self.steps_between_reports
        loss = self.train_steps(min(steps, self.max_steps - self.step))
        self.measured, self.edits = {"train.loss": loss}, None
        trained = time.perf_counter()
        if math.isfinite(self.measured["train.loss"]):
            measured, self.edits = evaluation(
                self.evaluated, self.corpus.dev, self.corpus, self.hparams
            )
            self.measured |= measured
        if not all(math.isfinite(value) for value in self.measured.values()):
            self.status, self.measured = "diverged", dict(metrics.WORST)
        elif self.step >= self.max_steps:
            self.status = "finished"
        self.evaluation_seconds += time.perf_counter() - trained
        self.seconds += time.perf_counter() - began
        if self.patience is not None and self.status == "running":
            self.patience.hear(self.report())
            if self.patience.is_over:
                self.status = PLATEAUED

    def train_steps(self, steps: int) -> float:
        """Makes `steps` updates, or fewer when the loss is not finite.

        Returns their mean loss in nats per target token.
        """
        self.model.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        # A float32 counts to 2^24 only, which is the number of tokens in a few thousand steps.
        tokens = torch.zeros((), dtype=torch.int64, device=self.device)
        for _ in range(steps):
            batch = next(self.batches).to(self.device)
            loss, count = training_step(
                self.model, self.optimizer, batch, self.step, self.label_smoothing
            )
            total, tokens = total + loss, tokens + count
            self.step += 1
            if self.average is not None:
                self.average.update(self.step)
            if self.step % STEPS_BETWEEN_LOOKS == 0 and not math.isfinite(total.item()):
                break
        return float(total / tokens.clamp(min=1)) if steps else 0.0

    def report(self) -> dict[str, Any]:
        """Returns the metrics of a `Report`."""
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
        """Returns everything that resuming and decoding need, as tensors and plain values only.

        The tensors are the trial's own: they are valid until its next step. A saved snapshot has
        three entries more, which `runs.checkpoints.keep_snapshots` adds: `report` (the metrics),
        `metric` (the name of the one that chooses the best step) and `best` (its best value).
        """
        snapshot = {
            "hparams": self.hparams.flat(),
            "source_tokens": list(self.corpus.source_vocab.tokens),
            "target_tokens": list(self.corpus.target_vocab.tokens),
            "delimiters": list(self.corpus.delimiters),
            "corpus": self.corpus.fingerprint,
            "step": self.step,
            "seconds": self.seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "batches": self.batches.position,
            "model": self.evaluated.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            # All random numbers of training are drawn on the CPU.
            "random": {"cpu": torch.get_rng_state()},
        }
        if self.average is not None:
            snapshot["trained"] = self.model.state_dict()  # "model" is the average
        if self.patience is not None:
            snapshot["patience"] = self.patience.state()
        return snapshot

    def answers(self) -> Answers | None:
        """Returns the model's answers to the dev set; None if a diverged trial decoded nothing."""
        if self.edits is None:
            return None
        shown = examples(self.evaluated, self.corpus.dev, self.corpus, self.hparams)
        return Answers(self.step, *self.edits, shown)

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Sets the trial to the state of a snapshot.

        Raises:
            ValueError: the snapshot was made on another corpus.
        """
        if snapshot["corpus"] != self.corpus.fingerprint:
            raise ValueError("the snapshot was made on another corpus")
        self.step, self.seconds = snapshot["step"], snapshot["seconds"]
        self.evaluation_seconds = snapshot["evaluation_seconds"]
        self.status = "finished" if self.step >= self.max_steps else "running"
        if self.patience is not None:
            self.patience.restore(snapshot["patience"])
            if self.patience.is_over and self.status == "running":
                self.status = PLATEAUED
        self.batches.position = snapshot["batches"]
        self.evaluated.load_state_dict(snapshot["model"])
        if self.average is not None:
            self.model.load_state_dict(snapshot["trained"])
        self.optimizer.load_state_dict(snapshot["optimizer"])
        torch.set_rng_state(snapshot["random"]["cpu"].cpu())


def training_step(
    model: Seq2Seq, optimizer: Optimizer, batch: Batch, step: int, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Makes one update and returns the summed loss in nats and the number of target tokens.

    Both are scalars on the device, so that the host need not wait for them.
    """
    loss = model.loss(batch, label_smoothing)
    tokens = (batch.target_lengths.long() - 1).sum()
    torch.autograd.backward(loss / tokens.clamp(min=1))
    optimizer.step(step)
    return loss.detach(), tokens
