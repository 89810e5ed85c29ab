"""What the performer touches: prompt, panel, messages.

    arguments.py  what can be written after `demon`
    show.py      errors, replies and events as coloured pieces, for the CLI too
    text.py      curves, meters and widths as text
    theme.py     sixteen colours
    toolbar.py   the panel: a pure function of a Status and a size
    complete.py  completion, and the line of help under the cursor
    guide.py     `?`, `?name`, `tour`
    repl.py      the prompt
    plain.py     the same without a terminal: lines in, lines out

Threads: the prompt's event loop owns the screen; nothing else writes to it. Nothing here imports
torch or an audio device.
"""
