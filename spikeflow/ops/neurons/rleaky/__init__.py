"""Leaky neuron that hears the spikes of its own layer one step later, with snnTorch 1.0's ``RLeaky`` semantics.

    i[t] = x[t] + Rec(s[t-1])                         s[-1] = 0                                                     (1)
    b[t] = beta m[t-1] + i[t]                                                                                       (2)
    r[t] = H(m[t-1] - theta)
    m[t] = b[t] - theta r[t]                          reset "subtract"                                              (3a)
    m[t] = (1 - r[t]) b[t]                            reset "zero": the input is dropped too, unlike in ``leaky``   (3b)
    m[t] = b[t]                                       reset "none"                                                  (3c)
    s[t] = H(m[t] - theta)                                                                                          (4)

Rec is V s[t-1], each neuron for itself; or W s[t-1] + b with a matrix; or a convolution that keeps the size.

Backward.  As in ``leaky``, with k = 1 - r for reset "zero"; but s[t] is read by i[t+1] too, and not detached there:

    z[t]   = ds[t] + Rec^T(di[t+1])                   di[T] = 0                                                     (5)
    g[t]   = z[t] P'(m[t] - theta) + dm[t] + beta k[t+1] g[t+1]                                                     (6)
    di[t]  = k[t] g[t],     dx[t] = di[t]                                                                           (7)
    dbeta  = sum_t k[t] g[t] m[t-1]                                                                                 (8)
    dV     = sum_t di[t] s[t-1],     dW = sum_t di[t] s[t-1]^T,     db = sum_t di[t]                                (9)

Trace: beta = 0.5, V = 0.4, threshold = 1, reset "subtract", x = 0.7

    t        0        1        2        3        4        5        6        7        8        9
    m    0.700    1.050    0.625    1.012    0.606    1.003    0.602    1.001    0.600    1.000
    s        0        1        0        1        0        1        0        1        0        1

Beside snnTorch 1.0:

    reset "zero" drops the input (``Leaky`` keeps it)                               kept
    the spike fed back keeps its gradient                                           kept
    ``learn_recurrent=False`` keeps weights out of training, in the state dict      kept
    convolutions of an even kernel size change the image's size and then fail       fixed: refused when made
    ``V`` appears twice in the state dict (``V``, ``recurrent.V``)                  fixed: once, ``V``
"""
