"""Losses and metrics of one small record, as snnTorch 1.0, SpikingJelly 2.0 and PyTorch 2.13 compute them."""

from __future__ import annotations

import numpy as np
import pytest

from spikeflow import losses, metrics
from spikeflow.losses import (
    ce_count_loss,
    ce_max_membrane_loss,
    ce_membrane_loss,
    ce_rate_loss,
    ce_temporal_loss,
    l1_rate_sparsity,
    mse_count_loss,
    mse_membrane_loss,
    mse_rate_loss,
    mse_temporal_loss,
    tet_loss,
)

T, B, C = 5, 4, 6
t, b, c = np.ogrid[:T, :B, :C]
SPIKES = ((3 * t + 5 * b + 7 * c + t * b * c) % 4 == 0) * 1.0
SPIKES[:, 1, 2] = 0
MEMBRANE = np.sin(1 + 0.7 * t + 1.3 * b + 2.1 * c + 0.3 * t * c)
PROBE = np.cos(np.arange(T * B * C)).reshape(T, B, C)
LABELS = np.array([0, 2, 1, 2])
TARGETS = {
    None: None,
    "labels": LABELS,
    "membranes": np.cos(0.4 * t + 0.9 * b + 1.7 * c),
    "spike times": ((2 * b + 3 * c) % 7 - 2)[0],
}
W3, W6 = [1, 0.5, 2], [1, 0.5, 2, 0, 3, 1.5]
GROUPS = {"population_code": True, "num_classes": 3}

# (loss, its value, the sum of its gradient times PROBE)
SNNTORCH = [  # its accumulators in float64
    (ce_rate_loss(), 2.0300704871821282, -0.01827220121460858),
    (ce_rate_loss(reduction="sum"), 8.120281948728513, -0.07308880485843432),
    (ce_count_loss(), 3.2926355932921947, 0.022872513279333442),
    (ce_count_loss(reduction="sum"), 13.170542373168779, 0.09149005311733377),
    (ce_max_membrane_loss(), 1.6801290051958089, 0.13274051663128594),
    (ce_max_membrane_loss(reduction="sum"), 6.7205160207832355, 0.5309620665251438),
    (mse_count_loss(), 1.4416666666666667, -0.00765575803013388),
    (mse_count_loss(correct_rate=0.75, incorrect_rate=0.3), 0.5916666666666667, -0.006838233323759952),
    (mse_count_loss(reduction="sum"), 34.6, -0.18373819272321212),
    (mse_membrane_loss(), 0.6200654559965516, 0.024364453055147322),
    (mse_membrane_loss(reduction="sum"), 14.881570943917236, 0.5847468733235358),
    (ce_temporal_loss(), 3.320460141084757, 0.3845397700803196),
    (ce_temporal_loss(inverse="reciprocal"), 1.9294511736097597, -0.19099533932405252),
    (ce_temporal_loss(weight=W6), 3.6868887161827386, 0.4283017119376932),
    (mse_temporal_loss(target_is_time=True), 0.135, -0.002970895289671386),
    (l1_rate_sparsity(1e-2), 0.41, 0.006243103366315034),
]
SNNTORCH_FLOAT32 = [  # its counts of a population and its targets of labels are float32
    (mse_membrane_loss(on_target=0.9, off_target=0.2), 0.6425926640327283, 0.023405688367394428),
    (ce_count_loss(**GROUPS), 1.3026564121246338, -0.017196844304081096),
    (mse_count_loss(0.75, 0.3, **GROUPS), 1.1833332777023315, -0.1159758793788266),
    (mse_temporal_loss(on_target=1, off_target=3), 0.15666667908430146, 0.01402368669987906),
    (mse_temporal_loss(on_target=1, off_target=4, tolerance=2), 0.2866666756570341, 0.007116316699822793),
    (mse_temporal_loss(on_target=1, off_target=4, reduction="sum"), 7.120000240802768, 0.27194320443766334),
]
SPIKINGJELLY = [  # its functional loss, and the loss of its Fashion-MNIST example
    (tet_loss(), 1.8510424164481296, 0.014214065953190615),
    (tet_loss(inputs="spikes"), 2.0300704871821287, -0.018272201214608583),
    (mse_rate_loss(), 0.2883333333333334, -0.0015311516060267788),
]
TORCH = [  # from torch.nn.functional and sums, where snnTorch is wrong or has no such loss
    (ce_rate_loss(weight=W6), 2.107342602259094, -0.03910632037524102),
    (ce_rate_loss(weight=W6, reduction="sum"), 11.590384312425016, -0.2150847620638255),
    (ce_rate_loss(**GROUPS), 1.1232673906992499, -0.0184057590339088),
    (ce_rate_loss(weight=W3, **GROUPS), 1.1336122241113513, 0.0192984508486096),
    (ce_count_loss(weight=W6), 4.00565548810305, -0.08968054388060265),
    (ce_membrane_loss(), 9.255212082240648, 0.07107032976595298),
    (ce_membrane_loss(weight=W6), 9.585996770327768, -0.06548346001484961),
    (ce_max_membrane_loss(weight=W6), 1.6840011918241244, 0.1696070107853754),
    (mse_count_loss(weight=W6), 1.7757575757575759, -0.05277577218753992),
    (mse_membrane_loss(weight=W6), 0.6454154605310489, 0.015189382376804887),
    (mse_membrane_loss(off_target=-0.5), 0.7897934322969707, 0.02769658969648226),
    (mse_membrane_loss(time_var_targets=True), 0.9857855587458455, -0.018120744239668734),
    (mse_rate_loss(0.75, 0.3), 0.12208333333333332, -0.0025952088421972623),
    (mse_rate_loss(reduction="sum"), 6.920000000000001, -0.03674763854464269),
    (mse_rate_loss(weight=W6), 0.3551515151515152, -0.010555154437507985),
    (mse_rate_loss(**GROUPS), 0.22416666666666665, -0.008313900445819741),
    (tet_loss(0.05), 1.8350207707955088, 0.014388371644154886),
    (tet_loss(0.3, 0.5, reduction="sum"), 10.720411134834254, 0.2046992992286616),
    (tet_loss(0.3, 0.5, weight=W6, label_smoothing=0.1), 1.5767326088195692, -7.410230246177735e-05),
    (ce_rate_loss(label_smoothing=0.1), 2.0159038205154625, -0.017670190130111597),
    (ce_rate_loss(weight=W6, label_smoothing=0.1), 2.0849788135175125, -0.03633318810774326),
    (ce_rate_loss(weight=W6, reduction="sum", label_smoothing=0.1), 11.467383474346317, -0.19983253459258815),
    (ce_count_loss(weight=W3, label_smoothing=0.2, **GROUPS), 1.5396638410473809, 0.14992273258048222),
    (ce_membrane_loss(weight=W6, label_smoothing=0.3), 9.662977420561365, -0.015648166316718587),
    (ce_max_membrane_loss(weight=W6, label_smoothing=0.9), 1.7374918883204071, 0.10941628004776544),
    (ce_temporal_loss(weight=W6, label_smoothing=0.1), 3.5674565855181384, 0.39281924932622336),
]
NUMBERS = [(*row, 1e-12) for row in SNNTORCH + SPIKINGJELLY + TORCH] + [(*row, 2e-7) for row in SNNTORCH_FLOAT32]


@pytest.mark.parametrize("loss_fn, value, projection, rel", NUMBERS, ids=lambda value: repr(value)[:80])
def test_value_and_gradient(loss_fn, value, projection, rel):
    loss, dspikes, dmembrane = loss_fn.evaluate(SPIKES, MEMBRANE, TARGETS[loss_fn.target_kind])
    assert loss == pytest.approx(value, rel=rel)
    assert np.sum((dmembrane if dspikes is None else dspikes) * PROBE) == pytest.approx(projection, rel=10 * rel)


def test_several_spikes():
    # snnTorch is right about one sample of one neuron: its value is the mean over these.
    loss_fn = losses.mse_temporal_loss(on_target=[0, 1, 2], off_target=[2, 3, 4], multi_spike=True)
    assert loss_fn(SPIKES, LABELS)[0] == pytest.approx(0.08666666593816567, rel=2e-7)


def test_accuracies():
    assert metrics.accuracy_rate(SPIKES, LABELS) == 0.25
    assert metrics.accuracy_rate(SPIKES, LABELS, population_code=True, num_classes=3) == 0.5
    assert metrics.accuracy_temporal(SPIKES, LABELS) == 0.25
