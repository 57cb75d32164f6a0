"""What a layer that goes through time step by step needs besides its operations, wherever its arrays live.

Time is the first axis: ``zeros``, the sum of two steps (``add``), steps one behind the other (``join``), one step's numbers put
into another's place (``copy``), the sum over all steps (``sum``), an array that the host has (``of``; ``constant``, if it never
changes), and a factor for each number of a step (``scale``).
"""
