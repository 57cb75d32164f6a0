"""Leaky integrate-and-fire neuron with the semantics of SpikingJelly 2.0's ``LIFNode``.

The membrane leaks to v_reset (0 for reset "soft") with time constant tau > 1, in time steps. Firing, resets and start are those
of ``if_node``; u is the membrane before, m after the reset (SpikingJelly's h and v).

    u[t] = m[t-1] + (x[t] - (m[t-1] - v_reset)) / tau         charge                                                (1a)
    u[t] = m[t-1] - (m[t-1] - v_reset) / tau + x[t]           charge, with ``decay_input=False``                    (1b)
    s[t] = H(u[t] - theta),   H(0) = 1                                                                              (2)
    m[t] = s[t] v_reset + (1 - s[t]) u[t],  or  u[t] - s[t] theta                                                   (3)

Backward.  With n[t] the total dL/dm[t], du[t] the total dL/du[t], and R[t] = dm[t]/du[t] of (7) of ``if_node``:

    n[t]   = dm[t] + (1 - 1 / tau) du[t+1],           du[T] = 0                                                     (4)
    du[t]  = P'(u[t] - theta) ds[t] + R[t] n[t]                                                                     (5)
    dx[t]  = du[t] / tau                              from (1a)                                                     (6a)
    dx[t]  = du[t]                                    from (1b)                                                     (6b)

Trace: v_reset = -0.25, tau = 2, threshold = 1, reset "hard", x = 1.5

    t        0        1        2        3        4        5        6        7        8        9
    u    0.500    0.875    1.062    0.500    0.875    1.062    0.500    0.875    1.062    0.500
    s        0        0        1        0        0        1        0        0        1        0
    m    0.500    0.875   -0.250    0.500    0.875   -0.250    0.500    0.875   -0.250    0.500

Beside SpikingJelly 2.0, ``if_node`` aside:

    a division by tau in every step, not a product with 1 / tau                     kept, for spikes that are equal
    tau is one number                                                               added: or one for each neuron
"""
