/* Reductions over the positions of each sample, or over the channels of each position. */
#include "sums.h"

enum { MEAN, SUM, GREATEST, GREATEST_CHANNEL, MEAN_CHANNEL, SUM_CHANNEL };

enum { BLOCK = 64 }; /* channels that are added up by themselves, so that the error of a sum stays small */

int64_t SIZE(reduce)(const sparsec_step *s) { return (void)s, 0; }

static vec greatest_channel(const float *x, ptrdiff_t pitch, int channels, lanes which) {
    vec greatest = load_lanes(x, which);
    for (int c = 1; c < channels; c++) greatest = maximum(load_lanes(x + c * pitch, which), greatest);
    return greatest;
}

static vec sum_of_channels(const float *x, ptrdiff_t pitch, int channels, lanes which) {
    vec sum = {0};
    for (int first = 0; first < channels; first += BLOCK) {
        const int stop = least(first + BLOCK, channels);
        vec part = {0};
        for (int c = first; c < stop; c++) part += load_lanes(x + c * pitch, which);
        sum += part;
    }
    return sum;
}

static void reduce_channels(const sparsec_step *s, float *const *memory, int64_t begin, int64_t end) {
    const int kind = s->options[0], channels = s->x.channels;
    const float *x = row_of(&s->x, memory, 0);
    float *y = row_of(&s->y, memory, 0);
    for (int64_t i = begin; i < end; i += LANES) {
        const lanes which = lanes_of(0, (int)(end - i < LANES ? end - i : LANES));
        vec found;
        if (kind == GREATEST_CHANNEL) found = greatest_channel(x + i, s->x.pitch, channels, which);
        else found = sum_of_channels(x + i, s->x.pitch, channels, which);
        if (kind == MEAN_CHANNEL) found /= (float)channels;
        store_lanes(y + i, found, which);
    }
    if (finishes(s)) NAME(finish)(s, memory, 0, begin, end - begin);
}

void NAME(reduce)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int kind = s->options[0], samples = s->x.samples;
    const int64_t count = (int64_t)s->x.height * s->x.width, all = positions(&s->y);
    if (kind >= GREATEST_CHANNEL) {
        reduce_channels(s, memory, share(all, part, parts), share(all, part + 1, parts));
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
