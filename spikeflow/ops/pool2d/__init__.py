"""Two-dimensional pooling with a K x K window and stride s; windows that do not fit are dropped, as PyTorch does.

Max-pooling:

    y[i, j, c] = max_{k, l} x[i s + k, j s + l, c]                                       (1)

The winner is the *first* maximum in row-major order of (k, l), and NaN (the last one) wins over numbers: PyTorch's rules. The
order matters: spikes tie in nearly every window, and a flat background gives equal currents.

Backward.  Near x, (1) picks one input; with (k*, l*) the winner of window (i, j, c), and dy for dL/dy:

    dx[i s + k*, j s + l*, c] += dy[i, j, c]                                             (2)

Kept for backward: the winner's number k* K + l*, one byte a window.

Average pooling, linear in x, so that nothing is kept:

    y[i, j, c] = sum_{k, l} x[i s + k, j s + l, c] / K^2                                 (3)
    dx[i s + k, j s + l, c] += dy[i, j, c] / K^2                for every tap (k, l)     (4)
"""
