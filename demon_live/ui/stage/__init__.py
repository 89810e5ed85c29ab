"""The stage view: the instrument on a whole screen, for the performer and for the hall.

    app      the application: keys in, frames out
    frame    a frame as rows of styled text, a pure function of a Picture; the layout of the screen
    head     bar counter, beat, lamps, meters;  pages: score and prompt (ui.panel: the lanes)
    score    the open scores: their blocks, their errors, and what of them sounds
    log      messages above the prompt, and help over the score
    painter  changed cells onto the terminal

prompt_toolkit reads keys and edits the texts. We draw ourselves: at 30 frames a second its renderer
would take most of a core at 200x60 (20 ms a frame; ours under one).

Threads: the event loop makes frames, one thread writes them, one polls the session, one evaluates.
"""
