"""Roots of small complex polynomials by Aberth's simultaneous iteration (Aberth 1973), as compiled kernels."""

from __future__ import annotations

import numba

# Relative step below which a root has converged: convergence is cubic, so the error is about 1e-21.
STEP_TOLERANCE = 1e-7
SMALLEST_SCALE = 1e-3  # modulus below which the step is measured against this length instead of the root
STALLED_STEP = 1e-6 + 1e-6j  # step where Aberth's formula divides by zero


@numba.njit(cache=True, error_model="numpy")
def inverse(z):
    """1/z of a complex number, without the overflow checks of Python's division, which cost more than the rest."""
    d = 1.0 / (z.real * z.real + z.imag * z.imag)
    return complex(z.real * d, -z.imag * d)


@numba.njit(cache=True, error_model="numpy")
def find_roots(coefficients, roots, max_steps):
    """Move `roots` (n,) from their starting points to the n roots of a polynomial; returns whether all converged.

    coefficients : (n + 1,) complex, from the constant upwards.
    """
    degree = len(roots)
    for _ in range(max_steps):
        largest = 0.0
        for i in range(degree):
            z = roots[i]
            slope = coefficients[degree]
            value = coefficients[degree] * z + coefficients[degree - 1]
            for k in range(degree - 2, -1, -1):  # Horner's scheme
                slope = slope * z + value
                value = value * z + coefficients[k]
            if value == 0:
                continue
            repulsion = 0j
            for j in range(degree):
                if j != i and roots[j] != z:
                    repulsion += inverse(z - roots[j])
            # The step is (p/p') / (1 - (p/p') repulsion), written so that p' = 0 does no harm.
            denominator = slope - value * repulsion
            step = value * inverse(denominator) if denominator != 0 else STALLED_STEP
            roots[i] = z - step
            size = (abs(step.real) + abs(step.imag)) / (SMALLEST_SCALE + abs(z.real) + abs(z.imag))
            largest = max(largest, size)
        if largest < STEP_TOLERANCE:
            return True
    return False
