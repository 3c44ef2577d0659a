/* Turning rows into columns. */
#ifndef SPARSEC_TRANSPOSE_H
#define SPARSEC_TRANSPOSE_H

#include "vector.h"

INLINE void transpose4(quad *a, quad *b, quad *c, quad *d) {
    quad ab = SHUFFLE(*a, *b, 0, 4, 1, 5), ab_high = SHUFFLE(*a, *b, 2, 6, 3, 7);
    quad cd = SHUFFLE(*c, *d, 0, 4, 1, 5), cd_high = SHUFFLE(*c, *d, 2, 6, 3, 7);
    *a = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *b = SHUFFLE(ab, cd, 2, 3, 6, 7);
    *c = SHUFFLE(ab_high, cd_high, 0, 1, 4, 5);
    *d = SHUFFLE(ab_high, cd_high, 2, 3, 6, 7);
}

enum { SHORT = 64 }; /* so few floats of a row lie near the next row */

/* A square of as many rows as a vector has lanes. Whole vectors are read and written, which leaves no line half done in the cache. */
#if SPARSEC_BYTES == 64
INLINE void transpose_square(const float *from, ptrdiff_t from_pitch, float *to, ptrdiff_t to_pitch) {
    __m512 a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(from + i * from_pitch);
    /* In each quarter of the vectors, squares of four. */
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        const __m512d ab = (__m512d)_mm512_unpacklo_ps(a[i], a[i + 1]), ab_high = (__m512d)_mm512_unpackhi_ps(a[i], a[i + 1]);
        const __m512d cd = (__m512d)_mm512_unpacklo_ps(a[i + 2], a[i + 3]);
        const __m512d cd_high = (__m512d)_mm512_unpackhi_ps(a[i + 2], a[i + 3]);
        b[i] = (__m512)_mm512_unpacklo_pd(ab, cd);
        b[i + 1] = (__m512)_mm512_unpackhi_pd(ab, cd);
        b[i + 2] = (__m512)_mm512_unpacklo_pd(ab_high, cd_high);
        b[i + 3] = (__m512)_mm512_unpackhi_pd(ab_high, cd_high);
    }
    /* Then the quarters change places. */
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 even = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88), odd = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
        const __m512 even_next = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
        const __m512 odd_next = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
        _mm512_storeu_ps(to + i * to_pitch, _mm512_shuffle_f32x4(even, even_next, 0x88));
        _mm512_storeu_ps(to + (i + 4) * to_pitch, _mm512_shuffle_f32x4(odd, odd_next, 0x88));
        _mm512_storeu_ps(to + (i + 8) * to_pitch, _mm512_shuffle_f32x4(even, even_next, 0xdd));
        _mm512_storeu_ps(to + (i + 12) * to_pitch, _mm512_shuffle_f32x4(odd, odd_next, 0xdd));
    }
}
#elif SPARSEC_BYTES == 32
INLINE void transpose_square(const float *from, ptrdiff_t from_pitch, float *to, ptrdiff_t to_pitch) {
    __m256 a[8], b[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps(from + i * from_pitch);
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        const __m256d ab = (__m256d)_mm256_unpacklo_ps(a[i], a[i + 1]), ab_high = (__m256d)_mm256_unpackhi_ps(a[i], a[i + 1]);
        const __m256d cd = (__m256d)_mm256_unpacklo_ps(a[i + 2], a[i + 3]);
        const __m256d cd_high = (__m256d)_mm256_unpackhi_ps(a[i + 2], a[i + 3]);
        b[i] = (__m256)_mm256_unpacklo_pd(ab, cd);
        b[i + 1] = (__m256)_mm256_unpackhi_pd(ab, cd);
        b[i + 2] = (__m256)_mm256_unpacklo_pd(ab_high, cd_high);
        b[i + 3] = (__m256)_mm256_unpackhi_pd(ab_high, cd_high);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * to_pitch, _mm256_permute2f128_ps(b[i], b[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * to_pitch, _mm256_permute2f128_ps(b[i], b[i + 4], 0x31));
    }
}
#else
INLINE void transpose_square(const float *from, ptrdiff_t from_pitch, float *to, ptrdiff_t to_pitch) {
    quad a = load(from), b = load(from + from_pitch), c = load(from + 2 * from_pitch), d = load(from + 3 * from_pitch);
    transpose4(&a, &b, &c, &d);
    store(to, a);
    store(to + to_pitch, b);
    store(to + 2 * to_pitch, c);
    store(to + 3 * to_pitch, d);
}
#endif

/* to[j * to_pitch + i] = from[i * from_pitch + j] for i < rows, j < columns, of which there are few either way. */
static void transpose_narrow(
    const float *from, ptrdiff_t from_pitch, float *to, ptrdiff_t to_pitch, int64_t rows, int64_t columns
) {
    const int64_t whole_rows = rows / 4 * 4, whole = columns / 4 * 4;
    for (int64_t i = 0; i < whole_rows; i += 4) {
        const float *row = from + i * from_pitch;
        float *out = to + i;
        for (int64_t j = 0; j < whole; j += 4, out += 4 * to_pitch) {
            quad a = *(const quad *)(row + j), b = *(const quad *)(row + from_pitch + j);
            quad c = *(const quad *)(row + 2 * from_pitch + j), d = *(const quad *)(row + 3 * from_pitch + j);
            transpose4(&a, &b, &c, &d);
            *(quad *)out = a;
            *(quad *)(out + to_pitch) = b;
            *(quad *)(out + 2 * to_pitch) = c;
            *(quad *)(out + 3 * to_pitch) = d;
        }
        for (int64_t j = whole; j < columns; j++, out += to_pitch) {
            *(quad *)out = (quad){row[j], row[from_pitch + j], row[2 * from_pitch + j], row[3 * from_pitch + j]};
        }
    }
    for (int64_t i = whole_rows; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) to[j * to_pitch + i] = from[i * from_pitch + j];
    }
}

/* to[j * to_pitch + i] = from[i * from_pitch + j] for i < rows, j < columns. Where rows of the output are long, they are written from end to end. */
static void transpose(const float *from, ptrdiff_t from_pitch, float *to, ptrdiff_t to_pitch, int64_t rows, int64_t columns) {
    const int64_t whole_rows = rows / LANES * LANES, whole = columns / LANES * LANES;
    if (rows >= SHORT) {
        for (int64_t j = 0; j < whole; j += LANES) {
            for (int64_t i = 0; i < whole_rows; i += LANES) {
                transpose_square(from + i * from_pitch + j, from_pitch, to + j * to_pitch + i, to_pitch);
            }
        }
    } else {
        for (int64_t i = 0; i < whole_rows; i += LANES) {
            for (int64_t j = 0; j < whole; j += LANES) {
                transpose_square(from + i * from_pitch + j, from_pitch, to + j * to_pitch + i, to_pitch);
            }
        }
    }
    transpose_narrow(from + whole, from_pitch, to + whole * to_pitch, to_pitch, whole_rows, columns - whole);
    transpose_narrow(from + whole_rows * from_pitch, from_pitch, to + whole_rows, to_pitch, rows - whole_rows, columns);
}

#endif
