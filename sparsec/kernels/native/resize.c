/*
 * Other numbers of rows and columns: the nearest, or interpolation between the two nearest along either axis. The centres of the
 * first and the last position lie half a position from the border, before and after.
 */
#include "vector.h"

enum { NEAREST, LINEAR };

/* What position i of the output is made of, along one axis: x[low] + (x[high] - x[low]) * weight. */
typedef struct {
    int32_t *low, *high;
    float *weight;
} axis;

typedef struct {
    axis down, across;
    float *rows[2]; /* rows of the input with as many columns as the output */
    int64_t bytes;
} resize_plan;

static axis take_axis(arena *from, int size) {
    const int64_t room = round_up(size, LANES);
    axis a;
    a.low = take(from, sizeof(int32_t) * room);
    a.high = take(from, sizeof(int32_t) * room);
    a.weight = take(from, sizeof(float) * room);
    return a;
}

static resize_plan plan_resize(const sparsec_step *s, void *scratch) {
    arena from = {scratch, 0};
    resize_plan p;
    p.down = take_axis(&from, s->y.height);
    p.across = take_axis(&from, s->y.width);
    for (int i = 0; i < 2; i++) p.rows[i] = take(&from, sizeof(float) * round_up(s->y.width, LANES));
    p.bytes = from.used;
    return p;
}

static void find_places(const axis *a, int kind, int from, int to) {
    for (int i = 0; i < round_up(to, LANES); i++) {
        const double centre = (least(i, to - 1) + 0.5) * ((double)from / to);
        double place = kind == NEAREST ? centre : centre - 0.5;
        place = place < 0 ? 0 : place > from - 1 && kind == LINEAR ? from - 1 : place;
        a->low[i] = least((int)place, from - 1);
        a->high[i] = least(a->low[i] + 1, from - 1);
        a->weight[i] = (float)(place - a->low[i]);
    }
}

INLINE vec gather(const float *from, const int32_t *places) {
#if SPARSEC_BYTES == 64
    return (vec)_mm512_i32gather_ps(_mm512_loadu_si512(places), from, 4);
#elif SPARSEC_BYTES == 32
    return (vec)_mm256_i32gather_ps(from, _mm256_loadu_si256((const __m256i *)places), 4);
#else
    return (vec){from[places[0]], from[places[1]], from[places[2]], from[places[3]]};
#endif
}

/* A row with as many columns as the output; what is written beyond them means nothing. */
static void make_row(const resize_plan *p, const sparsec_step *s, const float *x, float *to) {
    const axis *a = &p->across;
    if (s->x.width == s->y.width) {
        memcpy(to, x, sizeof(float) * s->y.width);
        return;
    }
    for (int i = 0; i < s->y.width; i += LANES) {
        const vec low = gather(x, a->low + i);
        if (s->options[0] == NEAREST) store(to + i, low);
        else store(to + i, low + (gather(x, a->high + i) - low) * load(a->weight + i));
    }
}

/* Rows of the input are needed in order, so of each pair of them the second may be the first of the next. */
static void run_plane(resize_plan *p, const sparsec_step *s, const float *x, float *y) {
    const axis *a = &p->down;
    const int width = s->y.width, blends = s->options[0] == LINEAR && s->x.height != s->y.height;
    int made[2] = {-1, -1};
    for (int row = 0; row < s->y.height; row++, y += width) {
        const int wanted[2] = {a->low[row], a->high[row]};
        if (made[0] != wanted[0]) {
            float *spare = p->rows[0];
            p->rows[0] = p->rows[1], made[0] = made[1];
            p->rows[1] = spare, made[1] = -1;
        }
        for (int i = 0; i < 1 + blends; i++) {
            if (made[i] == wanted[i]) continue;
            make_row(p, s, x + (ptrdiff_t)wanted[i] * s->x.width, p->rows[i]);
            made[i] = wanted[i];
        }
        if (!blends) {
            memcpy(y, p->rows[0], sizeof(float) * width);
            continue;
        }
        const float weight = a->weight[row];
        for (int i = 0; i < width; i++) y[i] = p->rows[0][i] + (p->rows[1][i] - p->rows[0][i]) * weight;
    }
}

int64_t SIZE(resize)(const sparsec_step *s) { return plan_resize(s, NULL).bytes; }

void NAME(resize)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    resize_plan p = plan_resize(s, scratch);
    const int64_t size_x = (int64_t)s->x.height * s->x.width, size_y = (int64_t)s->y.height * s->y.width;
    const int64_t begin = share(s->y.channels, part, parts), end = share(s->y.channels, part + 1, parts);
    find_places(&p.down, s->options[0], s->x.height, s->y.height);
    find_places(&p.across, s->options[0], s->x.width, s->y.width);
    for (int64_t row = begin; row < end; row++) {
        for (int n = 0; n < s->y.samples; n++) {
            run_plane(&p, s, row_of(&s->x, memory, row) + n * size_x, row_of(&s->y, memory, row) + n * size_y);
        }
        if (finishes(s)) NAME(finish)(s, memory, row, 0, positions(&s->y));
    }
}
