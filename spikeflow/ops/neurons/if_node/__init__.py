"""Integrate-and-fire neuron with the semantics of SpikingJelly 2.0's ``IFNode``.

Input current x, membrane u before and m after the reset (SpikingJelly's h and v), spike s, threshold theta; H is the step,
H(0) = 1: a neuron fires at its threshold, too. At every step t = 0 ... T - 1, starting from m[-1] = v_reset (0 for reset "soft"):

    u[t] = m[t-1] + x[t]                              charge                                                        (1)
    s[t] = H(u[t] - theta)                            fire                                                          (2)
    m[t] = s[t] v_reset + (1 - s[t]) u[t]             reset "hard"                                                  (3a)
    m[t] = u[t] - s[t] theta                          reset "soft", SpikingJelly's v_reset=None                     (3b)

Backward.  Given ds[t] = dL/ds[t] and dm[t] = dL/dm[t] from outside. H has no useful derivative; P' is the surrogate's. u[t]
enters s[t] by (2), and m[t] by (3) on its own and through s[t]; m[t] enters the outside and u[t+1] by (1). With n[t] the total
dL/dm[t] and du[t] the total dL/du[t],

    n[t]   = dm[t] + du[t+1],                         du[T] = 0                                                     (4)
    du[t]  = P'(u[t] - theta) ds[t] + R[t] n[t],      R[t] = dm[t]/du[t]                                            (5)
    dx[t]  = du[t]                                                                                                  (6)

    R[t]   = 1 - s[t] + (v_reset - u[t]) P'(u[t] - theta)     reset "hard"                                          (7a)
    R[t]   = 1 - theta P'(u[t] - theta)                       reset "soft"                                          (7b)

With ``detach_reset`` the s[t] of (3) is a constant for the derivative, and R[t] is 1 - s[t] or 1. Kept for backward: u, of which
s and P' are functions; m is kept for those who look at it.

Trace: v_reset = 0, threshold = 1, reset "soft", x = 0.75

    t        0        1        2        3        4        5        6        7        8        9
    u    0.750    1.500    1.250    1.000    0.750    1.500    1.250    1.000    0.750    1.500
    s        0        1        1        1        0        1        1        1        0        1
    m    0.750    0.500    0.250    0.000    0.750    0.500    0.250    0.000    0.750    0.500

Beside SpikingJelly 2.0:

    fires at its threshold                                                          kept
    starts at ``v_reset``                                                           kept
    the spike in the reset is not detached unless one asks for it                   kept
    ``v_reset`` at or above the threshold, which fires for ever                     fixed: refused
    ``v_threshold`` and ``v_reset`` are one number                                  added: or one for each neuron
    state is carried from call to call until ``reset_net``                          fixed: no state hides in a layer
    ``step_mode``, ``store_v_seq``                                                  dropped: a layer takes sequences, keeps m
"""
