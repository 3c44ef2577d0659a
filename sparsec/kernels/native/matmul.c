/* Products of two values, one for each row of positions of each sample. */
#include "multiply.h"

int64_t SIZE(matmul)(const sparsec_step *s) { return (void)s, 0; }

void NAME(matmul)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const sparsec_value *a = &s->x, *b = &s->extra, *y = &s->y;
    const int64_t channels = y->channels, all = (int64_t)y->samples * y->height * channels;
    const int64_t begin = share(all, part, parts), end = share(all, part + 1, parts);
    for (int64_t at = begin; at < end;) {
        const int64_t row = at % channels, pair = at / channels, stop = end - at < channels - row ? row + end - at : channels;
        const int64_t sample = pair / y->height, in_sample = pair % y->height;
        /* A value with one row of positions is met by all of the other. */
        const int64_t of_a = sample * a->height + (a->height > 1 ? in_sample : 0);
        const int64_t of_b = sample * b->height + (b->height > 1 ? in_sample : 0), to = pair * y->width;
        const factors f = {
            .a = row_of(b, memory, 0) + of_b * b->width, .down = b->pitch, .along = 1,
            .b = row_of(a, memory, 0) + of_a * a->width, .pitch_b = a->pitch,
            .y = row_of(y, memory, 0) + to, .pitch_y = y->pitch, .depth = b->width,
        };
        multiply(&f, row, stop, y->width);
        if (finishes(s)) {
            if (y->pitch == 1) NAME(finish_vector)(s, memory, row, stop);
            else for (int64_t i = row; i < stop; i++) NAME(finish)(s, memory, i, to, y->width);
        }
        at += stop - row;
    }
}
