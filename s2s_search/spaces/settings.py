"""The sections of a search space: search, scheduler, resources and checkpoints."""

from dataclasses import dataclass

# A trial has these from the sections `scheduler` and `search`, unless the parameters set them.
BUDGET = ("train.max_steps", "train.seed")


@dataclass(frozen=True)
class SearchSettings:
    """Which configurations are tried, how often, and for how long at most."""

    method: str
    trials: int | None  # the number of draws, before grids and replicates; None runs a whole grid
    seed: int
    replicates: int  # the number of seeds of each configuration
    retries: int = 3  # how often a trial is started again after its worker was lost
    hours: float | None = None  # the budget of the whole search
    gpu_hours: float | None = None  # the budget of the whole search, summed over GPUs
    trial_hours: float | None = None  # the worker time of one trial, after which it is stopped
    max_at_once: int | None = None  # the largest number of trials that run at once

    def at_once(self, fitting: int) -> int:
        """Returns the number of trials that run at once where `fitting` trials would fit."""
        return fitting if self.max_at_once is None else min(fitting, self.max_at_once)


@dataclass(frozen=True)
class Scheduler:
    """Which trials are stopped early, or changed."""

    name: str
    max_steps: int  # the steps of a trial that is never stopped
    grace_steps: int  # the steps that every trial makes
    reduction_factor: float  # one in so many trials goes on to the next rung
    interval_steps: int | None = None  # the steps between two perturbations of pbt

    @property
    def pauses(self) -> bool:
        """Returns whether trials are paused and resumed from their checkpoints.

        Then all trials of a search may be alive at once.
        """
        return self.name in ("hyperband", "pbt")


@dataclass(frozen=True)
class Resources:
    """What one trial takes: CPUs and GPUs. A fraction is a share of one of them."""

    cpu: float = 1.0
    gpu: float = 0.0

    @property
    def threads(self) -> int:
        """Returns the number of threads that a trial computes with."""
        return max(1, int(self.cpu))

    @property
    def sharing(self) -> int:
        """Returns the number of trials that share a GPU."""
        if 0 < self.gpu < 1:
            return int(1 / self.gpu + 1e-9)  # 1 / (1 / 49) is a little below 49
        return 1

    def fitting(self, cpus: float, gpus: float) -> int:
        """Returns the number of trials that run at once on one node.

        A trial that takes a share of a GPU has it on a single GPU.
        """
        by_cpu = cpus / self.cpu + 1e-9
        if not self.gpu:
            return int(by_cpu)
        if self.gpu >= 1:
            return int(min(by_cpu, gpus // self.gpu))
        return int(min(by_cpu, int(gpus) * self.sharing))


@dataclass(frozen=True)
class CheckpointSettings:
    """The checkpoints that a search keeps, besides those of running trials."""

    best: int = 10  # the number of best trials whose checkpoints stay
    disk_gb: float | None = None  # the disk space that all checkpoints together may take
