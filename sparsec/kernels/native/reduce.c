/* Reductions over the positions of each sample. */
#include "sums.h"

enum { MEAN, SUM, GREATEST };

int64_t SIZE(reduce)(const sparsec_step *s) { return (void)s, 0; }

void NAME(reduce)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int kind = s->options[0], samples = s->x.samples;
    const int64_t count = (int64_t)s->x.height * s->x.width;
    const int64_t begin = share(s->y.channels, part, parts), end = share(s->y.channels, part + 1, parts);
    for (int64_t row = begin; row < end; row++) {
        const float *x = row_of(&s->x, memory, row);
        float *y = row_of(&s->y, memory, row);
        for (int n = 0; n < samples; n++, x += count) {
            if (kind == GREATEST) y[n] = greatest_of(x, count);
            else y[n] = (float)(kind == MEAN ? sum_of(x, count) / (double)count : sum_of(x, count));
        }
        if (samples > 1 && finishes(s)) NAME(finish)(s, memory, row, 0, samples);
    }
    if (samples == 1 && finishes(s)) NAME(finish_vector)(s, memory, begin, end);
}
