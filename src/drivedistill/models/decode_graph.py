"""A step of `decode.py` in CUDA graphs: the host asks for one graph instead of some hundred kernels.

A graph always reads and writes the same memory. So for every shape there is one set of tensors that stay where they are;
an answer's memory is copied into them when it begins, and they are what its steps change. Shapes are few: questions are
padded to whole blocks of positions, rooms are doubled, and a batch is not thinned out when samples have ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from drivedistill.models.decode import Memory, fixed_shapes

Replay = Callable[[], None]
"""Runs a graph."""


def cuda_graph(work: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Replay, tuple[Tensor, Tensor]]:
    """Capture some work: how to repeat it, and where its results will lie. It runs three times before, as torch asks."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    return graph.replay, results


@dataclass
class _Place:
    """Tensors of one shape that stay where they are, and the graph on them."""

    token: Tensor
    position: Tensor
    early: Tensor
    memory: Memory
    replay: Replay
    results: tuple[Tensor, Tensor]


class GraphStep(nn.Module):
    """A step that is captured once per shape; see `decode.Step`.

    Args:
        step: Another one.
        capture: How to capture; another way in tests.
    """

    def __init__(self, step: Any, capture: Callable[..., tuple[Replay, tuple[Tensor, Tensor]]] = cuda_graph) -> None:
        super().__init__()
        self.step, self.capture = fixed_shapes(step), capture
        self.thins = False
        self._places: dict[tuple[torch.Size, ...], _Place] = {}

    def begin(self, inputs: dict[str, Tensor], room: int) -> tuple[Tensor, int, Memory]:
        """See `decode.Step`."""
        token, position, memory = self.step.begin(inputs, room)
        return token, position, self._moved(memory)

    def grown(self, memory: Memory) -> Memory:
        """See `decode.Step`."""
        return self._moved(self.step.grown(memory))

    def reading_parts(self) -> list[nn.Module]:
        """See `decode.Step`."""
        return list(self.step.reading_parts())

    def forward(self, token: Tensor, position: Tensor, early: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """See `decode.Step`; the memory must be one that `begin` or `grown` returned last for its shape."""
        place = self._places[memory.shapes]
        assert place.memory is memory, "a memory that lies elsewhere"
        for there, given in ((place.token, token), (place.position, position), (place.early, early)):
            there.copy_(given)
        place.replay()
        return place.results

    def _moved(self, memory: Memory) -> Memory:
        """The same memory where the graph of its shape expects it."""
        place = self._places.get(memory.shapes)
        if place is None:
            place = self._places[memory.shapes] = self._captured(memory)
        for there, given in zip(place.memory.tensors, memory.tensors, strict=True):
            there.copy_(given)
        return place.memory

    def _captured(self, memory: Memory) -> _Place:
        keys, values, fixed = ([part.clone() for part in parts] for parts in (memory.keys, memory.values, memory.fixed))
        own = Memory(keys, values, fixed)
        own.table = None if memory.table is None else memory.table.clone()
        device = memory.keys[0].device
        token = torch.zeros(len(memory.keys[0]), dtype=torch.long, device=device)
        position = torch.zeros(1, dtype=torch.long, device=device)
        early = torch.zeros(1, dtype=torch.bool, device=device)
        replay, results = self.capture(lambda: self.step(token, position, early, own))
        return _Place(token, position, early, own, replay, results)
