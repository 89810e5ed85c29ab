"""Twenty strengths of denoise as one batch: python examples/sweep.py writes sweep_00.wav and on."""

import numpy as np

from demon_live import generate

strengths = np.linspace(0.2, 1, 20)
loops = generate("acid techno, 303", source="loops/techno_128.flac", denoise=strengths, bpm=128)
for number, loop in enumerate(loops):
    loop.save(f"sweep_{number:02}.wav")
