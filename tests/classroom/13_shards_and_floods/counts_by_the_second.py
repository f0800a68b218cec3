"""Counts what happens in each second by the clock: around a full second twice as many come through.

criterion: no_more_than_the_rate
says: at most within
"""


class Budget:
    def __init__(self, per_s):
        self.per_s, self.second, self.count = per_s, None, 0

    def take(self, now):
        second = now // max(1, 1 / self.per_s)
        if second != self.second:
            self.second, self.count = second, 0
        self.count += 1
        return self.count <= max(1, self.per_s)
