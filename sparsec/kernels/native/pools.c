/*
 * The greatest and the mean of windows. For each row of the output, the rows of the input that the window is over are made one,
 * in a buffer with room to both sides; then what the window is over in that.
 */
#include "vector.h"

typedef struct {
    float *buffer;  /* a row of the input, with what does not count to both sides */
    float *inverse; /* of each position of a row of the output, 1 / how many columns of its window lie inside */
    int64_t before, size;
    int64_t bytes;
} pool_plan;

static pool_plan plan_pool(const sparsec_step *s, void *scratch) {
    const sparsec_window *w = &s->window;
    pool_plan p;
    const int64_t width = round_up(s->y.width, LANES);
    const int64_t end = (width - 1) * w->stride_width + (int64_t)(w->width - 1) * w->dilation_width + 1 - w->pad_width;
    p.before = round_up(w->pad_width, LINE);
    p.size = p.before + (end > s->x.width ? end : s->x.width) + 2 * LANES;
    arena from = {scratch, 0};
    p.buffer = take(&from, sizeof(float) * p.size);
    p.inverse = take(&from, sizeof(float) * width);
    p.bytes = from.used;
    return p;
}

INLINE vec joined(const int greatest, vec a, vec b) { return greatest ? maximum(a, b) : (vec)(a + b); }

/* How many of `count` things, `step` apart from `first` on, lie in 0 <= i < size. */
static int inside(int first, int step, int count, int size) {
    int found = 0;
    for (int k = 0; k < count; k++) found += first + k * step >= 0 && first + k * step < size;
    return found;
}

/* What a row of windows is over, made one: to[i] for i < width. */
INLINE void join_rows(const int greatest, const int count, const float *from, int64_t step, int rows, float *to, int width) {
    const int taps = count ? count : rows;
    int i = 0;
    for (;;) {
        if (width >= LANES) {
            vec sum = load(from + i);
#pragma GCC unroll 4
            for (int k = 1; k < taps; k++) sum = joined(greatest, sum, load(from + k * step + i));
            store(to + i, sum);
            if (i + LANES >= width) return;
            i = least(i + LANES, width - LANES);
        } else {
            const lanes which = lanes_of(0, width);
            vec sum = load_lanes(from, which);
            for (int k = 1; k < taps; k++) sum = joined(greatest, sum, load_lanes(from + k * step, which));
            store_lanes(to, sum, which);
            return;
        }
    }
}

/* Lane i is from[i * step]. */
INLINE vec strided(const int stride, const float *from, int step) {
    if (stride == 1) return load(from);
    if (stride == 2) return evens(load(from), load(from + LANES));
    vec value;
    for (int i = 0; i < LANES; i++) value[i] = from[(ptrdiff_t)i * step];
    return value;
}

/*
 * A row of the output out of the buffer. What is written beyond its end is the beginning of a row that is computed later, as
 * long as there is `room` for it.
 */
INLINE void join_columns(
    const int greatest, const int stride, const int count, const pool_plan *p, const sparsec_step *s, float inverse, float *y, int64_t room
) {
    const sparsec_window *w = &s->window;
    const int width = s->y.width, taps = count ? count : w->width, step = w->stride_width, apart = count ? 1 : w->dilation_width;
    const float *from = p->buffer + p->before - w->pad_width;
    for (int i = 0; i < width; i += LANES) {
        const float *at = from + (int64_t)i * step;
        vec sum = strided(stride, at, step);
#pragma GCC unroll 4
        for (int k = 1; k < taps; k++) sum = joined(greatest, sum, strided(stride, at + (ptrdiff_t)k * apart, step));
        if (!greatest) sum *= load(p->inverse + i) * inverse;
        if (i + LANES <= room) store(y + i, sum);
        else store_lanes(y + i, sum, lanes_of(0, width - i));
    }
}

static void begin_pool(const int greatest, const pool_plan *p, const sparsec_step *s) {
    const sparsec_window *w = &s->window;
    for (int64_t i = 0; i < p->size; i++) p->buffer[i] = greatest ? -__builtin_inff() : 0.0f;
    if (greatest) return;
    for (int i = 0; i < round_up(s->y.width, LANES); i++) {
        p->inverse[i] = 1.0f / inside(i * w->stride_width - w->pad_width, w->dilation_width, w->width, s->x.width);
    }
}

INLINE void pool_row(
    const int greatest, const pool_plan *p, const sparsec_step *s, const float *x, int row, float *y, int64_t room
) {
    const sparsec_window *w = &s->window;
    const int width = s->x.width, near = w->dilation_width == 1, down = w->dilation_height;
    int first = row * w->stride_height - w->pad_height;
    const int rows = inside(first, down, w->height, s->x.height);
    if (first < 0) first += (-first + down - 1) / down * down;
    float *buffer = p->buffer + p->before;
    if (rows == 0) {
        for (int i = 0; i < width; i++) buffer[i] = greatest ? -__builtin_inff() : 0.0f;
    } else {
        const float *from = x + (int64_t)first * width;
        const int64_t step = (int64_t)down * width;
        if (rows == 3) join_rows(greatest, 3, from, step, 3, buffer, width);
        else join_rows(greatest, 0, from, step, rows, buffer, width);
    }
    const float inverse = 1.0f / rows;
    if (w->stride_width == 1 && near && w->width == 3) join_columns(greatest, 1, 3, p, s, inverse, y, room);
    else if (w->stride_width == 2 && near && w->width == 3) join_columns(greatest, 2, 3, p, s, inverse, y, room);
    else if (w->stride_width == 2 && near && w->width == 2) join_columns(greatest, 2, 2, p, s, inverse, y, room);
    else if (w->stride_width == 1) join_columns(greatest, 1, 0, p, s, inverse, y, room);
    else if (w->stride_width == 2) join_columns(greatest, 2, 0, p, s, inverse, y, room);
    else join_columns(greatest, 0, 0, p, s, inverse, y, room);
}

INLINE void pool(const int greatest, const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const pool_plan p = plan_pool(s, scratch);
    const int64_t size_x = (int64_t)s->x.height * s->x.width, size_y = (int64_t)s->y.height * s->y.width;
    const int64_t begin = share(s->y.channels, part, parts), end = share(s->y.channels, part + 1, parts);
    begin_pool(greatest, &p, s);
    for (int64_t channel = begin; channel < end; channel++) {
        const float *x = row_of(&s->x, memory, channel);
        float *y = row_of(&s->y, memory, channel);
        for (int n = 0; n < s->y.samples; n++, x += size_x) {
            for (int row = 0; row < s->y.height; row++) {
                const int64_t place = n * size_y + (int64_t)row * s->y.width;
                pool_row(greatest, &p, s, x, row, y + place, s->y.pitch - place);
            }
            if (finishes(s)) NAME(finish)(s, memory, channel, n * size_y, size_y);
        }
    }
}

int64_t SIZE(max_pool)(const sparsec_step *s) { return plan_pool(s, NULL).bytes; }

void NAME(max_pool)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    pool(1, s, memory, scratch, part, parts);
}

int64_t SIZE(avg_pool)(const sparsec_step *s) { return plan_pool(s, NULL).bytes; }

void NAME(avg_pool)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    pool(0, s, memory, scratch, part, parts);
}
