"""Random changes of images: each against a formula of its own, and their draws."""

import dataclasses
import math

import numpy as np
import pytest

import spikeflow as sf
from spikeflow.datasets import Augment
from spikeflow.datasets.augmentation import Moves, move

B = 6


def some_images(channels=1, height=28, width=28, count=B):
    return np.random.default_rng(3).random((count, channels, height, width), dtype=np.float32)


def moves(count=B, **changed):
    still = {"shifts": np.zeros((count, 2), int), "flips": np.zeros(count, bool), "angles": np.zeros(count)}
    return Moves(**{**still, "corners": np.zeros((count, 2), int), "side": 0, **changed})


def by_formula(image, shift, flip, angle, corner, side):
    """One image (H, W), in float64, pixel by pixel from the four neighbours of its place in the source."""
    H, W = image.shape
    source = image[:, ::-1] if flip else image
    turn = math.radians(angle)
    out = np.zeros((H, W))
    for y in range(H):
        for x in range(W):
            # The place as a complex number, real part to the right and imaginary part up, turned back by the angle.
            place = complex(x - shift[1] - (W - 1) / 2, -(y - shift[0] - (H - 1) / 2)) * complex(math.cos(turn), -math.sin(turn))
            Y, X = (H - 1) / 2 - place.imag, place.real + (W - 1) / 2
            for i in (math.floor(Y), math.floor(Y) + 1):
                for j in (math.floor(X), math.floor(X) + 1):
                    if 0 <= i < H and 0 <= j < W:
                        out[y, x] += (1 - abs(Y - i)) * (1 - abs(X - j)) * source[i, j]
            if corner[0] <= y < corner[0] + side and corner[1] <= x < corner[1] + side:
                out[y, x] = 0
    return out


def test_standing_still_is_the_identity_to_the_bit():
    images = some_images(channels=2, height=7, width=10)
    result = move(images, moves())
    np.testing.assert_array_equal(result, images, strict=True)
    assert result is not images and result.flags.c_contiguous


@pytest.mark.parametrize("quarters", [-1, 1, 2, 3])
def test_right_angles_are_numpys(quarters):
    images = some_images(channels=2)
    turned = move(images, moves(angles=np.full(B, 90.0 * quarters)))
    np.testing.assert_allclose(turned, np.rot90(images, quarters, axes=(2, 3)), rtol=0, atol=1e-5)


def test_a_flip_is_numpys_to_the_bit():
    images = some_images(channels=2, height=5, width=8)
    flips = np.arange(B) % 2 == 1
    flipped = move(images, moves(flips=flips))
    np.testing.assert_array_equal(flipped[flips], images[flips][..., ::-1])
    np.testing.assert_array_equal(flipped[~flips], images[~flips])


@pytest.mark.parametrize("down, right", [(0, 0), (2, -3), (-1, 4), (5, 8), (-9, 1)])
def test_a_shift_fills_with_zeros(down, right):
    images = some_images(height=6, width=9) + 1
    shifted = move(images, moves(shifts=np.tile([down, right], (B, 1))))
    expected = np.zeros_like(images)
    for y in range(6):
        for x in range(9):
            if 0 <= y - down < 6 and 0 <= x - right < 9:
                expected[:, :, y, x] = images[:, :, y - down, x - right]
    np.testing.assert_array_equal(shifted, expected)


@pytest.mark.parametrize("corner", [(3, 4), (-2, -1), (26, 0), (40, 40), (-8, 3)])
def test_a_cutout_is_a_square_of_zeros_within_the_image(corner):
    images = some_images(channels=3) + 1
    cut = move(images, moves(corners=np.tile(corner, (B, 1)), side=8))
    gone = np.zeros((28, 28), bool)
    top, left = (slice(max(k, 0), max(k + 8, 0)) for k in corner)
    gone[top, left] = True
    assert not cut[:, :, gone].any()
    np.testing.assert_array_equal(cut[:, :, ~gone], images[:, :, ~gone])


@pytest.mark.parametrize("height, width", [(28, 28), (9, 6)])
def test_all_at_once_is_the_formula_pixel_by_pixel(height, width):
    images, rng = some_images(channels=2, height=height, width=width), np.random.default_rng(8)
    given = moves(
        shifts=rng.integers(-3, 4, (B, 2)), flips=np.arange(B) % 2 == 1, angles=rng.uniform(-180, 180, B),
        corners=rng.integers(-2, 8, (B, 2)), side=3,
    )  # fmt: skip
    result = move(images, given)
    for b in range(B):
        for c in range(2):
            expected = by_formula(images[b, c], given.shifts[b], given.flips[b], given.angles[b], given.corners[b], 3)
            np.testing.assert_allclose(result[b, c], expected, rtol=0, atol=2e-6)


def test_a_rotation_out_of_the_frame_leaves_zeros():
    turned = move(np.ones((1, 1, 28, 28), np.float32), moves(1, angles=np.array([45.0])))[0, 0]
    assert not turned[:4, :4].any() and (turned[10:18, 10:18] > 0.999).all()
    assert ((turned >= 0) & (turned <= 1.000001)).all()


def test_images_of_another_memory_order():
    images = some_images(channels=2)
    given = moves(angles=np.full(B, 20.0))
    np.testing.assert_array_equal(move(np.asfortranarray(images), given), move(images, given))


EVERYTHING = Augment(shift=2, flip=True, rotate=10, cutout=8)


def test_the_same_key_gives_the_same_images_on_any_number_of_threads():
    images, before = some_images(), sf.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            sf.set_num_threads(threads)
            results.append(EVERYTHING(images, seed=4, epoch=2, batch=7).tobytes())
    finally:
        sf.set_num_threads(before)
    assert len(set(results)) == 1
    np.testing.assert_array_equal(images, some_images())


def test_seeds_epochs_batches_and_places_differ():
    images = np.repeat(some_images(count=1), 4, axis=0)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    results = [image.tobytes() for key in keys for image in EVERYTHING(images, *key)]
    assert len(set(results)) == 16


def test_what_is_left_out_does_not_change_the_rest():
    everything, alone = (augment.draw(500, 28, 28, 1, 2, 3) for augment in (EVERYTHING, Augment(rotate=10)))
    np.testing.assert_array_equal(everything.angles, alone.angles)
    assert not alone.shifts.any() and not alone.flips.any() and alone.side == 0
    images = some_images()
    np.testing.assert_array_equal(Augment()(images, seed=0), images)


PINNED = {
    "shifts": [[0, -2], [1, -1], [2, 2]],
    "flips": [True, False, True],
    "angles": [-0.9575883623368631, 8.762435999722358, 6.828648459631137],
    "corners": [[8, 10], [15, 4], [2, 9]],
}


def test_draws_are_pinned():
    """Recorded runs are repeated only if this never changes."""
    found = EVERYTHING.draw(3, 28, 28, seed=0, epoch=1, batch=2)
    assert found.shifts.tolist() == PINNED["shifts"] and found.flips.tolist() == PINNED["flips"]
    np.testing.assert_allclose(found.angles, PINNED["angles"], rtol=1e-12)
    assert found.corners.tolist() == PINNED["corners"]


def test_draws_are_uniform():
    N = 20_000
    found = Augment(shift=2, flip=True, rotate=30, cutout=7).draw(N, 11, 28, seed=5)

    def check(values, possible):
        """Each possible value as often as any other, within six standard deviations."""
        counts = [np.count_nonzero(values == value) for value in possible]
        assert sum(counts) == N
        share = 1 / len(counts)
        np.testing.assert_allclose(counts, N * share, rtol=0, atol=6 * math.sqrt(N * share * (1 - share)))

    check(found.shifts[:, 0], range(-2, 3))
    check(found.shifts[:, 1], range(-2, 3))
    check(found.flips, [False, True])
    check(np.floor(found.angles / 10), range(-3, 3))
    check(found.corners[:, 0] + 3, range(11))
    check(found.corners[:, 1] + 3, range(28))
    draws = np.column_stack([found.shifts, found.flips, found.angles, found.corners])
    assert np.abs(np.corrcoef(draws, rowvar=False) - np.eye(6)).max() < 6 / math.sqrt(N)


def test_an_augmentation_is_its_fields():
    assert dataclasses.asdict(Augment(shift=np.int64(2), rotate=10)) == {"shift": 2, "flip": False, "rotate": 10.0, "cutout": 0}
    assert Augment(**dataclasses.asdict(EVERYTHING)) == EVERYTHING


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"shift": -1}, ValueError, "shift must be at least 0, got -1"),
        ({"shift": 1.5}, TypeError, "shift must be a whole number of pixels, got 1.5"),
        ({"shift": True}, TypeError, "shift must be a whole number of pixels, got True"),
        ({"cutout": "8"}, TypeError, "cutout must be a whole number of pixels, got '8'"),
        ({"cutout": -8}, ValueError, "cutout must be at least 0"),
        ({"flip": 1}, TypeError, "flip must be true or false, got 1"),
        ({"rotate": -10}, ValueError, "rotate must be from 0 to 180 degrees, got -10"),
        ({"rotate": 181}, ValueError, "rotate must be from 0 to 180"),
        ({"rotate": math.nan}, ValueError, "rotate must be from 0 to 180 degrees, got nan"),
        ({"rotate": None}, TypeError, "rotate must be a number of degrees, got None"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_refused_options(options, error, message):
    with pytest.raises(error, match=message):
        Augment(**options)


@pytest.mark.parametrize(
    "images, error, message",
    [
        (some_images().astype(np.float64), TypeError, "images must be a float32 array, got float64"),
        (some_images().tolist(), TypeError, "images must be a float32 array, got list"),
        (some_images()[:, 0], ValueError, r"images must be \(B, C, H, W\), got shape \(6, 28, 28\)"),
        (some_images(height=2), ValueError, "shift 2 is too large for images of 2 x 28 pixels"),
        (some_images(width=4), ValueError, "cutout 8 is too large for images of 28 x 4 pixels"),
    ],
    ids=["float64", "list", "rank 3", "shift", "cutout"],
)
def test_refused_images(images, error, message):
    with pytest.raises(error, match=message):
        EVERYTHING(images, seed=0)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"shifts": np.zeros((B, 3), int)}, r"moves.shifts must have shape \(6, 2\), got \(6, 3\)"),
        ({"flips": np.zeros(B - 1, bool)}, r"moves.flips must have shape \(6,\), got \(5,\)"),
        ({"angles": np.full(B, math.inf)}, "moves.angles must be finite, got inf"),
    ],
    ids=["shifts", "flips", "angles"],
)
def test_refused_moves(changed, message):
    with pytest.raises(ValueError, match=message):
        move(some_images(), moves(**changed))
