/* A sparse matrix times one vector. */
#include "vector.h"

enum {
    SLICE = 16,  /* rows in a slice */
    PLACES = 32, /* columns in a block of slices */
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

/* Adds `count` entries of the 16 rows of a slice; x has 32 elements. */
#if SPARSEC_BYTES == 64
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

static int64_t padded_rows(const sparsec_step *s) {
    const sparsec_slices *m = s->weights;
    int64_t most_rows = 0;
    for (int i = 0; i < s->pieces; i++) most_rows = most_rows > m[i].rows ? most_rows : m[i].rows;
    return round_up(most_rows, SLICE);
}

int64_t SIZE(slices)(const sparsec_step *s) { return (int64_t)sizeof(float) * (padded_rows(s) + PLACES); }

static void multiply_slices(const sparsec_slices *m, const float *x, const float *bias, float *y, float *sums, float *tail) {
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
    memcpy(y, sums, sizeof(float) * m->rows);
}

void NAME(slices)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const sparsec_slices *m = s->weights;
    const int64_t first = share(s->pieces, part, parts), stop = share(s->pieces, part + 1, parts);
    float *sums = scratch, *tail = sums + padded_rows(s);
    int64_t row = 0;
    for (int64_t i = 0; i < stop; row += m[i++].rows) {
        if (i < first) continue;
        multiply_slices(m + i, row_of(&s->x, memory, 0), s->bias ? s->bias + row : NULL, row_of(&s->y, memory, row), sums, tail);
        finish_rows(s, memory, row, row + m[i].rows);
    }
}
