"""The control plane of a software-defined router: what an Open vSwitch is to do with packets, and who tells it.

Pure: `rules` (what the router knows -> flows and groups, as data), `paths` (who announces what), `openflow` (bytes of
OpenFlow 1.5 -> what a switch has), `neighbours` (netlink's messages -> link addresses). In an environment of its own:
`controller`, the Ryu application, and `wire`, rules as Ryu's messages. For the laboratory: `switch`, what a switch has,
and `routing`, what a router says of itself. Left out: finding out how switches are wired, and more than one of them.
"""
