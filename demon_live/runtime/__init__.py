"""What makes it sound.

live.py, offline.py      the instrument as a whole, live or in one thread
session_process.py       the session in a process of its own
supervisor.py            starts and replaces the engine process; engine_main.py: its main loop
generator.py             one turn: admit, tick, place; its parts in scheduler.py,
                             placement.py, preparation.py, pace.py
load_shedding.py         what the engine gives up when it is late
seek.py                  dry run of a set, and the way to a bar in its middle
pcm_files.py, options.py files of loops; how an engine is opened and what it reports
"""
