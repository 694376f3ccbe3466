"""What mining picks, which samples the teacher understands and how experts are used.

All are sums that can be added up over micro-batches and ranks.

Mining is judged by what it picks: if more than a corner case's share of the mined samples are corner cases it works as
meant; if coordinates and object ids crowd the mined tokens it chases noise.

Experts: corner cases are said to engage more of them (CLKD section III-B). A dense mixture always runs all, so this can only
be an effective number, and there are several: the exponential of the entropy, how many weigh more than 1/E, and how many
of the heaviest are needed for half and for nine tenths of the mass. They are measured, never asserted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from drivedistill.batch import ROW_KINDS, Batch, Routing
from drivedistill.distill.mining import Selection
from drivedistill.models.mixture import entropy

LOSS_EDGES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Nats; they separate the eight bins in which token losses are counted."""
REGIMES = ("regular", "corner")
EFFECTIVE = ("exp_entropy", "above_uniform", "for_half", "for_nine_tenths")


def mining_notes(losses: Tensor, selection: Selection, batch: Batch) -> Tensor:
    """`float64[2, 18]`: of the pool and of what was mined.

    Two numbers of samples by regime, seven of tokens by kind, eight of tokens by loss, and the sum of the losses.
    """
    bins = torch.bucketize(losses, torch.tensor(LOSS_EDGES, device=losses.device))
    corner = batch.corner().long()
    mined_samples = torch.zeros(batch.num_samples, dtype=torch.bool, device=losses.device)
    mined_samples[batch.sample_of_row[selection.rows]] = True
    halves = []
    for samples, rows in (
        (torch.ones_like(mined_samples), torch.ones_like(selection.rows)),
        (mined_samples, selection.rows),
    ):
        parts = (
            torch.bincount(corner[samples], minlength=2),
            torch.bincount(batch.row_kind[rows].long(), minlength=len(ROW_KINDS)),
            torch.bincount(bins[rows], minlength=len(LOSS_EDGES) + 1),
            losses[rows].sum()[None],
        )
        halves.append(torch.cat([part.double().cpu() for part in parts]))
    return torch.stack(halves)


def _mining_report(notes: Tensor) -> dict[str, Any]:
    pool, mined = notes
    report: dict[str, Any] = {"samples": int(mined[:2].sum()), "of_samples": int(pool[:2].sum())}
    kinds = slice(2, 2 + len(ROW_KINDS))
    losses = slice(kinds.stop, kinds.stop + len(LOSS_EDGES) + 1)
    report |= {"tokens": int(mined[kinds].sum()), "of_tokens": int(pool[kinds].sum())}
    report["corner_share"] = [_share(mined[1], mined[:2]), _share(pool[1], pool[:2])]
    report["kinds"] = {
        name: [_share(mined[kinds][place], mined[kinds]), _share(pool[kinds][place], pool[kinds])]
        for place, name in enumerate(ROW_KINDS)
    }
    report["mean_loss"] = [_share(side[-1], side[kinds]) for side in (mined, pool)]
    report["loss_bins"] = [[_share(count, side[losses]) for count in side[losses]] for side in (mined, pool)]
    return report


def _share(part: Tensor, whole: Tensor) -> float:
    return round(float(part / whole.sum()), 4) if float(whole.sum()) else 0.0


def trust_notes(trusted: Tensor, batch: Batch) -> Tensor:
    """`float64[2, 2]`: by regime, number of samples and of those that are trusted (`bool[B]`)."""
    table = torch.stack([torch.ones_like(trusted), trusted], dim=1).double()
    return table.new_zeros(2, 2).index_add(0, batch.corner().long(), table).cpu()


def _trust_report(notes: Tensor) -> dict[str, float]:
    rows = zip(REGIMES, notes, strict=True)
    return {regime: round(float(row[1] / row[0]), 4) for regime, row in rows if row[0]}


def effective_experts(probabilities: Tensor) -> Tensor:
    """Four readings of how many experts each token uses, `float[M, 4]` in the order of `EFFECTIVE`, from `float[M, E]`."""
    heaviest = probabilities.sort(dim=-1, descending=True).values.cumsum(dim=-1)
    needed = [(heaviest < mass - 1e-6).sum(dim=-1) + 1 for mass in (0.5, 0.9)]
    above = (probabilities > 1 / probabilities.shape[-1]).sum(dim=-1)
    return torch.stack([entropy(probabilities).exp(), above, *needed], dim=-1)


def expert_notes(routing: Routing, batch: Batch) -> Tensor:
    """`float64[2, 5 + E]`: by regime, number of tokens, sums of `effective_experts`, how often each expert ran."""
    probabilities = routing.probabilities.detach()
    ones = torch.ones(len(probabilities), 1, device=probabilities.device)
    table = torch.cat([ones, effective_experts(probabilities), routing.selected.float()], dim=1).double()
    corner = batch.corner()[routing.sample].long()
    return table.new_zeros(2, table.shape[1]).index_add(0, corner, table).cpu()


def _expert_report(notes: Tensor) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for place, regime in enumerate(REGIMES):
        tokens, sums, ran = notes[place, 0], notes[place, 1:5], notes[place, 5:]
        if tokens:
            means = dict(zip(EFFECTIVE, (round(float(value / tokens), 4) for value in sums), strict=True))
            report[regime] = means | {"load": [round(float(value / tokens), 4) for value in ran]}
    return report


def report(notes: dict[str, Tensor]) -> dict[str, Any]:
    """Sums to what the log says: shares and means. Pairs are [of what was mined, of the pool]."""
    found: dict[str, Any] = {}
    if "mined" in notes:
        found["mined"] = _mining_report(notes["mined"])
    if "fused" in notes:
        found["fused_loss"] = _share(notes["fused"][0], notes["fused"][1])
    if "trusted" in notes:
        found["trusted"] = _trust_report(notes["trusted"])
    layers = {name: n for name, n in notes.items() if name.startswith("experts/")}
    experts = {name.removeprefix("experts/"): _expert_report(n) for name, n in layers.items()}
    return found | ({"experts": experts} if experts else {})
