"""Simulated rooms: image sources by hand and by brute force, and the asked reverberation time."""

from __future__ import annotations

import pickle
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.augment import SimulatedRooms
from asr.augment.room import Shoebox, diffuse_tail, image_sources, room_response

RATE = 16_000  # [Hz]
SPEED = 343.0  # [m/s]
ROOM = Shoebox((5.0, 4.0, 3.0), (1.0, 1.5, 1.2), (3.4, 2.1, 1.7), rt60_s=0.4)


def reverberation_time(response: NDArray[np.float32], sample_rate: int) -> float:
    """T30 [s]: from the slope of Schroeder's backward integral between -5 and -35 dB (ISO 3382)."""
    left = np.cumsum(np.square(response[::-1].astype(np.float64)))[::-1]
    decay = 10 * np.log10(left / left[0])
    part = np.flatnonzero((decay <= -5) & (decay >= -35))
    slope, _ = np.polyfit(part / sample_rate, decay[part], 1)
    return float(-60 / slope)


def brute_force(room: Shoebox, num_taps: int, reach: int) -> NDArray[np.float64]:
    """Allen and Berkley's sum, image by image, as their equation 10 has it."""
    response = np.zeros(num_taps)
    for p, r in product(product((0, 1), repeat=3), product(range(-reach, reach + 1), repeat=3)):
        path = [
            (1 - 2 * p[axis]) * room.source[axis] + 2 * r[axis] * room.size[axis]
            - room.microphone[axis]
            for axis in range(3)
        ]  # fmt: skip
        distance = sum(side**2 for side in path) ** 0.5
        walls = sum(abs(r[axis] - p[axis]) + abs(r[axis]) for axis in range(3))
        tap = round((distance - room.distance) / SPEED * RATE)
        if tap < num_taps:
            response[tap] += room.reflection**walls * room.distance / distance
    return response


def test_first_reflections_by_hand():
    # Both at a height of 5 m in the middle of a room of 10 m, 2 m apart: the direct sound takes
    # 2 m. Two walls lie in line (paths of 8 and 12 m, for the source is 4 m from one and 6 m from
    # the other), four beside it at 5 m: paths of sqrt(2^2 + 10^2) m.
    room = Shoebox((10.0, 10.0, 10.0), (4.0, 5.0, 5.0), (6.0, 5.0, 5.0), rt60_s=1.0)
    beta = room.reflection
    expected = np.zeros(500)
    expected[0] = 1.0
    for path, count in ((10.0, 2), (104**0.5, 4)):
        expected[round((path - 2) / SPEED * RATE)] += count * beta * 2 / path
    response = image_sources(room, 390, RATE)
    np.testing.assert_allclose(response, expected[:390], atol=1e-12)
    assert (response[1:] > 0).sum() == 2


def test_image_sources_equal_brute_force():
    # 30 ms are 10.3 m, and the direct path has 2.5 m: five rooms of 3 m in each direction are more.
    response = image_sources(ROOM, 480, RATE)
    np.testing.assert_allclose(response, brute_force(ROOM, 480, reach=5), atol=1e-12)
    assert response[0] == 1.0


def test_reflection_by_hand():
    # Eyring: V 60 m3, S 94 m2; RT60 0.4 s = 24 ln(10) 60 / (343 * 94 * -ln(1 - a)), so
    # -ln(1 - a) = 0.2571 and 1 - a = 0.7733, the share of the energy: 0.8794 of the pressure.
    assert ROOM.volume == pytest.approx(60)
    assert ROOM.distance == pytest.approx(np.sqrt(2.4**2 + 0.6**2 + 0.5**2))
    assert ROOM.reflection == pytest.approx(0.8794, abs=1e-4)


@pytest.mark.parametrize("rt60_s", [0.2, 0.3, 0.5, 0.8, 1.5])
def test_rooms_ring_as_long_as_asked(rt60_s):
    rooms = SimulatedRooms(rooms=20, rt60_s=[rt60_s, rt60_s])
    times = [reverberation_time(rooms.response(room, RATE), RATE) for room in range(20)]
    np.testing.assert_allclose(times, rt60_s, rtol=0.2)
    assert np.median(times) == pytest.approx(rt60_s, rel=0.05)


def test_the_tail_goes_on_where_image_sources_would():
    # Rooms near to a cube, for which the diffuse field holds, from 50 to 100 ms.
    for seed in range(5):
        generator = np.random.default_rng(seed)
        size = generator.uniform(4.0, 5.0, 3)
        places = generator.uniform(0.3, 0.7, (2, 3)) * size
        room = Shoebox(tuple(size), tuple(places[0]), tuple(places[1]), rt60_s=0.5)
        start, end = RATE // 20, RATE // 10
        images = image_sources(room, end, RATE)[start:]
        tail = diffuse_tail(room, start, end, RATE, generator)
        ratio = np.square(images - images.mean()).sum() / np.square(tail).sum()
        assert 10 * np.log10(ratio) == pytest.approx(0, abs=2)


def test_the_direct_sound_comes_first_and_is_one():
    rooms = SimulatedRooms(rooms=50)
    for room in range(50):
        response = rooms.response(room, RATE)
        assert response.dtype == np.float32
        assert np.isfinite(response).all()
        assert 0.2 * RATE - 1 <= len(response) <= 0.8 * RATE + 1
        assert response[0] == pytest.approx(1, abs=1e-5)
        assert np.abs(response).argmax() == 0


def test_a_room_does_not_raise_an_offset():
    for rt60_s in (0.2, 0.8):
        room = Shoebox(ROOM.size, ROOM.source, ROOM.microphone, rt60_s)
        response = room_response(room, RATE, np.random.default_rng(0))
        # The images alone add up to tens of direct sounds.
        assert image_sources(room, 800, RATE).sum() > 10
        assert abs(response.sum()) < 1


def test_places_keep_to_room_and_distance():
    rooms = SimulatedRooms(size_m=[[3.5, 3, 2.4], [10, 8, 4]], distance_m=[0.5, 1.5])
    drawn = [rooms.shoebox(np.random.default_rng(seed)) for seed in range(300)]
    sizes = np.array([room.size for room in drawn])
    assert (sizes >= [3.5, 3, 2.4]).all()
    assert (sizes <= [10, 8, 4]).all()
    for place in ("source", "microphone"):
        places = np.array([getattr(room, place) for room in drawn])
        assert (places >= 0.3).all()
        assert (places <= sizes - 0.3).all()
    for values, low, high in (
        ([room.distance for room in drawn], 0.5, 1.5),
        ([room.rt60_s for room in drawn], 0.2, 0.8),
        (sizes[:, 0], 3.5, 10.0),
    ):
        counts, _ = np.histogram(values, bins=3, range=(low - 1e-9, high + 1e-9))
        assert (np.abs(counts - 100) < 33).all()  # evenly, give or take four deviations


def test_the_farthest_places_of_the_smallest_room_are_found():
    rooms = SimulatedRooms(rooms=30, size_m=[[2, 2, 2], [2, 2, 2]], distance_m=[1.04, 1.04])
    for room in range(30):
        assert len(rooms.response(room, 8_000))


def test_the_same_rooms_in_every_process_and_order():
    first = SimulatedRooms(rooms=5)
    there = [first(RATE, np.random.default_rng(seed)) for seed in range(30)]
    second = pickle.loads(pickle.dumps(SimulatedRooms(rooms=5)))
    for seed in reversed(range(30)):
        np.testing.assert_array_equal(second(RATE, np.random.default_rng(seed)), there[seed])
    assert len({response.tobytes() for response in there}) == 5
    other = SimulatedRooms(rooms=5, seed=1).response(0, RATE)
    assert not any(np.array_equal(other, response) for response in there)


@pytest.mark.parametrize("sample_rate", [1_000, 8_000, 48_000])
def test_other_sample_rates(sample_rate):
    response = SimulatedRooms(rt60_s=[0.4, 0.4]).response(3, sample_rate)
    assert len(response) == pytest.approx(0.4 * sample_rate, abs=1)
    assert reverberation_time(response, sample_rate) == pytest.approx(0.4, rel=0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rooms": 0}, "rooms 0, seed 0, expected 1 to 10000 rooms"),
        ({"seed": -1}, "seed -1, expected .* no negative seed"),
        ({"size_m": [[3, 3, 3]]}, "size_m .* expected the smallest and the largest"),
        ({"size_m": [[3, 3], [4, 4]]}, "size_m .* expected the smallest and the largest"),
        ({"size_m": [[3, 3, 3], [4, 2, 4]]}, r"size_m \[3, 2\], expected \[lowest, highest\]"),
        ({"rt60_s": [0.0, 0.5]}, r"rt60_s \[0.0, 0.5\], expected .* within 0.05 to 10 s"),
        ({"distance_m": [0.3, 3.0]}, r"distance_m \[0.3, 3.0\], expected .* to 2.175 m"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        SimulatedRooms(**settings)
