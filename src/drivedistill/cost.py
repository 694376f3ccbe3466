"""What a run takes, reckoned from a few of its micro-batches.

    seconds of n steps = n * (accumulate * (text + teacher + student) + update) + pictures to decode * seconds of one

Text stands for everything that preparing a batch takes once its pictures are remembered. Workers prepare beside the training,
so with them a step takes as long as the slower one of both. Validation and saving come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, quantiles


@dataclass(frozen=True)
class Probe:
    """What one micro-batch and one update took, in seconds."""

    samples: int
    tokens: int
    """Supervised ones."""
    views: int
    """Views of its samples."""
    pictures: int
    """Different ones that it had to decode; 0 where features are read instead."""
    decoding: float
    """Preparing it with no picture remembered, less `text`."""
    text: float
    """Preparing it with every picture remembered."""
    teacher: float
    student: float
    """Forward, losses and backward."""
    vision: dict[str, float]
    """By role, the part of `teacher` and `student` that a frozen vision tower takes."""
    update: float


@dataclass(frozen=True)
class Decodes:
    """How often pictures are decoded.

    Args:
        uses: Pictures that an epoch asks for, each time counted.
        different: Pictures that differ, as a `PictureCache` tells them apart.
        kept: So many fit into a cache.
    """

    uses: float
    different: int
    kept: int

    def first(self, epochs: float, caches: int = 1) -> float:
        """Expected number in so many epochs, over so many caches that share the work.

        Until a cache is full, it decodes what it sees first; then what was pushed out, which in random order is as likely
        as that a picture is not among those that fit.
        """
        if not self.different:
            return 0.0
        share, often = min(1.0, epochs / caches), self.uses / self.different
        seen = self.different * (1 - (1 - share) ** often)
        if seen <= self.kept:
            return caches * seen
        full = 1 - (1 - self.kept / self.different) ** (1 / often)  # share of an epoch's uses that fills the cache
        later = (epochs / caches - full) * self.uses
        return caches * (self.kept + later * (1 - self.kept / self.different))


@dataclass(frozen=True)
class Cost:
    """What a run takes, from its probes."""

    probes: list[Probe]
    per_epoch: float
    """Optimizer steps."""
    total: int
    accumulate: int
    workers: int
    decodes: Decodes
    peak_gb: float
    """Of the process after the largest micro-batch and with its picture cache filled; on a GPU, allocated there."""

    def mean(self, *parts: str) -> float:
        """Seconds of a micro-batch in some fields of `Probe`."""
        return sum(fmean(getattr(probe, part) for probe in self.probes) for part in parts)

    @property
    def decode_s(self) -> float:
        """Seconds that decoding one picture takes."""
        pictures = sum(probe.pictures for probe in self.probes)
        return max(0.0, sum(probe.decoding for probe in self.probes)) / pictures if pictures else 0.0

    def preparing(self, steps: float) -> float:
        """Seconds of preparation in the first n steps, whoever does it."""
        decoded = self.decodes.first(steps / self.per_epoch, max(1, self.workers)) * self.decode_s
        return steps * self.accumulate * self.mean("text") + decoded

    def seconds(self, steps: float) -> float:
        """Seconds of the first n steps."""
        learning = steps * (self.accumulate * self.mean("teacher", "student") + self.mean("update"))
        if not self.workers:
            return learning + self.preparing(steps)
        return max(learning, self.preparing(steps) / self.workers)

    @property
    def spread(self) -> tuple[float, float]:
        """Share by which a micro-batch's learning is below and above its mean, 5th and 95th percentile."""
        taken = [probe.teacher + probe.student for probe in self.probes]
        cuts = quantiles(taken, n=20, method="inclusive")
        return cuts[0] / fmean(taken) - 1, cuts[-1] / fmean(taken) - 1

    def saved_by_vision_cache(self) -> float:
        """Seconds of the first epoch that go into frozen towers and into decoding for them."""
        if not any(probe.vision for probe in self.probes):
            return 0.0
        seeing = fmean(sum(probe.vision.values()) for probe in self.probes)
        return self.per_epoch * self.accumulate * seeing + self.decodes.first(1.0) * self.decode_s

    def building_vision(self, views: int) -> float:
        """Seconds in which the frozen towers look at so many views, each decoded once."""
        seen = sum(probe.views for probe in self.probes)
        looking = sum(sum(probe.vision.values()) for probe in self.probes) / seen if seen else 0.0
        return views * (looking + self.decode_s)

    def saved_by_teacher_cache(self) -> float:
        """Seconds of an epoch in which the teacher reads."""
        return self.per_epoch * self.accumulate * self.mean("teacher")

    def building_teacher(self, samples: int) -> float:
        """Seconds in which the teacher reads so many samples once."""
        asked = [probe for probe in self.probes if probe.teacher]
        return samples * sum(p.teacher for p in asked) / sum(p.samples for p in asked) if asked else 0.0

    @property
    def tokens_of_a_sample(self) -> float:
        """Supervised ones, on average."""
        return sum(probe.tokens for probe in self.probes) / sum(probe.samples for probe in self.probes)
