"""The operations: one folder each, with its derivation, a plain NumPy reference, and Numba kernels.

Letters, everywhere the same: T time steps, B batch, C channels, H W height and width, N images or rows, F features, K kernel,
L kernel columns (L = K but where a linear layer reads whole images), O outputs, M neurons that advance side by side,
V numbers of a row that kernels hold in vector registers.

Contract.  Inside the engine an image is ``(H, W, C)``, channel last: the window of a convolution is then K contiguous runs, and
neurons of a pixel fill a vector register. The public API speaks ``(C, H, W)``; network.py converts at the two ends. Weights keep
PyTorch's layout and are packed anew each call (users write ``p.value[...]``). Time lives only in the neurons: the other
operations see N = T * B independent images or rows.

``X_backward`` stands directly below ``X_forward``. It takes the output's gradient, then what forward had, returns the input's
gradient (None if not asked for), and *adds* the parameters' gradients into arrays it is given. ``d<name>`` is dL/d<name>.
dtype out is dtype in. No function keeps state.
"""
