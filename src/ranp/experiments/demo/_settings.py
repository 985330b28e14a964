"""The numbers that a demo runs with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """All that can be turned.

    Attributes:
        width: Base width of the U-Net.
        macs: Share of the multiply-adds to keep.
        patch: Side of a patch in voxels (millimetres).
        batch: Patches per training step.
        scoring_batches: Batches that the neurons are scored on.
        rate_full: Peak learning rate of the full network.
        rate_pruned: Peak learning rate of the pruned network.
        total_seconds: Wall time of the whole demo; what the rest leaves is for the two trainings.
        reserved_seconds: Part of it that is kept for pictures and files.
        least_seconds: Training time per network, however slow the machine.
        checks: Evaluations during each training.
        validation_patches: Patches that each evaluation segments.
        timed_steps: Steps per network that the step time is the median of; fewer where that takes too long.
        timing_seconds: How long is too long.
    """

    width: int = 32
    macs: float = 0.05
    patch: int = 16
    batch: int = 8
    scoring_batches: int = 8
    rate_full: float = 1e-2
    rate_pruned: float = 3e-2
    total_seconds: float = 235.0
    reserved_seconds: float = 12.0
    least_seconds: float = 5.0
    checks: int = 10
    validation_patches: int = 48
    timed_steps: int = 7
    timing_seconds: float = 15.0

    def training_seconds(self, *, elapsed: float, evaluation: float) -> float:
        """Wall time that each of the two trainings gets.

        Args:
            elapsed: Seconds since the demo began.
            evaluation: Seconds that evaluating both networks once takes.

        Example:
            >>> Settings(total_seconds=100, reserved_seconds=10, checks=5).training_seconds(
            ...     elapsed=20, evaluation=2)
            30.0
        """
        left = self.total_seconds - self.reserved_seconds - elapsed - self.checks * evaluation
        return max(self.least_seconds, left / 2)


DEFAULT = Settings()
QUICK = Settings(scoring_batches=4, total_seconds=62.0, checks=5, timed_steps=3, timing_seconds=4.0)
