"""Traffic of every kind, from the clients to VIPs: each seeded, counted, bounded, and stopped by whoever began it.

`kinds.Traffic` is what `lab.traffic` returns, with a method a kind; each returns a handle (`handle`). What sends is a
process on a client (`senders/`), which obeys commands on a pipe (`worker`), or a program that others wrote: wrk, ab,
curl, iperf3. Packets go to VIPs of the lab and nowhere else.

This file imports nothing: senders start in a fraction of the time that the laboratory takes.
"""
