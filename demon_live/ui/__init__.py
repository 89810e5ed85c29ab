"""The performer's side: prompt, stage view, panel, messages.

    run         shows the views;  plain: the same without a terminal, lines in, lines out
    controller  evaluates, polls and answers for both views, and their base
    prompt      the prompt;  stage/: the stage view, a whole screen with the score on it
    panel       the lanes, slots and levels of both;  keys: the keys of both
    complete    completion, and the line of help at the cursor
    guide       `?`, `?name`;  tour: `tour`
    show        errors, replies and events as coloured pieces, for the CLI too
    text        curves, meters and widths as text;  theme: colours

Threads: the event loop of a view owns the screen; nothing else writes to it. Nothing here imports
torch or an audio device.
"""
