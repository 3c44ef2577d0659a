/* Rows of a table. Some of them at a time are brought together, and become columns of the output. */
#include "transpose.h"

int64_t SIZE(gather)(const sparsec_step *s) { return LANES * s->y.channels * (int64_t)sizeof(float); }

void NAME(gather)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    const float *table = s->weights;
    const int64_t count = positions(&s->y), channels = s->y.channels, last = s->x.channels, rows = s->options[0];
    const int64_t begin = share(count, part, parts), end = share(count, part + 1, parts);
    float *found = scratch, *y = row_of(&s->y, memory, 0);
    for (int64_t first = begin; first < end; first += LANES) {
        const int64_t some = end - first < LANES ? end - first : LANES;
        for (int64_t i = 0; i < some; i++) {
            const int64_t at = first + i, index = (int64_t)row_of(&s->x, memory, at % last)[at / last];
            memcpy(found + i * channels, table + (index < 0 ? index + rows : index) * channels, sizeof(float) * channels);
        }
        transpose(found, channels, y + first, s->y.pitch, some, channels);
    }
    if (begin == end || !finishes(s)) return;
    if (count == 1) NAME(finish_vector)(s, memory, 0, channels);
    else for (int64_t row = 0; row < channels; row++) NAME(finish)(s, memory, row, begin, end - begin);
}
