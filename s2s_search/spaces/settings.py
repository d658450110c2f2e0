"""The sections of a search space besides its parameters: metric, search, scheduler, resources, checkpoints."""

from dataclasses import dataclass

BUDGET = (
    "train.max_steps",
    "train.seed",
)  # of a trial: from the sections, unless the parameters say otherwise


@dataclass(frozen=True)
class Search:
    method: str
    trials: int | None  # draws, each multiplied by grids and replicates; None: all of a grid
    seed: int
    replicates: int
    retries: int = 3  # of a trial whose worker was lost
    hours: float | None = None  # budgets of the whole search
    gpu_hours: float | None = None


@dataclass(frozen=True)
class Scheduler:
    name: str
    max_steps: int
    grace_steps: int
    reduction_factor: float
    interval_steps: int | None = None  # pbt alone: from one perturbation to the next

    @property
    def pauses(self) -> bool:
        """Whether it stops a trial to start it again from its checkpoint, so that all may be alive at once."""
        return self.name in ("hyperband", "pbt")


@dataclass(frozen=True)
class Resources:
    """Of one trial; fractions share a processor."""

    cpu: float = 1.0
    gpu: float = 0.0

    @property
    def threads(self) -> int:
        """How many a trial computes with."""
        return max(1, int(self.cpu))

    @property
    def sharing(self) -> int:
        """How many trials share a GPU."""
        return (
            int(1 / self.gpu + 1e-9) if 0 < self.gpu < 1 else 1
        )  # 1 / (1 / 49) is a little below 49

    def fitting(self, cpus: float, gpus: float) -> int:
        """Returns how many trials run at once on so many CPUs and GPUs of one node. A share is of one GPU."""
        by_cpu = cpus / self.cpu + 1e-9
        if not self.gpu:
            return int(by_cpu)
        if self.gpu >= 1:
            return int(min(by_cpu, gpus // self.gpu))
        return int(min(by_cpu, int(gpus) * self.sharing))


@dataclass(frozen=True)
class Checkpoints:
    """Whose weights a search keeps: those of so many best trials, besides those that still run."""

    best: int = 10
    disk_gb: float | None = None
