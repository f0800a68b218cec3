"""Maglev: Google's network load balancer in readable Python.

Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016. Section numbers
in this package ("Maglev §3.4") are that paper's. The package knows nothing of Mininet: it would run on real
machines. ARCHITECTURE.md draws the ladder of its modules.
"""
