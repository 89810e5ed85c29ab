"""A recorded performance as files.

journal.py      the log of causes: `NAME.set.jsonl`
recorder.py     `record` and `stop`; session_log.py: the log that `--resume` reads
set_files.py    sound files of a set, and which sets are trusted
"""
