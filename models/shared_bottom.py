"""One bottom that all tasks share, and a tower for each (Caruana, Multitask Learning, 1997)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from models.deep import DeepRanker
from models.deep_config import DeepConfig
from models.errors import ConfigError
from models.features import FeatureSpec
from models.layers import MLP
from models.mmoe import ParallelMLP
from models.network import Network, RowTensors

__all__ = ["SharedBottom", "SharedBottomConfig"]


@dataclass(frozen=True)
class SharedBottomConfig(DeepConfig):
    """See :class:`models.deep_config.DeepConfig`. With one task it is that task's single-task twin.

    Attributes:
        bottom_layers: units of the layers that all tasks share.
        tower_layers: units of a task's own layers.
    """

    bottom_layers: tuple[int, ...] = (256, 128)
    tower_layers: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bottom_layers:
            raise ConfigError("bottom_layers is empty; the tasks need at least one shared layer")


class SharedBottomNetwork(Network):
    """A bottom and T towers."""

    def __init__(self, config: SharedBottomConfig, spec: FeatureSpec) -> None:
        super().__init__(config, spec)
        first, *later = config.bottom_layers
        self.first = self.input_layer(first)
        self.later = MLP(first, later)
        self.towers = ParallelMLP(
            len(self.tasks), self.later.units, (*config.tower_layers, 1), relu_last=False
        )

    def forward(self, rows: RowTensors) -> Tensor:
        bottom = self.later(F.relu(self.read(self.first, rows)))
        towers: Tensor = self.towers(bottom[:, None].expand(-1, len(self.tasks), -1))
        return towers.squeeze(2)


class SharedBottom(DeepRanker):
    """See the module."""

    family: ClassVar[str] = "shared_bottom"
    config_class: ClassVar[type[DeepConfig]] = SharedBottomConfig
    network_class: ClassVar[type[Network]] = SharedBottomNetwork
