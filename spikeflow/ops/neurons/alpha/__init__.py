"""Neuron whose membrane answers each input by an alpha function, with snnTorch 1.0's ``Alpha`` semantics.

The difference of two exponentials rises, then falls: an exciting current e, and an inhibiting one h that decays faster.

    tau  = ln alpha / (ln beta - ln alpha) + 1        0 <= beta < alpha <= 1

    e[t] = alpha e[t-1] + x[t]                                                                                      (1)
    h[t] = beta h[t-1] - x[t]                                                                                       (2)
    m[t] = tau (e[t] + h[t])                          reset "none"                                                  (3)
    r[t] = H(m[t-1] - theta),     s[t] = H(m[t] - theta)

    reset "subtract", where r[t] = 1:   e[t] - theta,   0,   m[t] + h[t-1]   in place of  e[t], h[t], m[t]           (4a)
    reset "zero",     where r[t] = 1:   0, 0, 0                              in place of  e[t], h[t], m[t]           (4b)

Backward.  m[t] is read by s[t] and from outside, not by m[t+1]: its gradient goes to the two currents. With g the total
gradients of e[t], h[t], m[t] as given out, r and k = 1 - r constants,

    "none"        g_e = alpha-carry,  g_h = beta-carry,  g_m = ds[t] P'(m[t] - theta) + dm[t]                       (5)
    "subtract"    g_h becomes k g_h, dtheta -= r g_e, and h[t-1] gets r g_m besides
    "zero"        all three become k times themselves

    de     = g_e + tau g_m,     dh = g_h + tau g_m                                                                  (6)
    carry to t - 1:  alpha de for e,  beta dh for h,  nothing for m;       dx[t] = de - dh                          (7)
    dalpha = sum_t de e[t-1],   dbeta = sum_t dh h[t-1],    dtau = sum_t g_m (e[t] + h[t] before the reset)         (8)

and since tau depends on both decays, with a = ln alpha, b = ln beta,

    dalpha += dtau b / (alpha (b - a)^2),             dbeta -= dtau a / (beta (b - a)^2)                            (9)

Trace: alpha = 0.8, beta = 0.5, threshold = 0.5, reset "zero", x = 0.6

    t        0        1        2        3        4        5        6        7        8        9
    e    0.600    1.080    1.464    0.000    0.600    1.080    1.464    0.000    0.600    1.080
    h   -0.600   -0.900   -1.050    0.000   -0.600   -0.900   -1.050    0.000   -0.600   -0.900
    m    0.000    0.265    0.611    0.000    0.000    0.265    0.611    0.000    0.000    0.265
    s        0        0        1        0        0        0        1        0        0        0

Beside snnTorch 1.0:

    the three resets, "subtract" with its m + h[t-1] included                       kept, the code decides
    ``learn_alpha=True`` raises TypeError when the neuron is made                   fixed: it learns
    learned decays may pass each other (tau then jumps between infinities)          fixed: an error that says so
    no ``reset_delay=False``                                                        kept
"""
