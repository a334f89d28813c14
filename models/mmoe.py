"""Multi-gate mixture of experts (Ma et al., KDD 2018, section 4.2): every task mixes shared experts
by a gate of its own.

All experts' and gates' first layers are one matrix product; their later layers are batched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from models.deep import DeepRanker
from models.deep_config import DeepConfig
from models.errors import ConfigError
from models.features import FeatureSpec
from models.network import Network, RowTensors

__all__ = ["MMOE", "MMOEConfig", "MMOENetwork", "ParallelMLP"]

_DEAD: Final = 0.01


@dataclass(frozen=True)
class MMOEConfig(DeepConfig):
    """See :class:`models.deep_config.DeepConfig`. With one task it is that task's single-task twin.

    Attributes:
        expert_layers: units of an expert's layers.
        gate_units: units of a gate's hidden layer; 0 for a gate that is linear.
        tower_layers: units of a task's own layers.
    """

    experts: int = 4
    expert_layers: tuple[int, ...] = (128, 64)
    gate_units: int = 32
    tower_layers: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.experts < 1 or not self.expert_layers or self.gate_units < 0:
            raise ConfigError(
                f"{self.experts} experts with layers {self.expert_layers} and gates of "
                f"{self.gate_units} units; at least one expert with one layer is needed"
            )


class ParallelMLP(nn.Module):
    """n MLPs of the same shape side by side: (B, n, inputs) to (B, n, layers[-1]), ReLU after every
    layer but, without ``relu_last``, the last."""

    def __init__(self, n: int, inputs: int, layers: Sequence[int], relu_last: bool = True) -> None:
        super().__init__()
        sizes = list(zip((inputs, *layers), layers, strict=False))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(n, a, b).uniform_(-(a**-0.5), a**-0.5)) for a, b in sizes
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n, 1, b)) for _, b in sizes)
        self.relu_last = relu_last

    def forward(self, values: Tensor) -> Tensor:
        hidden = values.transpose(0, 1)  # (n, B, inputs)
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if self.relu_last or place + 1 < len(self.weights):
                hidden = F.relu(hidden, inplace=True)
        return hidden.transpose(0, 1)


class MMOENetwork(Network):
    """E experts, T gates, T towers."""

    def __init__(self, config: MMOEConfig, spec: FeatureSpec) -> None:
        super().__init__(config, spec)
        first, *later = config.expert_layers
        self.experts, self.units = config.experts, first
        self.gate_units = config.gate_units or config.experts
        count = len(self.tasks)
        self.first = self.input_layer(config.experts * first + count * self.gate_units)
        self.later = ParallelMLP(config.experts, first, later)
        gates = (config.experts,) if config.gate_units else ()
        self.gates = ParallelMLP(count, self.gate_units, gates, relu_last=False)
        self.towers = ParallelMLP(
            count, config.expert_layers[-1], (*config.tower_layers, 1), relu_last=False
        )

    def mixed(self, rows: RowTensors) -> tuple[Tensor, Tensor]:
        """The experts' outputs (B, E, H) and the gates' weights (B, T, E)."""
        found = self.read(self.first, rows)
        split = self.experts * self.units
        experts = F.relu(found[:, :split]).view(-1, self.experts, self.units)
        gates = found[:, split:].view(-1, len(self.tasks), self.gate_units)
        if len(self.gates.weights):
            gates = F.relu(gates)
        return self.later(experts), torch.softmax(self.gates(gates), dim=2)

    def forward(self, rows: RowTensors) -> Tensor:
        experts, gates = self.mixed(rows)
        towers: Tensor = self.towers(torch.bmm(gates, experts))  # (B, T, 1)
        return towers.squeeze(2)

    def diagnostics(self, rows: RowTensors) -> Mapping[str, float]:
        """By task the mean entropy of its gate (1 is even, 0 one expert alone), and the share of
        experts that every task gives less than a hundredth of its even share."""
        gates = self.mixed(rows)[1]
        entropy = -(gates * torch.log(gates.clamp(min=1e-12))).sum(2).mean(0)
        most = max(torch.log(torch.tensor(float(self.experts))).item(), 1e-12)
        mean = gates.mean(0)  # (T, E)
        dead = (mean.max(0).values < _DEAD / self.experts).float().mean().item()
        found = {
            f"gate_entropy_{task.name}": value / most
            for task, value in zip(self.tasks, entropy.tolist(), strict=True)
        }
        return {**found, "dead_experts": dead}


class MMOE(DeepRanker):
    """See the module."""

    family: ClassVar[str] = "mmoe"
    config_class: ClassVar[type[DeepConfig]] = MMOEConfig
    network_class: ClassVar[type[Network]] = MMOENetwork
