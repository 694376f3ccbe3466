"""Which experts a model uses for what: sums over the tokens of every question, of its own routers and of random ones.

    use = observe(subject, samples)         # teacher-forced passes; see `report.py` for what becomes of the sums

Corner cases are said to engage more experts than regular ones (CLKD sections III-B and IV-D, figure 3). A dense mixture
always runs all of its experts, so this can only mean an effective number, and a difference need not be learnt: other
pictures give other inputs, and any router treats other inputs in other ways. So routers at random are asked as well, about
the very inputs that the model's own routers had:

    untrained    weights drawn again as before training: decides almost evenly
    permuted     the trained weights, reading the features of a token in another order: as decided as the trained one, but
                 blind to what it learnt to look for

Legend: n questions, M tokens, E experts, D draws of a random router, G cells (data set x regime x task), S = 6 + 2 E sums.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from drivedistill.batch import Batch, Routing
from drivedistill.data.collate import collate, refuse_long, refuse_unlabelled
from drivedistill.distill.diagnostics import EFFECTIVE, effective_experts
from drivedistill.evaluate.measure import Floats
from drivedistill.models.fusion import IMAGE, TEXT
from drivedistill.models.mixture import Decision, Mixture, Router, expert_distance
from drivedistill.models.student import Student, bare, mixtures, place_of, real_tokens, token_kinds, token_samples
from drivedistill.problems import InputError, Problem
from drivedistill.progress import Progress
from drivedistill.records import Sample
from drivedistill.subject import Subject

TOKENS = 0
ACTIVE = 1 + len(EFFECTIVE)
WEIGHTS = 2 + len(EFFECTIVE)
"""Columns of the sums: number of tokens, the readings of `EFFECTIVE`, experts that ran, then E probabilities and E times
that an expert ran."""

CONTROLS = ("untrained", "permuted")
KINDS = {"all": None, "text": TEXT, "image": IMAGE}


class Cell(NamedTuple):
    """What a question is: the finest division of the questions."""

    dataset: str
    regime: str
    task: str


@dataclass(frozen=True)
class Layer:
    """How one layer of experts treated the tokens of one kind."""

    name: str
    place: str
    """`fusion`, `adapter`, `encoder` or `decoder`."""
    tokens: str
    """`all`, and where a layer sees both also `text` and `image`."""
    router: str
    experts: int
    distance: float
    """Between its experts, see `expert_distance`."""
    sums: Floats
    """`float64[n, S]`: of every question."""
    controls: dict[str, Floats]
    """By name `float64[D, G, S]`: of every cell."""


@dataclass(frozen=True)
class Use:
    """How a model's experts were used for some questions."""

    samples: list[Sample]
    cells: list[Cell]
    layers: list[Layer]


def observe(subject: Subject, samples: Sequence[Sample], *, batch_size: int = 16, draws: int = 5) -> Use:
    """Ask all questions under teacher forcing and add up what the routers decide.

    Only sums are kept: S numbers per question, layer and kind of token.

    Args:
        subject: A model with layers of experts; it is moved to an accelerator if there is one.
        samples: Questions with answers.
        batch_size: Questions at once; changes nothing but time and memory.
        draws: D; draw number d has seed d.

    Raises:
        InputError: The model has no experts, or a question has no answer or is too long for the model.
    """
    layers = mixtures(subject.model)
    if not layers:
        remedy = "name a run with `model.adapter_experts` or `model.ffn_experts`"
        raise InputError(Problem(subject.name, "", "a model with experts", "a dense model", remedy))
    refuse_unlabelled(samples)
    refuse_long(samples, subject.preparation)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subject.model.eval().to(device)
    cells = sorted({_cell(sample) for sample in samples})
    tally = _Tally(samples, cells, draws)
    student = Student(subject.model)
    with Progress(len(samples), word="question") as progress, _Controls(subject.model, layers, draws) as controls:
        for start in range(0, len(samples), batch_size):
            chosen = samples[start : start + batch_size]
            batch = collate(chosen, {"student": subject.preparation}).to(device)
            with torch.inference_mode():
                trained = student(batch, {"logits", "routing"}).routing
                tally.add(subject.model, batch, start, trained, controls.decisions)
            for _ in chosen:
                progress.advance()
    return Use(list(samples), cells, tally.layers(layers))


def _cell(sample: Sample) -> Cell:
    return Cell(sample.dataset, sample.regime, sample.task)


class _Controls:
    """Random routers beside the trained ones: asked about the same inputs, while the model goes its own way."""

    def __init__(self, model: Any, layers: dict[str, Mixture], draws: int) -> None:
        self._model = bare(model)
        self.decisions: dict[str, dict[str, list[Decision]]] = {}
        """By layer and name of the control, D decisions about the last batch."""
        self._routers = {
            name: {control: [_random(layer.router, control, seed) for seed in range(draws)] for control in CONTROLS}
            for name, layer in layers.items()
        }
        self._layers = layers
        self._hooks: list[Any] = []
        self._apart = True

    def __enter__(self) -> _Controls:
        for name, layer in self._layers.items():

            def ask(_router: Any, inputs: tuple[Any, ...], _output: Any, name: str = name) -> None:
                self.decisions[name] = {
                    control: [router(*inputs) for router in routers] for control, routers in self._routers[name].items()
                }

            self._hooks.append(layer.router.register_forward_hook(ask))
        if hasattr(self._model, "apart"):
            self._apart = self._model.apart
            self._model.apart = False  # a router that is asked once per batch decides in the order of the batch
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        if hasattr(self._model, "apart"):
            self._model.apart = self._apart


@torch.no_grad()
def _random(router: Router, control: str, seed: int) -> Router:
    """A router like this one that has learnt nothing about its inputs."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(router).to("cpu", torch.float32)  # drawn on the CPU: the same on every device
    if control == "untrained":
        other.reset_parameters(generator)
    else:
        weight = other.linear.weight
        weight.copy_(weight[:, torch.randperm(weight.shape[1], generator=generator)])
    return other.to(router.linear.weight.device).eval()


class _Tally:
    """The sums so far, by layer and kind of token."""

    def __init__(self, samples: Sequence[Sample], cells: Sequence[Cell], draws: int) -> None:
        self._cell = torch.tensor([cells.index(_cell(sample)) for sample in samples])
        self._draws, self._num_cells = draws, len(cells)
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._controls: dict[tuple[str, str], dict[str, Tensor]] = {}

    def add(
        self,
        model: Any,
        batch: Batch,
        start: int,
        trained: dict[str, Routing],
        controls: dict[str, dict[str, list[Decision]]],
    ) -> None:
        """One batch, whose first question has the number `start`."""
        inputs = batch.role("student")
        owners, kinds = token_samples(bare(model), inputs), token_kinds(bare(model), inputs)
        for name, routing in trained.items():
            place = place_of(name)
            samples = (routing.sample + start).cpu()
            tables = {
                control: torch.stack([_table(real_tokens(decision, owners[place])) for decision in decisions])
                for control, decisions in controls[name].items()
            }
            for kind, wanted in KINDS.items():
                if wanted is None:
                    kept = torch.ones_like(samples, dtype=torch.bool)
                elif place in kinds:
                    kept = (kinds[place] == wanted).cpu()
                else:
                    continue
                self._add(name, kind, samples[kept], _table(routing)[kept])
                for control, table in tables.items():
                    self._add_control(name, kind, control, self._cell[samples[kept]], table[:, kept])

    def _add(self, name: str, kind: str, samples: Tensor, table: Tensor) -> None:
        sums = self._sums.setdefault((name, kind), table.new_zeros(len(self._cell), table.shape[1]))
        sums.index_add_(0, samples, table)

    def _add_control(self, name: str, kind: str, control: str, cells: Tensor, table: Tensor) -> None:
        found = self._controls.setdefault((name, kind), {})
        sums = found.setdefault(control, table.new_zeros(self._draws, self._num_cells, table.shape[2]))
        sums.index_add_(1, cells, table)

    def layers(self, layers: dict[str, Mixture]) -> list[Layer]:
        """The sums with what is to be known about their layers, in the order of the model."""
        found = []
        for name, layer in layers.items():
            distance = expert_distance(layer)
            for kind in KINDS:
                if (name, kind) in self._sums:
                    controls = {control: sums.numpy() for control, sums in self._controls[name, kind].items()}
                    sums: Floats = self._sums[name, kind].numpy()
                    router = layer.router.kind
                    found.append(Layer(name, place_of(name), kind, router, layer.num_experts, distance, sums, controls))
        return found


def _table(routing: Routing) -> Tensor:
    """What every token adds to the sums, `float64[M, S]` on the CPU."""
    probabilities, selected = routing.probabilities, routing.selected.float()
    ones = torch.ones(len(probabilities), 1, device=probabilities.device)
    columns = [ones, effective_experts(probabilities), selected.sum(dim=1, keepdim=True), probabilities, selected]
    return torch.cat(columns, dim=1).double().cpu()
