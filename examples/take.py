"""A set cut and changed: python examples/take.py writes take.set.jsonl and take.wav"""

from dataclasses import replace
from pathlib import Path

from demon_live import Recording, render

whole = Recording.load(Path(__file__).with_name("two_decks.set.jsonl"))
for event in whole.events:
    if event.kind == "apply":
        print(f"{event.sample / 48000:6.2f} s  {event.text.splitlines()[0]}")

# Bars 4 to 8, with another prompt.
part = whole.cut(4, 8)
changed = part.map(lambda event: replace(event, text=event.text.replace("dub techno", "acid, 303")))
changed.write("take")
print(render("take.set.jsonl", "take.wav"))
