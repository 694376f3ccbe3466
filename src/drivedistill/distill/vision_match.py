"""The stage before the answers: a cut vision tower learns to see as its teacher's does."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from drivedistill.batch import Batch, Rows, Signal
from drivedistill.distill.miner import Miner, Plan
from drivedistill.distill.objective import Moment, Outcome, Term, regime_sums
from drivedistill.distill.teacher import Needs


@dataclass
class VisionMatch:
    """Learns to see as the teacher sees: mean squared difference of the vision towers' features, per view.

    A tower of which blocks were cut is a poor encoder; this stage comes before it may be frozen.
    """

    needs: Needs = frozenset({"vision"})
    wants: Needs = frozenset({"vision"})
    followers: tuple[str, ...] = ()
    miner: Miner | None = None

    def count(self, batch: Batch) -> float:
        """Samples: an answer's length says nothing about its pictures."""
        return batch.num_samples

    def asks(self, batch: Batch, moment: Moment) -> Needs:
        """Always the same."""
        return self.needs

    def __call__(self, rows: Rows, signal: Signal | None, batch: Batch, moment: Moment, plan: Plan) -> Outcome:
        """One term, `vision`: for every sample the mean over its views."""
        if signal is None or signal.vision is None or rows.vision is None:
            raise ValueError("vision matching needs the features of teacher and student.")
        per_view = (rows.vision.float() - signal.vision.float()).square().flatten(1).mean(dim=1)
        sample = batch.role("student").model["view_mask"].nonzero()[:, 0]
        views = torch.bincount(sample, minlength=batch.num_samples).clamp_min(1)
        per_sample = per_view.new_zeros(batch.num_samples).index_add(0, sample, per_view) / views
        return Outcome([Term("vision", per_sample.sum(), 1.0, "anchor", regime_sums(per_sample.detach(), batch))])
