"""Neuron whose input goes through a synaptic current i that decays on its own, with snnTorch 1.0's ``Synaptic`` semantics.

    i[t] = alpha i[t-1] + x[t]                                                                                      (1)
    b[t] = beta m[t-1] + i[t]                                                                                       (2)
    r[t] = H(m[t-1] - theta)
    m[t] = b[t] - theta r[t]                          reset "subtract"                                              (2a)
    m[t] = (1 - r[t]) b[t]                            reset "zero": of the membrane; the current i goes on          (2b)
    m[t] = b[t]                                       reset "none"                                                  (2c)
    s[t] = H(m[t] - theta)                                                                                          (3)

Backward.  m[t-1] enters b[t] alone, but i[t-1] enters i[t] and through it b[t]. With g[t] the total dL/dm[t], k = 1 - r for reset
"zero" and k = 1 otherwise, and j[t] the total dL/di[t],

    g[t]   = ds[t] P'(m[t] - theta) + dm[t] + beta k[t+1] g[t+1]                                                    (4)
    j[t]   = k[t] g[t] + alpha j[t+1]                                                                               (5)
    dx[t]  = j[t]                                                                                                   (6)
    dalpha = sum_t j[t] i[t-1],     dbeta = sum_t k[t] g[t] m[t-1]                                                  (7)
    dtheta = - sum_t ds[t] P'(m[t] - theta)  - sum_t g[t] r[t]              the second term for "subtract" alone    (8)

Two numbers are carried from step to step. Kept for backward: m, and i only where a decay is learned.

Trace: alpha = 0.5, beta = 0.75, threshold = 1, reset "subtract", x = 0.3

    t        0        1        2        3        4        5        6        7        8        9
    i    0.300    0.450    0.525    0.562    0.581    0.591    0.595    0.598    0.599    0.599
    m    0.300    0.675    1.031    0.336    0.833    1.216    0.507    0.978    1.332    0.599
    s        0        0        1        0        0        1        0        0        1        0

Beside snnTorch 1.0:

    reset "zero" drops the whole new membrane, the input in it, and not i           kept
    without delay the spike in the reset is not detached                            kept
    no graded spikes                                                                added
    states zeroed silently for another shape                                        fixed: an error
"""
