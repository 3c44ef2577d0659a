/*
 * The greatest and the mean of windows. What rows a window is over are made one first, then what columns it is over in that.
 *
 * Rows are made one for each row of the output, in a buffer with room to both sides. Means that are taken at every position of
 * the input do it for a whole plane instead, whose rows follow one another without regard to vectors. Pairs of columns side by
 * side need no buffer.
 */
#include "pairs.h"

/* ---- row by row ------------------------------------------------------------------------------------------------------- */

typedef struct {
    float *buffer;   /* a row of the input, with what does not count to both sides */
    float *inverse;  /* of each position of a row of the output, 1 / how many columns of its window lie inside */
    int32_t *first;  /* of each row of the output, the first row of its window that lies inside */
    int32_t *inside; /* and how many do */
    int64_t before, size;
    int64_t bytes;
} rows_plan;

static rows_plan plan_rows(const sparsec_step *s, void *scratch) {
    const sparsec_window *w = &s->window;
    rows_plan p;
    const int64_t width = round_up(s->y.width, LANES);
    const int64_t end = (width - 1) * w->stride_width + (int64_t)(w->width - 1) * w->dilation_width + 1 - w->pad_width;
    p.before = round_up(w->pad_width, LINE);
    p.size = p.before + (end > s->x.width ? end : s->x.width) + 2 * LANES;
    arena from = {scratch, 0};
    p.buffer = take(&from, sizeof(float) * p.size);
    p.inverse = take(&from, sizeof(float) * width);
    p.first = take(&from, sizeof(int32_t) * s->y.height);
    p.inside = take(&from, sizeof(int32_t) * s->y.height);
    p.bytes = from.used;
    return p;
}

/* How many of `count` things, `step` apart from `first` on, lie in 0 <= i < size. */
static int inside(int first, int step, int count, int size) {
    int found = 0;
    for (int k = 0; k < count; k++) found += first + k * step >= 0 && first + k * step < size;
    return found;
}

static void begin_rows(const int greatest, const rows_plan *p, const sparsec_step *s) {
    const sparsec_window *w = &s->window;
    for (int64_t i = 0; i < p->size; i++) p->buffer[i] = greatest ? -__builtin_inff() : 0.0f;
    for (int i = 0; i < s->y.height; i++) {
        const int first = i * w->stride_height - w->pad_height, step = w->dilation_height;
        p->first[i] = first < 0 ? first + (-first + step - 1) / step * step : first;
        p->inside[i] = inside(first, step, w->height, s->x.height);
    }
    for (int i = 0; i < round_up(s->y.width, LANES); i++) {
        p->inverse[i] = 1.0f / inside(i * w->stride_width - w->pad_width, w->dilation_width, w->width, s->x.width);
    }
}

/* Rows of x made one, `rows` of them, `step` floats apart: to[i] for i < width. */
INLINE void join_rows(const int greatest, const int rows, const float *from, int64_t step, float *to, int width) {
    if (width < LANES) {
        const lanes which = lanes_of(0, width);
        vec sum = load_lanes(from, which);
        for (int k = 1; k < rows; k++) sum = joined(greatest, sum, load_lanes(from + k * step, which));
        store_lanes(to, sum, which);
        return;
    }
    for (int i = 0;; i = least(i + LANES, width - LANES)) {
        vec sum = load(from + i);
#pragma GCC unroll 4
        for (int k = 1; k < rows; k++) sum = joined(greatest, sum, load(from + k * step + i));
        store(to + i, sum);
        if (i + LANES >= width) return;
    }
}

/* Lane i is from[i * step]; `stride` is that where it is known, else 0. */
INLINE vec strided(const int stride, const float *from, int step) {
    if (stride == 1) return load(from);
    if (stride == 2) return evens(load(from), load(from + LANES));
    vec value;
    for (int i = 0; i < LANES; i++) value[i] = from[(ptrdiff_t)i * step];
    return value;
}

/*
 * A plane of the output. `stride` and `taps` are the stride and the width of the window, where these are known, and then its
 * columns lie side by side. What is written beyond a row is the beginning of one that is computed later, as long as there is `room`.
 */
INLINE void pool_rows(
    const int greatest, const int stride, const int taps, const rows_plan *plan, const sparsec_step *s, const float *x, float *y, int64_t room
) {
    const rows_plan p = *plan;
    const sparsec_window w = s->window;
    const int height = s->y.height, width = s->y.width, width_x = s->x.width;
    const int columns = taps ? taps : w.width, apart = taps ? 1 : w.dilation_width;
    const int64_t step = (int64_t)w.dilation_height * width_x;
    float *joint = p.buffer + p.before;
    for (int row = 0; row < height; row++, y += width, room -= width) {
        const float *from = x + (int64_t)p.first[row] * width_x;
        const int rows = p.inside[row];
        if (rows == 3) join_rows(greatest, 3, from, step, joint, width_x);
        else if (rows == 2) join_rows(greatest, 2, from, step, joint, width_x);
        else if (rows) join_rows(greatest, rows, from, step, joint, width_x);
        else for (int i = 0; i < width_x; i++) joint[i] = greatest ? -__builtin_inff() : 0.0f;
        const float inverse = 1.0f / rows;
        for (int i = 0; i < width; i += LANES) {
            const float *at = joint - w.pad_width + (int64_t)i * w.stride_width;
            vec sum = strided(stride, at, w.stride_width);
#pragma GCC unroll 4
            for (int k = 1; k < columns; k++) sum = joined(greatest, sum, strided(stride, at + (ptrdiff_t)k * apart, w.stride_width));
            if (!greatest) sum *= load(p.inverse + i) * inverse;
            if (i + LANES <= room) store(y + i, sum);
            else store_lanes(y + i, sum, lanes_of(0, width - i));
        }
    }
}

typedef void plane_runner(const rows_plan *p, const sparsec_step *s, const float *x, float *y, int64_t room);

#define POOL(kind, greatest, stride, taps) \
    static void kind##_##stride##_##taps(const rows_plan *p, const sparsec_step *s, const float *x, float *y, int64_t room) { \
        pool_rows(greatest, stride, taps, p, s, x, y, room); \
    }
#define POOLS(kind, greatest) \
    POOL(kind, greatest, 1, 3) \
    POOL(kind, greatest, 2, 3) \
    POOL(kind, greatest, 2, 2) \
    POOL(kind, greatest, 1, 0) \
    POOL(kind, greatest, 2, 0) \
    POOL(kind, greatest, 0, 0)
POOLS(max, 1)
POOLS(avg, 0)

static plane_runner *runner(const int greatest, const sparsec_window *w) {
#define PICK(stride, taps) \
    if ((stride == 0 || w->stride_width == stride) && (taps == 0 || (w->width == taps && w->dilation_width == 1))) \
        return greatest ? max_##stride##_##taps : avg_##stride##_##taps;
    PICK(1, 3)
    PICK(2, 3)
    PICK(2, 2)
    PICK(1, 0)
    PICK(2, 0)
    return greatest ? max_0_0 : avg_0_0;
#undef PICK
}

static void run_rows(const int greatest, const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const rows_plan p = plan_rows(s, scratch);
    plane_runner *run = runner(greatest, &s->window);
    const int64_t size_x = (int64_t)s->x.height * s->x.width, size_y = (int64_t)s->y.height * s->y.width;
    const int64_t begin = share(s->y.channels, part, parts), end = share(s->y.channels, part + 1, parts);
    begin_rows(greatest, &p, s);
    for (int64_t row = begin; row < end; row++) {
        for (int n = 0; n < s->y.samples; n++) {
            const float *x = row_of(&s->x, memory, row) + n * size_x;
            run(&p, s, x, row_of(&s->y, memory, row) + n * size_y, s->y.pitch - n * size_y);
            if (finishes(s)) NAME(finish)(s, memory, row, n * size_y, size_y);
        }
    }
}

/* ---- the mean at every position --------------------------------------------------------------------------------------- */

enum { FEW = 2048 }; /* positions of a plane that the cache holds together with what belongs to them */

typedef struct {
    float *inverse;  /* of each position, 1 / how many elements of its window lie inside */
    int32_t *masks;  /* [columns of the window, positions]: all ones where that column lies inside, else 0 */
    float *sums;     /* of the rows of the window, for each position */
    int64_t size;    /* positions, in whole vectors */
    int64_t bytes;
} everywhere_plan;

static int is_everywhere(const sparsec_step *s) {
    const sparsec_window *w = &s->window;
    return w->stride_height == 1 && w->stride_width == 1 && s->x.height == s->y.height && s->x.width == s->y.width &&
           (int64_t)s->y.height * s->y.width <= FEW;
}

/* How far a window reaches to the left and to the right, at most. */
static int64_t reach(const sparsec_window *w) { return round_up((int64_t)w->width * w->dilation_width + w->pad_width, LINE); }

static everywhere_plan plan_everywhere(const sparsec_step *s, void *scratch) {
    everywhere_plan p = {.size = round_up((int64_t)s->y.height * s->y.width, LANES)};
    arena from = {scratch, 0};
    p.inverse = take(&from, sizeof(float) * p.size);
    p.masks = take(&from, sizeof(int32_t) * p.size * s->window.width);
    p.sums = take(&from, sizeof(float) * (p.size + 2 * reach(&s->window)));
    if (scratch) p.sums += reach(&s->window);
    p.bytes = from.used;
    return p;
}

static void begin_everywhere(const everywhere_plan *p, const sparsec_step *s) {
    const sparsec_window *w = &s->window;
    for (int64_t i = 0; i < p->size; i++) {
        const int row = (int)(i / s->y.width), column = (int)(i % s->y.width);
        const int rows = inside(row - w->pad_height, w->dilation_height, w->height, s->x.height);
        const int columns = inside(column - w->pad_width, w->dilation_width, w->width, s->x.width);
        p->inverse[i] = 1.0f / (rows * columns);
        for (int k = 0; k < w->width; k++) {
            const int at = column + k * w->dilation_width - w->pad_width;
            p->masks[k * p->size + i] = at >= 0 && at < s->x.width ? -1 : 0;
        }
    }
}

/* `height` and `width` are those of the window. */
INLINE void average(
    const int height, const int width, const everywhere_plan *plan, const sparsec_step *s, const float *x, float *y, int64_t room
) {
    const everywhere_plan p = *plan;
    const int64_t count = (int64_t)s->y.height * s->y.width;
    const int64_t down = (int64_t)s->window.dilation_height * s->y.width, above = (int64_t)s->window.pad_height * s->y.width;
    const int64_t right = s->window.dilation_width, before = s->window.pad_width;
    for (int64_t i = 0; i < p.size; i += LANES) {
        vec sum = {0};
#pragma GCC unroll 4
        for (int k = 0; k < height; k++) {
            const int64_t at = i + k * down - above;
            if (at >= 0 && at + LANES <= count) sum += load(x + at);
            else if (at > -LANES && at < count) sum += load_lanes(x + at, lanes_of(at < 0 ? (int)-at : 0, least(LANES, (int)(count - at))));
        }
        store(p.sums + i, sum);
    }
    for (int64_t i = 0; i < p.size; i += LANES) {
        vec sum = {0};
#pragma GCC unroll 4
        for (int k = 0; k < width; k++) {
            const ivec mask = *(const ivec *)(p.masks + k * p.size + i);
            sum += (vec)(*(const ivec *)(p.sums + i + k * right - before) & mask);
        }
        sum *= load(p.inverse + i);
        if (i + LANES <= room) store(y + i, sum);
        else store_lanes(y + i, sum, lanes_of(0, (int)(count - i)));
    }
}

static void average_3(const everywhere_plan *p, const sparsec_step *s, const float *x, float *y, int64_t room) {
    average(3, 3, p, s, x, y, room);
}

static void average_any(const everywhere_plan *p, const sparsec_step *s, const float *x, float *y, int64_t room) {
    average(s->window.height, s->window.width, p, s, x, y, room);
}

static void run_everywhere(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const everywhere_plan p = plan_everywhere(s, scratch);
    const int64_t size = (int64_t)s->y.height * s->y.width;
    const int64_t begin = share(s->y.channels, part, parts), end = share(s->y.channels, part + 1, parts);
    begin_everywhere(&p, s);
    for (int64_t row = begin; row < end; row++) {
        for (int n = 0; n < s->y.samples; n++) {
            const float *x = row_of(&s->x, memory, row) + n * size;
            float *y = row_of(&s->y, memory, row) + n * size;
            (s->window.height == 3 && s->window.width == 3 ? average_3 : average_any)(&p, s, x, y, s->y.pitch - n * size);
            if (finishes(s)) NAME(finish)(s, memory, row, n * size, size);
        }
    }
}

/* ---- pairs of columns -------------------------------------------------------------------------------------------------- */

/* Whether windows are two columns wide, side by side, and all inside. */
static int is_paired(const sparsec_step *s) {
    const sparsec_window *w = &s->window;
    const int lowest = (s->y.height - 1) * w->stride_height + (w->height - 1) * w->dilation_height;
    return w->width == 2 && w->stride_width == 2 && w->dilation_width == 1 && w->pad_width == 0 && w->pad_height == 0 &&
           2 * s->y.width <= s->x.width && lowest < s->x.height;
}

INLINE void run_pairs(const int greatest, const sparsec_step *s, float *const *memory, int part, int parts) {
    const int64_t size_x = (int64_t)s->x.height * s->x.width, size_y = (int64_t)s->y.height * s->y.width;
    const int64_t begin = share(s->y.channels, part, parts), end = share(s->y.channels, part + 1, parts), width = s->x.width;
    const pairs p = {s->y.height, s->y.width, s->window.dilation_height * width, s->window.stride_height * width};
    for (int64_t row = begin; row < end; row++) {
        for (int n = 0; n < s->y.samples; n++) {
            const float *x = row_of(&s->x, memory, row) + n * size_x;
            float *y = row_of(&s->y, memory, row) + n * size_y;
            const int64_t room_x = s->x.pitch - n * size_x, room_y = s->y.pitch - n * size_y;
            if (s->window.height == 2) pool_pairs(greatest, 2, &p, x, room_x, y, room_y);
            else pool_pairs(greatest, s->window.height, &p, x, room_x, y, room_y);
            if (finishes(s)) NAME(finish)(s, memory, row, n * size_y, size_y);
        }
    }
}

/* ---- the kernels ------------------------------------------------------------------------------------------------------ */

int64_t SIZE(max_pool)(const sparsec_step *s) { return plan_rows(s, NULL).bytes; }

void NAME(max_pool)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    if (is_paired(s)) run_pairs(1, s, memory, part, parts);
    else run_rows(1, s, memory, scratch, part, parts);
}

int64_t SIZE(avg_pool)(const sparsec_step *s) {
    return is_everywhere(s) ? plan_everywhere(s, NULL).bytes : plan_rows(s, NULL).bytes;
}

void NAME(avg_pool)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    if (is_everywhere(s)) run_everywhere(s, memory, scratch, part, parts);
    else if (is_paired(s)) run_pairs(0, s, memory, part, parts);
    else run_rows(0, s, memory, scratch, part, parts);
}
