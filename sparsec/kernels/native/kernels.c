/* Every kernel, for one instruction set: SPARSEC_ISA names it, SPARSEC_BYTES is the size of its vectors. */
#include "kernels.h"

#include <stddef.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define JOIN_(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define NAME(kernel) JOIN(sparsec_##kernel, _f32_, SPARSEC_ISA)
#define SIZE(kernel) JOIN(sparsec_##kernel, _f32_bytes_, SPARSEC_ISA)
#define INLINE static inline __attribute__((always_inline))

enum {
    LANES = SPARSEC_BYTES / 4, /* floats in a vector */
    LINES = 8,                 /* the most vectors in a tile */
    SLICE = 16,                /* rows in a slice */
    PLACES = 32,               /* columns in a block of slices */
};

#define DECLARE(kernel, arguments) SPARSEC_API void NAME(kernel) arguments;
SPARSEC_KERNELS(DECLARE)

/* Memory is read and written without regard to alignment, which costs nothing where it is aligned. */
typedef float vec __attribute__((vector_size(SPARSEC_BYTES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t places4 __attribute__((vector_size(16)));
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (places4){i, j, k, l})
#endif

INLINE int least(int a, int b) { return a < b ? a : b; }
INLINE int most(int a, int b) { return a > b ? a : b; }
INLINE int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
INLINE vec splat(float value) { return value - (vec){0}; }

/* Comparisons with a value that is not a number are false, so it stays. */
INLINE float clamp(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

INLINE quad clamp4(quad value, float low, float high) {
#if defined(__SSE2__)
    /* Of two values of which one is not a number, these instructions return the second. */
    return (quad)_mm_min_ps(_mm_set1_ps(high), _mm_max_ps(_mm_set1_ps(low), (__m128)value));
#else
    typedef int32_t mask __attribute__((vector_size(16)));
    const quad least = (quad){0} + low, greatest = (quad){0} + high;
    const mask under = value < least;
    value = (quad)(((mask)least & under) | ((mask)value & ~under));
    const mask over = value > greatest;
    return (quad)(((mask)greatest & over) | ((mask)value & ~over));
#endif
}

/* ---- transposing between channels-last and channels-first ------------------------------------------------------------ */

INLINE void transpose4(quad *a, quad *b, quad *c, quad *d) {
    quad ab = SHUFFLE(*a, *b, 0, 4, 1, 5), ab_high = SHUFFLE(*a, *b, 2, 6, 3, 7);
    quad cd = SHUFFLE(*c, *d, 0, 4, 1, 5), cd_high = SHUFFLE(*c, *d, 2, 6, 3, 7);
    *a = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *b = SHUFFLE(ab, cd, 2, 3, 6, 7);
    *c = SHUFFLE(ab_high, cd_high, 0, 1, 4, 5);
    *d = SHUFFLE(ab_high, cd_high, 2, 3, 6, 7);
}

/*
 * planes[channel * pitch + i] = rows[i][channel] for n rows, a multiple of 4. Sixteen channels at a time: of each row a whole
 * line of the cache is read, and the planes that are written stay in the cache.
 */
static void to_planes(const float *const *rows, int n, int channels, float *planes, ptrdiff_t pitch) {
    for (int first = 0; first < channels; first += 16) {
        int stop = least(first + 16, channels), whole = first + (stop - first) / 4 * 4;
        for (int i = 0; i < n; i += 4) {
            const float *r0 = rows[i], *r1 = rows[i + 1], *r2 = rows[i + 2], *r3 = rows[i + 3];
            float *out = planes + i + first * pitch;
            int channel = first;
            for (; channel < whole; channel += 4, out += 4 * pitch) {
                quad a = *(const quad *)(r0 + channel), b = *(const quad *)(r1 + channel);
                quad c = *(const quad *)(r2 + channel), d = *(const quad *)(r3 + channel);
                transpose4(&a, &b, &c, &d);
                *(quad *)out = a;
                *(quad *)(out + pitch) = b;
                *(quad *)(out + 2 * pitch) = c;
                *(quad *)(out + 3 * pitch) = d;
            }
            for (; channel < stop; channel++, out += pitch) {
                *(quad *)out = (quad){r0[channel], r1[channel], r2[channel], r3[channel]};
            }
        }
    }
}

/* rows[i][channel] = clamp(planes[channel * pitch + i]) for n rows, a multiple of 4; those that are null are left out. */
static void from_planes(
    const float *planes, ptrdiff_t pitch, int channels, float *const *rows, int n, float low, float high
) {
    for (int first = 0; first < channels; first += 16) {
        int stop = least(first + 16, channels), whole = first + (stop - first) / 4 * 4;
        for (int i = 0; i < n; i += 4) {
            const float *in = planes + i + first * pitch;
            int channel = first;
            for (; channel < whole; channel += 4, in += 4 * pitch) {
                quad a = *(const quad *)in, b = *(const quad *)(in + pitch);
                quad c = *(const quad *)(in + 2 * pitch), d = *(const quad *)(in + 3 * pitch);
                transpose4(&a, &b, &c, &d);
                if (rows[i]) *(quad *)(rows[i] + channel) = clamp4(a, low, high);
                if (rows[i + 1]) *(quad *)(rows[i + 1] + channel) = clamp4(b, low, high);
                if (rows[i + 2]) *(quad *)(rows[i + 2] + channel) = clamp4(c, low, high);
                if (rows[i + 3]) *(quad *)(rows[i + 3] + channel) = clamp4(d, low, high);
            }
            for (; channel < stop; channel++, in += pitch) {
                for (int j = 0; j < 4; j++) {
                    if (rows[i + j]) rows[i + j][channel] = clamp(in[j], low, high);
                }
            }
        }
    }
}

/* ---- one block of a matrix times a panel ------------------------------------------------------------------------------ */

/* Where a kernel is in the streams of a matrix. */
typedef struct {
    const int32_t *runs, *order;
    const uint16_t *columns;
    const float *values;
} cursor;

INLINE cursor begin(const sparsec_matrix *m) { return (cursor){m->runs, m->order, m->columns, m->values}; }

/* What a column meets in a panel: at an offset from a table, or where every column takes one tile, at a multiple of it. */
INLINE const vec *meets(const int lines, const char *panel, const int32_t *offsets, uint16_t column) {
    return (const vec *)(panel + (offsets ? offsets[column] : (ptrdiff_t)column * lines * LANES * (ptrdiff_t)sizeof(float)));
}

/*
 * Adds the products of one block to a tile of `lines` vectors for each row. Where there are few, an entry's products go to one
 * of `ways` sums, since each has to wait for the one before it in its sum. The first block starts from the bias.
 */
INLINE cursor add_block(
    const int lines, const int ways, cursor at, int runs, const char *panel, const int32_t *offsets, const float *bias,
    int first, float *tile
) {
    for (; runs > 0; runs--, at.runs += 2) {
        const int count = at.runs[0];
        for (int n = at.runs[1]; n > 0; n--, at.columns += count, at.values += count) {
            const int row = *at.order++;
            float *out = tile + (ptrdiff_t)row * lines * LANES;
            vec sums[LINES];
#pragma GCC unroll 8
            for (int j = 0; j < lines; j++) {
                sums[j] = first ? splat(bias ? bias[row] : 0.0f) : *(vec *)(out + j * LANES);
            }
#pragma GCC unroll 8
            for (int j = lines; j < lines * ways; j++) sums[j] = (vec){0};
            int t = 0;
            for (; t + ways <= count; t += ways) {
#pragma GCC unroll 8
                for (int way = 0; way < ways; way++) {
                    const vec value = splat(at.values[t + way]);
                    const vec *x = meets(lines, panel, offsets, at.columns[t + way]);
#pragma GCC unroll 8
                    for (int j = 0; j < lines; j++) sums[way * lines + j] += value * x[j];
                }
            }
            for (; t < count; t++) {
                const vec value = splat(at.values[t]);
                const vec *x = meets(lines, panel, offsets, at.columns[t]);
#pragma GCC unroll 8
                for (int j = 0; j < lines; j++) sums[j] += value * x[j];
            }
#pragma GCC unroll 8
            for (int way = 1; way < ways; way++) {
#pragma GCC unroll 8
                for (int j = 0; j < lines; j++) sums[j] += sums[way * lines + j];
            }
#pragma GCC unroll 8
            for (int j = 0; j < lines; j++) *(vec *)(out + j * LANES) = sums[j];
        }
    }
    return at;
}

typedef cursor (*adder)(cursor, int, const char *, const int32_t *, const float *, int, float *);

#define ADDER(lines, ways) \
    static cursor add_##lines( \
        cursor at, int runs, const char *panel, const int32_t *offsets, const float *bias, int first, float *tile \
    ) { \
        return offsets ? add_block(lines, ways, at, runs, panel, offsets, bias, first, tile) \
                       : add_block(lines, ways, at, runs, panel, NULL, bias, first, tile); \
    }
ADDER(1, 4)
ADDER(2, 2)
ADDER(3, 2)
ADDER(4, 1)
ADDER(5, 1)
ADDER(6, 1)
ADDER(7, 1)
ADDER(8, 1)

static const adder ADDERS[LINES + 1] = {0, add_1, add_2, add_3, add_4, add_5, add_6, add_7, add_8};

/* ---- memory ----------------------------------------------------------------------------------------------------------- */

/* Hands out parts of the scratch memory; with no memory it counts how much is needed. */
typedef struct {
    char *memory;
    int64_t used;
} arena;

static void *take(arena *from, int64_t bytes) {
    void *part = from->memory ? from->memory + from->used : NULL;
    from->used += round_up(bytes, 64) + 64;
    return part;
}

static int widest_block(const sparsec_matrix *m) {
    int widest = 0;
    for (int b = 0; b < m->blocks; b++) widest = most(widest, m->starts[b + 1] - m->starts[b]);
    return widest;
}

/* ---- product ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    int lines, tiles;
    const float **in;
    float **out;
    float *zeros, *panel, *tile;
    int64_t bytes;
} product_plan;

static product_plan plan_product(const sparsec_matrix *m, const sparsec_geometry *g, void *scratch) {
    product_plan p;
    int64_t lines = round_up((int64_t)g->samples * g->out_height * g->out_width, LANES) / LANES;
    p.tiles = (int)(round_up(lines, LINES) / LINES);
    p.lines = p.tiles ? (int)(round_up(lines, p.tiles) / p.tiles) : 1;
    arena from = {scratch, 0};
    p.in = take(&from, sizeof(float *) * p.lines * LANES);
    p.out = take(&from, sizeof(float *) * p.lines * LANES);
    p.zeros = take(&from, sizeof(float) * m->channels);
    p.panel = take(&from, sizeof(float) * m->channels * p.lines * LANES);
    p.tile = take(&from, sizeof(float) * m->rows * p.lines * LANES);
    p.bytes = from.used;
    return p;
}

SPARSEC_API int64_t SIZE(product)(const sparsec_matrix *m, const sparsec_geometry *g) { return plan_product(m, g, NULL).bytes; }

/* Where positions `first` and following are in x and y. */
static void find_positions(
    const product_plan *p, const sparsec_matrix *m, const sparsec_geometry *g, int64_t first, const float *x, float *y
) {
    const int64_t plane = (int64_t)g->out_height * g->out_width, all = g->samples * plane;
    for (int i = 0; i < p->lines * LANES; i++) {
        const int64_t position = first + i;
        p->in[i] = p->zeros;
        p->out[i] = NULL;
        if (position >= all) continue;
        const int64_t sample = position / plane, rest = position % plane;
        const int64_t row = rest / g->out_width * g->stride_height - g->pad_height;
        const int64_t column = rest % g->out_width * g->stride_width - g->pad_width;
        p->out[i] = y + position * m->rows;
        if (row >= 0 && row < g->height && column >= 0 && column < g->width) {
            p->in[i] = x + ((sample * g->height + row) * g->width + column) * m->channels;
        }
    }
}

SPARSEC_API void NAME(product)(
    const sparsec_matrix *m, const sparsec_geometry *g, const float *x, const float *bias, float *y, void *scratch
) {
    const product_plan p = plan_product(m, g, scratch);
    const int width = p.lines * LANES;
    memset(p.zeros, 0, sizeof(float) * m->channels);
    for (int tile = 0; tile < p.tiles; tile++) {
        find_positions(&p, m, g, (int64_t)tile * width, x, y);
        to_planes(p.in, width, m->channels, p.panel, width);
        cursor at = begin(m);
        for (int b = 0; b < m->blocks; b++) {
            const char *panel = (const char *)(p.panel + (ptrdiff_t)m->starts[b] * width);
            at = ADDERS[p.lines](at, m->counts[b], panel, NULL, bias, b == 0, p.tile);
        }
        from_planes(p.tile, width, m->rows, p.out, width, g->low, g->high);
    }
}

/* ---- windows ---------------------------------------------------------------------------------------------------------- */

/*
 * A sample is first turned into planes, [channels, input row, phase, column / stride]: what one element of the window meets in
 * neighbouring positions lies together then. For a tile and a block of channels a panel is copied from them, [channels, column
 * of the window, input row by phase, tile_width], whose rows are aligned for every element of the window.
 */
typedef struct {
    int tile_rows, tile_width, lines; /* a tile */
    int down, across;                 /* how many tiles there are */
    int plane_rows, span;             /* rows of a plane, floats of one phase in one row */
    int panel_rows;                   /* input rows that a tile reads */
    ptrdiff_t row_pitch, plane_pitch, channel_pitch;
    const float **in;
    float **out;
    float *zeros, *planes, *panel, *tile;
    int32_t *offsets;
    int64_t bytes;
} windows_plan;

static windows_plan plan_windows(const sparsec_matrix *m, const sparsec_geometry *g, void *scratch) {
    windows_plan p;
    const int lines = (g->out_width + LANES - 1) / LANES;
    if (2 * g->out_width <= LANES) {
        p.tile_width = (int)round_up(g->out_width, 4);
        p.across = 1;
        p.tile_rows = LINES * LANES / p.tile_width;
    } else {
        p.across = (lines + LINES - 1) / LINES;
        p.tile_width = (lines + p.across - 1) / p.across * LANES;
        p.tile_rows = LINES * LANES / p.tile_width;
    }
    p.down = (g->out_height + p.tile_rows - 1) / p.tile_rows;
    p.tile_rows = (g->out_height + p.down - 1) / p.down;
    p.lines = (p.tile_rows * p.tile_width + LANES - 1) / LANES;
    const int reach = (g->window_height - 1) * g->dilation_height;
    p.plane_rows = (p.down * p.tile_rows - 1) * g->stride_height + reach + 1;
    p.panel_rows = (p.tile_rows - 1) * g->stride_height + reach + 1;
    p.span = (int)round_up(p.across * p.tile_width + (g->window_width - 1) * g->dilation_width / g->stride_width, 4);
    p.row_pitch = (ptrdiff_t)g->stride_width * p.span;
    p.plane_pitch = p.row_pitch * p.plane_rows;
    p.channel_pitch = (ptrdiff_t)g->window_width * p.panel_rows * p.tile_width;
    const int places = most((int)p.row_pitch, p.lines * LANES);
    arena from = {scratch, 0};
    p.in = take(&from, sizeof(float *) * places);
    p.out = take(&from, sizeof(float *) * places);
    p.zeros = take(&from, sizeof(float) * m->channels);
    p.offsets = take(&from, sizeof(int32_t) * widest_block(m) * m->taps);
    p.panel = take(&from, sizeof(float) * (widest_block(m) * p.channel_pitch + LINES * LANES));
    p.tile = take(&from, sizeof(float) * m->rows * p.lines * LANES);
    p.planes = take(&from, sizeof(float) * m->channels * p.plane_pitch);
    p.bytes = from.used;
    return p;
}

SPARSEC_API int64_t SIZE(windows)(const sparsec_matrix *m, const sparsec_geometry *g) { return plan_windows(m, g, NULL).bytes; }

/* The place in a panel of the input row that is `row` rows below the first that the tile reads: rows of one phase lie together. */
static int panel_row(const windows_plan *p, const sparsec_geometry *g, int row) {
    int place = row / g->stride_height;
    for (int phase = 0; phase < row % g->stride_height; phase++) {
        place += (p->panel_rows - phase + g->stride_height - 1) / g->stride_height;
    }
    return place;
}

static void find_offsets(const windows_plan *p, const sparsec_matrix *m, const sparsec_geometry *g) {
    const int channels = widest_block(m);
    for (int channel = 0; channel < channels; channel++) {
        for (int tap = 0; tap < m->taps; tap++) {
            const int row = panel_row(p, g, tap / g->window_width * g->dilation_height), shift = tap % g->window_width;
            const ptrdiff_t place = channel * p->channel_pitch + ((ptrdiff_t)shift * p->panel_rows + row) * p->tile_width;
            p->offsets[channel * m->taps + tap] = (int32_t)(place * (ptrdiff_t)sizeof(float));
        }
    }
}

static void make_planes(const windows_plan *p, const sparsec_matrix *m, const sparsec_geometry *g, const float *x) {
    for (int row = 0; row < p->plane_rows; row++) {
        const int y = row - g->pad_height;
        for (int i = 0; i < p->row_pitch; i++) {
            const int column = i / p->span + i % p->span * g->stride_width - g->pad_width;
            const int inside = y >= 0 && y < g->height && column >= 0 && column < g->width;
            p->in[i] = inside ? x + ((ptrdiff_t)y * g->width + column) * m->channels : p->zeros;
        }
        to_planes(p->in, (int)p->row_pitch, m->channels, p->planes + row * p->row_pitch, p->plane_pitch);
    }
}

INLINE void copy_row(float *to, const float *from, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) *(vec *)(to + i) = *(const vec *)(from + i);
    for (; i < n; i += 4) *(quad *)(to + i) = *(const quad *)(from + i);
}

/* The panel of channels `first` to `stop` for the tile whose first position is at `row` and `column`. */
static void make_panel(const windows_plan *p, const sparsec_geometry *g, int first, int stop, int row, int column) {
    for (int channel = first; channel < stop; channel++) {
        const float *plane = p->planes + channel * p->plane_pitch + (ptrdiff_t)row * g->stride_height * p->row_pitch;
        float *to = p->panel + (channel - first) * p->channel_pitch;
        for (int shift = 0; shift < g->window_width; shift++) {
            const int reach = shift * g->dilation_width;
            const float *from = plane + (ptrdiff_t)(reach % g->stride_width) * p->span + reach / g->stride_width + column;
            for (int phase = 0; phase < g->stride_height; phase++) {
                for (int r = phase; r < p->panel_rows; r += g->stride_height, to += p->tile_width) {
                    copy_row(to, from + r * p->row_pitch, p->tile_width);
                }
            }
        }
    }
}

static void find_outputs(
    const windows_plan *p, const sparsec_matrix *m, const sparsec_geometry *g, int row, int column, float *y
) {
    for (int i = 0; i < p->lines * LANES; i++) {
        const int at_row = row + i / p->tile_width, at_column = column + i % p->tile_width;
        const int inside = i / p->tile_width < p->tile_rows && at_row < g->out_height && at_column < g->out_width;
        p->out[i] = inside ? y + ((ptrdiff_t)at_row * g->out_width + at_column) * m->rows : NULL;
    }
}

SPARSEC_API void NAME(windows)(
    const sparsec_matrix *m, const sparsec_geometry *g, const float *x, const float *bias, float *y, void *scratch
) {
    const windows_plan p = plan_windows(m, g, scratch);
    memset(p.zeros, 0, sizeof(float) * m->channels);
    find_offsets(&p, m, g);
    for (int sample = 0; sample < g->samples; sample++) {
        make_planes(&p, m, g, x + (ptrdiff_t)sample * g->height * g->width * m->channels);
        float *of_sample = y + (ptrdiff_t)sample * g->out_height * g->out_width * m->rows;
        for (int tile = 0; tile < p.down * p.across; tile++) {
            const int row = tile / p.across * p.tile_rows, column = tile % p.across * p.tile_width;
            cursor at = begin(m);
            for (int b = 0; b < m->blocks; b++) {
                make_panel(&p, g, m->starts[b], m->starts[b + 1], row, column);
                at = ADDERS[p.lines](at, m->counts[b], (const char *)p.panel, p.offsets, bias, b == 0, p.tile);
            }
            find_outputs(&p, m, g, row, column, of_sample);
            from_planes(p.tile, p.lines * LANES, m->rows, p.out, p.lines * LANES, g->low, g->high);
        }
    }
}

/* ---- one vector ------------------------------------------------------------------------------------------------------- */

SPARSEC_API void NAME(vector)(
    const sparsec_matrix *m, const sparsec_geometry *g, const float *x, const float *bias, float *y, void *scratch
) {
    (void)scratch;
    cursor at = begin(m);
    for (int b = 0; b < m->blocks; b++) {
        const float *part = x + m->starts[b];
        const int first = b == 0;
        for (int runs = m->counts[b]; runs > 0; runs--, at.runs += 2) {
            const int count = at.runs[0];
            for (int n = at.runs[1]; n > 0; n--, at.columns += count, at.values += count) {
                const int row = *at.order++;
                const uint16_t *columns = at.columns;
                quad even = {0}, odd = {0};
                int t = 0;
                for (; t + 8 <= count; t += 8, columns += 8) {
                    even += *(const quad *)(at.values + t) *
                            (quad){part[columns[0]], part[columns[1]], part[columns[2]], part[columns[3]]};
                    odd += *(const quad *)(at.values + t + 4) *
                           (quad){part[columns[4]], part[columns[5]], part[columns[6]], part[columns[7]]};
                }
                for (; t + 4 <= count; t += 4, columns += 4) {
                    even += *(const quad *)(at.values + t) *
                            (quad){part[columns[0]], part[columns[1]], part[columns[2]], part[columns[3]]};
                }
                even += odd;
                float sum = (even[0] + even[1]) + (even[2] + even[3]);
                for (; t < count; t++, columns++) sum += at.values[t] * part[*columns];
                y[row] = sum + (first ? (bias ? bias[row] : 0.0f) : y[row]);
            }
        }
    }
    for (int row = 0; row < m->rows; row++) y[row] = clamp(y[row], g->low, g->high);
}

SPARSEC_API int64_t SIZE(vector)(const sparsec_matrix *m, const sparsec_geometry *g) {
    (void)m, (void)g;
    return 0;
}

/* Adds `count` entries of the 16 rows of a slice; x has 32 elements. */
#if defined(__AVX512F__)
typedef struct {
    __m512 low, high;
} places;

INLINE places read_places(const float *x) { return (places){_mm512_loadu_ps(x), _mm512_loadu_ps(x + SLICE)}; }

INLINE void add_slice(places x, int count, const uint8_t *at, const float *values, float *sums) {
    __m512 even = _mm512_loadu_ps(sums), odd = _mm512_setzero_ps();
    for (int t = 0; t < count; t++) {
        const __m512i place = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(at + t * SLICE)));
        const __m512 value = _mm512_loadu_ps(values + t * SLICE), chosen = _mm512_permutex2var_ps(x.low, place, x.high);
        if (t & 1) odd = _mm512_fmadd_ps(value, chosen, odd);
        else even = _mm512_fmadd_ps(value, chosen, even);
    }
    _mm512_storeu_ps(sums, _mm512_add_ps(even, odd));
}
#else
typedef const float *places;

INLINE places read_places(const float *x) { return x; }

INLINE void add_slice(places x, int count, const uint8_t *at, const float *values, float *sums) {
    for (int t = 0; t < count; t++) {
        for (int row = 0; row < SLICE; row++) sums[row] += values[t * SLICE + row] * x[at[t * SLICE + row]];
    }
}
#endif

SPARSEC_API int64_t SIZE(slices)(const sparsec_slices *m, const sparsec_geometry *g) {
    (void)g;
    return (int64_t)sizeof(float) * (round_up(m->rows, SLICE) + PLACES);
}

static void multiply_slices(
    const sparsec_slices *m, const sparsec_geometry *g, const float *x, const float *bias, float *y, float *sums
) {
    float *tail = sums + round_up(m->rows, SLICE);
    memset(sums, 0, sizeof(float) * round_up(m->rows, SLICE));
    if (bias) memcpy(sums, bias, sizeof(float) * m->rows);
    const int32_t *runs = m->runs, *order = m->order;
    const uint8_t *at = m->places;
    const float *values = m->values;
    for (int b = 0; b < m->blocks; b++) {
        const float *part = x + b * PLACES;
        if ((b + 1) * PLACES > m->columns) {
            memset(tail, 0, sizeof(float) * PLACES);
            part = memcpy(tail, part, sizeof(float) * (m->columns - b * PLACES));
        }
        const places chosen = read_places(part);
        for (int n = m->counts[b]; n > 0; n--, runs += 2) {
            const int count = runs[0];
            for (int slices = runs[1]; slices > 0; slices--, at += count * SLICE, values += count * SLICE) {
                add_slice(chosen, count, at, values, sums + *order++);
            }
        }
    }
    for (int row = 0; row < m->rows; row++) y[row] = clamp(sums[row], g->low, g->high);
}

SPARSEC_API void NAME(slices)(
    const sparsec_slices *m, const sparsec_geometry *g, const float *x, const float *bias, float *y, void *scratch
) {
    const int64_t vectors = (int64_t)g->samples * g->out_height * g->out_width;
    for (int64_t i = 0; i < vectors; i++, x += m->columns, y += m->rows) multiply_slices(m, g, x, bias, y, scratch);
}

/* ---- depthwise -------------------------------------------------------------------------------------------------------- */

/* One position: the sum over the elements of the window that meet the input, for `n` vectors of channels. */
INLINE void depthwise_position(
    const int n, const sparsec_geometry *g, const float *kernel, const float *x, ptrdiff_t channels, const int rows[2],
    const int columns[2], const float *bias, float *y
) {
    vec sums[4];
#pragma GCC unroll 4
    for (int j = 0; j < n; j++) sums[j] = bias ? *(const vec *)(bias + j * LANES) : (vec){0};
    for (int i = rows[0]; i < rows[1]; i++) {
        for (int k = columns[0]; k < columns[1]; k++) {
            const float *from = x + ((ptrdiff_t)i * g->dilation_height * g->width + k * g->dilation_width) * channels;
            const float *weights = kernel + ((ptrdiff_t)i * g->window_width + k) * channels;
#pragma GCC unroll 4
            for (int j = 0; j < n; j++) sums[j] += *(const vec *)(from + j * LANES) * *(const vec *)(weights + j * LANES);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < n; j++) {
#pragma GCC unroll 4
        for (int k = 0; k < LANES; k += 4) *(quad *)(y + j * LANES + k) = clamp4(((const quad *)&sums[j])[k / 4], g->low, g->high);
    }
}

/* The elements of the window that meet the input, of `window` elements that begin at `first`. */
INLINE void inside(int first, int size, int window, int dilation, int range[2]) {
    range[0] = first < 0 ? least((-first + dilation - 1) / dilation, window) : 0;
    range[1] = first < size ? least((size - first + dilation - 1) / dilation, window) : 0;
    range[1] = most(range[0], range[1]);
}

SPARSEC_API void NAME(depthwise)(
    const float *kernel, const sparsec_geometry *g, const float *x, const float *bias, float *y, int64_t channels
) {
    for (int64_t row = 0; row < (int64_t)g->samples * g->out_height; row++) {
        const int top = (int)(row % g->out_height) * g->stride_height - g->pad_height;
        int rows[2], columns[2];
        inside(top, g->height, g->window_height, g->dilation_height, rows);
        const float *sample = x + row / g->out_height * g->height * g->width * channels;
        for (int column = 0; column < g->out_width; column++, y += channels) {
            const int left = column * g->stride_width - g->pad_width;
            inside(left, g->width, g->window_width, g->dilation_width, columns);
            const float *from = sample + ((ptrdiff_t)top * g->width + left) * channels;
            int64_t c = 0;
            for (; c + 4 * LANES <= channels; c += 4 * LANES) {
                depthwise_position(4, g, kernel + c, from + c, channels, rows, columns, bias ? bias + c : NULL, y + c);
            }
            for (; c + LANES <= channels; c += LANES) {
                depthwise_position(1, g, kernel + c, from + c, channels, rows, columns, bias ? bias + c : NULL, y + c);
            }
            for (; c < channels; c++) {
                float sum = bias ? bias[c] : 0.0f;
                for (int i = rows[0]; i < rows[1]; i++) {
                    for (int k = columns[0]; k < columns[1]; k++) {
                        sum += from[((ptrdiff_t)i * g->dilation_height * g->width + k * g->dilation_width) * channels + c] *
                               kernel[((ptrdiff_t)i * g->window_width + k) * channels + c];
                    }
                }
                y[c] = clamp(sum, g->low, g->high);
            }
        }
    }
}
