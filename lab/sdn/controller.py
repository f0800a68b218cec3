"""The Ryu application that makes an Open vSwitch a router: BGP with the Maglevs, flows and groups for the switch.

It runs in Ryu's own environment, in the router's namespace, on what `lab.sdn_router` has written of it (JSON).

Thin: what the switch shall have is worked out by `rules`, which paths count by `paths`. It changes only what differs
from what the switch has, reads that when the switch connects, and leaves the switch as it is when it ends. It answers
over HTTP on a Unix socket: `GET /status`, and `POST /restart`, `/disable` and `/enable` with `?peer=ADDRESS`.
"""

from __future__ import annotations

import json
import logging
import os
import socket as plain_socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import eventlet.wsgi
from eventlet.green import socket
from ryu.base import app_manager
from ryu.controller import ofp_event
from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_5
from ryu.services.protocols.bgp.bgpspeaker import BGPSpeaker
from ryu.services.protocols.bgp.core_manager import CORE_MANAGER
from ryu.services.protocols.bgp.signals.emit import BgpSignalBus

from .. import tcp_md5
from . import neighbours, switch
from .paths import Paths
from .rules import Changes, Group, Neighbour, Port, Rules, changes, rules, without_dead_ports
from .wire import flow_mod, flow_removal, group_mod, group_removal

FILE_VARIABLE = "MAGLAB_SDN"  # names the file: Ryu makes the application, and hands it nothing
SETTLE_S = 0.002  # changes that come together are made together
IDLE_S = 3600.0
BGP_PORT = 179
RETRY_S = 1.0  # to ask a switch again that did not answer


class Controller(app_manager.RyuApp):  # type: ignore[misc]
    """One switch's control plane."""

    OFP_VERSIONS = (ofproto_v1_5.OFP_VERSION,)
    carries_on = True  # after what it did not expect; with a student's code in it it ends, and the lab says why

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        document = json.loads(Path(os.environ[FILE_VARIABLE]).read_text())
        self._document = document
        self._ports = {each["number"]: Port(**each) for each in document["ports"]}
        self._peers = {each["address"]: each["port"] for each in document["peers"]}
        self._inside = {plain_socket.if_nametoindex(name): port for name, port in document["inside"].items()}
        self._management = Path(document["management"])
        self._paths = Paths(self._peers, document["allowed"], time.monotonic())
        self._neighbours: dict[str, Neighbour] = {}
        self._neighbours_known = False
        self._datapath: Any = None
        # What the switch has: cookies of flows, and groups; None until it was asked.
        self._has: tuple[frozenset[int], dict[int, Group]] | None = None
        self._numbers: Mapping[str, int] = {}  # VIP: its group
        self._woken = hub.Event()
        self._speaker: Any = None

    def start(self) -> None:
        """Starts what goes on all the time; Ryu calls it."""
        super().start()
        self.threads += [hub.spawn(self._follow_neighbours), hub.spawn(self._keep_up), hub.spawn(self._answer)]

    # BGP

    def _begin_bgp(self) -> None:
        """Once the switch is known: what it sends where must be believed before peers say anything."""
        self._speaker = BGPSpeaker(
            self._document["as"],
            self._document["router_id"],
            adj_rib_in_change_handler=self._path_changed,
            peer_down_handler=self._peer_down,
            bgp_server_hosts=("0.0.0.0",),
        )
        core = CORE_MANAGER.get_core_service()
        # Of several hosts it listens on the first alone: it waits for that to end before it turns to the next.
        _, listening = core._listen_tcp(("::", BGP_PORT), core.start_protocol)
        self._sign([*core.listen_sockets.values(), *listening.values()])
        # BGPSpeaker's own handler of new sessions is told a router id, the same for both families.
        core.signal_bus.register_listener(
            BgpSignalBus.BGP_ADJ_UP, lambda _, info: self._peer_up(info["peer"].ip_address)
        )
        for peer in self._peers:
            self._add(peer)

    def _sign(self, listening: Sequence[Any]) -> None:
        """Has sessions signed, if there is a password: what Ryu has for that only Python 2 could run."""
        if password := self._document["password"]:
            for sock in listening:
                for peer in self._peers:
                    if (":" in peer) == (sock.family == plain_socket.AF_INET6):
                        tcp_md5.sign(sock, peer, password)

    def _add(self, peer: str) -> None:
        is_v6 = ":" in peer
        self._speaker.neighbor_add(
            peer,
            self._document["peer_as"],
            enable_ipv4=not is_v6,
            enable_ipv6=is_v6,
            connect_mode="passive",
        )

    def _path_changed(self, event: Any, peer: str, _as: object) -> None:
        if event.is_withdraw:
            self._paths.withdrawn(peer, event.prefix)
        elif not self._paths.announced(peer, event.prefix, event.nexthop):
            self.logger.warning("%s announces %s, which is no VIP: passed over", peer, event.prefix)
        self._woken.set()

    def _peer_up(self, peer: str) -> None:
        self._paths.up(peer, time.monotonic())
        self._woken.set()

    def _peer_down(self, peer: str, _as: object) -> None:
        self._paths.down(peer)
        self._woken.set()

    # The kernel

    def _follow_neighbours(self) -> None:
        """Listens to the kernel, for ever."""
        kernel = socket.socket(plain_socket.AF_NETLINK, plain_socket.SOCK_RAW, plain_socket.NETLINK_ROUTE)
        kernel.bind((0, neighbours.RTMGRP_NEIGH))
        kernel.send(neighbours.question())
        while True:
            for each in neighbours.heard(kernel.recv(1 << 17)):
                self._hear(each)
            self._neighbours_known = True
            self._woken.set()

    def _hear(self, heard: neighbours.Heard) -> None:
        port = self._inside.get(heard.interface)
        if port is None or heard.address.startswith(("fe80:", "ff", "224.")):
            return
        if heard.mac:
            self._neighbours[heard.address] = Neighbour(heard.address, port, heard.mac)
        else:
            self._neighbours.pop(heard.address, None)

    # The switch

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def _switch_comes_or_goes(self, event: Any) -> None:
        if event.state == MAIN_DISPATCHER:
            self._datapath, self._has = event.datapath, None
        elif event.datapath is self._datapath:
            self._datapath = None
        self._woken.set()

    @set_ev_cls(ofp_event.EventOFPPortStateChange, MAIN_DISPATCHER)
    def _port_changed(self, event: Any) -> None:
        self._woken.set()

    @set_ev_cls(ofp_event.EventOFPErrorMsg, MAIN_DISPATCHER)
    def _refused(self, event: Any) -> None:
        """The switch is not as it was thought to be: it is asked again."""
        self.logger.error("the switch refuses: type %s, code %s", event.msg.type, event.msg.code)
        self._has = None
        hub.spawn_after(RETRY_S, self._woken.set)

    def _keep_up(self) -> None:
        """Has the switch do what is known, whenever something is new."""
        while True:
            wakes_at = self._paths.wakes_at
            self._woken.wait(IDLE_S if wakes_at is None else max(0.0, wakes_at - time.monotonic()) + SETTLE_S)
            hub.sleep(SETTLE_S)
            self._woken.clear()
            try:
                self._update()
            except Exception:
                self.logger.exception("the switch could not be told")
                if not self.carries_on:
                    os._exit(1)
                self._has = None
                hub.spawn_after(RETRY_S, self._woken.set)

    def _update(self) -> None:
        if self._datapath is None or not self._neighbours_known:
            return
        if self._has is None:
            self._ask_switch()
        if self._speaker is None:
            self._begin_bgp()
        wanted = self._wanted()
        cookies, groups = self._has
        todo = changes(cookies, groups, wanted)
        if todo:
            self._tell(todo)
        self._has = frozenset(flow.cookie for flow in wanted.flows), dict(wanted.groups)

    def _ask_switch(self) -> None:
        """Asks what the switch has; a controller that has just begun believes what it does."""
        contents = switch.read(self._management)
        self._has = contents.cookies, dict(contents.groups)
        self._numbers = contents.group_of
        if self._speaker is None:
            for vip, number in self._numbers.items():
                for bucket in contents.groups[number].buckets:
                    self._believe(vip, bucket.port)

    def _believe(self, vip: str, port: int) -> None:
        for peer, its_port in self._peers.items():
            if its_port == port and (":" in peer) == (":" in vip):
                self._paths.keep(vip, peer)

    def _wanted(self) -> Rules:
        there = without_dead_ports(self._neighbours, self._living_ports())
        wanted = rules(self._ports, there, self._paths.routes(time.monotonic()), self._numbers)
        self._numbers = wanted.numbers
        return wanted

    def _living_ports(self) -> list[int]:
        down, dead = ofproto_v1_5.OFPPC_PORT_DOWN, ofproto_v1_5.OFPPS_LINK_DOWN
        return [
            number for number, port in self._datapath.ports.items() if not port.config & down and not port.state & dead
        ]

    def _tell(self, todo: Changes) -> None:
        """Has the switch make changes, in their order."""
        datapath = self._datapath
        parser, protocol = datapath.ofproto_parser, datapath.ofproto
        messages = [
            *(group_mod(datapath, protocol.OFPGC_ADD, group) for group in todo.new_groups),
            *(group_mod(datapath, protocol.OFPGC_MODIFY, group) for group in todo.changed_groups),
            *([parser.OFPBarrierRequest(datapath)] if todo.new_groups else []),  # before flows lead there
            *(flow_mod(datapath, flow) for flow in todo.new_flows),
            *(flow_removal(datapath, cookie) for cookie in todo.old_flows),
            *([parser.OFPBarrierRequest(datapath)] if todo.old_groups else []),  # after flows no longer do
            *(group_removal(datapath, number) for number in todo.old_groups),
        ]
        for message in messages:
            datapath.send_msg(message)

    # Questions

    def _answer(self) -> None:
        """Answers questions, for ever."""
        path = self._document["control"]
        if os.path.exists(path):
            os.unlink(path)
        listening = socket.socket(plain_socket.AF_UNIX)
        listening.bind(path)
        os.chmod(path, 0o600)
        listening.listen(8)
        eventlet.wsgi.server(listening, self._reply, log=logging.getLogger("control"), log_output=False)

    def _reply(self, environment: Mapping[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        what = f"{environment['REQUEST_METHOD']} {environment['PATH_INFO']}"
        peer = parse_qs(environment.get("QUERY_STRING", "")).get("peer", [""])[0]
        status = "200 OK"
        answer: dict[str, Any] = {}
        if what == "GET /status":
            answer = {"sessions": dict(self._paths.sessions), "connected": self._datapath is not None}
        elif what in ("POST /restart", "POST /disable", "POST /enable") and peer in self._peers and self._speaker:
            self._operate(what.removeprefix("POST /"), peer)
        else:
            status, answer = "404 Not Found", {"error": f"no {what}?peer={peer}"}
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    def _operate(self, command: str, peer: str) -> None:
        if command in ("restart", "disable"):
            self._speaker.neighbor_del(peer)
            self._peer_down(peer, None)
        if command in ("restart", "enable"):
            self._add(peer)
