"""What the performer touches: command line, prompt, panel, messages.

    arguments  what can be written after `demon`;  shell: completion of it
    check      `demon check`;  starter: `demon new`
    show       errors, replies and events as coloured pieces, for the CLI too
    text       curves, meters and widths as text
    theme      sixteen colours, and more where there are more
    port       what a front end needs of a session, wherever that runs
    front      the two faces on a terminal, and the way between them
    desk       what they share: evaluating, polling, answering
    repl       the prompt;  screen: its layout;  keys: what the keys do
    toolbar    its panel: a pure function of a Status and a size
    stage/     the stage view: a whole screen, the score on it
    complete   completion, and the line of help under the cursor
    guide      `?`, `?name`;  tour: `tour`
    plain      the same without a terminal: lines in, lines out

Threads: the prompt's event loop owns the screen; nothing else writes to it. Nothing here imports
torch or an audio device.
"""
