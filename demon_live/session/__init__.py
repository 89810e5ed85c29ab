"""What plays: one immutable State, its edits and commands.

session.py      apply, load, save, pump: the door for scores
edit.py         one text: old State -> new State; loops.py, plan.py, settings.py: its parts
commands.py     performance words: mute, undo, record ...
state.py        State, DeckState; tempo.py: cycles <-> samples
sampler.py      lanes -> curves for the time ahead
output.py       what is published to engine and mixer
assets.py       sound files that scores name; scores.py, score_files.py: score files, hot reload
inputs.py       controllers; status.py: what displays show; undo.py, agenda.py
"""
