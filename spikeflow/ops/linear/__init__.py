"""Linear layer.

Rows x (N, F), weight w (O, F), bias b (O).

    y[n, o] = b[o] + sum_f x[n, f] w[o, f]                      (1)

Backward, with dy for dL/dy:

    db[o]    = sum_n dy[n, o]                                   (2)
    dw[o, f] = sum_n dy[n, o] x[n, f]                           (3)
    dx[n, f] = sum_o dy[n, o] w[o, f]                           (4)

Kept for backward: x.
"""
