"""Recorded sets as things to look at, to check and to go on from: `demon set`.

    show.py      a timeline as text, and as an SVG
    to_score.py  a set as a score that one can edit: scenes and a chain
    verify.py    checksums, engine and weights by hash, whether all of it still plays; mending sound
    command.py   the command line's side

Thread contract: pure functions on files; everything runs in the caller's thread.
"""
