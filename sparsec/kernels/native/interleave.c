/*
 * Channels put between one another: several channels of x are the phases of one channel of y, which has so many times as many rows
 * and columns. Where a side of y is no multiple of the stride, the last positions of some phases are left out.
 */
#include "vector.h"

/* The lanes of a and b in turn: the first half of both, and the second. */
#if SPARSEC_BYTES == 64
INLINE vec first_pairs(vec a, vec b) {
    const __m512i places = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return (vec)_mm512_permutex2var_ps((__m512)a, places, (__m512)b);
}
INLINE vec second_pairs(vec a, vec b) {
    const __m512i places = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return (vec)_mm512_permutex2var_ps((__m512)a, places, (__m512)b);
}
#elif SPARSEC_BYTES == 32
/* _mm256_unpack* go over each half of a vector for itself. */
INLINE vec first_pairs(vec a, vec b) {
    return (vec)_mm256_permute2f128_ps(_mm256_unpacklo_ps((__m256)a, (__m256)b), _mm256_unpackhi_ps((__m256)a, (__m256)b), 0x20);
}
INLINE vec second_pairs(vec a, vec b) {
    return (vec)_mm256_permute2f128_ps(_mm256_unpacklo_ps((__m256)a, (__m256)b), _mm256_unpackhi_ps((__m256)a, (__m256)b), 0x31);
}
#else
INLINE vec first_pairs(vec a, vec b) { return (vec)SHUFFLE((quad)a, (quad)b, 0, 4, 1, 5); }
INLINE vec second_pairs(vec a, vec b) { return (vec)SHUFFLE((quad)a, (quad)b, 2, 6, 3, 7); }
#endif

enum { MOST = 8 };

/*
 * Clamped phases, as many as a power of two, that are `apart` floats from one another: to[i * phases + k] is element i of phase k.
 * A perfect shuffle of vectors is done as often as to get from one phase to all.
 */
INLINE void join_known(const int phases, const sparsec_step *s, const float *from, ptrdiff_t apart, float *to, int width) {
    const vec low = splat(s->low), high = splat(s->high);
    for (int left = width; left > 0; left -= phases * LANES, from += LANES, to += phases * LANES) {
        const int whole = left >= phases * LANES;
        vec v[MOST], mixed[MOST];
#pragma GCC unroll 8
        for (int k = 0; k < phases; k++) {
            const float *at = from + k * apart;
            v[k] = whole ? load(at) : load_lanes(at, lanes_of(0, (left - k + phases - 1) / phases));
        }
#pragma GCC unroll 3
        for (int done = 1; done < phases; done *= 2) {
#pragma GCC unroll 4
            for (int k = 0; k < phases / 2; k++) {
                mixed[2 * k] = first_pairs(v[k], v[k + phases / 2]);
                mixed[2 * k + 1] = second_pairs(v[k], v[k + phases / 2]);
            }
#pragma GCC unroll 8
            for (int k = 0; k < phases; k++) v[k] = mixed[k];
        }
#pragma GCC unroll 8
        for (int k = 0; k < phases; k++) {
            const vec clamped = vclamp(v[k], low, high);
            if (whole) store(to + k * LANES, clamped);
            else if (left > k * LANES) store_lanes(to + k * LANES, clamped, lanes_of(0, left - k * LANES));
        }
    }
}

/* The same for any number of phases. */
static void join_any(const sparsec_step *s, const float *from, ptrdiff_t apart, float *to, int width) {
    const int stride = s->window.stride_width;
    for (int phase = 0; phase < stride; phase++, from += apart) {
        for (int i = phase, j = 0; i < width; i += stride, j++) to[i] = clamp(from[j], s->low, s->high);
    }
}

static void join(const sparsec_step *s, const float *from, ptrdiff_t apart, float *to, int width) {
    switch (s->window.stride_width) {
        case 1: join_known(1, s, from, apart, to, width); break;
        case 2: join_known(2, s, from, apart, to, width); break;
        case 4: join_known(4, s, from, apart, to, width); break;
        case 8: join_known(8, s, from, apart, to, width); break;
        default: join_any(s, from, apart, to, width);
    }
}

int64_t SIZE(interleave)(const sparsec_step *s) { return (void)s, 0; }

/* The work is shared out by rows of positions, since there may be but one channel. */
void NAME(interleave)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int down = s->window.stride_height, across = s->window.stride_width, width = s->y.width, height = s->y.height;
    const int64_t rows = (int64_t)s->y.samples * height, all = rows * s->y.channels;
    const int64_t begin = share(all, part, parts), end = share(all, part + 1, parts);
    const ptrdiff_t apart = s->y.channels * s->x.pitch;
    for (int64_t at = begin; at < end;) {
        const int64_t channel = at / rows, first = at % rows, stop = end - at < rows - first ? first + end - at : rows;
        const float *x = row_of(&s->x, memory, channel);
        float *y = row_of(&s->y, memory, channel) + first * width;
        for (int64_t row = first; row < stop; row++, y += width) {
            const int in_plane = (int)(row % height);
            const float *from = x + in_plane % down * across * apart + (row / height * s->x.height + in_plane / down) * s->x.width;
            join(s, from, apart, y, width);
        }
        if (s->posts) NAME(post)(s, memory, channel, first * width, (stop - first) * width);
        at += stop - first;
    }
}
