"""Data to music: a CSV and a MIDI file as patterns. python examples/data.py writes data.wav"""

from demon_live import Score, render
from demon_live import dsl as d

with Score() as score:
    d.tempo(120)
    d.deck.loop(2)
    d.deck.prompt = "ambient, glass, bells"
    # A week of measurements, over four bars, again and again.
    d.deck.blend = d.curve("curves/week.csv", cycles=4).range(0.4, 1)
    # The notes of a tune choose among the ideas of the model, a bar each.
    d.deck.seed = d.midi("curves/tune.mid", track=1).slow(8)
    # The times of hits are a rhythm.
    d.deck.gain = d.mini("1 .7").struct(d.onsets("curves/hits.csv", cycles=4))

render(score, "data.wav", cycles=4)
