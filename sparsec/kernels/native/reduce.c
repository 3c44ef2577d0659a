/* Reductions over the positions of each sample, or over the channels of each position. */
#include "sums.h"

enum { MEAN, SUM, GREATEST, GREATEST_CHANNEL };

int64_t SIZE(reduce)(const sparsec_step *s) { return (void)s, 0; }

static void find_greatest_channels(const sparsec_step *s, float *const *memory, int64_t begin, int64_t end) {
    const float *x = row_of(&s->x, memory, 0);
    float *y = row_of(&s->y, memory, 0);
    for (int64_t i = begin; i < end; i += LANES) {
        const lanes which = lanes_of(0, (int)(end - i < LANES ? end - i : LANES));
        vec greatest = load_lanes(x + i, which);
        for (int64_t row = 1; row < s->x.channels; row++) greatest = maximum(load_lanes(x + row * s->x.pitch + i, which), greatest);
        store_lanes(y + i, greatest, which);
    }
    if (finishes(s)) NAME(finish)(s, memory, 0, begin, end - begin);
}

void NAME(reduce)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int kind = s->options[0], samples = s->x.samples;
    const int64_t count = (int64_t)s->x.height * s->x.width, all = positions(&s->y);
    if (kind == GREATEST_CHANNEL) {
        find_greatest_channels(s, memory, share(all, part, parts), share(all, part + 1, parts));
        return;
    }
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
