"""Gradients of several tasks kept apart over an optimizer window, and put together into one.

    tasks.begin(step)
    tasks.backward(outcome.terms, shares, samples)      # of every micro-batch: one backward pass per task
    record = tasks.finish()                             # .grad is the projected total, on every rank
    tasks.learn()                                       # online weights, if there are any

Task 0 is the anchor (all terms `anchor` and `aux`), every follower term is a task of its own. A pass of one task finds that
task's buffers in `.grad` and leaves them in its keep; a window costs 1 + C gradients of memory. What is kept is unweighted:
weights multiply rows and columns of the Gram matrix, and the coefficients.

Ranks. DDP's reducer never fires. `per: window`: every task's gradient is summed over ranks, each rank makes the Gram matrix of
its part of the parameters, and these small matrices are summed. `per: sample`: every rank projects the gradients of its own
samples; the result is summed once. FSDP2 (`per: window`): every pass reduces and scatters, a rank's part are its shards.

Source of the method: Drive-KD, see `distill/projection.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from drivedistill.distill.objective import Role, Term
from drivedistill.distill.projection import coefficients
from drivedistill.distill.reweighting import Reweighter
from drivedistill.ranks import sum_over_ranks
from drivedistill.recipe import Recipe

Gradients = list[Tensor | None]
"""One per parameter; None where a task does not reach it."""

CHUNK = {"cpu": 2**16, "cuda": 2**22}
"""Numbers of each gradient that are multiplied at once: as many as a processor's cache holds, or as keep a GPU busy."""

PORTION = 512
"""Numbers of which products are summed in the room's own type."""


class TaskGradients:
    """One anchor and some followers, over the windows of a run.

    Args:
        recipe: The experiment; has a section `distill.drivekd.projection`.
        followers: Names of all terms that may come as followers, the same on every rank.
        model: The student, wrapped for its ranks, before its first forward.
        accelerator: Runs the backward passes.
    """

    def __init__(self, recipe: Recipe, followers: Sequence[str], model: nn.Module, accelerator: Accelerator) -> None:
        section = recipe.distill.drivekd
        assert section is not None and section.projection is not None
        self.spec, self.seed, self.accelerator = section.projection, recipe.seed, accelerator
        self.names = ("anchor", *followers)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.sharded = hasattr(model, "set_requires_gradient_sync")
        # FSDP2 averages over ranks, as the division expects; where this class adds up, it divides too.
        self.parts = 1 if self.sharded else accelerator.num_processes
        # Within the anchor terms keep their proportions; as a whole it weighs what the supervised loss weighs.
        self.anchor_weight = (recipe.distill.supervised_weight if recipe.teacher else 1.0) or 1.0
        self.reweighter = Reweighter(section.reweighting, len(self.names)) if section.reweighting else None
        self.begin(0)

    def begin(self, step: int) -> None:
        """An empty window; the orders of its projections are drawn from the number of its step."""
        tasks = len(self.names)
        self.step, self.position = step, 0
        self.kept: list[Gradients] = [[None] * len(self.parameters) for _ in self.names]
        self.total: Gradients = [None] * len(self.parameters)
        self.losses = torch.zeros(tasks, dtype=torch.float64, device=self.accelerator.device)
        self.seen = torch.zeros(4, tasks, dtype=torch.float64)
        """Sums over micro-batches that have the task: its weight, 1, mixing weight x samples, samples."""
        self.norms = torch.zeros(tasks, dtype=torch.float64)
        self.shown = torch.zeros(2, tasks, tasks, dtype=torch.float64)
        """Sums over projections: cosines (on the diagonal shares of the sum of norms), and how many there are of each."""
        self.conflicts = torch.zeros(2, dtype=torch.float64)
        """Projections with a pair in conflict, and all."""

    # --- one micro-batch ----------------------------------------------------------------------------------------------

    def backward(self, terms: list[Term], shares: dict[Role, float], samples: int) -> None:
        """One backward pass per task through the graph of one micro-batch.

        Args:
            terms: Of the objective.
            shares: What terms of a role are multiplied with: the window's division.
            samples: Of the micro-batch.
        """
        own = [term for term in terms if term.role != "follower"]
        losses = {0: torch.stack([t.weight / self.anchor_weight * t.total * shares[t.role] for t in own]).sum()}
        facts = {0: (self.anchor_weight, 1.0)}
        for term in terms:
            if term.role == "follower":
                row, heard = self.names.index(term.name), term.weight > 0 and term.mixed > 0
                losses |= {row: term.total * shares["follower"]} if heard or self.sharded else {}
                facts |= {row: (term.weight, term.mixed)} if heard else {}
        seen = torch.zeros_like(self.seen)
        for row, (weight, mixed) in facts.items():
            seen[:, row] = torch.tensor([weight, 1.0, mixed * samples, samples])
            self.losses[row] += losses[row].detach().double() / mixed
        self.seen += seen
        losses = self._reachable(losses)
        for row in losses:
            with self._buffers_of(row):
                self.accelerator.backward(losses[row], retain_graph=row != list(losses)[-1])
        if self.spec.per == "sample":
            self._project(seen)
        self.position += 1

    def _reachable(self, losses: dict[int, Tensor]) -> dict[int, Tensor]:
        """The losses that a backward pass is made of."""
        if not self.sharded:
            return {row: loss for row, loss in losses.items() if loss.requires_grad}
        # A pass is a collective: every rank makes all of them, through the same layers. FSDP2 gathers a layer's shards when
        # the gradient of its output comes; a map taken inside a layer has none, so each pass begins at the anchor's loss.
        nothing = 0.0 * losses[0]
        return {row: losses[row] + nothing if row in losses else nothing for row in range(len(self.names))}

    @contextmanager
    def _buffers_of(self, row: int) -> Iterator[None]:
        for parameter, gradient in zip(self.parameters, self.kept[row], strict=True):
            parameter.grad = gradient
        yield
        self.kept[row] = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None

    # --- one projection -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _project(self, seen: Tensor) -> None:
        """Add the projected total of what is kept to the result, and forget what is kept.

        Args:
            seen: As `self.seen`, of the micro-batches whose gradients these are.
        """
        gram = self._gram()
        static = seen[0] / seen[1].clamp_min(1)
        weights = static if self.reweighter is None else self.reweighter.weights(static)
        weighted = weights[:, None] * gram * weights
        self._note(weighted)
        mixed = torch.where(seen[3] > 0, seen[2] / seen[3], 1.0)
        self.norms += gram.diagonal().clamp_min(0).sqrt() / mixed
        # The place in the window, so that an update does not depend on the number of ranks.
        place = self.position * self.accelerator.num_processes + self.accelerator.process_index
        draw = random.Random(f"{self.seed} {self.step} {place if self.spec.per == 'sample' else 'window'}")
        chosen = coefficients(weighted, self.spec, draw) * weights / self.parts
        for row, coefficient in enumerate(chosen.tolist()):
            _add(self.total, self.kept[row], coefficient)
            self.kept[row] = [None] * len(self.parameters)

    def _gram(self) -> Tensor:
        """`float64[T, T]` of the unweighted gradients, on the CPU, the same wherever the gradients are."""
        accelerator, together = self.accelerator, self.spec.per == "window"
        # Where every rank has all of every gradient, each multiplies some of the parameters; of shards, its own.
        mine = slice(accelerator.process_index, None, self.parts) if together and not self.sharded else slice(None)
        gram = gram_matrix([gradients[mine] for gradients in self.kept], accelerator.device)
        return (sum_over_ranks(gram, accelerator) if together else gram) / self.parts**2

    def _note(self, weighted: Tensor) -> None:
        """Remember what is logged."""
        norms = weighted.diagonal().clamp_min(0).sqrt()
        pairs = norms[:, None] * norms
        cosines = torch.where(pairs > 0, weighted / pairs, 0.0)
        self.conflicts += torch.tensor([bool((cosines < 0).any()), 1.0])
        cosines.diagonal().copy_(norms / norms.sum().clamp_min(torch.finfo(norms.dtype).tiny))
        self.shown += torch.stack([cosines, (pairs > 0).double()])

    # --- one window ---------------------------------------------------------------------------------------------------

    def finish(self) -> dict[str, Any]:
        """Put the total into `.grad`; returns what is logged of the window."""
        accelerator, apart = self.accelerator, self.spec.per == "sample"
        self.seen = sum_over_ranks(self.seen, accelerator)
        if not apart:
            self._sum_gradients(self.kept)
            self._project(self.seen)
        else:
            self._sum_gradients([self.total])
            for name in ("norms", "shown", "conflicts"):
                setattr(self, name, sum_over_ranks(getattr(self, name), accelerator))
        for parameter, gradient in zip(self.parameters, self.total, strict=True):
            parameter.grad = gradient
        return {"gradients": self._shown()}

    def _sum_gradients(self, tasks: list[Gradients]) -> None:
        """Over ranks, in place; what any rank has, all ranks have afterwards."""
        if self.parts == 1:
            return
        there = torch.tensor([[gradient is not None for gradient in task] for task in tasks], dtype=torch.int32)
        there = there.to(self.accelerator.device)
        dist.all_reduce(there, op=dist.ReduceOp.MAX)
        works = []
        for row, column in there.cpu().nonzero().tolist():
            gradient = tasks[row][column]
            gradient = torch.zeros_like(self.parameters[column]) if gradient is None else gradient
            tasks[row][column] = gradient
            works.append(dist.all_reduce(gradient, async_op=True))
        for work in works:
            work.wait()

    def _shown(self) -> dict[str, Any]:
        sums, numbers = self.shown
        means = (sums / numbers.clamp_min(1)).tolist()
        pairs = [(a, b) for a in range(len(means)) for b in range(a + 1, len(means)) if numbers[a, b]]
        record: dict[str, Any] = {
            "cosine": {f"{self.names[a]}/{self.names[b]}": round(means[a][b], 4) for a, b in pairs},
            "norm_share": {name: round(means[a][a], 4) for a, name in enumerate(self.names) if numbers[a, a]},
            "conflicts": round(float(self.conflicts[0] / self.conflicts[1].clamp_min(1)), 4),
        }
        if self.reweighter is not None:
            weights = self.reweighter.weights(self.seen[0] / self.seen[1].clamp_min(1)).tolist()
            record["weight"] = {name: round(weight, 6) for name, weight in zip(self.names, weights, strict=True)}
        return record

    def learn(self) -> None:
        """Let the online weights learn from the window that was finished last."""
        if self.reweighter is not None:
            # Losses were multiplied with the number of ranks, which the sum over ranks does not undo.
            losses = sum_over_ranks(self.losses.cpu(), self.accelerator) / self.accelerator.num_processes
            self.reweighter.learn(losses, self.norms, self.seen[0] / self.seen[1].clamp_min(1))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint remembers."""
        return {} if self.reweighter is None else self.reweighter.state()

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's tensors."""
        if self.reweighter is not None:
            self.reweighter.load(saved)


# --- arithmetic -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def gram_matrix(tasks: Sequence[Sequence[Tensor | None]], device: torch.device) -> Tensor:
    """Inner products of T gradients over all parameters, `float64[T, T]` on the CPU.

    A room of some thousand numbers per task is filled, parameter by parameter, and multiplied whenever it is full: every
    gradient is read once, none is copied as a whole. Sums are float64. So are products on a GPU, where float32 may mean ten
    bits (TF32); on a processor, where that would cost twice the time, they are as exact as the gradients.

    Args:
        tasks: Per task one gradient per parameter; None is zero. Of sharded ones the local part.
        device: Where they lie.
    """
    there = [gradient for task in tasks for gradient in task if gradient is not None]
    exact = device.type != "cpu" or any(gradient.dtype == torch.float64 for gradient in there)
    largest = max((sum(_local(g).numel() for g in task if g is not None) for task in tasks), default=0)
    width = min(CHUNK.get(device.type, 2**22), max(1, largest))
    room = torch.empty(len(tasks), width, dtype=torch.float64 if exact else torch.float32, device=device)
    total = torch.zeros(len(tasks), len(tasks), dtype=torch.float64, device=device)
    filled = 0
    for column in zip(*tasks, strict=True):
        flat = [None if gradient is None else _local(gradient).reshape(-1) for gradient in column]
        size, done = max((len(part) for part in flat if part is not None), default=0), 0
        while done < size:
            number = min(room.shape[1] - filled, size - done)
            for row, part in zip(room, flat, strict=True):
                place = row[filled : filled + number]
                place.zero_() if part is None else place.copy_(part[done : done + number])
            filled, done = filled + number, done + number
            if filled == room.shape[1]:
                total += _products(room)
                filled = 0
    return (total + _products(room[:, :filled])).cpu()


def _products(room: Tensor) -> Tensor:
    """Inner products of the rows, `float64[T, T]`; float32 sums run over a portion only (one over all is off by 1e-6)."""
    portions, rest = room.shape[1] // PORTION, room[:, room.shape[1] // PORTION * PORTION :]
    parts = room[:, : portions * PORTION].unflatten(1, (portions, PORTION)).transpose(0, 1)
    return torch.bmm(parts, parts.mT).double().sum(dim=0) + (rest @ rest.T).double()


def _add(total: Gradients, gradients: Gradients, factor: float) -> None:
    """`total += factor * gradients`, in the memory of both."""
    there = [place for place, gradient in enumerate(gradients) if gradient is not None]
    both = [place for place in there if total[place] is not None]
    new = [place for place in there if total[place] is None]
    ours, theirs = _locals(total, both), _locals(gradients, both)
    if both:
        torch._foreach_add_(ours, theirs, alpha=factor)
    if new:
        torch._foreach_mul_(_locals(gradients, new), factor)
    for place in new:
        total[place] = gradients[place]


def _locals(gradients: Gradients, places: Sequence[int]) -> list[Tensor]:
    return [_local(gradient) for place in places if (gradient := gradients[place]) is not None]


def _local(gradient: Tensor) -> Tensor:
    """This rank's shard, in its own memory, or the whole of what is not sharded."""
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient
