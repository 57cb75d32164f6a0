"""What a network is lowered to: which steps, which forms between them, and when a program is made anew."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import spikeflow as sf
from spikeflow.engine import lower
from spikeflow.engine.forms import BITS, CENTRED, NORMALISED, NUMBERS

IMAGES = np.random.default_rng(0).random((5, 1, 14, 14)).astype(np.float32)
SPIKES = np.random.default_rng(1).random((4, 5, 1, 14, 14)) < 0.3


def lif(**options):
    return sf.Leaky(0.5, 0.25, **options)


def csnn(**options):
    return sf.Sequential(
        sf.Conv2d(1, 3, 3), sf.MaxPool2d(2), lif(), sf.Conv2d(3, 4, 3), sf.MaxPool2d(2), lif(),
        sf.Flatten(), sf.Linear(16, 5), lif(), **options,
    )  # fmt: skip


def normalised(**options):
    return sf.Sequential(
        sf.Conv2d(1, 3, 3), sf.BatchNorm2d(3), sf.IFNode(0.25), sf.MaxPool2d(2), sf.Conv2d(3, 4, 3), sf.BatchNorm2d(4),
        sf.IFNode(0.25), sf.Flatten(), sf.Linear(64, 5), sf.BatchNorm1d(5), lif(), **options,
    )  # fmt: skip


def rules(program) -> list[str]:
    return [step.rule for step in program.steps if step.layers]


def test_every_layer_is_covered_once_and_forms_meet():
    for net in (csnn(), normalised(), csnn(events=False), csnn(backend="reference")):
        for x, num_steps in ((IMAGES, 4), (SPIKES, None), (SPIKES.astype(np.float32), None)):
            for training in (True, False):
                program = net.program(x, num_steps, training)
                assert [layer for step in program.steps for layer in step.layers] == list(net.layers)
                form = program.entry
                for step in program.steps:
                    assert step.takes == form, str(program)
                    form = step.gives
                assert form == NUMBERS


def test_tutorial_6_is_four_steps():
    program = csnn().program(IMAGES, 4)
    assert rules(program) == ["conv_pool", "leaky_conv_pool", "flatten_linear", ""]
    assert [step.name for step in program.steps] == ["0 to 1", "2 to 5", "6 to 7", "8"]
    assert program.joints == []


def test_a_sequence_of_spikes_enters_as_bits():
    assert csnn().program(SPIKES).entry == BITS
    assert csnn().program(SPIKES.astype(np.float32)).entry == NUMBERS
    assert rules(csnn().program(SPIKES)) == ["conv_pool_leaky", "conv_pool_leaky", "flatten_linear", ""]


def test_without_rules_every_layer_is_a_step_of_its_own():
    for options in ({"events": False}, {"backend": "reference"}):
        assert rules(csnn(**options).program(IMAGES, 4)) == [""] * 9


def test_between_two_forms_stands_a_conversion():
    net = sf.Sequential(sf.Linear(4, 3), sf.BatchNorm1d(3), sf.BatchNorm1d(3), lif())
    program = net.program(np.ones((3, 4), np.float32), 2)
    forms = [(step.takes, step.gives) for step in program.steps if not step.layers]
    assert forms == [(NUMBERS, CENTRED), (NORMALISED, NUMBERS), (NUMBERS, CENTRED), (NORMALISED, NUMBERS)]
    assert len(program.joints) == 2


def test_two_batch_normalisations_in_a_row_train():
    gradients = []
    for options in ({}, {"events": False}, {"backend": "reference"}):
        net = sf.Sequential(sf.Linear(4, 3), sf.BatchNorm1d(3), sf.BatchNorm1d(3), lif(), dtype=np.float64, **options)
        x = np.random.default_rng(0).normal(size=(9, 4))
        loss, _ = net.loss_and_grad(x, np.arange(9) % 3, sf.losses.ce_membrane_loss(), num_steps=3)
        gradients.append([loss, *(parameter.grad.copy() for parameter in net.parameters())])
    for other in gradients[1:]:
        for one, another in zip(gradients[0], other, strict=True):
            np.testing.assert_allclose(one, another, rtol=1e-9, atol=1e-9)


def test_a_recorded_pass_shows_every_neuron():
    program = csnn()._call(IMAGES, 4, records=True).program
    shown = {
        layer.name for step in program.steps for layer in step.layers if isinstance(layer, sf.Leaky) and len(step.layers) == 1
    }
    assert shown == {"2", "5", "8"}


def test_a_program_is_made_once_for_each_kind(monkeypatch):
    made = []
    right = lower.Lowering.program

    def program(self, *arguments):
        made.append(self.kind)
        return right(self, *arguments)

    monkeypatch.setattr(lower.Lowering, "program", program)
    net = csnn()
    update = sf.optim.Adam(net.parameters())
    for _ in range(3):
        net.zero_grad()
        net.loss_and_grad(IMAGES, np.arange(5), sf.losses.ce_rate_loss(), num_steps=4)
        update.step()
        net.loss_and_grad(IMAGES[:3], np.arange(3), sf.losses.ce_rate_loss(), num_steps=7)
    assert len(made) == 1
    net.eval().predict(IMAGES, 4)
    net.predict(IMAGES, 4)
    assert len(made) == 2
    net.stream(IMAGES, num_steps=4)
    net.predict(SPIKES)
    net.record(IMAGES, 4)
    assert len(made) == 5


def test_an_option_that_changes_makes_programs_anew():
    net = csnn()
    before = net.program(IMAGES, 4)
    assert net.program(IMAGES, 4) is before
    net.layers[5].reset_delay = False
    after = net.program(IMAGES, 4)
    assert after is not before and rules(after) != rules(before)
    expected = csnn(events=False)
    expected.layers[5].reset_delay = False
    np.testing.assert_array_equal(net.predict(IMAGES, 4), expected.predict(IMAGES, 4))
    net.layers[2].threshold = 0.125
    expected.layers[2].threshold = 0.125
    np.testing.assert_array_equal(net.predict(IMAGES, 4), expected.predict(IMAGES, 4))


def test_numbers_of_an_option_cannot_be_changed_behind_the_programs_back():
    net = sf.Sequential(sf.Linear(3, 2), sf.Leaky([0.5, 0.25]))
    with pytest.raises(ValueError, match="read-only"):
        net.layers[1].beta[0] = 0.75


def test_a_layer_whose_passes_are_somebody_elses_runs_plain():
    class Doubled(sf.Conv2d):
        """Twice the convolution."""

        def forward(self, ops, prepared, x, run):
            y, kept = super().forward(ops, prepared, x, run)
            return 2 * y, kept

        def backward(self, ops, prepared, dy, kept, grads, input_grad):
            return super().backward(ops, prepared, 2 * dy, kept, grads, input_grad)

    layers = [Doubled(1, 3, 3), sf.MaxPool2d(2), lif(), Doubled(3, 4, 3), sf.MaxPool2d(2), lif()]
    on, off = (sf.Sequential(*(layer.unused_copy() for layer in layers), events=events) for events in (True, False))
    assert [step.rule for step in on.program(IMAGES, 4).steps if isinstance(step.layers[0], Doubled)] == ["", ""]
    np.testing.assert_array_equal(on.predict(IMAGES, 4), off.predict(IMAGES, 4))


def test_a_program_prints():
    text = str(normalised().program(IMAGES, 4))
    for line in (
        "cpu: images shown at every step, 1 x 14 x 14, float32, training",
        "enters as numbers",
        "1       BatchNorm2d        batch_norm      centred -> normalised, all blocks at once  input",
        "2 to 3  IFNode, MaxPool2d  pooled_neuron   normalised -> bits                         input",
        "        conversion                         normalised -> numbers                      nothing",
    ):
        assert line in text.splitlines(), f"\n{text}"


def test_a_pickle_carries_no_program_and_runs():
    net = csnn()
    fresh = len(pickle.dumps(net))
    net.loss_and_grad(IMAGES, np.arange(5), sf.losses.ce_rate_loss(), num_steps=4)
    net.forward(IMAGES, 4)
    dumped = pickle.dumps(net)
    assert len(dumped) < fresh + 1000
    again = pickle.loads(dumped)
    np.testing.assert_array_equal(again.predict(IMAGES, 4), net.predict(IMAGES, 4))
    assert copy.deepcopy(net).program(IMAGES, 4) is not net.program(IMAGES, 4)
