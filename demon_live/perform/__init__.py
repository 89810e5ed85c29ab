"""From a compiled score to sound: musical time, sampling, scheduling, placement, sets.

session    the only door for scores: compile, check, journal, swap        (main process)
timeline   lanes sampled at the time each frame is next heard             (main process)
player     one turn of the instrument: admit, tick, decode, place         (engine process)
scheduler  which values the next generation is made with                  (engine process)
placement  which stretch is decoded next, from which generation, and where the splices are
host       starts, feeds and restarts the engine process
live       the instrument as a whole; render: the same on an offline clock
"""
