"""What a layer that goes through time step by step needs besides its operations, wherever its arrays live.

Time is the first axis: ``zeros``, the sum of two steps (``add``), steps one behind the other (``join``), one step's numbers put
into another's place (``copy``), and the sum over all steps (``sum``).
"""
