r"""Online weights of tasks: each is to have its share of the sum of gradient norms.

With weights w_i, norms n_i of the unweighted gradients, losses L_i relative to the first ones and static weights s_i:

.. math:: J = \sum_i \Big| w_i n_i - \frac{s_i}{\sum_j s_j} \Big(\sum_j w_j n_j\Big) \Big(\frac{r_i}{\bar r}\Big)^\alpha \Big|,
          \qquad w_i = \text{softplus}(a_i), \qquad r_i = L_i / L_i^{(0)}

One AdamW step on a after every optimizer window, then the weights are scaled back to the sum of the static ones. Unlike in
GradNorm (arXiv 1711.02257) the target is not detached. Weights move by some 2e-4 per window: Adam's steps are sign-like.
Source: Drive-KD's released code, intern/trainer.py 390-616 and 776-820.

Legend: T tasks, the first one the anchor.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from drivedistill.drivekd_sections import Reweighting

PREFIX = "reweighting/"


def imbalance(weights: Tensor, norms: Tensor, static: Tensor, pace: Tensor, alpha: float) -> Tensor:
    """J, with gradient with respect to the weights.

    Args:
        weights: `float64[T]`
        norms: `float64[T]`, of the unweighted gradients.
        static: `float64[T]`, the recipe's weights.
        pace: `float64[T]`: L / L0, how slowly a task is learnt.
        alpha: How strongly slow tasks are favoured.
    """
    scaled = weights * norms
    target = static / static.sum() * scaled.sum() * (pace / pace.mean()) ** alpha
    return (scaled - target).abs().sum()


class Reweighter:
    """The weights of T tasks and what they have learnt so far; all of it float64 on the CPU, the same on every rank.

    A task's static weight is taken when it is met first; until then, and if that is 0, it takes no part.
    """

    def __init__(self, spec: Reweighting, tasks: int) -> None:
        self.spec = spec
        self.logits = torch.zeros(tasks, dtype=torch.float64, requires_grad=True)
        self.static = torch.zeros(tasks, dtype=torch.float64)
        self.first = torch.zeros(tasks, dtype=torch.float64)
        """Every task's first loss above 0; 0 until there is one."""
        rate = spec.learning_rate
        self.optimizer = torch.optim.AdamW([self.logits], lr=rate, betas=(0.9, 0.99), weight_decay=0.0)

    def weights(self, static: Tensor) -> Tensor:
        """What tasks are multiplied with now, `float64[T]`: their static weights when they are met first."""
        return torch.where(self.static > 0, self._weights().detach(), static)

    def learn(self, losses: Tensor, norms: Tensor, static: Tensor) -> None:
        """One step, after the update of a window.

        Args:
            losses: `float64[T]`, mean of the window, unweighted.
            norms: `float64[T]`, of the unweighted gradients, mean of the window; 0 where a task was absent.
            static: `float64[T]`, the recipe's weights; 0 for tasks that no rank has met in this window.
        """
        with torch.no_grad():
            new = (self.static == 0) & (static > 0)
            self.static = torch.where(new, static, self.static)
            self.logits.copy_(torch.where(new, _inverse(static), self.logits))
            self.first = torch.where(self.first == 0, losses, self.first)
        active = self.static > 0
        pace = torch.where(self.first > 0, losses / self.first, 1.0)
        self.optimizer.zero_grad()
        weights, static = self._weights()[active], self.static[active]
        imbalance(weights, norms[active], static, pace[active], self.spec.alpha).backward()
        self.optimizer.step()
        with torch.no_grad():
            weights = self._weights() * active
            scaled = self._bounded(weights * self.static.sum() / weights.sum())
            self.logits.copy_(torch.where(active, _inverse(scaled), self.logits))

    def _weights(self) -> Tensor:
        return self._bounded(softplus(self.logits) + 1e-8)

    def _bounded(self, weights: Tensor) -> Tensor:
        weights = weights.clamp(self.spec.least, self.spec.most)
        return torch.cat([weights[:1].clamp_min(self.spec.least_supervised), weights[1:]])

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint remembers."""
        kept = {"logits": self.logits.detach(), "static": self.static, "first": self.first}
        return {f"{PREFIX}{name}": value.clone() for name, value in (kept | self.optimizer.state[self.logits]).items()}

    def load(self, saved: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's tensors."""
        mine = {name.removeprefix(PREFIX): value for name, value in saved.items() if name.startswith(PREFIX)}
        with torch.no_grad():
            self.logits.copy_(mine.pop("logits"))
        self.static, self.first = mine.pop("static"), mine.pop("first")
        self.optimizer.state[self.logits] = mine


def _inverse(weights: Tensor) -> Tensor:
    """softplus^-1; of a weight 0, which takes no part, something finite."""
    weights = weights.clamp_min(1e-12)
    return weights + torch.log(-torch.expm1(-weights))
