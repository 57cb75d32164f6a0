"""Synaptic neuron that hears the spikes of its own layer one step later, with snnTorch 1.0's ``RSynaptic`` semantics.

    i[t] = alpha i[t-1] + x[t] + Rec(s[t-1])          s[-1] = 0; Rec as in ``rleaky``                               (1)
    b[t] = beta m[t-1] + i[t]                                                                                       (2)
    m[t], r[t], s[t]                                  from b[t] as in ``synaptic``: a reset leaves i alone          (3)

Backward.  ``synaptic``'s, with z[t] of ``rleaky`` in place of ds[t]:

    z[t]   = ds[t] + Rec^T(j[t+1])                    j[T] = 0                                                      (4)
    g[t]   = z[t] P'(m[t] - theta) + dm[t] + beta k[t+1] g[t+1]                                                     (5)
    j[t]   = k[t] g[t] + alpha j[t+1],     dx[t] = j[t]                                                             (6)
    dalpha = sum_t j[t] i[t-1],     dbeta = sum_t k[t] g[t] m[t-1]                                                  (7)
    dV     = sum_t j[t] s[t-1],     dW = sum_t j[t] s[t-1]^T,     db = sum_t j[t]                                   (8)

Trace: alpha = 0.5, beta = 0.5, V = -0.3, threshold = 1, reset "subtract", x = 0.5

    t        0        1        2        3        4        5        6        7        8        9
    i    0.500    0.750    0.875    0.637    0.819    0.909    0.655    0.827    0.614    0.807
    m    0.500    1.000    1.375    0.325    0.981    1.400    0.355    1.005    0.116    0.865
    s        0        0        1        0        0        1        0        1        0        0

Beside snnTorch 1.0:

    ``reset_delay=False`` raises TypeError in forward                               fixed: it works
    ``detach_hidden`` and ``reset_hidden`` forget the spikes                        fixed: state is handed in and out, whole
    reset "zero" leaves the synaptic current alone                                  kept
    ``V`` appears twice in the state dict (``V``, ``recurrent.V``)                  fixed: once, ``V``
"""
