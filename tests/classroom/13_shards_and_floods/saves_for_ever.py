"""Has a bucket without a rim: after a long rest everything comes through.

criterion: no_less_than_the_rate
says: expected how many may happen at once after a rest: 100, got
"""


class Budget:
    def __init__(self, per_s):
        self.per_s, self.left, self.last = per_s, max(1.0, per_s), None

    def take(self, now):
        self.left += 0 if self.last is None else (now - self.last) * self.per_s
        self.last = now
        if self.left < 1:
            return False
        self.left -= 1
        return True
