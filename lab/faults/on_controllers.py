"""What can be done to the control plane of a software-defined router, apart from its switch."""

from __future__ import annotations

from typing import Any

from ..bird import ESTABLISHED
from ..errors import WrongUse
from ..waiting import wait_until
from .fault import Fault
from .on_routes import RouteFaults
from .registry import CONVERGE_TIMEOUT_S

KILL_CONTROLLER, CONTROLLER = "kill controller", "controller"


class ControllerFaults(RouteFaults):
    """What `Lab` does to controllers."""

    def kill_controller(self, router: str) -> Fault:
        """Kills a router's controller: its switch goes on as it is, and nothing that happens meanwhile is noticed.

        Undone, a new controller takes over what the switch has; that is over when its sessions are up again.
        """
        node = self.node(router, "router")
        if CONTROLLER not in node.daemons:
            raise WrongUse(f"{router} runs no controller; it runs {', '.join(node.daemons) or 'nothing'}")

        def again() -> None:
            node.start_controller()
            self._wait_sessions(node)

        return self._fault(KILL_CONTROLLER, router, again, do=lambda: node.stop_daemons(names=[CONTROLLER]))

    def _wait_sessions(self, router: Any) -> None:
        """Waits until a router has its sessions with all Maglevs that nothing is done to."""
        effect = self.expected
        without = effect.withdrawn | effect.unsettled | {maglev for at, maglev in effect.apart if at == router.name}

        def missing() -> str:
            waited_for = {name: state for name, state in router.routing.sessions().items() if name not in without}
            return ", ".join(f"{name}: {state}" for name, state in waited_for.items() if state != ESTABLISHED)

        wait_until(missing, CONVERGE_TIMEOUT_S, f"the sessions of {router.name}'s new controller")
