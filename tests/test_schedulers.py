"""Learning rates of the schedules beside those that torch 2.13 printed."""

import json
import math

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import optim
from spikeflow.schedulers import CosineAnnealingLR, Scheduler, StepLR

# Of torch.optim.lr_scheduler, from lr 0.1, at epochs 0, 1, 2, ...
STEP = [0.1, 0.1, 0.1, 0.010000000000000002, 0.010000000000000002, 0.010000000000000002, 0.0010000000000000002,
        0.0010000000000000002, 0.0010000000000000002, 0.00010000000000000003, 0.00010000000000000003]  # fmt: skip
COSINE = [0.1, 0.09519699009326733, 0.08173925539014859, 0.06229226529688126, 0.04070773470311877, 0.021260744609851428,
          0.007803009906732677, 0.003, 0.007803009906732671, 0.021260744609851414, 0.040707734703118746, 0.06229226529688121,
          0.08173925539014858, 0.09519699009326736, 0.10000000000000002, 0.09519699009326736, 0.0817392553901486]  # fmt: skip
COSINE_AND_STEP = [0.1, 0.09757729755661011, 0.0905463412215599, 0.07959536998847742, 0.03289817061077995, 0.025368033988749896,
                   0.017837897366719844, 0.011044862982800982, 0.002826940186172448, 0.001468192533356648, 0.001,
                   0.0034227024433899004, 0.00522682938922007, 0.010123122785599067]  # fmt: skip
COSINE_64 = {0: 0.1, 1: 0.09993977281025862, 32: 0.04999999999999997, 63: 6.0227189741379676e-05, 65: 6.022718974137975e-05,
             66: 0.00024076366639015355, 96: 0.049999999999999975, 128: 0.1, 200: 0.0038060233744356634}  # fmt: skip


def make_optimizer(lr=0.1):
    return optim.SGD([sf.Parameter("p", np.zeros(1))], lr=lr)


def rates(optimizer, *schedulers, epochs):
    found = []
    for _ in range(epochs):
        found.append(optimizer.lr)
        assert all(scheduler.get_last_lr() == [optimizer.lr] for scheduler in schedulers)
        for scheduler in schedulers:
            scheduler.step()
    return found


def test_step_is_torchs():
    optimizer = make_optimizer()
    np.testing.assert_allclose(rates(optimizer, StepLR(optimizer, 3), epochs=len(STEP)), STEP, rtol=1e-12)


def test_step_with_a_factor():
    optimizer = make_optimizer(1.0)
    assert rates(optimizer, StepLR(optimizer, step_size=2, gamma=0.5), epochs=7) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_cosine_is_torchs_and_rises_again_after_T_max():
    optimizer = make_optimizer()
    found = rates(optimizer, CosineAnnealingLR(optimizer, 7, eta_min=0.003), epochs=len(COSINE))
    np.testing.assert_allclose(found, COSINE, rtol=1e-12)


def test_cosine_of_64_epochs_is_torchs_over_three_half_periods():
    optimizer = make_optimizer()
    found = rates(optimizer, CosineAnnealingLR(optimizer, T_max=64), epochs=201)
    np.testing.assert_allclose([found[k] for k in COSINE_64], list(COSINE_64.values()), rtol=1e-12)
    assert found[64] == 0
    closed = [0.1 * (1 + math.cos(math.pi * k / 64)) / 2 for k in range(201)]
    np.testing.assert_allclose(found, closed, rtol=1e-9, atol=1e-16)


def test_cosine_of_one_epoch_alternates():
    optimizer = make_optimizer()
    found = rates(optimizer, CosineAnnealingLR(optimizer, 1, 0.02), epochs=5)
    np.testing.assert_allclose(found, [0.1, 0.02, 0.1, 0.02, 0.1], rtol=1e-12)


def test_two_schedules_of_one_optimizer_work_together_as_torchs():
    optimizer = make_optimizer()
    pair = CosineAnnealingLR(optimizer, 10, 0.001), StepLR(optimizer, 4, 0.5)
    np.testing.assert_allclose(rates(optimizer, *pair, epochs=len(COSINE_AND_STEP)), COSINE_AND_STEP, rtol=1e-12)


def test_the_optimizer_steps_by_the_new_rate():
    parameter = sf.Parameter("p", np.zeros(1))
    optimizer = optim.SGD([parameter], lr=0.5)
    scheduler = StepLR(optimizer, 1, 0.5)
    parameter.grad[...] = 1
    optimizer.step()
    scheduler.step()
    optimizer.step()
    assert parameter.value.tolist() == [-0.75]


@pytest.mark.parametrize("make", [lambda o: StepLR(o, 3, 0.3), lambda o: CosineAnnealingLR(o, 4, 0.01)], ids=["step", "cosine"])
@pytest.mark.parametrize("epochs", [0, 4, 6])
def test_a_state_goes_on_where_it_was(make, epochs):
    optimizer = make_optimizer()
    scheduler = make(optimizer)
    rates(optimizer, scheduler, epochs=epochs)
    state = json.loads(json.dumps(scheduler.state_dict()))
    other = make_optimizer(7.0)
    resumed = type(scheduler)(other, 99)
    resumed.load_state_dict(state)
    assert resumed.last_epoch == epochs and resumed.state_dict() == state
    assert rates(other, resumed, epochs=9) == rates(optimizer, scheduler, epochs=9)


def test_a_schedule_of_ones_own_may_begin_below_the_optimizers_rate():
    class WarmUp(Scheduler):
        def get_lr(self):
            return self.base_lr * min((self.last_epoch + 1) / 4, 1)

    optimizer = make_optimizer(1.0)
    assert rates(optimizer, WarmUp(optimizer), epochs=6) == [0.25, 0.5, 0.75, 1, 1, 1]


def test_a_schedule_must_define_its_rate():
    with pytest.raises(NotImplementedError, match="a scheduler must define get_lr"):
        Scheduler(make_optimizer())


BAD = {
    "step_size 0": (lambda o: StepLR(o, 0), ValueError, "step_size must be at least 1, got 0"),
    "step_size 1.5": (lambda o: StepLR(o, 1.5), TypeError, "step_size must be an integer"),
    "gamma": (lambda o: StepLR(o, 1, gamma=-0.1), ValueError, "gamma must be a number at least 0, got -0.1"),
    "gamma nan": (lambda o: StepLR(o, 1, gamma=math.nan), ValueError, "gamma must be a number"),
    "T_max": (lambda o: CosineAnnealingLR(o, 0), ValueError, "T_max must be at least 1, got 0"),
    "eta_min": (lambda o: CosineAnnealingLR(o, 3, eta_min=-1), ValueError, "eta_min must be a number at least 0"),
    "optimizer": (lambda o: StepLR(o.lr, 3), TypeError, "optimizer must be a spikeflow optimizer, got 0.1"),
    "state of another": (
        lambda o: StepLR(o, 3).load_state_dict(CosineAnnealingLR(o, 3).state_dict()),
        ValueError,
        "state must hold base_lr, gamma, last_epoch, lr, step_size, got",
    ),
    "state epoch": (
        lambda o: StepLR(o, 3).load_state_dict({**StepLR(o, 3).state_dict(), "last_epoch": -1}),
        ValueError,
        "last_epoch must be at least 0",
    ),
    "state lr": (
        lambda o: StepLR(o, 3).load_state_dict({**StepLR(o, 3).state_dict(), "lr": math.nan}),
        ValueError,
        "lr must be a number",
    ),
    "state option": (
        lambda o: StepLR(o, 3).load_state_dict({**StepLR(o, 3).state_dict(), "gamma": "1"}),
        ValueError,
        "gamma must be a number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named_and_change_nothing(case):
    make, error, message = BAD[case]
    optimizer = make_optimizer()
    with pytest.raises(error, match=message):
        make(optimizer)
    assert optimizer.lr == 0.1
