"""Notes that a score says: their names, the instruments that play them, the guide made of them.

    harmony   names of notes and chords -> pitches
    guide     the notes of a lap -> PCM, on a kit that the words of a prompt choose (kits, voices)
    lanes     the notes of a lap -> what a model is told of them, frame by frame

Only `voices` and `guide` load torch.
"""
