"""The verdict on a lab's connections: whoever broke had a reason, and whoever had to break did. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ...verdict import Verdict
from .happened import Spell
from .reasons import Doom, dooms
from .world import Life, World


def explained(life: Life, world: World, happened: Sequence[Spell]) -> Doom | None:
    """Returns why a connection broke: a certain reason before a possible one, and the latest of those; None if none."""
    fitting = [doom for doom in dooms(life, world, happened) if doom.explains(life)]
    return max(fitting, key=lambda doom: (doom.is_certain, doom.from_s), default=None)


def only_who_had_to(lives: Sequence[Life], world: World, happened: Sequence[Spell]) -> Verdict:
    """Judges that every connection that broke had a reason to, and names it; and that who had to break did."""
    reasons = {life: explained(life, world, happened) for life in lives if life.is_broken}
    innocent = [life for life, doom in reasons.items() if doom is None]
    immortal = [life for life in lives if not life.is_broken and _had_to(life, world, happened)]
    too_many = _too_many(lives, world, happened, [doom for doom in reasons.values() if doom])
    at_risk = sum(bool(dooms(life, world, happened)) for life in lives)
    lines = [
        f"{life.name} (with {life.endpoint or '?'}): {life.fate} after {life.last_answer_s:.1f} s: "
        f"{doom.reason if doom else 'for no reason that theory knows'}"
        for life, doom in reasons.items()
    ]
    lines += [
        f"{life.name} (with {life.endpoint}): lives, though {_had_to(life, world, happened)}" for life in immortal
    ]
    return Verdict(
        "every connection that broke had to",
        bool(lives) and not innocent and not immortal and not too_many,
        f"at most {at_risk} of {len(lives)} connections break, each for a reason",
        f"{len(reasons)} broke, {len(innocent)} of them without a reason; {len(immortal)} lived that had to break",
        (*too_many, *sorted(lines, key=lambda line: "no reason" not in line)),
        "the timeline around the last answer of each; health of the endpoints as each Maglev saw it (GET /health)",
    )


def _had_to(life: Life, world: World, happened: Sequence[Spell]) -> str:
    """Returns why a connection that lives should not, "" if it may."""
    return next((doom.reason for doom in dooms(life, world, happened) if doom.is_certain), "")


def _too_many(lives: Sequence[Life], world: World, happened: Sequence[Spell], why: Iterable[Doom]) -> list[str]:
    """Returns the changes of which more connections broke than have a slot that they moved, in words."""
    broke = Counter(doom for doom in why if doom.most_share < 1)
    exposed = Counter(doom for life in lives for doom in dooms(life, world, happened) if doom in broke)
    most = {doom: doom.most_share * count for doom, count in exposed.items()}
    return [
        f"{count} of {exposed[doom]} broke, theory allows {most[doom]:.1f} on average: {doom.reason}"
        for doom, count in broke.items()
        if count > most[doom] + 5 * most[doom] ** 0.5 + 1
    ]
