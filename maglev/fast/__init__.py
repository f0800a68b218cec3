"""The fast path: what the modules above decide, compiled to machine code for nearly every packet.

Each module here is the twin of the one of the same name in `maglev`, which is the reference: the same rules and the
same constants, written for arrays instead of objects. A test holds twins equal, packet by packet and byte by byte.
What is rare (fragments, ICMP, IP options, unknown protocols to a VIP) is not written twice: the fast path hands it to
the reference.

Like the reference it is pure: arrays and `now` in, a verdict out. Engines own the packets, the clock and the threads.
"""
