"""Control from outside: the control socket, OSC, the web page, MIDI, Ableton Link and MIDI clock.

registry        which sessions run here;  client: a connection to one;  wire: the protocol
server          the control socket of a session;  remote_session: the SessionApi over it
osc             OSC in, figures out
web, web_state  the page and its messages;  page/: its files
midi            ports that come and go;  midi_input: knobs and keys as moves of a session
sync            keeps our bars with a leader;  link, midi_clock: the leaders
"""
