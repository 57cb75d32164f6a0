"""Two-dimensional convolution (cross-correlation, as in every deep-learning library).

Image x (H, W, C), weight w (O, C, K, K), bias b (O), stride s; x is first padded with zeros on all four sides.

    y[i, j, o] = b[o] + sum_{k, l, c} x[i s + k, j s + l, c] w[o, c, k, l]                                       (1)

Backward.  Write dy for dL/dy. Equation (1) is linear in b, in w and in x; each term of the sum sends dy back to its factors:

    db[o]          = sum_{i, j} dy[i, j, o]                                                                       (2)
    dw[o, c, k, l] = sum_{i, j} dy[i, j, o] x[i s + k, j s + l, c]                                                (3)
    dx[i s + k, j s + l, c] += sum_o dy[i, j, o] w[o, c, k, l]        for every position (i, j) and tap (k, l)    (4)

(4) is the adjoint of (1) read as a linear map of x: <y(x), dy> = <x, dx(dy)> when b = 0; the tests check that identity.
Kept for backward: x.
"""
