"""`maglab bench`: how fast the load balancer and the laboratory are, next to yardsticks that are as fast as can be.

Everything is measured in network namespaces of its own, which go with the processes in them. A bench hands back a
document of plain values; tables and charts are made from that document alone.
"""
