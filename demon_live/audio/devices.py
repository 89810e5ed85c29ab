"""Devices that play and record, through PortAudio. The only file that imports sounddevice.

sounddevice opens PortAudio when it is imported, and raises OSError on a machine without the
library; so it is imported inside functions, and the error becomes a DeviceError with the remedy.

Threads: PortAudio's calls are made by one thread at a time (the CLI's main thread, or the health
loop of the audio process); the callback runs on PortAudio's own thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal, Protocol, get_args

import numpy as np

from demon_live.audio.files import resampler
from demon_live.core import RATES, Floats
from demon_live.errors import DeviceError, UsageError, nearest

_NONE_HINT = "play without one: --audio null keeps time, --audio file:NAME.wav writes a file"


@dataclass(frozen=True, slots=True)
class Device:
    """A device, as one that plays or as one that records. api: the host API that offers it. rate:
    its own sample rate, Hz. latency_s: its safe one."""

    index: int
    name: str
    api: str
    channels: int
    rate: float
    latency_s: float
    default: bool


class Stream(Protocol):
    """What is used of sounddevice's streams."""

    @property
    def active(self) -> bool: ...

    @property
    def latency(self) -> float: ...

    def start(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Sends descriptor 2 to nowhere: there ALSA and JACK complain about absent hardware."""
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    sys.stderr.flush()
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _portaudio(fresh: bool = False) -> Any:
    """The sounddevice module. fresh: look for devices again, which ends all open streams."""
    try:
        with _quiet():
            import sounddevice

            if fresh:
                # PortAudio lists devices once, at its start; starting it again is the only way to
                # see new ones.
                sounddevice._terminate()
                sounddevice._initialize()
        return sounddevice
    except (ImportError, OSError) as error:
        remedy = {
            "linux": "apt install libportaudio2 (or dnf install portaudio)",
            "darwin": "brew install portaudio",
        }.get(sys.platform, "pip install --force-reinstall sounddevice")
        raise DeviceError(
            "PortAudio is not installed: no device can play", hint=f"{remedy}; or {_NONE_HINT}"
        ) from error
    except Exception as error:
        if type(error).__name__ != "PortAudioError":
            raise
        raise DeviceError(f"PortAudio does not start: {_reason(error)}", hint=_NONE_HINT) from error


def _reason(error: Exception) -> str:
    """The readable part of a PortAudioError."""
    return str(error.args[0]) if error.args else str(error)


Kind = Literal["output", "input"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def list_devices(kind: Kind = "output", *, fresh: bool = False) -> list[Device]:
    """All devices that can play (or record), in PortAudio's order.

    Raises DeviceError without PortAudio.
    """
    sd = _portaudio(fresh)
    apis = [str(api["name"]) for api in sd.query_hostapis()]
    default = int(sd.default.device[kind == "output"])
    if default < 0:
        defaults = (int(api[f"default_{kind}_device"]) for api in sd.query_hostapis())
        default = next((index for index in defaults if index >= 0), -1)
    return [
        Device(
            i,
            str(d["name"]),
            apis[d["hostapi"]],
            int(d[f"max_{kind}_channels"]),
            float(d["default_samplerate"]),
            float(d[f"default_high_{kind}_latency"]),
            i == default,
        )
        for i, d in enumerate(sd.query_devices())
        if d[f"max_{kind}_channels"] > 0
    ]


def _lines(devices: list[Device]) -> str:
    rows = [
        (
            f"{'*' if d.default else ' '} {d.index}",
            d.name,
            d.api,
            f"{d.channels} ch",
            f"{d.rate / 1000:g} kHz",
            f"{d.latency_s * 1000:.0f} ms",
        )
        for d in devices
    ]
    widths = [max(len(row[c]) for row in rows) for c in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def table(devices: list[Device] | None = None, inputs: list[Device] | None = None) -> str:
    """The text of `demon devices`: one line a device, `*` marks the default."""
    if devices is None:
        devices, inputs = list_devices(), list_devices("input")
    text = _lines(devices) if devices else f"no audio device\n  {_NONE_HINT}"
    if devices:
        text += "\n  * = default; choose by number or by part of the name: --device NAME"
    if inputs:
        text += (
            f"\ninputs\n{_lines(inputs)}\n  --input NAME; NAME#3 is its third channel, NAME#3,4 two"
        )
    return text


def pick(name: str | int | None = None, devices: list[Device] | None = None) -> Device:
    """The device of that number, or whose name and API contain these words; None = the default.

    Raises DeviceError that lists what there is.
    """
    devices = list_devices() if devices is None else devices
    if not devices:
        raise DeviceError("there is no audio device", hint=_NONE_HINT)
    if name is None or name == "":
        return next((d for d in devices if d.default), devices[0])
    text = str(name).strip()
    if text.isdigit():
        found = [d for d in devices if d.index == int(text)]
    else:
        words = text.lower().split()
        found = [d for d in devices if all(w in f"{d.name} {d.api}".lower() for w in words)]
        exact = [d for d in found if d.name.lower() == text.lower()]
        found = exact or found
    if len(found) > 1 and len({d.name for d in found}) == 1:
        # The same device through several APIs: the one of the default device is what the system
        # prefers.
        api = pick(None, devices).api
        found = [d for d in found if d.api == api] or found
    if len(found) == 1:
        return found[0]
    what = f"several devices match {text!r}" if found else f"no audio device matches {text!r}"
    near = nearest(text, [d.name for d in devices])
    hint = (
        "say more of the name, or its number"
        if found
        else f"did you mean {near[0]!r}?"
        if near
        else "choose one of these by its number or a part of its name"
    )
    raise DeviceError(f"{what}\n{_lines(found or devices)}", hint=hint)


class _Started:
    """A stream whose start raises DeviceError."""

    def __init__(self, stream: Stream, device: Device) -> None:
        self._stream = stream
        self._device = device

    @property
    def active(self) -> bool:
        return self._stream.active

    @property
    def latency(self) -> float:
        return float(self._stream.latency)

    def start(self) -> None:
        try:
            with _quiet():
                self._stream.start()
        except Exception as error:
            if type(error).__name__ != "PortAudioError":
                raise
            raise DeviceError(
                f"{self._device.name!r} does not start: {_reason(error)}", hint=_NONE_HINT
            ) from error

    def abort(self) -> None:
        self._stream.abort()

    def close(self) -> None:
        self._stream.close()


#: What PortAudio calls: out float32 [frames, channels], frames, times, flags.
OutputCallback = Callable[[Floats, int, Any, Any], None]


class Converted:
    """The callback of a device that runs at another rate.

    output: the callback that gives 48 kHz. begin: told of each buffer what `AudioCallback.begin`
    says.
    """

    def __init__(
        self,
        output: OutputCallback,
        rate: int,
        channels: int,
        begin: Callable[[float, float], None],
    ) -> None:
        self._begin = begin
        self._output, self._ratio, self._rate = output, RATES.sample_rate / rate, rate
        self._convert = resampler(RATES.sample_rate, channels, rate)
        self._waiting: Floats = np.zeros((0, channels), np.float32)
        self._taken = self._given = 0  # samples at 48 kHz, and at the device's rate

    def __call__(self, out: Floats, frames: int, when: Any, status: Any) -> None:
        """PortAudio's callback: fills out float32 [frames, channels]."""
        while len(self._waiting) < frames:
            n = math.ceil((frames - len(self._waiting)) * self._ratio)
            block = np.zeros((n, out.shape[1]), np.float32)
            self._output(block, n, self._later(when), status)
            self._taken += n
            self._waiting = np.concatenate((self._waiting, self._convert(block)))
        if when is not None:
            self._begin(self._ahead, when.outputBufferDacTime - when.currentTime)
        out[:] = self._waiting[:frames]
        self._waiting = self._waiting[frames:]
        self._given += frames

    @property
    def _ahead(self) -> float:
        """Seconds of sound that wait, here and in the filter."""
        return self._taken / RATES.sample_rate - self._given / self._rate

    def _later(self, when: Any) -> Any:
        """The times of what is asked for next."""
        if when is None:
            return None
        dac = when.outputBufferDacTime + self._ahead
        return SimpleNamespace(currentTime=when.currentTime, outputBufferDacTime=dac)


def drop(stream: Stream) -> None:
    """Let go of a stream, whatever its driver says. A dead driver may never return."""
    with contextlib.suppress(Exception):
        stream.abort()
        stream.close()


def open_output(
    name: str | int | None,
    callback: OutputCallback,
    latency: float | str,
    *,
    begin: Callable[[float, float], None] = lambda ahead, latency: None,
    channels: int = 2,
    fresh: bool = False,
) -> tuple[Stream, Device]:
    """A float32 stream to the device, not started, and the device at the rate it was opened with:
    48 kHz, or its own. Raises DeviceError.

    begin: see `AudioCallback`. channels: as many as are wanted; a device that has fewer is opened
    with what it has.
    """
    sd = _portaudio(fresh)
    device = pick(name, list_devices())
    count = max(2, min(channels, device.channels))
    wanted = {"device": device.index, "channels": count, "dtype": "float32"}
    rate = RATES.sample_rate
    try:
        with _quiet():
            try:
                sd.check_output_settings(samplerate=rate, **wanted)
            except sd.PortAudioError:
                rate = round(device.rate)
                callback = Converted(callback, rate, count, begin)
                sd.check_output_settings(samplerate=rate, **wanted)
            # blocksize 0: the device's own block, which is the steadiest.
            stream: Stream = sd.OutputStream(
                samplerate=rate,
                blocksize=0,
                latency=latency,
                callback=callback,
                prime_output_buffers_using_stream_callback=False,
                **wanted,
            )
        return _Started(stream, device), replace(device, rate=float(rate))
    except sd.PortAudioError as error:
        if device.channels < 2:
            why, hint = "is mono", "choose a stereo device: --device NAME"
        elif round(device.rate) != RATES.sample_rate:
            why = f"plays neither 48 kHz nor {device.rate:g} Hz: {_reason(error)}"
            hint = "set it to 48000 Hz in the system's audio settings; or try another"
        else:
            why, hint = (
                f"does not open: {_reason(error)}",
                "is another program holding it? `demon devices` lists the others",
            )
        raise DeviceError(f"{device.name!r} {why}", hint=hint) from error


def parse_input(text: str) -> tuple[str, tuple[int, ...]]:
    """`NAME`, `NAME#3` or `NAME#3,4`: part of a name, and its channels from 1; () = its first two.

    Raises UsageError.
    """
    name, mark, rest = text.partition("#")
    words = rest.split(",") if mark else []
    if len(words) > 2 or not all(w.strip().isdigit() and int(w) > 0 for w in words):
        raise UsageError(
            f"{text!r}: one or two channels can be heard, not {rest!r}",
            hint="like --input scarlett#3 or --input scarlett#3,4",
        )
    return name.strip(), tuple(int(w) for w in words)


def open_input(
    text: str, callback: Callable[[Any, int, Any, Any], None], latency: float | str = "high"
) -> tuple[Stream, Device, int]:
    """A float32 stream from the device of `parse_input`, not started, and its rate in Hz.

    It opens all channels up to the last that is wanted. Raises DeviceError, UsageError.
    """
    sd = _portaudio()
    name, chosen = parse_input(text)
    found = list_devices("input")
    if not found:
        raise DeviceError("there is no input device", hint="play a file: --input file:NAME.wav")
    device = pick(name, found)
    channels = max(chosen) if chosen else min(2, device.channels)
    if channels > device.channels:
        raise DeviceError(
            f"{device.name!r} has {device.channels} input channels, not {channels}",
            hint=f"like --input {name}#{device.channels}",
        )
    settings = {"device": device.index, "channels": channels, "dtype": "float32"}
    rate = RATES.sample_rate
    try:
        with _quiet():
            try:
                sd.check_input_settings(samplerate=rate, **settings)
            except sd.PortAudioError:
                rate = round(device.rate)
            stream: Stream = sd.InputStream(
                samplerate=rate, blocksize=0, latency=latency, callback=callback, **settings
            )
    except sd.PortAudioError as error:
        raise DeviceError(
            f"{device.name!r} does not open: {_reason(error)}",
            hint="is another program holding it? `demon devices` lists the others",
        ) from error
    return _Started(stream, device), device, rate
