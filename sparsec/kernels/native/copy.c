/* Elements in another order: along any axes, each with how far apart elements are in the input and in the output. */
#include "transpose.h"

/* An axis of a copy: how many elements, and floats from one to the next in the input and in the output. */
typedef struct {
    int64_t count, from, to;
} along;

INLINE along axis_of(const sparsec_copy *c, int i) {
    const int64_t *axis = c->axis + 3 * (ptrdiff_t)i;
    return (along){axis[0], axis[1], axis[2]};
}

static void copy_plane(const float *x, float *y, along a, along b) {
    if (b.from == 1 && b.to == 1) {
        for (int64_t i = 0; i < a.count; i++) memcpy(y + i * a.to, x + i * a.from, sizeof(float) * b.count);
    } else if (a.from == 1 && b.to == 1) {
        transpose(x, b.from, y, a.to, b.count, a.count);
    } else {
        for (int64_t i = 0; i < a.count; i++) {
            for (int64_t j = 0; j < b.count; j++) y[i * a.to + j * b.to] = x[i * a.from + j * b.from];
        }
    }
}

int64_t SIZE(copy)(const sparsec_step *s) { return (void)s, 0; }

void NAME(copy)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const sparsec_copy *c = s->weights;
    const along b = axis_of(c, c->axes - 1);
    along a = axis_of(c, c->axes - 2);
    const int64_t rows = a.count;
    int64_t all = rows;
    for (int i = 0; i < c->axes - 2; i++) all *= axis_of(c, i).count;
    const int64_t begin = share(all, part, parts), end = share(all, part + 1, parts);
    const float *x = (c->constant ? c->constant : row_of(&s->x, memory, 0)) + c->first_x;
    float *y = row_of(&s->y, memory, 0) + c->first_y;
    for (int64_t at = begin; at < end; at += a.count) {
        const int64_t first = at % rows;
        int64_t outer = at / rows, from = first * a.from, to = first * a.to;
        for (int i = c->axes - 3; i >= 0; i--) {
            const along axis = axis_of(c, i);
            from += outer % axis.count * axis.from;
            to += outer % axis.count * axis.to;
            outer /= axis.count;
        }
        a.count = end - at < rows - first ? end - at : rows - first;
        copy_plane(x + from, y + to, a, b);
    }
}
