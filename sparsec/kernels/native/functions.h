/* The functions of SPARSEC_FUNCTIONS on vectors: fn_<name>(v, w, a, b), within a few units in the last place. */
#ifndef SPARSEC_FUNCTIONS_H
#define SPARSEC_FUNCTIONS_H

#include "vector.h"
#if SPARSEC_BYTES == 64
#include "tanh_table.h"
#endif

#include <float.h>

INLINE vec as_float(ivec bits) { return (vec)bits; }
INLINE ivec as_bits(vec value) { return (ivec)value; }
INLINE vec absolute(vec v) { return as_float(as_bits(v) & 0x7fffffff); }
INLINE vec signed_as(vec magnitude, vec sign) { return as_float(as_bits(magnitude) | (as_bits(sign) & INT32_MIN)); }
INLINE ivec integers(vec v) { return __builtin_convertvector(v, ivec); }
INLINE vec floats(ivec v) { return __builtin_convertvector(v, vec); }

INLINE vec nearest(vec v) {
#if SPARSEC_BYTES == 64
    return (vec)_mm512_roundscale_ps((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    /* Adding and taking away 1.5 * 2^23 leaves no bits for a fraction. */
    const vec magic = splat(12582912.0f);
    vec sum = v + magic;
    /* Without this the compiler might cancel the two, where it is allowed to contract. */
#if defined(__SSE2__)
    __asm__("" : "+v"(sum));
#else
    __asm__("" : "+w"(sum));
#endif
    return sum - magic;
#endif
}

/* v * 2^n, for whole n in [-252, 252]. */
INLINE vec scaled(vec v, vec n) {
#if SPARSEC_BYTES == 64
    return (vec)_mm512_scalef_ps((__m512)v, (__m512)n);
#else
    /* In two steps, since 2^n need not be a float. */
    const ivec whole = integers(n), half = whole >> 1;
    return v * as_float((half + 127) << 23) * as_float((whole - half + 127) << 23);
#endif
}

/* a / b, for b in [1, 2]: a division takes as long as many multiplications. */
INLINE vec quotient(vec a, vec b) {
#if SPARSEC_BYTES == 64
    const vec inverse = (vec)_mm512_rcp14_ps((__m512)b), near = a * inverse;
    return near + inverse * (a - b * near);
#else
    return a / b;
#endif
}

/*
 * exp(r) - 1, where v = n log(2) + r, and log(2) is taken in two parts (Cody and Waite 1980). The polynomial has the least greatest
 * error that its degree allows, 3e-9 of exp(r).
 */
INLINE vec reduced_exponential(vec v, vec *n) {
    *n = nearest(v * 1.44269504088896341f);
    const vec r = (v - *n * 0.693359375f) + *n * 2.12194440e-4f;
    vec p = splat(1.381454291e-03f);
    p = p * r + 8.368748240e-03f;
    p = p * r + 4.166839272e-02f;
    p = p * r + 1.666651964e-01f;
    p = p * r + 4.999999404e-01f;
    return p * r * r + r;
}

INLINE vec exponential(vec v) {
    vec n;
    const vec less_one = reduced_exponential(vclamp(v, splat(-104.0f), splat(89.0f)), &n);
    return scaled(less_one + 1.0f, n);
}

/* exp(v) - 1, for v <= 0: 2^n (exp(r) - 1) + (2^n - 1), which loses nothing where v is small. */
INLINE vec exponential_less_one(vec v) {
    vec n;
    const vec less_one = reduced_exponential(vmax(splat(-104.0f), v), &n), scale = scaled(splat(1.0f), n);
    return less_one * scale + (scale - 1.0f);
}

/* log(v): v = 2^n m with m near 1, and a polynomial in m - 1 (Cephes, logf). */
INLINE vec logarithm(vec v) {
    const ivec tiny = v < FLT_MIN;
    const vec normal = choose(tiny, v * 8388608.0f, v);
    ivec n = ((as_bits(normal) >> 23) & 0xff) - 126;
    vec m = as_float((as_bits(normal) & 0x007fffff) | 0x3f000000);
    const ivec low = m < 0.707106781186547524f;
    m = choose(low, m + m, m) - 1.0f;
    const vec e = floats(n + low) - choose(tiny, splat(23.0f), (vec){0}), z = m * m;
    vec p = splat(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const vec y = m + (m * z * p - e * 2.12194440e-4f - z * 0.5f) + e * 0.693359375f;
    const vec special = choose(v == 0.0f, splat(-__builtin_inff()), choose(v > FLT_MAX, v, splat(__builtin_nanf(""))));
    return choose((v > 0.0f) & (v <= FLT_MAX), y, special);
}

/* 1 / (1 + exp(-v)): with exp(-|v|), so that small results keep all their digits. */
INLINE vec logistic(vec v) {
    const vec e = exponential(-absolute(v));
    return quotient(choose(v < 0.0f, e, splat(1.0f)), 1.0f + e);
}

#if SPARSEC_BYTES == 64
INLINE vec in_table(const float *row, __m512i places) { return (vec)_mm512_permutexvar_ps(places, _mm512_loadu_ps(row)); }

enum { TANH_TOGETHER = 4 }; /* vectors of which each operation is done in turn, so that none waits for the one before */

/* From a table, for so many vectors. Not a number stays one whatever is looked up for it. */
INLINE void hyperbolic_of(const int count, vec *v) {
    vec size[TANH_TOGETHER], beyond[TANH_TOGETHER], p[TANH_TOGETHER];
    __m512i places[TANH_TOGETHER];
#pragma GCC unroll 4
    for (int k = 0; k < count; k++) size[k] = vmin(splat(TANH_MOST), absolute(v[k]));
#pragma GCC unroll 4
    for (int k = 0; k < count; k++) places[k] = _mm512_srli_epi32((__m512i)(size[k] + TANH_BEFORE), TANH_SHIFT);
#pragma GCC unroll 4
    for (int k = 0; k < count; k++) beyond[k] = size[k] - in_table(TANH_TABLE[0], places[k]);
#pragma GCC unroll 4
    for (int k = 0; k < count; k++) p[k] = in_table(TANH_TABLE[TANH_DEGREE + 1], places[k]);
#pragma GCC unroll 8
    for (int i = TANH_DEGREE; i > 0; i--) {
#pragma GCC unroll 4
        for (int k = 0; k < count; k++) p[k] = p[k] * beyond[k] + in_table(TANH_TABLE[i], places[k]);
    }
#pragma GCC unroll 4
    for (int k = 0; k < count; k++) v[k] = signed_as(p[k], v[k]);
}

INLINE vec hyperbolic(vec v) {
    hyperbolic_of(1, &v);
    return v;
}
#else
/* v times a quotient of polynomials in v^2, fitted with a relative error of 2e-8 up to where tanh is 1. */
INLINE vec hyperbolic(vec v) {
    const vec x = vclamp(v, splat(-9.0f), splat(9.0f)), square = x * x;
    vec above = splat(1.335457789e-08f);
    above = above * square + 2.060902079e-05f;
    above = above * square + 3.495584475e-03f;
    above = above * square + 1.338102221e-01f;
    above = above * square + 1.000000000e+00f;
    vec below = splat(7.776523603e-07f);
    below = below * square + 3.285628627e-04f;
    below = below * square + 2.587696910e-02f;
    below = below * square + 4.671433866e-01f;
    below = below * square + 1.000000000e+00f;
    return vclamp(x * above / below, splat(-1.0f), splat(1.0f));
}
#endif

/* 1 - erf(size), for size >= 0: exp(-size^2) times a polynomial in t = 1 / (1 + size / 2), whose own error is 4e-8. */
INLINE vec error_function_rest(vec size) {
    const vec t = 1.0f / (1.0f + 0.5f * size);
    vec p = splat(-5.912400141e-2f);
    p = p * t + 2.848443649e-1f;
    p = p * t - 4.877596034e-1f;
    p = p * t + 2.787097714e-1f;
    p = p * t - 2.707002589e-2f;
    p = p * t + 2.028756381e-1f;
    p = p * t + 2.430558503e-1f;
    p = p * t + 2.823819241e-1f;
    p = p * t + 2.820860389e-1f;
    return p * t * exponential(-size * size);
}

/* erf(v): v times a polynomial in v^2 where v is small, with an error of 2e-9 of its own, else from its rest. */
INLINE vec error_function(vec v) {
    const vec z = v * v, size = absolute(v);
    vec p = splat(-6.748968772e-4f);
    p = p * z + 5.114260359e-3f;
    p = p * z - 2.683457602e-2f;
    p = p * z + 1.128337536e-1f;
    p = p * z - 3.761261863e-1f;
    p = p * z + 1.128379165f;
    return choose(size < 0.75f, p * v, signed_as(1.0f - error_function_rest(size), v));
}

#define FUNCTION(name) INLINE vec fn_##name(vec v, vec w, float a, float b)
#define UNUSED (void)w, (void)a, (void)b

FUNCTION(clamp) { return (void)w, vclamp(v, splat(a), splat(b)); }
FUNCTION(leaky) { return (void)w, (void)b, choose(v < 0.0f, v * a, v); }
FUNCTION(add) { return (void)a, (void)b, v + w; }
FUNCTION(subtract) { return (void)a, (void)b, v - w; }
FUNCTION(subtract_from) { return (void)a, (void)b, w - v; }
FUNCTION(multiply) { return (void)a, (void)b, v * w; }
FUNCTION(divide) { return (void)a, (void)b, v / w; }
FUNCTION(divide_into) { return (void)a, (void)b, w / v; }
FUNCTION(maximum) { return (void)a, (void)b, choose((v > w) | (v != v), v, w); }
FUNCTION(minimum) { return (void)a, (void)b, choose((v < w) | (v != v), v, w); }
FUNCTION(prelu) { return (void)a, (void)b, choose(v < 0.0f, v * w, v); }
FUNCTION(sigmoid) { return UNUSED, logistic(v); }
FUNCTION(tanh) { return UNUSED, hyperbolic(v); }
/* The exponential is infinite where the result is less than 1e-36. */
FUNCTION(silu) { return UNUSED, v / (1.0f + exponential(-v)); }
FUNCTION(hard_sigmoid) { return (void)w, vclamp(v * a + b, splat(0.0f), splat(1.0f)); }
FUNCTION(gelu) {
    UNUSED;
    const vec half = 0.5f * error_function_rest(absolute(v) * 0.707106781186547524f);
    return v * choose(v < 0.0f, half, 1.0f - half);
}
/* (1 + tanh(u)) / 2 is the logistic function of 2 u. */
FUNCTION(gelu_tanh) { return UNUSED, v * logistic(1.59576912160573071f * (v + 0.044715f * v * v * v)); }
FUNCTION(elu) { return (void)w, (void)b, choose(v < 0.0f, a * exponential_less_one(v), v); }
FUNCTION(selu) {
    return UNUSED, 1.05070098735548049f * choose(v < 0.0f, 1.67326324235437728f * exponential_less_one(v), v);
}
FUNCTION(softplus) {
    /* log(1 + exp(v)) = max(v, 0) + log(1 + exp(-|v|)); u = exp(-|v|) is at most 1, and 1 + u is rounded, which is undone. */
    UNUSED;
    const vec u = exponential(-absolute(v)), sum = 1.0f + u;
    return vmax((vec){0}, v) + choose(sum == 1.0f, u, logarithm(sum) * u / (sum - 1.0f));
}
FUNCTION(softsign) { return UNUSED, v / (1.0f + absolute(v)); }
FUNCTION(exp) { return UNUSED, exponential(v); }
FUNCTION(log) { return UNUSED, logarithm(v); }
FUNCTION(sqrt) {
    UNUSED;
#if SPARSEC_BYTES == 64
    return (vec)_mm512_sqrt_ps((__m512)v);
#elif SPARSEC_BYTES == 32
    return (vec)_mm256_sqrt_ps((__m256)v);
#elif defined(__SSE2__)
    return (vec)_mm_sqrt_ps((__m128)v);
#else
    vec y;
    for (int i = 0; i < LANES; i++) y[i] = __builtin_sqrtf(v[i]);
    return y;
#endif
}
FUNCTION(abs) { return UNUSED, absolute(v); }
FUNCTION(erf) { return UNUSED, error_function(v); }

#endif
