"""What kernels are made of: the only rooms with compiler options, vector tricks, threads, and the card.

``jit.py``       Numba's options, and the compiled kernels on disk
``rounding.py``  a product that is rounded by itself
``lazy.py``      attributes that are worked out once an object
``cpu/``         vectors and memory (``simd``), numbers in two bytes (``half``), threads (``parallel``)
``cuda/``        the card and its memory (``gpu``), matrix products (``gemm``), sums over blocks (``sums``)
"""
