"""Models: what an engine is made of, apart from how it is run (that is `backends`).

    manifest.py      engines/*.toml -> Manifest; what is present, what `demon engines` prints
    conditioning.py  free text -> tags, key, unknown words -> Condition arrays; numpy only
    imp_labels.py    imp's labels -> condition vector and musical phase; numpy only
    imp.py           imp's torch modules
    imp_timbre.py    a recording -> the tail of the condition vector that says how it sounds

Only the last two load torch, so `demon engines` and `demon check` start at once.
"""
