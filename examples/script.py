"""A set as a script: the same words as at the prompt, placed on the timeline, rendered offline.

python examples/script.py            writes script.wav
"""

from demon_live import Offline
from demon_live.audio.files import write_audio

with Offline("imp", seed=7) as stage:
    session = stage.session
    session.apply("""
        tempo 126
        loop 4
        source "loops/house_124.flac"
        prompt  = 'deep house, warm pad, organ'
        denoise = .5
        blend   = sine.slow(4).range(.5, 1)
    """)
    session.at(4, "denoise = .8 over 4")
    session.at(8, "prompt = 'electro, robot bass' xfade 2")
    session.at(12, 'gain = "1 1 1 [1 0]*2"')
    write_audio("script.wav", stage.render(cycles=16))
