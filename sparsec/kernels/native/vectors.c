/* A matrix times one vector. */
#include "vector.h"

enum {
    GROUP = 4,       /* entries of a row in a group */
    HOP = 8,         /* columns */
    MOST_ROWS = 16,  /* in a slice */
    AHEAD = 2048,    /* bytes by which values are fetched ahead */
    FAR = 1 << 18,   /* entries of slices from which on they are: hardware does well with what is in the second-level cache */
};

int64_t SIZE(vector)(const sparsec_step *s) { return (void)s, 0; }

static void multiply_vector(const sparsec_matrix *m, const float *x, const float *bias, float *y) {
    const int32_t *runs = m->runs, *order = m->order;
    const uint16_t *columns = m->columns;
    const float *values = m->values;
    for (int b = 0; b < m->blocks; b++) {
        const float *part = x + m->starts[b];
        const int first = b == 0;
        for (int left = m->counts[b]; left > 0; left--, runs += 2) {
            const int count = runs[0];
            for (int n = runs[1]; n > 0; n--) {
                const int row = *order++;
                quad even = {0}, odd = {0};
                int e = 0;
                for (; e + 8 <= count; e += 8, columns += 8, values += 8) {
                    even += *(const quad *)values * (quad){part[columns[0]], part[columns[1]], part[columns[2]], part[columns[3]]};
                    odd += *(const quad *)(values + 4) *
                           (quad){part[columns[4]], part[columns[5]], part[columns[6]], part[columns[7]]};
                }
                for (; e + 4 <= count; e += 4, columns += 4, values += 4) {
                    even += *(const quad *)values * (quad){part[columns[0]], part[columns[1]], part[columns[2]], part[columns[3]]};
                }
                even += odd;
                float sum = (even[0] + even[1]) + (even[2] + even[3]);
                for (; e < count; e++) sum += *values++ * part[*columns++];
                y[row] = sum + (first ? (bias ? bias[row] : 0.0f) : y[row]);
            }
        }
    }
}

/* Adds the residual, which is not done in the kernels of one vector, then the clamp and the posts. */
static void finish_rows(const sparsec_step *s, float *const *memory, int64_t first, int64_t stop) {
    if (s->residual.base >= 0) {
        const float *residual = row_of(&s->residual, memory, 0);
        float *y = row_of(&s->y, memory, 0);
        for (int64_t row = first; row < stop; row++) y[row] += residual[row];
    }
    NAME(finish_vector)(s, memory, first, stop);
}

void NAME(vector)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const sparsec_matrix *m = s->weights;
    const int64_t first = share(s->pieces, part, parts), stop = share(s->pieces, part + 1, parts);
    int64_t row = 0;
    for (int64_t i = 0; i < stop; row += m[i++].rows) {
        if (i < first) continue;
        multiply_vector(m + i, row_of(&s->x, memory, 0), s->bias ? s->bias + row : NULL, row_of(&s->y, memory, row));
        finish_rows(s, memory, row, row + m[i].rows);
    }
}

/* Where a kernel is in the streams of slices. */
typedef struct {
    const uint8_t *hops, *places;
    const float *values;
} place;

INLINE place past(place at, int height, int windows) {
    return (place){at.hops + windows, at.places + GROUP * height, at.values + GROUP * height};
}

INLINE void fetch_ahead(place at, int height) {
    for (int i = 0; i < GROUP * height; i += LINE) __builtin_prefetch((const char *)(at.values + i) + AHEAD);
    __builtin_prefetch(at.places + AHEAD / sizeof(float));
}

/*
 * The functions that follow compute the sums of the rows of one slice over so many groups; `far` says that what comes next is not
 * in the cache. Four places of a row are the bytes of one word.
 */

INLINE place add_groups_of_4(int far, place at, int groups, const float *x, float *sums) {
    quad even = {0}, odd = {0};
    for (; groups > 0; groups--, at = past(at, 4, 1)) {
        if (far) fetch_ahead(at, 4);
        x += HOP * *at.hops;
        /* A word of places is read at once: loads are what limits this. */
        uint32_t rows[4];
        memcpy(rows, at.places, sizeof rows);
#pragma GCC unroll 4
        for (int t = 0; t < GROUP; t++) {
            const quad chosen = {
                x[(uint8_t)(rows[0] >> 8 * t)], x[(uint8_t)(rows[1] >> 8 * t)],
                x[(uint8_t)(rows[2] >> 8 * t)], x[(uint8_t)(rows[3] >> 8 * t)],
            };
            const quad products = *(const quad *)(at.values + 4 * t) * chosen;
            if (t & 1) odd += products;
            else even += products;
        }
    }
    *(quad *)sums = even + odd;
    return at;
}

#if SPARSEC_BYTES >= 32
typedef uint32_t uvec __attribute__((vector_size(SPARSEC_BYTES), aligned(4), may_alias));
#endif

#if SPARSEC_BYTES == 64

/* The elements of a window of 64 or 128 columns at the lowest bytes of `places`, whose higher bits are passed over. */
INLINE __m512 pick_from(int width, const __m512 *window, __m512i places) {
    /* A permutation looks at five bits, and so picks from 32 columns. */
    const __mmask16 bit5 = _mm512_test_epi32_mask(places, _mm512_set1_epi32(32));
    const __m512 low = _mm512_mask_blend_ps(
        bit5, _mm512_permutex2var_ps(window[0], places, window[1]), _mm512_permutex2var_ps(window[2], places, window[3])
    );
    if (width == 64) return low;
    const __m512 high = _mm512_mask_blend_ps(
        bit5, _mm512_permutex2var_ps(window[4], places, window[5]), _mm512_permutex2var_ps(window[6], places, window[7])
    );
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(places, _mm512_set1_epi32(64)), low, high);
}

INLINE place add_groups_of_16(int width, int far, place at, int groups, const float *x, float *sums) {
    vec even = {0}, odd = {0};
    for (; groups > 0; groups--, at = past(at, 16, 1)) {
        if (far) fetch_ahead(at, 16);
        x += HOP * *at.hops;
        __m512 window[8];
#pragma GCC unroll 8
        for (int i = 0; i < width / 16; i++) window[i] = _mm512_loadu_ps(x + 16 * i);
        const uvec places = *(const uvec *)at.places;
#pragma GCC unroll 4
        for (int t = 0; t < GROUP; t++) {
            const vec products = load(at.values + 16 * t) * (vec)pick_from(width, window, (__m512i)(places >> 8 * t));
            if (t & 1) odd += products;
            else even += products;
        }
    }
    store(sums, even + odd);
    return at;
}

#elif SPARSEC_BYTES == 32

INLINE __m256 permute(const float *x, __m256i places) { return _mm256_permutevar8x32_ps(_mm256_loadu_ps(x), places); }

/* The elements of a window of 16 or 32 columns at byte t of `places`. */
INLINE __m256 pick_from(int width, const float *x, uvec places, int t) {
    /* A permutation looks at the lowest three bits, a blend at the highest. */
    const __m256i lane = (__m256i)(places >> 8 * t);
    const __m256 bit3 = (__m256)(places << (28 - 8 * t));
    const __m256 low = _mm256_blendv_ps(permute(x, lane), permute(x + 8, lane), bit3);
    if (width == 16) return low;
    const __m256 high = _mm256_blendv_ps(permute(x + 16, lane), permute(x + 24, lane), bit3);
    return _mm256_blendv_ps(low, high, (__m256)(places << (27 - 8 * t)));
}

INLINE place add_groups_of_8(int width, int far, place at, int groups, const float *x, float *sums) {
    vec even = {0}, odd = {0};
    for (; groups > 0; groups--, at = past(at, 8, GROUP)) {
        if (far) fetch_ahead(at, 8);
        const uvec places = *(const uvec *)at.places;
#pragma GCC unroll 4
        for (int t = 0; t < GROUP; t++) {
            x += HOP * at.hops[t];
            const vec products = load(at.values + 8 * t) * (vec)pick_from(width, x, places, t);
            if (t & 1) odd += products;
            else even += products;
        }
    }
    store(sums, even + odd);
    return at;
}

#endif

INLINE place add_groups(int height, int width, int far, place at, int groups, const float *x, float *sums) {
#if SPARSEC_BYTES == 64
    if (height == 16) return add_groups_of_16(width, far, at, groups, x, sums);
#elif SPARSEC_BYTES == 32
    if (height == 8) return add_groups_of_8(width, far, at, groups, x, sums);
#endif
    (void)height, (void)width;
    return add_groups_of_4(far, at, groups, x, sums);
}

INLINE void multiply_as(int height, int width, int far, const sparsec_slices *m, const float *x, const float *bias, float *y) {
    place at = {m->hops, m->places, m->values};
    const int32_t *lengths = m->lengths;
    for (int first = 0; first < m->rows; first += height) {
        float sums[MOST_ROWS];
        const int32_t *order = m->order + first;
        at = add_groups(height, width, far, at, *lengths++, x, sums);
        for (int i = 0; i < least(height, m->rows - first); i++) y[order[i]] = sums[i] + (bias ? bias[order[i]] : 0.0f);
    }
}

static void multiply_slices(const sparsec_slices *m, const float *x, const float *bias, float *y) {
    const int far = (int64_t)m->groups * m->height * GROUP >= FAR;
#define SPARSEC_AS(height_, width_) \
    if (m->height == height_ && m->width == width_) { \
        if (far) multiply_as(height_, width_, 1, m, x, bias, y); \
        else multiply_as(height_, width_, 0, m, x, bias, y); \
    }
    SPARSEC_AS(4, 256)
#if SPARSEC_BYTES == 64
    SPARSEC_AS(16, 64)
    SPARSEC_AS(16, 128)
#elif SPARSEC_BYTES == 32
    SPARSEC_AS(8, 16)
    SPARSEC_AS(8, 32)
#endif
#undef SPARSEC_AS
}

/* Windows may reach behind the vector, so they are of a copy of it. */
static int64_t padded(const sparsec_slices *m) { return round_up(m->columns, LINE) + m->width; }

int64_t SIZE(slices)(const sparsec_step *s) { return (int64_t)sizeof(float) * padded(s->weights); }

void NAME(slices)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const sparsec_slices *m = s->weights;
    const int64_t first = share(s->pieces, part, parts), stop = share(s->pieces, part + 1, parts);
    float *x = scratch;
    memcpy(x, row_of(&s->x, memory, 0), sizeof(float) * m->columns);
    memset(x + m->columns, 0, sizeof(float) * (padded(m) - m->columns));
    int64_t row = 0;
    for (int64_t i = 0; i < stop; row += m[i++].rows) {
        if (i < first) continue;
        multiply_slices(m + i, x, s->bias ? s->bias + row : NULL, row_of(&s->y, memory, row));
        finish_rows(s, memory, row, row + m[i].rows);
    }
}

/* ---- dense matrices ------------------------------------------------------------------------------------------------------- */

int64_t SIZE(dense)(const sparsec_step *s) { return (void)s, 0; }

/* The sums of a group of rows, of which a column fills a vector where `whole` says so; four columns at a time are added by themselves. */
INLINE vec multiply_group(const int whole, const float *values, int height, int columns, const float *x) {
    const lanes which = lanes_of(0, height);
#define COLUMN(c) (whole ? load(values + (ptrdiff_t)(c) * LANES) : load_lanes(values + (ptrdiff_t)(c) * height, which))
    vec sums[4] = {{0}};
    int c = 0;
    for (; c + 4 <= columns; c += 4) {
        const vec met = load_fours(x + c);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sums[i] += COLUMN(c + i) * pick(met, i);
    }
    for (; c < columns; c++) sums[0] += COLUMN(c) * splat(x[c]);
#undef COLUMN
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

void NAME(dense)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const sparsec_filters *m = s->weights;
    const int columns = m->channels * m->taps, groups = (m->rows + m->height - 1) / m->height;
    const int first = (int)share(groups, part, parts), stop = (int)share(groups, part + 1, parts);
    if (first == stop) return;
    const float *x = row_of(&s->x, memory, 0);
    float *y = row_of(&s->y, memory, 0);
    for (int group = first; group < stop; group++) {
        const float *values = m->values + (ptrdiff_t)group * columns * m->height;
        const int row = group * m->height;
        const lanes which = lanes_of(0, least(m->height, m->rows - row));
        vec sums = m->height == LANES ? multiply_group(1, values, LANES, columns, x) : multiply_group(0, values, m->height, columns, x);
        if (s->bias) sums += load_lanes(s->bias + row, which);
        store_lanes(y + row, sums, which);
    }
    finish_rows(s, memory, first * m->height, least(stop * m->height, m->rows));
}
