r"""Progressive release: the teacher's weight falls geometrically, one factor per optimizer step.

.. math:: \alpha(t) = \alpha(0)\, \gamma^t

t counts optimizer steps from 0. CLKD equation 6; the paper gives neither alpha(0) nor gamma, so we ask for the value after the
last step and derive gamma, once per run. Ours: corner samples may have an end, and so a gamma, of their own.
Source: CLKD (Zhao and Fang, ICRA 2026), section III-D.
"""

from __future__ import annotations


def gamma_for(start: float, end: float, steps: int) -> float:
    """The decay rate that leads from `start` at step 0 to `end` after `steps` steps.

    >>> gamma_for(1.0, 0.25, 2)
    0.5
    """
    return float((end / start) ** (1 / steps))


def alpha_at(step: int, start: float, gamma: float, below: float | None = None) -> float:
    """The value before step number `step` (from 0); 0 once it is smaller than `below`.

    >>> [alpha_at(t, 1.0, 0.5) for t in range(3)]
    [1.0, 0.5, 0.25]
    """
    alpha = start * gamma**step
    return 0.0 if below is not None and alpha < below else float(alpha)
