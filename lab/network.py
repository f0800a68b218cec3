"""The Mininet network of a lab on one machine; `cluster.network` has those over several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mininet.net import Mininet
from mininet.topo import Topo

from .nodes import CONFIG, write_config
from .site import Site


class Net(Mininet):  # type: ignore[misc]
    """Mininet, whose hosts know the site that they belong to, and whose set-up leaves the machine's limits alone."""

    inited = True

    def __init__(
        self, site: Site, topo: Topo, serving: str, when_wired: Callable[[], None],
        document: Mapping[str, Any] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """`serving` is what serves HTTP, `document` the configuration to begin with, if not the topology's own."""
        self._site, self._serving, self._when_wired, self._document = site, serving, when_wired, document
        super().__init__(topo=topo, controller=None, build=False, **options)

    def build(self) -> None:
        """Writes the configuration, and builds the network."""
        if self._document is not None:
            self.write_config(self._document)
        super().build()

    def configHosts(self) -> None:
        """Starts the nodes' daemons, after what has to be there before their first packet."""
        self._when_wired()
        super().configHosts()

    def addHost(self, name: str, cls: Any = None, **params: Any) -> Any:
        return super().addHost(name, cls, **{"servers": self._serving, **params, "site": self._site})

    def write_config(self, document: Mapping[str, Any]) -> None:
        """Writes the configuration that Maglevs and endpoints share."""
        write_config(self._site.directory / CONFIG, document)

    def close(self) -> None:
        """Ends what is on other machines: nothing, on one."""


class Machines:
    """Where a lab is: on this machine alone."""

    cluster: tuple[str, ...] = ()  # the servers, by name

    def check(self) -> None:
        """Raises WrongUse for a machine that nodes cannot be put on."""

    def network(self, *told: Any, **options: Any) -> Net:
        """Returns a network, not built yet; takes what `Net` takes."""
        return Net(*told, **options)
