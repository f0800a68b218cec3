"""Takes a token for what it refuses as well: a flood keeps the bucket empty for ever.

criterion: no_less_than_the_rate
says: expected how many may happen at once after a rest: 100, got 0
"""


class Budget:
    def __init__(self, per_s):
        self.per_s, self.left, self.last = per_s, max(1.0, per_s), None

    def take(self, now):
        if self.last is not None:
            self.left = min(max(1.0, self.per_s), self.left + (now - self.last) * self.per_s)
        self.last = now
        self.left -= 60 if self.left < 1 else 1
        return self.left >= 0
