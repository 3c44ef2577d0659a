/* Reductions over the positions of each sample. */
#include "vector.h"

enum { MEAN, SUM, GREATEST };

/* Several sums at once, since each addition waits for the one before in its sum. */
static float sum_of(const float *x, int64_t count) {
    vec a = {0}, b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        a += load(x + i);
        b += load(x + i + LANES);
        c += load(x + i + 2 * LANES);
        d += load(x + i + 3 * LANES);
    }
    for (; i + LANES <= count; i += LANES) a += load(x + i);
    if (i < count) b += load_lanes(x + i, lanes_of(0, (int)(count - i)));
    return total((a + b) + (c + d));
}

/* The error of a sum grows with the number of its terms, so long ones are sums of short ones. */
static double long_sum(const float *x, int64_t count) {
    const int64_t terms = 1024;
    double sum = 0;
    for (int64_t i = 0; i < count; i += terms) sum += sum_of(x + i, count - i < terms ? count - i : terms);
    return sum;
}

static float greatest(const float *x, int64_t count) {
    float found = x[0];
    int64_t i = 0;
    if (count >= LANES) {
        vec best = load(x);
        for (i = LANES; i + LANES <= count; i += LANES) best = maximum(best, load(x + i));
        best = maximum(best, load(x + count - LANES));
        found = best[0];
        for (int lane = 1; lane < LANES; lane++) found = best[lane] > found || best[lane] != best[lane] ? best[lane] : found;
        return found;
    }
    for (i = 1; i < count; i++) found = x[i] > found || x[i] != x[i] ? x[i] : found;
    return found;
}

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
            if (kind == GREATEST) y[n] = greatest(x, count);
            else y[n] = (float)(kind == MEAN ? long_sum(x, count) / (double)count : long_sum(x, count));
        }
        if (samples > 1 && finishes(s)) NAME(finish)(s, memory, row, 0, samples);
    }
    if (samples == 1 && finishes(s)) NAME(finish_vector)(s, memory, begin, end);
}
