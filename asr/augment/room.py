"""Reverberation: a waveform as it sounds at a microphone in a room, recorded or simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr.audio import list_recordings, load_audio
from asr.augment.bounds import checked_probability, checked_range
from asr.augment.noise import mean_power

SPEED_OF_SOUND = 343.0  # [m/s] in air at 20 degrees
EARLY_S = 0.05  # [s] after the direct sound reflections are too dense to be told apart
WALL_M = 0.3  # [m] between a wall and whoever speaks or listens
FARTHEST = 0.75  # of the smallest room's longest side less the walls: places are soon found
HIGH_PASS_HZ = 50.0  # [Hz] see `_without_offset`
MAX_ROOMS = 10_000
Position = tuple[float, float, float]  # [m] along length, width and height, from a corner
MAX_RECORDING_S = 30.0  # [s] what is longer is no impulse response


class RoomSource(Protocol):
    """Where impulse responses come from."""

    def __call__(self, sample_rate: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """Draw a response to read, `(num_taps,)` float32 at `sample_rate` [Hz], direct first."""
        ...


class Reverberation:
    """Puts some utterances into a room.

    Args:
        source: of the rooms' impulse responses.
        probability: share of the utterances that get a room.

    Raises:
        ValueError: a probability outside 0 to 1.
    """

    def __init__(self, source: RoomSource, probability: float = 1.0) -> None:
        self.source = source
        self.probability = checked_probability(probability)

    def __call__(
        self, waveform: NDArray[np.float32], sample_rate: int, generator: np.random.Generator
    ) -> NDArray[np.float32]:
        """Vary one waveform `(num_samples,)` at `sample_rate` [Hz]; length and power stay."""
        if generator.random() >= self.probability or not len(waveform):
            return waveform
        return reverberate(waveform, self.source(sample_rate, generator))


def reverberate(
    waveform: NDArray[np.float32], response: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Put a waveform into a room, no later and no louder than before.

    Args:
        waveform: `(num_samples,)`, at least one sample.
        response: `(num_taps,)`, of which the first is the direct sound.

    Returns:
        `(num_samples,)` float32, scaled to the waveform's mean power; what rings on is cut off.
    """
    result = convolve(waveform, response)
    power = mean_power(result)
    if not power:
        return result
    result *= np.float32(np.sqrt(mean_power(waveform) / power))
    return result


def convolve(waveform: NDArray[np.float32], response: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convolve causally, and cut to the waveform's length.

    Args:
        waveform: `(num_samples,)`, at least one sample.
        response: `(num_taps,)`, at least one tap.

    Returns:
        `(num_samples,)` float32.
    """
    # Imported here: half a second, and only where there are rooms.
    from scipy.signal import oaconvolve

    num_samples = len(waveform)
    result = oaconvolve(waveform, response[:num_samples])[:num_samples]
    return np.ascontiguousarray(result, dtype=np.float32)


@dataclass(frozen=True)
class Shoebox:
    """A rectangular room with one who speaks and one microphone.

    Attributes:
        size: length, width and height [m].
        source: where the sound comes from [m].
        microphone: where it is heard [m].
        rt60_s: time in which sound decays by 60 dB [s].
    """

    size: Position
    source: Position
    microphone: Position
    rt60_s: float

    @property
    def volume(self) -> float:
        """Of the air in it [m3]."""
        return float(np.prod(self.size))

    @property
    def distance(self) -> float:
        """From the source to the microphone [m]."""
        return float(np.linalg.norm(np.subtract(self.source, self.microphone)))

    @property
    def reflection(self) -> float:
        """Share of the pressure that a wall throws back, by Eyring's formula.

        RT60 = 24 ln(10) V / (c S (-ln(1 - a))) with a surface S of absorption a, 1 - a being the
        share of the energy (Eyring, "Reverberation time in dead rooms", JASA 1930).
        """
        length, width, height = self.size
        surface = 2 * (length * width + length * height + width * height)
        decay = 24 * np.log(10) * self.volume / (SPEED_OF_SOUND * surface * self.rt60_s)
        return float(np.exp(-decay / 2))


class SimulatedRooms:
    """Simulates a fixed number of rooms, of which each utterance gets one.

    A room depends on `seed` and its number alone, and is made when a process first needs it, so
    every process has the same. A response is as long as its room's RT60.

    Args:
        rooms: how many.
        size_m: smallest and largest length, width and height [m], drawn evenly.
        rt60_s: range (lowest, highest) of the reverberation time, drawn evenly [s].
        distance_m: range (lowest, highest) from the speaker to the microphone, drawn evenly [m].
        seed: of the rooms.

    Raises:
        ValueError: a range the wrong way round or absurd, or a distance that does not fit into the
            smallest room.
    """

    def __init__(
        self,
        rooms: int = 200,
        size_m: Sequence[Sequence[float]] = ((3.5, 3.0, 2.4), (10.0, 8.0, 4.0)),
        rt60_s: Sequence[float] = (0.2, 0.8),
        distance_m: Sequence[float] = (0.3, 2.0),
        seed: int = 0,
    ) -> None:
        if not 1 <= rooms <= MAX_ROOMS or seed < 0:
            raise ValueError(
                f"rooms {rooms}, seed {seed}, expected 1 to {MAX_ROOMS} rooms and no negative seed"
            )
        if len(size_m) != 2 or {len(corner) for corner in size_m} != {3}:
            raise ValueError(f"size_m {size_m}, expected the smallest and the largest of 3 lengths")
        self.sides = [
            checked_range("size_m", side, 1, 100, "m") for side in zip(*size_m, strict=True)
        ]
        self.rt60_s = checked_range("rt60_s", rt60_s, 0.05, 10, "s")
        farthest = FARTHEST * (max(low for low, _ in self.sides) - 2 * WALL_M)
        self.distance_m = checked_range("distance_m", distance_m, 0.05, farthest, "m")
        self.rooms = rooms
        self.seed = seed
        self._responses: dict[tuple[int, int], NDArray[np.float32]] = {}

    def __call__(self, sample_rate: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """Draw one response, `(num_taps,)` float32 at `sample_rate` [Hz], direct sound first."""
        key = int(generator.integers(self.rooms)), sample_rate
        if key not in self._responses:
            self._responses[key] = self.response(*key)
        return self._responses[key]

    def response(self, room: int, sample_rate: int) -> NDArray[np.float32]:
        """Make the impulse response of one room, `(num_taps,)` float32 at `sample_rate` [Hz]."""
        generator = np.random.default_rng([self.seed, room])
        return room_response(self.shoebox(generator), sample_rate, generator)

    def shoebox(self, generator: np.random.Generator) -> Shoebox:
        """Draw a room, and places in it for the speaker and the microphone."""
        lows, highs = np.transpose(self.sides)
        size = generator.uniform(lows, highs)
        rt60_s = generator.uniform(*self.rt60_s)
        distance = generator.uniform(*self.distance_m)
        while True:  # ends soon: see FARTHEST
            microphone = generator.uniform(WALL_M, size - WALL_M)
            direction = generator.standard_normal(3)
            source = microphone + distance * direction / np.linalg.norm(direction)
            if (source >= WALL_M).all() and (source <= size - WALL_M).all():
                return Shoebox(_position(size), _position(source), _position(microphone), rt60_s)


def room_response(
    room: Shoebox, sample_rate: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Make a room's impulse response, as long as its RT60.

    Args:
        room: the room.
        sample_rate: [Hz].
        generator: source of the tail's draws.

    Returns:
        `(num_taps,)` float32; the direct sound comes first and is 1.
    """
    num_taps = max(1, round(room.rt60_s * sample_rate))
    early = min(num_taps, round(EARLY_S * sample_rate))
    response = np.zeros(num_taps)
    response[:early] = image_sources(room, early, sample_rate)
    response[early:] = diffuse_tail(room, early, num_taps, sample_rate, generator)
    return _without_offset(response.astype(np.float32), sample_rate)


def image_sources(room: Shoebox, num_taps: int, sample_rate: int) -> NDArray[np.float64]:
    """Add up direct sound and reflections, each the sound of a mirrored source.

    Allen and Berkley, "Image method for efficiently simulating small-room acoustics", JASA 1979,
    equations 8 to 10, with the same reflection at all walls, the delay of the direct sound taken
    off and its amplitude made 1: an image at distance d that is mirrored k times adds
    reflection^k d_direct / d after (d - d_direct) / c, to the next sample.

    Args:
        room: the room.
        num_taps: of the response; images that arrive later are left out.
        sample_rate: [Hz].

    Returns:
        `(num_taps,)` float64.
    """
    farthest = room.distance + num_taps / sample_rate * SPEED_OF_SOUND
    square, order = np.zeros(1), np.zeros(1)
    for side, source, microphone in zip(room.size, room.source, room.microphone, strict=True):
        most = int(farthest / (2 * side)) + 1
        shift = np.arange(-most, most + 1)
        image = np.concatenate([source + 2 * shift * side, -source + 2 * shift * side])
        mirrored = np.concatenate([2 * np.abs(shift), np.abs(shift - 1) + np.abs(shift)])
        square = np.add.outer(square, np.square(image - microphone)).reshape(-1)
        order = np.add.outer(order, mirrored).reshape(-1)
    distance = np.sqrt(square)
    tap = np.rint((distance - room.distance) / SPEED_OF_SOUND * sample_rate).astype(np.int64)
    arrived = tap < num_taps
    amplitude = room.reflection ** order[arrived] * room.distance / distance[arrived]
    response = np.zeros(num_taps)
    np.add.at(response, tap[arrived], amplitude)
    return response


def diffuse_tail(
    room: Shoebox, start: int, end: int, sample_rate: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Draw what many image sources add up to: noise that decays by 60 dB in RT60.

    At the time t after the sound left, images lie at the distance c t: 4 pi c^3 t^2 / V of them a
    second, each with the energy (d_direct / (c t))^2 10^(-6 t / RT60) of what the walls leave. So
    a second has the energy 4 pi c d_direct^2 / V 10^(-6 t / RT60), the direct sound having 1.

    Args:
        room: the room.
        start: first tap, counted from the direct sound.
        end: the tap after the last.
        sample_rate: [Hz].
        generator: source of the draws.

    Returns:
        `(end - start,)` float64.
    """
    time = np.arange(start, end) / sample_rate + room.distance / SPEED_OF_SOUND
    energy = 4 * np.pi * SPEED_OF_SOUND * room.distance**2 / room.volume / sample_rate
    envelope = np.sqrt(energy) * 10 ** (-3 * time / room.rt60_s)
    tail: NDArray[np.float64] = envelope * generator.standard_normal(end - start)
    return tail


def _without_offset(response: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Put a first-order high-pass behind a response; the direct sound stays as it is.

    All images push in the same direction, so a room would raise a recording's offset by tens of
    decibels. Allen and Berkley put a high-pass behind their method for this reason.
    """
    decay = np.exp(-2 * np.pi * HIGH_PASS_HZ / sample_rate)
    filtering = -(1 - decay) * decay ** np.arange(-1.0, len(response) - 1)
    filtering[0] = 1.0
    return convolve(response, filtering.astype(np.float32))


def _position(values: NDArray[np.float64]) -> Position:
    x, y, z = values.tolist()
    return x, y, z


class RoomFiles:
    """Draws recorded impulse responses, each as often as any other.

    The loudest sample of a recording is taken for the direct sound, and what comes before it is
    cut off, so that speech stays where it is in time.

    Args:
        folder: of recordings of at most 30 s with one channel, in any format and at any rate.
        longest_s: what comes later after the direct sound is cut off [s].

    Raises:
        ValueError: a folder that is missing or has no audio, a file that is no audio, is
            too long or has several channels, whose average would be no room; no length to keep.
        OSError: a file that may not be read.
    """

    def __init__(self, folder: Path | str, longest_s: float = 2.0) -> None:
        if not 0 < longest_s <= 10:
            raise ValueError(f"longest_s {longest_s:g}, expected more than 0, at most 10")
        self.recordings = list_recordings(folder)
        self.longest_s = longest_s
        for recording in self.recordings:
            info = recording.info
            if info.num_channels != 1 or info.duration > MAX_RECORDING_S:
                raise ValueError(
                    f"{recording.path}: {info.duration:g} s in {info.num_channels} channel(s), "
                    f"expected an impulse response: one channel, at most {MAX_RECORDING_S:g} s"
                )

    def __call__(self, sample_rate: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """Draw one response, `(num_taps,)` float32 at `sample_rate` [Hz], direct sound first.

        Raises:
            ValueError: a recording of silence, or damaged beyond its header.
            OSError: a recording that has gone.
        """
        path = self.recordings[generator.integers(len(self.recordings))].path
        recorded = load_audio(path, sample_rate)
        size = np.abs(recorded)
        direct = int(size.argmax())
        if not size[direct]:
            raise ValueError(f"{path}: silence, expected an impulse response")
        # Divided, so that no level, however low, is lost on the way through a transform.
        response: NDArray[np.float32] = recorded[direct:] / size[direct]
        return response[: max(1, round(self.longest_s * sample_rate))]
