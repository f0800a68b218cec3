"""The control plane of a software-defined router: what an Open vSwitch is to do with packets, and who tells it.

Pure: `rules` (what the router knows -> flows and groups, as data), `paths` (who announces what), `openflow` (bytes of
OpenFlow 1.5 -> what a switch has). Input and output: `neighbours` (the kernel's link addresses), `switch` (what a
switch has, read over its management socket), `controller` (the Ryu application, in an environment of its own).
Left out: learning topology, more than one switch, and anything that Ryu's own examples teach better.
"""
