"""The sections of a search space: search, scheduler, resources and checkpoints."""

import math
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


METHODS = ("random", "halton", "grid", *(LEARNING := ("tpe", "gp")))
# The schedulers that pause trials and resume them from their checkpoints. asha does with PROMOTE.
PAUSING = ("hyperband", "pbt", *(OURS := ("pasha", "first_reports", "freeze_thaw")))
MODELS = ("gp", "freeze_thaw")  # the method and the scheduler that have a model of all reports
SCHEDULERS = ("asha", "median", *PAUSING, "none")
VARIANTS = (STOP, PROMOTE) = ("stop", "promote")
# The settings that only some schedulers have.
SETTINGS_OF = {
    "variant": ("asha",),
    "interval_steps": ("pbt",),
    "keep": ("first_reports",),
    "total_steps": ("freeze_thaw",),
}
KEEP = 4  # the default of `keep`
# Without total_steps, freeze_thaw makes as many steps as all trials to their ends, divided by this.
# With a reduction_factor of 3, asha makes about as many.
SHARE = 4


@dataclass(frozen=True)
class Scheduler:
    """Which trials are stopped early, or changed."""

    name: str
    max_steps: int  # the steps of a trial that is never stopped
    grace_steps: int  # the steps that every trial makes
    reduction_factor: float  # one in so many trials goes on to the next rung
    interval_steps: int | None = None  # the steps between two perturbations of pbt
    variant: str = STOP  # asha stops trials at rungs, or makes them wait
    keep: int = KEEP  # the number of trials that first_reports trains to the end
    total_steps: int | None = None  # the steps of all trials after which freeze_thaw ends

    def steps_of_all(self, trials: int) -> int:
        """Returns the steps of all trials of a search after which freeze_thaw ends."""
        return self.total_steps or math.ceil(trials * self.max_steps / SHARE)

    @property
    def promotes(self) -> bool:
        """Returns whether trials wait at the rungs of asha until they are among the best."""
        return self.name == "pasha" or (self.name == "asha" and self.variant == PROMOTE)

    @property
    def pauses(self) -> bool:
        """Returns whether trials are paused and resumed from their checkpoints.

        Then all trials of a search may be alive at once.
        """
        return self.promotes or self.name in PAUSING


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
