"""On which machines a lab is: this one alone, unless a cluster is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .network import Machines


def machines(cluster: Sequence[str] | str, ssh_config: Path | str | None) -> Machines:
    """Returns where a lab is; WrongUse for a server that cannot be meant."""
    if not cluster:
        return Machines()
    from .cluster.network import Cluster  # the cluster edition is not loaded for nothing

    return Cluster(cluster, ssh_config)
