"""Leaky integrate-and-fire neuron that learns its time constant, with the semantics of SpikingJelly 2.0's ``ParametricLIFNode``.

As ``lif_node``, but all neurons of a layer share q = 1 / tau, which is the sigmoid of a parameter w and so stays in (0, 1);
at first w = -log(tau - 1).

    u[t] = m[t-1] + (x[t] - (m[t-1] - v_reset)) q             charge                                                (1a)
    u[t] = m[t-1] - (m[t-1] - v_reset) q + x[t]               charge, with ``decay_input=False``                    (1b)
    s[t] = H(u[t] - theta),   H(0) = 1                                                                              (2)
    m[t] = s[t] v_reset + (1 - s[t]) u[t],  or  u[t] - s[t] theta                                                   (3)

Backward.  With n[t] the total dL/dm[t], du[t] the total dL/du[t], and R[t] = dm[t]/du[t] of (7) of ``if_node``:

    n[t]   = dm[t] + (1 - q) du[t+1],                 du[T] = 0                                                     (4)
    du[t]  = P'(u[t] - theta) ds[t] + R[t] n[t]                                                                     (5)
    dx[t]  = q du[t]                                  from (1a)                                                     (6a)
    dx[t]  = du[t]                                    from (1b)                                                     (6b)
    dq     = sum_t du[t] (x[t] - m[t-1] + v_reset)    from (1a), over all neurons                                   (7a)
    dq     = sum_t du[t] (v_reset - m[t-1])           from (1b)                                                     (7b)
    dw     = dq q (1 - q),        q = 1 / (1 + exp(-w))                                                             (8)

Kept for backward besides: m, and with (1a) x, which (7) read.

Trace: v_reset = 0, q = 0.25, threshold = 1, reset "hard", x = 1.5

    t        0        1        2        3        4        5        6        7        8        9
    u    0.375    0.656    0.867    1.025    0.375    0.656    0.867    1.025    0.375    0.656
    s        0        0        0        1        0        0        0        1        0        0
    m    0.375    0.656    0.867    0.000    0.375    0.656    0.867    0.000    0.375    0.656

Beside SpikingJelly 2.0, ``if_node`` aside:

    q multiplies, where ``LIFNode`` divides by tau                                  kept
    the sigmoid is computed in float32                                              fixed: in float64, then rounded
    dw is summed up in float32                                                      fixed: over neurons in float64
    ``init_tau`` must be a float                                                    fixed: any number above 1
"""
