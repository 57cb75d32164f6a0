"""Learning rates of the schedules beside those that torch 2.13 printed."""

import json
import math

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import optim
from spikeflow.schedulers import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    Scheduler,
    SequentialLR,
    StepLR,
    warmup,
)

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
EXPONENTIAL = [0.1, 0.09000000000000001, 0.08100000000000002, 0.07290000000000002, 0.06561000000000002, 0.05904900000000002,
    0.05314410000000002, 0.04782969000000002, 0.043046721000000024]  # fmt: skip
LINEAR = [0.001, 0.012799999999999999, 0.024599999999999997, 0.036399999999999995, 0.04819999999999999, 0.05999999999999999,
    0.05999999999999999, 0.05999999999999999]  # fmt: skip
LINEAR_DEFAULT = [0.03333333333333333, 0.04666666666666667, 0.060000000000000005, 0.07333333333333335, 0.08666666666666668,
    0.1, 0.1]  # fmt: skip
WARM_COSINE = [0.010000000000000002, 0.03250000000000001, 0.055000000000000014, 0.07750000000000003, 0.1, 0.09336825748732973,
    0.07525000000000001, 0.0505, 0.025750000000000012, 0.007631742512670284, 0.001, 0.007631742512670284,
    0.025750000000000002]  # fmt: skip
THREE = [0.010000000000000002, 0.04, 0.07, 0.1, 0.1, 0.05, 0.05, 0.025, 0.1, 0.09000000000000001, 0.08100000000000002,
    0.07290000000000002]  # fmt: skip
WARM_ONE = [(0.0012000000000000001, 0.95), (0.006600000000000001, 0.95), (0.01200000000000001, 0.95), (0.29832463063527354,
    0.8505584586887436), (0.24352369618492892, 0.8688255099070633), (0.13879113080009253, 0.9037365046793212),
    (0.04004325905664918, 0.9366525935914912), (1.2e-06, 0.95), (0.04004325905664916, 0.9366525935914912)]  # fmt: skip
ONE_CYCLE = [(0.020000000000000018, 0.95), (0.17489482710979154, 0.9177302443521267), (0.43964257956106434,
    0.8625744625914449), (0.49720771772545586, 0.8505584586887436), (0.46650648492070584, 0.856698729810778),
    (0.4058728269748815, 0.8688255099070633), (0.32368949884755166, 0.8852622412794547), (0.23131855133348753,
    0.9037365046793212), (0.14153049910434962, 0.9216941869558779), (0.0667387650944153, 0.9366525935914912),
    (0.01728349371269761, 0.9465436874322102), (2e-06, 0.95), (0.017283493712697582, 0.9465436874322102)]  # fmt: skip
ONE_CYCLE_ADAM = [(0.04999999999999999, 0.99), (0.09297117626563683, 0.9623074641843674), (0.20547117626563682,
    0.8898074641843674), (0.3445288237343631, 0.8001925358156325), (0.45702882373436315, 0.7276925358156326), (0.5, 0.7),
    (0.4665398445951636, 0.7194263164512563), (0.375125, 0.7725), (0.25025, 0.845), (0.12537500000000004, 0.9175),
    (0.033960155404836434, 0.9705736835487436), (0.0005, 0.99)]  # fmt: skip
ONE_CYCLE_THREE = [(0.02, 0.95), (0.20461538461538464, 0.9115384615384615), (0.3892307692307693, 0.8730769230769231),
    (0.4261538461538461, 0.8653846153846154), (0.24153846153846148, 0.9038461538461539), (0.0569230769230768,
    0.9423076923076923), (0.01724165517241379, 0.95), (0.013793724137931033, 0.95), (0.010345793103448273, 0.95),
    (0.006897862068965515, 0.95), (0.0034499310344827568, 0.95), (1.9999999999985307e-06, 0.95)]  # fmt: skip


def make_optimizer(lr=0.1, **options):
    return optim.SGD([sf.Parameter("p", np.zeros(1))], lr=lr, **options)


def make_groups(make=optim.SGD, **options):
    return make(
        [{"params": [sf.Parameter("a", np.zeros(1))]}, {"params": [sf.Parameter("b", np.zeros(1))], "lr": 0.02}], **options
    )


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


def one_cycle(optimizer, **options):
    return OneCycleLR(optimizer, max_lr=0.5, total_steps=12, **options)


WHOLE = {  # for each, the rates of torch and the schedule
    "exponential": (EXPONENTIAL, lambda o: ExponentialLR(o, 0.9)),
    "linear": (LINEAR, lambda o: LinearLR(o, 0.01, 0.6, 5)),
    "linear-default": (LINEAR_DEFAULT, LinearLR),
    "warm-cosine": (WARM_COSINE, lambda o: SequentialLR(o, [LinearLR(o, 0.1, 1.0, 4), CosineAnnealingLR(o, 6, 0.001)], [4])),
    "warmup": (WARM_COSINE, lambda o: warmup(CosineAnnealingLR(o, 6, 0.001), 4, 0.1)),
    "three": (
        THREE,
        lambda o: SequentialLR(o, [LinearLR(o, 0.1, 1.0, 3), StepLR(o, 2, 0.5), ExponentialLR(o, 0.9)], milestones=[3, 8]),
    ),
}
MOMENTA = {  # and momentum, or the first beta
    "one": (ONE_CYCLE, one_cycle),
    "one-three": (ONE_CYCLE_THREE, lambda o: one_cycle(o, three_phase=True, anneal_strategy="linear")),
    "warm-one": (WARM_ONE, lambda o: SequentialLR(o, [LinearLR(o, 0.1, 1.0, 2), OneCycleLR(o, 0.3, 6)], [2])),
}


@pytest.mark.parametrize("name", WHOLE)
def test_rates_are_torchs(name):
    expected, make = WHOLE[name]
    optimizer = make_optimizer()
    np.testing.assert_allclose(rates(optimizer, make(optimizer), epochs=len(expected)), expected, rtol=1e-12)


def momenta(optimizer, scheduler, steps):
    found = []
    for k in range(steps):
        if k > 0:
            scheduler.step()
        group = optimizer.param_groups[0]
        found.append((group["lr"], group["betas"][0] if "betas" in group else group["momentum"]))
    return found


@pytest.mark.parametrize("name", MOMENTA)
def test_rates_and_momenta_are_torchs(name):
    expected, make = MOMENTA[name]
    optimizer = make_optimizer(momentum=0.9)
    np.testing.assert_allclose(momenta(optimizer, make(optimizer), len(expected)), expected, rtol=1e-12)


def test_adams_first_beta_is_its_momentum():
    optimizer = optim.Adam([sf.Parameter("p", np.zeros(1))], betas=(0.5, 0.97))
    scheduler = one_cycle(optimizer, pct_start=0.5, base_momentum=0.7, max_momentum=0.99, div_factor=10, final_div_factor=100)
    np.testing.assert_allclose(momenta(optimizer, scheduler, len(ONE_CYCLE_ADAM)), ONE_CYCLE_ADAM, rtol=1e-12)
    assert optimizer.betas[1] == 0.97


@pytest.mark.parametrize(
    "make, kind, expected",
    [  # torch 2.13, float64, twelve steps with the gradients of test_optim
        (
            one_cycle,
            optim.Adam,
            [-3.487478190985053, -0.1998583125619135, -0.04107271735146905, 0.6641987275833386, 1.113915546992954],
        ),
        (
            lambda o: one_cycle(o, three_phase=True),
            lambda parameters: optim.SGD(parameters, momentum=0.3),
            [-1.7096111690309432, -0.8011291493855794, -0.11979498788740794, 0.7749341162269445, 1.78280144231527],
        ),
    ],
    ids=["adam", "sgd"],
)
def test_a_cycle_of_steps_is_torchs(make, kind, expected):
    parameter, entries = sf.Parameter("p", np.linspace(-1, 1, 5)), np.arange(5)
    optimizer = kind([parameter])
    scheduler = make(optimizer)
    for k in range(1, 13):
        parameter.grad[...] = np.sin(entries * k + 0.5) * (entries + 1) / 3
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(parameter.value, expected, rtol=1e-11)


def test_a_cycle_may_leave_the_momentum_alone():
    optimizer = make_optimizer(momentum=0.4)
    found = momenta(optimizer, one_cycle(optimizer, cycle_momentum=False), 13)
    np.testing.assert_allclose([lr for lr, _ in found], [lr for lr, _ in ONE_CYCLE], rtol=1e-12)
    assert {momentum for _, momentum in found} == {0.4}


@pytest.mark.parametrize("pct_start, total_steps", [(0.1, 10), (0.0, 7), (1.0, 7), (0.5, 2), (0.3, 1)])
@pytest.mark.parametrize("three_phase", [False, True])
def test_a_phase_without_steps_is_passed_over(pct_start, total_steps, three_phase):
    """Where torch would divide by zero, the phase's last value stands."""
    optimizer = make_optimizer()
    scheduler = OneCycleLR(optimizer, 1.0, total_steps, pct_start, three_phase=three_phase)
    found = rates(optimizer, scheduler, epochs=total_steps)
    assert np.isfinite(found).all() and max(found) <= 1 + 1e-12
    assert found[-1] == pytest.approx(1.0 if pct_start == 1 else 1 / 25e4)
    if pct_start * total_steps == 1:
        assert found[0] == 1


def test_a_cycle_ends():
    optimizer = make_optimizer()
    scheduler = one_cycle(optimizer)
    for _ in range(12):
        scheduler.step()
    last = optimizer.lr
    with pytest.raises(ValueError, match="step must be called at most total_steps = 12 times"):
        scheduler.step()
    assert optimizer.lr == last and scheduler.last_epoch == 12


def test_each_group_has_a_rate_of_its_own():
    optimizer = make_groups(lr=0.1)
    scheduler = warmup(StepLR(optimizer, 2, 0.5), 2, 0.25)
    found = []
    for _ in range(6):
        found.append(scheduler.get_last_lr())
        scheduler.step()
    factors = [0.25, 0.625, 1, 1, 0.5, 0.5]
    np.testing.assert_allclose(found, [[0.1 * factor, 0.02 * factor] for factor in factors], rtol=1e-12)
    assert scheduler.base_lrs == [0.1, 0.02]


def test_a_cycle_of_groups_has_a_list_of_rates():
    optimizer = make_groups(make=optim.Adam)
    scheduler = OneCycleLR(optimizer, [0.5, 1.0], 12, max_momentum=[0.95, 0.9], base_momentum=0.85)
    for k in range(12):
        lr, momentum = ONE_CYCLE[k]
        np.testing.assert_allclose(scheduler.get_last_lr(), [lr, 2 * lr], rtol=1e-12)
        assert optimizer.param_groups[0]["betas"][0] == pytest.approx(momentum, rel=1e-12)
        assert optimizer.param_groups[1]["betas"][0] == pytest.approx(0.85 + (momentum - 0.85) / 2, rel=1e-12)
        scheduler.step()


def test_schedules_say_when_they_are_to_be_stepped():
    optimizer = make_optimizer()
    found = [StepLR(optimizer, 3), LinearLR(optimizer), warmup(StepLR(optimizer, 3), 2), warmup(one_cycle(optimizer), 2)]
    assert [scheduler.by_iteration for scheduler in found] == [False, False, False, True]


STATES = {
    "step": (lambda o: StepLR(o, 3, 0.3), lambda o: StepLR(o, 99)),
    "cosine": (lambda o: CosineAnnealingLR(o, 4, 0.01), lambda o: CosineAnnealingLR(o, 99)),
    "exponential": (lambda o: ExponentialLR(o, 0.7), lambda o: ExponentialLR(o, 0.1)),
    "linear": (lambda o: LinearLR(o, 0.1, 0.9, 7), LinearLR),
    "one": (lambda o: OneCycleLR(o, 0.7, 21), lambda o: OneCycleLR(o, 0.1, 3, cycle_momentum=False, three_phase=True)),
    "one-linear": (lambda o: OneCycleLR(o, 0.7, 20, 0.2, "linear", three_phase=True), lambda o: OneCycleLR(o, 0.1, 3)),
    "warm-cosine": (lambda o: warmup(CosineAnnealingLR(o, 6, 0.001), 5, 0.1), lambda o: warmup(CosineAnnealingLR(o, 9), 1)),
    "warm-one": (lambda o: warmup(OneCycleLR(o, 0.3, 20), 3), lambda o: warmup(OneCycleLR(o, 0.3, 4, cycle_momentum=False), 1)),
    "nested": (
        lambda o: SequentialLR(o, [StepLR(o, 1, 0.5), warmup(ExponentialLR(o, 0.9), 3)], [2]),
        lambda o: SequentialLR(o, [StepLR(o, 9), warmup(ExponentialLR(o, 0.8), 4)], [5]),
    ),
}


def history(optimizer, scheduler, epochs):
    """All that a schedule writes to the groups."""
    found = []
    for _ in range(epochs):
        found.append([(group["lr"], group["momentum"]) for group in optimizer.param_groups])
        scheduler.step()
    return found


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("epochs", [0, 2, 4, 5, 6, 11])
def test_a_state_goes_on_where_it_was(name, epochs):
    make, make_other = STATES[name]
    optimizer = make_groups(lr=0.1, momentum=0.9)
    scheduler = make(optimizer)
    history(optimizer, scheduler, epochs)
    state = json.loads(json.dumps(scheduler.state_dict()))
    other = make_groups(lr=7.0, momentum=0.9)
    resumed = make_other(other)
    resumed.load_state_dict(state)
    assert resumed.last_epoch == epochs and resumed.state_dict() == state
    assert history(other, resumed, 9) == history(optimizer, scheduler, 9)


def test_a_state_and_the_optimizers_go_on_in_any_order():
    for first in ("optimizer", "scheduler"):
        optimizer = make_groups(lr=0.1, momentum=0.9)
        scheduler = warmup(OneCycleLR(optimizer, 0.3, 20), 3)
        history(optimizer, scheduler, 8)
        resumed = make_groups(lr=0.1, momentum=0.9)
        resumed_scheduler = warmup(OneCycleLR(resumed, 0.3, 20), 3)
        if first == "optimizer":
            resumed.load_state_dict(*optimizer.state_dict())
        resumed_scheduler.load_state_dict(scheduler.state_dict())
        if first == "scheduler":
            resumed.load_state_dict(*optimizer.state_dict())
        assert history(resumed, resumed_scheduler, 9) == history(optimizer, scheduler, 9)
        assert resumed.state_dict() == optimizer.state_dict()


def test_a_schedule_of_ones_own_may_begin_below_the_optimizers_rate():
    class WarmUp(Scheduler):
        def get_lr(self):
            return [base_lr * min((self.last_epoch + 1) / 4, 1) for base_lr in self.base_lrs]

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
    "exponential gamma": (lambda o: ExponentialLR(o, -1), ValueError, "gamma must be a number at least 0, got -1"),
    "start_factor": (lambda o: LinearLR(o, 0.0), ValueError, "start_factor must be a number above 0, at most 1, got 0.0"),
    "start_factor 2": (lambda o: LinearLR(o, 2), ValueError, "start_factor must be a number above 0, at most 1, got 2"),
    "end_factor": (lambda o: LinearLR(o, 1, 1.5), ValueError, "end_factor must be a number from 0 to 1, got 1.5"),
    "total_iters": (lambda o: LinearLR(o, total_iters=0), ValueError, "total_iters must be at least 1, got 0"),
    "max_lr": (lambda o: OneCycleLR(o, 0, 9), ValueError, "max_lr must be a number above 0, got 0"),
    "max_lr list": (
        lambda o: OneCycleLR(o, [1, 2], 9),
        ValueError,
        r"max_lr must be a number, or a list of 1, one for each group of parameters, got \[1, 2\]",
    ),
    "total_steps": (lambda o: OneCycleLR(o, 1, 9.5), TypeError, "total_steps must be an integer, got 9.5"),
    "pct_start": (lambda o: OneCycleLR(o, 1, 9, pct_start=30), ValueError, "pct_start must be a number from 0 to 1, got 30"),
    "anneal_strategy": (
        lambda o: OneCycleLR(o, 1, 9, anneal_strategy="exp"),
        ValueError,
        "anneal_strategy must be cos or linear, got 'exp'",
    ),
    "max_momentum": (
        lambda o: OneCycleLR(o, 1, 9, max_momentum=1.0),
        ValueError,
        r"max_momentum must be a number in \[0, 1\), got 1.0",
    ),
    "div_factor": (lambda o: OneCycleLR(o, 1, 9, div_factor=0), ValueError, "div_factor must be a number above 0, got 0"),
    "no schedules": (lambda o: SequentialLR(o, [], []), ValueError, "schedulers must hold at least one Scheduler"),
    "no schedule": (lambda o: SequentialLR(o, [1], []), TypeError, r"schedulers\[0\] must be a Scheduler, got 1"),
    "schedule of another": (
        lambda o: SequentialLR(o, [StepLR(make_optimizer(), 1)], []),
        ValueError,
        r"schedulers\[0\] must be a schedule of this optimizer",
    ),
    "milestones": (
        lambda o: SequentialLR(o, [StepLR(o, 1), StepLR(o, 1), StepLR(o, 1)], [4, 4]),
        ValueError,
        r"milestones must be 2 increasing epochs, one for each schedule but the first, got \[4, 4\]",
    ),
    "milestones few": (lambda o: SequentialLR(o, [StepLR(o, 1), StepLR(o, 1)], []), ValueError, "milestones must be 1 "),
    "milestone 0": (lambda o: SequentialLR(o, [StepLR(o, 1)] * 2, [0]), ValueError, "milestones must be at least 1, got 0"),
    "warmup": (lambda o: warmup(0.1, 3), TypeError, "scheduler must be a Scheduler, got 0.1"),
    "warmup length": (lambda o: warmup(StepLR(o, 1), 0), ValueError, "total_iters must be at least 1"),
    "optimizer": (lambda o: StepLR(o.lr, 3), TypeError, "optimizer must be a spikeflow optimizer, got 0.1"),
    "state of another": (
        lambda o: StepLR(o, 3).load_state_dict(CosineAnnealingLR(o, 3).state_dict()),
        ValueError,
        "state must hold base_lrs, gamma, last_epoch, lrs, step_size, type, got",
    ),
    "state of another kind": (
        lambda o: StepLR(o, 3).load_state_dict({**StepLR(o, 3).state_dict(), "type": "MyLR"}),
        ValueError,
        "state is that of 'MyLR', this schedule is StepLR",
    ),
    "state of other groups": (
        lambda o: StepLR(o, 3).load_state_dict(StepLR(make_groups(), 3).state_dict()),
        ValueError,
        "base_lrs must be a number, or a list of 1",
    ),
    "state of a part": (
        lambda o: SequentialLR(o, [StepLR(o, 3)], []).load_state_dict(
            {**SequentialLR(o, [StepLR(o, 3)], []).state_dict(), "schedulers": [ExponentialLR(o, 1).state_dict()]}
        ),
        ValueError,
        "state must hold base_lrs, gamma",
    ),
    "state without parts": (
        lambda o: SequentialLR(o, [StepLR(o, 3)], []).load_state_dict(
            {**SequentialLR(o, [StepLR(o, 3)], []).state_dict(), "schedulers": []}
        ),
        ValueError,
        r"state must hold a list of 1 states as schedulers, got \[\]",
    ),
    "state epoch": (
        lambda o: StepLR(o, 3).load_state_dict({**StepLR(o, 3).state_dict(), "last_epoch": -1}),
        ValueError,
        "last_epoch must be at least 0",
    ),
    "state lr": (
        lambda o: StepLR(o, 3).load_state_dict({**StepLR(o, 3).state_dict(), "lrs": [math.nan]}),
        ValueError,
        "lrs must be a number",
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


def test_a_cycle_needs_a_momentum():
    class Plain(optim.Optimizer):
        def update(self, value, grad, state, group):
            value -= group["lr"] * grad

    optimizer = Plain([sf.Parameter("p", np.ones(1))], 0.1)
    with pytest.raises(ValueError, match="cycle_momentum must be false: Plain has no momentum and no betas"):
        OneCycleLR(optimizer, 1.0, 9)
    scheduler = OneCycleLR(optimizer, 1.0, 9, cycle_momentum=False)
    optimizer.parameters[0].grad[...] = 1
    optimizer.step()
    assert scheduler.get_last_lr() == pytest.approx([1 / 25], rel=1e-12)
    assert optimizer.parameters[0].value == 1 - optimizer.lr
