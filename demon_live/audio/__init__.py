"""Sound: everything from a loop's PCM to the loudspeaker, and the files it comes from and goes to.

files       load_source, fit_loop, write_audio
pcmring     LoopBuffer (a deck's PCM, mmap'ed), Bus (numbers of the audio process), PcmRing
channel     ramps, automation without clicks, filters, pan, limiter
mixer       Mixer: loops, channel strips, gates, the sum; the same live and offline
sinks       the audio callback, the null clock, sound files
devices     PortAudio: listing, choosing, opening
mix_thread  newest MixState -> Mixer -> PcmRing
process     the audio process: threads, health, lost devices
speaker     Speaker: the handle that everybody else holds
"""
