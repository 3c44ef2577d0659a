/* From channels-last memory to values and back, and other changes of the order in which elements lie. */
#include "transpose.h"

int64_t SIZE(load)(const sparsec_step *s) { return (void)s, 0; }

void NAME(load)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t count = positions(&s->x), channels = s->x.channels;
    const float *x = row_of(&s->x, memory, 0);
    float *y = row_of(&s->y, memory, 0);
    if (count == 1) {
        if (part) return;
        memcpy(y, x, sizeof(float) * channels);
        if (finishes(s)) NAME(finish_vector)(s, memory, 0, channels);
        return;
    }
    const int64_t begin = share(count, part, parts), end = share(count, part + 1, parts);
    if (channels == 1) memcpy(y + begin, x + begin, sizeof(float) * (end - begin));
    else transpose(x + begin * channels, channels, y + begin, s->y.pitch, end - begin, channels);
    if (!finishes(s)) return;
    for (int64_t row = 0; row < channels; row++) NAME(finish)(s, memory, row, begin, end - begin);
}

int64_t SIZE(store)(const sparsec_step *s) { return (void)s, 0; }

void NAME(store)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t count = positions(&s->x), channels = s->x.channels;
    const float *x = row_of(&s->x, memory, 0);
    float *y = row_of(&s->y, memory, 0);
    if (count == 1) {
        if (part == 0) memcpy(y, x, sizeof(float) * channels);
        return;
    }
    const int64_t begin = share(count, part, parts), end = share(count, part + 1, parts);
    if (channels == 1) memcpy(y + begin, x + begin, sizeof(float) * (end - begin));
    else transpose(x + begin, s->x.pitch, y + begin * channels, channels, channels, end - begin);
}

/* The rows of the flat value are [position, channel], those of the other [channel]; a sample is a column of the flat one. */
int64_t SIZE(flatten)(const sparsec_step *s) { return (void)s, 0; }

void NAME(flatten)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t channels = s->x.channels, plane = (int64_t)s->x.height * s->x.width, samples = s->x.samples;
    const int64_t begin = share(channels, part, parts), end = share(channels, part + 1, parts);
    if (s->y.pitch == 1) {
        transpose(row_of(&s->x, memory, begin), s->x.pitch, row_of(&s->y, memory, begin), channels, end - begin, plane);
        return;
    }
    for (int64_t c = begin; c < end; c++) {
        const float *x = row_of(&s->x, memory, c);
        for (int64_t p = 0; p < plane; p++) {
            float *y = row_of(&s->y, memory, p * channels + c);
            for (int64_t n = 0; n < samples; n++) y[n] = x[n * plane + p];
        }
    }
}

int64_t SIZE(unflatten)(const sparsec_step *s) { return (void)s, 0; }

void NAME(unflatten)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t channels = s->y.channels, plane = (int64_t)s->y.height * s->y.width, samples = s->y.samples;
    const int64_t begin = share(channels, part, parts), end = share(channels, part + 1, parts);
    for (int64_t c = begin; c < end; c++) {
        float *y = row_of(&s->y, memory, c);
        for (int64_t p = 0; p < plane; p++) {
            const float *x = row_of(&s->x, memory, p * channels + c);
            for (int64_t n = 0; n < samples; n++) y[n * plane + p] = x[n];
        }
    }
}

/* Copies a row of x into one of y, with zeros around each sample. */
static void pad_row(const sparsec_step *s, const float *x, float *y) {
    const int width = s->x.width, left = s->window.pad_width, right = s->y.width - width - left;
    for (int n = 0; n < s->y.samples; n++) {
        for (int i = 0; i < s->y.height; i++, y += s->y.width) {
            const int from = i - s->window.pad_height;
            if (from < 0 || from >= s->x.height) {
                memset(y, 0, sizeof(float) * s->y.width);
                continue;
            }
            memset(y, 0, sizeof(float) * left);
            memcpy(y + left, x + ((ptrdiff_t)n * s->x.height + from) * width, sizeof(float) * width);
            memset(y + left + width, 0, sizeof(float) * right);
        }
    }
}

/* Copies every so many-th position of a row of x into one of y. */
static void pick_row(const sparsec_step *s, const float *x, float *y) {
    const int down = s->window.stride_height, right = s->window.stride_width, width = s->y.width;
    for (int n = 0; n < s->y.samples; n++, x += (ptrdiff_t)s->x.height * s->x.width) {
        for (int i = 0; i < s->y.height; i++, y += width) {
            const float *from = x + (ptrdiff_t)i * down * s->x.width;
            int j = 0;
            /* Two vectors are read for one, so the last is left out: it might reach beyond the input. */
            for (; right == 2 && j + LANES < width; j += LANES) store(y + j, evens(load(from + 2 * j), load(from + 2 * j + LANES)));
            for (; j < width; j++) y[j] = from[j * right];
        }
    }
}

int64_t SIZE(select)(const sparsec_step *s) { return (void)s, 0; }

void NAME(select)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t count = positions(&s->y), plane = (int64_t)s->x.height * s->x.width;
    const int64_t begin = share(s->y.channels, part, parts), end = share(s->y.channels, part + 1, parts);
    const ptrdiff_t down = s->options[1], right = s->options[3];
    for (int64_t row = begin; row < end; row++) {
        const float *x = row_of(&s->x, memory, row) + (int64_t)s->options[0] * s->x.width + s->options[2];
        float *y = row_of(&s->y, memory, row);
        for (int n = 0; n < s->y.samples; n++, x += plane) {
            for (int i = 0; i < s->y.height; i++, y += s->y.width) {
                const float *from = x + i * down * s->x.width;
                for (int j = 0; j < s->y.width; j++) y[j] = from[j * right];
            }
        }
        if (count > 1 && finishes(s)) NAME(finish)(s, memory, row, 0, count);
    }
    if (count == 1) NAME(finish_vector)(s, memory, begin, end);
}

static void scale_row(const sparsec_step *s, int64_t row, const float *x, float *y, int64_t count) {
    const vec scale = splat(s->scale[row]), shift = splat(s->shift[row]), low = splat(s->numbers[0]), high = splat(s->numbers[1]);
    /* Rows of several positions are padded, which may be written. */
    for (int64_t i = 0; i < count; i += LANES) store(y + i, vclamp(load(x + i) * scale + shift, low, high));
}

int64_t SIZE(map)(const sparsec_step *s) { return (void)s, 0; }

void NAME(map)(const sparsec_step *s, float *const *memory, void *scratch, int part, int parts) {
    (void)scratch;
    const int64_t count = positions(&s->y);
    const int64_t begin = share(s->y.channels, part, parts), end = share(s->y.channels, part + 1, parts);
    if (count == 1 && s->x.pitch == 1) {
        memmove(row_of(&s->y, memory, begin), row_of(&s->x, memory, begin), sizeof(float) * (end - begin));
        NAME(finish_vector)(s, memory, begin, end);
        return;
    }
    const int same = s->x.height == s->y.height && s->x.width == s->y.width;
    const int picks = s->window.stride_height > 1 || s->window.stride_width > 1;
    for (int64_t row = begin; row < end; row++) {
        const float *x = row_of(&s->x, memory, row);
        float *y = row_of(&s->y, memory, row);
        if (picks) pick_row(s, x, y);
        else if (!same) pad_row(s, x, y);
        else if (s->scale) scale_row(s, row, x, y, count);
        else if (x != y) memcpy(y, x, sizeof(float) * count);
        if (finishes(s)) NAME(finish)(s, memory, row, 0, count);
    }
}
