"""Integers only: number formats, bit split, gating rule, layer sums, overflow and what follows the accumulator.

Knows no hardware and no file. Import the module you need: `formats`, `split`, `gating` and `post` need numpy only;
`reference`, `fast`, `sddmm` and `overflow` bring in Numba, which compiles at the first call, never at import.
"""
