"""A lab on several machines, by Mininet's cluster edition (`mininet.examples.cluster`).

The edition's are the ways to other servers: ssh, a shell there for each node, links that are ssh's own tunnels, and
placement by a placer. What it has no notion of is here: nodes that bring daemons, so that these run where their node
is. On each other server an *agent* (`agent`) does what nodes do on their own machine, and ends with the lab; `away` is
the lab's end of it, by which control sockets come over as well.
"""
