"""All the I/O: what moves packets, asks the kernel, probes endpoints and answers on the control socket.

Nothing here decides: `forwarding` does. An engine asks it for each frame, and carries out what it says.
"""
