"""Leaky integrate-and-fire neuron with the semantics of snnTorch 1.0's ``Leaky``.

Input current x, membrane m, spike s, decay beta, threshold theta; H is the step, H(0) = 0: a neuron fires strictly above its
threshold. At every step t = 0 ... T - 1, starting from m[-1] = 0:

    r[t] = H(m[t-1] - theta)                          reset flag: a spike resets the membrane one step later        (1)
    m[t] = beta m[t-1] + x[t] - theta r[t]            reset "subtract"                                              (2a)
    m[t] = beta (1 - r[t]) m[t-1] + x[t]              reset "zero": the old membrane is dropped, the input is kept  (2b)
    m[t] = beta m[t-1] + x[t]                         reset "none"                                                  (2c)
    s[t] = H(m[t] - theta)                            the membrane given out is the one compared with theta         (3)

Backward.  Given ds[t] = dL/ds[t] and dm[t] = dL/dm[t] from outside. H has no useful derivative; P' is the surrogate's. r is
detached: a constant for the derivative, as in snnTorch. Follow m[t] to all that it enters: s[t] by (3), the outside, and m[t+1]
by (2), where its factor is beta k[t+1], with k = 1 - r for reset "zero" and k = 1 otherwise. With g[t] the total dL/dm[t],

    g[t]    = ds[t] P'(m[t] - theta) + dm[t] + beta k[t+1] g[t+1],      g[T] = 0                                    (4)
    dx[t]   = g[t]                                                      from (2)                                    (5)
    dbeta   = sum_t g[t] k[t] m[t-1]                                    from (2)                                    (6)
    dtheta  = - sum_t ds[t] P'(m[t] - theta)  - sum_t g[t] r[t]         from (3), and from (2a) alone               (7)

The last term of (4) is the one number carried from step to step: backpropagation through time is a single loop from T - 1
down to 0. Kept for backward: m. Both r and P' are functions of m, so neither is stored.

Constant input.  If x[t] = x at all steps, dx = sum_t g[t]. The same number comes out forward in time, from how much each membrane
depends on x, e[t] = dm[t]/dx, and then neither m nor g need be stored:

    e[t] = 1 + beta k[t] e[t-1],   e[-1] = 0;        dx = sum_t (ds[t] P'(m[t] - theta) + dm[t]) e[t]                (8)

The loops know four options besides, derived in ``step.py`` and ``resets.py``: a reset in the spike's own step
(``reset_delay=False``), graded spikes, lateral inhibition, and numbers for each neuron. With all of them off they are (1) to
(7).

Trace: beta = 0.5, threshold = 1, reset "subtract", x = 0.8

    t        0        1        2        3        4        5        6        7        8        9
    m    0.800    1.200    0.400    1.000    1.300    0.450    1.025    0.312    0.956    1.278
    s        0        1        0        0        1        0        1        0        0        1

Beside snnTorch 1.0:

    decay clamped to [0, 1] in forward, gradient inside, bounds included            kept
    reset flag detached; without delay the spike in the reset is not                kept
    reset "zero" keeps the input (its docstring says it is dropped)                 kept, the code decides
    inhibition resets whoever is above threshold, and not the winner alone          kept
    inhibition leaves the graded factor out                                         fixed: it applies
    inhibition of images picks channels wrongly                                     dropped: refused
    a state of another shape is zeroed silently                                     fixed: an error; no state hides in a layer
    spikes are float32 whatever the membrane                                        fixed: the network's dtype
    ``state_quant``, ``init_hidden``, ``output``, ``surrogate_disable``             dropped
"""
