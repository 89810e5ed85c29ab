"""The functions of the language as a table: parameters, one line of help, an example run as a test.

words.py joins each row with what it does. An entry:

    name(parameter:KIND parameter:KIND=default *many:KIND) flags
        what it does
        an example: a line of score

KIND, and what the function gets:
    T time: exact Fraction      I whole number: int         R number: float
    P pattern                   G gate, a pattern of yes/no F function: Pattern -> Pattern
    L list of numbers or one    S section: [cycles, pattern]
Flags: free = stands alone, not behind a pattern; lots = draws lots.
T, I and R may be patterns in a score (fast("<1 2>")): the compiler binds them.

Threads: a constant.
"""

TABLE = """
== time
fast(factor:T)
    Faster by a factor; the factor may be a pattern.
    blend = "0 .5 1".fast(2)
slow(factor:T)
    Slower by a factor.
    blend = sine.slow(4)
early(cycles:T)
    Earlier by a number of cycles.
    blend = saw.early(1/4)
late(cycles:T)
    Later by a number of cycles.
    blend = saw.late(1/8)
rev()
    Each cycle backwards.
    blend = "0 .3 1".rev
palindrome()
    Forwards, then backwards, in turn.
    blend = "0 .3 1".palindrome
iter(n:I)
    Begins 1/n of a cycle further on in each cycle.
    blend = "0 .3 .6 1".iter(4)
iterBack(n:I)
    Begins 1/n of a cycle earlier in each cycle.
    blend = "0 .3 .6 1".iterBack(4)
ply(n:T)
    Each event n times in its own time.
    noise = "0 .4".ply("<1 2 3>")
inside(n:T f:F)
    A function on n cycles at a time, as if they were one.
    blend = "0 .3 .6 1".inside(2, rev)
outside(n:T f:F)
    A function on 1/n of a cycle at a time.
    blend = "<0 .3 .6 1>".outside(4, rev)
zoom(begin:T end:T)
    A part of each cycle, stretched over the whole.
    blend = "0 .3 .6 1".zoom(1/4, 3/4)
compress(begin:T end:T)
    Each cycle squeezed into a part of it.
    gain = "1 .5".compress(1/4, 3/4)
fastGap(n:T)
    Each cycle n times as fast, then rest.
    gain = "1 .5".fastGap(2)
linger(part:T)
    The first part of each cycle, over and over.
    blend = "0 .3 .6 1".linger(1/2)
ribbon(start:T length:T)
    A stretch of the pattern, over and over: a loop of chance too.
    blend = rand.segment(8).ribbon(3, 1)
rot(n:I)
    The values n events to the left, the rhythm as it is.
    blend = "0 .3 [.6 1]".rot(1)
repeatCycles(n:I)
    Each cycle n times.
    blend = "<0 .3 1>".repeatCycles(2)
press(part:T=1/2)
    Each event begins later, by half (or a part) of its length.
    gain = "1 .5 1 .5".press
brak()
    Every other cycle squeezed into its middle half: a breakbeat.
    gain = "1 .5".brak
shuffle(n:I) lots
    The n parts of each cycle in another order, by lot.
    blend = "0 .3 .6 1".shuffle(4)
scramble(n:I) lots
    n parts of each cycle drawn by lot; one may come twice.
    blend = "0 .3 .6 1".scramble(4)
swing(amount:T n:T)
    The second half of each n-th of a cycle, late by a part.
    noise = "0 .4*7".swing(1/3, 4)
== structure
segment(n:T)
    A curve as n held values a cycle.
    denoise = sine.range(.3, 1).segment(4)
struct(pulses:G)
    The values of the pattern in the rhythm of another.
    noise = sine.struct("x ~ x x")
mask(gate:G)
    Only where the gate is 1; rests elsewhere.
    noise = saw.mask("<1 [0 1]>")
euclid(k:I n:I turn:I=0)
    On k of n steps, spread evenly, turned left.
    noise = sine.euclid(3, 8)
euclidRot(k:I n:I turn:I)
    The same as euclid with a turn.
    noise = sine.euclidRot(3, 8, 2)
degradeBy(part:R) lots
    Loses this part of the events, by lot.
    noise = ".3*8".degradeBy(.4)
degrade() lots
    Loses half of the events, by lot.
    noise = ".3*8".degrade
undegradeBy(part:R) lots
    Keeps only this part of the events.
    noise = ".3*8".undegradeBy(.4)
== functions
every(n:I f:F)
    A function on cycles 0, n, 2n ...
    blend = "0 .3 1".every(4, rev)
firstOf(n:I f:F)
    The same as every.
    blend = "0 .3 1".firstOf(4, rev)
lastOf(n:I f:F)
    A function on cycles n-1, 2n-1 ...
    blend = "0 .3 1".lastOf(4, fast(2))
when(gate:G f:F)
    A function where the gate is 1.
    blend = "0 .3 1".when("<0 1>", rev)
sometimesBy(part:R f:F) lots
    A function on this part of the events, by lot.
    blend = ".2 .4 .6 .8".sometimesBy(.3, _ + .2)
sometimes(f:F) lots
    A function on half of the events.
    blend = ".2*8".sometimes(_ + .3)
often(f:F) lots
    A function on three quarters of the events.
    blend = ".2*8".often(_ + .3)
rarely(f:F) lots
    A function on a quarter of the events.
    blend = ".2*8".rarely(_ + .3)
almostAlways(f:F) lots
    A function on nine tenths of the events.
    blend = ".2*8".almostAlways(_ + .3)
almostNever(f:F) lots
    A function on a tenth of the events.
    blend = ".2*8".almostNever(_ + .3)
always(f:F)
    A function, always.
    blend = "0 1".always(rev)
never(f:F)
    No function at all: to switch one off.
    blend = "0 1".never(rev)
someCyclesBy(part:R f:F) lots
    A function on this part of the cycles, by lot.
    blend = "0 .5 1".someCyclesBy(.3, rev)
someCycles(f:F) lots
    A function on half of the cycles.
    blend = "0 .5 1".someCycles(rev)
off(cycles:T f:F)
    The pattern, and a function of it later.
    noise = ".4 ~".off(1/8, _ * .5)
superimpose(f:F)
    The pattern, and a function of it on top.
    noise = ".2 .4".superimpose(fast(2))
layer(*f:F)
    Several functions of the pattern at once.
    noise = ".2 .4".layer(rev, fast(2))
chunk(n:I f:F)
    A function on one n-th of the pattern, the next n-th in the next cycle.
    blend = ".2*8".chunk(4, _ + .3)
chunkBack(n:I f:F)
    As chunk, from the last n-th to the first.
    blend = ".2*8".chunkBack(4, _ + .3)
within(begin:T end:T f:F)
    A function on a part of each cycle.
    blend = "0 .3 .6 1".within(0, 1/2, fast(2))
== values
range(low:P high:P)
    From 0..1 to low..high.
    blend = sine.range(.2, .9)
rangex(low:R high:R)
    From 0..1 to low..high by equal ratios: for frequencies.
    lpf = saw.rangex(200, 8000)
range2(low:P high:P)
    From -1..1 to low..high.
    blend = sine2.range2(.2, .9)
smooth(cycles:T=none)
    Straight lines instead of steps: for a time after each, or over each whole event.
    noise = "0 .2 [0 .4]*2".smooth(.1)
quantize(grid:L)
    The nearest multiple of a step, or the nearest of a list.
    denoise = sine.quantize(.25)
clamp(low:R high:R)
    Never under low, never over high.
    blend = (sine * 2).clamp(.2, .9)
abs()
    Without its sign.
    blend = sine2.abs
round()
    To the nearest whole number.
    seed = (sine * 4).round
floor()
    Down to a whole number.
    seed = (saw * 4).floor
ceil()
    Up to a whole number.
    seed = (saw * 4).ceil
invert()
    1 where it was 0, and 0 where it was not.
    noise = sine.mask("1 0 1 1".invert)
add(other:P)
    Plus, with the structure of the left side; the same as +.
    blend = "0 .2 .4".add(.3)
sub(other:P)
    Minus; the same as -.
    blend = sine.range(.2, 1).sub(.2)
mul(other:P)
    Times; the same as *.
    blend = sine.mul(.5)
div(other:P)
    Divided by; the same as /. By 0 gives 0.
    blend = sine.div(2)
mod(other:P)
    The rest of a division; the same as %.
    blend = (time / 3).mod(1)
echo(times:I cycles:T feedback:R)
    Echoes: each later, and weaker by a factor.
    noise = ".6 ~".echo(4, 1/8, .7)
pow(other:P)
    To a power; 2 bends a curve towards its low end.
    blend = sine.pow(2)
squeeze(other:P)
    Plus, with a cycle of the other squeezed into each event.
    blend = "0 .5".squeeze("0 .1 .2")
note()
    Note names as numbers: c3 is 48, c4 is 60.
    lpf = "c3 e3 g3".note.mul(20)
pick(*part:P)
    Numbers choose among the parts: 0 is the first.
    blend = "<0 1>".pick(sine, "0 1")
== several
stack(*part:P) free
    All at once; the one that began last is heard.
    noise = stack(.1, "~ .4")
cat(*part:P) free
    One after the other, a cycle each.
    blend = cat(saw, sine)
slowcat(*part:P) free
    The same as cat.
    blend = slowcat(saw, sine)
seq(*part:P) free
    One after the other in one cycle.
    blend = seq(0, .5, saw)
fastcat(*part:P) free
    The same as seq.
    blend = fastcat(0, .5, saw)
sequence(*part:P) free
    The same as seq.
    blend = sequence(0, .5, saw)
stepcat(*section:S) free
    In one cycle, by weight: [3, pattern], [1, pattern].
    blend = stepcat([3, "0 1"], [1, .5])
timecat(*section:S) free
    The same as stepcat.
    blend = timecat([3, "0 1"], [1, .5])
arrange(*section:S) free
    A form: each section for its number of cycles.
    blend = arrange([4, .2], [2, saw.slow(2)])
choose(*part:P) free lots
    One of the parts each cycle, by lot.
    blend = choose(saw, sine, .5)
polyrhythm(*part:P) free
    The same as stack.
    noise = polyrhythm(".1 .2", ".3")
mini(pattern:P) free
    Mini-notation as a value; the double quotes alone do it too.
    blend = mini("0 1")
pure(value:P) free
    A plain value.
    blend = pure(.5)
randcat(*part:P) free lots
    The same as choose.
    blend = randcat(saw, sine, .5)
run(n:I) free
    0 1 2 ... n-1 in a cycle.
    seed = run(4)
== signals
ramp(cycles:T) free
    From 0 to 1 over a number of cycles, again and again.
    blend = ramp(8)
envelope(low:P high:P cycles:T) free
    From low to high over a number of cycles, again and again.
    blend = envelope(.2, 1, 8)
irand(n:R) free lots
    Whole numbers 0 .. n-1 by lot.
    seed = irand(8).segment(1)
linvar(values:L cycles:L=4) free
    FoxDot: in straight lines through the values, each in so many cycles.
    blend = linvar([0, 1], 8)
sinvar(values:L cycles:L=4) free
    FoxDot: as linvar, in waves.
    blend = sinvar([0, 1], 8)
expvar(values:L cycles:L=4) free
    FoxDot: as linvar, slow at first.
    blend = expvar([0, 1], 8)
var(values:L cycles:L=4) free
    FoxDot: each value for so many cycles.
    blend = var([.2, .9], [6, 2])
"""
