"""Notes that a score says: their names, the instruments that play them, the guide made of them.

    harmony   names of notes and chords -> pitches
    guide     the notes of a lap -> PCM, on a kit that the words of a prompt choose (kits, voices)
    lanes     the notes of a lap -> what a model is told of them, frame by frame
    heard     what is heard of notes in a sound: pitch classes and onsets

Only `voices`, `guide` and `heard` load torch.
"""
