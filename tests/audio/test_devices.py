"""Devices with a PortAudio that is missing, empty, or ours."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from demon_live.audio.devices import Device, list_devices, open_output, pick, table
from demon_live.errors import DeviceError


class PortAudioError(Exception):
    pass


def device(
    index: int,
    name: str,
    api: str = "ALSA",
    channels: int = 2,
    rate: float = 48000.0,
    default: bool = False,
) -> Device:
    return Device(index, name, api, channels, rate, 0.03, default)


THREE = [
    device(0, "HDA Intel: ALC257 (hw:0,0)"),
    device(3, "pulse", default=True),
    device(5, "Scarlett 2i2 USB"),
    device(7, "Scarlett 2i2 USB", "JACK"),
]


def fake(devices: list[dict[str, Any]], refuse: str | None = None) -> Any:
    """A sounddevice module with these devices."""

    def check(**kwargs: Any) -> None:
        if refuse:
            raise PortAudioError(refuse, -9997)

    return SimpleNamespace(
        PortAudioError=PortAudioError,
        query_hostapis=lambda: [
            {"name": "ALSA", "default_output_device": 1 if len(devices) > 1 else -1}
        ],
        query_devices=lambda: devices,
        default=SimpleNamespace(device=[-1, -1]),
        check_output_settings=check,
        OutputStream=lambda **kwargs: SimpleNamespace(**kwargs | {"latency": 0.02}),
    )


def entry(name: str, channels: int = 2, rate: float = 48000.0) -> dict[str, Any]:
    return {
        "name": name,
        "hostapi": 0,
        "max_output_channels": channels,
        "default_samplerate": rate,
        "default_high_output_latency": 0.04,
    }


def test_by_number_by_part_by_default() -> None:
    assert pick(None, THREE).name == "pulse"
    assert pick("5", THREE).index == 5
    assert pick(7, THREE).api == "JACK"
    assert pick("alc257", THREE).index == 0
    assert pick("usb scarlett", THREE).index == 5  # through the API of the default device
    assert pick("scarlett jack", THREE).index == 7
    assert pick("PULSE", THREE).index == 3


def test_several_or_none_are_listed() -> None:
    two = [device(0, "USB one"), device(1, "USB two")]
    with pytest.raises(DeviceError, match="several") as caught:
        pick("usb", two)
    assert "USB one" in caught.value.message
    assert "USB two" in caught.value.message
    with pytest.raises(DeviceError, match="no audio device matches 'puls2'") as caught:
        pick("puls2", THREE)
    assert "did you mean 'pulse'" in (caught.value.hint or "")
    with pytest.raises(DeviceError, match="no audio device matches '9'"):
        pick("9", THREE)
    with pytest.raises(DeviceError, match="there is no audio device") as caught:
        pick(None, [])
    assert "--audio null" in (caught.value.hint or "")


def test_table() -> None:
    lines = table(THREE).splitlines()
    assert lines[1].startswith("* 3")
    assert "pulse" in lines[1]
    assert "48 kHz" in lines[1]
    assert "no audio device" in table([])


def test_without_portaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(DeviceError, match="PortAudio is not installed") as caught:
        list_devices()
    assert "--audio null" in (caught.value.hint or "")
    if sys.platform == "linux":
        assert "apt install libportaudio2" in (caught.value.hint or "")


def test_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "sounddevice", fake([entry("mic", 0), entry("pulse"), entry("hdmi", 8, 44100)])
    )
    assert [(d.index, d.name, d.default) for d in list_devices()] == [
        (1, "pulse", True),
        (2, "hdmi", False),
    ]


@pytest.mark.parametrize(
    ("entries", "name", "why", "hint"),
    [
        (
            [entry("x"), entry("hdmi", 2, 44100)],
            "hdmi",
            "plays neither 48 kHz nor 44100 Hz: Device unavailable",
            "48000 Hz",
        ),
        ([entry("x"), entry("speaker", 1)], "speaker", "is mono", "stereo"),
        (
            [entry("x"), entry("busy")],
            "busy",
            "does not open: Device unavailable",
            "another program",
        ),
    ],
)
def test_refusals_have_remedies(
    monkeypatch: pytest.MonkeyPatch, entries: list[dict[str, Any]], name: str, why: str, hint: str
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake(entries, "Device unavailable"))
    with pytest.raises(DeviceError, match=why) as caught:
        open_output(name, lambda *a: None, "high")
    assert hint in (caught.value.hint or "")


def test_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake([entry("x"), entry("pulse")]))
    stream, found = open_output("pulse", lambda *a: None, "high")
    assert found.name == "pulse"
    assert stream.latency == 0.02
