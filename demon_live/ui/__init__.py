"""What the performer touches: command line, prompt, panel, messages.

    arguments  what can be written after `demon`
    check      `demon check`
    show       errors, replies and events as coloured pieces, for the CLI too
    text       curves, meters and widths as text
    theme      sixteen colours
    toolbar    the panel: a pure function of a Status and a size
    complete   completion, and the line of help under the cursor
    guide      `?`, `?name`, `tour`
    screen     the prompt's layout;  keys: what the keys do;  repl: the prompt
    plain      the same without a terminal: lines in, lines out

Threads: the prompt's event loop owns the screen; nothing else writes to it. Nothing here imports
torch or an audio device.
"""
