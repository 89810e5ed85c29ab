"""A running session for other processes: prompts, editors, controllers, browsers.

    wire       frames of the control socket: one JSON object a line, bounded, versioned
    registry   which sessions run here: a locked file and a socket each, in the runtime folder
    client     one connection to a session; light enough for `demon send`
    views      frozen views as JSON and back
    remote     a session as its front end sees it, over the socket
    server     the socket's other end, inside the session's process
    process    the session in a process of its own, detached from the terminal

Everything is for the same user of the same machine: the folder is 0700, the socket 0600, and the
kernel is asked who is at the other end. Nothing here imports torch or an audio device.
"""
