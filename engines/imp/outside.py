"""An outside ear for Frechet distances: musicnn (Pons, Serra 2019; ISC; learnt from MagnaTagATune).

    pip download --no-deps musicnn==0.1.0 && unzip musicnn-0.1.0-*.whl -d FOLDER
    python -m engines.imp.outside FOLDER/musicnn/MTT_musicnn --out musicnn.npz

The package needs an old TensorFlow; its checkpoint needs nothing: it is read here with numpy (the
index of a tensor bundle is an uncompressed table of sorted keys) and run in torch. Not compared bit
for bit with TensorFlow. The embedding is the layer before the tags: 200 numbers for each 3 s.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.imp.training import say

Floats = npt.NDArray[np.float32]
RATE, FFT, HOP, MELS, PATCH = 16_000, 512, 256, 96, 187


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A little-endian base-128 number and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def message(data: bytes) -> dict[int, list[int | bytes]]:
    """Fields of a protocol buffer message, by number."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def block(data: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of every entry of a block of the table."""
    offset, at = varint(handle, 0)
    size, _ = varint(handle, at)
    if data[offset + size] != 0:
        raise ValueError("a compressed block")
    body = data[offset : offset + size]
    (restarts,) = struct.unpack("<I", body[-4:])
    end, at, key = len(body) - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = varint(body, at)
        fresh, at = varint(body, at)
        length, at = varint(body, at)
        key = key[:shared] + body[at : at + fresh]
        at += fresh
        yield key, body[at : at + length]
        at += length


def checkpoint(folder: Path) -> dict[str, Floats]:
    """float32 tensors of a TensorFlow checkpoint, without the optimiser's."""
    index = (folder / ".index").read_bytes()
    data = (folder / ".data-00000-of-00001").read_bytes()
    foot, at = index[-48:], 0
    for _ in range(2):
        _, at = varint(foot, at)
    tensors = {}
    for _, handle in block(index, foot[at:]):
        for key, value in block(index, handle):
            entry = message(value) if key else {}
            if entry.get(1) != [1] or b"Adam" in key:
                continue
            shape_field = entry.get(2, [b""])[0]
            assert isinstance(shape_field, bytes)
            shape = []
            for dimension in message(shape_field).get(2, []):
                assert isinstance(dimension, bytes)
                shape.append(int(message(dimension).get(1, [0])[0]))
            offset, size = int(entry.get(4, [0])[0]), int(entry[5][0])
            tensors[key.decode()] = np.frombuffer(data[offset : offset + size], "<f4").reshape(
                shape
            )
    return tensors


def mel_filters() -> Floats:
    """Slaney's mel filters, equal areas, [96, 257]."""

    def mel(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        log = 15 + 27 * np.log(np.maximum(hz, 1e-9) / 1000) / np.log(6.4)
        return np.where(hz < 1000, hz * 3 / 200, log)

    def hertz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))

    f = np.fft.rfftfreq(FFT, 1 / RATE)
    edges = hertz(np.linspace(0, mel(np.array(RATE / 2.0)), MELS + 2))
    ramp, width = edges[:, None] - f[None], np.diff(edges)
    rise, fall = -ramp[:-2] / width[:-1, None], ramp[2:] / width[1:, None]
    filters = np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return filters.astype(np.float32)


class Outside:
    """musicnn, in torch."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        stored = np.load(path)
        self.w = {k: torch.from_numpy(stored[k].astype(np.float32)).to(device) for k in stored}
        self.mel = torch.from_numpy(mel_filters()).to(device)
        self.window = torch.hann_window(FFT, device=device)

    def norm(self, x: Tensor, i: int) -> Tensor:
        """The i-th batch normalisation, along axis 1."""
        name = "batch_normalization" + (f"_{i}" if i else "")
        shape = [1, -1] + [1] * (x.ndim - 2)
        mean, variance, gain, shift = (
            self.w[f"{name}/{k}"].view(shape)
            for k in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * gain + shift

    def conv(self, x: Tensor, i: int, pad: tuple[int, int, int, int]) -> Tensor:
        """The i-th convolution and its ReLU."""
        name = "conv2d" + (f"_{i}" if i else "")
        kernel = self.w[f"{name}/kernel"].permute(3, 2, 0, 1)
        return F.relu(F.conv2d(F.pad(x, pad), kernel, self.w[f"{name}/bias"]))

    @torch.no_grad()
    def __call__(self, loop: Tensor) -> Tensor:
        """A loop [2, n] at 48 kHz, gone round to 9 s -> mean embedding [200]."""
        n = torch.arange(max(9 * 48_000, loop.shape[1]), device=loop.device) % loop.shape[1]
        mono = loop.mean(0)[n]
        spectrum = torch.fft.rfft(mono)[: len(mono) // 6 + 1]
        mono = torch.fft.irfft(spectrum, len(mono) // 3) / 3
        s = torch.stft(mono, FFT, HOP, window=self.window, pad_mode="constant", return_complex=True)
        x = torch.log10(10_000 * (self.mel @ s.abs().square()).T + 1)
        x = x[: len(x) // PATCH * PATCH].view(-1, 1, PATCH, MELS)
        x = self.norm(x, 0)
        front = [self.norm(self.conv(x, i, (0, 0, 3, 3)), i + 1).amax(3) for i in (0, 1)]
        front += [
            self.norm(self.conv(x, i, (0, 0, (k - 1) // 2, k // 2)), i + 1).amax(3)
            for i, k in ((2, 128), (3, 64), (4, 32))
        ]
        parts = [torch.cat(front, 1)]
        y = parts[0]
        for i in (5, 6, 7):
            z = self.norm(self.conv(y.transpose(1, 2)[:, None], i, (0, 0, 3, 3)), i + 1).squeeze(3)
            y = z if i == 5 else z + y
            parts.append(y)
        every = torch.cat(parts, 1)
        pooled = self.norm(torch.stack([every.amax(2), every.mean(2)], 2).flatten(1), 9)
        hidden = F.relu(pooled @ self.w["dense/kernel"] + self.w["dense/bias"])
        return self.norm(hidden, 10).mean(0)


def main() -> None:
    """Write the checkpoint's tensors as float16 npz."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="MTT_musicnn of the unpacked package")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tensors = checkpoint(options.folder)
    np.savez_compressed(options.out, **{k: v.astype(np.float16) for k, v in tensors.items()})  # type: ignore[arg-type]
    say(f"{len(tensors)} tensors, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
