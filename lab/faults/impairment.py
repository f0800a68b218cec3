"""What is wrong with a link that is only bad, not dead: delay, jitter, loss, rate, reordering, corruption, duplicates.

The numbers and their meaning are netem's (tc-netem(8)), whoever carries them out: the kernel's netem where there is
one, a process on the link (`shim`) elsewhere. Pure.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from ..errors import WrongUse

MOST_MS, MOST_MBIT = 60_000.0, 100_000.0
LIMIT_FRAMES = 1000  # that may be on their way in one direction, as with netem; more are dropped
NOTICED_DELAY_MS = 50.0  # with so much more on a link, probes and keepalives may come too late
NOTICED_RATE_MBIT = 1.0


@dataclass(frozen=True)
class Impairment:
    """What is done to every frame in one direction. WrongUse for a number that is not allowed, or does nothing."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0  # each frame's delay is so much more or less, evenly distributed
    loss: float = 0.0  # per cent of the frames, as all that follow
    rate_mbit: float = 0.0  # 0: no limit
    reorder: float = 0.0  # sent at once, before those that wait out their delay
    corrupt: float = 0.0  # get one bit turned; by a process always behind the Ethernet header
    duplicate: float = 0.0

    def __post_init__(self) -> None:
        most = {"delay_ms": MOST_MS, "jitter_ms": MOST_MS, "rate_mbit": MOST_MBIT}
        for field in fields(self):
            value, limit = getattr(self, field.name), most.get(field.name, 100.0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
                raise WrongUse(f"{field.name}={value!r} is not allowed; allowed: a number from 0 to {limit:g}")
        if not any(asdict(self).values()):
            raise WrongUse(f"an impairment of nothing; there are {', '.join(field.name for field in fields(self))}")
        if self.reorder and not self.delay_ms:
            raise WrongUse("reorder needs a delay_ms: frames overtake those that wait")

    @property
    def is_dead(self) -> bool:
        """Says whether nothing comes through."""
        return self.loss == 100

    @property
    def may_be_noticed(self) -> bool:
        """Says whether health checks or BGP may suffer."""
        slow = self.delay_ms + self.jitter_ms >= NOTICED_DELAY_MS or 0 < self.rate_mbit <= NOTICED_RATE_MBIT
        return bool(self.loss or self.corrupt or slow)

    def words(self) -> str:
        """Returns it as a person says it: `loss 5 %, delay 10 ms`."""
        units = {"delay_ms": "ms", "jitter_ms": "ms", "rate_mbit": "Mbit/s"}
        return ", ".join(
            f"{name.partition('_')[0]} {value:g} {units.get(name, '%')}"
            for name, value in asdict(self).items()
            if value
        )

    def netem(self) -> list[str]:
        """Returns netem's arguments for `tc qdisc add … netem`."""
        delay = [f"{self.delay_ms:g}ms", *([f"{self.jitter_ms:g}ms"] if self.jitter_ms else [])]
        words = ["limit", str(LIMIT_FRAMES)]
        words += ["delay", *delay] if self.delay_ms or self.jitter_ms else []
        for name in ("loss", "duplicate", "corrupt", "reorder"):
            if share := getattr(self, name):
                words += [name, f"{share:g}%"]
        return words + (["rate", f"{self.rate_mbit * 1e6:.0f}bit"] if self.rate_mbit else [])


def frame_seconds(frame_bytes: int, rate_mbit: float) -> float:
    """Returns how long a frame takes to be sent at a rate; 0 without a limit."""
    return frame_bytes * 8 / (rate_mbit * 1e6) if rate_mbit else 0.0
