"""Adam for a network with embedding tables: whole tensors at once, large tables row by row.

A row of a large table is updated in the steps in which a batch looked it up; its moments rest in
between (lazy Adam). The bias correction counts all steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.kernels import compiled
from models.layers import EmbeddingTables

__all__ = ["Adam"]

_BETAS: Final = (0.9, 0.999)
_EPSILON: Final = 1e-8
Floats = npt.NDArray[np.float32]


class Adam:
    """Adam (Kingma & Ba, ICLR 2015, algorithm 1) over a network and its large tables.

    Args:
        learning_rate: of a step; :meth:`step` scales it.
        clip_norm: gradients of the whole tensors are scaled down to this norm; 0 for never.
    """

    def __init__(
        self, network: nn.Module, learning_rate: float, weight_decay: float = 0.0,
        clip_norm: float = 0.0,
    ) -> None:  # fmt: skip
        named = {n: p for n, p in network.named_parameters() if p.requires_grad and p.numel()}
        self._names = list(named)
        self._parameters = list(named.values())
        self._tables = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, EmbeddingTables) and len(module.large)
        }
        self._rate = learning_rate
        self._clip = clip_norm
        self._dense = torch.optim.AdamW(
            self._parameters, lr=learning_rate, betas=_BETAS, eps=_EPSILON,
            weight_decay=weight_decay, fused=True,
        )  # fmt: skip
        self._moments = {
            name: (torch.zeros_like(t.large), torch.zeros_like(t.large))
            for name, t in self._tables.items()
        }
        self._slots = {
            name: np.full(len(t.large), -1, np.int32)
            for name, t in self._tables.items()
            if t.large.device.type == "cpu"
        }
        self.steps = 0

    def zero(self) -> None:
        """Forget the gradients."""
        self._dense.zero_grad(set_to_none=True)

    def step(self, scale: float = 1.0) -> None:
        """One update by the gradients that are there, at ``scale`` times the learning rate."""
        self.steps += 1
        if self._clip:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._dense.param_groups[0]["lr"] = self._rate * scale
        self._dense.step()
        for name, tables in self._tables.items():
            found = list(tables.looked_up())
            if found:
                ids = torch.cat([lookup.ids for lookup in found])
                gradients = torch.cat([_gradient(lookup.vectors) for lookup in found])
                self._update(name, tables.large, ids, gradients, self._rate * scale)

    def _update(
        self, name: str, weight: Tensor, ids: Tensor, gradients: Tensor, rate: float
    ) -> None:
        first, second = self._moments[name]
        corrections = tuple(1.0 - beta**self.steps for beta in _BETAS)
        if name in self._slots:
            _update_rows(
                weight.detach().numpy(), first.numpy(), second.numpy(), ids.numpy(),
                gradients.numpy(), self._slots[name], rate, _BETAS[0], _BETAS[1],
                corrections[0], corrections[1], _EPSILON,
            )  # fmt: skip
            return
        rows, place = torch.unique(ids, return_inverse=True)
        summed = torch.zeros(len(rows), weight.shape[1], device=weight.device)
        summed.index_add_(0, place, gradients)
        first[rows] = m = _BETAS[0] * first[rows] + (1 - _BETAS[0]) * summed
        second[rows] = v = _BETAS[1] * second[rows] + (1 - _BETAS[1]) * summed.square()
        step = rate * (m / corrections[0]) / ((v / corrections[1]).sqrt() + _EPSILON)
        weight.detach()[rows] -= step

    def accumulators(self) -> dict[str, Tensor]:
        """The moments by parameter, as ``<parameter>.first`` and ``.second``; copies on the CPU."""
        found: dict[str, Tensor] = {}
        for name, parameter in zip(self._names, self._parameters, strict=True):
            state = self._dense.state.get(parameter)
            if state:
                found[f"{name}.first"] = state["exp_avg"]
                found[f"{name}.second"] = state["exp_avg_sq"]
        for name, (first, second) in self._moments.items():
            found[f"{name}.large.first"], found[f"{name}.large.second"] = first, second
        return {key: value.detach().cpu().clone() for key, value in found.items()}

    def restore(self, accumulators: Mapping[str, Tensor], steps: int) -> None:
        """Go on from :meth:`accumulators` after ``steps`` steps; what is not named starts anew."""
        self.steps = steps
        for name, parameter in zip(self._names, self._parameters, strict=True):
            first, second = (accumulators.get(f"{name}.{kind}") for kind in ("first", "second"))
            if first is None or second is None or first.shape != parameter.shape:
                continue
            state: dict[str, Any] = self._dense.state[parameter]
            state["step"] = torch.tensor(float(steps), device=parameter.device)
            state["exp_avg"] = first.to(parameter.device, copy=True)
            state["exp_avg_sq"] = second.to(parameter.device, copy=True)
        for name, moments in self._moments.items():
            for kind, moment in zip(("first", "second"), moments, strict=True):
                kept = accumulators.get(f"{name}.large.{kind}")
                if kept is not None and kept.shape == moment.shape:
                    moment.copy_(kept)


def _gradient(vectors: Tensor) -> Tensor:
    if vectors.grad is None:
        raise RuntimeError("looked-up vectors have no gradient; call backward first")
    return vectors.grad


@compiled
def _update_rows(
    weight: Floats, first: Floats, second: Floats, ids: npt.NDArray[np.int32], gradients: Floats,
    slots: npt.NDArray[np.int32], rate: float, beta1: float, beta2: float, correction1: float,
    correction2: float, epsilon: float,
) -> None:  # fmt: skip
    """Add up gradients (N, d) by row, then update every row once. ``slots`` is -1 throughout."""
    width = weight.shape[1]
    rows = np.empty(len(ids), np.int32)
    summed = np.zeros((len(ids), width), np.float32)
    count = 0
    for i in range(len(ids)):
        slot = slots[ids[i]]
        if slot < 0:
            slot = count
            slots[ids[i]] = slot
            rows[slot] = ids[i]
            count += 1
        for j in range(width):
            summed[slot, j] += gradients[i, j]
    for slot in range(count):
        row = rows[slot]
        slots[row] = -1
        for j in range(width):
            gradient = summed[slot, j]
            m = beta1 * first[row, j] + (1.0 - beta1) * gradient
            v = beta2 * second[row, j] + (1.0 - beta2) * gradient * gradient
            first[row, j] = m
            second[row, j] = v
            weight[row, j] -= rate * (m / correction1) / (np.sqrt(v / correction2) + epsilon)
