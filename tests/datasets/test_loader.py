from __future__ import annotations

import numpy as np
import pytest

from spikeflow.datasets import Augment, DataLoader, data_subset
from spikeflow.random import permutation


def samples(count: int, height: int = 4, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """-> images whose first pixel is the index of the image, which is its label too."""
    images = np.random.default_rng(1).integers(0, 256, (count, height, width), dtype=np.uint8)
    images[:, 0, 0] = np.arange(count)
    return images, np.arange(count, dtype=np.uint8)


def epoch_labels(loader: DataLoader) -> np.ndarray:
    return np.concatenate([labels for _, labels in loader])


def test_batches():
    images, labels = samples(10)
    for batch, chosen in DataLoader(images, labels, batch_size=4):
        assert batch.shape == (4, 1, 4, 3) and batch.dtype == np.float32 and batch.flags.c_contiguous
        assert chosen.shape == (4,) and chosen.dtype == np.int64
        np.testing.assert_array_equal(batch[:, 0], images[chosen] / np.float32(255))


def test_conversion_of_every_value():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    batch, _ = next(iter(DataLoader(images, np.zeros(1, int), batch_size=1)))
    expected = np.array([np.float32(value) / np.float32(255) for value in range(256)], np.float32)
    np.testing.assert_array_equal(batch.ravel(), expected)
    assert batch.min() == 0 and batch.max() == 1


def test_images_stay_uint8_and_are_not_copied():
    images, labels = samples(10)
    loader = DataLoader(images, labels, batch_size=10, shuffle=False)
    images[:] = 255
    assert (next(iter(loader))[0] == 1).all()


def test_batches_are_apart_from_the_data():
    images, labels = np.zeros((4, 1, 2, 2), np.float32), np.zeros(4, np.int64)
    for batch, chosen in DataLoader(images, labels, batch_size=2, shuffle=False):
        batch += 1
        chosen += 1
    assert not images.any() and not labels.any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_channel_axis(dtype):
    images = np.arange(2 * 3 * 4 * 5).astype(dtype).reshape(2, 3, 4, 5)
    batch, _ = next(iter(DataLoader(images, [0, 1], batch_size=2, shuffle=False)))
    expected = images / np.float32(255) if dtype == np.uint8 else images
    assert batch.shape == (2, 3, 4, 5) and batch.dtype == np.float32
    np.testing.assert_array_equal(batch, expected.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_images_pass_unchanged(dtype):
    images = np.array([-3.5, 0.1, 1.0, 255.0], dtype).reshape(1, 2, 2)
    batch, _ = next(iter(DataLoader(images, [7], batch_size=1)))
    assert batch.dtype == np.float32 and batch.shape == (1, 1, 2, 2)
    np.testing.assert_array_equal(batch.ravel(), images.ravel().astype(np.float32))


def test_images_of_another_memory_order():
    images, labels = samples(6)
    transposed = np.asfortranarray(images)
    batch, chosen = next(iter(DataLoader(transposed, labels, batch_size=5)))
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch[:, 0], images[chosen] / np.float32(255))


@pytest.mark.parametrize(
    ("count", "batch_size", "drop_last", "sizes"),
    [
        (10, 4, True, [4, 4]),
        (10, 4, False, [4, 4, 2]),
        (8, 4, True, [4, 4]),
        (8, 4, False, [4, 4]),
        (3, 3, True, [3]),
        (3, 4, False, [3]),
        (3, 1, True, [1, 1, 1]),
    ],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_drop_last(count, batch_size, drop_last, sizes, shuffle):
    loader = DataLoader(*samples(count), batch_size=batch_size, drop_last=drop_last, shuffle=shuffle)
    seen = [labels for _, labels in loader]
    assert [len(labels) for labels in seen] == sizes
    assert len(loader) == len(sizes)
    assert loader.num_samples == count
    assert len(set(np.concatenate(seen).tolist())) == sum(sizes)


def test_defaults():
    loader = DataLoader(*samples(200))
    assert (loader.batch_size, loader.shuffle, loader.drop_last, loader.seed, loader.epoch) == (128, True, True, 0, 0)
    assert len(loader) == 1


def test_an_epoch_follows_its_order():
    loader = DataLoader(*samples(50), batch_size=8, drop_last=False, seed=3)
    for epoch in range(3):
        np.testing.assert_array_equal(epoch_labels(loader), loader.order(epoch))


def test_order_is_the_shuffle_stream():
    loader = DataLoader(*samples(50), batch_size=8, seed=3)
    np.testing.assert_array_equal(loader.order(5), permutation(50, 3, stream="shuffle", epoch=5))
    assert sorted(loader.order(5).tolist()) == list(range(50))


def test_order_depends_on_seed_and_epoch_alone():
    def loader(**options) -> DataLoader:
        return DataLoader(*samples(50), seed=options.pop("seed", 3), **{"batch_size": 8, **options})

    used = loader(batch_size=5, drop_last=False)
    for _ in range(2):
        epoch_labels(used)
    np.testing.assert_array_equal(used.order(1), loader().order(1))
    assert not np.array_equal(loader().order(0), loader().order(1))
    assert not np.array_equal(loader().order(0), loader(seed=4).order(0))
    assert not np.array_equal(loader().order(0), np.arange(50))


def test_order_is_pinned():
    """Recorded runs are repeated only if this never changes."""
    loader = DataLoader(*samples(10), batch_size=1, seed=0)
    assert loader.order(0).tolist() == [4, 0, 3, 8, 7, 1, 5, 6, 9, 2]
    assert loader.order(1).tolist() == [8, 3, 2, 0, 5, 6, 9, 7, 1, 4]


def test_without_shuffle():
    loader = DataLoader(*samples(10), batch_size=5, shuffle=False)
    for _ in range(2):
        np.testing.assert_array_equal(epoch_labels(loader), np.arange(10))
    assert loader.order(7).dtype == np.int64 and loader.epoch == 2


def test_epoch_advances_when_an_iterator_is_made():
    loader = DataLoader(*samples(20), batch_size=5)
    first = iter(loader)
    assert loader.epoch == 1
    second = iter(loader)
    assert loader.epoch == 2
    for epoch, batches in ((1, second), (0, first)):
        labels = np.concatenate([labels for _, labels in batches])
        np.testing.assert_array_equal(labels, loader.order(epoch))
    assert loader.epoch == 2


def test_epoch_left_early_is_over():
    loader = DataLoader(*samples(20), batch_size=5)
    next(iter(loader))
    np.testing.assert_array_equal(epoch_labels(loader), loader.order(1))


def test_set_epoch():
    loader = DataLoader(*samples(20), batch_size=5)
    epochs = [epoch_labels(loader) for _ in range(3)]
    resumed = DataLoader(*samples(20), batch_size=5)
    resumed.set_epoch(1)
    assert resumed.epoch == 1
    np.testing.assert_array_equal(epoch_labels(resumed), epochs[1])
    np.testing.assert_array_equal(epoch_labels(resumed), epochs[2])
    loader.epoch = 0
    np.testing.assert_array_equal(epoch_labels(loader), epochs[0])


def all_batches(batches) -> list[tuple[bytes, bytes]]:
    return [(images.tobytes(), labels.tobytes()) for images, labels in batches]


@pytest.mark.parametrize("augment", [None, Augment(shift=1, flip=True, rotate=20, cutout=2)], ids=["as they are", "augmented"])
@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_can_be_entered_at_any_batch(augment, drop_last):
    def loader() -> DataLoader:
        return DataLoader(*samples(22), batch_size=5, seed=2, drop_last=drop_last, augment=augment)

    straight = loader()
    epochs = [all_batches(straight) for _ in range(3)]
    for epoch in (0, 1):
        for start in range(len(straight) + 1):
            resumed = loader()
            resumed.set_epoch(epoch)
            assert all_batches(resumed.batches(start=start)) == epochs[epoch][start:]
            assert resumed.epoch == epoch + 1
            assert all_batches(resumed) == epochs[epoch + 1]


def test_batches_begin_a_new_epoch_at_once():
    loader = DataLoader(*samples(20), batch_size=5)
    loader.batches(2)
    assert loader.epoch == 1


@pytest.mark.parametrize(
    ("start", "error"), [(-1, ValueError), (5, ValueError), (1.0, TypeError), (True, TypeError), (None, TypeError)]
)
def test_refused_start(start, error):
    loader = DataLoader(*samples(20), batch_size=5)
    with pytest.raises(error, match="start must be"):
        loader.batches(start)
    assert loader.epoch == 0


def test_augmentation_sees_each_batch_once_with_its_key():
    seen = []

    def note(images, seed, epoch, batch):
        seen.append((images.shape, images.dtype, seed, epoch, batch))
        return images + 1

    loader = DataLoader(*samples(11), batch_size=4, drop_last=False, seed=9, augment=note)
    plain = DataLoader(*samples(11), batch_size=4, drop_last=False, seed=9)
    for _ in range(2):
        for (images, labels), (others, same) in zip(loader, plain, strict=True):
            np.testing.assert_array_equal(images, others + 1)
            np.testing.assert_array_equal(labels, same)
    assert seen == [((size, 1, 4, 3), np.float32, 9, epoch, batch) for epoch in (0, 1) for batch, size in enumerate((4, 4, 3))]


def test_an_augmented_image_is_that_of_its_batch():
    augment = Augment(shift=1, flip=True, rotate=20, cutout=2)
    images, labels = samples(12)
    augmented = DataLoader(images, labels, batch_size=4, seed=5, augment=augment)
    plain = DataLoader(images, labels, batch_size=4, seed=5)
    before = images.copy()
    for epoch in (0, 1):
        for batch, ((changed, chosen), (given, same)) in enumerate(zip(augmented, plain, strict=True)):
            np.testing.assert_array_equal(changed, augment(given, 5, epoch, batch), strict=True)
            np.testing.assert_array_equal(chosen, same)
            assert (changed != given).any()
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64])
def test_label_types(dtype):
    _, labels = next(iter(DataLoader(samples(3)[0], np.array([2, 0, 1], dtype), batch_size=3, shuffle=False)))
    assert labels.dtype == np.int64 and labels.tolist() == [2, 0, 1]


IMAGES, LABELS = samples(10)
REFUSED = {
    "batch_size zero": ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    "batch_size negative": ({"batch_size": -4}, ValueError, "batch_size must be at least 1, got -4"),
    "batch_size float": ({"batch_size": 4.0}, TypeError, "batch_size must be an integer, got 4.0"),
    "batch_size text": ({"batch_size": "4"}, TypeError, "batch_size must be an integer, got '4'"),
    "batch_size bool": ({"batch_size": True}, TypeError, "batch_size must be an integer, got True"),
    "batch_size none": ({"batch_size": None}, TypeError, "batch_size must be an integer, got None"),
    "no batch": ({"batch_size": 11}, ValueError, "batch_size must be at most .* 10, .* got 11"),
    "no samples": ({"images": IMAGES[:0], "labels": LABELS[:0]}, ValueError, "images must have at least one sample"),
    "fewer labels": ({"labels": LABELS[:9]}, ValueError, "labels must be as many as images, 10, got 9"),
    "images rank 2": ({"images": IMAGES.reshape(10, 12)}, ValueError, r"images must be .* got shape \(10, 12\)"),
    "images rank 5": ({"images": IMAGES[:, None, None]}, ValueError, r"images must be .* got shape \(10, 1, 1, 4, 3\)"),
    "images scalar": ({"images": np.uint8(3)}, ValueError, r"images must be .* got shape \(\)"),
    "images int64": ({"images": IMAGES.astype(np.int64)}, TypeError, "images must be uint8, .* got int64"),
    "images bool": ({"images": IMAGES > 9}, TypeError, "images must be uint8, .* got bool"),
    "labels float": ({"labels": LABELS.astype(float)}, TypeError, "labels must be of an integer type, got float64"),
    "labels bool": ({"labels": LABELS > 1}, TypeError, "labels must be of an integer type, got bool"),
    "labels rank 2": ({"labels": LABELS[:, None]}, ValueError, r"labels must be \(N,\), got shape \(10, 1\)"),
    "seed negative": ({"seed": -1}, ValueError, "seed must be from 0 to 18446744073709551615, got -1"),
    "seed too large": ({"seed": 2**64}, ValueError, "seed must be from 0"),
    "augment": ({"augment": True}, TypeError, "augment must be a function of images, seed, epoch and batch, or None, got True"),
    "seed float": ({"seed": 0.5}, TypeError, "seed must be an integer, got 0.5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_arguments(case):
    options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        DataLoader(**{"images": IMAGES, "labels": LABELS, "batch_size": 4, **options})


def test_numpy_integers_are_integers():
    loader = DataLoader(IMAGES, LABELS, batch_size=np.int64(4), seed=np.uint8(3))
    assert type(loader.batch_size) is int and len(loader) == 2
    np.testing.assert_array_equal(loader.order(np.int32(2)), DataLoader(IMAGES, LABELS, 4, seed=3).order(2))


@pytest.mark.parametrize(("epoch", "error"), [(-1, ValueError), (1.0, TypeError), (None, TypeError)])
def test_refused_epoch(epoch, error):
    loader = DataLoader(IMAGES, LABELS, batch_size=4)
    with pytest.raises(error, match="epoch must be"):
        loader.set_epoch(epoch)
    with pytest.raises(error, match="epoch must be"):
        loader.order(epoch)
    assert loader.epoch == 0


@pytest.mark.parametrize(("factor", "count"), [(1, 10), (2, 5), (3, 3), (4, 2), (6, 1), (10, 1)])
def test_data_subset(factor, count):
    images, labels = data_subset(IMAGES, LABELS, factor)
    np.testing.assert_array_equal(images, IMAGES[:count], strict=True)
    np.testing.assert_array_equal(labels, LABELS[:count], strict=True)


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        (0, ValueError, "factor must be from 1 to 10, got 0"),
        (-2, ValueError, "factor must be from 1 to 10, got -2"),
        (11, ValueError, "factor must be from 1 to 10, got 11"),
        (2.0, TypeError, "factor must be an integer, got 2.0"),
        (True, TypeError, "factor must be an integer, got True"),
    ],
)
def test_data_subset_refused_factor(factor, error, message):
    with pytest.raises(error, match=message):
        data_subset(IMAGES, LABELS, factor)


def test_data_subset_lengths():
    with pytest.raises(ValueError, match="labels must be as many as images, 10, got 4"):
        data_subset(IMAGES, LABELS[:4], 2)
