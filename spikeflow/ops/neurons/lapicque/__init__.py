"""Lapicque's neuron: a resistor R and a capacitor C, charged by the current x, after snnTorch 1.0's ``Lapicque``.

The membrane's time constant is R C. Euler's step of length dt (``time_step``) of  R C dm/dt = -m + R x  decays by

    beta = 1 - dt / (R C)                                                                                           (1)

    b[t] = R (1 - beta) x[t] + beta m[t-1]            R (1 - beta) is the ``gain``, since dt / C = R (1 - beta)     (2)
    r[t] = H(m[t-1] - theta)
    m[t] = b[t] - theta r[t]                          reset "subtract"                                              (2a)
    m[t] = (1 - r[t]) b[t]                            reset "zero": the input is dropped too                        (2b)
    m[t] = b[t]                                       reset "none"                                                  (2c)
    s[t] = H(m[t] - theta)                                                                                          (3)

Backward.  With g[t] the total dL/dm[t] as in ``leaky``, and k = 1 - r for reset "zero", k = 1 otherwise:

    g[t]   = ds[t] P'(m[t] - theta) + dm[t] + beta k[t+1] g[t+1]                                                    (4)
    dx[t]  = gain k[t] g[t]                                                                                         (5)
    dbeta  = sum_t k[t] g[t] m[t-1]  -  R dgain,      dgain = sum_t k[t] g[t] x[t]                                  (6)
    dtheta = - sum_t ds[t] P'(m[t] - theta)  - sum_t g[t] r[t]              the second term for "subtract" alone    (7)

Trace: beta = 0.75, gain = 0.25, threshold = 0.5, reset "subtract", x = 0.8

    t        0        1        2        3        4        5        6        7        8        9
    m    0.200    0.350    0.463    0.547    0.110    0.283    0.412    0.509    0.082    0.261
    s        0        0        0        1        0        0        0        1        0        0

Beside snnTorch 1.0:

    a given beta acts as the decay 1 + ln beta (0.5 acts as 0.307)                  fixed: it is the decay
    with a given beta, C = dt / (R ln(1 / beta))                                    fixed: C = dt / (R (1 - beta)), by (1)
    from R and C, the decay is 1 - dt / (R C), but the attribute beta exp(-dt/RC)   fixed: one beta, that of (1)
    ``learn_beta`` changes nothing in the update                                    fixed: it learns, R stays
    reset "zero" drops the input                                                    kept
    no ``reset_delay=False``                                                        kept
"""
