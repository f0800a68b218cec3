"""Sweeps when something is recorded, and believes until then whatever is there.

criterion: forgets_the_idle
says: at 11 s looked up c1:40001
"""

from collections import OrderedDict


class ConnectionTable:
    def __init__(self, capacity, idle_timeout_s):
        self.capacity, self.idle_timeout_s, self.overflows = capacity, idle_timeout_s, 0
        self.entries = OrderedDict()

    def __len__(self):
        return len(self.entries)

    def record(self, flow, backend, now):
        for other, (_, last_use) in list(self.entries.items()):
            if now - last_use >= self.idle_timeout_s:
                del self.entries[other]
        self.entries[flow] = backend, now
        return True

    def lookup(self, flow, now, within_s=None):
        if flow in self.entries:
            backend, _ = self.entries[flow]
            self.entries[flow] = backend, now
            return backend
        return None
