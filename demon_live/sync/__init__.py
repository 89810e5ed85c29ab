"""Musical time shared with others: Ableton Link, MIDI clock in and out, and the one door to MIDI.

Thread contract: stated at the head of each module. Nothing here is imported at start; an optional
package that is absent is told, with its remedy, when its word is used.

    leader.py         what is asked of whoever leads the tempo
    link.py           Ableton Link (the one importer of aalink)
    midi_clock.py     24 pulses a quarter note, in and out, and the loop that smooths them
    midi_ports.py     the one importer of mido
"""
