"""The short speech clips of the demo, made anew wherever espeak-ng is installed."""

from __future__ import annotations

from imtalker.avatars.speech.performance import Performance, perform
from imtalker.avatars.speech.texts import Line

CLIPS: dict[str, Line] = {
    "welcome": Line("Hello! I am not a real person, but I move my mouth with care.", "en", "en-us+f2", 160, 55),
    "weather": Line(
        "By Friday, five purple boats may have moved over the bay. What a beautiful view!", "en", "en+m3", 165, 42
    ),
    "willkommen": Line("Guten Morgen! Heute üben wir schöne Wörter, bis der Mund müde wird.", "de", "de+f5", 160, 55),
    "bonjour": Line("Bonjour à tous ! Un bon pain, du beurre, et la vie est belle.", "fr", "fr+m1", 155, 45),
    "hola": Line("¡Hola, amigos! Hoy probamos una boca nueva, y no para de hablar.", "es", "es+f1", 160, 55),
}


def demo_clips(seed: int = 42) -> dict[str, Performance]:
    """The clips by name, performed by ``seed``. Raises what :func:`imtalker.avatars.speech.espeak.speak` raises."""
    return {
        name: perform(line.text, line.voice, seed=seed, rate=line.rate, pitch=line.pitch)
        for name, line in CLIPS.items()
    }
