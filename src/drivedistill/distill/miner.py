"""Who is ranked against whom: the pools of H2G, and the bank that remembers how hard every sample was.

    micro    the samples of one micro-batch on one rank; nothing but its own losses is needed
    ranks    the micro-batches that all ranks hold at the same time
    window   all samples of the optimizer step over all ranks, after a scoring pass without gradient in evaluation mode
    bank     all samples seen so far: chosen before the forward by their running losses; new ones are always chosen.
             Losses are as old as their sample's last turn, so who was seen early looks harder while the model improves

CLKD does not say which; online hard example mining ranks within the mini-batch, our default. `micro` and `ranks` select
differently when a window is cut into other micro-batches; `window` and `bank` do not.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drivedistill.batch import ROW_KINDS, Batch
from drivedistill.data.stream import Stream
from drivedistill.distill import mining
from drivedistill.distill.diagnostics import mining_notes
from drivedistill.distill.mining import Reduction, Selection
from drivedistill.problems import InputError, Problem
from drivedistill.sections import Mining

Gather = Callable[[Tensor], list[Tensor]]
"""A tensor of equal shape on every rank -> those of all ranks, in their order, on the CPU."""


@dataclass
class Plan:
    """What is known of a micro-batch's selection before its forward."""

    selection: Selection | None = None
    """Pool `window`: everything."""
    samples: Tensor | None = None
    """Pool `bank`: `bool[B]`, the chosen samples; tokens are ranked by the forward's own losses."""
    pool: Tensor | None = None
    """Pool `bank`: `mining.pool_size` of the window."""
    notes: Tensor | None = None
    """Pool `window`: diagnostics of the scoring pass, since the rows that were not selected may never be seen again."""


class Miner:
    """Selects rows as the recipe says.

    Args:
        spec: The recipe's section.
        reduction: A key of `mining.POWERS`.
        ids: Ids of the train split; the bank has one place for each.
        gather: How tensors of all ranks are collected.
        rank: This process among them.
    """

    def __init__(
        self,
        spec: Mining,
        reduction: Reduction,
        ids: Sequence[str],
        gather: Gather = lambda t: [t.cpu()],
        rank: int = 0,
    ) -> None:
        self.spec, self.reduction, self.gather, self.rank = spec, reduction, gather, rank
        self.excluded, self.kept = (
            torch.tensor([ROW_KINDS.index(kind) for kind in kinds], dtype=torch.int8)
            for kinds in (spec.exclude, spec.keep)
        )
        self.place = {name: position for position, name in enumerate(ids)} if spec.pool == "bank" else {}
        self.bank = torch.full((len(self.place), 2), torch.nan, dtype=torch.float64)
        """Running hardness and template of every sample; NaN for those not seen yet."""

    def require_choice(self, stream: Stream, ranks: int) -> None:
        """Refuse a pool of which nothing can be selected, now that the number of ranks is known.

        Raises:
            InputError: The pool holds one sample.
        """
        sizes = {"ranks": stream.batch_size * ranks, "window": stream.window_size}
        if sizes.get(self.spec.pool) == 1 and self.spec.samples < 100:
            remedy = "raise train.batch_size, use pool `bank`, or set mining.samples=100"
            where = f"mining.pool: {self.spec.pool}"
            raise InputError(Problem("recipe", where, "a pool of several samples", "a pool of one", remedy))

    def percentages(self, step: int, total: int) -> tuple[float, float] | None:
        """Percentages m and n at an optimizer step; None during the warm-up, when everything learns."""
        begin, length = self.spec.warmup * total, self.spec.anneal * total
        if step < begin:
            return None
        progress = min(1.0, (step - begin) / length) if length else 1.0
        return (
            100 - progress * (100 - self.spec.samples),
            100 - progress * (100 - self.spec.tokens),
        )

    def allowed(self, batch: Batch) -> Tensor:
        """`bool[N]`: the tokens that may be mined."""
        if not len(self.excluded):
            return torch.ones_like(batch.row_kind, dtype=torch.bool)
        return ~torch.isin(batch.row_kind, self.excluded.to(batch.row_kind.device))

    def hardness(self, measures: Tensor, batch: Batch) -> Tensor:
        """A sample's hardness, `float[B]`, from those of its rows `float[N]`."""
        return mining.sample_hardness(measures, batch, self.allowed(batch))

    # --- before the forward -----------------------------------------------------------------------------------------

    def plan(
        self, window: Sequence[Batch], at: tuple[float, float] | None, score: Callable[[Batch], tuple[Tensor, Tensor]]
    ) -> list[Plan]:
        """What can be settled for the window's micro-batches before their forwards.

        Args:
            window: This rank's micro-batches.
            at: m and n, see `percentages`.
            score: A micro-batch -> losses and measures of its rows, `float[N]`; only asked for pool `window`.
        """
        if at is None or self.spec.pool in ("micro", "ranks"):
            return [Plan() for _ in window]
        if self.spec.pool == "window":
            return self._plan_window(window, at, score)
        return self._plan_bank(window, at)

    def _plan_window(
        self, window: Sequence[Batch], at: tuple[float, float], score: Callable[[Batch], tuple[Tensor, Tensor]]
    ) -> list[Plan]:
        losses, measures = zip(*(score(batch) for batch in window), strict=True)
        hardness = torch.cat([self.hardness(m, batch) for m, batch in zip(measures, window, strict=True)])
        chosen = self._among_ranks(hardness, [name for batch in window for name in batch.templates], at[0])
        parts = chosen.to(hardness.device).split([batch.num_samples for batch in window])
        rows = [self._rows(m, b, part, at[1]) for m, b, part in zip(measures, window, parts, strict=True)]
        pool = self._total([self._size(r, batch) for r, batch in zip(rows, window, strict=True)])
        plans = []
        for loss, row, batch in zip(losses, rows, window, strict=True):
            selection = mining.weigh(row, batch, self.reduction, pool)
            plans.append(Plan(selection, notes=mining_notes(loss, selection, batch)))
        return plans

    def _plan_bank(self, window: Sequence[Batch], at: tuple[float, float]) -> list[Plan]:
        parts = [self._hard_in_bank(batch, at[0]) for batch in window]
        sizes = []
        for batch, chosen in zip(window, parts, strict=True):
            tokens = mining.mineable_tokens(batch, self.allowed(batch))
            chosen &= tokens > 0
            sizes.append(mining.pool_size(mining.top(at[1], tokens) * chosen, batch, self.reduction))
        pool = self._total(sizes)
        return [Plan(samples=chosen, pool=pool) for chosen in parts]

    def _hard_in_bank(self, batch: Batch, percent: float) -> Tensor:
        """Samples never seen, those in the top `percent` of all that were seen, and the hardest (of each template)."""
        mine = self.bank[[self.place[name] for name in batch.ids]]
        seen = self.bank[self.bank[:, 0] > -torch.inf]
        groups, theirs = mine[:, 1], seen[:, 1]
        if not self.spec.within_template:
            groups, theirs = torch.zeros_like(groups), torch.zeros_like(theirs)
        standing = mining.standing_in_group(mine[:, 0], groups, seen[:, 0], theirs)
        harder = ((seen[:, 0] > mine[:, :1]) & (theirs == groups[:, None])).any(dim=1)
        return (mine[:, 0].isnan() | (standing >= 1 - percent / 100) | ~harder).to(batch.gold.device)

    # --- with its losses --------------------------------------------------------------------------------------------

    def select(self, measures: Tensor, batch: Batch, at: tuple[float, float] | None, plan: Plan) -> Selection:
        """The rows of a micro-batch that learn.

        Args:
            measures: Detached hardness of every row, `float[N]`.
            batch: The micro-batch.
            at: m and n; None selects everything.
            plan: What was settled before.
        """
        if at is None:
            return mining.everything(batch, self.reduction)
        if plan.selection is not None:
            return plan.selection
        if plan.samples is not None and plan.pool is not None:
            rows = self._rows(measures, batch, plan.samples, at[1])
            return mining.weigh(rows, batch, self.reduction, plan.pool)
        hardness = self.hardness(measures, batch)
        if self.spec.pool == "ranks":
            chosen = self._among_ranks(hardness, batch.templates, at[0]).to(hardness.device)
            rows = self._rows(measures, batch, chosen, at[1])
            return mining.weigh(rows, batch, self.reduction, self._total([self._size(rows, batch)]))
        groups = group_numbers(batch.templates).to(hardness.device) if self.spec.within_template else None
        rows = self._rows(measures, batch, mining.hardest_samples(hardness, at[0], groups), at[1])
        return mining.weigh(rows, batch, self.reduction, self._size(rows, batch))

    def _size(self, rows: Tensor, batch: Batch) -> Tensor:
        return mining.pool_size(mining.mineable_tokens(batch, rows), batch, self.reduction)

    def _rows(self, measures: Tensor, batch: Batch, samples: Tensor, percent: float) -> Tensor:
        if len(self.kept):
            kept = torch.isin(batch.row_kind, self.kept.to(batch.row_kind.device))
            measures = measures.masked_fill(kept, torch.inf)
        return mining.hardest_tokens(measures, batch, percent, self.allowed(batch)) & samples[batch.sample_of_row]

    def _among_ranks(self, hardness: Tensor, names: list[str], percent: float) -> Tensor:
        """This rank's samples among the hardest of all ranks, `bool[B]` on the CPU."""
        everyone = self.gather(hardness)
        groups = torch.cat(self.gather(group_numbers(names))) if self.spec.within_template else None
        chosen = mining.hardest_samples(torch.cat(everyone), percent, groups)
        return chosen.split([len(part) for part in everyone])[self.rank]

    def _total(self, sizes: list[Tensor]) -> Tensor:
        return torch.stack(self.gather(torch.stack(sizes).sum(dim=0))).sum(dim=0)

    # --- after the window -------------------------------------------------------------------------------------------

    def learn(self, window: Sequence[Batch], hardness: Sequence[Tensor]) -> None:
        """Put the window's samples of all ranks into the bank.

        Args:
            window: This rank's micro-batches.
            hardness: `float[B]` of each.
        """
        if self.spec.pool != "bank":
            return
        places = torch.tensor([self.place[name] for batch in window for name in batch.ids])
        names = [name for batch in window for name in batch.templates]
        gathered = (self.gather(t) for t in (places, torch.cat(list(hardness)).double().cpu(), group_numbers(names)))
        where, new, groups = (torch.cat(parts) for parts in gathered)
        # One after the other: with a corner ratio a sample may occur twice in a window.
        for place, value, group in zip(where.tolist(), new.tolist(), groups.tolist(), strict=True):
            old = float(self.bank[place, 0])
            kept = self.spec.momentum if old == old else 0.0  # NaN: not seen yet
            self.bank[place, 0] = (kept * old if kept else 0.0) + (1 - kept) * value
            self.bank[place, 1] = group

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return {"bank": self.bank, "bank_ids": self._digest()} if self.spec.pool == "bank" else {}

    def _digest(self) -> Tensor:
        """What tells this train split from another one."""
        return torch.tensor([zlib.crc32("\n".join(self.place).encode())])

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's `state`.

        Raises:
            InputError: The bank was kept for other samples.
        """
        if self.spec.pool != "bank":
            return
        if not torch.equal(state["bank_ids"], self._digest()):
            found = f"{len(state['bank'])} others; now there are {len(self.place)}"
            remedy = "resume with the data with which the run began"
            raise InputError(Problem("checkpoint", "bank", "the samples of the train split", found, remedy))
        self.bank = state["bank"].clone()


def group_numbers(names: Sequence[str]) -> Tensor:
    """Templates as numbers that are the same on every rank and in every process, `int64[B]`."""
    return torch.tensor([zlib.crc32(name.encode()) for name in names], dtype=torch.int64)
