"""The stage view: the instrument on a whole screen, for the performer and for the hall.

    app      the application: keys in, frames out
    keys     what the keys do
    shelf    the scores that are open;  score: their blocks, decks, which lines and steps sound
    told     what was said;  terminal: what stands between the view and the terminal
    plan     which part of the screen belongs to what, from 20x5 to any size
    frame    the whole frame as rows of styled text, a pure function of a Picture
    head     bar counter, beat, lamps, meters;  decks: lanes and slots;  pages: score and prompt
    digits   big digits;  painter: changed cells onto the terminal

prompt_toolkit reads keys and keeps the texts; drawing is our own, since at 30 frames a second its
renderer would take most of a core at 200x60 (20 ms a frame; ours under one).

Threads: the event loop makes frames, one thread writes them, one polls the session, one evaluates.
"""
